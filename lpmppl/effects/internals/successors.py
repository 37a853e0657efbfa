"""Tomorrow's tensor from yesterday's: a change of a few agents costs those few, not a copy of everybody.

A state isn't changed in place, since the one before may still be wanted. But where a tensor was itself made from
another by a few changes, and nobody holds that other one any more, its memory differs from the tensor only at those
few places: once they are brought up to date it *is* the copy.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lpmppl._compat import storage_uses
from lpmppl.effects.internals.segments import LARGE, bare, carry_over, copy

__all__ = ["changed", "changed_in_place", "successors"]

_FEW = 20
"""Bringing up to date pays while fewer than one in this many values have changed."""


@dataclass
class _Made:
    """How a tensor was made: from which other one, and where alone the two differ."""

    child: weakref.ref[Tensor]
    version: int
    base: Tensor
    base_version: int
    where: list[Tensor]

    def describes(self, x: Tensor) -> bool:
        return self.child() is x and self.version == x._version

    def to_spare(self) -> bool:
        """Whether nothing but this note holds the base, and nobody has changed it since."""
        handle = self.base.untyped_storage()
        # One use is the base's, the other that of the handle, which the pool of buffers may share.
        return storage_uses(handle) == 2 and self.base._version == self.base_version


_made: dict[int, _Made] | None = None


@contextlib.contextmanager
def successors() -> Iterator[None]:
    """Remember how tensors were made until the outermost such context ends."""
    global _made
    if _made is not None:
        yield
        return
    _made = {}
    try:
        yield
    finally:
        _made = None


def changed(x: Tensor, where: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    """Give a tensor of its own memory that equals `x` but for what `change` does to it.

    Args:
        x: the tensor, which stays as it is.
        where: the only flat positions, shape (k,), that the change touches.
        change: called with the new tensor, flat.
    """
    if _made is None or x.nbytes < LARGE or not bare(x, where) or not x.is_contiguous() or x.is_inference():
        change((out := copy(x)).view(-1))
        return out
    again = _brought_up_to_date(x)
    out = copy(x) if again is None else again
    change(out.view(-1))
    if _FEW * where.shape[0] < x.numel() and not any(m.base.data_ptr() == x.data_ptr() for m in _made.values()):
        child = weakref.ref(out, functools.partial(_forget, _made, id(out)))
        _made[id(out)] = _Made(child, out._version, x.detach(), x._version, [where])
    return out


def _forget(made: dict[int, _Made], key: int, _: object) -> None:
    made.pop(key, None)


def changed_in_place(x: Tensor, where: Tensor, change: Callable[[Tensor], object]) -> None:
    """Let `change` change a contiguous tensor that is the caller's own, at the flat positions `where` alone."""
    note = None if _made is None or x.is_inference() else _made.get(id(x))
    known = note is not None and note.describes(x)
    change(x.view(-1))
    if note is not None and known:
        note.where.append(where)
        note.version = x._version


def _brought_up_to_date(x: Tensor) -> Tensor | None:
    """The memory from which `x` was made, equal to `x` again; None where there is none, or copying is quicker."""
    assert _made is not None
    note = _made.pop(id(x), None)
    if note is None or not note.describes(x) or _FEW * sum(w.shape[0] for w in note.where) >= x.numel():
        return None
    if not note.to_spare():
        return None
    out = torch.empty(0, dtype=x.dtype).set_(note.base.untyped_storage(), 0, x.shape)  # type: ignore[call-overload]
    for where in note.where:
        carry_over(out.view(-1), where, x.view(-1))
    return out
