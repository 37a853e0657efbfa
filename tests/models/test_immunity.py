"""Immunity: what load an infection brings, how infectious it makes, and how well the immune are protected."""

from __future__ import annotations

import math
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from chirho.counterfactual.handlers import MultiWorldCounterfactual
from chirho.dynamical.handlers.interruption import StaticIntervention
from chirho.indexed.ops import get_index_plates

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.handlers import DiscreteTime
from lpmppl.effects.ops import simulate
from lpmppl.models import immunity
from lpmppl.models.immunity import PART, archetype_of, disease_factor, infectiousness, loads, viral_load
from lpmppl.models.substep import compose
from lpmppl.models.within_host import DAYS, PRIORS
from tests.models.parts import alone, setting, town

PEOPLE = town(1200)
N = PEOPLE.size


def theta(**given):
    return {name: torch.tensor(given.get(name, p.default)) for name, p in PART.parameters.items()}


def history(seed: int = 0, t: float = 100.0):
    """Doses and infections of all sorts before a day, recent and long ago, many without any."""
    rng = np.random.default_rng(seed)
    doses = rng.integers(0, 3, N)
    dosed = np.where(doses > 0, t - rng.integers(0, 200, N), -np.inf)
    infected = np.where(rng.random(N) < 0.5, t - rng.integers(0, 400, N), -np.inf)
    return {
        "doses": torch.from_numpy(doses.astype(np.uint8)),
        "dosed_at": torch.from_numpy(dosed.astype(np.float32)),
        "infected_at": torch.from_numpy(infected.astype(np.float32)),
    }


@pytest.fixture(scope="module")
def table():
    """Loads without treatment, archetype by day."""
    return loads(theta(), torch.zeros(1)).reshape(-1, DAYS).numpy()


def naive(table):
    """The courses of first infections, on a fine grid of days."""
    fine = np.linspace(0, DAYS - 1, 3001)
    courses = table.reshape(9, len(PRIORS), 5, DAYS)[:, 0].reshape(-1, DAYS)
    return fine, np.array([np.interp(fine, np.arange(DAYS), course) for course in courses])


def test_an_average_infection_adds_up_to_one(table):
    day, course = naive(table)
    shed = infectiousness(torch.from_numpy(course)).numpy()
    assert np.trapezoid(shed, day).mean() == pytest.approx(1.0, abs=0.005)
    assert not shed[course < 6].any() and bool((shed[course > 6] > 0).all())


def test_generations_are_five_to_six_days_apart(table):
    day, course = naive(table)
    shed = np.clip(course - 6, 0, None)
    assert 5.0 < (shed * day).sum() / shed.sum() < 6.0
    # About half of it before symptoms: 44 % (25–69 %) in He et al., Nature Medicine 26 (2020), 672.
    onset = np.tile(5.1 * np.exp(0.418 * np.array([-1.2816, -0.5244, 0, 0.5244, 1.2816])), 9)[:, None]
    assert 0.25 < shed[day[None] < onset].sum() / shed.sum() < 0.69


def test_load_is_read_by_archetype_and_day_in_every_world(table):
    rng = np.random.default_rng(1)
    worlds = np.stack((table, table - 1.0))[:, None]
    state = {"viral_load": torch.from_numpy(worlds.reshape(2, 1, -1))}
    cohort = PEOPLE.cohort(torch.from_numpy(rng.random((2, 3, N)) < 0.3))
    k = len(cohort)
    codes, days = rng.integers(0, 180, k), rng.uniform(-3, 33, k)
    days[:10] = math.inf
    days[10:40] = np.arange(30)
    found = viral_load(state, cohort, torch.from_numpy(codes.astype(np.int16)), torch.from_numpy(days)).numpy()
    world = cohort.row.numpy() // 3
    for i in range(k):
        inside = 0 <= days[i] < 30
        expected = np.interp(days[i], np.arange(DAYS), worlds[world[i], 0, codes[i]]) if inside else -math.inf
        assert found[i] == pytest.approx(expected, abs=1e-4)
    assert {0, 1} == set(world.tolist())


def test_archetype_says_age_what_immunity_has_met_and_the_pace():
    rng = np.random.default_rng(2)
    state = {**history(), "infected_at": torch.full((N,), 100.0), "episode": torch.from_numpy(rng.integers(1, 3, N))}
    quantile = torch.from_numpy(rng.random(N))
    everybody = PEOPLE.cohort(torch.ones(N, dtype=torch.bool))
    found = archetype_of(everybody, PEOPLE, state, quantile)
    assert found.dtype == torch.int16
    seen = set()
    for i in range(N):
        waited = 100 - float(state["dosed_at"][i])
        doses = int(state["doses"][i])
        doses -= (doses == 1 and waited < 12) or (doses == 2 and waited < 7)
        again = int(state["episode"][i]) > 1
        prior = "two doses" if doses == 2 else "infected" if again else "one dose" if doses == 1 else "none"
        code = (int(PEOPLE["age_band"][i]) * 4 + PRIORS.index(prior)) * 5 + int(float(quantile[i]) * 5)
        assert int(found[i]) == code
        seen.add(prior)
    assert seen == set(PRIORS)


def expected_protection(given, i, t, values):
    doses, waited = int(given["doses"][i]), t - float(given["dosed_at"][i])
    wait = (0.0, 12.0, 7.0)[doses]
    if doses and waited < wait:
        doses, since = doses - 1, 0.0
    else:
        since = waited - wait
    fresh = (0.0, values["efficacy_one"], values["efficacy_two"])[doses]
    vaccine = fresh * math.exp(-since / values["waning_days"]) if doses else 0.0
    since = t - float(given["infected_at"][i])
    recovery = values["efficacy_recovered"] * math.exp(-since / values["waning_recovered"])
    return (1 - vaccine) * (1 - recovery)


def test_protection_wanes_from_its_published_efficacy():
    given = history(t=0.0)
    values = {name: p.default for name, p in PART.parameters.items()} | {"efficacy_one": 0.8}
    state, _ = alone(PART, setting(PEOPLE), 1, given, efficacy_one=0.8)
    for i in range(N):
        assert float(state["protection"][i]) == pytest.approx(expected_protection(given, i, 0.0, values), abs=1e-6)
    never = (given["doses"] == 0) & (given["infected_at"] == -math.inf)
    assert bool(never.any()) and bool((state["protection"][never] == 1).all())


def test_protection_is_renewed_once_a_week():
    given = {"doses": torch.full((N,), 2, dtype=torch.uint8), "dosed_at": torch.full((N,), -7.0)}
    given["infected_at"] = torch.full((N,), -math.inf)
    seen = []
    alone(PART, setting(PEOPLE), 15, given, watch=lambda s: seen.append(float(s["protection"][0])))
    of = lambda t: 1 - 0.85 * math.exp(-t / 240)  # noqa: E731
    assert seen[1:] == pytest.approx([of(0)] * 7 + [of(7)] * 7 + [of(14)], abs=1e-6)


def test_vaccination_leaves_what_it_leaves_of_severe_disease():
    given = history(seed=3)
    given["infected_at"] = torch.full((N,), 100.0)
    values = theta(efficacy_severe=0.9, breakthrough_symptoms=0.5)
    everybody = PEOPLE.cohort(torch.ones(N, dtype=torch.bool))
    symptoms = disease_factor(everybody, given, values)
    severe = disease_factor(everybody, given, values, severe=True)
    numbers = {name: float(x) for name, x in values.items()} | {"efficacy_recovered": 0.0}
    kinds = set()
    for i in range(N):
        risk = expected_protection({**given, "infected_at": torch.full((N,), -1e9)}, i, 100.0, numbers)
        if risk == 1:
            assert symptoms[i] == severe[i] == 1
            continue
        # Of infection, symptoms and severe disease: a tenth at most where immunity has waned, less where it is fresh.
        assert float(symptoms[i]) == 0.5
        assert risk * 0.5 * float(severe[i]) == pytest.approx(min(0.1, risk * 0.5), rel=1e-5)
        kinds.add(risk * 0.5 > 0.1)
    assert kinds == {True, False}


@pytest.mark.parametrize("name", ["efficacy_two", "waning_days", "efficacy_recovered", "waning_recovered"])
def test_protection_has_a_derivative(name):
    # Some have no doses and some were never infected, whose infinite waits have none.
    given = {**history(t=0.0), "t": torch.zeros(1), "treatment": torch.zeros(1), "protection": torch.ones(N)}
    given = {k: v.double() if v.is_floating_point() else v for k, v in given.items()}
    where, values = setting(PEOPLE), {k: v.double() for k, v in theta().items()}

    def mean(x):
        return immunity.immunity(where, {**values, name: x})(given)["protection"].mean()

    at = values[name]
    x = at.clone().requires_grad_()
    mean(x).backward()
    step = 1e-4 * at
    with torch.no_grad():
        central = (mean(at + step) - mean(at - step)) / (2 * step)
    assert float(x.grad) == pytest.approx(float(central), rel=1e-5) and float(central) < 0
    _, forward = torch.func.jvp(mean, (at,), (torch.ones_like(at),))
    assert float(forward) == pytest.approx(float(x.grad), rel=1e-6)


def test_treatment_acts_from_the_next_turn_on():
    given = history(t=0.0)
    treat = StaticIntervention(torch.tensor(3.0), {"treatment": torch.ones(1)})
    seen = []
    alone(PART, setting(PEOPLE), 9, given, treat, watch=lambda s: seen.append(s["viral_load"]))
    without, treated = loads(theta(), torch.zeros(1)), loads(theta(), torch.ones(1))
    assert all(torch.equal(table, without) for table in seen[1:8])
    assert all(torch.equal(table, treated) for table in seen[8:])
    assert not torch.equal(without, treated)


def test_worlds_that_differ_in_treatment_are_their_single_runs():
    where, values, given = setting(PEOPLE), theta(), history(t=0.0)
    day = compose(PART.substep(where, values))

    def run(*handlers):
        start = {**PART.start(where, values, 0.0), "treatment": torch.zeros(1), **given}
        with torch.no_grad(), ExitStack() as stack:
            for handler in (DiscreteTime(), *handlers):
                stack.enter_context(handler)
            end = simulate(day, start, torch.tensor(0.0), torch.tensor(15.0))
            return end, dict(get_index_plates())

    treat = lambda: StaticIntervention(torch.tensor(7.0), {"treatment": torch.ones(1)})  # noqa: E731
    both, plates = run(MultiWorldCounterfactual(first_available_dim=-3), treat())
    untreated, treated = run()[0], run(treat())[0]
    # The antiviral inside the ODE makes no worlds of its own.
    assert list(plates) == ["t=7"]
    for name in ("viral_load", "protection"):
        parted = both[name].expand(2, 1, -1)
        assert torch.equal(parted[0, 0], untreated[name]), name
        assert torch.equal(parted[1, 0], treated[name]), name
    assert not torch.equal(untreated["viral_load"], treated["viral_load"])


def test_draws_of_parameters_are_loads_each():
    draws = torch.tensor([[1.0], [1.5]])
    both = loads({**theta(), "cell_loss": draws}, torch.zeros(1))
    assert both.shape == (2, 180 * DAYS)
    for k in range(2):
        assert torch.allclose(both[k], loads(theta(cell_loss=float(draws[k])), torch.zeros(1)), atol=1e-4)


def test_a_run_that_starts_between_turns_has_its_loads():
    untreated = loads(theta(), torch.zeros(1))
    assert torch.equal(PART.start(setting(PEOPLE), theta(), 3.0)["viral_load"], untreated)
    assert set(PART.start(setting(PEOPLE), theta(), 0.0)) == set(PART.substep(setting(PEOPLE), theta()).writes)


def test_nobody_immune_is_an_empty_cohort():
    nobody = {"doses": torch.zeros(N, dtype=torch.uint8), "dosed_at": torch.full((N,), -math.inf)}
    nobody["infected_at"] = torch.full((N,), -math.inf)
    state, _ = alone(PART, setting(PEOPLE), 8, nobody)
    assert bool((state["protection"] == 1).all())
    empty = Cohort.of(torch.zeros(N, dtype=torch.bool), PEOPLE.ids)
    assert viral_load(state, empty, torch.zeros(0, dtype=torch.int16), torch.zeros(0)).shape == (0,)
