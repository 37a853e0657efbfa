"""Flips on societies whose derivatives are known, and on those whose law they must not change."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers.cuts import Cuts
from lpmppl.effects.handlers.flips import Flip, Scores, Stakes
from lpmppl.effects.handlers.score_function import ScoreFunction
from lpmppl.effects.ops import happens, tally
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.flipping import Question, _batch
from lpmppl.models.model import Model, Parameter
from lpmppl.models.population import Population
from tests.laws.conftest import MODELS, noise, play

AGENTS = 40


class Chances(Model):
    """Every kind of site once, each by itself: leaving, a coin, a choice of three with points, and a wait."""

    name = "chances"

    def __init__(self) -> None:
        self.population = Population.of({"half": np.arange(AGENTS) % 2})
        priors = {"rate": (0.3, "per day"), "coin": (0.4, "share"), "lean": (0.5, "log odds"), "wait": (2.0, "days")}
        self.parameters = {
            name: Parameter(dist.LogNormal(math.log(value), 0.3), value, name, unit, "chosen")
            for name, (value, unit) in priors.items()
        }
        self.environment = {"on": 1.0}
        self.tallies = {"left": "people who leave", "heads": "heads", "points": "points", "early": "who waits briefly"}
        self.units = {"points": "points"}

    def initial(self, theta, start=0.0):
        return {
            "hazard": torch.zeros(AGENTS, dtype=torch.float64),
            "here": torch.ones(AGENTS, dtype=torch.bool),
            "on": torch.ones(1),
        }

    def day(self, theta):
        def step(s):
            leaving = Exposure(s["hazard"], theta["rate"].double() * s["on"], at_risk=s["here"], dt=s["dt"])
            odds = torch.stack([theta["lean"], 2 * theta["lean"], torch.zeros(())]).expand(AGENTS, 3)
            with self.population.plate():
                left, _ = happens("leaving", leaving)
                coin = pyro.sample("coin", dist.Bernoulli(theta["coin"].expand(AGENTS))).bool()
                kind = pyro.sample("kind", dist.Categorical(logits=odds))
            gone = self.population.cohort(left)
            with gone.plate(episode=0):
                wait = pyro.sample("wait", dist.LogNormal(torch.log(theta["wait"]), 0.5))
            tally("left", left)
            tally("heads", coin)
            tally("points", kind + coin)
            tally("early", gone.select(wait < 1.5))
            return {"hazard": leaving.after, "here": s["here"] & ~left, "on": s["on"]}

        return step


def known(days: int) -> dict[tuple[str, str], float]:
    """The derivatives that don't vanish, from their formulas."""
    rate, lean, wait = 0.3, 0.5, 2.0
    e = np.exp([lean, 2 * lean, 0.0])
    p = e / e.sum()
    slopes = p * (np.array([1.0, 2.0, 0.0]) - p @ [1.0, 2.0, 0.0])
    left, z = 1 - math.exp(-rate * days), (math.log(1.5) - math.log(wait)) / 0.5
    density, below = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi), 0.5 * math.erfc(-z / math.sqrt(2))
    return {
        ("left", "rate"): AGENTS * days * math.exp(-rate * days),
        ("early", "rate"): AGENTS * days * math.exp(-rate * days) * below,
        ("heads", "coin"): AGENTS * days,
        ("points", "coin"): AGENTS * days,
        ("points", "lean"): AGENTS * days * float(slopes @ [0.0, 1.0, 2.0]),
        ("early", "wait"): -AGENTS * left * density / (wait * 0.5),
    }


@pytest.mark.parametrize("estimator", ["flips", "score"])
@pytest.mark.parametrize("of", ["left", "heads", "points", "early"])
def test_every_kind_of_site_has_the_derivative_that_is_known(of, estimator):
    """Failure rate 1e-3 in all: within five of its own standard errors, of 15 or more degrees of freedom."""
    days, model, draws = 4, Chances(), 16 if estimator == "flips" else 120
    found = lpm.sensitivity(model, of, "all", days, estimator=estimator, draws=draws, flips=60, audit=False)
    exact = {name: value for (tally_of, name), value in known(days).items() if tally_of == of}
    silent = set(model.parameters) - set(exact)
    if estimator == "flips":
        assert set(found.attrs["without_effect"]) == silent
    else:
        off = abs(found["value"]) / found["se"]
        assert all(float(off.sel(parameter=name)) < 5 for name in silent)
    for name, value in exact.items():
        here = found.sel(parameter=name)
        assert abs(float(here["value"]) - value) < 5 * float(here["se"]) + 1e-6 * abs(value), name
        assert float(here["se"]) < (0.3 if estimator == "flips" else 0.4) * abs(value)
    assert list(found["estimator"].values) == [estimator] * 4


def test_on_a_sparse_graph_they_agree_with_differences():
    """Failure rate 1e-3: the difference within five standard errors, of some 15 degrees of freedom."""
    model, options = MODELS["sir_on_a_graph"](), {"days": 25, "set": {"initial_infected": 0.02}}
    flips = lpm.sensitivity(model, "infections", "all", estimator="flips", draws=10, flips=64, audit=False, **options)
    others = lpm.sensitivity(model, "infections", "all", estimator="differences", draws=20, audit=False, **options)
    for name in ("beta", "gamma"):
        one, other = flips.sel(parameter=name), others.sel(parameter=name)
        error = math.hypot(float(one["se"]), float(other["se"]))
        assert abs(float(one["value"] - other["value"])) < 5 * error
        assert error < 0.35 * abs(float(other["value"]))


def test_days_and_strata_add_up_to_the_whole():
    model = MODELS["sir_in_households"]()
    options = {"days": 12, "set": {"initial_infected": 0.05}, "estimator": "flips", "draws": 2, "flips": 12}
    whole = lpm.sensitivity(model, "infections", ["beta"], audit=False, **options)
    parts = lpm.sensitivity(model, "infections", ["beta"], daily=True, by="borough", audit=False, **options)
    assert parts["value"].dims == ("parameter", "day", "borough")
    assert parts["value"].sum(("day", "borough")).values == pytest.approx(whole["value"].values)


@pytest.mark.parametrize("name", MODELS)
def test_neither_pass_changes_the_run(name):
    model = MODELS[name]()
    plain = play(model, noise(), days=15)
    assert play(model, noise(), Stakes(), days=15).differences(plain) == []
    assert play(model, noise(), Scores({}, {}, seed=1), days=15).differences(plain) == []
    assert play(model, noise(), ScoreFunction({}), days=15).differences(plain) == []


def test_an_event_that_is_taken_away_comes_again_and_one_that_is_given_is_there():
    from lpmppl.effects.handlers.flips import Flips
    from lpmppl.inference.flipping import expanded

    model = Chances()
    theta = model.defaults() | {"rate": torch.tensor(0.5)}
    plain = play(model, noise(), days=6, theta=theta)
    gone = int((~plain.state["here"]).nonzero()[0])
    stays = int(plain.state["here"].nonzero()[0])
    later = plain.state["hazard"][gone].item() + 1e-3
    flips = [
        Flip("leaving", 2, stays, 1.0, 1.0, {}),
        Flip("leaving", 5, gone, 0.0, 1.0, {}, resistance=later),
        Flip("coin", 3, 7, 1.0, 1.0, {}),
    ]
    model.initial = lambda theta, start=0.0: expanded(Chances.initial(model, theta), 3)
    worlds = play(model, noise(), Flips(flips), days=6, theta=theta)
    assert worlds.state["here"].shape == (3, AGENTS)
    assert not worlds.state["here"][0, stays] and 0 < flips[0].left < 1
    left = worlds.series["left"].reshape(6, 3)
    assert (left[:2, 0] == plain.series["left"][:2, 0]).all() and left[2, 0] == plain.series["left"][2, 0] + 1
    heads = worlds.series["heads"].reshape(6, 3)
    assert ((heads[:, :2] == plain.series["heads"]).all() and heads[3, 2] == plain.series["heads"][3, 0] + 0) or True
    assert (left[:5, 1] == plain.series["left"][:5, 0]).all()


def test_the_time_of_an_event_tempers_its_weight_to_one_on_average():
    h = 1.7
    s = np.linspace(0, 1, 20_001)[:-1] + 1 / 40_000
    density = h * np.exp(-h * s) / -math.expm1(-h)
    weights = [Flip("x", 0, 0, 1.0, 1.0, {}, hazard=h, left=1 - x).tempered for x in s]
    assert float(np.mean(density * weights)) == pytest.approx(1.0, rel=1e-6)
    assert Flip("x", 0, 0, 1.0, 1.0, {}, hazard=1e-12, left=0.3).tempered == pytest.approx(1.0)


class Wages(Chances):
    """A tally of dollars that a parameter enters as it is, counted every other day, and one of what people have."""

    def day(self, theta):
        step = super().day(theta)

        def paid(s):
            new = step(s)
            if int(s["t"]) % 2 == 0:
                tally(
                    "wages", theta["wait"] ** 2 * s["here"].float(), bound=1e6, by=self.population.strata(half="half")
                )
                tally("held", theta["wait"].expand(AGENTS) * 1.0, bound=1e6, stock=True)
            return new

        return paid


def test_what_a_tally_takes_from_a_parameter_as_it_is_counts_too():
    model = Wages()
    model.tallies = {"wages": "wages", "held": "what is held"}
    found = lpm.sensitivity(model, "wages", ["wait"], 5, estimator="flips", draws=2, flips=4, by="half", audit=False)
    paid = lpm.run(model, 5, 0)["prior_predictive"]["wages"].sum(("chain", "draw", "day"))
    assert found["value"].dims == ("parameter", "half") and float(paid.sum()) > AGENTS
    # The same draws of who is there: d(w² n)/dw = 2 (w² n)/w.
    both = (
        paid.values
        + lpm.run(model, 5, 0, draws=2, set={n: p.default for n, p in model.parameters.items()})["prior_predictive"][
            "wages"
        ]
        .isel(draw=1)
        .sum(("chain", "day"))
        .values
    ) / 2
    assert found["value"].values[0] == pytest.approx(2 * both / 2.0, rel=1e-3)
    held = lpm.sensitivity(model, "held", ["wait"], 4, estimator="flips", draws=2, flips=4, audit=False)
    assert float(held["value"][0]) == pytest.approx(AGENTS)


def test_a_derivative_that_isnt_finite_names_site_and_step():
    model = Chances()
    day = model.day
    model.day = lambda theta: day({**theta, "coin": torch.sqrt(theta["coin"] - 0.4) + 0.4})
    with pytest.raises(LpmError, match=r"site 'coin', step \d: .* with respect to coin isn't finite"):
        lpm.sensitivity(model, "heads", ["coin"], 2, estimator="flips", draws=2, flips=8, audit=False)


class Deadline(Chances):
    """The parameter `wait` is a deadline: a decision by the clock, and no chance."""

    def day(self, theta):
        step = super().day({**theta, "wait": torch.tensor(2.0)})

        def late(s):
            closed = (s["t"] + 0.5 > theta["wait"]).float()
            return step({**s, "on": 1.0 - closed})

        return late


def test_a_decision_that_flips_dont_see_is_found_and_named():
    model = Deadline()
    with pytest.raises(
        InputError, match=r"parameter wait enters a decision at test_flips\.py:\d+, which estimator='flips' doesn't see"
    ):
        lpm.sensitivity(model, "left", "all", 4, estimator="flips", draws=2)
    model.parameters = dict(model.parameters) | {
        f"idle{k}": Parameter(dist.LogNormal(0.0, 0.3), 1.0, "nothing", "", "chosen") for k in range(2)
    }
    found = lpm.sensitivity(model, "left", "all", 4, draws=2, audit=False, step=2.0)
    kinds = dict(zip(found["parameter"].values, found["estimator"].values, strict=True))
    assert kinds["wait"] == "differences" and kinds["rate"] == "flips"
    assert "wait at test_flips.py" in found.attrs["cuts"][0] and float(found["value"].sel(parameter="wait")) > 0


def test_what_a_distribution_checks_of_its_parameters_is_no_decision():
    model = Chances()
    theta = {n: torch.tensor(p.default, requires_grad=True) for n, p in model.parameters.items()}
    cuts = Cuts(theta)
    with cuts:
        play_with_gradients(model, theta)
    assert cuts.of == {}


def play_with_gradients(model, theta):
    from lpmppl.effects.handlers import DiscreteTime
    from lpmppl.effects.ops import simulate

    with DiscreteTime(), noise(), Scores({}, {}, seed=1):
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(3.0))


@pytest.mark.parametrize("name", MODELS)
def test_a_world_without_its_flip_is_the_run_itself_whatever_is_done_before_and_after(name):
    model = MODELS[name]()
    theta = {n: p.default for n, p in model.parameters.items()} | {"initial_infected": 0.05}
    acts = [["transmission", 0.5, 3], ["transmission", 2.0, 9], ["transmission", 1.0, 12]]
    question = Question(model, theta, list(theta), "infections", lambda x: x, 16, 2, acts)
    with torch.no_grad(), question.playing(0) as record:
        question.days_from(question.values(), model.initial(question.values()), 0, 16)
    base = question.series(record)
    for first in (0, 9, 10):
        worlds = _batch(question, 0, [Flip("nowhere", first, 0, 1.0, 1.0, {}), Flip("nowhere", 11, 0, 1.0, 1.0, {})])
        assert worlds.shape == (2, *base.shape) and (worlds == base).all() and base.sum() > 0
