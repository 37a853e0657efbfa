"""Polynomials modulo a Mersenne prime by their values, and quotients that show where they are 0 or 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lpmppl.effects.internals.threshold import Field

__all__ = ["combined", "evaluated", "fit", "less", "multiplied", "quotients", "summed", "weights"]

_BLOCK = 1 << 15


def weights(field: Field, points: Sequence[int], at: int) -> list[int]:
    r"""What the values of a polynomial at given points weigh in its value at another.

    .. math:: f(a) = \sum_i w_i f(x_i), \qquad w_i = \prod_{j \ne i} \frac{a - x_j}{x_i - x_j} \mod p

    for each f of a degree below the number of points, which are different modulo p.

    >>> weights(Field(61), range(3), 4)
    [3, 2305843009213693943, 6]
    """
    prime, found = field.prime, []
    for i, inverse in enumerate(_inverses(prime, tuple(points))):
        above = math.prod((at - x) % prime for j, x in enumerate(points) if j != i)
        found.append(above * inverse % prime)
    return found


@lru_cache(maxsize=64)
def _inverses(prime: int, points: tuple[int, ...]) -> list[int]:
    return [pow(math.prod(x - other for other in points if other != x), -1, prime) for x in points]


def combined(field: Field, weights: Sequence[int], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sums of weight times value modulo p over the first dimension of (k, n), of numbers from 0 to p − 1."""
    total: NDArray[np.int64] = np.zeros(values.shape[1:], np.int64)
    for weight, value in zip(weights, values, strict=True):
        total = field.reduced(total + field.product(weight, value))
    return total


def multiplied(field: Field, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """The products of two arrays of one shape (n,) with numbers from 0 to p − 1: `Field.product`, entry by entry."""
    h = (field.q + 1) // 2
    low, middle = (1 << h) - 1, field.q - h
    out = np.empty_like(a)
    for first in range(0, len(a), _BLOCK):
        some = slice(first, first + _BLOCK)
        a1, a0, b1, b0 = a[some] >> h, a[some] & low, b[some] >> h, b[some] & low
        cross = a1 * b0 + a0 * b1
        out[some] = field.reduced(2 * (a1 * b1) + (cross >> middle) + ((cross & ((1 << middle) - 1)) << h) + a0 * b0)
    return out


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
        at = combined(field, weights(field, range(width + 1), t), values)
        row[:] = field.product(pow(_vanishing(width, t), -1, field.prime), multiplied(field, at, less(field, at, 1)))
    return found


def evaluated(
    field: Field, values: NDArray[np.int64], quotients: NDArray[np.int64], point: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """X(r) and Z(r) Q(r) at a point r, int64 of shape (n,), from both's values as in `quotients`: linear in them."""
    width = len(values) - 1
    scale = _vanishing(width, point)
    scaled = [scale * weight % field.prime for weight in weights(field, _targets(width), point)]
    return combined(field, weights(field, range(width + 1), point), values), combined(field, scaled, quotients)


def fit(field: Field, at: NDArray[np.int64], divided: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where X(r)(X(r) − 1) is Z(r) Q(r), for arrays of shape (n,)."""
    return multiplied(field, at, less(field, at, 1)) == divided


def _targets(width: int) -> range:
    return range(width + 1, 2 * width + 2)


def _vanishing(width: int, t: int) -> int:
    return math.prod(t - i for i in range(1, width + 1))
