"""Policies: what would be done, when and to whom; and a model in whose worlds they are done."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from lpmppl.errors import InputError
from lpmppl.typing import State

__all__ = ["AND", "FACTUAL", "WORLD", "Act", "Policy", "Trigger", "factorial", "labels_of", "policies"]

FACTUAL = "as it was"
"""The label of the world in which nothing is done."""

WORLD = "policy"
"""The name of the index of worlds, and of the state key that says which policy is in force: 0 for none."""

AND = " + "
"""What stands between the names of policies that are done together."""

_COMBINED = 10

Condition = tuple[str, float] | Callable[[State], Tensor]


@dataclass(frozen=True)
class Trigger:
    """A value that is in force while something holds, in each world by itself, whatever acts with a day have set.

    It comes into force on a day on which `when` holds, and goes out of force on the first later day on which `until`
    does, when what was set beneath it comes back; with one threshold above another this is hysteresis. Of several in
    force the one listed last holds. A payment is made once, on the day it comes into force. A condition is a part of
    the state with one number for the whole city and its threshold, or a function of the state to a Boolean of shape
    (…, 1).

    Args:
        value: the value while it is in force, a number or one of the key's words.
        when: what brings it into force: `("admissions/week", 5.0)` for above 5.
        until: what ends it: `("admissions/week", 2.0)` for below 2; None to keep it for good.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> many = lambda s: s["infectious"].sum(-1, keepdim=True) > 80
    >>> closing = {"closing": [("transmission", Trigger(0.0, when=many), 0)]}
    >>> tree = lpm.counterfactual(model, closing, days=8, set={"initial_infected": 0.05})
    >>> bool(tree["effects"]["infections"].sel(policy="closing", estimate="mean") < 0)
    True
    """

    value: float | str
    when: Condition
    until: Condition | None = None


@dataclass(frozen=True)
class Act:
    """One thing that a policy does.

    Args:
        name: the part of the environment that it sets.
        value: the value from `day` on, a number, one of the key's words, or a `Trigger` that is looked at from then on.
        day: the day.
        to: whom alone it concerns, by variables of the population and their labels, such as `{"borough": "Bronx"}`;
            or to lists of labels; everybody by default.

    >>> str(Act("stimulus", 1200.0, 20))
    'stimulus=1200@20'
    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> bronx = Act("transmission", 0.0, 1, to={"borough": "Bronx"})
    >>> tree = lpm.counterfactual(model, {"Bronx": [bronx]}, days=10, set={"initial_infected": 0.05})
    >>> spared = lpm.contrast(tree, by="borough")["infections"].sel(policy="Bronx", estimate="mean")
    >>> bool(spared.sel(borough="Bronx") < 0)
    True
    """

    name: str
    value: float | str | Trigger
    day: int
    to: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = [labels_of(x) for x in self.to.values()] if isinstance(self.to, Mapping) else [[]]
        if not all(each and all(isinstance(x, str) for x in each) for each in labels):
            raise InputError(f"to={self.to!r} can't be read; give labels by variable, such as {{'sex': 'female'}}")

    def __str__(self) -> str:
        value = self.value
        if isinstance(value, Trigger):
            low = f"<{_shown(value.until[1])}" if isinstance(value.until, tuple) and len(value.until) == 2 else ""
            told = isinstance(value.when, tuple) and len(value.when) == 2
            condition = f" while {value.when[0]}>{_shown(value.when[1])}{low}" if told else ""  # type: ignore[index]
            shown = f"{_shown(value.value)}{condition} on trigger"
        else:
            shown = _shown(value)
        whom = ", ".join("/".join(labels_of(labels)) for labels in self.to.values())
        return f"{self.name}={shown}@{self.day}" + (f" ({whom})" if whom else "")


def labels_of(labels: Any) -> Sequence[str]:
    """The labels that an act's `to` has for a variable, of which one may stand alone."""
    return labels if isinstance(labels, list | tuple) else [labels]


def _shown(value: object) -> str:
    return f"{value:.12g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Policy:
    """What is done in one world: acts, under a name for readers."""

    name: str
    acts: tuple[Act, ...]


def policies(do: Any, at: int | Sequence[int] | None = None) -> tuple[Policy, ...]:
    """Read what a user means by `do` and `at`.

    Args:
        do: one of: `{"stimulus": 500.0}`, one policy of one or more keys; `{"stimulus": [250.0, 500.0]}`, a sweep of
            one policy each, over all combinations; `[("stimulus", 500.0, 30), …]` or acts, one policy with its own
            days; `{"cheque": [("stimulus", 500.0, 30)], …}`, policies by name.
        at: the day, or the days to sweep over, of values that come without.
    Raises:
        InputError: for anything else.

    >>> [policy.name for policy in policies({"stimulus": [250.0, 500.0]}, at=30)]
    ['stimulus=250@30', 'stimulus=500@30']
    >>> [policy.name for policy in policies({"both": [("stimulus", 500.0, 30), ("mask_mandate", 1.0, 40)]})]
    ['both']
    """
    if isinstance(do, Policy):
        do = [do]
    if isinstance(do, Sequence) and not isinstance(do, str) and do and all(isinstance(p, Policy) for p in do):
        do = {policy.name: policy for policy in do}
    given = [*do.values()] if isinstance(do, Mapping) else [do]
    if at is not None and any(isinstance(x, Policy) or _is_acts(x) for x in given):
        raise InputError(f"at={at!r} was given, but these acts have days of their own; leave it out")
    if isinstance(do, Mapping) and do:
        named = [name for name, value in do.items() if isinstance(value, Policy) or _is_acts(value)]
        if len(named) == len(do):
            found = [v if isinstance(v, Policy) else Policy(n, _listed(v)) for n, v in do.items()]
        elif named:
            raise InputError(
                f"'{named[0]}' has acts with days of their own and '{next(n for n in do if n not in named)}' has none; "
                "give all policies as lists of (name, value, day)"
            )
        else:
            found = _swept(do, at)
    elif _is_acts(do):
        acts = _listed(do)
        found = [Policy(", ".join(map(str, acts)), acts)]
    else:
        raise InputError(
            f"do={do!r} can't be read; give {{name: value}} with a day in at=, or a list of (name, value, day)"
        )
    return distinct(found)


def distinct(found: Sequence[Policy]) -> tuple[Policy, ...]:
    """Give the policies, if each has a name of its own, or raise InputError."""
    for name, times in Counter(policy.name for policy in found).items():
        if not isinstance(name, str) or not name.strip() or name == FACTUAL:
            raise InputError(f"a policy can't be called {name!r}; give it another name")
        if times > 1:
            raise InputError(f"there are two policies '{name}'; give each a name of its own")
    return tuple(found)


def factorial(chosen: Sequence[Policy]) -> tuple[Policy, ...]:
    """Every combination of up to ten policies: 2ᵏ − 1 of them, besides doing nothing.

    >>> [policy.name for policy in factorial(policies({"a": [("x", 1.0, 0)], "b": [("y", 1.0, 0)]}))]
    ['a', 'b', 'a + b']
    """
    if len(chosen) > _COMBINED:
        raise InputError(f"{len(chosen)} policies have 2^{len(chosen)} − 1 combinations: give {_COMBINED} at most")
    if among := next((p.name for p in chosen if AND in p.name), None):
        raise InputError(f"a policy that is combined with others can't be called '{among}': leave '{AND}' out")
    combined = (c for k in range(1, len(chosen) + 1) for c in itertools.combinations(chosen, k))
    return distinct([Policy(AND.join(p.name for p in c), tuple(a for p in c for a in p.acts)) for c in combined])


def _is_acts(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(a, Act) or (isinstance(a, Sequence) and not isinstance(a, str)) for a in value)
    )


def _listed(values: Sequence[Any]) -> tuple[Act, ...]:
    acts = []
    for value in values:
        if isinstance(value, Act):
            acts.append(value)
        elif len(value) == 3:
            acts.append(Act(*value))
        else:
            raise InputError(f"the act {value!r} can't be read; give (name, value, day)")
    return tuple(acts)


def _swept(do: Mapping[str, Any], at: int | Sequence[int] | None) -> list[Policy]:
    if at is None:
        raise InputError(f"do={dict(do)!r} has no day; give one, such as at=30")
    days, *values = (_several(x) for x in (at, *do.values()))
    if not days or not all(values):
        raise InputError(f"do={dict(do)!r}, at={at!r} leaves nothing to do; give a value and a day")
    found = []
    for day, *each in itertools.product(days, *values):
        acts = tuple(Act(name, value, day) for name, value in zip(do, each, strict=True))
        found.append(Policy(", ".join(map(str, acts)), acts))
    return found


def _several(x: Any) -> list[Any]:
    """The values to sweep over: those of a list, a range or an array, or one."""
    if isinstance(x, list | tuple | range):
        return list(x)
    return list(x.tolist()) if hasattr(x, "tolist") and getattr(x, "ndim", 0) == 1 else [x]
