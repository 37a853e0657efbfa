"""Vaccination: never more doses than there are, the oldest first, second doses when they are due."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.ranking import foremost
from lpmppl.models import vaccination
from lpmppl.models.progression import Stage
from tests.models.parts import alone, setting, town

PEOPLE = town(1000)
N = PEOPLE.size


def given(**more):
    return {"stage": torch.zeros(N, dtype=torch.uint8), "willing": torch.ones(N, dtype=torch.bool), **more}


def course(days, **options):
    seen = []
    state, series = alone(vaccination.PART, setting(PEOPLE), days, watch=seen.append, **{"given": given(), **options})
    return seen, state, series


def test_supply_is_given_exactly_day_by_day_and_over_time():
    _, _, series = course(60, environment={"doses_per_day": 0.0105})
    doses = series["doses"].sum(-1)
    assert set(doses[:20].tolist()) == {10, 11}
    assert abs(doses[:20].sum() - 20 * 10.5) <= 1


def test_nobody_is_vaccinated_before_there_is_a_vaccine():
    _, _, series = course(5)
    assert series["doses"].sum() == 0
    _, series = alone(vaccination.PART, setting(PEOPLE, "2020-12-10"), 10, given())
    assert (series["doses"].sum(-1) > 0).tolist() == [day >= 4 for day in range(10)]


def test_the_oldest_come_first_and_children_never():
    seen, _, _ = course(40, environment={"doses_per_day": 0.01})
    band = PEOPLE["age_band"]
    for before, after in itertools.pairwise(seen):
        new = (after["doses"] > 0) & (before["doses"] == 0)
        waiting = (after["doses"] == 0) & (PEOPLE["age"] >= vaccination.ADULT)
        if new.any():
            assert band[new].min() >= band[waiting].max()
    state, _ = alone(vaccination.PART, setting(PEOPLE), 300, given(), environment={"doses_per_day": 0.05})
    assert (state["doses"] == 2).tolist() == (PEOPLE["age"] >= vaccination.ADULT).tolist()


def test_the_unwilling_and_the_dead_get_none():
    rng = np.random.default_rng(1)
    willing = torch.from_numpy(rng.random(N) < 0.5)
    stage = torch.where(torch.from_numpy(rng.random(N) < 0.2), Stage.DEAD, Stage.SUSCEPTIBLE).to(torch.uint8)
    fine = willing & (stage != Stage.DEAD) & (PEOPLE["age"] >= vaccination.ADULT)
    state, _ = alone(
        vaccination.PART, setting(PEOPLE), 200, given(willing=willing, stage=stage), environment={"doses_per_day": 0.05}
    )
    assert ((state["doses"] > 0) == fine).all()


@pytest.mark.parametrize(("schedule", "young", "old"), [(0, 24, 24), (1, 84, 84), (2, 84, 24)])
def test_the_second_dose_comes_when_its_schedule_says(schedule, young, old):
    seen, _, _ = course(110, environment={"doses_per_day": 0.3, "second_dose": float(schedule)})
    first = torch.full((N,), torch.inf)
    second = first.clone()
    for day, state in enumerate(seen[1:]):
        first = torch.where((state["doses"] >= 1) & first.isinf(), float(day), first)
        second = torch.where((state["doses"] >= 2) & second.isinf(), float(day), second)
    wait = (second - first)[PEOPLE["age"] >= vaccination.ADULT]
    age = PEOPLE["age"][PEOPLE["age"] >= vaccination.ADULT]
    # With doses for everybody within four days nobody waits longer than the interval and a queue of days.
    assert bool((wait[age < 65] >= young).all()) and bool((wait[age < 65] <= young + 4).all())
    assert bool((wait[age >= 65] >= old).all()) and bool((wait[age >= 65] <= old + 4).all())


def test_second_doses_come_before_first_ones():
    queue = torch.randperm(N, generator=torch.Generator().manual_seed(0)).int()
    due = torch.zeros(N, dtype=torch.uint8)
    due[:100] = 1
    dosed = torch.where(due > 0, -50.0, -torch.inf)
    state, series = alone(
        vaccination.PART,
        setting(PEOPLE),
        1,
        given(doses=due, dosed_at=dosed, queue=queue),
        environment={"doses_per_day": 0.03},
    )
    assert series["second_doses"].sum() == series["doses"].sum() == 30
    assert set(torch.nonzero(state["doses"] == 2).flatten().tolist()) == set(torch.argsort(queue[:100])[:30].tolist())


def test_each_world_has_its_own_supply_and_queue():
    mask = torch.tensor([[[True, True, True, False]], [[True, False, True, True]]])
    queue = torch.tensor([3, 1, 2, 0])
    first = foremost(Cohort.of(mask), queue, torch.tensor([[[2]], [[1]]]), int(queue.max()) + 1)
    assert first.mask().squeeze(1).tolist() == [[False, True, True, False], [False, False, False, True]]
