"""Conversions that would take the numbers alone of what carries its derivative beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Conversions"]


class Conversions(TorchFunctionMode):
    """Let a kind of tensor say itself what `torch.as_tensor(x, dtype=…)` and its like make of it.

    torch asks no subclass there: it would read the numbers, and the derivative would vanish without a word. A tensor is
    what its own `to` makes of it; where the numbers are to be copied without a derivative, its `__torch_function__`
    says whether they are.

    Args:
        kind: the kind of tensor.
    """

    def __init__(self, kind: type[Tensor]) -> None:
        super().__init__()
        self.kind = kind

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in (torch.as_tensor, torch.asarray):
            x = args[0] if args else given.get("data", given.get("obj"))
            if isinstance(x, self.kind):
                wanted = {n: given[n] for n in ("dtype", "device") if given.get(n) is not None}
                return x.to(**wanted) if wanted else x
        elif func in (torch.tensor, Tensor.new_tensor) and any(isinstance(x, self.kind) for x in args):
            return self.kind.__torch_function__(func, types, args, given)
        return func(*args, **given)
