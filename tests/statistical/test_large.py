"""A large society is the sum of parts that never meet: its buffers, blocks and threads are no part of its law."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lpmppl.effects.handlers import ExogenousNoise
from lpmppl.models.contacts import Layer
from lpmppl.models.population import Population
from lpmppl.models.seirm import SEIRM
from lpmppl.models.sir import SIR
from tests.oracles import play

CITIES, SIZE, DAYS = 4, 300_000, 15
THETA = {
    "sir": {"beta": 0.3, "gamma": 0.2, "initial_infected": 0.02},
    "seirm": {"beta": 0.1, "latent_mean": 2.0, "infectious_mean": 4.0, "initial_infected": 0.02, "fatality": 20.0},
}


def people(cities):
    """Cities by number, their people with the ids and ages that they have wherever they are simulated."""
    ids = np.concatenate([np.arange(c * SIZE, (c + 1) * SIZE) for c in cities])
    first = cities[0] * SIZE
    ages = np.random.default_rng(71).integers(0, 9, CITIES * SIZE).astype(np.uint8)
    variables = {"household": (ids - first) // 3, "city": (ids - first) // SIZE, "age_band": ages[ids]}
    return Population(Population.of(variables).dataset.assign_coords(agent=("agent", ids)))


def outcome(name, cities):
    folk = people(cities)
    networks = (folk.network("household"), folk.network("city"))
    model = SIR(folk, networks) if name == "sir" else SEIRM(folk, [Layer(n, 4.0) for n in networks])
    state, series = play(model, DAYS, ExogenousNoise(72), **THETA[name])
    return {k: v for k, v in state.items() if v.shape[-1] == folk.size}, series


@pytest.mark.parametrize("name", THETA)
@pytest.mark.parametrize("threads", [1, 2])
def test_cities_together_are_the_cities_apart(name, threads):
    torch.set_num_threads(threads)
    state, series = outcome(name, range(CITIES))
    parts = [outcome(name, [c]) for c in range(CITIES)]
    assert series["infections"].sum() > 0.1 * CITIES * SIZE
    for key, value in state.items():
        assert torch.equal(value, torch.cat([part[0][key] for part in parts])), key
    for key, value in series.items():
        np.testing.assert_array_equal(value, sum(part[1][key] for part in parts))
