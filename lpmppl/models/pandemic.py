"""The pandemic: disease, immunity, testing, vaccination, mobility, work, money and behaviour, composed."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from functools import partial

import torch
from torch import Tensor

from lpmppl.effects.internals.segments import broadcast
from lpmppl.errors import InputError
from lpmppl.models import (
    behaviour,
    bookkeeping,
    immunity,
    labour,
    masking,
    mobility,
    observation,
    progression,
    prompts,
    stimulus,
    testing,
    transmission,
    vaccination,
)
from lpmppl.models.archetypes import Archetypes
from lpmppl.models.model import Model, Parameter
from lpmppl.models.new_yorkers import checked
from lpmppl.models.part import Book, Part, Setting, chosen
from lpmppl.models.people import broken_down, needed
from lpmppl.models.population import Population, named
from lpmppl.models.substep import CLOCK, Substep, compose
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["PARTS", "Pandemic"]

PARTS: tuple[Part, ...] = (
    mobility.PART,
    stimulus.PART,
    labour.PART,
    immunity.PART,
    progression.PART,
    testing.PART,
    behaviour.PART,
    masking.PART,
    vaccination.PART,
    transmission.PART,
    observation.PART,
    observation.CLAIMS,
)
"""A day of the pandemic, in order: the city and its economy, each agent's own clocks, then what agents do to others."""


class Pandemic(Model):
    """The composed model of a city's pandemic.

    Args:
        population: the people, with `age`, `age_band`, `household`, `workplace`, `puma` and what they do.
        by: the dimensions of the tallies and the variables they come from.
        start: the ISO date of day 0.
        without: the names of substeps to leave out; what they would have written stays as it is before the pandemic.
        parts: the parts of a day, in order.
        residents: how many people the agents stand for; the agents themselves by default.
        archetypes: by which archetypes people decide, static attributes of any kind and dynamic ones of
            `new_yorkers.DYNAMIC`; by default those that `behaviour` and `prompts` are made for.
    Raises:
        InputError: for a name that no part has, a date that isn't one, or a part without one whose state it reads.
    """

    name = "pandemic"

    def __init__(
        self,
        population: Population,
        by: Mapping[str, str] | None = None,
        start: str = "2020-03-01",
        without: Collection[str] = (),
        parts: Sequence[Part] = PARTS,
        residents: int | None = None,
        archetypes: Archetypes | None = None,
    ) -> None:
        try:
            day = date.fromisoformat(start)
        except (TypeError, ValueError) as e:
            raise InputError(f"start={start!r} is no date; write it as '2020-03-01'") from e
        needed(population)
        self.population, self.start, self.parts = population, start, chosen(parts, without)
        taken = {dim: part.name for part in self.parts for dim in part.dims}
        for dim in named(by, {}):
            if dim in taken:
                raise InputError(f"a stratum can't be called '{dim}': substep '{taken[dim]}' uses that name in results")
        self.by = broken_down(population, by)
        self.setting = Setting(population, day, self.by, residents, checked(archetypes, population))
        self.parameters: dict[str, Parameter] = {}
        self.environment: dict[str, float] = {}
        self.limits: dict[str, tuple[float, float]] = {}
        self.options: dict[str, Sequence[str]] = {}
        self.pulses = [name for part in self.parts for name in part.pulses]
        self.targets: dict[str, str] = {}
        self.spreads = next((part.spreads for part in self.parts if part.spreads), "")
        self.outcomes: dict[str, Callable[[State], Tensor]] = {}
        self.tallies: dict[str, str] = {}
        self.units: dict[str, str] = {}
        headline = sorted(self.parts, key=lambda part: part.name != "transmission")
        for part in self.parts:
            self.parameters |= part.parameters
            self.environment |= part.environment
            self.limits |= part.limits
            self.options |= part.options
            self.targets |= part.targets
            self.outcomes |= {name: partial(what, population) for name, what in part.outcomes.items()}
        for part in headline:
            self.tallies |= part.tallies
            self.units |= part.units
        self._keep_books()
        decisions = [name for part in self.parts for name in part.decisions]
        self.behaviour = {name: behaviour.UTILITY[name] for name in decisions}
        self.prompts = {name: prompts.PROMPTS[name] for name in decisions}
        labels = None if archetypes is None else archetypes.labels
        self.variant = json.dumps([[part.name for part in self.parts], decisions, labels])
        # A part that reads what nobody writes is said now, not on the first day.
        substeps = self.substeps(self.defaults())
        given = {key for substep in substeps for key in substep.writes} | {k for part in self.parts for k in part.keeps}
        compose(*substeps, given=given | set(self._background()) | set(self.environment))

    def _keep_books(self) -> None:
        """Gather what the parts' steps keep."""
        books = [part.book or bookkeeping.BOOKS.get(part.name, Book()) for part in self.parts]
        bound = lambda laws: {name: partial(law, self.population) for name, law in laws.items()}  # noqa: E731
        self.balances = {name: law for book in books for name, law in bound(book.balances).items()}
        self.accounts = {name: law for book in books for name, law in bound(book.accounts).items()}
        # A part with options of its own, such as another matrix of contacts, may have other equations.
        own = [book.meanings for part, book in zip(self.parts, books, strict=True) if not _optional(part)]
        self.meanings = {name: partial(law, self.setting) for laws in own for name, law in laws.items()}
        known = {*self.parameters, *self.environment}
        said = [(name, signs) for book in books for name, signs in book.responses.items() if name in known]
        kept = [(name, {t: sign for t, sign in signs.items() if t in self.tallies}) for name, signs in said]
        self.responses = {name: signs for name, signs in kept if signs}

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        state = dict(self._background())
        for part in self.parts:
            state |= part.start(self.setting, theta, start)
        device = self.population.device
        return {**state, **{name: torch.full((1,), value, device=device) for name, value in self.environment.items()}}

    def _background(self) -> State:
        """What parts that are left out would write, as it was before the pandemic."""
        people, device = self.population, self.population.device
        nobody = torch.zeros(people.size, dtype=torch.bool, device=device)
        never = torch.full((people.size,), -torch.inf, device=device)
        normal = torch.ones(1, device=device)
        return {
            "employed": people["employment"] == 2,
            "doses": torch.zeros(people.size, dtype=torch.uint8, device=device),
            "dosed_at": never,
            "positive_at": never,
            "seeks_test": nobody,
            "isolating": nobody,
            "masked": nobody,
            "willing": ~nobody,
            "learnt": nobody,
            "filed": nobody,
            "savings": people.derived("balances", lambda: stimulus.balances(people)),
            **{f"mobility/{kind}": normal for kind in ("workplaces", "retail", "transit")},
        }

    def substeps(self, theta: Theta) -> tuple[Substep, ...]:
        """The parts of a day, in order."""
        return tuple(part.substep(self.setting, theta) for part in self.parts)

    def day(self, theta: Theta) -> Dynamics:
        step = compose(*self.substeps(theta))

        def day(state: State) -> State:
            # Once worlds part, every part of the state has them all, without a copy: then what is read of one cohort
            # is there in all of its worlds. What has them stays the tensor it is, of which is known how it was made.
            lead = broadcast(*(x.shape[:-1] for x in state.values()))
            narrow = [k for k, x in state.items() if k not in CLOCK and x.shape[:-1] != lead]
            return step({**state, **{k: state[k].expand(*lead, state[k].shape[-1]) for k in narrow}})

        return day


def _optional(part: Part) -> bool:
    """Whether a part's substep was given options besides those it has by default."""
    given = getattr(part.substep, "keywords", {}).values()
    return any(not (x is None or x is False or (isinstance(x, tuple) and not x)) for x in given)
