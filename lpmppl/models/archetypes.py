"""Archetypes: agents that share every attribute that matters to a decision decide as one, with the same chances."""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lpmppl.effects.clear import in_clear
from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.internals.segments import broadcast
from lpmppl.errors import InputError, nearest
from lpmppl.models.given import number, shown
from lpmppl.models.population import Population

__all__ = ["Archetypes", "Bins", "Lookup", "counts"]


@dataclass(frozen=True)
class Bins:
    """An attribute made of a number of the population: which of some intervals it lies in.

    Args:
        column: the population's variable; one of a group, such as a household's income, is read for its members.
        edges: where one interval ends and the next begins, increasing; an edge belongs to the interval above it.
        labels: what the intervals are called, one more than edges.
        unknown: what agents without the number (nan) are called; None where everybody must have it.
    """

    column: str
    edges: Sequence[float]
    labels: Sequence[str]
    unknown: str | None = None

    def code(self, attribute: str, people: Population) -> tuple[Tensor, tuple[str, ...]]:
        """Each agent's interval, int64 of shape (N,), and the labels."""
        if (
            isinstance(self.labels, str)
            or not isinstance(self.edges, Collection)
            or not isinstance(self.labels, Collection)
        ):
            raise InputError(
                f"attribute '{attribute}': edges={shown(self.edges)} and labels={shown(self.labels)} were given; give "
                "a list of each"
            )
        edges, labels = [number(f"an edge of attribute '{attribute}'", x) for x in self.edges], tuple(self.labels)
        if any(not low < high for low, high in pairwise(edges)) or len(labels) != len(edges) + 1:
            raise InputError(
                f"attribute '{attribute}': {len(edges)} edges {edges} and {len(labels)} labels were given; edges must "
                "increase, with one label more than edges"
            )
        values = _of_agents(attribute, self.column, people)
        code = torch.bucketize(values, torch.tensor(edges, dtype=torch.float64, device=values.device), right=True)
        missing = values.isnan() if values.is_floating_point() else torch.zeros_like(values, dtype=torch.bool)
        if self.unknown is not None:
            return code.masked_fill_(missing, len(labels)), (*labels, self.unknown)
        if bool(missing.any()):
            raise InputError(
                f"attribute '{attribute}': {int(missing.sum())} agents have no '{self.column}'; say what they are "
                "called with unknown="
            )
        return code, labels


@dataclass(frozen=True)
class Lookup:
    """An attribute made of a coded variable of the population: its labels as they are, or gathered under fewer.

    Args:
        column: the population's variable.
        groups: the labels that come under each label of the attribute; None to keep the population's own.
    """

    column: str
    groups: Mapping[str, Sequence[str]] | None = None

    def code(self, attribute: str, people: Population) -> tuple[Tensor, tuple[str, ...]]:
        """Each agent's label, int64 of shape (N,), and the labels."""
        values = _of_agents(attribute, self.column, people).long()
        known = people.labels(self.column)
        if self.groups is None:
            return values, tuple(known)
        for members in _named(f"the groups of attribute '{attribute}'", self.groups, "lists of labels").values():
            if not isinstance(members, Collection):
                raise InputError(f"attribute '{attribute}' gathers {shown(members)}; give a list of labels")
        of: dict[str, int] = {}
        for k, members in enumerate(self.groups.values()):
            for label in [members] if isinstance(members, str) else members:
                if label not in known:
                    raise InputError(nearest(f"label of '{self.column}' in attribute '{attribute}'", label, known))
                if label in of:
                    raise InputError(f"attribute '{attribute}' gathers the label '{label}' twice; leave it out once")
                of[label] = k
        if missing := [label for label in known if label not in of]:
            raise InputError(
                f"attribute '{attribute}' gathers no '{missing[0]}' of the variable '{self.column}'; put it under one "
                f"of: {', '.join(self.groups)}"
            )
        return torch.tensor([of[label] for label in known], device=values.device)[values], tuple(self.groups)


def _named(what: str, values: Any, such: str) -> Mapping[str, Any]:
    """Values by name, or what is wrong with what was given for them."""
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise InputError(f"{what} are {shown(values)}; give {such} by name")
    return values


def _of_agents(attribute: str, column: str, people: Population) -> Tensor:
    """A variable of the population for each agent, shape (N,), also where it belongs to a group."""
    if column not in people.dataset:
        raise InputError(
            nearest(
                f"variable of the population in attribute '{attribute}'", column, map(str, people.dataset.variables)
            )
        )
    if people.dataset[column].ndim != 1:
        raise InputError(
            f"attribute '{attribute}': '{column}' has shape {people.dataset[column].shape}; give one of (N,)"
        )
    (dim,) = people.dataset[column].dims
    return people[column] if dim == "agent" else people[column].index_select(0, people[str(dim)])


def counts(place: Tensor, cells: int) -> Tensor:
    """How many agents there are in each of so many cells: from their cells, shape (…, N), int64 of shape (…, cells).

    >>> counts(torch.tensor([[0, 2, 2], [1, 1, 1]]), 3).tolist()
    [[1, 0, 2], [0, 3, 0]]
    """
    in_clear("how many agents there are of each archetype", "decide by utilities or a table, which needn't know")
    rows = place.reshape(place.shape[:-1].numel(), place.shape[-1])
    return torch.stack([torch.bincount(row, minlength=cells) for row in rows]).reshape(*place.shape[:-1], cells)


class Archetypes:
    """The archetypes of a population: every combination of a few attributes in words.

    Static attributes are read from the population once; dynamic ones, such as whether somebody has a job, are given at
    the time of deciding, so that agents are of another archetype as soon as they change. Without any attribute there is
    one archetype, everybody.

    Args:
        people: the population.
        static: what each static attribute is made of, by its name.
        dynamic: the labels of each dynamic attribute, by its name.
    Raises:
        InputError: for a variable, label or edge that can't be used, or a name that is given twice.

    >>> people = Population.of({"age": [40, 8, 70]})
    >>> ages = Bins("age", (18, 65), ("0–17", "18–64", "65 and over"))
    >>> archetypes = Archetypes(people, {"age": ages}, {"employment": ("no job", "employed")})
    >>> archetypes.size, archetypes.code(employment=torch.tensor([True, False, False])).tolist()
    (6, [3, 0, 4])
    >>> archetypes.words(3)
    {'age': '18–64', 'employment': 'employed'}
    """

    def __init__(
        self,
        people: Population,
        static: Mapping[str, Bins | Lookup],
        dynamic: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        for name, source in _named("the attributes of archetypes", static, "Bins(…) or Lookup(…)").items():
            if not isinstance(source, Bins | Lookup):
                raise InputError(f"attribute '{name}' is {shown(source)}; give Bins(…) or Lookup(…)")
        for name, labels in _named("the dynamic attributes", dynamic or {}, "their labels").items():
            if isinstance(labels, str) or not isinstance(labels, Collection) or not len(labels):
                raise InputError(f"dynamic attribute '{name}' has the labels {shown(labels)}; give a list of words")
        self.dynamic = {name: tuple(labels) for name, labels in (dynamic or {}).items()}
        """Labels of the dynamic attributes, by name."""
        if twice := sorted(set(static) & set(self.dynamic)):
            raise InputError(f"attribute '{twice[0]}' is given as static and as dynamic; give it once")
        self.labels: dict[str, tuple[str, ...]] = {}
        """Labels of every attribute in words, by name, in the order of the table's columns."""
        later = math.prod(len(labels) for labels in self.dynamic.values())
        code, count = torch.zeros(people.size, dtype=torch.int64, device=people.device), later
        for name, source in static.items():
            value, self.labels[name] = source.code(name, people)
            count *= len(self.labels[name])
            code.mul_(len(self.labels[name])).add_(value)
        self.of = weakref.ref(people)
        """Whose archetypes they are."""
        self.labels |= self.dynamic
        if not self.labels:
            # One archetype of all, which has a name to be asked by.
            self.labels = {"everybody": ("everybody",)}
        self.size = count
        """The number K of archetypes."""
        self._static = code.mul_(later).to(torch.int16 if count <= 2**15 else torch.int32)

    @cached_property
    def table(self) -> Tensor:
        """The attribute codes of every archetype, int64 of shape (K, attributes): what `decide` is given."""
        return torch.cartesian_prod(
            *(torch.arange(len(labels), device=self._static.device) for labels in self.labels.values())
        ).reshape(self.size, len(self.labels))

    def words(self, k: int) -> dict[str, str]:
        """What archetype k is, in words, by attribute."""
        return {name: self.labels[name][code] for name, code in zip(self.labels, self.table[k].tolist(), strict=True)}

    def code(self, who: Cohort | slice | None = None, **dynamic: Tensor) -> Tensor:
        """The archetype of each agent, or of some of them, as they are now.

        Args:
            who: a cohort, or a block of agents, whose archetypes are asked for; everybody's by default.
            dynamic: codes of every dynamic attribute, Booleans or integers of shape (…, N), or (k,) for a cohort.
        Returns:
            integers in 0 … K − 1 of shape (…, N), or (k,).
        Raises:
            InputError: where an attribute is unknown or missing, or a code has no label.
        """
        for name in dynamic:
            if name not in self.dynamic:
                raise InputError(nearest("dynamic attribute", name, self.dynamic))
        code = who.read(self._static) if isinstance(who, Cohort) else self._static[who or slice(None)]
        step = 1
        for name, labels in reversed(self.dynamic.items()):
            if name not in dynamic:
                raise InputError(f"dynamic attribute '{name}' is missing; give its codes: 0 … {len(labels) - 1}")
            value = dynamic[name]
            if (
                value.numel()
                and value.dtype != torch.bool
                and not 0 <= int(value.min()) <= int(value.max()) < len(labels)
            ):
                raise InputError(
                    f"dynamic attribute '{name}' has codes {int(value.min())} … {int(value.max())}, but its labels are "
                    f"{', '.join(labels)}"
                )
            code = code + value.to(code.dtype) * step
            step *= len(labels)
        return code

    def count(self, code: Tensor, cohort: Cohort | None = None) -> Tensor:
        """How many agents there are of each archetype.

        Args:
            code: archetypes of agents, integers of shape (…, N), or of a cohort's members, shape (k,).
            cohort: whose archetypes they are, where they aren't everybody's.
        Returns:
            int64 of shape (…, K).
        """
        if cohort is None:
            return counts(code, self.size)
        lead = cohort.shape[:-1]
        return counts(cohort.row * self.size + code, lead.numel() * self.size).reshape(*lead, self.size)

    def read(self, values: Tensor, code: Tensor, cohort: Cohort | None = None) -> Tensor:
        """Read what belongs to archetypes, such as a probability, for agents of these archetypes.

        Args:
            values: shape (…, K).
            code: archetypes of agents, integers of shape (…, N), or of a cohort's members, shape (k,).
            cohort: whose archetypes they are, where they aren't everybody's.
        Returns:
            shape (…, N), or (k,).
        """
        if cohort is not None:
            flat = values.expand(*cohort.shape[:-1], values.shape[-1]).reshape(-1)
            return flat[cohort.row * values.shape[-1] + code]
        if values.dim() == 1 == code.dim():
            return values.index_select(0, code.int())
        lead = broadcast(values.shape[:-1], code.shape[:-1])
        return values.expand(*lead, values.shape[-1]).gather(-1, code.long().expand(*lead, code.shape[-1]))
