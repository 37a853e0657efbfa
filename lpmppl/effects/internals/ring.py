"""Fixed-point integers: how messages become the ring elements that are added, shared and exchanged."""

from __future__ import annotations

import torch
from torch import Tensor

from lpmppl.errors import InputError

__all__ = ["check_bound", "quantise", "width"]


def width(name: str, quantum: float, bound: float, reach: int) -> torch.dtype:
    """Choose the integers that hold the largest sum, bound / quantum × reach, with a bit to spare.

    Raises:
        InputError: naming the network or tally, where even int64 overflows.
    """
    largest = bound / quantum * max(reach, 1)
    if largest < 2**30:
        return torch.int32
    if largest < 2**62:
        return torch.int64
    raise InputError(
        f"'{name}': {reach} messages of up to {bound:g} in units of {quantum:g} overflow 64 bits; raise the quantum "
        "or lower the bound"
    )


def quantise(value: Tensor, quantum: float, dtype: torch.dtype) -> Tensor:
    """Round values to whole quanta; an error of at most half a quantum each, none for values that are multiples."""
    units = 1.0 / quantum
    if not units.is_integer():
        return (value.detach().double() / quantum).round_().to(dtype)
    if value.is_floating_point():
        return (value.detach().double() * units).round_().to(dtype)
    return value.to(dtype) * int(units)


def check_bound(name: str, value: Tensor, bound: float) -> None:
    """Refuse values beyond the declared bound, and NaN, by the name of their network or tally."""
    if not value.numel() or (value.dtype == torch.bool and bound >= 1):
        return
    largest = value.detach().abs().max() if value.dtype != torch.bool else value.max().int()
    if not bool(largest <= bound):
        raise InputError(
            f"'{name}': a value of {float(largest):g} was given where the bound is {bound:g}; declare a larger bound"
        )
