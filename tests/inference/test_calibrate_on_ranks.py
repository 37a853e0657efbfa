"""A calibration on ranks, of a smaller society too, is that of one process."""

import numpy as np
import pytest

import lpmppl as lpm
from tests.ranks import on_ranks

SEEN = {"infections": [40.0, 45, 60, 66, 80, 95, 110, 120, 140, 150]}
BRIEF = {"rounds": 2, "rows": 16, "draws": 20, "simulations": 2, "restarts": 1, "steps": 40}


def fitted(ranks):
    models = [lpm.nyc.seirm(lpm.nyc.population(agents, ranks=ranks)) for agents in (2_000, 1_000)]
    fit = lpm.calibrate(models[0], SEEN, parameters=["beta"], set={"initial_infected": 0.05}, coarse=models[1], **BRIEF)
    return fit["posterior"]["beta"].values.tolist(), fit["fit"]["gap_infections"].values.tolist()


def on_rank(ranks):
    with lpm.Sharded(ranks):
        return fitted(ranks)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_every_rank_has_the_posterior_of_one_process(tmp_path, count):
    alone = fitted(None)
    assert np.ptp(alone[0]) > 0
    for found in on_ranks(tmp_path, count, on_rank):
        assert found == alone
