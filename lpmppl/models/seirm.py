"""SEIRM: susceptible, exposed, infectious, recovered, mortality; the core of an epidemic, in two substeps."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort, Sparse
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.fields import Network
from lpmppl.effects.internals.ring import width
from lpmppl.effects.ops import aggregate, happens, running, tally
from lpmppl.models import seirm_meanings
from lpmppl.models.contacts import SUSCEPTIBILITY, Layer
from lpmppl.models.model import Model, Parameter
from lpmppl.models.networks import Groups
from lpmppl.models.people import broken_down, needed
from lpmppl.models.periods import around, each, lognormal
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep, compose
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["DEATH_DELAY", "INFECTION_FATALITY", "SEIRM", "Stage", "progression", "transmission"]

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
        return lognormal(each(cohort, theta[f"{name}_mean"]), each(cohort, theta[f"{name}_spread"]))

    def clocks(s: State) -> _Turn:
        t, dt = float(s["t"]), float(s["dt"])
        new = population.cohort(s["infected"])
        with new.plate(episode=0):
            latent = pyro.sample("latent_period", period("latent", new))
        due = new.write(s["due"], new.read(s["infected_at"]) + latent.clamp(min=dt))
        stage = new.write(s["stage"], Stage.EXPOSED)

        turning = population.due(due, t, dt)
        at, was = turning.read(due), turning.read(stage)
        begins = (was == Stage.EXPOSED).nonzero().squeeze(-1)
        ends = (was == Stage.INFECTIOUS).nonzero().squeeze(-1)
        onset, end = turning.select(begins), turning.select(ends)
        with onset.plate(episode=0):
            infectious = pyro.sample("infectious_period", period("infectious", onset)).clamp(min=dt)
        risk = fatality[end.group(population["age_band"]).long()] * each(end, theta["fatality"])
        with end.plate(episode=0):
            fatal = pyro.sample("fatal", dist.Bernoulli(risk.clamp(max=1.0))).nonzero().squeeze(-1)
        dying = end.select(fatal)
        with dying.plate(episode=0):
            delay = pyro.sample("death_delay", lognormal(*torch.tensor(DEATH_DELAY, device=fatality.device)))

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


def _total(field: object) -> Tensor:
    return field.total  # type: ignore[attr-defined]


def transmission(population: Population, layers: Sequence[Layer], theta: Theta, by: Groups | None = None) -> Substep:
    r"""The substep in which susceptible agents are infected: eq. 8 of the LPM paper, summed over the layers.

    .. math:: p_i = 1 - \exp\Big(-\beta S_i \Delta t \sum_l c_l \frac{1}{n_i^l} \sum_{j \in N_l(i)} I_j\Big)

    with β the probability of transmission per contact, S the susceptibility of the agent's age, c the contacts per day
    of layer l.

    Args:
        population: the people; its `age_band` gives the susceptibility.
        layers: who meets whom, and how often.
        theta: `beta`, transmissions per contact with an infectious person.
        by: the strata of the tally of infections.
    """
    susceptibility = population["age_band"].new_tensor(SUSCEPTIBILITY, dtype=theta["beta"].dtype)[
        population["age_band"].long()
    ]

    def force(s: State) -> Exposure:
        pressure = sum(
            running(s[f"{layer.network.name}/today"], layer.network, weight=layer.contacts) for layer in layers
        )
        hazard = pressure * (theta["beta"] * s["transmission"]) * susceptibility
        return Exposure(s["exposure"], hazard, at_risk=s["susceptible"], dt=s["dt"])

    def infect(infection: Exposure) -> tuple[Exposure, Tensor, Tensor | Sparse]:
        with population.plate():
            return infection, *happens("infection", infection)

    def change(s: State, action: tuple[Exposure, Tensor, Tensor | Sparse]) -> State:
        infection, infected, left = action
        cohort = population.cohort(infected)
        tally("infections", cohort, by=by)
        at = s["t"] + s["dt"] * (1.0 - cohort.read(left))
        return {
            "exposure": infection.after,
            "infected": infected,
            "infected_at": cohort.write(s["infected_at"], at),
            "susceptible": cohort.write(s["susceptible"], False),
        }

    return Substep(
        "transmission",
        reads=(
            "exposure",
            "infected_at",
            "susceptible",
            "transmission",
            *(f"{layer.network.name}/today" for layer in layers),
        ),
        writes=("exposure", "infected", "infected_at", "susceptible"),
        observe=force,
        policy=infect,
        transition=change,
    )


class SEIRM(Model):
    """An epidemic over several layers of contact, with published latent and infectious periods and mortality by age.

    Args:
        population: the people, with `age_band` (0–9 … 80+).
        layers: who meets whom, and how often.
        by: the dimensions of the tallies and the variables they come from, such as `{"borough": "borough", "age":
            "age_band"}`.
    """

    name = "seirm"
    spreads = "infection"
    timed = True

    def __init__(self, population: Population, layers: Sequence[Layer], by: Mapping[str, str] | None = None) -> None:
        self.population, self.layers = needed(population), tuple(layers)
        self.by = broken_down(population, by)
        covasim = "Kerr et al., PLOS Computational Biology 17 (2021), table 1"
        self.parameters = {
            "beta": Parameter(
                around(0.048, 0.3),
                0.048,
                "transmission",
                "transmissions per contact",
                "chosen: R0 near 3, see docs/seirm.md",
            ),
            "latent_mean": Parameter(
                around(4.5), 4.5, "mean latent period", "days", f"{covasim}, after Lauer et al. 2020"
            ),
            "latent_spread": Parameter(around(1.5), 1.5, "spread of the latent period", "days", covasim),
            "infectious_mean": Parameter(
                around(8.0), 8.0, "mean infectious period", "days", f"mild cases: {covasim}, after Wölfel et al. 2020"
            ),
            "infectious_spread": Parameter(around(2.0), 2.0, "spread of the infectious period", "days", covasim),
            "fatality": Parameter(
                around(1.0),
                1.0,
                "fatality",
                "factor on deaths per infection",
                "by age: Ferguson et al., report 9 (2020)",
            ),
            "initial_infected": Parameter(
                dist.Beta(1.0, 1999.0),
                0.0005,
                "infected at day 0",
                "share of the population",
                "chosen: about 4,000 New Yorkers",
            ),
        }
        self.environment = {"transmission": 1.0}
        self.limits, self.targets = {"transmission": (0.0, 1000.0)}, {"transmission": "agent"}
        self.outcomes = {"infected": lambda s: ~s["susceptible"], "died": lambda s: s["stage"] == Stage.DEAD}
        self.tallies = {"infections": "new infections", "infectious": "infectious", "deaths": "deaths"}
        counted = {
            f"the infectious of each {layer.network.name} are counted": partial(_counts, layer.network)
            for layer in self.layers
        }
        counted |= {
            f"in each {layer.network.name} who turns today counts for a part of it": partial(_today, layer.network)
            for layer in self.layers
        }
        self.balances, self.accounts, self.responses = {**_BALANCES, **counted}, _ACCOUNTS, _RESPONSES
        self.meanings = {
            "the hazard of infection is that of equation 8": partial(
                seirm_meanings.force, population, self.layers, Stage.INFECTIOUS
            ),
            "fatality is a factor on the deaths of the age": partial(
                seirm_meanings.deaths, population, INFECTION_FATALITY, (Stage.INFECTIOUS, Stage.DYING)
            ),
            **_MEANINGS,
        }

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        people, device = self.population, self.population.device
        with people.plate():
            imported = pyro.sample("importation", dist.Bernoulli(theta["initial_infected"])).bool()
        state = {
            "stage": torch.full((people.size,), int(Stage.SUSCEPTIBLE), dtype=torch.uint8, device=device),
            "susceptible": ~imported,
            "infected": imported,
            "infected_at": torch.where(imported, float(start), -math.inf),
            "due": torch.full((people.size,), math.inf, device=device),
            "exposure": torch.zeros(people.size, dtype=torch.float64, device=device),
            "infectious": torch.zeros(self.by.count if self.by else 1, dtype=torch.int64, device=device),
            "transmission": torch.ones(1, device=device),
        }
        for layer in self.layers:
            n = layer.network
            state[f"{n.name}/infectious"] = torch.zeros_like(
                n.share("sum"), dtype=width(n.name, n.quantum, n.bound, n.reach)
            )
        return state

    def substeps(self, theta: Theta) -> tuple[Substep, ...]:
        """The parts of a day: own clocks first, then what the infectious do to others."""
        return (
            progression(self.population, [layer.network for layer in self.layers], theta, self.by),
            transmission(self.population, self.layers, theta, self.by),
        )

    def day(self, theta: Theta) -> Dynamics:
        return compose(*self.substeps(theta))


_NEXT = {0: (1, 2), 1: (2,), 2: (3, 4), 3: (5,), 4: (), 5: ()}
"""The stages that each may be followed by within a step."""


def _leaps(before: State, after: State) -> Tensor:
    was, now = before["stage"], after["stage"]
    right = [(was == k) & ((now == k) | torch.isin(now, now.new_tensor(then))) for k, then in _NEXT.items()]
    return ~torch.stack(right).any(0)


def _waits(before: State, after: State) -> Tensor:
    waiting = torch.isin(after["stage"], after["stage"].new_tensor([1, 2, 3]))
    ahead = (after["due"] >= before["t"] + before["dt"] - 1e-4) & ~after["due"].isinf()
    return torch.where(waiting, ~ahead, ~after["due"].isinf())


def _dated(before: State, after: State) -> Tensor:
    at, new = after["infected_at"], after["infected"]
    inside = (at >= before["t"] - 1e-4) & (at <= before["t"] + before["dt"] + 1e-4)
    return torch.where(new, ~inside, at != before["infected_at"])


def _early(before: State, after: State) -> Tensor:
    waited = torch.isin(before["stage"], before["stage"].new_tensor([1, 2, 3]))
    turned = waited & (before["stage"] != after["stage"])
    return turned & ~(before["due"] < before["t"] + before["dt"] + 1e-4)


def _today(network: Network, before: State, after: State) -> Tensor:
    """Whether somebody counts today for more or less than the fraction of the step in which it is infectious."""
    message = seirm_meanings.shedding(before, after, Stage.INFECTIOUS)
    counted = torch.as_tensor(aggregate(message, network, reduce="sum").total) - after[f"{network.name}/today"]
    unknown = aggregate(seirm_meanings.unread(before, after, Stage.INFECTIOUS), network, reduce="sum").total
    # Each fraction is rounded by itself, of times in single precision.
    return (counted.abs() * network.quantum > 1e-2) & (torch.as_tensor(unknown) == 0)


def _counts(network: Network, _: State, after: State) -> Tensor:
    now = aggregate(after["stage"] == Stage.INFECTIOUS, network, reduce="sum").total
    return torch.as_tensor(now) - after[f"{network.name}/infectious"]


_BALANCES = {
    "stages follow one another": _leaps,
    "who waits has a time ahead, and nobody else does": _waits,
    "nobody's stage ends before its time": _early,
    "an infection has its time in the step": _dated,
    "the susceptible are those who aren't infected": lambda b, a: (
        a["susceptible"] != (b["susceptible"] & ~a["infected"])
    ),
    "who is infected was susceptible": lambda b, a: a["infected"] & ~b["susceptible"],
    "who was infected is exposed next": lambda b, a: b["infected"] & (a["stage"] == Stage.SUSCEPTIBLE),
    "hazard accrues only at risk": lambda b, a: ~b["susceptible"] & (a["exposure"] != b["exposure"]),
}
_ACCOUNTS = {
    "infections": lambda _, a: a["infected"],
    "infectious": lambda _, a: a["stage"] == Stage.INFECTIOUS,
    "deaths": lambda b, a: (a["stage"] == Stage.DEAD) & (b["stage"] != Stage.DEAD),
}
_MEANINGS = {
    "the latent period has its mean and spread": partial(
        seirm_meanings.period, "latent", Stage.SUSCEPTIBLE, Stage.EXPOSED
    ),
    "the infectious period has its mean and spread": partial(
        seirm_meanings.period, "infectious", Stage.EXPOSED, Stage.INFECTIOUS
    ),
    "death comes after its delay": partial(seirm_meanings.delay, DEATH_DELAY, (Stage.INFECTIOUS, Stage.DYING)),
}
_RESPONSES = {
    "beta": {"infections": 1},
    "latent_mean": {"infections": -1},
    "infectious_mean": {"infections": 1},
    "fatality": {"deaths": 1},
    "initial_infected": {"infections": 1},
    "transmission": {"infections": 1},
}
