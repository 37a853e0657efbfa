"""New Yorkers by archetype: which attributes tell them apart, of the population and of the state as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort, at
from lpmppl.effects.internals.segments import pick
from lpmppl.errors import InputError, nearest
from lpmppl.models.archetypes import Archetypes, Bins, Lookup
from lpmppl.models.part import Setting
from lpmppl.models.population import Population
from lpmppl.typing import State

__all__ = [
    "DYNAMIC",
    "READ",
    "STATIC",
    "Dynamic",
    "Present",
    "archetypes",
    "archetypes_of",
    "at_first",
    "checked",
    "present",
]

LOW_SAVINGS = 2000.0
"""Dollars: the emergency that tells the fragile households of Lusardi et al., Brookings Papers (2011), from others."""

PLENTY = 10_000.0
"""Dollars above which savings are plenty; chosen."""

RECENT = 10.0
"""Days for which a positive test counts; chosen."""

READ = ("employed", "savings", "symptomatic", "positive_at")
"""The state keys that attributes are read from."""


@dataclass(frozen=True, eq=False)
class Present:
    """What some people are now.

    Args:
        people: the population.
        state: the state.
        who: a cohort, or a block of agents.
    """

    people: Population
    state: State
    who: Cohort | slice

    def own(self, key: str) -> Tensor:
        """What the state has of each of them, shape (…, n), or (k,) for a cohort."""
        x = self.state[key]
        return self.who.read(x) if isinstance(self.who, Cohort) else x[..., self.who]

    @cached_property
    def savings(self) -> Tensor:
        """The savings of each one's household, dollars."""
        x, home = self.state["savings"], self.people["household"]
        if isinstance(self.who, Cohort):
            place = self.who.row * x.shape[-1] + self.who.group(home)
            return at(x, torch.Size((*self.who.shape[:-1], x.shape[-1])), place)
        return pick(x, home[self.who])


@dataclass(frozen=True)
class Dynamic:
    """An attribute that changes: its labels, and how its codes are read of people as they are now."""

    labels: tuple[str, ...]
    code: Callable[[Present], Tensor]


def _health(now: Present) -> Tensor:
    recent = now.own("positive_at") > float(now.state["t"]) - RECENT
    return now.own("symptomatic").to(torch.uint8).masked_fill(recent, 2)


def _banded(now: Present) -> Tensor:
    saved = now.savings
    return (saved >= 0).to(torch.uint8) + (saved >= LOW_SAVINGS) + (saved >= PLENTY)


DYNAMIC = {
    "employment": Dynamic(("no job", "employed"), lambda now: now.own("employed")),
    "savings": Dynamic(("$2,000 or more", "under $2,000"), lambda now: now.savings < LOW_SAVINGS),
    "balance": Dynamic(("in debt", "under $2,000", "$2,000–10,000", "over $10,000"), _banded),
    "health": Dynamic(("well", "symptomatic", "tested positive"), _health),
}
"""The attributes that are read from the state, by name."""

STATIC: dict[str, Bins | Lookup] = {
    "age": Bins("age", (18, 40, 65), ("0–17", "18–39", "40–64", "65 and over")),
    "income": Bins("income", (40e3, 80e3), ("under $40,000", "$40,000–80,000", "over $80,000"), "unknown"),
    "occupation": Lookup("occupation"),
}
"""The attributes of the population by which New Yorkers are told apart by default."""


def archetypes(people: Population) -> Archetypes:
    """New Yorkers by age, household income and occupation, and by their job, savings and health as they are.

    Args:
        people: the population, with `age`, `income` per household in dollars a year, and `occupation`.
    """
    dynamic = {name: DYNAMIC[name].labels for name in ("employment", "savings", "health")}
    return people.derived("archetypes", lambda: Archetypes(people, STATIC, dynamic))


def archetypes_of(setting: Setting) -> Archetypes:
    """By which archetypes people decide in a setting."""
    return setting.archetypes or archetypes(setting.people)


def checked(kinds: Archetypes | None, people: Population) -> Archetypes | None:
    """Refuse archetypes of other people, or with attributes that can't be read from the state."""
    if kinds is None:
        return None
    if not isinstance(kinds, Archetypes):
        raise InputError(f"archetypes= is {type(kinds).__name__}; give Archetypes(people, …)")
    if kinds.agents != people.size:
        raise InputError(f"archetypes are of {kinds.agents} people, but there are {people.size}; make them of the same")
    for name, labels in kinds.dynamic.items():
        if name not in DYNAMIC:
            raise InputError(nearest("dynamic attribute of archetypes", name, DYNAMIC))
        if labels != DYNAMIC[name].labels:
            raise InputError(
                f"dynamic attribute '{name}' of archetypes has the labels {', '.join(labels)}; give "
                f"DYNAMIC['{name}'].labels: {', '.join(DYNAMIC[name].labels)}"
            )
    return kinds


def present(people: Population, kinds: Archetypes, s: State, who: Cohort | slice) -> Tensor:
    """The archetypes of a cohort's members, or of a block of agents, as their job, savings and health are now."""
    now = Present(people, s, who)
    return kinds.code(who, **{name: DYNAMIC[name].code(now) for name in kinds.dynamic})


def at_first(people: Population, kinds: Archetypes) -> Tensor:
    """The archetypes of all people before anything is known of them but whether they have a job, shape (N,)."""
    unknown = torch.zeros(people.size, dtype=torch.uint8, device=people.device)
    codes = dict.fromkeys(kinds.dynamic, unknown)
    if "balance" in codes:
        codes["balance"] = unknown + DYNAMIC["balance"].labels.index("$2,000–10,000")
    if "employment" in codes:
        codes["employment"] = people["employment"] == people.labels("employment").index("employed")
    return kinds.code(None, **codes)
