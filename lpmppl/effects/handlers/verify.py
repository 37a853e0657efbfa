"""Verified: a society that says when a substep breaks what it promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.errors import LpmError
from lpmppl.typing import State

__all__ = ["Invariant", "Verified", "bounded", "conserved", "never_falls"]


@dataclass(frozen=True)
class Invariant:
    """Something that holds of every substep.

    Args:
        name: what holds, for the error.
        holds: the state before and after the substep to whether it does, and what was seen if it doesn't.
    """

    name: str
    holds: Callable[[State, State], tuple[bool, str]]


def conserved(name: str, amount: Callable[[State], Tensor]) -> Invariant:
    """An amount, such as the number of people, that no substep changes."""

    def holds(before: State, after: State) -> tuple[bool, str]:
        was, now = torch.broadcast_tensors(amount(before), amount(after))
        return torch.equal(was, now), f"{was.flatten().tolist()} before, {now.flatten().tolist()} after"

    return Invariant(f"{name} is conserved", holds)


def bounded(key: str, low: float, high: float) -> Invariant:
    """A state key whose values lie in low … high; NaN does not."""

    def holds(_: State, after: State) -> tuple[bool, str]:
        if key not in after:
            return True, ""
        x = after[key]
        return bool(((x >= low) & (x <= high)).all()), f"values {float(x.min()):g} … {float(x.max()):g}"

    return Invariant(f"'{key}' lies in {low:g} … {high:g}", holds)


def never_falls(key: str) -> Invariant:
    """A state key that accumulates."""

    def holds(before: State, after: State) -> tuple[bool, str]:
        if key not in before or key not in after:
            return True, ""
        change = (after[key] - before[key]).min()
        return bool(change >= 0), f"a change of {float(change):g}"

    return Invariant(f"'{key}' never falls", holds)


class _Watched(Mapping[str, Tensor]):
    """A state that notes what is read of it."""

    def __init__(self, state: State) -> None:
        self.state, self.read = state, set[str]()

    def __getitem__(self, key: str) -> Tensor:
        self.read.add(key)
        return self.state[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


class Verified(Messenger):
    """Check of every substep what it reads and writes against what it declares, and the invariants.

    Args:
        invariants: what must hold of every substep, such as `conserved("people", count)`.
    Raises:
        LpmError: naming the substep, the day, the key or invariant, and what was seen.
    """

    def __init__(self, *invariants: Invariant) -> None:
        super().__init__()
        self.invariants = invariants

    def _pyro_substep(self, msg: Message) -> None:
        name, fn, state, reads, writes = msg["args"]

        def watched(s: State) -> State:
            view = _Watched(s)
            changes = fn(view)
            where = f"substep '{name}' on day {float(s['t']):g}" if "t" in s else f"substep '{name}'"
            if reads is not None and (extra := sorted(view.read - {*reads, *(writes or ()), "t", "dt"})):
                raise LpmError(f"{where} read {', '.join(extra)}, which it doesn't declare; add it to reads")
            if writes is not None and (extra := sorted(set(changes) - set(writes))):
                raise LpmError(f"{where} wrote {', '.join(extra)}, which it doesn't declare; add it to writes")
            after = {**s, **changes}
            for invariant in self.invariants:
                kept, seen = invariant.holds(s, after)
                if not kept:
                    raise LpmError(f"{where}: {invariant.name} no longer: {seen}")
            return changes

        msg["args"] = (name, watched, state, reads, writes)
