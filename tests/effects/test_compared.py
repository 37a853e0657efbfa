"""Infections of sums that nobody has: the same society, of which nothing is opened but results and outcomes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import lpmppl as lpm
from lpmppl._compat import Message, Messenger
from lpmppl.cli.trial import leakage
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.fields import Field
from lpmppl.effects.handlers import (
    Checkpointed,
    DiscreteTime,
    ExogenousNoise,
    FixedPoint,
    Pathwise,
    SecretShared,
    StraightThrough,
)
from lpmppl.effects.handlers.compared import FRACTION, InClear
from lpmppl.effects.hidden import Hidden
from lpmppl.effects.internals import in_process
from lpmppl.effects.internals.honest_majority import HonestMajority
from lpmppl.effects.opening import Compared
from lpmppl.effects.ops import aggregate, happens, ring_sum, simulate, tally
from lpmppl.errors import InputError, LpmError
from lpmppl.models.contacts import Layer
from lpmppl.models.networks import Edges, Groups
from lpmppl.models.population import Population
from lpmppl.models.seirm import SEIRM
from lpmppl.models.sir import SIR
from tests.laws.conftest import Outcome, noise, play, policy, trigger, worlds

N = 150
HOME = Groups("household", torch.arange(N) // 3, N // 3)
AREA = Groups("area", torch.arange(N) % 3, 3)
ILL = torch.arange(N) % 7 == 0
COMPARED = Compared(("household",), least=2)


def sir() -> SIR:
    ring = Edges("ring", torch.arange(N), (torch.arange(N) + 1) % N, N)
    return SIR(people(), [HOME, AREA, ring], by={"borough": "borough"})


def seirm() -> SEIRM:
    layers = Layer(HOME, 6.0), Layer(AREA, torch.tensor([12.0, 0.0, 9.0])), Layer(people().everyone(), 2.0)
    return SEIRM(people(), layers, by={"borough": "borough"})


def people() -> Population:
    i = np.arange(N)
    return Population.of({"borough": (i // 75).astype(np.uint8), "age_band": (i % 9).astype(np.uint8)})


def theta(model, beta: float = 1.5):
    given = {"initial_infected": torch.tensor(0.1), "beta": model.defaults()["beta"] * beta}
    return {**model.defaults(), **given}


def lived(model, *handlers, days: int = 15, seed: int = 1) -> Outcome:
    return play(model, noise(seed), *handlers, days=days, theta=theta(model))


def secret(parties: int = 3, **options) -> SecretShared:
    return SecretShared(parties, opening=COMPARED, quiet=True, **options)


def clear(**options) -> FixedPoint:
    return FixedPoint(opening=COMPARED, **options)


def told(outcome: Outcome, parties: int | None = None) -> Outcome:
    """An outcome with its hidden totals opened, as nobody may."""
    among = InClear() if parties is None else HonestMajority(parties)

    def value(x):
        return torch.from_numpy(among.revealed(x.payload.numpy())) if isinstance(x, Hidden) else x

    return Outcome({k: value(v) for k, v in outcome.state.items()}, outcome.series, outcome.worlds)


class TimesDrawn(Messenger):
    """What comparisons do to a plain run: the time of an event within its step is drawn, as nobody knows it."""

    def _pyro_sample(self, msg: Message) -> None:
        if isinstance(msg["fn"], Left) and msg["name"].endswith("/infection.left"):
            own = msg["fn"].exposure
            still = Exposure(own.before, 0.0, own.at_risk, own.episode, own.dt)
            msg["fn"] = Left(still, msg["fn"].event).expand(msg["fn"].batch_shape)


@pytest.mark.parametrize("make", [sir, seirm])
@pytest.mark.parametrize("parties", [3, 5])
def test_among_parties_it_is_the_same_as_in_the_clear_bit_for_bit(make, parties):
    base, handler = lived(make(), clear()), secret(parties)
    found = lived(make(), handler)
    assert told(found, parties).differences(told(base)) == []
    assert base.series["infections"].sum() > 20
    assert handler.hidden > 0


def test_households_may_be_hidden_from_their_custodians_too():
    """Nothing is kept, and the smallest groups are no reason to refuse."""
    opening = Compared((), least=2)
    base, handler = lived(sir(), FixedPoint(opening=opening)), SecretShared(3, opening=opening, quiet=True)
    assert lived(sir(), handler).differences(base) == []
    assert (handler.kept, handler.hidden) == (0, 3 * 15)
    drawn = lived(sir(), TimesDrawn())
    assert np.array_equal(base.series["infections"], drawn.series["infections"])


def test_draws_are_as_each_by_itself():
    draws = ExogenousNoise(1, torch.arange(3)[:, None])
    base, found = (play(sir(), draws, handler, days=12, theta=theta(sir())) for handler in (clear(), secret()))
    assert found.differences(base) == []
    for k in range(3):
        alone = play(sir(), ExogenousNoise(1, k), clear(), days=12, theta=theta(sir()))
        assert np.array_equal(base.series["infections"][:, k], alone.series["infections"])


@pytest.mark.parametrize("make", [sir, seirm])
def test_in_every_world_too(make):
    model = make()
    acts = policy(3, 0.2), trigger(model, 60, 0.5)
    base = lived(model, worlds(), clear(), *acts)
    found = lived(model, worlds(), secret(), *acts)
    assert told(found, 3).differences(told(base)) == []
    alone = lived(model, clear(), policy(3, 0.2))
    one = told(base).world(**{"t=3": 1})
    assert one.differences(Outcome(told(alone).state, alone.series, {})) == []
    assert not np.array_equal(one.series["infections"], told(base).world().series["infections"])


@pytest.mark.parametrize("make", [sir, seirm])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_who_is_infected_when_is_as_in_the_plain_run_whose_times_are_drawn(make, seed):
    """A resistance within rounding of a hazard, float32's of 2⁻²⁴, would differ: one person in some 50,000 runs."""
    base, found = lived(make(), TimesDrawn(), seed=seed), lived(make(), clear(), seed=seed)
    keys = ("susceptible", "infected_at", "stage", "infectious")
    assert all(torch.equal(base.state[k], found.state[k]) for k in keys if k in base.state)
    assert all(np.array_equal(base.series[k], found.series[k]) for k in base.series)


def test_shorter_steps_are_the_plain_run_whose_times_are_drawn_too():
    base, found = (lived(seirm(), DiscreteTime(0.5), handler) for handler in (TimesDrawn(), clear()))
    assert np.array_equal(base.series["infections"], found.series["infections"])


def test_runs_are_the_plain_ones_in_law():
    """Of 25 runs each, of other seeds, the mean number of the infected: within five standard errors."""
    plain = np.array([lived(seirm(), days=10, seed=s).series["infections"].sum() for s in range(25)])
    found = np.array([lived(seirm(), clear(), days=10, seed=s).series["infections"].sum() for s in range(25, 50)])
    assert plain.std() > 1
    assert abs(plain.mean() - found.mean()) < 5 * np.hypot(plain.std(), found.std()) / 25**0.5


def test_nothing_but_results_and_outcomes_is_opened(monkeypatch):
    """All that parties put together: results, uniform numbers, and a bit for each agent and day."""
    shown, summed, known = [], [], []
    together, total, public = HonestMajority._interpolated, in_process.InProcess.total, HonestMajority.public

    def watched(self, x):
        shown.append(together(self, x))
        return shown[-1]

    def opened(self, values, network, *rest):
        summed.append("everybody" if network is None else network.name)
        return total(self, values, network, *rest)

    def everybodys(self, x):
        known.append(x)
        return public(self, x)

    monkeypatch.setattr(HonestMajority, "public", everybodys)
    monkeypatch.setattr(HonestMajority, "_interpolated", watched)
    monkeypatch.setattr(in_process.InProcess, "total", opened)
    handler, days = secret(ledger=True), 15
    lived(seirm(), handler, days=days)
    assert handler.opened == len(summed) == 3 * days
    assert set(summed) == {"borough"}
    among = handler.comparing.among
    assert handler.comparing.tests == among.opened == N * days
    uniform, outcomes = (np.concatenate(some) for some in (shown[::2], shown[1::2]))
    assert set(outcomes.tolist()) == {0, 1}
    assert len(outcomes) == len(uniform) == N * days
    # Top bits and lowest bits: as many ones as zeros, within five standard errors.
    for bits in (uniform >> 60, uniform & 1):
        assert abs(bits.mean() - 0.5) < 2.5 / len(uniform) ** 0.5
    assert ((uniform > 2**50) & (uniform < 2**61 - 2**50)).mean() > 0.99
    # What parties know beforehand is that nobody is infectious before the first day, and has met nobody.
    assert not any(x.any() for x in known)
    # Two networks a day, the running total and today's change of it.
    assert handler.hidden == sum(handler.ledger.hidden.values()) == 4 * days
    assert handler.ledger.hidden == {"area": 2 * days, "everyone": 2 * days}
    assert {row["network"]: row["learnt by"] for row in handler.ledger.rows}["area"] == "nobody"


def test_the_state_of_the_model_does_not_tell_the_hazard():
    found = lived(sir(), secret())
    assert (found.state["exposure"] == 0).all()
    assert not (lived(sir()).state["exposure"] == 0).all()


def test_each_run_begins_anew():
    handler = secret()
    with handler:
        both = [lpm.run(sir(), days=4, set={"initial_infected": 0.1}) for _ in range(2)]
    with secret():
        alone = lpm.run(sir(), days=4, set={"initial_infected": 0.1})
    for found in both:
        assert found["prior_predictive"].to_dataset().equals(alone["prior_predictive"].to_dataset())


@pytest.mark.parametrize("breaking_off", [2, 5])
def test_a_run_that_was_broken_off_leaves_nothing_to_the_next(breaking_off):
    model, base = sir(), lived(sir(), clear(), days=6)
    handler, clock = clear(), DiscreteTime(progress=lambda n, _: n < breaking_off or 1 / 0)
    theta_ = theta(model)
    with torch.no_grad(), handler:
        with clock, noise(), pytest.raises(ZeroDivisionError):
            simulate(model.day(theta_), model.initial(theta_), torch.tensor(0.0), torch.tensor(6.0))
        with DiscreteTime(), noise():
            found = simulate(model.day(theta_), model.initial(theta_), torch.tensor(0.0), torch.tensor(6.0))
    assert torch.equal(found["susceptible"], base.state["susceptible"])


def test_days_one_by_one_are_one_run():
    base = lived(seirm(), clear())
    found = lived(seirm(), clear(), DiscreteTime(progress=lambda *_: None))
    assert told(found).differences(told(base)) == []


@pytest.mark.parametrize("outside", [False, True])
def test_handlers_are_refused_before_anything_is_simulated(outside):
    days = []
    handlers = DiscreteTime(progress=lambda n, _: days.append(n)), secret()
    with pytest.raises(LpmError, match="StraightThrough takes derivatives"):
        lived(sir(), StraightThrough(), *(handlers if outside else reversed(handlers)))
    assert days == []


def test_who_is_lost_is_missing_from_hidden_sums_too():
    def lost(turn, agents):
        return torch.rand(agents, generator=torch.Generator().manual_seed(turn)) < 0.3

    base = lived(sir(), clear(lost=lost))
    assert told(lived(sir(), secret(lost=lost)), 3).differences(told(base)) == []
    assert not torch.equal(base.state["susceptible"], lived(sir(), clear()).state["susceptible"])


def again(*handlers, days: int = 30):
    """Who is infected on which day where people get well after three days, and can then be infected again."""
    folk = people()

    def day(s):
        force = aggregate(s["ill"] > 0, AREA) * 0.9 + aggregate(s["ill"] > 0, HOME) * 0.3
        exposure = Exposure(s["exposure"], force, s["ill"] == 0, episode=s["episode"], dt=s["dt"])
        with folk.plate():
            infected, _ = happens("infection", exposure)
        tally("infections", infected)
        over = s["ill"] == 1
        return {
            "ill": torch.where(infected, 3, (s["ill"] - 1).clamp(min=0)),
            "exposure": torch.where(over, 0.0, exposure.after),
            "episode": s["episode"] + over,
            "history": torch.cat((s["history"][..., 1:, :], infected[None].float())),
        }

    begin = {
        "ill": torch.where(ILL, 3, 0),
        "exposure": torch.zeros(N, dtype=torch.float64),
        "episode": torch.zeros(N, dtype=torch.int64),
        "history": torch.zeros(days, N),
    }
    with torch.no_grad(), DiscreteTime(), noise():
        for handler in handlers:
            handler.__enter__()
        try:
            return simulate(day, begin, torch.tensor(0.0), torch.tensor(float(days)))
        finally:
            for handler in reversed(handlers):
                handler.__exit__(None, None, None)


def test_an_episode_begins_with_no_hazard_behind_it_and_nobody_sees_whose(monkeypatch):
    known, public = [], HonestMajority.public

    def everybodys(self, x):
        known.append(x)
        return public(self, x)

    monkeypatch.setattr(HonestMajority, "public", everybodys)
    plain = again()
    assert plain["episode"].max() >= 3
    for handler in (clear(), secret()):
        found = again(handler)
        assert torch.equal(found["history"], plain["history"])
        assert torch.equal(found["episode"], plain["episode"])
    assert not any(x.any() for x in known)


def test_hazard_from_before_counts_and_what_has_passed_does_not_happen_again():
    """Against the plain exposure of the same hazard, by the same resistances."""
    folk, chance = people(), noise(5)
    before = torch.linspace(0.0, 2.0, N, dtype=torch.float64)
    found = {}
    for name, handler in {"plain": Messenger(), "clear": clear(), "secret": secret()}.items():
        with DiscreteTime(), chance, handler, folk.plate():
            exposure = Exposure(before, aggregate(ILL, AREA) * 5.0, torch.arange(N) % 2 == 0)
            found[name] = happens("infection", exposure)[0]
    assert 5 < int(found["plain"].sum()) < N // 2 - 5
    assert torch.equal(found["clear"], found["plain"])
    assert torch.equal(found["secret"], found["plain"])


def test_a_hazard_that_is_set_beyond_the_resistance_is_no_event():
    """As in a plain run, where an intervention moves what an agent has met from one step to the next."""
    level = noise().resistance("infection", people().ids)
    with clear() as handler:
        force = aggregate(ILL, AREA) * 0.1
        for before, some in ((0.0, True), (60.0, False)):
            exposure = Exposure(torch.full((N,), before, dtype=torch.float64), force, ~ILL)
            assert bool(handler.comparing.tested("infection", exposure).meet(level).any()) == some


def met(hazard, **options):
    with people().plate():
        return happens("infection", Exposure(torch.zeros(N, dtype=torch.float64), hazard, ~ILL, **options))


@pytest.mark.parametrize("make", [clear, secret])
def test_what_can_not_be_is_refused_by_name(make):
    with make(), noise():
        field = aggregate(ILL, AREA)
        with pytest.raises(LpmError, match="site 'infection': its hazard multiplies sums that are never opened"):
            met(aggregate(ILL, HOME) * field)
        with pytest.raises(LpmError, match=r"a step's hazard can be as large as .* room for 128; take shorter steps"):
            met(field * 200.0)
        with pytest.raises(LpmError, match="the hazard before can be as large as 130"), people().plate():
            happens("infection", Exposure(torch.full((N,), 130.0), field, ~ILL))
        with pytest.raises(LpmError, match="a message of 3 was given where one is of 1 or less"):
            ring_sum(3 * ILL.long(), AREA)
        for reduce in ("any", "max"):
            with pytest.raises(LpmError, match=f"'area': reduce='{reduce}' isn't a sum"):
                aggregate(ILL, AREA, reduce=reduce)
        beta = torch.tensor(0.3, requires_grad=True)
        with pytest.raises(LpmError, match="site 'infection': a hazard that nobody has gives no derivative"):
            met(field * beta)
    with make(), pytest.raises(LpmError, match="run under ExogenousNoise"):
        met(aggregate(ILL, AREA))


def test_who_lives_alone_may_have_a_large_hazard_beside_a_large_group():
    """A sum over one is at most one message, whatever sums over others may be."""
    uneven = Groups("area", (torch.arange(N) - 99).clamp(min=0), 51)
    with clear(), noise():
        event, _ = met(aggregate(torch.ones(N), uneven) * 100.0)
    assert torch.equal(event, ~ILL)


def test_derivatives_of_hidden_sums_are_refused():
    with forward_ad.dual_level(), secret():
        message = forward_ad.make_dual(ILL.double(), torch.ones(N, dtype=torch.float64))
        with pytest.raises(LpmError, match="'area': derivatives of sums that nobody has"):
            aggregate(message, AREA)


@pytest.mark.parametrize("handler", [Pathwise(forward=True), Checkpointed(2), StraightThrough()])
def test_handlers_of_derivatives_are_refused(handler):
    with pytest.raises(LpmError, match=f"{type(handler).__name__} takes derivatives"):
        lived(sir(), handler, secret())


def test_a_checkpoint_is_refused(tmp_path):
    with secret(), pytest.raises(LpmError, match="can't hold sums that nobody has"):
        lpm.run(sir(), days=2, checkpoint=tmp_path / "run.pt")


def test_a_model_that_reads_sums_is_refused_by_the_networks_name():
    city = lpm.nyc.pandemic(lpm.nyc.population(1_000), by={"borough": "borough"})
    with secret(), pytest.raises(LpmError, match=r"the sum of '.*' is never opened"):
        lpm.run(city, days=2)


class Elsewhere:
    """Parties that aren't here."""

    agents = None

    def total(self, secret, network, most, sigma):
        raise AssertionError


@pytest.mark.parametrize("parties", [2, Elsewhere()])
def test_there_are_three_parties_or_more_and_all_are_here(parties):
    with pytest.raises(InputError, match=r"parties="):
        SecretShared(parties, opening=COMPARED)


def test_few_in_a_stratum_are_refused_as_by_custodians():
    handler = SecretShared(3, opening=Compared(), quiet=True)
    with handler, pytest.raises(LpmError, match=r"'borough' has .*Compared\(least=6"):
        tally("ill", ILL, by=Groups("borough", torch.arange(N) // 8, 19, dims={"borough": [*map(str, range(19))]}))


def test_the_mode_is_said():
    assert "comparison mode: sums of household stay with their custodians" in str(secret())
    assert "never opened" in str(lpm.Compared())


def test_the_command_says_what_is_never_opened(capsys):
    asked = {"model": "seirm", "agents": 1_000, "days": 4, "compare": True, "by": "borough"}
    leakage(**asked, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["bits_to_fewer_than_half_of_helpers"] == 0
    assert found["never_opened"] == 8
    assert [row["network"] for row in found["learnt"] if row["learnt by"] == "nobody"] == ["neighbourhood"]
    assert "borough" in [row["network"] for row in found["learnt"] if row["learnt by"] == "everybody"]
    leakage(**asked)
    assert "neighbourhood: 8 sums, never opened" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"--compare --noise 3: .* give one of them"):
        leakage(**asked, noise=3.0)


def test_numbers_of_each_agent_are_rounded_to_the_fraction():
    """A hazard of half the smallest unit above the resistance's is no event, and of one it is."""
    unit = 2.0**-FRACTION

    class Level(Messenger):
        def _pyro_sample(self, msg: Message) -> None:
            if isinstance(msg["fn"], Exposure):
                level = torch.full((N,), 7.0, dtype=torch.float64)
                msg["value"], msg["done"] = msg["fn"].meet(level), True

    for more, passes in ((0.0, False), (0.4 * unit, False), (unit, True)):
        with clear(), noise(), Level(), people().plate():
            before = torch.full((N,), 6.0, dtype=torch.float64)
            one = Field.on(torch.full((N,), 1.0 + more, dtype=torch.float64)) + aggregate(ILL * 0, AREA)
            event, _ = happens("infection", Exposure(before, one, torch.ones(N, dtype=torch.bool)))
        assert bool(event.all()) == bool(event.any()) == passes
