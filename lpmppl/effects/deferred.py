"""Totals whose parts on other ranks are still to come: they come once somebody looks at the numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lpmppl.effects.tape import AS_IT_IS, PROPERTIES

__all__ = ["Deferred", "arrived"]

_OF_ITS_KIND = PROPERTIES | {getattr(Tensor, name).__get__ for name in ("requires_grad", "is_cpu", "is_leaf")}


class Deferred(torch.Tensor):
    """A tensor that is added to in place before anybody sees its numbers; its shape and kind are known at once.

    Attributes:
        plain: the tensor that is added to.
        settle: has that happen; it may be called again.
    """

    plain: Tensor
    settle: Callable[[], object]

    @staticmethod
    def of(x: Tensor, settle: Callable[[], object]) -> Deferred:
        out: Deferred = torch.Tensor._make_subclass(Deferred, x)
        out.plain, out.settle = x, settle
        return out

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _OF_ITS_KIND or getattr(func, "__name__", "") in AS_IT_IS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        if func is Tensor.detach:
            return args[0]
        return func(*(arrived(a) for a in args), **{k: arrived(v) for k, v in (kwargs or {}).items()})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        # What asks no `__torch_function__`, such as torch.as_tensor(x, dtype=…).
        return func(*(arrived(a) for a in args), **{k: arrived(v) for k, v in (kwargs or {}).items()})


def arrived(x: Any) -> Any:
    """A tensor with all there is in it, also within lists and tuples; anything else as it is."""
    if isinstance(x, Deferred):
        x.settle()
        return x.plain
    return type(x)(arrived(y) for y in x) if type(x) in (list, tuple) else x
