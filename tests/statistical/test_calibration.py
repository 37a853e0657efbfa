"""Posteriors against the parameters that made the data: ranks are uniform, and intervals hold what they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lpmppl.inference.diagnostics import simulation_based_calibration
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from tests.oracles import RATE


def one_group(agents):
    people = Population.of({"household": np.arange(agents) // 3})
    return SIR(people, [people.everyone()])


@pytest.mark.slow
def test_posteriors_of_guided_runs_are_calibrated():
    """Failure rate RATE for each of the three parameters, of ranks and of intervals."""
    found = simulation_based_calibration(
        one_group(1000), {"infection": "infections"}, 20, 60, exactly=True, evaluations=1000, seed=300
    )
    assert found.attrs["failed"] == 0
    assert (found["p_value"] > RATE).all()
    low, high = stats.binom.ppf([RATE / 2, 1 - RATE / 2], 60, 0.9) / 60
    assert ((found["coverage"] >= low) & (found["coverage"] <= high)).all()
    # They say something: the ranks of parameters among draws of the prior would be uniform too.
    assert (found["sd"].mean("dataset") < 0.8 * found["truth"].std("dataset")).sum() >= 1
