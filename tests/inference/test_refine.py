"""Bettering a plan's amounts by gradient: down to what is known to be best, never past the budget or a false slope."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import lpmppl as lpm
import lpmppl.inference.refine as module
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.ops import happens, tally
from lpmppl.errors import InputError
from lpmppl.inference.policies import Act, Policy
from lpmppl.inference.search import Trial
from lpmppl.models.model import Model, Parameter
from lpmppl.models.population import Population
from tests.laws.conftest import MODELS

AGENTS = 4_000


class Bowl(Model):
    """Half the people are harmed by a hazard least at one amount of a measure, the others by another's; both cost."""

    name, best = "bowl", (0.3, 0.7)

    def __init__(self):
        self.population = Population.of({"half": np.arange(AGENTS) % 2})
        self.half = torch.arange(AGENTS) % 2 == 1
        self.by = None
        self.parameters = {"base": Parameter(dist.LogNormal(-3.0, 0.1), 0.05, "harm", "per day", "chosen")}
        self.environment = {"one": 0.0, "other": 0.0}
        self.limits = {"one": (0.0, 1.0), "other": (0.0, 1.0)}
        self.tallies = {"harm": "people harmed", "spent": "dollars"}

    def initial(self, theta, start=0.0):
        return {
            "hazard": torch.zeros(AGENTS, dtype=torch.float64),
            "well": torch.ones(AGENTS, dtype=torch.bool),
            "one": torch.zeros(1),
            "other": torch.zeros(1),
        }

    def day(self, theta):
        def step(s):
            off = torch.where(self.half, s["other"] - self.best[1], s["one"] - self.best[0])
            harm = Exposure(s["hazard"], theta["base"] * (0.2 + 4 * off**2).double(), at_risk=s["well"], dt=s["dt"])
            with self.population.plate():
                harmed, _ = happens("harmed", harm)
            tally("harm", harmed)
            tally("spent", (s["one"] + s["other"]).expand(*harmed.shape[:-1], AGENTS) * 0.5, bound=1.0)
            return {**s, "hazard": harm.after, "well": s["well"] & ~harmed}

        return step


WITHIN = {"one": (0.0, 1.0), "other": (0.0, 1.0)}
FROM = [("one", 0.9, 0), ("other", 0.1, 0)]


def test_it_comes_to_where_harm_is_known_to_be_least():
    found = lpm.refine(Bowl(), FROM, "harm", WITHIN, days=10, draws=6, rounds=8)
    best = found.sel(policy=found.attrs["best"])
    assert best["amount"].values == pytest.approx(Bowl.best, abs=0.1)
    assert found.attrs["rounds"] >= 2 and found.attrs["regret"] < 2
    first = found.sel(policy="one=0.9@0, other=0.1@0")
    assert float(first["objective"] - best["objective"]) > 20 * float(best["sd"]) / 6**0.5
    assert np.isnan(found["amount"].sel(policy="as it was")).all()


def test_the_budget_is_kept_and_shared_out_as_the_slopes_are():
    """Where both harm alike beyond what can be paid, the nearest point of the budget's line is best: .1 and .5."""
    per_unit = 0.5 * AGENTS * 10  # dollars of one amount, over ten days
    found = lpm.refine(
        Bowl(), [("one", 0.0, 0), ("other", 0.2, 0)], "harm", WITHIN, days=10, draws=6, budget=0.6 * per_unit,
        cost="spent", rounds=8,
    )  # fmt: skip
    best = found.sel(policy=found.attrs["best"])
    assert float(best["cost"]) <= 0.6 * per_unit * (1 + 1e-6)
    assert best["amount"].values == pytest.approx((0.1, 0.5), abs=0.12)


def test_a_slope_that_other_draws_dont_have_is_not_followed(monkeypatch):
    """The slope by the wrong draws: here, one that is turned round."""
    slope = module._Slopes.slope

    def turned(self, z, step, chances):
        found, error, price = slope(self, z, step, chances)
        return (-found if chances[0] == 0 else found), error, price

    monkeypatch.setattr(module._Slopes, "slope", turned)
    found = lpm.refine(Bowl(), FROM, "harm", WITHIN, days=10, draws=6)
    assert found.attrs["rounds"] == 0 and "isn't that of other draws" in found.attrs["ended"]
    assert (np.sign(found["slope"]) == -np.sign(found["audit_slope"])).all()


def test_where_nothing_moves_it_stays():
    found = lpm.refine(Bowl(), [("one", 0.3, 5)], "harm", {"one": (0.25, 0.35)}, days=6, draws=4)
    assert found.attrs["ended"] == "no amount has a slope that is clear of zero"
    assert found["slope"].dims == ("act",) and list(found["act"].values) == ["one@5"]


def test_each_act_has_a_name_of_its_own():
    model = lpm.nyc.seirm(lpm.nyc.population(1_000))
    plan = [Act("transmission", 0.5, 3, {"borough": b}) for b in ("Bronx", "Queens")]
    found = lpm.refine(model, plan, "infections", {"transmission": (0.2, 1.0)}, days=6, draws=2, rounds=1)
    assert list(found["act"].values) == ["transmission@3 (Bronx)", "transmission@3 (Queens)"]


def test_its_slope_is_that_of_the_expectation():
    """Failure rate 1e-4: within four of its standard errors, of a formula."""
    trial = Trial(Bowl(), {}, [], 5, 0, "harm", "spent")
    down = module._Slopes(trial, Policy("", (Act("one", 0.8, 0),)), np.array([0.2]), np.array([1.0]), 16)
    slope, error, price = down.slope(down.amounts, 0.05, range(16))
    rate, change = 0.05 * (0.2 + 4 * 0.5**2), 0.05 * 8 * 0.5
    exact = 0.8 * AGENTS / 2 * 5 * change * np.exp(-5 * rate)  # by the range of .8, of which it is a share
    assert abs(slope[0] - exact) < 4 * error[0] + 0.01 * exact
    assert error[0] < 0.1 * exact
    assert price[0] == pytest.approx(0.8 * 0.5 * AGENTS * 5, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"plan": {"transmission": [0.5, 0.2]}, "at": 3}, "2 were given"),
        ({"plan": [("transmision", 0.5, 3)]}, "did you mean 'transmission'"),
        ({"within": {}}, "within= says nothing of transmission"),
        ({"within": {"transmission": (1.0, 0.2)}}, "lies outside"),
        ({"within": {"transmission": (0.6, 1.0)}}, "lies outside 0.6 to 1"),
        ({"within": {"transmission": 1.0}}, "a least and a greatest"),
        ({"within": {"transmission": (-1.0, 1.0)}}, "transmission=-1 can't be"),
        ({"draws": 1}, "draws=1"),
        ({"within": None}, "within=None"),
        ({"step": "a"}, "step='a'"),
        ({"budget": "a", "cost": "infections"}, "budget='a'"),
        ({"objective": None}, "objective=None"),
        ({"rounds": 0}, "rounds=0"),
        ({"step": 0.6}, "step=0.6"),
        ({"budget": -1.0, "cost": "infections"}, "budget=-1"),
        ({"budget": 1.0}, "unknown tally 'payments'"),
        ({"objective": "infection"}, "did you mean"),
        ({"plan": [("transmission", True, 3)]}, "no amount"),
    ],
)
def test_what_cannot_be_bettered_is_refused(options, said):
    given = {"plan": [("transmission", 0.5, 3)], "objective": "infections", "within": {"transmission": (0.2, 1.0)}}
    with pytest.raises(InputError, match=said):
        lpm.refine(MODELS["sir_on_a_graph"](), **{**given, "days": 10, **options})
