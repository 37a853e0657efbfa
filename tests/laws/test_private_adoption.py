"""Law 4 for the app: who has it, who is told and what each knows of its own risk are the same under secret sharing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from chirho.dynamical.handlers.interruption import StaticIntervention

import lpmppl as lpm
from lpmppl.effects.handlers import SecretShared, Utility
from lpmppl.effects.opening import Compared, Custodian
from lpmppl.errors import LpmError
from lpmppl.models.pandemic import Pandemic
from tests.laws.conftest import Outcome, noise, play, worlds
from tests.randomness import states

AGENTS, DAYS = 4_000, 10
"""Of 2,000 people somebody is alone in an area and an age, and what such a group sends is never opened."""

SPREADING = {"initial_infected": 0.05, "beta": 0.9, "detected": 1.0, "pcr_delay": 1.0, "other_reasons": 0.02}
TOLD = ("app_installs", "app_removals", "uploads", "contacts_detected", "notified", "quarantined", "infections")


@pytest.fixture(scope="module")
def city() -> Pandemic:
    return lpm.nyc.pandemic(lpm.nyc.population(AGENTS), start="2020-07-01", app=True, by={"borough": "borough"})


def act(day: int, **values: float) -> Any:
    return StaticIntervention(torch.tensor(float(day)), {k: torch.tensor([v]) for k, v in values.items()})


def lived(city: Pandemic, seed: int, *handlers: Any, answers: float = 1.0) -> Outcome:
    """Ten days in which three in ten are given the app and there is a test for everybody."""
    theta = {**city.defaults(), **{name: torch.tensor(value) for name, value in SPREADING.items()}}
    begun = act(0, app_seeds=0.3, app_answers=answers, capacity=1.0)
    return play(city, *handlers, noise(seed), Utility(city.behaviour), begun, days=DAYS, theta=theta)


def secret(parties: int = 3) -> SecretShared:
    return SecretShared(parties, opening=Custodian(least=2), quiet=True)


@pytest.mark.parametrize(("seed", "parties"), [(0, 3), (1, 2), (2, 5)])
def test_it_is_the_plain_run_bit_for_bit(city: Pandemic, seed: int, parties: int) -> None:
    base, handler = lived(city, seed), secret(parties)
    for name in TOLD:
        assert base.series[name].sum() > 0, name
    before = states()
    assert lived(city, seed, handler).differences(base) == []
    assert states() == before
    assert handler.opened > 300 and handler.kept > 30


def test_it_is_the_plain_run_in_every_world(city: Pandemic) -> None:
    ends = act(6, app_answers=0.0)
    base = lived(city, 3, worlds(), ends)
    assert len(base.worlds) == 2
    assert lived(city, 3, worlds(), secret(), ends).differences(base) == []


def test_everybody_is_answered_privately_how_great_their_risk_is(city: Pandemic) -> None:
    """The answer is of the hazard that one met, which one's own device adds up, and makes the app worth more."""
    plain, told, untold = lived(city, 0), lived(city, 0, secret()), lived(city, 0, secret(), answers=0.0)
    assert torch.equal(told.state["own_hazard"], plain.state["own_hazard"])
    assert (told.state["own_hazard"] > 0).float().mean() > 0.5
    assert told.series["app_installs"].sum() > untold.series["app_installs"].sum()


def test_comparisons_on_shares_are_refused_in_words(city: Pandemic) -> None:
    with pytest.raises(LpmError, match="is never opened"):
        lived(city, 0, SecretShared(3, opening=Compared(least=2), quiet=True))
