"""Progression: the course of the disease by each agent's own clock, from infection to recovery or death."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.ops import tally
from lpmppl.models.immunity import archetype_of, disease_factor
from lpmppl.models.model import Parameter
from lpmppl.models.part import Part, Setting
from lpmppl.models.periods import around, each, lognormal
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["CLINICAL", "PART", "Stage", "fatality_by_age", "progression", "survivors_by_age"]


class Stage(enum.IntEnum):
    """Where an agent is in the course of the disease; severe is admitted to hospital, critical in intensive care."""

    SUSCEPTIBLE = 0
    EXPOSED = 1
    PRESYMPTOMATIC = 2
    ASYMPTOMATIC = 3
    MILD = 4
    SEVERE = 5
    CRITICAL = 6
    RECOVERED = 7
    DEAD = 8


CLINICAL = (0.29, 0.21, 0.27, 0.33, 0.40, 0.49, 0.63, 0.69, 0.69)
"""Share of infections with symptoms by age band 0–9 … 80+: Davies et al., Nature Medicine 26 (2020), 70+ is one."""

_HOSPITAL = (0.001, 0.003, 0.012, 0.032, 0.049, 0.102, 0.166, 0.243, 0.273)
_INTENSIVE = (0.05, 0.05, 0.05, 0.05, 0.063, 0.122, 0.274, 0.432, 0.709)
"""Admitted of those with symptoms, and in intensive care of those: Ferguson et al., Imperial report 9 (2020)."""

PRESYMPTOMATIC = 0.4
"""Share of the incubation period in which an agent is called presymptomatic (chosen: two days of the median)."""

AT_HOME = 0.2
"""Share of deaths outside hospital (chosen: a fifth of New York's in spring 2020 were probable, few admitted)."""


class _Leg(enum.IntEnum):
    """What an agent waits for, and so which period is drawn."""

    ASYMPTOMATIC = 0
    MILD = 1
    TO_HOSPITAL = 2
    TO_DEATH_AT_HOME = 3
    TO_INTENSIVE = 4
    SEVERE = 5
    TO_DEATH = 6
    CRITICAL = 7


_PERIODS = ((8.0, 2.0), (8.0, 2.0), (6.6, 4.9), (13.0, 6.0), (1.5, 2.0), (18.1, 6.3), (7.0, 4.8), (18.1, 6.3))
"""Mean and standard deviation in days of each leg: Kerr et al., PLOS Computational Biology 17 (2021), table 1.

The two to death are chosen: New York's deaths of spring 2020 peaked a week after its admissions, while Kerr et al. have
10.7 ± 4.8 days in intensive care.
"""

_SEVERE, _CRITICAL, _FATAL = 1, 2, 4


def fatality_by_age(age: Tensor) -> Tensor:
    r"""Deaths per infection by age in years: :math:`10^{-3.27 + 0.0524\,age}` per cent.

    Levin et al., European Journal of Epidemiology 35 (2020), 1123.

    >>> [round(float(100 * p), 3) for p in fatality_by_age(torch.tensor([25.0, 55.0, 85.0]))]
    [0.011, 0.409, 15.276]
    """
    return torch.pow(10.0, -3.27 + 0.0524 * age - 2.0)


def survivors_by_age() -> Tensor:
    """Admitted who survive, per infection, by age band: two thirds of infections are ill, half of the critical die."""
    hospital, intensive = torch.tensor(_HOSPITAL), torch.tensor(_INTENSIVE)
    return hospital * (2 / 3) * (1 - intensive / 2)


@dataclass(frozen=True)
class _Turn:
    """The action of a day: who turns, from and to which stage and when, and everybody's clocks after it."""

    turning: Cohort
    was: Tensor
    now: Tensor
    state: State


def progression(setting: Setting, theta: Theta) -> Substep:
    r"""The substep in which agents pass through the stages of the disease by their own clocks.

    The incubation period is log-normal; its quantile also says which of the immune archetypes' variation classes the
    infection is of, so that a fast course is fast in the body too. Symptoms, admission, intensive care and death are
    drawn when they come into question, by age, vaccination and whether it is a first infection; every period is at
    least one step. Who recovers returns to risk.

    Args:
        setting: where it plays; `age` in years and `age_band` give the risks.
        theta: `incubation_median` in days and `incubation_spread` in log units; `severity` and `fatality`, factors on
            the published risks of admission and death; `reinfection_severity`, a factor on both for later infections.
    """
    people, by = setting.people, setting.by
    device = people.device
    clinical, survive = torch.tensor(CLINICAL, device=device), survivors_by_age().to(device)
    intensive = torch.tensor(_INTENSIVE, device=device)
    periods = torch.tensor(_PERIODS, device=device)
    years = people["age"] if "age" in people.dataset else people["age_band"] * 10 + 5
    per_head = 1e5 / people.everybody

    def incubate(s: State) -> State:
        new = people.cohort(s["infected"])
        dt = float(s["dt"])
        with new.plate(episode=new.read(s["episode"])):
            quantile = pyro.sample("incubation", dist.Uniform(torch.zeros((), device=device), 1.0))
        log = torch.log(each(new, theta["incubation_median"])) + each(
            new, theta["incubation_spread"]
        ) * torch.special.ndtri(quantile)
        wait = ((1 - PRESYMPTOMATIC) * torch.exp(log)).clamp(min=dt)
        archetype = archetype_of(new, people, s, quantile)
        return {
            "due": new.write(s["due"], (new.read(s["infected_at"]) + wait).float()),
            "stage": new.write(s["stage"], Stage.EXPOSED),
            "archetype": new.write(s["archetype"], archetype),
            "active": new.write(s["active"], True),
        }

    def onset_draws(sick: Cohort, s: State, vulnerable: Tensor) -> Tensor:
        """What becomes of those whose symptoms begin: which of severe, critical and fatal."""
        band, age = sick.group(people["age_band"]).long(), sick.group(years).float()
        p_symptoms = clinical[band]
        fatal_risk = fatality_by_age(age) * each(sick, theta["fatality"]) * vulnerable / p_symptoms
        severe_risk = survive[band] * each(sick, theta["severity"]) * vulnerable / p_symptoms
        ward = intensive[band] / 2 / (1 - intensive[band] / 2)
        with sick.plate(episode=sick.read(s["episode"])):
            fatal = pyro.sample("fatal", dist.Bernoulli(fatal_risk.clamp(max=0.95)))
            admitted = pyro.sample(
                "admission", dist.Bernoulli(torch.where(fatal > 0, 1 - AT_HOME, severe_risk.clamp(max=0.95)))
            )
            critical = pyro.sample("intensive", dist.Bernoulli(torch.where(fatal > 0, torch.ones_like(ward), ward)))
        destiny = _FATAL * fatal + admitted * (_SEVERE + _CRITICAL * critical)
        return destiny.to(torch.uint8)

    def clocks(s: State) -> _Turn:
        t, dt = float(s["t"]), float(s["dt"])
        state = incubate(s)
        turning = people.due(state["due"], t, dt)
        at, was = turning.read(state["due"]), turning.read(state["stage"])
        episode = turning.read(s["episode"])

        begins = (was == Stage.EXPOSED).nonzero().squeeze(-1)
        first = turning.select(begins)
        immune = disease_factor(first, s, theta)
        with first.plate(episode=episode[begins]):
            odds = clinical[first.group(people["age_band"]).long()] * immune
            symptoms = pyro.sample("symptoms", dist.Bernoulli(odds)).bool()
        onset = (was == Stage.PRESYMPTOMATIC).nonzero().squeeze(-1)
        sick = turning.select(onset)
        again = torch.where(episode[onset] > 1, each(sick, theta["reinfection_severity"]), 1.0)
        destiny = turning.read(s["destiny"]).index_copy(
            0, onset, onset_draws(sick, s, again * disease_factor(sick, s, theta, severe=True))
        )

        severe, critical, fatal = ((destiny & bit) > 0 for bit in (_SEVERE, _CRITICAL, _FATAL))
        # Where to, and what each agent then waits for; the dead and the recovered wait for nothing.
        now = torch.full_like(was, Stage.RECOVERED)
        now = now.index_copy(0, begins, torch.where(symptoms, Stage.PRESYMPTOMATIC, Stage.ASYMPTOMATIC).to(now.dtype))
        now = torch.where(was == Stage.PRESYMPTOMATIC, Stage.MILD, now)
        now = torch.where((was == Stage.MILD) & severe, Stage.SEVERE, now)
        now = torch.where((was == Stage.SEVERE) & critical, Stage.CRITICAL, now)
        now = torch.where(fatal & ((was == Stage.CRITICAL) | ((was == Stage.MILD) & ~severe)), Stage.DEAD, now)
        leg = torch.full_like(was, _Leg.ASYMPTOMATIC)
        leg = torch.where(
            now == Stage.MILD,
            torch.where(severe, _Leg.TO_HOSPITAL, torch.where(fatal, _Leg.TO_DEATH_AT_HOME, _Leg.MILD)),
            leg,
        )
        leg = torch.where(now == Stage.SEVERE, torch.where(critical, _Leg.TO_INTENSIVE, _Leg.SEVERE), leg)
        leg = torch.where(now == Stage.CRITICAL, torch.where(fatal, _Leg.TO_DEATH, _Leg.CRITICAL), leg).long()
        with turning.plate(episode=len(_Leg) * episode.int() + leg):
            period = pyro.sample("period", lognormal(periods[leg, 0], periods[leg, 1])).clamp(min=dt)
        # The incubation period is known since infection: its rest follows from its first part.
        rest = (at - turning.read(s["infected_at"])) * (PRESYMPTOMATIC / (1 - PRESYMPTOMATIC))
        wait = torch.where(now == Stage.PRESYMPTOMATIC, rest.clamp(min=dt), period.to(rest.dtype))
        over = (now == Stage.RECOVERED) | (now == Stage.DEAD)
        due = torch.where(over, math.inf, at + wait)
        state = {
            **state,
            "destiny": turning.write(s["destiny"], destiny),
            "stage": turning.overwrite(state["stage"], now),
            "due": turning.overwrite(state["due"], due),
            "active": turning.select(over).overwrite(state["active"], False),
        }
        return _Turn(turning, was, now, state)

    def change(s: State, turn: _Turn) -> State:
        turning, was, now = turn.turning, turn.was, turn.now
        ward = lambda x: (x == Stage.SEVERE) | (x == Stage.CRITICAL)  # noqa: E731
        admitted, sick = turning.select(now == Stage.SEVERE), turning.select(now == Stage.MILD)
        admissions = tally("admissions", admitted, by=by)
        tally("deaths", turning.select(now == Stage.DEAD), by=by)
        change = ward(now).to(torch.int64) - ward(was).to(torch.int64)
        hospitalised = tally("hospitalised", turning.carrying(change), by=by, onto=s["hospitalised"])
        today = admissions.sum(-1, keepdim=True).float() * (per_head / s["dt"])
        share = (s["dt"] / 7.0).clamp(max=1.0)
        ill = (now == Stage.MILD) | (now == Stage.SEVERE) | (now == Stage.CRITICAL)
        keys = ("due", "stage", "archetype", "active", "destiny")
        return {
            **{key: turn.state[key] for key in keys},
            "symptomatic": turning.write(s["symptomatic"], ill),
            "onset": sick.mask(),
            "admitted": admitted.mask(),
            "died": turning.select(now == Stage.DEAD).mask(),
            "returned": turning.select(now == Stage.RECOVERED).mask(),
            "hospitalised": hospitalised,
            "admissions/week": s["admissions/week"] + share * (today - s["admissions/week"]),
        }

    return Substep(
        "progression",
        reads=(
            "infected",
            "infected_at",
            "episode",
            "doses",
            "dosed_at",
            "due",
            "stage",
            "archetype",
            "active",
            "destiny",
            "symptomatic",
            "hospitalised",
            "admissions/week",
        ),
        writes=(
            "due",
            "stage",
            "archetype",
            "active",
            "destiny",
            "symptomatic",
            "onset",
            "admitted",
            "died",
            "returned",
            "hospitalised",
            "admissions/week",
        ),
        policy=clocks,
        transition=change,
    )


def start(setting: Setting, theta: Theta, t: float) -> State:
    """Nobody has been infected yet but those whom transmission's start has brought."""
    n, device = setting.people.size, setting.people.device
    nobody = torch.zeros(n, dtype=torch.bool, device=device)
    return {
        "due": torch.full((n,), math.inf, device=device),
        "stage": torch.zeros(n, dtype=torch.uint8, device=device),
        "archetype": torch.zeros(n, dtype=torch.int16, device=device),
        "active": nobody,
        "destiny": torch.zeros(n, dtype=torch.uint8, device=device),
        "symptomatic": nobody,
        "onset": nobody,
        "admitted": nobody,
        "died": nobody,
        "returned": nobody,
        "hospitalised": torch.zeros(setting.by.count if setting.by else 1, dtype=torch.int64, device=device),
        "admissions/week": torch.zeros(1, device=device),
    }


PART = Part(
    "progression",
    progression,
    start,
    parameters={
        "incubation_median": Parameter(
            around(5.1, 0.1),
            5.1,
            "median incubation period",
            "days",
            "Lauer et al., Annals of Internal Medicine 172 (2020), 577",
        ),
        "incubation_spread": Parameter(
            around(0.418, 0.1), 0.418, "spread of the incubation period", "log units", "Lauer et al. 2020"
        ),
        "severity": Parameter(
            around(0.45),
            0.45,
            "severity",
            "factor on admissions per infection",
            "chosen: New York's admissions of spring 2020",
        ),
        "fatality": Parameter(
            around(1.0),
            1.0,
            "fatality",
            "factor on deaths per infection",
            "by age: Levin et al., European Journal of Epidemiology 35 (2020), 1123",
        ),
        "reinfection_severity": Parameter(around(0.2), 0.2, "severity of a later infection", "factor", "chosen"),
    },
    outcomes={"died": lambda _, s: s["stage"] == Stage.DEAD},
    tallies={
        "admissions": "hospital admissions",
        "deaths": "deaths",
        "hospitalised": "in hospital",
    },
)
