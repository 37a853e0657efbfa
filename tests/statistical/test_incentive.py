"""Learnt subsidies of the isolation game against Pigou's, in closed form; from totals alone, which noise may hide.

Each comparison with a standard error fails by chance once in a million (`tests.oracles.RATE`); that a price is within
5 % of the externality, where its standard error is 1 %, as often. Seeds are fixed, but for the noise of parties, with
which the price is found to 3 %.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

import lpmppl as lpm
from lpmppl.inference.incentive import price
from lpmppl.models.isolation import Isolation
from lpmppl.models.population import Population
from tests.models.test_isolation import Linear
from tests.oracles import far

pytestmark = pytest.mark.slow
AGENTS, DAYS, LOSS, PUBLIC = 6_000, 20, 300.0, 200.0


def town(among="", **options):
    size = 4
    return Isolation(Population.of({"household": np.arange(AGENTS) // size}), among, loss=LOSS, **options)


def learnt(model, **options):
    given = {"draws": 8, "rounds": 8, "precision": 0.01, "days": DAYS}
    return price(
        model,
        "subsidy",
        lambda t: (LOSS + PUBLIC) * t["infections"],
        "isolators",
        (0.0, 60.0),
        own=lambda t: LOSS * t["infections"] / (AGENTS * DAYS - t["isolators"]),
        **{**given, **options},
    )


def closed(game, subsidy, burden=0.0):
    """The share of the gap between the equilibrium without a subsidy and the best that a subsidy closes, exactly."""

    def cost(s):
        p = game.equilibrium(s)
        return game.social_cost(p) + burden * s * p

    return (cost(0.0) - cost(subsidy)) / (cost(0.0) - cost(game.subsidy(burden)))


MODELS = {
    "everybody meets": lambda: (town(), None),
    "households meet": lambda: (town("household"), None),
    "costs are uniform": lambda: ((m := town(costs=stats.uniform(10.0, 80.0))), Linear(m)),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_within_five_percent_of_the_externality_and_closes_the_gap(name):
    model, behaviour = MODELS[name]()
    game = model.game(public=PUBLIC)
    if behaviour is None:
        found = learnt(model)
    else:
        with behaviour:
            found = learnt(model)
    s, error = float(found["price"]), float(found["root_se"])
    assert abs(s - game.subsidy()) < far() * error
    assert s == pytest.approx(game.subsidy(), rel=0.05)
    assert closed(game, s) > 0.99
    share = game.equilibrium(s)
    gained = AGENTS * DAYS * (game.social_cost(game.equilibrium()) - game.social_cost(share))
    # The integral over prices goes by five of them.
    assert abs(float(found["gain"]) - gained) < far() * float(found["gain_se"]) + 0.03 * gained
    assert float(found["externality"]) == pytest.approx(
        game.externality(share), abs=far() * float(found["externality_se"])
    )


def test_within_a_budget_it_closes_four_fifths_of_the_gap():
    model = town()
    game = model.game(public=PUBLIC)
    best = game.subsidy()
    budget = 0.5 * AGENTS * DAYS * best * game.equilibrium(best)
    found = learnt(model, budget=budget)
    assert float(found["spending"]) <= budget
    assert found.attrs["ended"] == "the budget allows no greater price"
    assert float(found["spending"]) == pytest.approx(budget, rel=0.02)
    assert closed(game, float(found["price"])) == pytest.approx(float(found["gap_closed"]), abs=0.05)
    assert closed(game, float(found["price"])) >= 0.8


def test_where_raising_money_costs_it_is_the_second_best():
    model = town()
    game = model.game(public=PUBLIC)
    found = learnt(model, burden=0.25)
    s = float(found["price"])
    assert abs(s - game.subsidy(0.25)) < far() * float(found["root_se"]) + 0.02 * s
    assert closed(game, s, 0.25) > 0.97 and s < 0.85 * game.subsidy()


def test_from_totals_that_parties_noise_it_is_as_near():
    """Noise of ten messages from each of three parties on every sum, of everybody's contacts too."""
    model = town()
    game = model.game(public=PUBLIC)
    with (
        lpm.SecretShared(parties=3, opening=lpm.Noised(sigma=10.0), quiet=True) as secret,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)
        found = learnt(model, precision=0.012, rounds=5)
    s = float(found["price"])
    assert abs(s - game.subsidy()) < far() * float(found["root_se"]) + 0.02 * s
    assert float(found["root_se"]) < 0.05 * game.subsidy() and closed(game, s) > 0.9
    assert secret.opened > 1000 and secret.kept == 0


def test_refining_the_subsidy_by_costs_that_all_tell_comes_to_the_same():
    """What `refine` finds where private costs are tallied, too, which no price needs."""
    model = town()
    game = model.game(public=PUBLIC)

    def social(t):
        return t["costs"] - t["gains"] - model.benefit * t["isolators"] + (LOSS + PUBLIC) * t["infections"]

    found = lpm.refine(model, [("subsidy", 10.0, 0)], social, {"subsidy": (0.0, 60.0)}, days=DAYS, draws=8)
    best = float(found["amount"].sel(policy=found.attrs["best"]).squeeze())
    assert closed(game, best) > 0.9
    priced = learnt(model)
    assert abs(float(priced["price"]) - best) < 6.0 and closed(game, float(priced["price"])) > closed(game, best) - 0.01
