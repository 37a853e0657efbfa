"""What a model and its people are given, checked before anything is made of it."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpmppl.errors import InputError

__all__ = ["column", "device_of", "named", "number", "shown", "whole"]

_LONG = 60
"""How much of a value is said."""


def shown(value: Any) -> str:
    """A value on one line, by its kind and shape where it has such.

    >>> import torch
    >>> shown("x"), shown(torch.zeros(3, 2))
    ("'x'", 'Tensor of shape (3, 2)')
    """
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    words = " ".join(repr(value).split())
    return words if len(words) <= _LONG else f"{words[: _LONG - 1]}…"


def whole(what: str, value: object, least: int, most: int | None = None) -> int:
    """Take a whole number of any integer type.

    Raises:
        InputError: for anything else, or one that is too small or too large.
    """
    try:
        found = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        found = least - 1
    if isinstance(value, bool) or found < least or (most is not None and found > most):
        span = f"{least} or more" if most is None else f"{least} to {most:,}"
        raise InputError(f"{what}={shown(value)} was given; give a whole number, {span}")
    return found


def number(what: str, value: object, least: float = -math.inf, most: float = math.inf) -> float:
    """Take a finite number of any type, from `least` to `most`.

    Raises:
        InputError: for anything else.
    """
    try:
        found = math.nan if isinstance(value, bool | str | bytes) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        found = math.nan
    if not math.isfinite(found) or not least <= found <= most:
        low, high = math.isfinite(least), math.isfinite(most)
        span = f", {least:g} to {most:g}" if low and high else f", {least:g} or more" if low else ""
        raise InputError(f"{what}={shown(value)} was given; give a finite number{span}")
    return found


def named(by: object, default: Mapping[str, str]) -> Mapping[str, str]:
    """Variables by the name of their dimension: those given, or where None is, the default.

    Raises:
        InputError: for anything else, such as the name of a variable alone.
    """
    such = dict(default) or {"household": "household"}
    if by is not None and not isinstance(by, Mapping):
        raise InputError(f"by={shown(by)} was given; give variables by the name of their dimension, such as {such}")
    for dim, variable in (by or {}).items():
        if not isinstance(dim, str) or not dim or not isinstance(variable, str):
            raise InputError(
                f"by={shown(by)} was given; names of dimensions and of variables are words, such as {such}"
            )
    return default if by is None else by


def device_of(device: object) -> torch.device:
    """The device of that name.

    Raises:
        InputError: where there is none such here.
    """
    try:
        found: torch.device = torch.device(device)  # type: ignore[call-overload]
        torch.empty(0, device=found)
    except (RuntimeError, TypeError, AssertionError) as e:
        raise InputError(
            f"device={shown(device)} is none that torch has here; say cpu, or cuda where there is a GPU"
        ) from e
    return found


def column(name: object, values: object) -> np.ndarray:
    """A variable of agents as an array, one number, code or Boolean for each.

    Raises:
        InputError: for anything else.
    """
    such = f"variable '{name}': {shown(values)} was given; give a number, code or Boolean for each agent"
    if not isinstance(name, str) or not name:
        raise InputError(f"a variable can't be called {shown(name)}; give it a name in words")
    try:
        found = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except (ValueError, TypeError) as e:
        raise InputError(f"{such}, all of one kind") from e
    if found.dtype.kind not in "biuf":
        raise InputError(
            f"{such}; words are codes 0, 1 … with labels, as np.unique(words, return_inverse=True) gives them"
        )
    if found.ndim != 1 or not found.size:
        raise InputError(f"{such}, shape (N,)")
    return found
