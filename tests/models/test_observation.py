"""Observation: every event is reported once, late; the reports' law is what data would condition."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pytest
import torch
from scipy import stats

from lpmppl.effects.distributions import Counted
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise
from lpmppl.effects.ops import simulate
from lpmppl.models import observation
from lpmppl.models.substep import compose
from tests.models.parts import alone, setting, town

PEOPLE = town(600)


def masks(**true):
    nobody = torch.zeros(PEOPLE.size, dtype=torch.bool)
    return {key: true.get(key, nobody) for key in observation.STREAMS.values()}


def test_events_are_reported_once_after_the_delay():
    where = setting(PEOPLE, by=False)
    one = masks(admitted=torch.arange(PEOPLE.size) < 400)
    state, _ = alone(observation.PART, where, 1, one)
    pending = state["pending/admissions"]
    # What was reported on the first day, and what waits, are all of the 400.
    first = 400 * float(observation.delays(torch.tensor(1.5))[0])
    assert float(pending.sum()) == pytest.approx(400 - first, rel=1e-5)


def test_reports_are_of_the_city_not_of_the_sample():
    ill = masks(learnt=torch.ones(PEOPLE.size, dtype=torch.bool))
    small = alone(observation.PART, setting(PEOPLE), 20, ill)
    large = alone(observation.PART, setting(PEOPLE, residents=100 * PEOPLE.size), 20, ill)
    ratio = large[1]["reported_cases"][14:].sum() / small[1]["reported_cases"][14:].sum()
    assert ratio == pytest.approx(100, rel=0.1)


def test_a_report_is_a_site_that_data_can_condition():
    where = setting(PEOPLE, by=False)
    theta = {name: torch.tensor(p.default) for name, p in observation.PART.parameters.items()}
    day = compose(observation.PART.substep(where, theta))

    seen = {"t=1/reported/deaths": torch.tensor([30.0])}

    def program():
        state = {**observation.PART.start(where, theta, 0.0), **masks(died=torch.arange(PEOPLE.size) < 50)}
        with DiscreteTime(), ExogenousNoise(0), pyro.condition(data=seen):
            return simulate(day, state, torch.tensor(0.0), torch.tensor(3.0))

    trace = pyro.poutine.trace(program).get_trace()
    site = trace.nodes["t=1/reported/deaths"]
    assert site["is_observed"]
    delay = observation.delays(theta["report_delay"])
    mean = 50 * float(delay[0] + delay[1])
    size = float(theta["report_dispersion"])
    assert float(site["fn"].log_prob(site["value"]).sum()) == pytest.approx(
        stats.nbinom.logpmf(30, size, size / (size + mean)), rel=1e-4
    )


@pytest.mark.parametrize(("mean", "size"), [(0.0, 5.0), (3.0, 0.7), (250.0, 20.0)])
def test_counts_by_inverse_by_sampling_and_by_density_are_one_law(mean, size):
    d = Counted(torch.tensor(mean, dtype=torch.float64), size)
    law = stats.nbinom(size, size / (size + mean))
    u = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    assert d.icdf(u).tolist() == law.ppf(u.numpy()).tolist()
    k = torch.arange(0.0, 400.0, dtype=torch.float64)
    if mean:
        np.testing.assert_allclose(d.log_prob(k).numpy(), law.logpmf(k.numpy()), rtol=1e-9, atol=1e-9)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        sample = d.sample((20_000,))
    error = (mean + mean**2 / size) ** 0.5 / 20_000**0.5
    assert abs(float(sample.mean()) - mean) <= 5 * error


@pytest.mark.parametrize("size", [1e-37, 1e-20, 1e12, 1e20, 3e38])
def test_counts_of_any_dispersion_are_a_poissons_or_hardly_ever_any(size):
    d, u = Counted(torch.full((4,), 100.0), size), torch.tensor([0.01, 0.5, 0.9, 0.999], dtype=torch.float64)
    expected = [0.0] * 4 if size < 1 else stats.poisson(100.0).ppf(u.numpy()).tolist()
    assert d.icdf(u).tolist() == expected
    with torch.random.fork_rng():
        torch.manual_seed(1)
        sample = d.sample((1_000,))
    assert float(sample.mean()) == pytest.approx(0.0 if size < 1 else 100.0, abs=1.0)


def test_delays_are_shares_of_the_given_mean():
    for mean in (0.5, 2.0, 4.0):
        d = observation.delays(torch.tensor(mean))
        assert float(d.sum()) == pytest.approx(1)
        assert float((d * torch.arange(15)).sum()) == pytest.approx(mean, abs=0.25)


def test_claims_are_reported_once_a_week():
    filed = torch.arange(PEOPLE.size) < 300
    _, series = alone(observation.CLAIMS, setting(PEOPLE, residents=20 * PEOPLE.size), 21, {"filed": filed})
    assert series["reported_ui_claims"].shape[0] == 3
    mean = 3 * 300 * 20
    spread = math.sqrt(mean + 18 * (mean / 18 / 3) ** 2 / 20 * 3)
    assert abs(series["reported_ui_claims"].sum() - mean) < 6 * spread
