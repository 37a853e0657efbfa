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
from typing import Any

import torch
from torch import Tensor

from lpmppl._compat import backward_pass

__all__ = ["Taped", "Version", "added", "note_left", "noted_left", "on_tape", "plain", "taped", "taping", "written"]

_left: dict[int, tuple[weakref.ref[Tensor], Any]] | None = None


@contextmanager
def taping() -> Iterator[None]:
    """Keep derivatives of the state on a tape until this context ends."""
    global _left
    outer, _left = _left, {}
    try:
        yield
    finally:
        _left = outer


def on_tape(*tensors: Tensor) -> bool:
    """Say whether derivatives are kept on a tape, and one of these, where there are any, has one."""
    on = _left is not None and torch.is_grad_enabled()
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


class _Adjoint:
    """The adjoint of a tensor in one pass backwards, zero at its start."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size, self.dtype, self.device = size, dtype, device
        self._of = -1
        self._buffer: Tensor | None = None

    def flat(self, first: Sequence[Tensor]) -> Tensor:
        """All of it, with whole adjoints added; they are the caller's own."""
        now = backward_pass()
        if self._buffer is None or self._of != now:
            # A pass that was broken off, or an earlier one, has left what isn't this one's.
            own = first[0].reshape(-1).to(self.dtype) if first else None
            if own is None:
                own = torch.zeros(self.size, dtype=self.dtype, device=self.device)
            self._buffer, self._of, first = own, now, first[1:]
        for more in first:
            self._buffer.add_(more.reshape(-1))
        return self._buffer

    def drop(self) -> None:
        self._buffer = None


class Version:
    """One state of a taped tensor, with what its readers have left for it in the present pass backwards.

    Args:
        adjoint: the adjoint that it shares with the version it was made from.
        before: that version, None for the first.
    """

    def __init__(self, adjoint: _Adjoint, before: Version | None) -> None:
        self.adjoint, self.before = adjoint, before
        self.followed = False
        self._of = -1
        self._few: list[tuple[Tensor, Tensor]] = []
        self._many: list[Tensor] = []

    @classmethod
    def after(cls, before: Version | None, like: Tensor) -> Version:
        """The version that a change makes of another, or of a tensor without a derivative.

        Where another change has been made of the same version already, each has an adjoint of its own.
        """
        if before is not None and not before.followed:
            before.followed = True
            return cls(before.adjoint, before)
        size, dtype = like.shape.numel(), torch.float32 if like.dtype == torch.float32 else torch.float64
        return cls(_Adjoint(size, dtype, like.device), before)

    def _fresh(self) -> None:
        if self._of != backward_pass():
            self._of, self._few, self._many = backward_pass(), [], []

    def leave(self, where: Tensor, adjoint: Tensor) -> None:
        """Leave an adjoint, shape (k,), at flat positions, which may repeat."""
        self._fresh()
        self._few.append((where, adjoint))

    def leave_all(self, adjoint: Tensor) -> None:
        """Leave an adjoint of the whole tensor, which is nobody else's."""
        self._fresh()
        self._many.append(adjoint)

    def settle(self) -> Tensor:
        """The whole adjoint of this version, flat, once all who read it or went on from it have been here."""
        self._fresh()
        flat = self.adjoint.flat(self._many)
        for where, adjoint in self._few:
            flat.index_add_(0, where, adjoint.to(flat.dtype))
        self._few, self._many = [], []
        return flat

    def done(self, flat: Tensor) -> None:
        """Hand what is left to the version before, once this one's change is accounted for."""
        if self.before is None:
            self.adjoint.drop()
        elif self.before.adjoint is not self.adjoint:
            self.before.leave_all(flat)
            self.adjoint.drop()


_AS_IT_IS = frozenset(
    (
        *("size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "element_size", "nelement"),
        *("is_inference", "data_ptr", "untyped_storage", "storage_offset", "is_complex", "ndimension", "__len__"),
    )
)
_PROPERTIES = frozenset(
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
        return _Read.apply(self.token, self.version, where, values)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _PROPERTIES or getattr(func, "__name__", "") in _AS_IT_IS:
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
    return Taped.of(numbers, version, _Write.apply(token, value.expand(where.shape), version, where))


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
    return Taped.of(total, version, _Add.apply(token, value, version, place))


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


class _Write(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor | None, value: Tensor, version: Version, where: Tensor) -> Tensor:
        ctx.version, ctx.where, ctx.dtype, ctx.first = version, where, value.dtype, token is None
        return _nothing(value)

    @staticmethod
    def backward(ctx: Any, token: Tensor) -> Any:
        flat = ctx.version.settle()
        found = flat.index_select(0, ctx.where).to(ctx.dtype)
        flat.index_fill_(0, ctx.where, 0.0)
        ctx.version.done(flat)
        return None if ctx.first else token, found, None, None


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor | None, value: Tensor, version: Version, place: Tensor) -> Tensor:
        few = place.int() if version.adjoint.size < 2**31 else place
        ctx.version, ctx.place, ctx.dtype, ctx.first = version, few, value.dtype, token is None
        return _nothing(value)

    @staticmethod
    def backward(ctx: Any, token: Tensor) -> Any:
        flat = ctx.version.settle()
        found = flat.index_select(0, ctx.place).to(ctx.dtype)
        ctx.version.done(flat)
        return None if ctx.first else token, found, None, None


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
