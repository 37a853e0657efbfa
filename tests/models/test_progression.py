"""Progression: who falls ill, is admitted and dies, and when, against the published figures that it is made of."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lpmppl.models import progression
from lpmppl.models.progression import CLINICAL, Stage, fatality_by_age, survivors_by_age
from lpmppl.models.substep import Substep
from tests.models.parts import alone, setting, town

N = 60_000


def nobody(n: int = N):
    return torch.zeros(n, dtype=torch.bool)


def infected_once(age: int, days: int, seed: int = 0, **options):
    """Everybody, all of one age, infected in the middle of the day before day 0, and never again."""
    people = town(N, age=np.full(N, age, np.uint8), age_band=np.full(N, min(age // 10, 8), np.uint8))
    given = {
        "infected": ~nobody(),
        "infected_at": torch.full((N,), -0.5),
        "episode": torch.ones(N, dtype=torch.int32),
        "doses": torch.zeros(N, dtype=torch.uint8),
        "dosed_at": torch.full((N,), -math.inf),
        **options.pop("given", {}),
    }
    once = Substep("once", (), ("infected",), policy=lambda s: s, transition=lambda s, a: {"infected": nobody()})
    seen: list = []
    state, series = alone(
        progression.PART, setting(people), days, given, watch=seen.append, then=[once], seed=seed, **options
    )
    return seen, state, series


def within(count: float, p: float, n: int = N) -> bool:
    """Five standard errors: a failure rate of 6e-7."""
    return abs(count - n * p) <= 5 * math.sqrt(n * p * (1 - p)) + 1


@pytest.mark.parametrize("age", [25, 55, 75])
def test_who_falls_ill_is_admitted_and_dies_by_age(age):
    seen, state, series = infected_once(age, 150)
    band = min(age // 10, 8)
    fatal = float(fatality_by_age(torch.tensor(float(age))))
    ill = torch.stack([s["onset"] for s in seen[1:]]).any(0)
    assert within(float(ill.sum()), CLINICAL[band])
    assert within(series["deaths"].sum(), fatal)
    survive = progression.PART.parameters["severity"].default * float(survivors_by_age()[band])
    clinical = CLINICAL[band]
    # Whoever isn't to die is admitted with the survivors' risk; four fifths of those to die are.
    assert within(series["admissions"].sum(), fatal * 0.8 + (clinical - fatal) * survive / clinical)
    assert bool(((state["stage"] == Stage.RECOVERED) | (state["stage"] == Stage.DEAD)).all())
    assert int((state["stage"] == Stage.DEAD).sum()) == series["deaths"].sum()


def test_fatality_lies_in_the_published_band():
    # Levin et al. give 0.4 % at 55, 1.4 % at 65, 4.6 % at 75 and 15 % at 85 in their abstract.
    ages = torch.tensor([55.0, 65.0, 75.0, 85.0])
    assert (100 * fatality_by_age(ages)).tolist() == pytest.approx([0.4, 1.4, 4.6, 15.0], rel=0.05)


def test_the_incubation_period_has_its_median_and_spread():
    seen, _, _ = infected_once(75, 40)
    onset = torch.full((N,), math.nan)
    for day, s in enumerate(seen[1:]):
        onset[s["onset"]] = day + 0.5
    days = (onset[~onset.isnan()] + 0.5).log()
    # Symptoms are seen to the day, which widens the spread a little.
    assert float(days.median().exp()) == pytest.approx(5.1, abs=0.5)
    assert float(days.std()) == pytest.approx(0.418, abs=0.03)


def test_stages_follow_one_another_and_nobody_skips_one():
    # Whoever was infected in the day before may have an exposed stage of less than a day, and is not seen in it.
    allowed = {
        (0, 2), (0, 3),
        (0, 1), (1, 2), (1, 3), (2, 4), (3, 7), (4, 5), (4, 7), (4, 8), (5, 6), (5, 7), (6, 7), (6, 8),
    }  # fmt: skip
    seen, _, series = infected_once(65, 120)
    for before, after in itertools.pairwise(seen):
        moved = before["stage"] != after["stage"]
        steps = set(zip(before["stage"][moved].tolist(), after["stage"][moved].tolist(), strict=True))
        assert steps <= allowed
        ward = (after["stage"] == Stage.SEVERE) | (after["stage"] == Stage.CRITICAL)
        assert int(ward.sum()) == int(after["hospitalised"].sum())
        ill = (after["stage"] >= Stage.MILD) & (after["stage"] <= Stage.CRITICAL)
        assert torch.equal(ill, after["symptomatic"])
        over = (after["stage"] == Stage.RECOVERED) | (after["stage"] == Stage.DEAD)
        assert torch.equal(after["active"], ~over & (after["stage"] > 0))
    returned = sum(int(s["returned"].sum()) for s in seen[1:])
    assert returned + series["deaths"].sum() == N


def test_a_later_infection_is_milder():
    _, _, first = infected_once(75, 120)
    again = {"given": {"episode": torch.full((N,), 2, dtype=torch.int32)}}
    _, _, later = infected_once(75, 120, **again)
    ratio = later["deaths"].sum() / first["deaths"].sum()
    assert ratio == pytest.approx(0.2, rel=0.25)


def test_admissions_a_week_are_smoothed_over_seven_days():
    seen, _, series = infected_once(75, 30)
    rate = 0.0
    for day, s in enumerate(seen[1:]):
        rate += (1e5 * series["admissions"][day].sum() / N - rate) / 7
        assert float(s["admissions/week"]) == pytest.approx(rate, rel=1e-4, abs=1e-4)
