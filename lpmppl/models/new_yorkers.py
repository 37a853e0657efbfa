"""New Yorkers by archetype: which attributes tell them apart, of the population and of the state as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort, at
from lpmppl.effects.internals.segments import pick
from lpmppl.effects.ops import ring_sum
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
    "Now",
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

ILL_NEARBY = (0.005, 0.02)
"""From which share with symptoms on a neighbourhood has some, or many, who are ill; chosen."""

RECENT = 10.0
"""Days for which a positive test counts; chosen."""

Who: TypeAlias = Cohort | slice
"""A cohort, or a block of agents."""

READ = ("employed", "savings", "symptomatic", "positive_at")
"""The state keys that attributes are read from."""


class Now:
    """What people are now.

    Args:
        people: the population.
        state: the state.
    """

    def __init__(self, people: Population, state: State) -> None:
        self.people, self.state = people, state

    def own(self, key: str, who: Who) -> Tensor:
        """What the state has of each of some people, shape (…, n), or (k,) for a cohort."""
        x = self.state[key]
        return who.read(x) if isinstance(who, Cohort) else x[..., who]

    def of_group(self, x: Tensor, variable: str, who: Who) -> Tensor:
        """What belongs to everybody's group of a variable, such as `household`, from shape (…, G)."""
        group = self.people[variable]
        if isinstance(who, Cohort):
            place = who.row * x.shape[-1] + who.group(group)
            return at(x, torch.Size((*who.shape[:-1], x.shape[-1])), place)
        return pick(x, group[who])

    def savings(self, who: Who) -> Tensor:
        """The savings of everybody's household, dollars."""
        return self.of_group(self.state["savings"], "household", who)

    @cached_property
    def ill_nearby(self) -> Tensor:
        """The band of the share of each neighbourhood who have symptoms, uint8 of shape (…, G)."""
        place = self.people.network("neighbourhood")
        share = ring_sum(self.state["symptomatic"].long(), place) * place.share("mean")
        some, many = ILL_NEARBY
        return (share >= some).to(torch.uint8) + (share >= many)


@dataclass(frozen=True)
class Dynamic:
    """An attribute that changes: its labels, and how its codes are read of some people as they are now."""

    labels: tuple[str, ...]
    code: Callable[[Now, Who], Tensor]


def _health(now: Now, who: Who) -> Tensor:
    recent = now.own("positive_at", who) > float(now.state["t"]) - RECENT
    return now.own("symptomatic", who).to(torch.uint8).masked_fill(recent, 2)


def _balance(now: Now, who: Who) -> Tensor:
    saved = now.savings(who)
    return (saved >= 0).to(torch.uint8) + (saved >= LOW_SAVINGS) + (saved >= PLENTY)


DYNAMIC = {
    "employment": Dynamic(("no job", "employed"), lambda now, who: now.own("employed", who)),
    "savings": Dynamic(("$2,000 or more", "under $2,000"), lambda now, who: now.savings(who) < LOW_SAVINGS),
    "balance": Dynamic(("in debt", "under $2,000", "$2,000–10,000", "over $10,000"), _balance),
    "health": Dynamic(("well", "symptomatic", "tested positive"), _health),
    "nearby": Dynamic(
        ("hardly anybody ill nearby", "some ill nearby", "many ill nearby"),
        lambda now, who: now.of_group(now.ill_nearby, "neighbourhood", who),
    ),
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
    if kinds.of() is not people:
        raise InputError("archetypes= are of another population than the model's; make them of the same one")
    for name, labels in kinds.dynamic.items():
        if name not in DYNAMIC:
            raise InputError(nearest("dynamic attribute of archetypes", name, DYNAMIC))
        if labels != DYNAMIC[name].labels:
            raise InputError(
                f"dynamic attribute '{name}' of archetypes has the labels {', '.join(labels)}; give "
                f"DYNAMIC['{name}'].labels: {', '.join(DYNAMIC[name].labels)}"
            )
    return kinds


def present(people: Population, kinds: Archetypes, s: State) -> Callable[[Who], Tensor]:
    """What gives the archetypes of a cohort's members, or of a block of agents, as they are now."""
    now = Now(people, s)

    def of(who: Who) -> Tensor:
        return kinds.code(who, **{name: DYNAMIC[name].code(now, who) for name in kinds.dynamic})

    return of


def at_first(people: Population, kinds: Archetypes) -> Tensor:
    """The archetypes of all people before anything is known of them but whether they have a job, shape (N,)."""
    unknown = torch.zeros(people.size, dtype=torch.uint8, device=people.device)
    codes = dict.fromkeys(kinds.dynamic, unknown)
    if "balance" in codes:
        codes["balance"] = unknown + DYNAMIC["balance"].labels.index("$2,000–10,000")
    if "employment" in codes:
        codes["employment"] = people["employment"] == people.labels("employment").index("employed")
    return kinds.code(None, **codes)
