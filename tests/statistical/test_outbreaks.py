"""Law 10: a few infectious people in a large city die out as often as their branching process does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lpmppl.effects.handlers import ExogenousNoise
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from tests.oracles import RATE, chance, play, smallest_fixed_point

DAYS = 75


def extinction(beta, gamma):
    r"""The probability that one initial case leaves a minor outbreak, in steps of a day.

    A case is infectious with full weight for G days, :math:`P(G > k) = e^{-\gamma k}`; the first day of a later case
    has instead a weight that is uniform on (0, 1) where hazards are small. Infections are Poisson at β a day.
    """

    def days(s, first):
        x = np.exp(-beta * (1 - s))
        over = -np.expm1(-gamma)
        return first * over / (1 - x * (1 - over))

    def offspring(s):
        return days(s, -np.expm1(-beta * (1 - s)) / (beta * (1 - s)) if s < 1 else 1.0)

    q = smallest_fixed_point(offspring)
    return days(q, np.exp(-beta * (1 - q)))


def minor_outbreaks(plain, cities, size, beta, gamma, cases):
    people = Population.of({"city": np.arange(cities * size) // size})
    with chance(21):
        handlers = () if plain else (ExogenousNoise(22),)
        state, _ = play(
            SIR(people, [people.network("city")]),
            DAYS,
            *handlers,
            beta=beta,
            gamma=gamma,
            initial_infected=cases / size,
        )
    ever = (~state["susceptible"]).reshape(cities, size).double().mean(-1).numpy()
    # Major outbreaks are near the final size, minor ones near nought, and next to nothing lies between.
    assert ((ever > 0.2) & (ever < 0.4)).mean() < 1e-3
    return int((ever < 0.3).sum())


@pytest.mark.parametrize(
    ("plain", "cities", "size"),
    [
        (False, 600, 1_000),
        pytest.param(True, 600, 1_000, marks=pytest.mark.slow),
        pytest.param(False, 3_000, 1_500, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("beta", "gamma", "cases"), [(0.9, 0.3, 1.5), (0.7, 0.3, 3.0)])
def test_minor_outbreaks_are_as_likely_as_extinction(plain, cities, size, beta, gamma, cases):
    """Failure rate 1e-6 each; a finite city's correction is below the test's resolution."""
    few = minor_outbreaks(plain, cities, size, beta, gamma, cases)
    share = cases / size
    expected = (1 - share + share * extinction(beta, gamma)) ** size
    assert stats.binomtest(few, cities, expected).pvalue > RATE


def test_extinction_in_ever_smaller_steps_is_one_over_r0():
    assert extinction(0.9e-4, 0.3e-4) == pytest.approx(1 / 3, abs=1e-4)


def test_nothing_spreads_below_the_threshold():
    assert extinction(0.28, 0.3) == pytest.approx(1, abs=1e-6)
