"""Secret sharing: what may be opened, what is refused, and what opening tells."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chi2

import lpmppl as lpm
from lpmppl.effects.handlers import Decided, FixedPoint, SecretShared
from lpmppl.effects.internals.discrete_gaussian import discrete_gaussian
from lpmppl.effects.opening import Custodian, Noised
from lpmppl.effects.ops import aggregate, ring_sum, tally
from lpmppl.errors import InputError, LpmError
from lpmppl.models.archetypes import counts
from lpmppl.models.networks import Edges, Groups

N = 1_000
AREA = Groups("area", torch.arange(N) % 4, 4)
HOME = Groups("household", torch.arange(N) // 3, -(-N // 3))
ILL = torch.arange(N) % 7 == 0


def secret(**options):
    return SecretShared(3, quiet=True, **options)


def test_small_groups_are_refused_by_name_with_what_to_do():
    streets = Groups("street", torch.arange(N) // 8, 125)
    with (
        secret(),
        pytest.raises(LpmError, match=r"'street' has 125 groups of fewer than 10 members.*Custodian\(least=8"),
    ):
        ring_sum(ILL.long(), streets)
    with secret(opening=Custodian(least=8)):
        ring_sum(ILL.long(), streets)


def test_a_group_without_members_tells_of_nobody():
    with secret() as handler:
        assert ring_sum(ILL.long(), Groups("area", torch.arange(N) % 4, 9)).tolist()[4:] == [0] * 5
    assert handler.opened == 1


def test_members_elsewhere_count():
    part = Groups("street", torch.zeros(N, dtype=torch.long), 2, members=torch.tensor([N, 3]))
    with secret(), pytest.raises(LpmError, match="the smallest of 3"):
        ring_sum(ILL.long(), part)
    with pytest.raises(InputError, match="members of shape"):
        Groups("street", torch.zeros(N, dtype=torch.long), 2, members=torch.tensor([N]))


def test_what_custodians_keep_is_never_shared_nor_opened():
    with secret() as handler:
        found = aggregate(ILL, HOME)
    assert torch.equal(found.dense(), aggregate(ILL, HOME).dense())
    assert (handler.opened, handler.kept) == (0, 1)


@pytest.mark.parametrize("reduce", ["any", "max"])
def test_what_is_no_sum_is_refused_unless_it_stays_at_home(reduce):
    with secret(), pytest.raises(LpmError, match=f"network 'area': reduce='{reduce}' isn't a sum"):
        aggregate(ILL, AREA, reduce=reduce)
    with secret():
        aggregate(ILL, HOME, reduce=reduce)


def test_derivatives_backwards_are_refused_with_the_remedy():
    beta = torch.ones((), requires_grad=True)
    with secret(), pytest.raises(LpmError, match=r"'area'.*forward=True"):
        aggregate(ILL * 0.5 * beta, AREA)


def test_tangents_that_do_not_fit_are_refused_by_name():
    with torch.autograd.forward_ad.dual_level():
        message = torch.autograd.forward_ad.make_dual(ILL.double(), torch.full((N,), 1e9, dtype=torch.float64))
        with secret(), pytest.raises(InputError, match=r"'area': a value of 1000000000\.0"):
            aggregate(message, AREA)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"parties": 1}, "parties=1"),
        ({"parties": 10**30}, "parties=10+: give 1,000 at most"),
        ({"parties": True}, "parties=True"),
        ({"parties": "three"}, "parties='three'"),
        ({"opening": "custodian"}, "opening='custodian'"),
        ({"fraction_bits": 63}, "fraction_bits=63"),
        ({"fraction_bits": 1.5}, "fraction_bits=1.5"),
    ],
)
def test_settings_that_can_not_be_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        SecretShared(**given)


def test_no_group_has_more_members_than_anybody_could():
    with pytest.raises(LpmError, match="has 2 groups of fewer than 1"):
        Custodian(least=10**30).check("area", torch.tensor([3, 0, 5], dtype=torch.int32))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Custodian(least=1), "least=1"),
        (lambda: Custodian("household"), "keep='household'"),
        (lambda: Noised(), "sigma=nan"),
        (lambda: Noised(sigma=0.0), "sigma=0.0"),
        (lambda: Noised.within(0.0, 1e-6, 10), "epsilon=0.0"),
        (lambda: Noised.within("1", 1e-6, 10), "epsilon=1"),
        (lambda: Noised(sigma=1e19), r"sigma=1e\+19"),
        (lambda: Noised(sigma=1.0).epsilon(10, 2.0), "delta=2.0"),
        (lambda: Custodian(None), "keep=None"),
        (lambda: Custodian((1, 2)), r"keep=\(1, 2\)"),
        (lambda: FixedPoint(lost=5), "lost=5"),
        (lambda: Groups("a", torch.zeros(3, dtype=torch.long), 1, public="no"), "public='no'"),
        (lambda: Groups("a", torch.zeros(3, dtype=torch.long), 1, members=[3]), "members are list"),
        (lambda: discrete_gaussian(-1.0, (1,)), "sigma=-1.0"),
        (lambda: discrete_gaussian(math.nan, (1,)), "sigma=nan"),
    ],
)
def test_openings_that_can_not_be_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_the_mode_is_said_on_stderr_unless_told_not_to(capsys):
    with SecretShared(3):
        pass
    said = capsys.readouterr()
    assert said.out == ""
    assert "secret sharing among 3 parties" in said.err
    assert "custodian mode" in said.err
    with secret():
        pass
    assert capsys.readouterr().err == ""


def test_a_queue_is_refused_where_there_is_something_to_queue_for():
    city = lpm.nyc.pandemic(lpm.nyc.population(4_000), by={"borough": "borough"})
    with secret(opening=Custodian(least=2)), pytest.raises(LpmError, match="whose turn it is among"):
        lpm.run(city, days=3, interventions=[("doses_per_day", 0.01, 0)])


def test_an_unknown_size_of_integers_is_the_same_with_and_without_a_running_total():
    base = ring_sum(ILL.int(), AREA)
    with secret():
        one = ring_sum(ILL.int(), AREA)
        more = ring_sum(ILL.int(), AREA, one)
    assert one.dtype == base.dtype
    assert torch.equal(more, 2 * base)


@pytest.mark.parametrize("sigma", [0.7, 3.0, 40.5])
def test_the_discrete_gaussian_is_that(sigma):
    """Chi-square against the exact law in cells of 20 or more; fails once in a million by chance."""
    n = 20_000
    drawn = discrete_gaussian(sigma, (n,)).double()
    x = torch.arange(-int(12 * sigma) - 2, int(12 * sigma) + 3).double()
    p = torch.exp(-x.square() / (2 * sigma**2))
    p = p / p.sum()
    seen = torch.stack([(drawn == k).sum() for k in x]).double()
    common = p * n >= 20
    expected = torch.cat((p[common] * n, (p[~common].sum() * n)[None]))
    found = torch.cat((seen[common], seen[~common].sum()[None]))
    assert int(found.sum()) == n
    assert chi2.sf(float(((found - expected).square() / expected.clamp(min=1)).sum()), int(common.sum())) > 1e-6


def test_noised_sums_have_the_noise_of_every_party():
    """Mean and variance of 8,000 sums: five standard errors each."""
    sigma, many = 4.0, 2_000
    with secret(opening=Noised(sigma=sigma)) as handler:
        draws = [ring_sum(ILL.long(), AREA) for _ in range(many)]
    off = (torch.stack(draws) - ring_sum(ILL.long(), AREA)).double()
    variance = 3 * sigma**2
    assert handler.opened == many
    assert abs(float(off.mean())) < 5 * math.sqrt(variance / off.numel())
    assert abs(float(off.var()) / variance - 1) < 5 * math.sqrt(2 / off.numel())


def test_noise_scales_with_the_largest_message_and_larger_ones_are_refused():
    with secret(opening=Noised(sigma=50.0)):
        found = aggregate(ILL, AREA, reduce="sum")
        off = (found.dense() - aggregate(ILL, AREA, reduce="sum").dense()).abs().max()
    # Noise of 50 whole messages in each of 3 parties, not of 50 quanta.
    with secret(opening=Noised(sigma=50.0)), pytest.raises(LpmError, match="a message of 3 was given"):
        tally("doses", torch.full((N,), 3), by=AREA)
    assert off > 1


def test_noised_totals_are_never_below_nothing():
    with secret(opening=Noised(sigma=500.0)):
        for _ in range(20):
            assert bool((ring_sum(torch.zeros(N, dtype=torch.int32), AREA) >= 0).all())


def test_a_message_that_goes_to_many_is_not_noised():
    graph = Edges("graph", torch.arange(N), (torch.arange(N) + 1) % N, N)
    with secret(opening=Noised(sigma=5.0)), pytest.raises(LpmError, match="'graph': a message goes to many"):
        ring_sum(ILL.long(), graph)


def test_the_accountant_is_the_closed_form():
    found = Noised.within(epsilon=2.0, delta=1e-5, sums=400)
    assert found.epsilon(400, 1e-5) == pytest.approx(2.0)
    rho = 400 / (2 * found.sigma**2)
    assert found.epsilon(400, 1e-5) == pytest.approx(rho + 2 * math.sqrt(rho * math.log(1e5)))


def test_the_ledger_counts_what_was_opened_and_whom_it_names():
    all_in_one = torch.arange(N) % 4 == 2
    with secret(ledger=True) as handler:
        tally("ill", ILL, by=AREA)
        tally("ill", all_in_one, by=AREA)
        aggregate(ILL, HOME)
    entry = handler.ledger.opened["area"]
    assert (entry.sums, entry.groups, entry.smallest) == (2, 4, 250)
    assert entry.identified == 250
    assert entry.cleared == pytest.approx((0.0 + 0.75) / 2)
    assert entry.bits == pytest.approx(8 * math.log2(251))
    # The second sum tells everybody's state: the entropy of a quarter.
    known = -0.25 * math.log2(0.25) - 0.75 * math.log2(0.75)
    assert entry.bits_each == pytest.approx(known, abs=1e-3)
    assert handler.ledger.kept == {"household": 1}


def test_the_ledger_counts_what_sums_could_have_been_whatever_they_were():
    with secret(ledger=True) as handler:
        ring_sum(torch.zeros(N, dtype=torch.long), AREA)
    assert handler.ledger.opened["area"].bits == pytest.approx(4 * math.log2(251))
    with secret(ledger=True) as handler:
        ring_sum(-torch.ones(N, dtype=torch.long), AREA)
        ring_sum(torch.ones(500, dtype=torch.long), Groups("area", torch.arange(500) % 4, 4))
    assert handler.ledger.opened["area"].identified == 1500


def test_a_stratum_is_never_kept_whatever_it_is_called():
    people = lpm.nyc.population(1_000)
    city = lpm.nyc.sir(people, by={"household": "household"})
    with secret(), pytest.raises(LpmError, match=r"'household' has .* fewer than 10"):
        lpm.run(city, days=1)
    with secret() as handler:
        lpm.run(lpm.nyc.sir(people, by={"workplace": "borough"}), days=2)
    assert (handler.opened, handler.kept) == (2 * 4, 2)


def test_groups_are_sized_anew_for_other_people():
    with secret() as handler:
        tally("ill", ILL)
        with pytest.raises(LpmError, match="the smallest of 3"):
            tally("ill", torch.ones(3, dtype=torch.bool))
    assert handler.opened == 1


def test_every_world_counts_for_the_budget():
    x = torch.ones((3, 1, N), dtype=torch.long)
    with secret(opening=Noised(sigma=5.0)) as handler:
        ring_sum(x, AREA)
    assert handler.opened == 3


def test_one_sharing_does_not_stand_inside_another():
    with secret(opening=Noised((), sigma=1e4)), pytest.raises(LpmError, match="stands inside another"):
        secret().__enter__()


def test_handlers_that_read_agents_one_by_one_are_refused():
    people = lpm.nyc.population(2_000)
    city = lpm.nyc.sir(people, by={"borough": "borough"})
    with secret(), pytest.raises(LpmError, match="Sources reads agents one by one"):
        lpm.run(city, days=2, sources={"age": "age"}, set={"initial_infected": 0.02})
    for estimator in ("score", "flips"):
        with secret(), pytest.raises(LpmError, match="reads agents one by one"):
            lpm.sensitivity(city, "infections", wrt=["beta"], days=3, draws=2, estimator=estimator, audit=False)
    with secret(), pytest.raises(LpmError, match="under secret sharing"), Decided():
        lpm.run(lpm.nyc.pandemic(people, by={"borough": "borough"}), days=1)


def test_archetypes_are_not_counted_in_secret():
    with secret(), pytest.raises(LpmError, match="how many agents there are of each archetype"):
        counts(torch.arange(N) % 3, 3)
    assert counts(torch.arange(N) % 3, 3).sum() == N


def test_flows_between_worlds_are_summed_in_secret_too():
    city = lpm.nyc.sir(lpm.nyc.population(3_000), by={"borough": "borough"})
    asked = {"do": {"transmission": 0.5}, "at": 2, "days": 8, "by": {"borough": "borough"}}
    plain = lpm.counterfactual(city, **asked)["flows"].to_dataset()
    with secret(opening=Custodian(least=10)) as handler:
        found = lpm.counterfactual(city, **asked)["flows"].to_dataset()
    assert found.equals(plain)
    assert handler.opened > 4 * 8
    with secret(), pytest.raises(LpmError, match="'family' has"):
        lpm.counterfactual(city, **{**asked, "by": {"family": "household"}})


def test_noised_sums_are_of_numbers_that_are_not_negative_and_within_their_range():
    with secret(opening=Noised((), sigma=5.0)), pytest.raises(LpmError, match="a message is negative"):
        ring_sum(-ILL.long(), AREA)
    with secret(opening=Noised((), sigma=2000.0)):
        found = [ring_sum(-ILL.long(), AREA, torch.full((4,), 200)) for _ in range(10)]
    assert 0 <= int(torch.stack(found).min()) <= int(torch.stack(found).max()) <= 250


def test_nobody_sums_to_nothing():
    with secret(opening=Custodian(least=2)):
        assert tally("ill", torch.zeros(0, dtype=torch.bool)).tolist() == [0]


def test_the_ledger_is_not_kept_unless_asked_for():
    with FixedPoint() as handler:
        tally("ill", ILL)
    assert handler.ledger is None
