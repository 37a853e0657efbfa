"""Derivatives that cost what happens: a per-agent tensor whose few changes are on a tape, not copies of everybody.

Autograd would keep of every step what all agents hold, and pass over all of them for every change. Here a tensor of
the state holds its numbers without a derivative; beside it stands its version, a place on a tape. What a step writes at
a few agents, and what later ones read there, are the only operations that autograd sees. On the way back the readers
leave their adjoints at the version they read, and the step that made it takes them up from one adjoint of the whole
tensor, which all versions share.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

from lpmppl._compat import backward_pass
from lpmppl.effects.conversions import Conversions
from lpmppl.effects.internals.segments import blocked

__all__ = [
    "AS_IT_IS",
    "PROPERTIES",
    "InPass",
    "Taped",
    "Version",
    "added",
    "kept",
    "note_left",
    "noted_left",
    "on_tape",
    "plain",
    "taped",
    "taping",
    "timing",
    "written",
]

_left: dict[int, tuple[weakref.ref[Tensor], Any]] | None = None
_short: dict[int, tuple[weakref.ref[Tensor], Tensor]] = {}
_forward = False


@contextmanager
def taping(forward: bool = False) -> Iterator[None]:
    """Keep the times of events, and derivatives of the state on a tape, until this context ends.

    Args:
        forward: derivatives are in forward mode: tensors carry them along, and there is no tape.
    """
    global _left, _forward
    outer, _left, _forward = (_left, _forward), {}, forward
    try:
        with Conversions(Taped):
            yield
    finally:
        _left, _forward = outer


def timing() -> bool:
    """Say whether somebody asks how the times of events move."""
    return _left is not None and (_forward or torch.is_grad_enabled())


def on_tape(*tensors: Tensor) -> bool:
    """Say whether derivatives are kept on a tape, and one of these, where there are any, has one."""
    on = timing() and not _forward
    return on and (not tensors or any(x.requires_grad for x in tensors))


def note_left(event: Tensor, left: Any) -> None:
    """Keep how much of the step was left after each of the events of a mask."""
    if _left is not None:
        _left[id(event)] = weakref.ref(event, functools.partial(_forget, _left, id(event))), left


def _forget(noted: dict[int, Any], key: int, _: object) -> None:
    noted.pop(key, None)


def noted_left(event: Tensor) -> Any:
    """What was left of the step after the events of a mask, None where that isn't known or nobody asks."""
    kept = _left.get(id(event)) if _left is not None else None
    return kept[1] if kept is not None and kept[0]() is event else None


def kept(where: Tensor, size: int) -> Tensor:
    """Flat positions below a size as they are kept: in half the bytes, and once for all who keep the same."""
    if size >= 2**31 or where.dtype != torch.int64:
        return where
    note = _short.get(id(where))
    if note is None or note[0]() is not where:
        note = weakref.ref(where, functools.partial(_forget, _short, id(where))), where.int()
        _short[id(where)] = note
    return note[1]


T = TypeVar("T")


class InPass(Generic[T]):
    """What belongs to one pass backwards: a pass that was broken off, or an earlier one, may have left something.

    Args:
        make: gives what there is at the beginning of each.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._of, self._value = make, -1, make()

    @property
    def value(self) -> T:
        if self._of != backward_pass():
            self.value = self._make()
        return self._value

    @value.setter
    def value(self, value: T) -> None:
        self._of, self._value = backward_pass(), value

    def taken(self) -> T:
        """Give what there is, and begin anew."""
        value, self.value = self.value, self._make()
        return value


class _Adjoint:
    """The adjoint of a tensor in one pass backwards, zero at its start."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size, self.dtype, self.device = size, dtype, device
        self._buffer: InPass[Tensor | None] = InPass(lambda: None)
        self._standing: InPass[dict[Any, Any]] = InPass(dict)

    @property
    def standing(self) -> dict[Any, Any]:
        """What steps keep of it for the step before, in this pass."""
        return self._standing.value

    def flat(self, whole: Sequence[Tensor]) -> Tensor:
        """All of it, with whole adjoints added; they are the caller's own."""
        flat = self._buffer.value
        if flat is None and whole:
            flat, whole = whole[0].reshape(-1).to(self.dtype), whole[1:]
        elif flat is None:
            flat = torch.zeros(self.size, dtype=self.dtype, device=self.device)
        for more in whole:
            _add(flat, more.reshape(-1))
        self._buffer.value = flat
        return flat

    def drop(self) -> None:
        self._buffer.value = None
        self._standing.taken()


def _add(to: Tensor, more: Tensor) -> None:
    def part(block: slice) -> None:
        to[block].add_(more[block])

    blocked(to.shape[0], lambda: part, device=to.device)


class Version:
    """One state of a taped tensor, with what its readers have left for it in the present pass backwards.

    Args:
        adjoint: the adjoint that it shares with the version it was made from.
        before: that version, None for the first.
    """

    def __init__(self, adjoint: _Adjoint, before: Version | None) -> None:
        self.adjoint, self.before = adjoint, before
        self.followed = False
        self._few: InPass[list[tuple[Tensor, Tensor]]] = InPass(list)
        self._whole: InPass[list[Tensor]] = InPass(list)

    @classmethod
    def after(cls, before: Version | None, like: Tensor) -> Self:
        """The version that a change makes of another, or of a tensor without a derivative.

        Where another change has been made of the same version already, each has an adjoint of its own.
        """
        if before is not None and not before.followed:
            before.followed = True
            return cls(before.adjoint, before)
        size, dtype = like.shape.numel(), torch.float32 if like.dtype == torch.float32 else torch.float64
        return cls(_Adjoint(size, dtype, like.device), before)

    def leave(self, where: Tensor, adjoint: Tensor) -> None:
        """Leave an adjoint, shape (k,), at flat positions, which may repeat."""
        self._few.value.append((where, adjoint))

    def leave_all(self, adjoint: Tensor) -> None:
        """Leave an adjoint of the whole tensor, which is nobody else's."""
        self._whole.value.append(adjoint)

    def take_over(self, flat: Tensor) -> None:
        """Take what a version that went on from this one has left, which is nobody else's."""
        self.leave_all(flat)

    def settle(self) -> Tensor:
        """The whole adjoint of this version, flat, once all who read it or went on from it have been here."""
        flat = self.adjoint.flat(self._whole.taken())
        for where, adjoint in self._few.taken():
            flat.index_add_(0, where, adjoint.to(flat.dtype))
        return flat

    def done(self, flat: Tensor) -> None:
        """Hand what is left to the version before, once this one's change is accounted for."""
        if self.before is None:
            self.adjoint.drop()
        elif self.before.adjoint is not self.adjoint:
            self.before.take_over(flat)
            self.adjoint.drop()


AS_IT_IS = frozenset(
    (
        *("size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "element_size", "nelement"),
        *("is_inference", "data_ptr", "untyped_storage", "storage_offset", "is_complex", "ndimension", "__len__"),
    )
)
PROPERTIES = frozenset(
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "layout", "ndim", "nbytes", "itemsize", "is_cuda", "_version", "is_sparse")
)


class Taped(torch.Tensor):
    """A tensor of the state whose derivative is on the tape; whatever looks at it whole sees one of autograd's.

    Attributes:
        plain: its numbers, without a derivative.
        version: its place on the tape.
        token: what readers and changes of it take, so that on the way back they come before the step that made it.
        made_by: the change that made it, where others want to know.
    """

    plain: Tensor
    version: Version
    token: Tensor
    made_by: object

    @staticmethod
    def of(x: Tensor, version: Version, token: Tensor, made_by: object = None) -> Taped:
        out: Taped = torch.Tensor._make_subclass(Taped, x)
        out.plain, out.version, out.token, out.made_by = x, version, token, made_by
        return out

    def whole(self) -> Tensor:
        """The tensor as autograd has them, in float64 where it holds integers."""
        return _Whole.apply(self.token, self.version, self.plain)

    def at(self, where: Tensor, values: Tensor) -> Tensor:
        """Values that were read at flat positions of shape (k,), with their derivative."""
        # As integers become when they are multiplied by shares.
        numbers = values if values.is_floating_point() else values.to(torch.get_default_dtype())
        return _Read.apply(self.token, self.version, kept(where, self.numel()), numbers)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in PROPERTIES or getattr(func, "__name__", "") in AS_IT_IS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        if func == Tensor.requires_grad.__get__:  # type: ignore[attr-defined]
            return True
        if func is Tensor.detach or func == Tensor.data.__get__:  # type: ignore[attr-defined]
            return args[0].plain
        return func(*(_opened(a) for a in args), **{k: _opened(v) for k, v in (kwargs or {}).items()})


def _opened(x: Any) -> Any:
    if isinstance(x, Taped):
        return x.whole()
    return type(x)(_opened(y) for y in x) if type(x) in (list, tuple) else x


def plain(x: Tensor) -> Tensor:
    """The numbers of a tensor, taped or not, without a derivative."""
    return x.plain if isinstance(x, Taped) else x.detach()


def taped(x: Tensor | None) -> tuple[Tensor, Version] | tuple[None, None]:
    """The token and the version of a tensor: of a taped one, or the first of one with a derivative; none for others."""
    if isinstance(x, Taped):
        return x.token, x.version
    if x is None or not x.requires_grad:
        return None, None
    first = Version.after(None, x)
    return _First.apply(x, first), first


def written(x: Tensor, where: Tensor, value: Tensor, write: Callable[[Tensor, Tensor], Tensor]) -> Taped:
    """A tensor with values, shape (k,) or one for all, written at distinct flat positions.

    Args:
        x: the tensor.
        where: the positions, shape (k,).
        value: the values.
        write: gives the numbers, of those of the tensor and of the values.
    """
    token, before = taped(x)
    version = Version.after(before, x)
    numbers = write(plain(x), value.detach())
    few = kept(where, x.numel())
    return Taped.of(numbers, version, _Change.apply(token, value.expand(where.shape), version, few, True))


def added(total: Tensor, onto: Tensor | None, place: Tensor, value: Tensor) -> Taped:
    """A total on the tape, to which values with a derivative, shape (k,), were added at flat positions.

    Args:
        total: the new total.
        onto: the one before.
        place: where values were added; positions may repeat.
        value: in units of the total.
    """
    token, before = taped(onto)
    version = Version.after(before, total)
    few = kept(place, total.numel())
    return Taped.of(total, version, _Change.apply(token, value, version, few, False))


def _nothing(like: Tensor) -> Tensor:
    return torch.zeros(1, device=like.device)


class _First(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, version: Version) -> Tensor:
        ctx.version, ctx.shape, ctx.dtype = version, x.shape, x.dtype
        return _nothing(x)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        return ctx.version.settle().clone().reshape(ctx.shape).to(ctx.dtype), None


class _Change(torch.autograd.Function):
    """Values at flat positions of a version: in the place of what stood there, or added to it."""

    @staticmethod
    def forward(
        ctx: Any, token: Tensor | None, value: Tensor, version: Version, where: Tensor, replaces: bool
    ) -> Tensor:
        ctx.version, ctx.where, ctx.replaces = version, where, replaces
        ctx.dtype, ctx.first = value.dtype, token is None
        return _nothing(value)

    @staticmethod
    def backward(ctx: Any, token: Tensor) -> Any:
        flat = ctx.version.settle()
        found = flat.index_select(0, ctx.where).to(ctx.dtype)
        if ctx.replaces:
            flat.index_fill_(0, ctx.where.long(), 0.0)
        ctx.version.done(flat)
        return None if ctx.first else token, found, None, None, None


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, version: Version, where: Tensor, values: Tensor) -> Tensor:
        ctx.version, ctx.where = version, where
        return values

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> Any:
        ctx.version.leave(ctx.where, adjoint)
        return _nothing(adjoint), None, None, None


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, version: Version, x: Tensor) -> Tensor:
        ctx.version = version
        return x.clone() if x.is_floating_point() else x.double()

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> Any:
        ctx.version.leave_all(adjoint.clone())
        return _nothing(adjoint), None, None
