"""Guided runs to reports of events: under-reporting and delays, against sums over all that may have happened."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

import lpmppl as lpm
from lpmppl.effects.handlers import Reported
from lpmppl.errors import InputError, LpmError
from lpmppl.models.model import Parameter
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from tests.effects.test_guided import Spreading, exact, guided
from tests.inference.test_sensitivity import Decay
from tests.oracles import far

NAN = math.nan
REPORTS = {
    "a share": Reported([1, 0, 1], share=0.6),
    "two steps after": Reported([NAN, 0, 1, 1], delay=2),
    "some steps after": Reported([0, 2, 1], share=0.8, delay=[0.3, 0.5, 0.2]),
    "a step that wasn't seen": Reported([1, NAN, 1], delay=[0.6, 0.3, 0.1]),
}


def seen_of(events, reports):
    """The probability of the reports that were seen, given how many events each step had."""
    steps, share = len(reports), float(reports.share)
    law = {(0,) * steps: 1.0}
    for step, count in enumerate(events):
        ways = [(step + lag, share * x) for lag, x in enumerate(reports.delay) if step + lag < steps]
        for _ in range(count):
            following = {}
            for known, mass in law.items():
                rest = 1.0
                for when, chance in ways:
                    after = tuple(x + (k == when) for k, x in enumerate(known))
                    following[after] = following.get(after, 0.0) + mass * chance
                    rest -= chance
                following[known] = following.get(known, 0.0) + mass * rest
            law = following
    agrees = lambda known: all(math.isnan(y) or y == x for x, y in zip(known, reports, strict=True))  # noqa: E731
    return sum(mass for known, mass in law.items() if agrees(known))


@pytest.mark.parametrize("kind", REPORTS)
def test_the_mean_weight_is_the_probability_of_the_reports(kind):
    """Failure rate RATE for each: 800 guided runs, against the sum over everybody's state and every way to report."""
    model, reports = Spreading(), REPORTS[kind]
    every = itertools.product(range(6), repeat=len(reports))
    truth = sum(exact(model, 0.4, n) * seen_of(n, reports) for n in every if sum(n) <= 5)
    found = lpm.likelihood(model, {"infection": reports}, draws=800, set={"beta": 0.4})
    weights = np.exp(found["log_weight"].values)
    assert abs(weights.mean() - truth) < far(len(REPORTS)) * weights.std(ddof=1) / math.sqrt(len(weights))
    assert weights.std(ddof=1) / math.sqrt(len(weights)) < 0.1 * truth


def test_a_row_is_the_run_of_its_draw_alone():
    model, reports = Spreading(), {"infection": REPORTS["some steps after"]}
    together, state = guided(model, reports, [0, 1, 2, 3])
    for k in range(4):
        alone, mine = guided(model, reports, k)
        assert float(alone) == pytest.approx(float(together[k]), rel=1e-12)
        assert torch.equal(mine["infected"].reshape(-1), state["infected"][k].reshape(-1))


class Leaving(Decay):
    """Everybody leaves at one rate, so that reports of who did are binomial."""

    def __init__(self):
        super().__init__(200)
        self.parameters = {
            "rate": Parameter(torch.distributions.LogNormal(-2.0, 0.3), 0.2, "", "", ""),
            "told": Parameter(torch.distributions.Beta(2.0, 2.0), 0.5, "", "", ""),
        }


def test_events_that_are_never_reported_come_beside_those_that_are():
    """Failure rate RATE: 400 rows of one day, against the binomial of who left without being reported."""
    model, seen, share, p = Leaving(), 12, 0.3, -math.expm1(-0.2)
    log_weight, state = guided(model, {"leaving": Reported([seen], share=share)}, list(range(400)))
    assert torch.allclose(log_weight, torch.tensor(stats.binom.logpmf(seen, 200, p * share)))
    left = (~state["here"]).sum(-1).double()
    beside = p * (1 - share) / (1 - p * share)
    error = math.sqrt((200 - seen) * beside * (1 - beside) / len(left))
    assert abs(float(left.mean()) - seen - (200 - seen) * beside) < far() * error and float(left.min()) > seen


def test_a_share_that_is_a_parameter_has_its_posterior():
    """The share that is reported, given reports of one day, beside its density on a grid."""
    model, seen = Leaving(), 14
    fit = lpm.calibrate_exactly(
        model, {"leaving": Reported([seen], share="told")}, 400, parameters=["told"], set={"rate": 0.2}, draws=4000
    )
    grid = np.linspace(0.0005, 0.9995, 1000)
    density = stats.beta.pdf(grid, 2, 2) * stats.binom.pmf(seen, 200, grid * -math.expm1(-0.2))
    density /= density.sum()
    mean = (grid * density).sum()
    spread = math.sqrt(((grid - mean) ** 2 * density).sum())
    told = fit["posterior"]["told"].to_numpy()
    assert abs(told.mean() - mean) < 0.25 * spread and abs(told.std() / spread - 1) < 0.2
    assert list(fit["observed_data"]["leaving"].values) == [seen]


@pytest.mark.slow
def test_an_epidemic_is_calibrated_by_delayed_reports_of_some():
    people = Population.of({"household": np.arange(402) // 3})
    model = SIR(people, [people.network("household"), people.everyone()])
    run = lpm.run(model, 15, 3, set={"beta": 0.5, "initial_infected": 0.05})
    events = run["prior_predictive"]["infections"].to_numpy().reshape(15, -1).sum(-1)
    rng, delay = np.random.default_rng(0), (0.2, 0.5, 0.3)
    reports = np.zeros(18, int)
    for day, count in enumerate(events.tolist()):
        for lag, some in enumerate(rng.multinomial(rng.binomial(int(count), 0.5), delay)):
            reports[day + lag] += some
    fit = lpm.calibrate_exactly(
        model,
        {"infection": Reported(reports[:15], 0.5, delay)},
        400,
        parameters=["beta"],
        set={"initial_infected": 0.05},
    )
    beta = fit["posterior"]["beta"].to_numpy()
    assert abs(beta.mean() - 0.5) < 4 * beta.std() and beta.std() < 0.5 * fit["prior"]["beta"].to_numpy().std()
    assert fit.attrs["effective"] > 5


def test_reports_that_cannot_be_of_any_event_have_no_likelihood():
    found = lpm.likelihood(Spreading(), {"infection": Reported([1, 0, 0], delay=[0.0, 0.5, 0.5])}, draws=4)
    assert found.attrs["log_likelihood"] == -math.inf
    # No report of any step's events comes within the series.
    for late in (Reported([5], delay=1), Reported([1, 4], 0.4, delay=9), Reported([5, NAN], delay=1)):
        assert lpm.likelihood(Spreading(), {"infection": late}, draws=4).attrs["log_likelihood"] == -math.inf
    assert lpm.likelihood(Spreading(), {"infection": Reported([0], delay=3)}, draws=4).attrs["log_likelihood"] == 0.0
    more = lpm.likelihood(Spreading(), {"infection": Reported([7])}, draws=4)
    assert more.attrs["log_likelihood"] == -math.inf


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (([1, -1],), "-1 events of 'reports' in step 1"),
        (("abc",), "can't be read"),
        (([],), "reports of no step"),
        (([1], 0.0), "share=0.0"),
        (([1], 1.5), "share=1.5"),
        (([1], None), "share=None"),
        (([1], 0.5, -1), "delay=-1"),
        (([1], 0.5, [0.5, 0.2]), "add up to 1"),
        (([1], 0.5, "late"), "delay='late'"),
        (([1], 0.5, [1.5, -0.5]), "add up to 1"),
        (([1], 0.5, {0: 0.3, 1: 0.7}), "add up to 1"),
        (([1], 0.5, {0.4, 0.6}), "add up to 1"),
        (([1], torch.ones(2, 2)), r"shape \(2, 2\)"),
        (([1], torch.ones(0)), r"shape \(0,\)"),
        (([1], torch.tensor([0.5, 1.85])), "share=1.85"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        Reported(*arguments)


def test_a_share_by_name_must_be_known():
    with pytest.raises(InputError, match="did you mean 'told'"):
        lpm.likelihood(Leaving(), {"leaving": Reported([3], share="tolt")}, draws=2)
    with pytest.raises(InputError, match="is the name of a parameter, 'told'"):
        guided(Leaving(), {"leaving": Reported([3], share="told")}, 0)
    with pytest.raises(InputError, match=r"parameter rate, the share of 'leaving' that is reported, is 1.7"):
        lpm.likelihood(Leaving(), {"leaving": Reported([3], share="rate")}, draws=2, set={"rate": 1.7})


def test_shares_of_rows_are_for_the_handler():
    shares = torch.tensor([0.2, 0.5, 0.9])
    log_weight, _ = guided(Leaving(), {"leaving": Reported([12], share=shares)}, [0, 1, 2])
    exact = stats.binom.logpmf(12, 200, -math.expm1(-0.2) * shares.double().numpy())
    assert torch.allclose(log_weight, torch.from_numpy(exact))
    with pytest.raises(InputError, match="3 shares of reports of 'leaving' were given for 2 rows"):
        guided(Leaving(), {"leaving": Reported([12], share=shares)}, [0, 1])
    with pytest.raises(InputError, match="give a number, or the name of a parameter"):
        lpm.likelihood(Leaving(), {"leaving": Reported([12], share=shares)}, draws=3)


def test_steps_by_any_whole_number_are_a_delay():
    assert Reported([1], delay=np.int64(2)).delay == Reported([1], delay=torch.tensor(2)).delay == (0.0, 0.0, 1.0)


def test_what_would_have_become_of_a_society_of_which_reports_were_seen():
    people = Population.of({"household": np.arange(300) // 3})
    model = SIR(people, [people.network("household"), people.everyone()])
    seen = Reported([2, 4, 5, 7], share=0.5, delay=[0.4, 0.6])
    fixed = {"initial_infected": 0.05, "beta": 0.4}
    what = lpm.counterfactual(
        model, {"transmission": 0.2}, 2, 8, draws=3, set=fixed, observed={"infection": seen}, guided=32
    )
    assert json.loads(what.attrs["observed"]) == {"infection": [2, 4, 5, 7]}
    assert json.loads(what.attrs["reported"]) == {"infection": {"share": 0.5, "delay": [0.4, 0.6]}}
    infections = what["prior_predictive"]["infections"]
    assert (infections.isel(policy=0, day=slice(4)).sum("day") >= sum(seen.counts[:3])).all()
    assert (infections.isel(policy=1).sum("day") < infections.isel(policy=0).sum("day")).any()


def test_the_same_run_again_and_chance_left_alone():
    before = torch.get_rng_state()
    asked = [
        lpm.likelihood(Spreading(), {"infection": REPORTS["some steps after"]}, draws=6, seed=s) for s in (1, 1, 2)
    ]
    assert asked[0].equals(asked[1]) and not asked[0].equals(asked[2])
    assert bool((before == torch.get_rng_state()).all())
    with pytest.raises(LpmError):
        guided(Spreading(), {"infection": REPORTS["a share"]}, [0, 1], torch.full((3, 1), 0.4))
