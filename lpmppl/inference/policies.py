"""Policies: what would be done, when and to whom; and a model in whose worlds they are done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from chirho.interventional.ops import intervene
from torch import Tensor

from lpmppl.errors import InputError, nearest
from lpmppl.inference.run import setting, whole
from lpmppl.models.model import Model
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["FACTUAL", "Act", "Policy", "Trigger", "UnderPolicies", "factorial", "policies"]

FACTUAL = "as it was"
"""The label of the world in which nothing is done."""

WORLD = "policy"
"""The name of the index of worlds, and of the state key that says which policy is in force: 0 for none."""

Condition = tuple[str, float] | Callable[[State], Tensor]


@dataclass(frozen=True)
class Trigger:
    """A value that is in force while something holds, in each world by itself.

    It comes into force on a day on which `when` holds, and goes out of force on the first later day on which `until`
    does; with one threshold above another this is hysteresis. A condition is a part of the state with one number for
    the whole city and its threshold, or a function of the state to a Boolean of shape (…, 1).

    Args:
        value: the value while it is in force, a number or one of the key's words.
        when: what brings it into force: `("admissions/week", 5.0)` for above 5.
        until: what ends it: `("admissions/week", 2.0)` for below 2; None to keep it for good.
        otherwise: the value it goes back to; by default that at the start.
    """

    value: float | str
    when: Condition
    until: Condition | None = None
    otherwise: float | str | None = None


@dataclass(frozen=True)
class Act:
    """One thing that a policy does.

    Args:
        name: the part of the environment that it sets.
        value: the value from `day` on, a number, one of the key's words, or a `Trigger` that is looked at from then on.
        day: the day.
        to: whom alone it concerns, by variables of the population and their labels, such as `{"borough": "Bronx"}`;
            or to lists of labels; everybody by default.
    """

    name: str
    value: float | str | Trigger
    day: int
    to: Mapping[str, str | Sequence[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        value = self.value
        if isinstance(value, Trigger):
            shown = f"{_shown(value.value)} on trigger"
        else:
            shown = _shown(value)
        whom = ", ".join("/".join(_each(labels)) for labels in self.to.values())
        return f"{self.name}={shown}@{self.day}" + (f" ({whom})" if whom else "")


def _each(labels: str | Sequence[str]) -> Sequence[str]:
    return [labels] if isinstance(labels, str) else labels


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


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
    if isinstance(do, Mapping) and do:
        named = [name for name, value in do.items() if isinstance(value, Policy) or _is_acts(value)]
        if len(named) == len(do):
            found = [v if isinstance(v, Policy) else Policy(str(n), _listed(v)) for n, v in do.items()]
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
    names = [policy.name for policy in found]
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise InputError(f"there are two policies '{twice}'; give each a name of its own")
    return tuple(found)


def factorial(chosen: Sequence[Policy]) -> tuple[Policy, ...]:
    """Every combination of policies: 2ᵏ − 1 of them, besides doing nothing.

    >>> [policy.name for policy in factorial(policies({"a": [("x", 1.0, 0)], "b": [("y", 1.0, 0)]}))]
    ['a', 'b', 'a + b']
    """
    combined = (c for k in range(1, len(chosen) + 1) for c in itertools.combinations(chosen, k))
    return tuple(Policy(" + ".join(p.name for p in c), tuple(a for p in c for a in p.acts)) for c in combined)


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
    days = list(at) if isinstance(at, Sequence) else [at]
    values = [v if isinstance(v, list | tuple) else [v] for v in do.values()]
    if not days or not all(values):
        raise InputError(f"do={dict(do)!r}, at={at!r} leaves nothing to do; give a value and a day")
    found = []
    for day, *each in itertools.product(days, *values):
        acts = tuple(Act(name, value, day) for name, value in zip(do, each, strict=True))
        found.append(Policy(", ".join(map(str, acts)), acts))
    return found


@dataclass(frozen=True)
class _Step:
    """An act made ready: its value as a number, and for whom it is a tensor."""

    name: str
    day: int
    value: float
    otherwise: float
    trigger: Trigger | None
    whom: Tensor | None
    memory: str

    def holds(self, state: State) -> Tensor:
        """Whether the trigger's value is in force from today on, in each world: Boolean of shape (…, 1)."""
        assert self.trigger is not None
        on = state[self.memory]
        ends = torch.zeros_like(on) if self.trigger.until is None else _true(self.trigger.until, state, below=True)
        return torch.where(on, ~ends, _true(self.trigger.when, state))

    def act(self, state: dict[str, Tensor], here: Tensor | None) -> None:
        """Do it, in the worlds that `here` says, or in all."""
        current = state[self.name]
        value = torch.full_like(current[..., :1], self.value)
        if self.trigger is not None:
            before, on = state[self.memory], self.holds(state)
            if here is not None:
                on = on & here
            state[self.memory] = on
            turned = on != before
            if not bool(turned.any()):
                return
            value = torch.where(on, value, self.otherwise)
            here = turned
        if self.whom is not None:
            here = self.whom if here is None else self.whom & here
        state[self.name] = value if here is None else torch.where(here, value, current)


def _true(condition: Condition, state: State, below: bool = False) -> Tensor:
    if callable(condition):
        return torch.as_tensor(condition(state)).bool()
    name, threshold = condition
    return state[name] < threshold if below else state[name] > threshold


class UnderPolicies(Model):
    """A model in whose worlds policies are done: world 0 does nothing, world k does the k-th.

    Its worlds are one index, `policy`, which ChiRho's `MultiWorldCounterfactual` makes on the first day on which one
    of them does something; until then there is one world. Without that handler it is the society of the k-th policy.

    Args:
        model: the society.
        alternatives: the policies.
        always: acts that are done in every world, before a policy's of the same day.
        days: how long a run is, for refusing acts that come after its end.
        only: without worlds, the number of the policy in force from the start.
    Raises:
        InputError: for an act that can't be, by its name; and for two at once on one key and day.
    """

    def __init__(
        self,
        model: Model,
        alternatives: Sequence[Policy],
        always: Sequence[Act] = (),
        days: int | None = None,
        only: int | None = None,
    ) -> None:
        self.model, self.policies, self.only = model, tuple(alternatives), only
        self.name, self.population = model.name, model.population  # type: ignore[misc]
        self.parameters, self.environment, self.limits = model.parameters, model.environment, model.limits
        self.options, self.behaviour, self.tallies = model.options, model.behaviour, model.tallies
        self.units, self.targets, self.outcomes, self.by = model.units, model.targets, model.outcomes, model.by
        self.plans = [
            [_ready(model, act, days, f"{WORLD}/{k}/{n}") for n, act in enumerate(acts)]
            for k, acts in enumerate([tuple(always), *(p.acts for p in self.policies)])
        ]
        for plan in self.plans:
            seen: set[tuple[str, int, bool]] = set()
            for step in plan:
                if step.whom is None and (step.name, step.day, False) in seen:
                    raise InputError(f"two acts set {step.name} on day {step.day}: leave one of them out")
                seen.add((step.name, step.day, step.whom is not None))

    def __getattr__(self, name: str) -> Any:
        # What a model has besides, such as its strata and its start.
        return getattr(self.__dict__["model"], name)

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        state = self.model.initial(theta, start)
        device = self.population.device
        off = torch.zeros(1, dtype=torch.bool, device=device)
        city = [name for name, x in state.items() if x.shape[-1:] == (1,)]
        memories = {step.memory: off for plan in self.plans for step in plan if step.trigger}
        for step in (s for plan in self.plans for s in plan if s.trigger):
            assert step.trigger is not None
            for condition in (step.trigger.when, step.trigger.until):
                if isinstance(condition, tuple) and (condition[0] not in city):
                    raise InputError(nearest("number of the whole city in the state", condition[0], city))
        return {**state, **memories, WORLD: torch.full((1,), self.only or 0, dtype=torch.int32, device=device)}

    def day(self, theta: Theta) -> Dynamics:
        step = self.model.day(theta)
        return lambda state: step(self._done(dict(state)))

    def _done(self, state: dict[str, Tensor]) -> State:
        """What today's acts make of the state, in the worlds of their policies."""
        t, dt = float(state["t"]), float(state["dt"])
        always, *plans = ([step for step in plan if _due(step, t, dt)] for plan in self.plans)
        for step in always:
            step.act(state, None)
        if self.only is None and state[WORLD].numel() == 1 and any(_acts(s, state) for plan in plans for s in plan):
            worlds = tuple(torch.full_like(state[WORLD], k) for k in range(1, len(self.plans)))
            state[WORLD] = intervene(state[WORLD], worlds, name=WORLD)
        for k, plan in enumerate(plans, 1):
            here = state[WORLD] == k
            for step in plan if bool(here.any()) else ():
                step.act(state, here)
        return state


def _due(step: _Step, t: float, dt: float) -> bool:
    begun = step.day < t + dt * (1 - 1e-6)
    return begun and (step.trigger is not None or t - 1e-6 * dt <= step.day)


def _acts(step: _Step, state: State) -> bool:
    """Whether it changes anything today."""
    return step.trigger is None or bool((step.holds(state) != state[step.memory]).any())


def _ready(model: Model, act: Act, days: int | None, memory: str) -> _Step:
    """Check an act, and make its value a number."""
    if act.name not in model.environment:
        raise InputError(nearest("part of the environment", act.name, model.environment))
    day = whole(f"the day of {act.name}", act.day, 0)
    if days is not None and day >= days:
        raise InputError(f"{act} lies outside the run: give a day below {days}")
    value = act.value
    if isinstance(value, Trigger):
        for condition in (value.when, value.until):
            if condition is not None and not callable(condition):
                _threshold(act.name, condition)
        back = model.environment[act.name] if value.otherwise is None else setting(model, act.name, value.otherwise)
        number = setting(model, act.name, value.value)
        return _Step(act.name, day, number, back, value, _whom(model, act), memory)
    return _Step(act.name, day, setting(model, act.name, value), 0.0, None, _whom(model, act), memory)


def _threshold(name: str, condition: object) -> None:
    if not (isinstance(condition, tuple) and len(condition) == 2 and isinstance(condition[0], str)):
        raise InputError(
            f"the trigger of {name} has the condition {condition!r}; give (part of the state, threshold) or a function"
        )


def _whom(model: Model, act: Act) -> Tensor | None:
    """Whom an act concerns, Boolean over the agents or groups that its key can be set for; None for everybody."""
    if not act.to:
        return None
    scale = model.targets.get(act.name)
    if scale is None:
        able = ", ".join(sorted(model.targets)) or "no part of this model"
        raise InputError(f"{act}: {act.name} is one for the whole city; {able} can be set for some people alone")
    people = model.population
    mask = None
    for variable, chosen in act.to.items():
        codes = people[variable]
        where = people.dataset[variable].dims[0]
        if where == "household" and scale == "agent":
            codes = codes[people["household"].long()]
        elif where != scale:
            raise InputError(f"{act}: {act.name} is set for each {scale}, but {variable} is known of each {where}")
        labels = people.labels(variable)
        if unknown := [label for label in _each(chosen) if label not in labels]:
            raise InputError(nearest(variable, unknown[0], labels))
        mine = torch.isin(codes, torch.tensor([labels.index(x) for x in _each(chosen)], device=codes.device))
        mask = mine if mask is None else mask & mine
    return mask
