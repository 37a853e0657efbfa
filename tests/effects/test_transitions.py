"""The transition likelihood: its formula, its derivative, and Pyro's SVI on it."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal
from pyro.infer.autoguide.initialization import init_to_value
from pyro.optim import ClippedAdam

import lpmppl as lpm
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, Record, Transitions, Utility
from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError, LpmError
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR

N, DAYS = 500, 20
TRUTH = {"beta": 0.4, "gamma": 0.1, "initial_infected": 0.05}


@pytest.fixture(scope="module")
def model():
    people = Population.of({"household": np.arange(N) // 2})
    return SIR(people, [people.everyone()])


def ran(model, path=None, days=DAYS, **values) -> tuple[Transitions, Record]:
    theta = {n: torch.as_tensor(x) for n, x in {**TRUTH, **values}.items()}
    with Record() as record, DiscreteTime(), ExogenousNoise(3), Transitions(path) as seen:
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(float(days)))
    return seen, record


@pytest.fixture(scope="module")
def path(model):
    return ran(model)[0].path


def test_a_path_is_played_as_it_was_whatever_the_parameters(model, path) -> None:
    first, kept = ran(model)
    for values in ({}, {"beta": 0.2, "gamma": 0.3}):
        again, record = ran(model, path, **values)
        for name, tally in kept.series.items():
            assert all(torch.equal(a, b) for a, b in zip(tally.entries, record.series[name].entries, strict=True))
        assert (float(again.log_prob) == float(first.log_prob)) == (not values)


def test_the_log_probability_is_that_of_the_chain(model, path) -> None:
    """Of people who meet as one group everything is known: who begins, and each day's hazards of numbers of people."""
    for values in ({}, {"beta": 0.3, "gamma": 0.15, "initial_infected": 0.1}):
        theta = {**TRUTH, **values}
        seen, _ = ran(model, path, **values)
        infectious = path["initial_infection", -1, 0].bool()
        begun, susceptible, share = int(infectious.sum()), ~infectious, torch.ones(N, dtype=torch.float64)
        total = begun * math.log(theta["initial_infected"]) + (N - begun) * math.log1p(-theta["initial_infected"])
        for day in range(DAYS):
            new, gone = path["infection", day, 0].bool(), path["recovery", day, 0].bool()
            at, end = path["infection.left", day, 0].double(), path["recovery.left", day, 0].double()
            # Whoever was infected yesterday sheds for what was left of the day.
            h, g = theta["beta"] * float((infectious * share).sum()) / N, theta["gamma"]
            # An event at its time has the density h e^(-h (1 - left)), and who has none e^-h.
            total += float((math.log(h) - h * (1 - at[new])).sum()) - h * int((susceptible & ~new).sum())
            total += float((math.log(g) - g * (1 - end[gone])).sum()) - g * int((infectious & ~gone).sum())
            infectious, susceptible = (infectious & ~gone) | new, susceptible & ~new
            share = torch.where(new, at, 1.0)
        assert float(seen.log_prob) == pytest.approx(total, rel=1e-6)


def test_its_derivative_is_that_of_the_formula(model, path) -> None:
    theta = {n: torch.tensor(x, requires_grad=True) for n, x in TRUTH.items()}
    seen, _ = ran(model, path, **theta)
    found = torch.autograd.grad(seen.log_prob, list(theta.values()))
    for name, slope in zip(theta, found, strict=True):
        up, down = (float(ran(model, path, **{name: TRUTH[name] + e})[0].log_prob) for e in (1e-3, -1e-3))
        assert float(slope) == pytest.approx((up - down) / 2e-3, rel=0.02, abs=0.2)


@pytest.mark.slow
def test_pyros_svi_finds_the_posterior_of_what_happened(model, path) -> None:
    """Who begins has nothing to do with the rest, so that the posterior of how many is known on a grid."""

    def program() -> None:
        theta = model.sample_parameters()
        with DiscreteTime(), ExogenousNoise(0), Transitions(path) as seen:
            simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(float(DAYS)))
        pyro.factor("transitions", seen.log_prob)

    pyro.clear_param_store()
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        torch.manual_seed(0)
        start = init_to_value(values={n: torch.tensor(x) for n, x in TRUTH.items()})
        guide = AutoMultivariateNormal(program, init_loc_fn=start, init_scale=0.1)
        svi = SVI(program, guide, ClippedAdam({"lr": 0.05, "lrd": 0.985}), Trace_ELBO())
        for _ in range(250):
            svi.step()
        low, middle, high = (guide.quantiles([q]) for q in (0.05, 0.5, 0.95))
    begun = int(path["initial_infection", -1, 0].sum())
    grid = torch.linspace(1e-4, 0.2, 4000, dtype=torch.float64)
    log = (
        model.parameters["initial_infected"].prior.log_prob(grid) + begun * grid.log() + (N - begun) * (1 - grid).log()
    )
    exact = torch.softmax(log, 0).cumsum(0)
    for quantile, found in ((0.05, low), (0.5, middle), (0.95, high)):
        right = float(grid[int((exact < quantile).sum())])
        assert float(found["initial_infected"]) == pytest.approx(right, rel=0.2)
    for name in ("beta", "gamma"):
        # With these many events a posterior reaches a tenth or two about the truth.
        assert float(low[name]) < 1.15 * TRUTH[name] and float(high[name]) > 0.85 * TRUTH[name]
        assert 0.05 * TRUTH[name] < float(high[name]) - float(low[name]) < TRUTH[name]


def test_what_cannot_have_happened_has_no_probability(model, path) -> None:
    assert float(ran(model, path, beta=0.0)[0].log_prob) == -math.inf


def test_a_path_that_is_too_short_is_refused(model, path) -> None:
    with pytest.raises(LpmError, match="the path has nothing of site 'recovery' in step 20"):
        ran(model, path, days=DAYS + 1)
    with pytest.raises(LpmError, match="the path has nothing of site 'initial_infection' before the first step"):
        ran(model, {})


def test_the_whole_pandemic_has_a_probability_and_its_derivative() -> None:
    """Choices, waits, counts and events of some agents are all of a path, which is played whatever the noise."""
    pandemic = lpm.nyc.pandemic(lpm.nyc.population(1_000))

    def run(path, seed, theta) -> tuple[Transitions, Record]:
        seen, habits = Transitions(path), Utility(pandemic.behaviour)
        with Record() as record, DiscreteTime(), ExogenousNoise(seed), habits, seen:
            simulate(pandemic.day(theta), pandemic.initial(theta), torch.tensor(0.0), torch.tensor(20.0))
        return seen, record

    theta = {**pandemic.defaults(), "initial_infected": torch.tensor(0.05)}
    first, kept = run(None, 3, theta)
    at = {n: x.clone().requires_grad_() for n, x in theta.items()}
    again, record = run(first.path, 4, at)
    assert float(again.log_prob.detach()) == pytest.approx(float(first.log_prob), rel=1e-9)
    for name, tally in kept.series.items():
        assert all(torch.equal(a, b) for a, b in zip(tally.entries, record.series[name].entries, strict=True)), name
    slopes = torch.autograd.grad(again.log_prob, list(at.values()), allow_unused=True)
    found = {n: float(x) for n, x in zip(at, slopes, strict=True) if x is not None}
    assert all(math.isfinite(x) for x in found.values())
    for name in ("beta", "severity", "fatality", "turnover"):
        h = 0.01 * float(theta[name])
        up, down = (float(run(first.path, 3, {**theta, name: theta[name] + e})[0].log_prob) for e in (h, -h))
        assert found[name] == pytest.approx((up - down) / (2 * h), rel=0.02)


def test_where_it_has_nothing_to_do_or_another_run_is_played_it_says_so(model, path) -> None:
    theta = {n: torch.tensor(x) for n, x in TRUTH.items()}
    nothing = pytest.raises(LpmError, match="met nothing that chance decides: it goes inside ExogenousNoise")
    with nothing, DiscreteTime(), Transitions(path), ExogenousNoise(0):
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(3.0))
    for bad in (torch.ones(2, N), 3, None):
        with pytest.raises(LpmError, match=r"the path has .* of site 'recovery', here of shape"):
            ran(model, {**path, ("recovery", 0, 0): bad})
    with pytest.raises(LpmError, match="here of shape"):
        ran(model, path, beta=torch.tensor([[0.4], [0.3]]))
    with pytest.raises(InputError, match="int was given as a path"):
        Transitions(3)


def test_a_handler_that_is_entered_again_begins_anew(model, path) -> None:
    seen = Transitions(path)
    found = []
    for _ in range(2):
        theta = {n: torch.tensor(x) for n, x in TRUTH.items()}
        with DiscreteTime(), ExogenousNoise(3), seen:
            simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(float(DAYS)))
        found.append(float(seen.log_prob))
    assert found[0] == found[1]
