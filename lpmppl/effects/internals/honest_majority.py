"""Arithmetic on numbers that nobody has: sums, products and comparisons, among parties of whom most are honest."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lpmppl.effects.internals.shares import SEED, Keystream
from lpmppl.effects.internals.threshold import Field
from lpmppl.errors import InputError

__all__ = ["HonestMajority", "dealt"]

Numbers: TypeAlias = NDArray[np.int64]

_BLOCK = 1 << 12
"""Numbers that are compared at a time: their masks have a bit of each of q places, all shared."""

_HALF = 31
_LOW = (1 << _HALF) - 1

_SMALL = 3
"""The largest number by which one of the field is multiplied without a word overflowing, one more added."""


class HonestMajority:
    r"""m parties that calculate with shared numbers, of whom t = ⌊(m − 1)/2⌋ may look at all they have together.

    A number is shared as a polynomial of degree t that is the number at 0; party k has its value at k + 1, and any t of
    them are uniform and independent of the number. Sums each party makes of its own. Of two polynomials the product has
    degree 2t < m; every party shares its value anew, and the sum of those, weighted, is of degree t again. A number is
    compared with 0 by whether twice it has wrapped around:

    .. math:: [x > 0] = \mathrm{lsb}(-2x \bmod p), \qquad \mathrm{lsb}(y) = c_0 \oplus r_0 \oplus [c < r],
        \qquad c = y + r \bmod p

    where r has random bits that nobody knows, and c is opened among the parties. It is uniform but for 2⁻q, as r = p,
    which is 0 as well, comes up so often. Parties follow the protocol (they are semi-honest).

    Args:
        parties: m, 3 or more.
        field: the integers modulo p = 2^q − 1.
    Attributes:
        together: t.
        opened: how many numbers the parties opened among themselves.
        products: how many products they made.
    Raises:
        InputError: for fewer than three parties, or as many as the field has numbers.
    Source: Ben-Or, Goldwasser and Wigderson, "Completeness Theorems for Non-Cryptographic Fault-Tolerant Distributed
        Computation", STOC 1988; Damgård, Fitzi, Kiltz, Nielsen and Toft, "Unconditionally Secure Constant-Rounds
        Multi-party Computation for Equality, Comparison, Bits and Exponentiation", TCC 2006; Nishide and Ohta,
        "Multiparty Computation for Interval, Equality, and Comparison Without Bit-Decomposition Protocol", PKC 2007.

    >>> among = HonestMajority(3)
    >>> x = among.share(np.array([3, -2, 0]))
    >>> among.revealed(among.inner([(x, x)])), among.revealed(among.positive(x))
    (array([9, 4, 0]), array([1, 0, 0]))
    """

    def __init__(self, parties: int, field: Field | None = None) -> None:
        self.field = Field(61) if field is None else field
        if isinstance(parties, bool) or not isinstance(parties, int) or not 3 <= parties < self.field.prime:
            raise InputError(
                f"parties={parties!r}: what is never opened is calculated with among 3 parties or more, of whom most "
                "are honest; give a whole number from 3"
            )
        self.parties, self.together = parties, (parties - 1) // 2
        self.opened = self.products = 0
        self._chances = _fresh(parties)
        self._reducing = self.field.weights(range(1, 2 * self.together + 2), 0)
        self._opening = self.field.weights(range(1, self.together + 2), 0)

    def share(self, x: Numbers) -> Numbers:
        """The shares of numbers of size below p/2, each by whoever has it: shape (m, …), from (…)."""
        return self._deal(x.reshape(1, -1) % self.field.prime, _fresh(1))[0].reshape(self.parties, *x.shape)

    def public(self, x: Numbers) -> Numbers:
        """What parties take for their shares of numbers that all of them know: shape (m, …)."""
        return np.broadcast_to(x % self.field.prime, (self.parties, *x.shape))

    def plus(self, x: Numbers, y: Numbers) -> Numbers:
        """Shares of a sum."""
        return self.field.reduced(x + y)

    def minus(self, x: Numbers, y: Numbers) -> Numbers:
        """Shares of a difference."""
        return self.field.reduced(x + (self.field.prime - y))

    def added(self, x: Numbers, up: Callable[[Numbers], Numbers]) -> Numbers:
        """Shares of sums of shared numbers, where `up` adds up integers below 2³¹ exactly: (m, …, N) to (m, …, G)."""
        low, high = (up(part) % self.field.prime for part in (x & _LOW, x >> _HALF))
        return self.plus(self._times(1 << _HALF, high), low)

    def inner(self, pairs: Iterable[tuple[Numbers, Numbers]]) -> Numbers:
        """Shares of the sum of products of pairs, of shape (m, …) each: one round, however many they are."""
        total: Numbers | None = None
        needed = len(self._reducing)
        for x, y in pairs:
            shape = np.broadcast_shapes(x.shape, y.shape)
            one, other = (np.broadcast_to(a, shape)[:needed].reshape(-1) for a in (x, y))
            found = self.field.product(one, other).reshape(needed, -1)
            total = found if total is None else self.field.reduced(total + found)
        assert total is not None
        self.products += total.shape[1]
        weighted = np.stack([self._times(w, own) for w, own in zip(self._reducing, total, strict=True)])
        return self._added(self._deal(weighted, self._chances)).reshape(shape)

    def bits(self, n: int) -> Numbers:
        """Shares of random bits that nobody knows, shape (m, n): the exclusive or of a bit of each of t + 1 parties."""
        own = np.stack([_bits(chance, n) for chance in self._chances[: self.together + 1]])
        first, *others = self._deal(own, self._chances)
        for other in others:
            first = self._differ(first, other)
        return first

    def positive(self, x: Numbers) -> Numbers:
        """Shares of 1 where a shared number of size below p/2 is above 0, of 0 elsewhere, of its shape (m, …)."""
        flat = x.reshape(self.parties, -1)
        self._chances = _fresh(self.parties)
        blocks = [flat[:, first : first + _BLOCK] for first in range(0, flat.shape[1], _BLOCK)]
        found = [self._odd(self._times(2, self.field.reduced(self.field.prime - block))) for block in blocks]
        return (np.concatenate(found, 1) if found else flat).reshape(x.shape)

    def revealed(self, x: Numbers) -> Numbers:
        """What shares of shape (m, …) are of, of size below p/2, for whom it is meant: t + 1 parties tell it theirs."""
        total = self._interpolated(x)
        return np.where(total > self.field.prime // 2, total - self.field.prime, total)

    def _odd(self, y: Numbers) -> Numbers:
        """Shares of the lowest bit of shared numbers from 0 to p − 1, shape (m, n)."""
        q, n = self.field.q, y.shape[1]
        mask = self.bits(q * n).reshape(self.parties, q, n)
        whole = mask[:, q - 1]
        for k in reversed(range(q - 1)):
            whole = self.field.reduced(2 * whole + mask[:, k])
        seen = self._open(self.field.reduced(y + whole))
        below = self._below(seen, mask)
        return self._flipped(self._differ(mask[:, 0], below), (seen & 1).astype(bool))

    def _below(self, seen: Numbers, mask: Numbers) -> Numbers:
        """Shares of 1 where a number that all know, shape (n,), is below one of shared bits, shape (m, q, n).

        From the top, `alike` is 1 for as long as their bits are; where it ends, the number's own bit says which it is.
        """
        less = np.zeros_like(mask[:, 0])
        alike = less + 1
        for k in reversed(range(self.field.q)):
            zero = (seen >> k & 1) == 0
            same = self._flipped(mask[:, k], zero)
            still = same if k == self.field.q - 1 else self.inner([(alike, same)])
            less = np.where(zero, self.plus(less, self.minus(alike, still)), less)
            alike = still
        return less

    def _flipped(self, bit: Numbers, where: NDArray[np.bool_]) -> Numbers:
        return np.where(where, self.minus(np.ones_like(bit), bit), bit)

    def _differ(self, x: Numbers, y: Numbers) -> Numbers:
        """Shares of the exclusive or of shared bits."""
        return self.minus(self.plus(x, y), self._times(2, self.inner([(x, y)])))

    def _open(self, x: Numbers) -> Numbers:
        """What shares are of, from 0 to p − 1: everybody learns it."""
        self.opened += x.shape[1]
        return self._interpolated(x)

    def _interpolated(self, x: Numbers) -> Numbers:
        flat = x.reshape(self.parties, -1)
        return self.field.combined(self._opening, [*flat[: self.together + 1]]).reshape(x.shape[1:])

    def _times(self, factor: int, x: Numbers) -> Numbers:
        if factor <= _SMALL:
            return self.field.reduced(factor * x)
        return self.field.product(factor, x.reshape(-1)).reshape(x.shape)

    def _added(self, dealt: Numbers) -> Numbers:
        total = dealt[0]
        for more in dealt[1:]:
            total = self.field.reduced(total + more)
        return total

    def _deal(self, x: Numbers, chances: Sequence[Keystream]) -> Numbers:
        """What dealers of numbers of shape (d, n) give to the parties, by chance of their own: shape (d, m, n)."""
        prime, degree = self.field.prime, self.together
        drawn = [c.below(degree * x.shape[1], prime).view(np.int64) for c, _ in zip(chances, x, strict=False)]
        return dealt(self.field, x, np.stack(drawn).reshape(len(x), degree, -1), self.parties)


def dealt(field: Field, x: Numbers, coefficients: Numbers, parties: int) -> Numbers:
    r"""The shares of numbers, by polynomials with given coefficients.

    .. math:: f(z) = x + \sum_{k=1}^t a_k z^k \bmod p, \qquad f(1), \dots, f(m)

    Args:
        field: the integers modulo p.
        x: from 0 to p − 1, shape (d, n).
        coefficients: a, each uniform from 0 to p − 1, shape (d, t, n).
        parties: m.
    Returns:
        from 0 to p − 1, shape (d, m, n).
    """
    out = np.empty((len(x), parties, x.shape[1]), np.int64)
    for point in range(1, parties + 1):
        value = coefficients[:, -1]
        for lower in (*(coefficients[:, k] for k in reversed(range(coefficients.shape[1] - 1))), x):
            if point <= _SMALL:
                value = field.reduced(point * value + lower)
            else:
                value = field.reduced(field.product(point, value.reshape(-1)).reshape(value.shape) + lower)
        out[:, point - 1] = value
    return out


def _fresh(n: int) -> list[Keystream]:
    return [Keystream(secrets.token_bytes(SEED)) for _ in range(n)]


def _bits(chance: Keystream, n: int) -> Numbers:
    return np.unpackbits(chance.words(-(-n // 64)).view(np.uint8), count=n).astype(np.int64)
