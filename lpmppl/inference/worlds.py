"""The worlds of policies: one society, in which each of them is done in a world of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from chirho.interventional.ops import intervene
from torch import Tensor

from lpmppl.effects.internals.worlds import within_worlds
from lpmppl.errors import InputError, nearest
from lpmppl.inference.checks import begun, setting, whole
from lpmppl.inference.policies import FACTUAL, WORLD, Act, Condition, Policy, Trigger, labels_of
from lpmppl.inference.triggers import in_force
from lpmppl.models.model import Model, Wrapped
from lpmppl.models.population import Population
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["UnderPolicies"]

BENEATH = f"{WORLD}/beneath/"
"""The prefix of state keys with what lies beneath triggers."""


@dataclass(frozen=True)
class _Step:
    """An act made ready: its value as a number, whom it concerns as a tensor, and where it remembers its trigger."""

    act: Act
    value: float
    whom: Tensor | None
    memory: str

    @property
    def name(self) -> str:
        return self.act.name

    @property
    def trigger(self) -> Trigger | None:
        return self.act.value if isinstance(self.act.value, Trigger) else None

    def due(self, t: float, dt: float) -> bool:
        """Whether it is looked at today."""
        begun = self.act.day < t + dt * (1 - 1e-6)
        return begun and (self.trigger is not None or t - 1e-6 * dt <= self.act.day)

    def holds(self, state: State) -> Tensor:
        """Whether the trigger's value is in force from today on, in each world: Boolean of shape (…, 1)."""
        assert self.trigger is not None
        on, ends = state[self.memory], torch.zeros_like(state[self.memory])
        if self.trigger.until is not None:
            ends = self._true(self.trigger.until, state, below=True)
        return torch.where(on, ~ends, self._true(self.trigger.when, state))

    def set(self, state: dict[str, Tensor], here: Tensor | None) -> None:
        """Give the key its value, where `here` says so, or everywhere."""
        current = state[self.name]
        value = torch.full_like(current[..., :1], self.value)
        if self.whom is not None:
            here = self.whom if here is None else self.whom & here
        state[self.name] = value if here is None else torch.where(here, value, current)

    def _true(self, condition: Condition, state: State, below: bool = False) -> Tensor:
        if not callable(condition):
            name, threshold = condition
            return state[name] < threshold if below else state[name] > threshold
        try:
            found = torch.as_tensor(condition(MappingProxyType(state)))
        except Exception as e:
            raise InputError(f"the trigger of {self.act} can't be evaluated: {type(e).__name__}: {e}") from e
        # A number without dimensions is of all worlds together, as `.sum()` is.
        if found.dtype != torch.bool or found.shape[-1:] != (1,) or not within_worlds(found.shape, state):
            raise InputError(
                f"the trigger of {self.act} gave {found.dtype} of shape {tuple(found.shape)}; it must give one Boolean "
                "for each world, such as a comparison of .sum(-1, keepdim=True)"
            )
        return found


class UnderPolicies(Wrapped):
    """A model in whose worlds policies are done: world 0 does nothing, world k does the k-th.

    Its worlds are one index, `policy`, which ChiRho's `MultiWorldCounterfactual` makes on the first day on which one
    of them does something; until then there is one world. Without that handler it is the society of the k-th policy.

    Args:
        model: the society.
        alternatives: the policies.
        always: acts that are done in every world, before a policy's of the same day.
        days: how long a run is, for refusing acts that come after its end.
        only: without worlds, the number of the policy in force from the start.
    Attributes:
        begun: is told what the first run begins from, and how many worlds there will be.
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
        super().__init__(model)
        self.policies, self.only = tuple(alternatives), only
        self.begun: Callable[[State, int], None] | None = None
        self.timed = False
        self.plans = [
            [_ready(model, act, days, f"{WORLD}/{k}/{n}") for n, act in enumerate(acts)]
            for k, acts in enumerate([tuple(always), *(p.acts for p in self.policies)])
        ]
        for plan in self.plans:
            fixed = [(s.name, s.act.day) for s in plan if s.trigger is None and s.whom is None]
            if twice := next((pair for pair in fixed if fixed.count(pair) > 1), None):
                raise InputError(f"two acts set {twice[0]} on day {twice[1]}: leave one of them out")
        names = [FACTUAL, *(p.name for p in self.policies)]
        self.triggers = {
            s.memory: (names[k], k, str(s.act)) for k, plan in enumerate(self.plans) for s in plan if s.trigger
        }
        self.triggered = {s.name for plan in self.plans for s in plan if s.trigger} - {*model.pulses}

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        state = begun(self.model, self.model.initial(theta, start))
        if self.begun is not None:
            self.begun(state, len(self.plans))
            self.begun = None
        device = self.population.device
        off = torch.zeros(1, dtype=torch.bool, device=device)
        city = [name for name, x in state.items() if x.shape[-1:] == (1,)]
        memories = {step.memory: off for plan in self.plans for step in plan if step.trigger}
        for step in (s for plan in self.plans for s in plan if s.trigger):
            assert step.trigger is not None
            for condition in (step.trigger.when, step.trigger.until):
                if isinstance(condition, tuple) and (condition[0] not in city):
                    raise InputError(nearest("number of the whole city in the state", condition[0], city))
        beneath = {f"{BENEATH}{name}": state[name] for name in self.triggered}
        world = torch.full((1,), self.only or 0, dtype=torch.int32, device=device)
        return {**state, **memories, **beneath, WORLD: world}

    def day(self, theta: Theta) -> Dynamics:
        step = self.model.day(theta)
        return lambda state: step(self._done(dict(state)))

    def _done(self, state: dict[str, Tensor]) -> State:
        """What today's acts make of the state, in the worlds of their policies."""
        t, dt = float(state["t"]), float(state["dt"])
        today = [[step for step in plan if step.due(t, dt)] for plan in self.plans]
        on = {s.memory: s.holds(state) for plan in today for s in plan if s.trigger}
        if self.only is None and state[WORLD].numel() == 1 and any(_acts(s, state, on) for p in today[1:] for s in p):
            worlds = tuple(torch.full_like(state[WORLD], k) for k in range(1, len(self.plans)))
            state[WORLD] = intervene(state[WORLD], worlds, name=WORLD)
        here = [None, *(state[WORLD] == k for k in range(1, len(self.plans)))]
        # What acts with a day have set lies beneath what triggers hold, and comes back when they let go.
        for name in self.triggered:
            state[name] = state[f"{BENEATH}{name}"]
        for plan, where in zip(today, here, strict=True):
            for step in plan if where is None or bool(where.any()) else ():
                if step.trigger is None:
                    step.set(state, where)
        for name in self.triggered:
            state[f"{BENEATH}{name}"] = state[name]
        for plan, where in zip(today, here, strict=True):
            for step in plan:
                if step.trigger is not None:
                    holds = on[step.memory] if where is None else on[step.memory] & where
                    # A pulse, such as a payment, comes once, when its trigger turns.
                    now = holds & ~state[step.memory] if step.name in self.model.pulses else holds
                    state[step.memory] = holds
                    if bool(now.any()):
                        step.set(state, now)
        if on:
            in_force(round(t), {memory: state[memory] for memory in on})
        return state


def _acts(step: _Step, state: State, on: Mapping[str, Tensor]) -> bool:
    """Whether it changes anything today."""
    return step.trigger is None or bool((on[step.memory] != state[step.memory]).any())


def _ready(model: Model, act: Act, days: int | None, memory: str) -> _Step:
    """Check an act, and make its value a number."""
    if act.name not in model.environment:
        raise InputError(nearest("part of the environment", str(act.name), model.environment))
    day = whole(f"the day of {act.name}", act.day, 0)
    if days is not None and day >= days:
        raise InputError(f"{act} lies outside the run: give a day below {days}")
    value = act.value
    if isinstance(value, Trigger):
        for condition in (value.when, *([] if value.until is None else [value.until])):
            if not callable(condition):
                _threshold(act.name, condition)
        low, high = value.until, value.when
        if isinstance(low, tuple) and isinstance(high, tuple) and low[0] == high[0] and low[1] > high[1]:
            raise InputError(f"{act} begins above {high[1]:g} and would end below {low[1]:g}: give a lower end")
        value = value.value
    return _Step(act, setting(model, act.name, value), _whom(model, act), memory)


def _in_common(people: Population, codes: Tensor, act: Act, variable: str, scale: str) -> Tensor:
    """What all members of each group of a scale, such as a home, have in common, shape (G,)."""
    home = people[scale].long()
    count = people.network(scale).count
    least = torch.full((count,), 2**31 - 1, device=codes.device).scatter_reduce(0, home, codes.long(), "amin")
    most = torch.full((count,), -1, device=codes.device).scatter_reduce(0, home, codes.long(), "amax")
    if bool(((most >= 0) & (least != most)).any()):
        raise InputError(
            f"{act}: {act.name} is set for each {scale}, whose members differ in {variable}; choose them by what "
            "they have in common"
        )
    return most


def _threshold(name: str, condition: object) -> None:
    number = isinstance(condition, tuple) and len(condition) == 2 and isinstance(condition[1], int | float)
    if not (number and isinstance(condition[0], str) and math.isfinite(condition[1])):  # type: ignore[index]
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
        if variable not in people.dataset or "labels" not in people.dataset[variable].attrs:
            coded = [str(v) for v in people.dataset.variables if "labels" in people.dataset[v].attrs]
            raise InputError(nearest("variable with labels", str(variable), coded))
        codes = people[variable]
        where = people.dataset[variable].dims[0]
        if scale == "agent" and where != "agent" and where in people.dataset:
            group = people[str(where)].long()
            codes = torch.where(group < 0, -1, codes.long()[group.clamp(min=0)])
        elif where == "agent" and scale != "agent":
            codes = _in_common(people, codes, act, str(variable), scale)
        elif where != scale:
            raise InputError(f"{act}: {act.name} is set for each {scale}, but {variable} is known of each {where}")
        labels = people.labels(variable)
        if unknown := [label for label in labels_of(chosen) if label not in labels]:
            raise InputError(nearest(variable, unknown[0], labels))
        mine = torch.isin(codes, torch.tensor([labels.index(x) for x in labels_of(chosen)], device=codes.device))
        mask = mine if mask is None else mask & mine
    return mask
