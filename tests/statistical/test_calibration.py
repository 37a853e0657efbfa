"""Posteriors against the parameters that made the data: ranks are uniform, and intervals hold what they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyro.distributions as dist
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


@pytest.mark.slow
def test_posteriors_of_learnt_responses_are_calibrated():
    """Where some forty begin an outbreak, as chance by which it may not take off isn't log-normal.

    Failure rate RATE for each of the three parameters, of ranks and of intervals.
    """
    model = one_group(4000)
    begun = replace(model.parameters["initial_infected"], prior=dist.Beta(5.0, 495.0), default=0.01)
    model.parameters = {**model.parameters, "initial_infected": begun}
    found = simulation_based_calibration(model, "infections", 30, 40, seed=1100)
    assert found.attrs["failed"] == 0
    assert (found["p_value"] > RATE).all()
    low, high = stats.binom.ppf([RATE / 2, 1 - RATE / 2], 40, 0.9) / 40
    assert ((found["coverage"] >= low) & (found["coverage"] <= high)).all()
    assert (found["sd"].mean("dataset") < 0.8 * found["truth"].std("dataset")).sum() >= 1
