"""What few runs at draws of a posterior say of a further one."""

import numpy as np
import pytest

from lpmppl.inference.observed import Observed
from lpmppl.inference.predicted import Predicted, as_of_more
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR

CELLS = 4_000


def society(agents=20):
    people = Population.of({"household": np.arange(agents) // 2})
    return SIR(people, [people.everyone()])


@pytest.mark.parametrize("runs", [5, 8, 24])
def test_the_bands_of_few_runs_hold_a_further_one(runs):
    """Counts whose logarithms are normal over runs, each by itself: 90 % bands hold what another run has."""
    rng, model = np.random.default_rng(runs), society()
    draws = np.exp(rng.normal(12.0, 0.2, (runs + 1, CELLS)))
    observed = Observed.of(model, {"infections": np.zeros(CELLS)})
    predicted = Predicted(model, observed, [{}] * runs, draws[:-1], np.full((runs, CELLS), np.inf), [])
    reports = predicted._reports(0)["infections"].to_numpy().reshape(-1, CELLS)
    low, high = np.quantile(reports, (0.05, 0.95), 0)
    held = float(((draws[-1] >= low) & (draws[-1] <= high)).mean())
    assert 0.85 < held < 0.94
    low, high = np.quantile(np.repeat(draws[:-1], 25, 0), (0.05, 0.95), 0)
    assert held > ((draws[-1] >= low) & (draws[-1] <= high)).mean() + 0.01


def test_the_middle_of_runs_stays_and_what_some_expect_none_of_too():
    mean = np.array([[1.0, 0.0, 3.0], [4.0, 2.0, 3.0]] * 4)
    more = as_of_more(mean)
    np.testing.assert_allclose(np.log(more[:, 0]).mean(), np.log(2.0))
    np.testing.assert_allclose(np.log(more[1, 0] / more[0, 0]), np.log(4.0) * np.sqrt(9 / 5))
    assert (more[:, 1] == mean[:, 1]).all()
    np.testing.assert_allclose(more[:, 2], 3.0)
    many = np.tile(mean, (500, 1))
    np.testing.assert_allclose(as_of_more(many), many, rtol=1e-3)
