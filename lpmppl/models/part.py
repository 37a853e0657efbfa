"""The parts that a composed model is made of: a substep with its parameters, environment, tallies and start."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property

from torch import Tensor

from lpmppl.errors import InputError, nearest
from lpmppl.models.archetypes import Archetypes
from lpmppl.models.model import Meant, Parameter
from lpmppl.models.networks import Groups
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["Book", "Part", "Setting", "chosen"]


@dataclass(frozen=True)
class Setting:
    """Where and when a model plays: what every part of it is told.

    Args:
        people: the population.
        start: the date of day 0.
        by: the strata of tallies, or None for one total.
        residents: how many people the agents stand for; the agents themselves by default.
        archetypes: by which archetypes people decide; the behaviour's own by default.
    """

    people: Population
    start: date
    by: Groups | None = None
    residents: int | None = None
    archetypes: Archetypes | None = None

    def day(self, iso: str) -> int:
        """The day of the model on which a date such as "2020-03-22" falls; negative before the start."""
        return (date.fromisoformat(iso) - self.start).days

    def date_of(self, day: float) -> date:
        """The date of a day of the model."""
        return self.start + timedelta(days=math.floor(day))

    @cached_property
    def weight(self) -> float:
        """The number of residents that one agent stands for."""
        return (self.residents or self.people.everybody) / self.people.everybody


def _nothing(_: Setting, __: Theta, ___: float) -> State:
    return {}


@dataclass(frozen=True)
class Book:
    """What the steps of a part keep, which `lpmppl.verify` holds it to: laws of the states before and after a step.

    Args:
        balances: what is 0 or false for everybody after every step, by what it says.
        accounts: what tallies count, read off the state a second time, by tally.
        responses: which tallies never fall (1) or never rise (−1) in a parameter or part of the environment.
        meanings: what parameters and equations mean, by what it says: as `Model.meanings`, of the setting besides.
    """

    balances: Mapping[str, Callable[[Population, State, State], Tensor]] = field(default_factory=dict)
    accounts: Mapping[str, Callable[[Population, State, State], Tensor]] = field(default_factory=dict)
    responses: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    meanings: Mapping[str, Callable[[Setting, Theta, State, State, Mapping[str, Tensor]], Meant]] = field(
        default_factory=dict
    )


@dataclass(frozen=True)
class Part:
    """A substep with what it brings to a model.

    Args:
        name: the substep's name.
        substep: the setting and the parameters to the substep.
        start: the setting, the parameters and the first day to the state keys that only this substep writes.
        parameters: its structural parameters, by name.
        keeps: the state keys that its start gives and nobody changes.
        environment: the state keys that policies may change, with their values at the start.
        limits: the least and the greatest value of what policies may change, by name, where there are such.
        options: the words for 0, 1, … of what policies may change, by name, where its values have such.
        tallies: what it counts, by name, in a few words.
        units: the units of tallies that don't count people, by name.
        pulses: what policies may change that it sets back by itself.
        targets: what policies may set for some alone, with the dimension it is then on: "agent" or "household".
        dims: dimensions that its tallies have besides the strata.
        decisions: the decisions that its agents take, by name.
        spreads: the hazard site at which agents act on each other, where it has such.
        outcomes: what may have become of an agent, by name: the people and the last state to a Boolean of shape (…, N).
        book: what its steps keep; None for what `bookkeeping.BOOKS` has under its name.
    """

    name: str
    substep: Callable[[Setting, Theta], Substep]
    start: Callable[[Setting, Theta, float], State] = _nothing
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    keeps: Collection[str] = ()
    environment: Mapping[str, float] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tallies: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    pulses: Collection[str] = ()
    targets: Mapping[str, str] = field(default_factory=dict)
    dims: Collection[str] = ()
    decisions: Collection[str] = ()
    spreads: str = ""
    outcomes: Mapping[str, Callable[[Population, State], Tensor]] = field(default_factory=dict)
    book: Book | None = None


def chosen(parts: Sequence[Part], without: Collection[str]) -> tuple[Part, ...]:
    """The parts of a model but for those that are left out.

    Raises:
        InputError: for a name that no part has, or if nothing is left.
    """
    for name in _each(without):
        if name not in {part.name for part in parts}:
            raise InputError(nearest("substep", name, [part.name for part in parts]))
    left = tuple(part for part in parts if part.name not in without)
    if not left:
        raise InputError("a model without any substep was asked for; leave one of them in")
    return left


def _each(names: Collection[str]) -> Iterable[str]:
    if isinstance(names, str):
        raise InputError(f"without={names!r} was given; give a list of substeps' names, such as [{names!r}]")
    return names
