"""Law 8 for whole runs: an epidemic among households is as large in plain Pyro as under exogenous noise."""

from __future__ import annotations

import numpy as np
import pytest

from lpmppl.effects.handlers import ExogenousNoise
from lpmppl.inference.run import run
from lpmppl.models.contacts import Layer
from lpmppl.models.population import Population
from lpmppl.models.seirm import SEIRM
from lpmppl.models.sir import SIR
from tests.oracles import RATE, chance, play, same_law

SIZE, DAYS = 120, 50


def towns(count):
    """Towns of 120 people of every age in households of three: each an epidemic of its own."""
    i = np.arange(count * SIZE)
    ages = np.random.default_rng(51).integers(0, 9, SIZE).astype(np.uint8)
    return Population.of({"household": i // 3, "town": i // SIZE, "age_band": np.tile(ages, count)})


def sir(people):
    return SIR(people, [people.network("household"), people.network("town")], by={"town": "town"})


def seirm(people):
    layers = [Layer(people.network("household"), 6.0), Layer(people.network("town"), 6.0)]
    return SEIRM(people, layers, by={"town": "town"})


THETA = {
    sir: {"beta": 0.2, "gamma": 0.2, "initial_infected": 0.05},
    seirm: {
        "beta": 0.06,
        "latent_mean": 2.5,
        "latent_spread": 1.0,
        "infectious_mean": 5.0,
        "initial_infected": 0.05,
        "fatality": 20.0,
    },
}


def totals(make, *handlers, count=2_500, seed=52):
    """Infections and, where the model has them, deaths per head of every town."""
    with chance(seed):
        _, series = play(make(towns(count)), DAYS, *handlers, **THETA[make])
    return {k: series[k].sum(0) / SIZE for k in ("infections", "deaths") if k in series}


@pytest.mark.parametrize("make", [sir, seirm])
def test_epidemics_agree_in_law(make):
    """Failure rate 1e-6 each: attack rates and deaths of 2,500 towns."""
    plain, noise = totals(make), totals(make, ExogenousNoise(53))
    assert 0.3 < plain["infections"].mean() < 0.9
    for name, series in plain.items():
        assert same_law(series, noise[name]) > RATE / len(plain)


@pytest.mark.parametrize("make", [sir, seirm])
def test_the_comparison_would_see_a_tenth_more_transmission(make):
    more = {k: v * 1.1 if k == "beta" else v for k, v in THETA[make].items()}
    with chance(54):
        _, series = play(make(towns(2_500)), DAYS, ExogenousNoise(55), **more)
    assert same_law(totals(make)["infections"], series["infections"].sum(0) / SIZE) < RATE


@pytest.mark.slow
@pytest.mark.parametrize("make", [sir, seirm])
def test_seeds_of_a_run_agree_with_plain_pyro(make):
    """Failure rate 1e-6 each: `run` over 100 seeds, against plain Pyro's towns."""
    model = make(towns(1))
    attack = [
        float(run(model, DAYS, seed, set=THETA[make])["prior_predictive"]["infections"].sum()) / SIZE
        for seed in range(100)
    ]
    assert same_law(attack, totals(make)["infections"]) > RATE


@pytest.mark.slow
def test_draws_of_the_noise_agree_with_its_seeds():
    """Failure rate 1e-6: 100 draws under one seed, against 2,500 towns."""
    model = sir(towns(1))
    attack = []
    for draw in range(100):
        _, series = play(model, DAYS, ExogenousNoise(56, draw), **THETA[sir])
        attack.append(series["infections"].sum() / SIZE)
    assert same_law(attack, totals(sir)["infections"]) > RATE
