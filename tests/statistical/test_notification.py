"""The app in large towns: adoption nears its mean field, and notifications stop infections."""

from __future__ import annotations

import math
from contextlib import nullcontext

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.handlers import ExogenousNoise, Utility
from lpmppl.models import adoption
from lpmppl.models.behaviour import UTILITY
from tests.models.test_adoption import course, folk
from tests.oracles import chance

pytestmark = pytest.mark.slow

KAPPA, ALPHA, NU = 0.1, -3.2, 7.0


def sigma(x):
    return 1 / (1 + math.exp(-x))


def flows(y):
    """The chances, in a day, to get the app and to give it up, where a share y have it."""
    value = ALPHA + NU * y
    return 1 - math.exp(-KAPPA * sigma(value)), 1 - math.exp(-KAPPA * sigma(-value))


def mean_field(y, days):
    """The share who have the app after so many days in a town without end, and the variance of √N times the gap."""
    spread = 0.0
    for _ in range(days):
        gets, gives = flows(y)
        step = 1e-6
        ahead, behind = (x + (1 - x) * flows(x)[0] - x * flows(x)[1] for x in (min(y + step, 1.0), max(y - step, 0.0)))
        slope = (ahead - behind) / (min(y + step, 1.0) - max(y - step, 0.0))
        spread = slope**2 * spread + (1 - y) * gets * (1 - gets) + y * gives * (1 - gives)
        y = y + (1 - y) * gets - y * gives
    return y, spread


def town(n, begun, days, seed=0, handlers=None):
    """The share who have the app after so many days, where a share of a well-mixed town is given it first."""
    people = folk(n)
    first = torch.arange(n) < round(begun * n)
    start = {
        "app": first,
        "app/areas": first.sum().reshape(1),
        "app/total": first.sum().reshape(1),
        "app/workplaces": first.sum().reshape(1),
    }
    theta = {"reconsider": KAPPA, "standalone": ALPHA, "network_value": NU}
    state, _ = course(people, days, given=start, seed=seed, handlers=handlers, **theta)
    return float(state["app"].double().mean())


@pytest.mark.parametrize("begun", [0.0, 0.3, 0.35, 0.45, 0.5, 1.0])
def test_adoption_nears_its_mean_field(begun):
    days, n = 60, 100_000
    expected, spread = mean_field(begun, days)
    gap = town(n, begun, days) - expected
    # Of the law's first order: five standard errors, failure rate 6e-7 each, and a bias of order 1/N.
    assert abs(gap) < 5 * math.sqrt(spread / n) + 200 / n, (gap, math.sqrt(spread / n))
    assert math.sqrt(spread / n) < 0.02


def test_below_the_critical_mass_it_dies_and_above_it_takes_off():
    low, critical, high = adoption.levels(ALPHA, NU)
    n, days = 20_000, 150
    for begun, level in ((critical - 0.05, low), (critical + 0.05, high)):
        # The level itself is off by the length of a step: half of κ Δt y (1 − y).
        assert abs(town(n, begun, days) - level) < 0.02


def test_plain_chance_and_noise_agree_in_law():
    n, days, draws = 600, 20, 60
    seen = {}
    for kind in ("plain", "noise"):
        found = []
        for seed in range(draws):
            handlers = (nullcontext(),) if kind == "plain" else (ExogenousNoise(100 + seed),)
            with chance(seed) if kind == "plain" else nullcontext():
                found.append(town(n, 0.4, days, handlers=handlers))
        seen[kind] = np.array(found)
    error = math.sqrt(sum(x.var(ddof=1) / draws for x in seen.values()))
    assert abs(seen["plain"].mean() - seen["noise"].mean()) < 5 * error  # failure rate 6e-7
    ratio = seen["plain"].var(ddof=1) / seen["noise"].var(ddof=1)
    assert 1 / 4 < ratio < 4


def effect(model, seed, **theta):
    """The share of infections that the app averts where everybody with a phone has it."""
    fixed = {"initial_infected": 0.01, "reconsider": 1e-9, "would_use": 0.999, "pcr_delay": 1.0, **theta}
    seeks = {"test": {"seek a test": {"intercept": 3.0}}}
    acts = [("transmission", 1.3, 0), ("capacity", 1.0, 0)]
    with Utility({**UTILITY, **seeks}):
        none, all_of_them = (
            lpm.run(model, 60, seed, set=fixed, interventions=[*acts, ("app_seeds", share, 0)])["prior_predictive"]
            for share in (0.0, 1.0)
        )
    return 1 - float(all_of_them["infections"].sum() / none["infections"].sum())


def test_the_app_stops_infections_where_many_have_it_and_comply():
    out = ["vaccination", "observation", "claims", "labour", "stimulus", "masking"]
    model = lpm.nyc.pandemic(lpm.nyc.population(20_000), start="2020-07-01", without=out, app=True)
    comply, idle = (
        np.array([effect(model, seed, detected=0.9, compliance=c) for seed in range(4)]) for c in (0.95, 1e-6)
    )
    assert (idle == 0).all()
    error = comply.std(ddof=1) / 2
    assert comply.mean() > max(5 * error, 0.05), comply  # of four draws: a t of 5 has a failure rate of 0.8 %
