"""Secret sharing with a threshold: any t of m helpers open the sum, and fewer learn nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpmppl.effects.internals.shares import SEED, Keystream, alike, check_integers, check_party, seeds_of
from lpmppl.errors import InputError, LpmError

__all__ = ["BITS", "PRIME", "Field", "ThresholdShares", "added", "opened", "shared"]

BITS = 60
"""What sums of secrets are below in size: 2⁶⁰. For `encoded`."""

_MOST_HELPERS, _BLOCK = 255, 1 << 15


@dataclass(frozen=True)
class Field:
    """The integers modulo a Mersenne prime p = 2^q − 1, in int64.

    Args:
        q: odd, at most 61, such that p is prime.
    """

    q: int

    @property
    def prime(self) -> int:
        """The prime p."""
        return (1 << self.q) - 1

    def reduced(self, x: NDArray[np.int64]) -> NDArray[np.int64]:
        """What numbers from 0 to 2^(q+2) − 1 are modulo p."""
        folded = (x & self.prime) + (x >> self.q)
        return np.where(folded >= self.prime, folded - self.prime, folded)

    def product(self, a: int | NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.int64]:
        r"""A number, or one for each, times each of others of shape (n,), all from 0 to p − 1, exactly.

        .. math:: (a_1 2^h + a_0)(x_1 2^h + x_0) = 2 a_1 x_1 + (a_1 x_0 + a_0 x_1)\, 2^h + a_0 x_0 \mod p

        with h = (q + 1)/2, as 2^(q+1) = 2; of the middle term times 2^h, the bits from q on count from 0 again. The sum
        of all is below 2^(q+2), which for q = 61 is the last that int64 holds.
        """
        h = (self.q + 1) // 2
        low, middle = (1 << h) - 1, self.q - h
        out = np.empty_like(x)
        # In blocks that stay in the cache: whole arrays of each term take three times as long.
        for first in range(0, len(x), _BLOCK):
            some = slice(first, first + _BLOCK)
            own, other = (a if isinstance(a, int) else a[some]), x[some]
            a1, a0, x1, x0 = own >> h, own & low, other >> h, other & low
            cross = a1 * x0 + a0 * x1
            cross = (cross >> middle) + ((cross & ((1 << middle) - 1)) << h)
            out[some] = self.reduced(2 * (a1 * x1) + cross + a0 * x0)
        return out

    def weights(self, points: Sequence[int], at: int) -> list[int]:
        r"""What the values of a polynomial at given points weigh in its value at another.

        .. math:: f(a) = \sum_i w_i f(x_i), \qquad w_i = \prod_{j \ne i} \frac{a - x_j}{x_i - x_j} \mod p

        for each f of a degree below the number of points, which are different modulo p.

        >>> Field(61).weights(range(3), 4)
        [3, 2305843009213693943, 6]
        """
        found = []
        for i, inverse in enumerate(_inverses(self.prime, tuple(points))):
            above = math.prod((at - x) % self.prime for j, x in enumerate(points) if j != i)
            found.append(above * inverse % self.prime)
        return found

    def combined(self, weights: Sequence[int], values: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """The sum of each weight times its values modulo p, of numbers from 0 to p − 1, arrays of one shape (n,)."""
        total: NDArray[np.int64] = np.zeros_like(values[0])
        for weight, value in zip(weights, values, strict=True):
            total = self.reduced(total + self.product(weight, value))
        return total

    def at(self, point: int, values: Mapping[int, NDArray[np.int64]]) -> NDArray[np.int64]:
        """What the polynomials of lowest degree through values at other points are at a point."""
        return self.combined(self.weights([*values], point), [*values.values()])


@lru_cache(maxsize=64)
def _inverses(prime: int, points: tuple[int, ...]) -> list[int]:
    return [pow(math.prod(x - other for other in points if other != x), -1, prime) for x in points]


_FIELD = Field(61)
PRIME = _FIELD.prime
"""The number of different shares, 2⁶¹ − 1."""


@dataclass(frozen=True, eq=False)
class ThresholdShares:
    """A secret in m shares of which any t open it: seeds of the first t − 1, and vectors that are the others.

    Share k is the value at k + 1 of a polynomial of degree t − 1 that is the secret at 0, modulo 2⁶¹ − 1.

    Args:
        seeds: of 32 bytes each, all different.
        vectors: int64 of shape (..., n) each, from 0 to 2⁶¹ − 2.
    Raises:
        InputError: for no seed, one twice or of another length; no vector, vectors of different shapes or out of range.
    """

    seeds: tuple[bytes, ...] = field(repr=False)
    vectors: tuple[Tensor, ...] = field(repr=False)

    def __post_init__(self) -> None:
        seeds_of(self.seeds, max(1, len(self.seeds)))
        for k, vector in enumerate(alike(self.vectors)):
            _check_share(f"the share of helper {len(self.seeds) + k}", vector)

    @property
    def nbytes(self) -> int:
        """The bytes that all helpers are sent together: 32(t − 1) + 8(m − t + 1) for each number."""
        return SEED * len(self.seeds) + sum(8 * vector.numel() for vector in self.vectors)

    def of(self, k: int) -> Tensor:
        """Helper k's share, k from 0, int64 of the secret's shape, in memory of its own."""
        check_party("helper", k, len(self.seeds) + len(self.vectors))
        if k >= len(self.seeds):
            return self.vectors[k - len(self.seeds)].clone()
        shape = self.vectors[0].shape
        return torch.from_numpy(_uniform(self.seeds[k], self.vectors[0].numel())).reshape(shape)


def shared(secret: Tensor, helpers: int, threshold: int, seeds: Sequence[bytes] | None = None) -> ThresholdShares:
    """Split integers into shares on the CPU, one for each helper, of which any t open them.

    Args:
        secret: int64 of shape (..., n), below 2⁶⁰ in size, and so must be the sum of all agents'.
        helpers: m, at most 255.
        threshold: t, from 2 to m.
        seeds: t − 1 of them, for test vectors only; else they come from the operating system.
    Raises:
        InputError: for a secret of another type or too large, a threshold or a number of helpers that is out of range,
            or wrong seeds.
        LpmError: where the package cryptography isn't installed.
    Source: Shamir, "How to share a secret", Communications of the ACM 22 (1979).

    >>> shares = shared(torch.tensor([7, -1]), helpers=3, threshold=2)
    >>> opened({0: shares.of(0), 2: shares.of(2)}, threshold=2)
    tensor([ 7, -1])
    """
    check_integers("the secret", secret)
    _check_threshold(threshold, helpers)
    own = secret.cpu().numpy().reshape(-1)
    beyond = (own > PRIME // 2) | (own < -(PRIME // 2))
    if beyond.any():
        raise InputError(
            f"a secret of {own[beyond][0]} was given where sums must be below 2⁶⁰ in size; encode with bits={BITS}"
        )
    seeds = seeds_of(seeds, threshold - 1)
    values = {0: np.where(own < 0, own + PRIME, own)}
    values.update({k + 1: _uniform(seed, own.size) for k, seed in enumerate(seeds)})
    rest = (_FIELD.at(k + 1, values) for k in range(threshold - 1, helpers))
    return ThresholdShares(seeds, tuple(torch.from_numpy(x).reshape(secret.shape) for x in rest))


def added(parts: Iterable[Tensor]) -> Tensor:
    """A helper's total: the sum of its shares of many secrets modulo 2⁶¹ − 1, int64 of their shape.

    Raises:
        InputError: for no parts, parts of different shapes, or what is no share.
    """
    parts = alike(parts)
    total = np.zeros(parts[0].numel(), np.int64)
    for k, part in enumerate(parts):
        _check_share(f"part {k}", part)
        total = _FIELD.reduced(total + part.cpu().numpy().reshape(-1))
    return torch.from_numpy(total).reshape(parts[0].shape)


def opened(
    totals: Mapping[int, Tensor] | Iterable[tuple[int, Tensor]], threshold: int, helpers: int = _MOST_HELPERS
) -> Tensor:
    """The sum of all secrets from the totals of t helpers or more.

    As many wrong totals as there are beyond t are noticed, and of t alone none is. With t + 2, the one that is wrong is
    named; where several are, that may be an honest one.

    Args:
        totals: helper → `added` of its shares, int64 of shape (..., n).
        threshold: t, as in `shared`.
        helpers: m, to refuse totals of others.
    Returns:
        int64 of the totals' shape, below 2⁶⁰ in size.
    Raises:
        InputError: for fewer helpers than t, one twice or unknown, totals of different shapes, or what is no share.
        LpmError: where the totals don't belong to one polynomial, naming the helper whose total is wrong if it can be
            told.
    """
    _check_threshold(threshold, helpers)
    pairs = list(totals.items() if isinstance(totals, Mapping) else totals)
    values: dict[int, NDArray[np.int64]] = {}
    for helper, total in pairs:
        check_party("helper", helper, helpers)
        if helper + 1 in values:
            raise InputError(f"helper {helper} was given twice; give one total of each")
        _check_share(f"the total of helper {helper}", total)
        if total.shape != pairs[0][1].shape:
            raise InputError(
                f"the total of helper {helper} has shape {tuple(total.shape)}, that of helper {pairs[0][0]} "
                f"{tuple(pairs[0][1].shape)}; give them alike"
            )
        values[helper + 1] = total.cpu().numpy().reshape(-1)
    if len(pairs) < threshold:
        raise InputError(f"the totals of {len(pairs)} helpers were given where {threshold} are needed; wait for more")
    if not _consistent(values, threshold):
        raise LpmError(_blame(values, threshold))
    found = _FIELD.at(0, dict(list(values.items())[:threshold]))
    return torch.from_numpy(np.where(found > PRIME // 2, found - PRIME, found)).reshape(pairs[0][1].shape)


def _consistent(values: Mapping[int, NDArray[np.int64]], threshold: int) -> bool:
    """Whether all values belong to polynomials of degree below the threshold."""
    first, others = dict(list(values.items())[:threshold]), list(values.items())[threshold:]
    return all(np.array_equal(_FIELD.at(point, first), value) for point, value in others)


def _blame(values: Mapping[int, NDArray[np.int64]], threshold: int) -> str:
    """What is said of totals that contradict one another."""
    if len(values) >= threshold + 2:
        for point in values:
            if _consistent({other: value for other, value in values.items() if other != point}, threshold):
                return f"the total of helper {point - 1} is wrong: all others agree without it; leave it out"
    names = ", ".join(str(point - 1) for point in values)
    return (
        f"the totals of helpers {names} contradict one another: one or more of them are wrong, and it can't be told "
        f"which; with {threshold + 2} helpers or more a single one is found"
    )


def _uniform(seed: bytes, n: int) -> NDArray[np.int64]:
    return Keystream(seed).below(n, PRIME).view(np.int64)


def _check_threshold(threshold: int, helpers: int) -> None:
    if not 2 <= threshold <= helpers <= _MOST_HELPERS:
        raise InputError(
            f"threshold={threshold} of helpers={helpers}: give a threshold from 2 to the number of helpers, which is "
            f"{_MOST_HELPERS} at most"
        )


def _check_share(what: str, share: Tensor) -> None:
    check_integers(what, share)
    wrong = (share < 0) | (share >= PRIME)
    if bool(wrong.any()):
        raise InputError(
            f"{what} has a value of {int(share[wrong][0])}, which is no share: those are from 0 to 2⁶¹ − 2"
        )
