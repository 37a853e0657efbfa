"""The isolation game: its solution against every profile of two and three people, and its people against its solution.

Where people are simulated, each test fails by chance once in a million (`tests.oracles.RATE`), and seeds are fixed.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import lpmppl as lpm
from lpmppl._compat import Messenger
from lpmppl.effects.handlers import DiscreteTime, Tabulated
from lpmppl.errors import InputError, LpmError
from lpmppl.models.archetypes import Archetypes, Lookup
from lpmppl.models.isolation import Game, Isolation
from lpmppl.models.population import Population
from tests.oracles import chance, far

FEW = {"prevalence": 0.3, "rate": 1.2, "loss": 90.0, "public": 70.0, "benefit": 4.0}
AGENTS, DAYS = 12_000, 12


def infections(out, q, beta):
    """How many of those who are out are infected on average, each: all statuses and all outcomes, one by one."""
    n = len(out)
    found = np.zeros(n)
    for ill in itertools.product((False, True), repeat=n):
        weight = math.prod(q if x else 1 - q for x in ill)
        hazard = beta / n * sum(x and o for x, o in zip(ill, out, strict=True))
        exposed = [o and not x for x, o in zip(ill, out, strict=True)]
        for hit in itertools.product((False, True), repeat=n):
            if any(h and not e for h, e in zip(hit, exposed, strict=True)):
                continue
            p = math.prod(
                (1 - math.exp(-hazard) if h else math.exp(-hazard)) for h, e in zip(hit, exposed, strict=True) if e
            )
            found += weight * p * np.array(hit)
    return found


def tables(n, q, beta):
    """The infections of each person by who is out."""
    return {out: infections(out, q, beta) for out in itertools.product((False, True), repeat=n)}


@pytest.mark.parametrize("n", [2, 3])
def test_risk_and_externality_are_those_of_all_profiles(n):
    game, by = Game(size=n, **FEW), tables(n, FEW["prevalence"], FEW["rate"])
    for p in (0.0, 0.3, 0.8):
        risk = others = 0.0
        for rest in itertools.product((False, True), repeat=n - 1):
            weight = math.prod(1 - p if o else p for o in rest)
            out, home = by[(True, *rest)], by[(False, *rest)]
            risk += weight * out[0]
            others += weight * (out[1:] - home[1:]).sum()
        assert game.risk(p) == pytest.approx(risk, abs=1e-12)
        assert game.spread(p) == pytest.approx(others, abs=1e-12)
        cost = FEW["public"] * risk + (FEW["loss"] + FEW["public"]) * others
        assert game.externality(p) == pytest.approx(cost, abs=1e-10)


@pytest.mark.parametrize(("n", "kinds"), [(2, 120), (3, 40)])
@pytest.mark.parametrize("law", [stats.uniform(0.0, 60.0), stats.logistic(30.0, 8.0)], ids=["uniform", "logit"])
def test_equilibrium_and_optimum_are_those_of_all_cutoffs(n, kinds, law):
    """Everybody has one of so many costs; every profile of cutoffs, alike or not, is gone through."""
    game, by = Game(size=n, costs=law, **FEW), tables(n, FEW["prevalence"], FEW["rate"])
    costs = np.asarray(law.ppf((np.arange(kinds) + 0.5) / kinds))
    paid = np.concatenate([[0.0], np.cumsum(costs - FEW["benefit"])]) / kinds
    p = np.arange(kinds + 1) / kinds
    axes = np.meshgrid(*[p] * n, indexing="ij")
    social = sum(np.meshgrid(*[paid] * n, indexing="ij"))
    risks = [np.zeros_like(social) for _ in range(n)]
    for out, each in by.items():
        weight = math.prod(1 - x if o else x for x, o in zip(axes, out, strict=True))
        social = social + (FEW["loss"] + FEW["public"]) * weight * each.sum()
    for i in range(n):
        for rest in itertools.product((False, True), repeat=n - 1):
            out = (*rest[:i], True, *rest[i:])
            others = [axes[j] for j in range(n) if j != i]
            weight = math.prod(1 - x if o else x for x, o in zip(others, rest, strict=True))
            risks[i] = risks[i] + weight * by[out][i]
    least = np.unravel_index(social.argmin(), social.shape)
    assert [p[k] for k in least] == pytest.approx([game.optimum()] * n, abs=1.01 / kinds)
    # What is in the middle of so many equal shares lacks a little of the tails.
    assert social.min() / n == pytest.approx(game.social_cost(game.optimum()), abs=9 / kinds)

    def equilibria(subsidy):
        """Profiles in which everybody's cutoff is its best reply: as many costs are below what isolating is worth."""
        best = [np.searchsorted(costs, FEW["benefit"] + subsidy + FEW["loss"] * r) / kinds for r in risks]
        alike = np.all([abs(b - x) < 1e-9 for b, x in zip(best, axes, strict=True)], axis=0)
        return np.argwhere(alike) / kinds

    assert game.alone()
    for subsidy, share in ((0.0, game.equilibrium()), (game.subsidy(), game.optimum())):
        found = equilibria(subsidy)
        assert len(found) and found == pytest.approx(np.full(found.shape, share), abs=1.51 / kinds)
    assert game.equilibrium() < game.optimum() - 0.05


@given(st.lists(st.floats(0.0, 80.0), min_size=2, max_size=3))
@settings(max_examples=40, deadline=None)
def test_where_costs_are_known_paying_the_externality_makes_the_optimum_an_equilibrium(costs):
    """Explicit costs, all profiles: with everybody paid what it does to others there, nobody would leave the best."""
    n = len(costs)
    by = tables(n, FEW["prevalence"], FEW["rate"])
    harm = FEW["loss"] + FEW["public"]

    def social(out):
        return sum(c - FEW["benefit"] for c, o in zip(costs, out, strict=True) if not o) + harm * by[out].sum()

    def but(out, i):
        return (*out[:i], not out[i], *out[i + 1 :])

    best = min(by, key=social)
    for i, cost in enumerate(costs):
        gone = best if best[i] else but(best, i)
        home = but(gone, i)
        own = FEW["loss"] * by[gone][i]
        others = harm * (by[gone].sum() - by[home].sum()) - own
        worth = FEW["benefit"] + own + others - cost
        assert worth >= -1e-9 if not best[i] else worth <= 1e-9


def test_the_burden_of_raising_money_lowers_the_subsidy_to_what_a_search_finds():
    game = Game(size=1000, prevalence=0.05, rate=1.5, loss=300.0, public=200.0, benefit=5.0)
    prices = np.linspace(20, 35, 16)
    shares = np.array([game.equilibrium(s) for s in prices])
    cost = np.array([game.social_cost(p) for p in shares])
    assert prices[cost.argmin()] == pytest.approx(game.subsidy(), abs=1.01)
    assert prices[(cost + 0.25 * prices * shares).argmin()] == pytest.approx(game.subsidy(0.25), abs=1.01)
    assert game.subsidy(0.25) < game.subsidy() - 5
    assert game.subsidy(1e6) == pytest.approx(0.0, abs=1e-4)
    # As the price rises from nothing it first helps, then, far beyond the externality, harms.
    assert game.social_cost(game.equilibrium(game.subsidy())) < game.social_cost(game.equilibrium()) - 1
    assert game.social_cost(game.equilibrium(200.0)) > game.social_cost(game.equilibrium())


def test_like_people_can_be_unlike_where_it_says_that_there_may_be_several_equilibria():
    """Two of whom whoever expects the other at home goes out: found by best replies from either corner."""
    game = Game(size=2, prevalence=0.4, rate=20.0, loss=400.0, costs=stats.uniform(60.0, 20.0))
    assert not game.alone()
    ends = []
    for first in (0.0, 1.0):
        mine, other = first, 1 - first
        for _ in range(200):
            mine = float(game.costs.cdf(game.loss * game.risk(other)))
            other = float(game.costs.cdf(game.loss * game.risk(mine)))
        ends.append((mine, other))
    assert ends[0] == pytest.approx((0.0, 1.0), abs=1e-6) and ends[1] == pytest.approx((1.0, 0.0), abs=1e-6)
    assert 0.2 < game.equilibrium() < 0.8


class Linear(Messenger):
    """Who has costs that are alike likely between two bounds isolates with a probability that rises in a line."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def _pyro_decide(self, msg):
        _, archetypes, _, context = msg["args"]
        worth = self.model.benefit + context["subsidy"] + self.model.loss * context["risk"]
        low, high = self.model.costs.support()
        p = ((worth - low) / (high - low)).clamp(0.0, 1.0).expand(*worth.shape[:-1], archetypes.shape[0])
        msg["value"], msg["done"] = torch.stack([p, 1 - p], -1).float(), True


def town(size=4, agents=AGENTS):
    return Population.of({"household": np.arange(agents) // size, "kind": np.arange(agents) % 2})


def totals(tree):
    return {n: x.to_numpy().reshape(-1, x.sizes["day"]) for n, x in tree["prior_predictive"].to_dataset().items()}


SOCIETIES = {
    "everybody": lambda: (Isolation(town()), None),
    "households": lambda: (Isolation(town(3), "household", loss=900.0), None),
    "uniform costs": lambda: ((m := Isolation(town(), costs=stats.uniform(0.0, 70.0))), Linear(m)),
}


@pytest.mark.parametrize("name", SOCIETIES)
def test_people_do_as_the_game_has_it(name):
    model, behaviour = SOCIETIES[name]()
    game, from_day = model.game(), 6
    run = lambda: lpm.run(model, days=DAYS, interventions=[("subsidy", 30.0, from_day)])  # noqa: E731
    if behaviour is None:
        found = totals(run())
    else:
        with behaviour:
            found = totals(run())
    for days, subsidy in ((slice(0, from_day), 0.0), (slice(from_day, DAYS), 30.0)):
        p = game.equilibrium(subsidy)
        periods = DAYS / 2
        share = found["isolators"][0, days].sum() / AGENTS / periods
        assert abs(share - p) < far(18) * math.sqrt(p * (1 - p) / AGENTS / periods)
        caught, expected = found["infections"][0, days].sum() / AGENTS / periods, (1 - p) * game.risk(p)
        # Infections of one group come together: at most as many as there are in it, of a Poisson's variance otherwise.
        clump = 1 + (game.spread(p) if game.size > 100 else game.size)
        assert abs(caught - expected) < far(18) * math.sqrt(clump * expected / AGENTS / periods)
        cost = (found["costs"] - found["gains"])[0, days].sum() / AGENTS / periods
        private = game.social_cost(p) + game.benefit * p - game.loss * expected
        spread = float(game.costs.std()) + abs(float(game.costs.mean()))
        assert abs(cost - (private + game.loss * (expected - (1 - p) * game.risk(p)))) < far(18) * spread / math.sqrt(
            AGENTS * periods
        )
        assert found["payments"][0, days] == pytest.approx(subsidy * found["isolators"][0, days], abs=1.0)


def test_each_world_is_its_single_run_and_only_the_subsidy_lasts():
    model = Isolation(town())
    tree = lpm.counterfactual(model, {"subsidy": [0.0, 20.0]}, at=4, days=8, seed=3)
    alone = lpm.run(model, days=8, seed=3, interventions=[("subsidy", 20.0, 4)])
    for name, x in tree["prior_predictive"].to_dataset().items():
        world = x.isel(chain=0, draw=0)
        assert (world.sel(policy="subsidy=0@4") == world.sel(policy="as it was")).all()
        assert (world.sel(policy="subsidy=20@4") == alone["prior_predictive"][name].isel(chain=0, draw=0)).all()
    found = totals(alone)["isolators"][0]
    assert found[4:].min() > found[:4].max()


def test_whatever_behaviour_stands_around_it_decides():
    model = Isolation(town())
    with Tabulated({"isolate": torch.tensor([0.25, 0.75])}):
        found = totals(lpm.run(model, days=4))["isolators"]
    assert abs(found.mean() / AGENTS - 0.25) < far() * math.sqrt(0.1875 / AGENTS / 4)
    with pytest.raises(LpmError, match="no behaviour is in force"):
        lpm.run(Isolation(town(), costs=stats.uniform(0.0, 70.0)), days=1)


def test_archetypes_decide_each_for_itself_expecting_what_all_do():
    """Half the people always isolate: the others meet half as many, and do as if there were as few."""
    people = town()
    model = Isolation(people, archetypes=Archetypes(people, {"kind": Lookup("kind")}), by={"kind": "kind"})
    coefficients = {"isolate": {"isolate": {**model.behaviour["isolate"]["isolate"], "kind=0": 1e4}}}
    with lpm.effects.handlers.Utility(coefficients):
        tree = lpm.run(model, days=6)
    always, others = (tree["prior_predictive"]["isolators"].sel(kind=k).to_numpy().sum() / 6 for k in "01")
    assert always == AGENTS / 2
    game = model.game()
    p = 0.0
    for _ in range(100):
        p = float(game.costs.cdf(game.benefit + game.loss * game.risk((1 + p) / 2)))
    assert abs(others / (AGENTS / 2) - p) < far() * math.sqrt(p * (1 - p) / (AGENTS / 2) / 6)


def test_it_is_the_same_in_secret_and_can_be_noised():
    model = Isolation(town())
    acts = [("subsidy", 30.0, 2)]
    plain = totals(lpm.run(model, days=4, interventions=acts))
    with lpm.SecretShared(parties=3, quiet=True) as secret:
        shared = totals(lpm.run(model, days=4, interventions=acts))
    assert all((shared[name] == plain[name]).all() for name in plain)
    assert secret.opened == 4 * (1 + len(model.tallies))
    with lpm.SecretShared(parties=3, opening=lpm.Noised(sigma=3.0), quiet=True):
        noised = totals(lpm.run(model, days=4, interventions=acts))
    apart = noised["isolators"] - plain["isolators"]
    assert 0 < abs(apart).max() < far(4) * 3.0 * math.sqrt(3)


def test_plain_chance_agrees():
    """As a program under torch's own chance: isolators of ten periods within the binomial's error of the game."""
    from lpmppl.effects.handlers import Record, Utility

    model = Isolation(town())
    with chance(1), torch.no_grad(), Record() as record, DiscreteTime(), Utility(model.behaviour):
        from tests.oracles import simulate

        theta = model.defaults()
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(10.0))
    p, game = model.game().equilibrium(), model.game()
    found = {name: series.values.sum() / AGENTS / 10 for name, series in record.series.items()}
    assert abs(found["isolators"] - p) < far(2) * math.sqrt(p * (1 - p) / AGENTS / 10)
    expected = (1 - p) * game.risk(p)
    assert abs(found["infections"] - expected) < far(2) * math.sqrt(2 * expected / AGENTS / 10)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 1}, "size=1"),
        ({"size": 2.0}, "size=2.0"),
        ({"prevalence": 1.0}, "prevalence=1.0"),
        ({"rate": -1.0}, "rate=-1.0"),
        ({"loss": -1.0}, "loss=-1.0"),
        ({"benefit": math.nan}, "benefit=nan"),
        ({"costs": 3.0}, "a continuous law"),
        ({"size": 1000, "rate": 30.0}, "several optima"),
    ],
)
def test_what_is_no_game_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        Game(**{"size": 3, **FEW, **options})


def test_groups_of_several_sizes_and_laws_that_are_none_are_refused():
    with pytest.raises(InputError, match="groups of 2 to 3 people"):
        Isolation(Population.of({"household": np.array([0, 0, 1, 1, 1])}), "household")
    with pytest.raises(InputError, match="groups of 1 to 1 people"):
        Isolation(Population.of({"household": np.arange(5)}), "household")
    with pytest.raises(InputError, match="a continuous law"):
        Isolation(town(), costs="logit")
    with pytest.raises(InputError, match="subsidy=-1 can't be"):
        lpm.run(Isolation(town()), days=2, interventions=[("subsidy", -1.0, 0)])


@pytest.fixture(scope="module")
def paid_to_isolate():
    """The city's tallies without pay, with pay of nothing, and with a day's wage from day 6 on."""
    model = lpm.nyc.pandemic(lpm.nyc.population(3_000), without=["vaccination", "observation", "claims"])
    plans = {"nothing": [("isolation_pay", 0.0, 6)], "pay": [("isolation_pay", 200.0, 6)]}
    tree = lpm.counterfactual(model, plans, days=14, set={"initial_infected": 0.03})
    return tree["prior_predictive"].to_dataset().isel(chain=0, draw=0).sum(["borough", "age"])


class TestPayInThePandemic:
    """`isolation_pay`, dollars a day to who isolates."""

    def test_no_pay_is_as_it_was(self, paid_to_isolate):
        for name, x in paid_to_isolate.items():
            assert (x.sel(policy="nothing") == x.sel(policy="as it was")).all(), name
        assert (paid_to_isolate["isolation_payments"].sel(policy="as it was") == 0).all()

    def test_whoever_isolates_is_paid_and_more_do(self, paid_to_isolate):
        paid = paid_to_isolate["isolation_payments"].sel(policy="pay").to_numpy()
        isolating = paid_to_isolate["isolating"].sel(policy="pay").to_numpy()
        assert paid[:6].sum() == 0 and paid[6:] == pytest.approx(200.0 * isolating[6:], abs=0.5)
        before = paid_to_isolate["isolating"].sel(policy="as it was").to_numpy()
        assert (isolating[:6] == before[:6]).all() and isolating[-1] > 1.05 * before[-1]

    def test_a_days_wage_makes_up_for_need_and_moves_only_who_has_a_job(self):
        from lpmppl.effects.handlers import Utility
        from lpmppl.effects.ops import decide
        from lpmppl.models.behaviour import ISOLATE, UTILITY, WAGE, archetypes

        kinds = archetypes(lpm.nyc.population(1_000))
        with Utility(UTILITY):
            without, paid = (
                decide(
                    "isolate",
                    kinds.table,
                    ISOLATE,
                    {"risk": 1.0, "fatigue": 0.0, "pay": pay, "attributes": kinds.labels},
                )
                for pay in (0.0, WAGE)
            )
        job = kinds.table[:, list(kinds.labels).index("employment")] == 1
        moved = torch.logit(paid[:, 0].double()) - torch.logit(without[:, 0].double())
        assert moved[~job].abs().max() == 0 and moved[job].numpy() == pytest.approx(1.15, abs=1e-3)
