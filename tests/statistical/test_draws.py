"""Draws of the noise: many at once on dimension −2 are, bit for bit, each of them alone, and differ."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from scipy import stats

from lpmppl.effects.cohorts import dense
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers import ExogenousNoise
from lpmppl.effects.ops import happens
from lpmppl.models.population import Population
from tests.oracles import RATE, go, play
from tests.statistical.test_runs import THETA, seirm, sir, towns

DRAWS, DAYS = 4, 25


@pytest.mark.parametrize("make", [sir, seirm])
def test_draws_at_once_are_the_draws_one_by_one(make):
    model = make(towns(3))
    state, series = play(model, DAYS, ExogenousNoise(61, torch.arange(DRAWS).unsqueeze(-1)), **THETA[make])
    for draw in range(DRAWS):
        alone, own = play(model, DAYS, ExogenousNoise(61, draw), **THETA[make])
        for name, values in own.items():
            np.testing.assert_array_equal(series[name][:, draw], values)
        for key, value in alone.items():
            assert torch.equal(state[key].expand(DRAWS, -1)[draw], value), key
    assert len(np.unique(series["infections"].sum((0, 2)))) > 1


def test_what_is_left_after_an_event_that_data_forced_is_drawn_anew_in_every_draw():
    """Failure rate 1e-6 for the correlation between draws, which must be none."""
    n, drawn = 20_000, []
    people = Population.of({"house": np.arange(n)})

    def day(s):
        with people.plate():
            _, left = happens("event", Exposure(s["before"], 0.5, torch.ones(n, dtype=torch.bool)))
        drawn.append(dense(left).double().numpy())
        return s

    forced = pyro.poutine.condition(data={"t=0/event": torch.ones(n, dtype=torch.bool)})
    for draw in (0, 1):
        go(day, lambda: {"before": torch.zeros(n, dtype=torch.float64)}, 1, ExogenousNoise(62, draw), forced)
    # Whom the event reaches by itself in both draws has its own resistances there; the forced are the others.
    alone = [ExogenousNoise(62, draw).resistance("event", people.ids).numpy() <= 0.5 for draw in (0, 1)]
    both = ~alone[0] & ~alone[1]
    assert both.sum() > 5_000
    r = stats.spearmanr(drawn[0][both], drawn[1][both])
    assert r.pvalue > RATE
