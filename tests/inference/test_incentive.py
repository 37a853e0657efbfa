"""Learning a price: to the root of what is measured, within range and budget, from totals that nobody sees parts of."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

import lpmppl as lpm
import lpmppl.inference.market as module
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.incentive import price
from lpmppl.models.isolation import Isolation
from lpmppl.models.population import Population

AGENTS, DAYS = 2_000, 6
LOSS, PUBLIC = 300.0, 200.0


def harm(t):
    return (LOSS + PUBLIC) * t["infections"]


def own(t, people=AGENTS * DAYS):
    return LOSS * t["infections"] / (people - t["isolators"])


def town(agents=AGENTS):
    return Isolation(Population.of({"household": np.arange(agents) // 4}), loss=LOSS)


def asked(model=None, **options):
    given = {"lever": "subsidy", "harm": harm, "acts": "isolators", "within": (0.0, 60.0), "days": DAYS, "own": own}
    return price(model or town(), **{**given, "draws": 4, "rounds": 3, **options})


class Markets:
    """Markets in closed form in place of a society: acts A(s), and the externality e(s), with noise or without.

    `noise` is that of harm, each price its own; `moody` that of acts, the same at all prices.
    """

    def __init__(self, acts, externality, noise=0.0, own=0.0, occasions=None, moody=0.0):
        self.acts, self.externality, self.noise, self.own = acts, externality, noise, own
        self.occasions, self.moody = occasions, moody
        self.prices, self.random = [], np.random.default_rng(0)

    def harm(self, s):
        """What dH = −(e + o) dA comes to from 0 on, by the trapezoid rule."""
        grid = np.linspace(0.0, s, 2001)
        worth = self.externality(grid) + self.own
        return -float(((worth[1:] + worth[:-1]) / 2 * np.diff(self.acts(grid))).sum())

    def __call__(self, market, prices, chances):
        self.prices.append(list(prices))
        at, shape = [*prices, 0.0], (len(prices) + 1, len(chances))
        luck = self.noise * self.random.standard_normal(shape)
        harm = np.array([self.harm(s) for s in at])[:, None] + luck
        acts = np.array([float(self.acts(np.array(s))) for s in at])[:, None] + np.zeros(shape)
        acts = acts + self.moody * self.random.standard_normal(len(chances))
        if self.occasions is None:
            return module.Seen(harm, acts, np.full(shape, self.own), prices[1] - prices[0])
        # Acts are per occasion, of which there are fewer as harm falls.
        many = np.array([float(self.occasions(np.array(s))) for s in at])[:, None] + np.zeros(shape)
        return module.Seen(harm, acts * many, np.full(shape, self.own), prices[1] - prices[0], many)


@pytest.fixture
def replaced(monkeypatch):
    def replace(*args, **options):
        markets = Markets(*args, **options)
        monkeypatch.setattr(module.Market, "__call__", lambda *given: markets(*given))
        return markets

    return replace


def line(s):
    return 1000.0 + 50.0 * s


@pytest.mark.parametrize("moves", [-3.0, -0.5, 0.0, 0.4])
def test_it_comes_to_the_root_whether_the_externality_falls_or_rises(replaced, moves):
    replaced(line, lambda s: 20.0 + moves * (s - 20.0), own=3.0)
    found = asked(rounds=6, precision=1e-9)
    # Without noise the secant is exact, and so is the first root.
    assert float(found["price"]) == pytest.approx(20.0, abs=1e-5) and float(found["root_se"]) < 1e-6
    assert float(found["price_se"]) == float(found["root_se"])
    assert float(found["externality"]) == pytest.approx(20.0, abs=1e-6)
    assert found.attrs["moved"] == pytest.approx(moves, abs=1e-6)
    assert found.attrs["ended"] == "as sure as was asked for" and found.sizes["round"] == 3
    # The gain is the triangle between what acts are worth and what they cost at the margin.
    assert float(found["gain"]) == pytest.approx(50.0 * (1 - moves) * 20.0**2 / 2, rel=1e-3)
    assert float(found["gap_closed"]) == pytest.approx(1.0, abs=1e-6)


def test_a_curve_is_followed_to_its_root(replaced):
    replaced(lambda s: 1000.0 / (1.0 + np.exp(-(s - 25.0) / 8.0)), lambda s: 60.0 * np.exp(-s / 25.0))
    found = asked(rounds=8, precision=1e-9)
    exact = 20.0
    for _ in range(200):
        exact = (exact + 60.0 * np.exp(-exact / 25.0)) / 2
    assert float(found["price"]) == pytest.approx(exact, rel=0.01)


def test_its_standard_error_is_that_of_its_price(replaced):
    """Over 100 learnings of noisy harm the root is off by a standard error as often as it should be; rate 1e-6."""
    markets, off = replaced(line, lambda s: 20.0 - 0.5 * (s - 20.0), noise=150.0), []
    for seed in range(100):
        markets.random = np.random.default_rng(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = asked(rounds=6, precision=1e-9, draws=8)
        off.append((float(found["root"]) - 20.0) / float(found["root_se"]))
    assert abs(np.mean(off)) < 4.9 / 100**0.5 * 1.2
    assert 0.7 < np.std(off) < 1.5


@pytest.mark.parametrize(("budget", "noise"), [(20_000.0, 600.0), (10_000.0, 300.0)])
def test_where_a_budget_binds_the_errors_are_those_of_price_and_root(replaced, budget, noise):
    """Over 100 learnings: the price is off by what spending is, the root by what a line that is only seen afar is."""
    markets, off = replaced(line, lambda s: 40.0 + 0.0 * s, noise=noise, moody=20.0), []
    exact = (-1000.0 + (1000.0**2 + 4 * 50.0 * budget) ** 0.5) / 100.0  # s A(s) is the budget
    for seed in range(100):
        markets.random = np.random.default_rng(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = asked(rounds=6, precision=1e-9, draws=8, budget=budget)
        off.append([(found["price"] - exact) / found["price_se"], (found["root"] - 40.0) / found["root_se"]])
    price, root = np.array(off, dtype=float).T
    # It is lowered until other draws are within the budget, and so lies a little below.
    assert 0.7 < np.std(price) < 1.5 and -2.0 < np.mean(price) < 0.5
    assert 0.7 < np.std(root) < 1.5 and abs(np.mean(root)) < 0.5


def test_a_burden_of_raising_money_lowers_the_price_to_that_of_least_cost(replaced):
    markets = replaced(line, lambda s: 30.0 - 0.5 * s)
    found = asked(burden=0.25, rounds=6, precision=1e-9)
    grid = np.linspace(0.0, 30.0, 3001)
    private = 50.0 * grid**2 / 2
    cost = np.array([markets.harm(s) for s in grid]) + private + 0.25 * grid * line(grid)
    assert float(found["price"]) == pytest.approx(grid[cost.argmin()], abs=0.02)
    assert float(found["gain"]) == pytest.approx(cost[0] - cost.min(), rel=1e-3)
    assert float(found["externality"]) == pytest.approx(30.0 - 0.5 * float(found["price"]), abs=1e-6)


def test_the_budget_is_kept_and_said(replaced):
    replaced(line, lambda s: 40.0 + 0.0 * s)
    found = asked(budget=20_000.0, rounds=8)
    exact = (-1000.0 + (1000.0**2 + 4 * 50.0 * 20_000.0) ** 0.5) / 100.0  # s A(s) = 20,000
    assert float(found["spending"]) <= 20_000.0
    assert float(found["price"]) == pytest.approx(exact, rel=0.01)
    assert float(found["root"]) == pytest.approx(40.0, abs=1e-6)
    assert found.attrs["ended"] == "the budget allows no greater price"
    # Of the gain to be had, ∫ (40 − s) dA up to 40, it is that up to the price.
    assert float(found["gap_closed"]) == pytest.approx(1 - ((40 - exact) / 40) ** 2, rel=0.01)
    with pytest.raises(InputError, match="more than the budget of 3000"):
        asked(budget=3_000.0, within=(5.0, 60.0))


@pytest.mark.parametrize(
    ("externality", "at", "said"),
    [(100.0, 60.0, "the greatest price is less"), (-30.0, 0.0, "the least price is more")],
)
def test_beyond_the_range_it_stays_at_its_edge_and_says_so(replaced, externality, at, said):
    replaced(line, lambda s: externality + 0.0 * s, noise=1.0)
    found = asked(rounds=8)
    assert float(found["price"]) == at and found.attrs["ended"].startswith(said)
    assert float(found["price_se"]) == 0.0 < float(found["root_se"])
    assert abs(float(found["root"]) - externality) < 5 * float(found["root_se"])
    assert found.sizes["round"] < 8


def test_where_all_act_it_turns_back(replaced):
    """Beyond a price at which everybody acts nothing can be seen."""
    replaced(lambda s: np.minimum(1000.0 + 100.0 * s, 3000.0), lambda s: 55.0 - 2.5 * np.minimum(s, 20.0))
    found = asked(rounds=8, precision=1e-9)
    assert float(found["price"]) == pytest.approx(55.0 / 3.5, abs=1e-3)


def test_what_other_draws_dont_say_is_warned_of(replaced, monkeypatch):
    markets = replaced(line, lambda s: 20.0 + 0.0 * s)
    monkeypatch.setattr(
        module.Market,
        "__call__",
        lambda market, prices, chances: (
            markets(market, prices, chances)
            if len(prices) == 2
            else Markets(line, lambda s: 10.0 + 0.0 * s)(market, prices, chances)
        ),
    )
    with pytest.warns(UserWarning, match="should be paid 20 by the rounds, but 10"):
        asked()


def test_what_a_price_does_to_occasions_is_no_decision(replaced):
    """Where fewer have to decide, acts fall by it, and more are decided for: as many a dollar as of each occasion."""
    replaced(line, lambda s: 40.0 - s, occasions=lambda s: 1.0 - 0.01 * s)
    found = asked(occasions="infections", rounds=6, precision=1e-9)
    s = float(found["price"])
    # Harm falls by (40 − s) for each of the acts of so many occasions as there were, so that fewer are worth as much.
    assert s == pytest.approx((40.0 - s) / (1.0 - 0.01 * s), rel=1e-3)
    assert float(found["acts"]) == pytest.approx(line(s) * (1.0 - 0.01 * s), rel=1e-9)


def test_acts_that_dont_follow_the_lever_teach_nothing(replaced):
    replaced(lambda s: 1000.0 + 0.0 * s, lambda s: 20.0 + 0.0 * s)
    with pytest.raises(LpmError, match="no clear rise"):
        asked()


def test_among_people_it_is_within_its_error_of_pigous_and_measures_the_gain():
    """Four standard errors: it fails by chance once in 15,000; so does the gain, which costs nobody tells."""
    model = town(4_000)
    game = model.game(public=PUBLIC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = asked(model, own=lambda t: own(t, 4_000 * DAYS), rounds=4, precision=1e-9)
    assert abs(float(found["price"]) - game.subsidy()) < 4 * float(found["root_se"]) < 10
    share = game.equilibrium(float(found["price"]))
    gained = 4_000 * DAYS * (game.social_cost(game.equilibrium()) - game.social_cost(share))
    assert abs(float(found["gain"]) - gained) < 4 * float(found["gain_se"]) + 0.03 * gained
    assert float(found["spending"]) == pytest.approx(float(found["price"] * found["acts"]), rel=1e-6)
    assert 0.9 < float(found["gap_closed"]) <= 1.0
    # What people don't bear themselves is what counts: all of the harm would be priced too high.
    assert abs(float(found["price"]) + LOSS * game.risk(share) - game.subsidy()) > 4 * float(found["root_se"])


def test_it_is_the_same_where_nobody_sees_anybodys_choice():
    options = {"model": town(1_000), "days": 3, "own": None, "draws": 2, "step": 0.2, "precision": 1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        plain = asked(**options)
        with lpm.SecretShared(parties=3, quiet=True) as secret:
            shared = asked(**options)
    xr.testing.assert_identical(plain, shared)
    # One sum of contacts and five tallies a day and draw, in every world: three in a round, seven at the end.
    assert secret.opened == 6 * 3 * (3 * 2 * 3 + 4 * 7)


@pytest.mark.slow
def test_it_works_through_any_model_with_the_lever():
    """The pandemic knows nothing of it: a stock is added up over days, and harm may be a tally."""
    model = lpm.nyc.pandemic(lpm.nyc.population(2_000), without=["vaccination", "observation", "claims"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = price(
            model, "isolation_pay", "infections", "isolating", (0.0, 400.0), days=12, at=2, draws=3, rounds=3,
            step=0.25, set={"initial_infected": 0.03},
        )  # fmt: skip
    assert float(found["acts"]) > 100 and found.attrs["lever"] == "isolation_pay"
    assert 0.0 <= float(found["price"]) <= 400.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lever": "subsidies"}, "did you mean 'subsidy'"),
        ({"harm": "infection"}, "did you mean 'infections'"),
        ({"acts": "isolator"}, "did you mean 'isolators'"),
        ({"own": "infection"}, "did you mean 'infections'"),
        ({"acts": lambda t: t["isolators"]}, "acts=.*give the name of a tally"),
        ({"acts": None}, "acts=None"),
        ({"occasions": lambda t: t["infections"]}, "occasions=.*give the name of a tally"),
        ({"occasions": "infection"}, "did you mean 'infections'"),
        ({"harm": 3.0}, "3.0 was given"),
        ({"harm": None}, "None was given"),
        ({"harm": lambda t: t["nobody"]}, "harm= can't be evaluated"),
        ({"harm": lambda t: 3.0}, "harm= must give one number"),
        ({"harm": lambda t: np.inf * t["infections"]}, "harm= gives inf"),
        ({"own": lambda t: t["infections"].sum()}, "own= must give one number"),
        ({"within": 3.0}, "the least and the greatest price"),
        ({"within": (30.0, 10.0)}, "is no range"),
        ({"within": (-10.0, 10.0)}, "subsidy=-10 can't be"),
        ({"at": DAYS}, "lies outside the run"),
        ({"at": -1}, "at=-1"),
        ({"burden": -0.1}, "burden=-0.1"),
        ({"burden": True}, "burden=True"),
        ({"budget": -1.0}, "budget=-1.0"),
        ({"step": 0.6}, "step=0.6"),
        ({"precision": 0.0}, "precision=0.0"),
        ({"draws": 1}, "draws=1"),
        ({"rounds": 2}, "rounds=2"),
        ({"set": {"rat": 1.0}}, "did you mean 'rate'"),
        ({"model": 3}, "a model is needed"),
    ],
)
def test_what_cannot_be_priced_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        asked(**{"draws": 2, **options})


def test_a_lever_of_words_is_no_price():
    model = lpm.nyc.pandemic(lpm.nyc.population(1_000))
    with pytest.raises(InputError, match="test is one of pcr, antigen"):
        price(model, "test", "infections", "isolating", (0.0, 1.0), days=3)
