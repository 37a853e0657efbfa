"""Whole people from fractional tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["apportion", "cascade"]


def apportion(weights: NDArray[np.float64], total: int) -> NDArray[np.int64]:
    """Whole numbers in proportion to `weights` that add to `total` (largest remainder, Hamilton's method).

    >>> import numpy as np
    >>> apportion(np.array([1.0, 1.0, 2.0]), 10)
    array([3, 2, 5])
    """
    exact = np.asarray(weights, np.float64) * (total / np.sum(weights))
    whole = np.floor(exact).astype(np.int64)
    short = int(total - whole.sum())
    whole[np.argsort(-(exact - whole), kind="stable")[:short]] += 1
    return whole


def cascade(values: NDArray[np.float64], offset: float = 0.5) -> NDArray[np.int64]:
    """Round `values` so that every partial sum is its own rounding: any run of cells is off by less than one.

    With `offset` uniform in [0, 1) this is systematic sampling, and the expectation of every cell is its value. The
    total is kept if it is whole.

    >>> import numpy as np
    >>> cascade(np.array([0.5, 0.5, 0.5, 0.5]))
    array([1, 0, 1, 0])
    """
    # A whole total can arrive as 6.999999: without the nudge its floor loses a person.
    sums = np.floor(np.cumsum(np.asarray(values, np.float64).ravel()) + offset + 1e-7).astype(np.int64)
    return np.diff(sums, prepend=int(np.floor(offset + 1e-7))).reshape(np.shape(values))
