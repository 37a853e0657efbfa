"""Guided runs: exact numbers and exact choices, whose weights average to the probability of what was seen."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

import lpmppl as lpm
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, Guided, Record
from lpmppl.effects.handlers.stratified import Stratified
from lpmppl.effects.internals.counts import _poisson_binomial, chosen, log_probability
from lpmppl.effects.ops import aggregate, happens, simulate, tally
from lpmppl.errors import InputError, LpmError
from lpmppl.models.model import Model, Parameter
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from tests.laws.conftest import MODELS
from tests.oracles import RATE, chi_square, far

P = torch.tensor([0.02, 0.3, 0.3, 0.55, 0.9, 0.0, 1.0], dtype=torch.float64)


def every(p, count):
    """The probability of every way in which so many events happen."""
    law = {}
    for outcome in itertools.product((0, 1), repeat=len(p)):
        chance = math.prod(float(x) if y else 1 - float(x) for x, y in zip(p, outcome, strict=True))
        if sum(outcome) == count and chance > 0:
            law[outcome] = chance
    return law


@pytest.mark.parametrize("count", range(9))
def test_the_probability_of_a_count_is_the_sum_over_all_ways(count):
    exact = sum(every(P, count).values()) if count < 8 else 0.0
    assert float(log_probability(P, count).exp()) == pytest.approx(exact, rel=1e-12, abs=1e-300)


def test_far_tails_and_many_agents_are_exact_too():
    p = torch.rand(700, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) ** 4
    law = np.array([1.0])
    for x in p.tolist():
        law = np.convolve(law, [1 - x, x])
    for count in (60, 100, 150, 250):
        assert float(log_probability(p, count)) == pytest.approx(math.log(law[count]), rel=1e-11)


def test_its_derivative_is_that_of_differences():
    p = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_probability(p * scale, 9), scale)
    above, below = (float(log_probability(p * x, 9)) for x in (0.3 + 1e-5, 0.3 - 1e-5))
    assert float(slope) == pytest.approx((above - below) / 2e-5, rel=1e-6)


def test_who_it_happens_to_has_the_law_given_the_count():
    """Failure rate RATE: a chi-square over all ways."""
    law = every(P, 4)
    total, draws = sum(law.values()), 1000
    chance = torch.Generator().manual_seed(3)
    uniforms = lambda rows, *_: torch.rand(len(rows), len(P), dtype=torch.float64, generator=chance)  # noqa: E731
    seen: dict[tuple[int, ...], int] = {}
    for way in map(tuple, chosen(P.expand(draws, -1), 4, uniforms).int().tolist()):
        seen[way] = seen.get(way, 0) + 1
    assert chi_square(seen, {way: x / total for way, x in law.items()}) > RATE


@pytest.mark.parametrize("count", [0, 1, 9, 299, 300])
def test_equal_chances_are_the_binomial_that_tilting_gives_too(count):
    """In value, and in the derivative by everybody's chance."""
    p = torch.full((300,), 0.03, dtype=torch.float64, requires_grad=True)
    closed, tilted = log_probability(p, count), _poisson_binomial(p, count)
    assert float(closed.detach()) == pytest.approx(float(tilted.detach()), rel=1e-10)
    slopes = [torch.autograd.grad(x, p)[0].numpy() for x in (closed, tilted)]
    np.testing.assert_allclose(*slopes, rtol=1e-10, atol=1e-10)


def test_of_rows_each_has_the_probability_that_it_has_alone():
    """Rows alike, rows with differing chances, with some who are sure, and rows that can't be; counts of their own."""
    p = torch.rand(6, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    p[1], p[2, :30], p[3, :35], p[4] = 0.3, 0.0, 1.0, torch.where(p[4] < 0.5, 0.2, 0.0)
    count = torch.tensor([7, 7, 7, 7, 7, 0])
    together = log_probability(p, count)
    alone = torch.stack([log_probability(row, int(k)) for row, k in zip(p, count, strict=True)])
    assert torch.equal(together, alone)
    assert math.isinf(float(together[3])) and int(torch.isfinite(together).sum()) == 5


def test_who_it_happens_to_in_a_row_does_not_depend_on_the_others():
    """Failure rate RATE: a chi-square over all ways of two kinds of rows, drawn beside each other."""
    alike = torch.tensor([0.3, 0.3, 0.3, 0.3, 0.0, 0.3, 1.0], dtype=torch.float64)
    p = torch.stack([P, alike]).repeat(400, 1)
    chance = torch.rand(200, 800, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    ways = chosen(p, 4, lambda rows, attempt, _: chance[attempt, rows]).int()
    one = torch.stack([chosen(row, 4, lambda _, a, __, k=k: chance[a, k][None]) for k, row in enumerate(p[:20])]).int()
    assert torch.equal(one, ways[:20])
    for kind, row in enumerate((P, alike)):
        law = every(row, 4)
        total, seen = sum(law.values()), {}
        for way in map(tuple, ways[kind::2].tolist()):
            seen[way] = seen.get(way, 0) + 1
        assert chi_square(seen, {way: x / total for way, x in law.items()}) > RATE / 2


class Spreading(Model):
    """Infection in households and at large, without recovery or anything else by chance: all is in who was infected."""

    name, by = "spreading", None

    def __init__(self, agents=6, at_home=0.6):
        self.population = Population.of({"household": np.arange(agents) // 2})
        self.networks = [self.population.network("household"), self.population.everyone()]
        self.at_home = at_home
        self.parameters = {"beta": Parameter(torch.distributions.LogNormal(-1.0, 0.3), 0.4, "", "", "")}
        self.environment, self.tallies = {}, {"infections": "infections"}

    def initial(self, theta, start=0.0):
        first = torch.arange(self.population.size) == 0
        return {"infected": first, "hazard": torch.zeros(self.population.size, dtype=torch.float64)}

    def day(self, theta):
        def step(s):
            home, town = (aggregate(s["infected"], n) for n in self.networks)
            met = Exposure(s["hazard"], (home * self.at_home + town) * theta["beta"], ~s["infected"], dt=s["dt"])
            with self.population.plate():
                new, _ = happens("infection", met)
            tally("infections", new)
            return {**s, "hazard": met.after, "infected": s["infected"] | new}

        return step


def exact(model, beta, series):
    """The probability of a series, by summing over everybody's state: the model's own hazards, by hand."""
    n = model.population.size

    def chances(infected):
        town = sum(infected) / n
        home = [(infected[i] + infected[i ^ 1]) / 2 for i in range(n)]
        return [0.0 if infected[i] else -math.expm1(-beta * (home[i] * model.at_home + town)) for i in range(n)]

    states = {tuple(int(i == 0) for i in range(n)): 1.0}
    for count in series:
        following: dict[tuple[int, ...], float] = {}
        for state, mass in states.items():
            for new, x in every(torch.tensor(chances(state)), count).items():
                after = tuple(a | b for a, b in zip(state, new, strict=True))
                following[after] = following.get(after, 0.0) + mass * x
        states = following
    return sum(states.values())


def test_the_mean_weight_is_the_probability_of_what_was_seen():
    """Failure rate RATE: the weights' mean, of 400 guided runs, against the sum over all that may have been."""
    model, series = Spreading(), [1, 0, 2, 1]
    truth = exact(model, 0.4, series)
    found = lpm.likelihood(model, {"infection": series}, draws=400, set={"beta": 0.4})
    weights = np.exp(found["log_weight"].values)
    assert abs(weights.mean() - truth) < far() * weights.std(ddof=1) / math.sqrt(len(weights))
    assert weights.std() > 0.05 * truth  # who was infected matters
    assert found.attrs["log_likelihood"] == pytest.approx(math.log(truth), abs=5 * found.attrs["se"])
    assert 1 < found.attrs["effective_draws"] < 400


HALVES = Stratified({"first": [1, 0, 1], "others": [0, 2, 0]}, torch.tensor([0, 0, 0, 1, 1, 1]))


def exact_by_half(model, beta):
    """The probability of what was seen of `HALVES`, by summing over all ways in which it can have been."""
    states = {tuple(int(i == 0) for i in range(6)): 1.0}
    n = model.population.size
    for first, others in zip(*HALVES.series.values(), strict=True):
        following: dict[tuple[int, ...], float] = {}
        for state, mass in states.items():
            town = sum(state) / n
            home = [(state[i] + state[i ^ 1]) / 2 for i in range(n)]
            p = [0.0 if state[i] else -math.expm1(-beta * (home[i] * model.at_home + town)) for i in range(n)]
            for (a, x), (b, y) in itertools.product(
                every(torch.tensor(p[:3]), first).items(), every(torch.tensor(p[3:]), others).items()
            ):
                after = tuple(u | v for u, v in zip(state, a + b, strict=True))
                following[after] = following.get(after, 0.0) + mass * x * y
        states = following
    return sum(states.values())


def test_of_strata_each_has_what_was_seen_and_weights_average_to_its_probability():
    """Failure rate RATE: 800 rows against the sum over all that may have been of three agents and three others."""
    model = Spreading()
    log_weight, state = guided(model, {"infection": HALVES}, list(range(800)), torch.full((800, 1), 0.6))
    weights, truth = log_weight.exp().numpy(), exact_by_half(model, 0.6)
    assert abs(weights.mean() - truth) < far() * weights.std(ddof=1) / math.sqrt(len(weights))
    assert state["infected"][:, :3].sum(-1).unique().tolist() == [3]
    assert state["infected"][:, 3:].sum(-1).unique().tolist() == [2]


@pytest.mark.parametrize(("many", "can"), [(0, True), (1, False)])
def test_in_a_stratum_of_nobody_nothing_happens(many, can):
    series = Stratified({"all": [1, 0], "nobody": [0, many]}, torch.zeros(6, dtype=torch.int64))
    log_weight, state = guided(Spreading(), {"infection": series}, [0, 1, 2], torch.full((3, 1), 0.4))
    assert torch.isfinite(log_weight).tolist() == [can] * 3
    assert state["infected"].sum(-1).tolist() == [2] * 3


def guided(model, series, draws, beta=0.4, initial=None, **options):
    """Guided runs of two and more days in rows, and one by one."""
    days = max(len(x) for x in series.values())
    one = draws if isinstance(draws, int) else torch.tensor(draws).reshape(-1, 1)
    handler = Guided(series, 0, one, initial or {})
    with torch.no_grad(), DiscreteTime(), ExogenousNoise(0, one), handler:
        theta = {**{n: torch.tensor(p.default) for n, p in model.parameters.items()}, "beta": torch.as_tensor(beta)}
        state = {**model.initial(theta), **options}
        state = simulate(model.day(theta), state, torch.tensor(0.0), torch.tensor(float(days)))
    return handler.log_weight, state


def test_the_mean_weight_of_rows_is_the_probability_of_what_was_seen():
    """Failure rate RATE: 400 rows of one run, half with another beta, against the sum over all that may have been."""
    model, series = Spreading(), [1, 0, 2, 1]
    beta = torch.tensor([0.4, 0.7]).repeat(400).reshape(-1, 1)
    log_weight, _ = guided(model, {"infection": series}, list(range(800)), beta)
    for k, each in enumerate((0.4, 0.7)):
        weights = log_weight[k::2].exp().numpy()
        error = weights.std(ddof=1) / math.sqrt(len(weights))
        assert abs(weights.mean() - exact(model, each, series)) < far(2) * error


@pytest.mark.parametrize("at_home", [0.0, 0.6])
def test_a_row_is_the_run_of_its_draw_alone(at_home):
    """Bit for bit, whether all meet the same hazard or not, unseen days and impossible rows included."""
    model, draws = Spreading(12, at_home), [5, 2, 2**20, 0, 7]
    beta = torch.tensor([0.4, 0.7, 0.4, 1.1, 0.2]).reshape(-1, 1)
    series = {"infection": [1, math.nan, 2, math.nan, 6, 1, 0]}
    together, state = guided(model, series, draws, beta)
    assert bool(torch.isinf(together).any()) and bool(torch.isfinite(together).any())
    for k, draw in enumerate(draws):
        alone, single = guided(model, series, draw, beta[k, 0])
        assert torch.equal(together[k], alone)
        assert torch.equal(state["infected"][k], single["infected"])


def test_a_row_that_cannot_be_is_forced_no_more_and_the_others_go_on():
    """On the first day four of four fall ill, which one of the rows, where fewer are at risk, can't have."""
    model, beta = Spreading(), torch.tensor([[0.4], [0.4]])
    infected = torch.tensor([[True, True, False, False, False, False], [True, True, True, False, False, False]])
    log_weight, state = guided(model, {"infection": [4, 0, 0]}, [0, 1], beta, infected=infected)
    assert math.isfinite(float(log_weight[0])) and float(log_weight[1]) == -math.inf
    assert bool(state["infected"][0].all())
    alone, _ = guided(model, {"infection": [4, 0, 0]}, 0, 0.4, infected=infected[0])
    assert torch.equal(alone, log_weight[0])


def test_to_how_many_a_site_before_the_first_step_falls_can_be_given():
    people = Population.of({"household": np.arange(60) // 3})
    model, numbers = SIR(people, [people.everyone()]), torch.tensor([0, 5, 12, 61])
    shares = torch.tensor([[0.1], [0.1], [0.2], [0.2]])
    handler = Guided({"infection": [math.nan]}, 0, torch.arange(4).reshape(-1, 1), {"initial_infection": numbers})
    with torch.no_grad(), DiscreteTime(), ExogenousNoise(0), handler:
        state = model.initial({**model.defaults(), "initial_infected": shares})
    assert state["infectious"].sum(-1)[:3].tolist() == [0, 5, 12]
    for k in range(3):
        known = stats.binom.logpmf(int(numbers[k]), 60, float(shares[k]))
        assert float(handler.log_weight[k]) == pytest.approx(known, rel=1e-6)
    assert float(handler.log_weight[3]) == -math.inf


def test_days_after_what_was_seen_are_drawn_given_it():
    """Resistances that have met a hazard would bring too few: failure rate RATE against the exact expectation."""
    model, series = Spreading(at_home=0.0), [1, 0, 0]
    draws = 800
    _, state = guided(model, {"infection": [*series, math.nan]}, list(range(draws)), torch.full((draws, 1), 0.4))
    later = state["infected"].sum(-1).numpy() - 2
    p = -math.expm1(-0.4 * 2 / 6)
    assert abs(np.mean(later) - 4 * p) < far() * math.sqrt(4 * p * (1 - p) / draws)


def test_every_day_has_what_was_seen_and_chance_is_left_alone():
    people = Population.of({"household": np.arange(900) // 3})
    model = SIR(people, [people.everyone()])
    seen = [3, 7, math.nan, 12, 0]
    theta = {**model.defaults(), "initial_infected": torch.tensor(0.05)}
    before = torch.random.get_rng_state()
    series = []
    for seed in (0, 0, 1):
        guided = Guided({"infection": seen}, seed)
        with torch.no_grad(), Record() as record, DiscreteTime(), ExogenousNoise(seed), guided:
            simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(5.0))
        series.append(record.series["infections"].values[:, 0])
        assert math.isfinite(float(guided.log_weight))
    assert [x for x, y in zip(series[0], seen, strict=True) if not math.isnan(y)] == [3, 7, 12, 0]
    assert (series[0] == series[1]).all()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_weight_has_its_derivative_given_the_path():
    """At home and at large alike, the weight of a day is a binomial's: its slope is a formula."""
    model = Spreading(at_home=0.0)
    beta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    with DiscreteTime(), ExogenousNoise(0), Guided({"infection": [2]}) as guided:
        theta = {"beta": beta}
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(1.0))
    (slope,) = torch.autograd.grad(guided.log_weight, beta)
    p = -math.expm1(-0.4 / 6)
    assert float(guided.log_weight.detach()) == pytest.approx(math.log(math.comb(5, 2) * p**2 * (1 - p) ** 3), rel=1e-5)
    assert float(slope) == pytest.approx((2 / p - 3 / (1 - p)) * (1 - p) / 6, rel=1e-5)


def test_what_cannot_have_been_has_no_likelihood():
    found = lpm.likelihood(Spreading(), {"infection": [1, 9]}, draws=3)
    assert found.attrs["log_likelihood"] == -math.inf and found.attrs["effective_draws"] == 0.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"observed": {}}, "nothing was observed"),
        ({"observed": {"infection": []}}, "nothing was observed"),
        ({"observed": {"infections": [1]}}, "did you mean 'infection'"),
        ({"observed": {"infection": [1.5]}}, "1.5 events of 'infection' in step 0"),
        ({"observed": {"infection": [-1]}}, "-1 events"),
        ({"observed": {"infection": ["many"]}}, "can't be read"),
        ({"observed": {"infection": 5}}, "can't be read"),
        ({"observed": {"infection": "some"}}, "can't be read"),
        ({"observed": [1, 2]}, "give series by hazard site"),
        ({"observed": None}, "give series by hazard site"),
        ({"observed": {3: [1]}}, "give series by hazard site"),
        ({"draws": 1}, "draws=1"),
        ({"set": {"beat": 1.0}}, "did you mean 'beta'"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        lpm.likelihood(**{"model": Spreading(), "observed": {"infection": [1]}, "draws": 2, **options})


@pytest.mark.parametrize(
    ("draw", "beta", "said"),
    [
        (0, [[0.4], [0.5]], r"site 'infection' has shape \(2, 6\): Guided conditions one run"),
        ([[0], [1]], [[[0.4]], [[0.5]]], r"has shape \(2, 1, 6\).* guide one world, in 2 rows as there are draws"),
        ([[0], [1], [2]], [[0.4], [0.5]], r"has shape \(2, 6\).* in 3 rows"),
    ],
)
def test_several_worlds_at_once_are_refused(draw, beta, said):
    model, theta = Spreading(), {"beta": torch.tensor(beta)}
    draw = draw if isinstance(draw, int) else torch.tensor(draw)
    with (
        pytest.raises(LpmError, match=said),
        DiscreteTime(),
        ExogenousNoise(0),
        Guided({"infection": [1]}, 0, draw),
    ):
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(1.0))


def test_draws_that_are_no_rows_are_refused():
    with pytest.raises(InputError, match=r"draws of shape \(3,\)"):
        Guided({"infection": [1]}, 0, torch.arange(3))


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_guided_to_what_it_did(name):
    """What a run did can have been: guided to its own infections, a run has them, with a finite weight."""
    model, at = MODELS[name](), {"initial_infected": 0.05}
    run = lpm.run(model, 6, 1, set=at)["prior_predictive"]["infections"]
    seen = run.sum([d for d in run.dims if d != "day"]).values
    found = lpm.likelihood(model, {"infection": seen}, draws=2, seed=1, set=at)
    assert np.isfinite(found["log_weight"]).all()


def test_events_on_days_without_the_site_are_refused():
    """People change jobs once a week in the pandemic."""
    pandemic = lpm.nyc.pandemic(lpm.nyc.population(1_000))
    with pytest.raises(InputError, match=r"500 events of 'job_change' were seen in step 1.* in steps 0"):
        lpm.likelihood(pandemic, {"job_change": [math.nan, 500]}, draws=2)
