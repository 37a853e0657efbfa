"""Polynomials modulo a Mersenne prime by their values, and quotients that show where they are 0 or 1."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lpmppl.effects.internals.threshold import Field

__all__ = ["evaluated", "fit", "less", "quotients", "summed"]


def less(field: Field, a: NDArray[np.int64], b: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """The differences a − b modulo p, of numbers from 0 to p − 1."""
    return field.reduced(a + (field.prime - b))


def summed(field: Field, x: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sums modulo p over the first dimension, of fewer than 2³¹ numbers from 0 to p − 1 each."""
    # Halves of words, whose sums int64 holds.
    high, low = (x >> 31).sum(0), (x & ((1 << 31) - 1)).sum(0)
    shape = high.shape
    high = field.product((1 << 31) % field.prime, high.reshape(-1) % field.prime)
    return field.reduced(high + low.reshape(-1) % field.prime).reshape(shape)


def quotients(field: Field, values: NDArray[np.int64]) -> NDArray[np.int64]:
    r"""What is left of X(X − 1) divided by the polynomial Z that is 0 at 1, …, M, at M + 1, …, 2M + 1.

    .. math:: Q(t) = X(t)\,(X(t) - 1) / Z(t) \mod p, \qquad Z(t) = \prod_{i=1}^M (t - i)

    which are values of one polynomial of degree M exactly where each X(1), …, X(M) is 0 or 1.

    Args:
        field: modulo p, above 2M + 1.
        values: X at 0, …, M, int64 of shape (M + 1, n).
    Returns:
        int64 of shape (M + 1, n).
    """
    found, width = np.empty_like(values), len(values) - 1
    for row, t in zip(found, _targets(width), strict=True):
        at = field.combined(field.weights(range(width + 1), t), [*values])
        row[:] = field.product(pow(_vanishing(width, t), -1, field.prime), field.product(at, less(field, at, 1)))
    return found


def evaluated(
    field: Field, values: NDArray[np.int64], quotients: NDArray[np.int64], point: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """X(r) and Z(r) Q(r) at a point r, int64 of shape (n,), from both's values as in `quotients`: linear in them."""
    width = len(values) - 1
    scale = _vanishing(width, point)
    scaled = [scale * weight % field.prime for weight in field.weights(_targets(width), point)]
    opened = field.combined(field.weights(range(width + 1), point), [*values])
    return opened, field.combined(scaled, [*quotients])


def fit(field: Field, at: NDArray[np.int64], divided: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where X(r)(X(r) − 1) is Z(r) Q(r), for arrays of shape (n,)."""
    return field.product(at, less(field, at, 1)) == divided


def _targets(width: int) -> range:
    return range(width + 1, 2 * width + 2)


def _vanishing(width: int, t: int) -> int:
    return math.prod(t - i for i in range(1, width + 1))
