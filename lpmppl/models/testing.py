"""Testing: who is tested, with what, when the result comes, and who then knows."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.internals.segments import broadcast
from lpmppl.effects.ops import ring_sum, tally
from lpmppl.models.immunity import viral_load
from lpmppl.models.model import Parameter
from lpmppl.models.part import Part, Setting
from lpmppl.models.periods import around, each
from lpmppl.models.progression import Stage
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["KINDS", "PART", "capacity", "testing"]

KINDS = ("pcr", "antigen")
"""The kinds of test, by their number in the environment's `test`."""

DETECTION = (3.0, 5.0)
"""Log10 copies per ml that PCR and antigen tests detect: Larremore et al., Science Advances 7 (2021), eabd5393."""

_RECORDED = (
    ("2020-03-05", 67), ("2020-03-12", 1_387), ("2020-03-19", 6_114), ("2020-03-26", 6_829), ("2020-04-09", 9_890),
    ("2020-04-23", 11_135), ("2020-05-07", 12_484), ("2020-05-21", 21_267), ("2020-06-18", 27_634),
    ("2020-08-06", 26_067), ("2020-10-01", 36_495), ("2020-11-12", 50_504), ("2020-12-31", 69_840),
)  # fmt: skip
"""New Yorkers' PCR tests a day, means of the weeks around these dates: NYC Health, trends/tests.csv."""

_RESIDENTS = 8_437_478
"""Residents of the city whose tests were recorded (ACS 2017–2021)."""


def capacity(today: date) -> float:
    """PCR tests a day per resident, as recorded in New York: linear between weeks, the first and last before and after.

    >>> round(1e5 * capacity(date(2020, 4, 9)), 1)
    117.2
    """
    days = [date.fromisoformat(iso).toordinal() for iso, _ in _RECORDED]
    return float(np.interp(today.toordinal(), days, [tests for _, tests in _RECORDED])) / _RESIDENTS


def testing(setting: Setting, theta: Theta) -> Substep:
    """The substep in which people are tested and learn their results.

    Those who seek a test for their symptoms (and some for other reasons, who are mostly not infected) share what can be
    done in a day; who is admitted is always tested, and so are the people of a household where somebody learnt of a
    positive test, as far as contacts are traced, and everybody every few days where people are screened. A test detects
    an infection from its limit of detection on; a PCR result waits longer the more demand exceeds capacity, an antigen
    result is there at once.

    Args:
        setting: where it plays.
        theta: `pcr_delay`, days from test to result without a queue; `false_positive`, the share of tests of the
            uninfected that are positive; `other_reasons`, tests sought a day and person without COVID-19.
    """
    people, by = setting.people, setting.by
    household = people.network("household")
    detection = torch.tensor(DETECTION, device=people.device)

    def other(s: State) -> Cohort:
        """A rotating share of everybody: the worried, the exposed, and those with other coughs."""
        # By the days gone by, whatever the step: each half step takes half of the day's.
        gone, chance = theta["other_reasons"] * s["t"], theta["other_reasons"] * s["dt"]
        if chance.numel() > 1:
            return people.cohort(torch.remainder(s["test_turn"] - gone, 1.0) < chance)
        share = float(chance.detach())
        low = math.fmod(float(s["t"]) * float(theta["other_reasons"].detach()), 1.0)
        window = people.cohort(s["test_turn"], above=low, below=low + share)
        return window if low + share <= 1 else _union(window, people.cohort(s["test_turn"], below=low + share - 1))

    def screened(s: State) -> Cohort:
        """Those whose turn it is in this step, where there is screening every so many days."""
        every = torch.ceil(s["screening"])
        turn = s["test_turn"] * every.clamp(min=1.0)
        now = torch.remainder(torch.floor(s["t"] / s["dt"] + 0.5) * s["dt"], every.clamp(min=1.0))
        return people.cohort((turn >= now) & (turn < now + s["dt"]) & (every > 0))

    def traced(s: State) -> Cohort:
        """The others in the households of those who learnt of a positive test since the last step."""
        learnt = people.cohort(s["learnt"])
        found = household.field(ring_sum(learnt.carrying(1), household)).dense() > 0
        contacts = people.cohort(found & ~s["learnt"])
        with contacts.plate():
            reached = pyro.sample("tracing", dist.Bernoulli(each(contacts, s["tracing"]).clamp(0.0, 1.0)))
        return contacts.select(reached.nonzero().squeeze(-1))

    def sample(s: State) -> tuple[Cohort, Tensor, Tensor]:
        """Who is tested today, whether it is positive, and after how many days they know."""
        asked = _living(_union(people.cohort(s["seeks_test"]), other(s)), s)
        demand = tally("tests_sought", asked).float()
        daily = torch.where(s["capacity"] < 0, capacity(setting.date_of(float(s["t"]))), s["capacity"])
        supply = daily * s["dt"] * people.everybody
        with asked.plate():
            slot = pyro.sample(
                "test_slot", dist.Bernoulli(each(asked, (supply / demand.clamp(min=1.0)).clamp(max=1.0)))
            )
        tested = _union(asked.select(slot.nonzero().squeeze(-1)), people.cohort(s["admitted"]))
        if bool((s["tracing"] > 0).any()):
            tested = _union(tested, traced(s))
        if bool((s["screening"] > 0).any()):
            tested = _union(tested, screened(s))
        tested = _living(tested, s)
        kind = (tested.read(s["test"]) > 0.5).long()
        since = tested.read(s["t"]) - tested.read(s["infected_at"])
        load = viral_load(s, tested, tested.read(s["archetype"]), since)
        infected = tested.read(s["active"]) & (load >= detection[kind])
        with tested.plate():
            false = pyro.sample(
                "false_positive", dist.Bernoulli(each(tested, theta["false_positive"]).expand(len(tested)))
            )
        queue = (demand / supply.clamp(min=1e-6)).clamp(1.0, 4.0)
        delay = torch.where(kind == 0, each(tested, theta["pcr_delay"]) * tested.read(queue), 0.0)
        return tested, infected | (false > 0), delay

    def change(s: State, action: tuple[Cohort, Tensor, Tensor]) -> State:
        tested, positive, delay = action
        tally("tests", tested, by=by)
        found = tested.select(positive.nonzero().squeeze(-1))
        # Who is tested again while waiting hears of the first result first.
        at = torch.minimum(found.read(s["result_at"]), found.read(s["t"]) + delay[positive].float())
        result_at = found.write(s["result_at"], at)
        due = people.due(result_at, s["t"], s["dt"])
        learns = _living(due, s)
        tally("cases", learns, by=by)
        return {
            "result_at": due.overwrite(result_at, math.inf),
            "positive_at": learns.write(s["positive_at"], learns.read(s["t"])),
            "learnt": learns.mask(),
        }

    return Substep(
        "testing",
        reads=(
            "active", "admitted", "archetype", "capacity", "infected_at", "learnt", "positive_at", "result_at",
            "screening", "seeks_test", "stage", "test", "test_turn", "tracing", "viral_load",
        ),
        writes=("result_at", "positive_at", "learnt"),
        policy=sample,
        transition=change,
    )  # fmt: skip


def _living(cohort: Cohort, s: State) -> Cohort:
    """The members who are alive."""
    return cohort.select((cohort.read(s["stage"]) != Stage.DEAD).nonzero().squeeze(-1))


def _union(a: Cohort, b: Cohort) -> Cohort:
    """The members of either, each once, in order."""
    if a.shape != b.shape:
        lead = broadcast(a.shape[:-1], b.shape[:-1])
        a, b = a.expand(lead), b.expand(lead)
    return Cohort(torch.unique(torch.cat((a.where, b.where))), a.shape, a.ids)


def start(setting: Setting, theta: Theta, t: float) -> State:
    """Nobody has been tested."""
    people = setting.people
    with people.plate():
        turn = pyro.sample("test_turn", dist.Uniform(torch.zeros(people.size, device=people.device), 1.0)).float()
    never = torch.full((people.size,), math.inf, device=people.device)
    nobody = torch.zeros(people.size, dtype=torch.bool, device=people.device)
    return {"result_at": never, "positive_at": -never, "learnt": nobody, "test_turn": turn}


PART = Part(
    "testing",
    testing,
    start,
    parameters={
        "pcr_delay": Parameter(around(2.0), 2.0, "from PCR test to result without a queue", "days", "chosen"),
        "false_positive": Parameter(
            dist.Beta(2.0, 998.0), 0.002, "false positives", "share of tests of the uninfected", "chosen"
        ),
        "other_reasons": Parameter(
            around(0.0015), 0.0015, "tests sought for other reasons", "per person and day", "chosen"
        ),
    },
    keeps=("test_turn",),
    environment={"test": 0.0, "screening": 0.0, "tracing": 0.0, "capacity": -1.0},
    limits={"screening": (0.0, 365.0), "tracing": (0.0, 1.0), "capacity": (0.0, 1.0)},
    options={"test": KINDS},
    tallies={"cases": "positive tests by the day of the result", "tests": "tests", "tests_sought": "tests sought"},
)
