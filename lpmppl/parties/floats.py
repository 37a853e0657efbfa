"""Floating-point numbers in messages: their bytes as they are, refused where they can't be computed with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lpmppl.parties.refusals import Reason, Refused

__all__ = ["content", "floats"]


def content(x: Tensor) -> bytes:
    """The bytes of numbers, float32 or float64, little-endian in the order of the last dimension."""
    array = x.detach().contiguous().numpy()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def floats(body: bytes | memoryview, what: str, shape: Sequence[int], form: str = "<f4") -> Tensor:
    """Numbers of a body, as a tensor of their own.

    Args:
        body: their bytes.
        what: what they are, for refusals.
        shape: of them; the first may be -1, and is then as long as there are bytes.
        form: numpy's name for what a number is.
    Raises:
        Refused: for another shape, or what is no finite number.
    """
    row = int(np.prod([n for n in shape if n != -1])) * np.dtype(form).itemsize
    rows, rest = divmod(len(body), row)
    if rest or (rows != 1 if -1 not in shape else rows < 1):
        wanted = ", ".join("runs" if n == -1 else str(n) for n in shape)
        raise Refused(Reason.LENGTH, f"{len(body)} bytes were given where {what} of shape ({wanted}) are expected")
    x = np.frombuffer(body, form).astype(np.dtype(form).newbyteorder("="))
    if not np.isfinite(x).all():
        raise Refused(Reason.RANGE, f"{what} have {int((~np.isfinite(x)).sum())} of {x.size} that are no finite number")
    return torch.from_numpy(x).reshape(list(shape))
