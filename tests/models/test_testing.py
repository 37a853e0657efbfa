"""Testing: what a test can detect, how many there are, and when who knows."""

from __future__ import annotations

import math

import pytest
import torch

from lpmppl.models import testing
from tests.models.parts import alone, setting, town

PEOPLE = town(3000)
N, DAYS = PEOPLE.size, 31
NOBODY = torch.zeros(N, dtype=torch.bool)


def given(load: float = 8.0, **more):
    """Everybody infected five days ago at the same viral load, unless said otherwise."""
    return {
        "active": torch.ones(N, dtype=torch.bool),
        "admitted": NOBODY,
        "archetype": torch.zeros(N, dtype=torch.int16),
        "infected_at": torch.full((N,), -5.0),
        "seeks_test": NOBODY,
        "stage": torch.full((N,), 4, dtype=torch.uint8),
        "viral_load": torch.full((180 * DAYS,), load),
        **more,
    }


def course(days, knobs=None, seed=0, theta=None, dt=1.0, **more):
    environment = {"capacity": 1.0, **(knobs or {})}
    theta = {"other_reasons": 1e-9, "false_positive": 1e-9, **(theta or {})}
    return alone(testing.PART, setting(PEOPLE), days, given(**more), environment=environment, seed=seed, dt=dt, **theta)


@pytest.mark.parametrize(("kind", "load", "detected"), [(0, 2.9, 0), (0, 3.1, 1), (1, 4.9, 0), (1, 5.1, 1)])
def test_a_test_detects_from_its_limit_on(kind, load, detected):
    state, series = course(5, {"test": float(kind)}, seeks_test=~NOBODY, load=load)
    assert series["tests"].sum() == 5 * N
    assert (series["cases"].sum() > 0) == bool(detected)
    assert bool((state["positive_at"] > -math.inf).any()) == bool(detected)


def test_the_uninfected_are_positive_by_the_share_that_is_false():
    _, series = course(10, seeks_test=~NOBODY, active=NOBODY, theta={"false_positive": 0.05, "pcr_delay": 0.1})
    n = 10 * N
    assert abs(series["cases"].sum() - 0.05 * n) < 5 * math.sqrt(n * 0.05 * 0.95)  # failure rate 6e-7


def test_a_pcr_result_waits_and_an_antigen_result_does_not():
    _, slow = course(6, {"capacity": 1.0}, seeks_test=~NOBODY, theta={"pcr_delay": 2.0})
    assert slow["cases"].sum(-1)[:2].tolist() == [0, 0] and slow["cases"].sum(-1)[2] == N
    _, quick = course(6, {"test": 1.0}, seeks_test=~NOBODY, theta={"pcr_delay": 2.0})
    assert quick["cases"].sum(-1)[0] == N


def test_tests_are_limited_by_what_can_be_done_and_results_wait_longer():
    _, series = course(8, {"capacity": 0.1}, seeks_test=~NOBODY, theta={"pcr_delay": 1.0})
    done = series["tests"].sum(-1)
    assert abs(done.mean() - 0.1 * N) < 5 * math.sqrt(0.1 * 0.9 * N / 8)
    # Ten ask for each test there is, and the queue is at most four times the delay.
    assert series["cases"].sum(-1)[:4].sum() == 0 < series["cases"].sum(-1)[4]


def test_who_is_admitted_is_always_tested():
    admitted = torch.arange(N) < 50
    _, series = course(1, {"capacity": 0.0}, seeks_test=~NOBODY, admitted=admitted)
    assert series["tests"].sum() == 50


@pytest.mark.parametrize("dt", [1.0, 0.5, 0.25])
def test_screening_reaches_everybody_once_in_so_many_days(dt):
    for every in (1, 3, 7):
        _, series = course(2 * every, {"screening": float(every)}, dt=dt, active=NOBODY)
        tests, half = series["tests"].sum(-1), round(every / dt)
        assert tests[:half].sum() == tests[half:].sum() == N, every
    _, none = course(6, active=NOBODY)
    assert none["tests"].sum() == 0


def test_contacts_of_who_learns_are_traced_in_their_household():
    _, series = course(1, {"tracing": 1.0}, learnt=torch.arange(N) % 3 == 0, active=NOBODY)
    assert series["tests"].sum() == 2 * N // 3
    _, half = course(1, {"tracing": 0.5}, learnt=torch.arange(N) % 3 == 0, active=NOBODY)
    m = 2 * N // 3
    assert abs(half["tests"].sum() - 0.5 * m) < 5 * math.sqrt(0.25 * m)


@pytest.mark.parametrize("dt", [1.0, 0.5])
def test_tests_for_other_reasons_go_round(dt):
    theta = {"other_reasons": 0.01, "false_positive": 1.0, "pcr_delay": 0.1}
    found, series = course(100, dt=dt, active=NOBODY, theta=theta)
    total = series["tests"].sum()
    assert abs(total - N) <= 0.02 * N
    # Whoever is tested is positive here, so that it is known who had a turn: everybody, but for rounding.
    assert (found["positive_at"] > -math.inf).sum() >= 0.99 * N


def test_the_recorded_capacity_grows():
    from datetime import date

    days = [date(2020, 3, 1), date(2020, 3, 19), date(2020, 5, 21), date(2020, 12, 31), date(2022, 1, 1)]
    found = [testing.capacity(day) * 8_437_478 for day in days]
    assert found == pytest.approx([67, 6114, 21267, 69840, 69840])


def test_the_dead_are_not_tested_and_learn_nothing():
    dead = torch.arange(N) < N // 2
    stage = torch.where(dead, 8, 4).to(torch.uint8)
    state, series = course(4, {"screening": 1.0, "test": 1.0}, seeks_test=~NOBODY, stage=stage)
    assert series["tests"].sum() == 4 * (N - N // 2)
    assert not bool((state["positive_at"] > -math.inf)[dead].any())
