"""Vaccination: doses a day, the oldest first, and the second dose after an interval that a policy may lengthen."""

from __future__ import annotations

import math
from datetime import date

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.internals.segments import broadcast, by_blocks
from lpmppl.effects.ops import tally
from lpmppl.effects.ranking import foremost
from lpmppl.models.model import Parameter
from lpmppl.models.part import Part, Setting
from lpmppl.models.periods import around
from lpmppl.models.progression import Stage
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["PART", "SCHEDULES", "vaccination"]

SCHEDULES = ("standard", "delayed", "delayed_under_65")
"""The schedules of the second dose, by their number in the environment's `second_dose`."""

FIRST_VACCINATIONS = date(2020, 12, 14)
"""The first dose in New York."""

ADULT = 16
"""The age in years from which the first vaccines were authorised."""

_STEPS = 1 << 24


def vaccination(setting: Setting, theta: Theta) -> Substep:
    """The substep in which the day's doses are given, never more than there are.

    Second doses that are due come first; what is left goes to those who want a first dose, the oldest decades first and
    in random order within them.

    Args:
        setting: where it plays; `age` in years.
        theta: `interval` and `delayed_interval`, days from the first dose to the second in the two schedules.
    """
    people, by = setting.people, setting.by
    years = people["age"] if "age" in people.dataset else people["age_band"] * 10 + 5
    young, adult = years < 65, years >= ADULT
    nobody = Cohort.of(torch.zeros(people.size, dtype=torch.bool, device=people.device), people.ids)

    def supply(s: State) -> Tensor:
        """Doses there are today, whole: shape (…, 1)."""
        recorded = 0.003 if setting.date_of(float(s["t"])) >= FIRST_VACCINATIONS else 0.0
        share = torch.where(s["doses_per_day"] < 0, recorded, s["doses_per_day"])
        # What is over from one day is given on the next.
        day = torch.floor(s["t"] / s["dt"] + 0.5)
        each_day = share.double() * people.everybody * s["dt"].double()
        return torch.round((day + 1) * each_day) - torch.round(day * each_day)

    def give(s: State) -> tuple[Cohort, Cohort]:
        there = supply(s)
        if not bool((there > 0).any()):
            tally("second_doses", nobody, by=by)
            return nobody, nobody
        alive = s["stage"] != Stage.DEAD
        later = (s["second_dose"] == 1) | ((s["second_dose"] == 2) & young)
        wait = torch.where(later, theta["delayed_interval"], theta["interval"])
        second = foremost(
            people.cohort((s["doses"] == 1) & alive & (s["dosed_at"] + wait <= s["t"])), s["queue"], there, 16 * _STEPS
        )
        left = there - tally("second_doses", second, by=by).sum(-1, keepdim=True)
        first = foremost(people.cohort((s["doses"] == 0) & alive & s["willing"] & adult), s["queue"], left, 16 * _STEPS)
        return first, second

    def change(s: State, action: tuple[Cohort, Cohort]) -> State:
        first, second = action
        doses, dosed_at = s["doses"], s["dosed_at"]
        for cohort, which in ((first, 1), (second, 2)):
            if len(cohort):
                doses = cohort.write(doses, which)
                dosed_at = cohort.write(dosed_at, cohort.read(s["t"]))
        shape = broadcast(first.shape, second.shape)
        both = torch.cat((first.expand(shape[:-1]).where, second.expand(shape[:-1]).where))
        tally("doses", Cohort(both.sort().values, shape, people.ids), by=by)
        return {"doses": doses, "dosed_at": dosed_at}

    return Substep(
        "vaccination",
        reads=("doses", "doses_per_day", "dosed_at", "queue", "second_dose", "stage", "willing"),
        writes=("doses", "dosed_at"),
        policy=give,
        transition=change,
    )


def start(setting: Setting, theta: Theta, t: float) -> State:
    """Nobody has been vaccinated; everybody has a place in the queue, the oldest decades first."""
    people = setting.people
    with people.plate():
        u = pyro.sample("queue", dist.Uniform(torch.zeros(people.size, device=people.device), 1.0))
    band = people["age_band"]

    def place(agents: slice) -> Tensor:
        return (8 - band[agents].to(torch.int32)) * _STEPS + (u[..., agents] * _STEPS).to(torch.int32)

    return {
        "doses": torch.zeros(people.size, dtype=torch.uint8, device=people.device),
        "dosed_at": torch.full((people.size,), -math.inf, device=people.device),
        "queue": by_blocks(people.size, place),
    }


PART = Part(
    "vaccination",
    vaccination,
    start,
    parameters={
        "interval": Parameter(
            around(24.0, 0.1), 24.0, "between doses", "days", "chosen: 21 days (BNT162b2) and 28 (mRNA-1273)"
        ),
        "delayed_interval": Parameter(
            around(84.0, 0.1),
            84.0,
            "between doses, delayed",
            "days",
            "12 weeks: Romero-Brufau et al., BMJ 373 (2021), n1087",
        ),
    },
    keeps=("queue",),
    environment={"doses_per_day": -1.0, "second_dose": 0.0},
    limits={"doses_per_day": (0.0, 1.0)},
    options={"second_dose": SCHEDULES},
    outcomes={"vaccinated": lambda _, s: s["doses"] > 0},
    tallies={"doses": "doses of vaccine", "second_doses": "second doses"},
)
