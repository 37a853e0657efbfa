"""Steps: splitting them converges at second order, and neither their number nor where they start loses anybody."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from lpmppl.effects.handlers import ExogenousNoise
from lpmppl.models.contacts import Layer
from lpmppl.models.population import Population
from lpmppl.models.seirm import SEIRM, Stage
from tests.oracles import go, play
from tests.statistical.test_runs import THETA as TOWN
from tests.statistical.test_runs import seirm, sir, towns

N, DAYS = 40_000, 20
THETA = {
    "beta": 0.07,
    "latent_mean": 3.0,
    "latent_spread": 1.0,
    "infectious_mean": 5.0,
    "infectious_spread": 1.5,
    "initial_infected": 0.02,
}


def attack(dt, seed):
    """The share ever infected while the epidemic grows, in households and a well-mixed city."""
    people = Population.of({"age_band": np.full(N, 4, dtype=np.uint8), "household": np.arange(N) // 4})
    model = SEIRM(people, [Layer(people.network("household"), 4.0), Layer(people.everyone(), 6.0)])
    state, _ = play(model, DAYS, ExogenousNoise(seed), dt=dt, **THETA)
    return float((state["infected_at"] >= 0).double().mean())


def order_lies_between(low, high, steps, seeds, rate):
    """Whether halving the step divides its error by 2 to a power in `low` … `high`, one-sided at half the rate."""
    shares = np.array([[attack(dt, seed) for dt in steps] for seed in range(seeds)])
    change = shares[:, :-1] - shares[:, 1:]
    first, last, halvings = change[:, 0], change[:, -1], len(steps) - 2
    above = stats.ttest_1samp(first - 2 ** (low * halvings) * last, 0, alternative="greater").pvalue
    below = stats.ttest_1samp(first - 2 ** (high * halvings) * last, 0, alternative="less").pvalue
    return max(above, below) < rate / 2


def test_halving_the_step_once_and_again_shows_more_than_first_order():
    """The order lies between 1.2 and 3, at 99 % confidence."""
    assert order_lies_between(1.2, 3.0, (1.0, 0.5, 0.25), 8, 0.01)


@pytest.mark.slow
def test_steps_down_to_an_eighth_converge_at_second_order():
    """The order lies between 1.6 and 2.4, at 99.9 % confidence."""
    assert order_lies_between(1.6, 2.4, (1.0, 0.5, 0.25, 0.125), 24, 1e-3)


@pytest.mark.parametrize("make", [sir, seirm])
def test_an_epidemic_may_start_on_any_day(make):
    now, later = (
        play(make(towns(20)), 30, ExogenousNoise(63), begin=begin, **TOWN[make])[1]["infections"].sum()
        for begin in (0, 64)
    )
    assert now > 200
    # People keep their chance; the time within a day is rounded otherwise on day 64.
    assert later == pytest.approx(now, rel=0.01)


@pytest.mark.parametrize("dt", [1.0, 0.1, 0.05, 1 / 3])
def test_who_is_infected_at_either_end_of_a_step_is_exposed_in_the_next(dt):
    model = SEIRM(Population.of({"age_band": [4, 4]}), [])
    theta = model.defaults()
    for day in (0, 1, 7, 30, 100, 200, 300, 365):
        for n in range(round(day / dt), round(day / dt) + 10):
            start = torch.tensor(n * dt)
            ends = torch.stack((start, start + torch.tensor(dt)))
            begin = lambda at=ends: {**model.initial(theta), "infected": torch.tensor([True, True]), "infected_at": at}  # noqa: E731
            state, _ = go(model.day(theta), begin, dt, ExogenousNoise(64), dt=dt, begin=(n + 1) * dt)
            assert (state["stage"] == Stage.EXPOSED).all(), (n, ends)
