"""The grammar of a society: substeps that say what they read and write, and their composition into a day."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lpmppl.effects.ops import substep
from lpmppl.errors import InputError
from lpmppl.typing import Dynamics, State

__all__ = ["CLOCK", "SCALES", "Substep", "compose"]

SCALES = ("agent", "household", "neighbourhood", "puma", "borough", "city")
CLOCK = ("t", "dt")
"""The time and the step in days, which the solver gives every substep."""


def _as_it_is(state: State) -> State:
    return state


@dataclass(frozen=True)
class Substep:
    r"""One part of a day: observation, policy and transition, :math:`\Phi = t(s, \pi(o(s)))` (§4.1 of the LPM paper).

    Args:
        name: the substep's name.
        reads: the state keys it reads; `t` and `dt`, the time and the step in days, are there for every substep.
        writes: the state keys it changes.
        policy: the observation to an action; the part with chance and decisions in it.
        transition: the state and the action to the values it changes, by name.
        observe: the state to the observation; the state itself by default.
        every: how many days lie between two of its turns, from day 0.
        scale: what it acts on: agent, household, neighbourhood, puma, borough or city.
    Raises:
        InputError: for a scale or period that isn't one.

    >>> wages = Substep(
    ...     "wages",
    ...     reads=["employed", "wage"],
    ...     writes=["savings"],
    ...     observe=lambda s: s["employed"],
    ...     policy=lambda employed: employed.float(),
    ...     transition=lambda s, works: {"savings": s["savings"] + works * s["wage"]},
    ... )
    >>> state = {"employed": torch.tensor([True, False]), "wage": torch.tensor([70.0]), "savings": torch.zeros(2)}
    >>> wages(state)["savings"].tolist()
    [70.0, 0.0]
    """

    name: str
    reads: Collection[str]
    writes: Collection[str]
    policy: Callable[[Any], Any]
    transition: Callable[[State, Any], State]
    observe: Callable[[State], Any] = _as_it_is
    every: int = 1
    scale: str = "agent"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InputError(f"substep '{self.name}': every {self.every} days was given; it must be 1 or more")
        if self.scale not in SCALES:
            raise InputError(
                f"substep '{self.name}': scale '{self.scale}' was given; it must be one of {', '.join(SCALES)}"
            )

    def __call__(self, state: State) -> State:
        """The values the substep changes."""
        return self.transition(state, self.policy(self.observe(state)))


def compose(*substeps: Substep, given: Collection[str] | None = None) -> Dynamics:
    """Compose substeps into the dynamics of one step, in the order given.

    Args:
        substeps: the parts of a day.
        given: the keys of the initial state, where they are known: then a key that is read but neither given nor
            written before is refused.
    Raises:
        InputError: where two substeps write one key, have one name, or one reads a key that nobody provides; naming
            both.

    >>> same = dict(policy=lambda s: s, transition=lambda s, _: {"b": s["a"] + 1})
    >>> day = compose(Substep("grow", reads=["a"], writes=["b"], **same))
    >>> day({"a": torch.zeros(1), "b": torch.zeros(1)})["b"].tolist()
    [1.0]
    >>> compose(Substep("grow", ["a"], ["b"], **same), Substep("shrink", ["a"], ["b"], **same))
    Traceback (most recent call last):
    lpmppl.errors.InputError: substeps 'grow' and 'shrink' both write 'b' in one step; let one of them write it
    """
    writers: dict[str, str] = {}
    names: set[str] = set()
    for part in substeps:
        if part.name in names:
            raise InputError(f"two substeps are called '{part.name}'; give each its own name")
        names.add(part.name)
        for key in part.writes:
            if key in writers:
                raise InputError(
                    f"substeps '{writers[key]}' and '{part.name}' both write '{key}' in one step; let one of them "
                    "write it"
                )
            writers[key] = part.name
    if given is not None:
        known = {*given, *CLOCK}
        for part in substeps:
            if missing := sorted(set(part.reads) - known):
                raise InputError(
                    f"substep '{part.name}' reads {', '.join(missing)}, which neither the initial state nor a "
                    "substep before it provides; "
                    f"known: {', '.join(sorted(known))}"
                )
            known |= set(part.writes)

    def day(state: State) -> State:
        for part in substeps:
            if _due(part, state):
                state = substep(part.name, part, state, tuple(part.reads), tuple(part.writes))
        return state

    return day


def _due(part: Substep, state: Mapping[str, Tensor]) -> bool:
    if part.every == 1:
        return True
    t, dt = float(state["t"]), float(state["dt"])
    return bool(torch.remainder(torch.tensor(t + 1e-6 * dt), float(part.every)) < dt * (1 - 1e-6))
