"""Sums that nobody has: they stand in the state and in fields, and whoever reads one is told who may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lpmppl.errors import LpmError

__all__ = ["Hidden"]

_KNOWN = frozenset(
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_cuda", "is_sparse", "is_nested")
)
_SHAPES = frozenset(("size", "dim", "ndimension", "numel", "nelement", "is_floating_point", "is_complex", "__len__"))
_AS_IT_IS = frozenset(("detach", "clone", "contiguous", "cpu"))


class Hidden(torch.Tensor):
    """A network's sums that are never opened: integers with a shape, a type and a place, and no values to read.

    It goes where a total goes whose values nobody looks at: into the state, into a field and its scalings. Any other
    torch function is refused.

    Attributes:
        payload: what is there of it: shares of shape (m, …, G), or the integers (1, …, G) of the same in the clear.
        network: the network's name.
        most: the largest absolute value that each sum can have, int64 of shape (G,).
    """

    payload: Tensor
    network: str
    most: Tensor

    @staticmethod
    def of(payload: Tensor, network: str, most: Tensor, dtype: torch.dtype, device: torch.device) -> Hidden:
        """Stand for sums.

        Args:
            payload: int64 of shape (m, …, G).
            network: the network's name.
            most: the largest absolute value that each sum can have, int64 of shape (G,).
            dtype: the integers that the sums would be in.
            device: where they would be.
        """
        out: Hidden = torch.Tensor._make_wrapper_subclass(Hidden, payload.shape[1:], dtype=dtype, device=device)
        out.payload, out.network, out.most = payload, network, most
        return out

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"Hidden('{self.network}', shape={tuple(self.shape)})"

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, options = getattr(func, "__name__", ""), dict(kwargs or {})
        mine = next(x for x in _within((*args, *options.values())) if isinstance(x, Hidden))
        if func in _KNOWN or name in _SHAPES:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **options)
        first = bool(args) and args[0] is mine
        if name in _AS_IT_IS and first:
            return mine
        if name == "to" and first and all(_is_as(mine, x) for x in (*args[1:], *options.values())):
            return mine
        if name == "_unpack_dual":
            return mine, None
        raise mine.refusal

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        # What gets past torch's functions, such as code of torch's own, has nothing to read either.
        raise next(x for x in _within((*args, *(kwargs or {}).values())) if isinstance(x, Hidden)).refusal

    @property
    def refusal(self) -> LpmError:
        """What is said to whoever reads it."""
        return LpmError(
            f"the sum of '{self.network}' is never opened: use it as a factor of a hazard, which is linear in it, in "
            "Exposure and happens; or open it, by Custodian(…)"
        )


def _is_as(hidden: Hidden, kind: object) -> bool:
    return isinstance(kind, torch.dtype | torch.device) and kind in (hidden.dtype, hidden.device)


def _within(values: Any) -> list[Any]:
    """The values, and those in lists and tuples among them."""
    return [y for x in values for y in (_within(x) if isinstance(x, list | tuple) else [x])]
