"""Progression: the course of the disease by each agent's own clock, and who is infectious today."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.fields import Network
from lpmppl.effects.ops import aggregate, tally
from lpmppl.models.networks import Groups
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["INFECTION_FATALITY", "Stage", "lognormal", "progression"]

INFECTION_FATALITY = (0.00002, 0.00006, 0.0003, 0.0008, 0.0015, 0.006, 0.022, 0.051, 0.093)
"""Deaths per infection by age band 0–9 … 80+.

Ferguson et al., Imperial College COVID-19 report 9 (2020), table 1, after Verity et al., Lancet Infectious Diseases 20
(2020).
"""

DEATH_DELAY = (10.0, 8.0)
"""Days from the end of infectiousness to death, mean and spread.

17.8 days from onset with a coefficient of variation of 0.45 (Verity et al. 2020), less the mean infectious period; the
subtraction is ours.
"""


class Stage(enum.IntEnum):
    """Where an agent is in the course of the disease."""

    SUSCEPTIBLE = 0
    EXPOSED = 1
    INFECTIOUS = 2
    DYING = 3
    RECOVERED = 4
    DEAD = 5


def lognormal(mean: Tensor, spread: Tensor | float) -> dist.LogNormal:
    """The log-normal of a mean and a standard deviation, both in days and of one shape.

    >>> d = lognormal(torch.tensor(4.5), 1.5)
    >>> round(float(d.mean), 4), round(float(d.stddev), 4)
    (4.5, 1.5)
    """
    # In double precision no ratio of two float32 numbers overflows or vanishes when squared.
    variance = torch.log1p((torch.as_tensor(spread).double() / mean.double()) ** 2)
    return dist.LogNormal(torch.log(mean.double()) - variance / 2, torch.sqrt(variance))


@dataclass(frozen=True)
class _Turn:
    """The action of a day: who leaves a stage and when, and every agent's stage and clock after it."""

    turning: Cohort
    at: Tensor
    was: Tensor
    stage: Tensor
    due: Tensor


def progression(population: Population, layers: Sequence[Network], theta: Theta, by: Groups | None = None) -> Substep:
    r"""The substep in which agents pass through the stages of the disease by their own clocks.

    An agent infected at time τ becomes infectious at τ + latent period, never sooner than one step later, ends being
    infectious after the infectious period, and then recovers or, with the infection fatality of its age, dies after a
    delay. An agent counts towards its groups' infectious members for the fraction of the step in which it is
    infectious.

    Args:
        population: the people; its `age_band` gives the fatality.
        layers: the networks whose infectious members are counted, by name.
        theta: `latent_mean`, `latent_spread`, `infectious_mean`, `infectious_spread` in days and `fatality`, a factor
            on the fatality by age.
        by: the strata of the tallies.
    """
    fatality = torch.tensor(INFECTION_FATALITY, device=population.device)

    def period(name: str, cohort: Cohort) -> dist.LogNormal:
        return lognormal(_each(cohort, theta[f"{name}_mean"]), _each(cohort, theta[f"{name}_spread"]))

    def clocks(s: State) -> _Turn:
        t, dt = float(s["t"]), float(s["dt"])
        new = population.cohort(s["infected"])
        with new.plate(episode=0):
            latent = pyro.sample("latent_period", period("latent", new))
        due = new.write(s["due"], new.read(s["infected_at"]) + latent.clamp(min=dt))
        stage = new.write(s["stage"], Stage.EXPOSED)

        turning = population.cohort(due, below=t + dt)
        at, was = turning.read(due), turning.read(stage)
        begins = (was == Stage.EXPOSED).nonzero().squeeze(-1)
        ends = (was == Stage.INFECTIOUS).nonzero().squeeze(-1)
        onset, end = turning.select(begins), turning.select(ends)
        with onset.plate(episode=0):
            infectious = pyro.sample("infectious_period", period("infectious", onset)).clamp(min=dt)
        risk = fatality[end.group(population["age_band"]).long()] * _each(end, theta["fatality"])
        with end.plate(episode=0):
            fatal = pyro.sample("fatal", dist.Bernoulli(risk.clamp(max=1.0))).nonzero().squeeze(-1)
        dying = end.select(fatal)
        with dying.plate(episode=0):
            delay = pyro.sample("death_delay", lognormal(*(torch.tensor(d) for d in DEATH_DELAY)))

        # Who isn't at the begin or end of being infectious was dying, and is dead.
        next_stage = torch.full_like(was, Stage.DEAD)
        next_stage.index_fill_(0, begins, Stage.INFECTIOUS).index_fill_(0, ends, Stage.RECOVERED)
        next_stage.index_fill_(0, ends[fatal], Stage.DYING)
        next_at = torch.full_like(at, math.inf).index_copy(0, begins, at[begins] + infectious.to(at.dtype))
        next_at = next_at.index_copy(0, ends[fatal], at[ends[fatal]] + delay.to(at.dtype))
        return _Turn(turning, at, was, turning.overwrite(stage, next_stage), turning.overwrite(due, next_at))

    def change(s: State, turn: _Turn) -> State:
        t, dt = float(s["t"]), float(s["dt"])
        left = ((t + dt - turn.at) / dt).clamp(0.0, 1.0)
        # +1 for who becomes infectious, −1 for who ends; on the day itself, for the fraction of the day left.
        sign = (turn.was == Stage.EXPOSED).float() - (turn.was == Stage.INFECTIOUS).float()
        today, lasting = turn.turning.carrying(sign * left), turn.turning.carrying(sign.to(torch.int64))
        updates: dict[str, Tensor] = {}
        for layer in layers:
            count = s[f"{layer.name}/infectious"]
            updates[f"{layer.name}/infectious"] = _total(aggregate(lasting, layer, onto=count))
            updates[f"{layer.name}/today"] = _total(aggregate(today, layer, onto=count))
        updates["infectious"] = tally("infectious", lasting, by=by, onto=s["infectious"])
        tally("deaths", turn.turning.select(turn.was == Stage.DYING), by=by)
        return {**updates, "due": turn.due, "stage": turn.stage}

    counts = [f"{layer.name}/infectious" for layer in layers]
    return Substep(
        "progression",
        reads=("stage", "due", "infected", "infected_at", "infectious", *counts),
        writes=("stage", "due", "infectious", *counts, *(f"{layer.name}/today" for layer in layers)),
        policy=clocks,
        transition=change,
    )


def _each(cohort: Cohort, parameter: Tensor) -> Tensor:
    """A parameter for each member of a cohort, or the one that all have."""
    return parameter.reshape(()) if parameter.numel() == 1 else cohort.read(parameter)


def _total(field: object) -> Tensor:
    return field.total  # type: ignore[attr-defined]
