"""What may be proved of secret-shared numbers: that each is 0 or 1, or small, or that at most one isn't 0."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from lpmppl.effects.internals.polynomials import less, summed
from lpmppl.effects.internals.validity import Circuit, Words, check_one
from lpmppl.errors import InputError

__all__ = ["AtMostOne", "AtMostOneBounded", "Booleans", "Bounded"]


class Booleans(Circuit):
    """Numbers that are each 0 or 1."""

    def _checked(self, words: Words) -> Words:
        return words


@dataclass(frozen=True)
class AtMostOne(Circuit):
    """Numbers that are each 0 or 1, and at most one in each row is 1: an agent is counted in one group only.

    Args:
        d: as in `Circuit`, as are chunk and field.
        rows: how many rows of as many numbers each there are, one after the other: sums over the same groups.
    """

    rows: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        _check_rows(self)
        super().__post_init__()

    @property
    def checks(self) -> int:
        return self.d + self.rows

    def _checked(self, words: Words) -> Words:
        return np.concatenate([words, _by_row(self, words)])

    def check(self, x: Tensor) -> None:
        super().check(x)
        check_one(self._name, x, self.rows)


@dataclass(frozen=True)
class Bounded(Circuit):
    """Numbers from 0 to 2^bits − 1, sent as their bits.

    Args:
        d: as in `Circuit`, as are chunk and field.
        bits: of a number, 1 or more and fewer than p has.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits < self.field.q:
            raise InputError(f"{self._name}: bits={self.bits}; give 1 to {self.field.q - 1}")
        super().__post_init__()

    @property
    def sent(self) -> int:
        return self.d * self.bits

    @property
    def _most(self) -> int:
        return 2**self.bits - 1

    def _words(self, x: Words) -> Words:
        return ((x[:, None] >> np.arange(self.bits)[:, None]) & 1).reshape(self.d * self.bits, -1)

    def _checked(self, words: Words) -> Words:
        return words

    def _numbers(self, words: Words) -> Words:
        n = words.shape[1]
        bits = words[: self.d * self.bits].reshape(self.d, self.bits, n).swapaxes(0, 1).reshape(self.bits, -1)
        return self.field.combined([1 << b for b in range(self.bits)], [*bits]).reshape(self.d, n)


@dataclass(frozen=True)
class AtMostOneBounded(Bounded):
    """Numbers from 0 to 2^bits − 1 of which at most one in each row isn't 0: an agent's message is in its own group.

    With each number an indicator is sent. Bits b, indicators h, their sum and each h − b are 0 or 1, so that where h is
    0, so is each bit.

    Args:
        d: as in `Bounded`, as are bits, chunk and field.
        rows: as in `AtMostOne`.
    """

    rows: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        _check_rows(self)
        super().__post_init__()

    @property
    def sent(self) -> int:
        return self.d * (self.bits + 1)

    @property
    def checks(self) -> int:
        return self.d * (2 * self.bits + 1) + self.rows

    def _words(self, x: Words) -> Words:
        return np.concatenate([super()._words(x), (x != 0).astype(np.int64)])

    def _checked(self, words: Words) -> Words:
        bits, ones = np.split(words, [self.d * self.bits])
        beyond = less(self.field, np.repeat(ones, self.bits, axis=0), bits)
        return np.concatenate([words, beyond, _by_row(self, ones)])

    def check(self, x: Tensor) -> None:
        super().check(x)
        check_one(self._name, x, self.rows)


def _check_rows(circuit: AtMostOne | AtMostOneBounded) -> None:
    if circuit.rows < 1 or circuit.d % circuit.rows:
        raise InputError(
            f"{type(circuit).__name__}: {circuit.d} numbers aren't {circuit.rows} rows of as many each; give rows that "
            "divide them"
        )


def _by_row(circuit: AtMostOne | AtMostOneBounded, words: Words) -> Words:
    """The sums modulo p of each row's words (d, n), of shape (rows, n)."""
    rows = words.reshape(circuit.rows, circuit.d // circuit.rows, words.shape[1])
    return summed(circuit.field, rows.swapaxes(0, 1))
