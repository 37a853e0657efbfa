"""The course of an infection inside a person: the ODE, its archetypes, its treatment and its fit to viral loads."""

from __future__ import annotations

import importlib.util
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from chirho.dynamical.handlers.solver import TorchDiffEq

from lpmppl.models import within_host as body

ROOT = Path(__file__).parents[2]
NONE, INFECTED, ONE, TWO = range(4)
MEDIAN = 2


def theta(dtype=torch.float64, **given):
    return {name: torch.tensor(given.get(name, p.default), dtype=dtype) for name, p in body.PARAMETERS.items()}


def rows(age=4, prior=NONE, variation=MEDIAN):
    """Codes of a few people; each may be a list."""
    return torch.broadcast_tensors(*(torch.as_tensor(x).reshape(-1) for x in (age, prior, variation)))


def path(*who, treatment=0.0, step=0.25, values=None, **more):
    times = torch.arange(0.0, 30.001, step, dtype=torch.float64)
    given = torch.tensor([treatment], dtype=torch.float64)
    return times, body.courses(values or theta(), given, *who, times, **more)


def load(*who, **more):
    times, found = path(*who, **more)
    return times, body.log_load(found)


@pytest.fixture(scope="module")
def everyone():
    """Every archetype on every day, untreated and treated."""
    who = body.archetypes()
    days = torch.arange(body.DAYS, dtype=torch.float64)
    return {t: body.courses(theta(), torch.tensor([t]).double(), *who, days) for t in (0.0, 1.0)}


def test_every_combination_is_an_archetype_and_its_code_says_which():
    age, prior, variation = body.archetypes()
    assert body.ARCHETYPES == 180 == len({*zip(age.tolist(), prior.tolist(), variation.tolist(), strict=True)})
    assert (age.max(), prior.max(), variation.max()) == (8, 3, 4)
    assert torch.equal((age * 4 + prior) * 5 + variation, torch.arange(180))


def test_a_thousand_agents_own_odes_agree_with_their_archetypes():
    rng = np.random.default_rng(0)
    age, prior, variation = (torch.from_numpy(rng.integers(0, n, 1_000)) for n in (9, 4, 5))
    treatment = torch.tensor([0.5])
    values = theta(torch.float32)
    own = body.log_load(body.courses(values, treatment, age, prior, variation))
    shared = body.log_load(body.courses(values, treatment, *body.archetypes()))
    assert own.shape == (1_000, 31)
    assert (own - shared[(age * 4 + prior) * 5 + variation]).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("treatment", [0.0, 1.0])
def test_the_fixed_step_is_short_enough(treatment):
    adaptive = TorchDiffEq(rtol=1e-9, atol=1e-17)
    _, exact = load(*body.archetypes(), treatment=treatment, step=1.0, solve=adaptive)
    _, found = load(*body.archetypes(), treatment=treatment, step=1.0)
    assert (found - exact).abs()[exact > 0].max() < 0.01


@pytest.mark.slow
def test_every_draw_of_the_prior_has_a_course_near_that_of_an_adaptive_solver():
    """Of 60 draws, three in a hundred of which would be unstable at the usual step; the finest steps are compared."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draws = [{n: p.prior.sample().double() for n, p in body.PARAMETERS.items()} for _ in range(60)]
    finest = sorted(draws, key=body.fineness)[-3:]
    assert body.fineness({n: torch.tensor(p.default) for n, p in body.PARAMETERS.items()}) == 1
    assert body.fineness(finest[0]) > 1 and body.fineness(finest[-1]) > 3
    who, none = body.archetypes(), torch.zeros(1, dtype=torch.float64)
    for values in draws:
        single = {n: x.float() for n, x in values.items()}
        assert bool(torch.isfinite(body.log_load(body.courses(single, none.float(), *who))).all())
    for values in finest:
        exact = body.log_load(body.courses(values, none, *who, solve=TorchDiffEq(rtol=1e-9, atol=1e-17)))
        found = body.log_load(body.courses(values, none, *who))
        assert (found - exact).abs()[exact > 0].max() < 0.02


def test_virus_grows_first_at_the_rate_of_the_linear_system():
    # With all cells healthy, E, I and V grow by the dominant eigenvalue of their own system.
    t = {name: float(x) for name, x in theta().items()}
    k, c = body.ECLIPSE, body.VIRUS_CLEARANCE
    matrix = [[-k, 0, t["infectivity"]], [k, -t["cell_loss"], 0], [0, t["production"], -c]]
    rate = np.linalg.eigvals(np.array(matrix)).real.max()
    times, found = path(*rows())
    early = (times >= 1.5) & (times <= 2.5)
    log = found["virus"][0, early].log()
    assert float((log[-1] - log[0]) / 1.0) == pytest.approx(rate, rel=0.01)


def test_cells_are_conserved():
    times, found = path(*rows(age=[0, 4, 8], prior=[NONE, TWO, NONE], variation=[0, 2, 4]), step=0.05)
    slow = torch.tensor([body.ONSETS[k] / body.INCUBATION[0] for k in (0, 2, 4)], dtype=torch.float64)
    host = slow**-0.5 * torch.tensor([1.08, 1.0, 0.92], dtype=torch.float64)
    rate = host * theta()["cell_loss"]
    lost = rate[:, None] * (1 + body.KILLING * found["response"]) * found["infected"]
    lost = torch.cat((torch.zeros(3, 1), torch.cumulative_trapezoid(lost, times)), -1)
    left = found["target"] + found["eclipse"] + found["infected"]
    assert (left + lost - left[:, :1]).abs().max() < 1e-3


def test_numbers_stay_positive_and_targets_only_fall(everyone):
    for found in everyone.values():
        for name in ("target", "eclipse", "infected", "virus", "response"):
            assert bool((found[name] >= 0).all()), name
        assert bool((found["target"].diff(dim=-1) <= 0).all())
        assert bool((found["response"] <= 1).all())


@pytest.mark.parametrize("lead", [(6, 1), (2, 3, 1)])
def test_a_row_of_parameters_has_the_steps_that_it_has_alone(lead):
    faster = torch.tensor([1.0, 3.0, 1.05, 8.0, 2.9, float("nan")]).reshape(lead)
    usual = {n: torch.tensor(p.default) for n, p in body.PARAMETERS.items()}
    values = usual | {"production": usual["production"] * faster}
    assert body.fineness(values).reshape(-1).tolist() == [1, 3, 1, 8, 3, 1]
    treatment, who = torch.tensor([0.5]), body.archetypes()
    together = body.courses(values, treatment, *who)["virus"]
    assert together.shape == (*lead[:-1], body.ARCHETYPES, body.DAYS)
    for row, x in zip(together.reshape(6, body.ARCHETYPES, -1), values["production"].reshape(-1), strict=True):
        alone = body.courses(usual | {"production": x}, treatment, *who)["virus"]
        assert torch.equal(row, alone) or (x.isnan() and alone[:, 1:].isnan().any())


def test_every_infection_is_over_by_day_30(everyone):
    assert bool((body.log_load(everyone[0.0]).amax(-1) > 3).all())
    assert bool((body.log_load(everyone[0.0])[:, -1] < 3).all())


def test_fast_courses_peak_early_and_near_their_symptoms():
    onset = body.INCUBATION[0] * np.exp(0.418 * np.array([-1.28155, -0.52440, 0.0, 0.52440, 1.28155]))
    assert np.allclose(body.ONSETS, onset, rtol=1e-4)
    times, found = load(*rows(variation=list(range(5))))
    _, peak, rise, _ = body.milestones(found, times)
    assert bool((peak.diff() > 0).all())
    assert bool((abs(peak - torch.tensor(onset)) < 1.4).all())
    # Nothing to be detected in the first day, nor in the median course for nearly two.
    detected = peak - rise
    assert detected.min() > 1.0 and detected[MEDIAN] > 1.7


def test_prior_immunity_lowers_and_shortens(everyone):
    days = torch.arange(31.0, dtype=torch.float64)
    by = body.log_load(everyone[0.0]).reshape(9, 4, 5, 31)
    peak = by.amax(-1)
    for less, more in ((NONE, ONE), (ONE, INFECTED), (INFECTED, TWO)):
        assert bool((peak[:, more] < peak[:, less]).all())
    _, _, _, fall = body.milestones(by, days)
    # The vaccinated clear in 5.5 days rather than 7.5 (Kissler et al. 2021), and transmit about half as much with one
    # dose (Harris et al. 2021), a third with two (Eyre et al. 2022).
    shorter = fall[:, TWO] / fall[:, NONE]
    assert shorter.max() < 0.8 and abs(shorter.mean() - 5.5 / 7.5) < 0.08
    shed = (by - 6).clamp(min=0).sum(-1).mean((0, 2))
    assert 0.45 < shed[ONE] / shed[NONE] < 0.65
    assert 0.25 < shed[TWO] / shed[NONE] < 0.5


def test_age_slows_clearance():
    times, found = load(*rows(age=list(range(9))))
    _, _, _, fall = body.milestones(found, times)
    assert bool((fall.diff() > 0).all()) and fall[8] - fall[0] < 2


def test_an_antiviral_acts_from_the_symptoms_of_each_class_on(everyone):
    _, _, variation = body.archetypes()
    day = torch.arange(body.DAYS)
    onset = torch.tensor(body.ONSETS)[variation, None]
    assert torch.equal(everyone[1.0]["output"] < 1, day > onset)
    assert everyone[1.0]["output"].amin().item() == pytest.approx(1 - body.PARAMETERS["antiviral"].default)
    without, treated = (everyone[t]["virus"] for t in (0.0, 1.0))
    assert torch.allclose(without[day < onset], treated[day < onset], rtol=0.01)
    assert bool((treated < without)[day > onset].all())


def test_more_treatment_leaves_less_virus():
    shed = []
    for treatment in (0.0, 0.3, 0.6, 1.0):
        _, found = load(*rows(variation=list(range(5))), treatment=treatment)
        shed.append((found - 6).clamp(min=0).sum(-1))
    assert bool((torch.stack(shed).diff(dim=0) < 0).all())
    # Virus follows its production within hours: a tenth of one is a tenth of the other, 0.87 log10 less after five
    # days in Hammond et al. 2022.
    times, untreated = load(*rows(variation=[3]))
    _, treated = load(*rows(variation=[3]), treatment=1.0)
    later = (times - body.ONSETS[3] - 5).abs().argmin()
    assert float((untreated - treated)[0, later]) == pytest.approx(1.0, abs=0.15)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("infectivity", "production", "inoculum")]


@pytest.mark.parametrize("name", ["cell_loss", "antiviral", *SLOW])
def test_derivatives_of_what_is_shed_agree(name):
    who = rows(variation=1)
    times = torch.arange(0.0, 8.1, 0.5, dtype=torch.float64)

    def shed(x):
        half = torch.tensor([0.5], dtype=torch.float64)
        found = body.log_load(body.courses({**theta(), name: x}, half, *who, times))[0]
        return found.amax() + (found - 3).clamp(min=0).square().sum()

    at = theta()[name]
    step = 1e-4 * at
    with torch.no_grad():
        central = (shed(at + step) - shed(at - step)) / (2 * step)
    _, forward = torch.func.jvp(shed, (at,), (torch.ones_like(at),))
    x = at.clone().requires_grad_()
    shed(x).backward()
    assert float(forward) == pytest.approx(float(central), rel=1e-4)
    assert float(x.grad) == pytest.approx(float(central), rel=1e-4)
    assert abs(float(central)) > 0


def test_milestones_of_a_tent():
    times = torch.arange(0.0, 31.0)
    tent = torch.where(times < 8, 8 - 2 * (8 - times), 8 - 0.5 * (times - 8))
    peak, day, rise, fall = (float(x) for x in body.milestones(tent, times))
    # The parabola through 6, 8 and 7.5 peaks 0.3 days later at 8.1125.
    assert (day, peak) == pytest.approx((8.3, 8.1125))
    assert (rise, fall) == pytest.approx((8.3 - 5.5, 18 - 8.3))
    assert all(math.isnan(x) for x in body.milestones(tent - 6, times)[2:])


@pytest.mark.slow
def test_the_shipped_course_is_that_of_real_infections():
    folder = (ROOT / os.environ.get("LPMPPL_DATA", "data")).resolve()
    if not (folder / "ct_nba_2021.csv").is_file():
        pytest.skip(f"the viral loads are not in {folder}; set LPMPPL_DATA to the folder of ct_nba_2021.csv")
    spec = importlib.util.spec_from_file_location("within_host_fit", ROOT / "examples" / "within_host_fit.py")
    fit = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fit)
    data = fit.episodes(folder / "ct_nba_2021.csv")
    assert len(data) == 46  # acute infections: Kissler et al., PLOS Biology 19 (2021), e3001333
    seen, people = fit.as_sampled(data), fit.population(data)
    times, found = load(*rows())
    peak, _, rise, fall = (float(x) for x in body.milestones(found, times))
    assert peak == pytest.approx(seen["peak"][1], abs=0.5) and peak == pytest.approx(people["peak"][1], abs=0.5)
    assert rise == pytest.approx(seen["rise"][1], abs=1.0) and rise == pytest.approx(people["rise"][1], abs=1.0)
    assert fall == pytest.approx(people["fall"][1], abs=1.5)
    # As sampled the fall is biased downward: a peak between two tests is missed.
    assert fall == pytest.approx(seen["fall"][1], abs=2.0)
