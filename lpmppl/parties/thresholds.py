"""Parts of which any t of m helpers open the sum, so that helpers may be lost for good."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from lpmppl.effects.internals.shares import SEED, Keystream
from lpmppl.effects.internals.threshold import PRIME, Field
from lpmppl.effects.internals.threshold import opened as opened_with
from lpmppl.parties.splitting import Parted, fresh

__all__ = ["Shamir", "opened", "total"]

_FIELD = Field(61)
_HALF, _SOME = 31, 2048


class Shamir(Parted):
    """Many agents' numbers in parts for m helpers, as `lpmppl.effects.internals.threshold.shared` makes of one agent's.

    Helpers 0, …, t − 2 have a seed of each agent, the others a vector.

    Args:
        values: x, below 2⁶⁰ in size, of shape (n, d).
        slots: of shape (n,).
        helpers: m.
        threshold: t.
    """

    def __init__(self, values: NDArray[np.int64], slots: NDArray[np.uint32], helpers: int, threshold: int) -> None:
        self.slots, self._d, self._seeded = slots, values.shape[1], threshold - 1
        self.seeds = fresh(len(values), self._seeded)
        points = {0: np.where(values < 0, values + PRIME, values).reshape(-1)}
        for k in range(self._seeded):
            points[k + 1] = expanded(self.seeds[:, k], self._d).reshape(-1)
        self.vectors = [_FIELD.at(k + 1, points).reshape(values.shape) for k in range(self._seeded, helpers)]

    def of(
        self, helper: int, rows: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.int64]]:
        if helper < self._seeded:
            return self.slots[rows], self.seeds[rows, helper], np.empty((0, self._d), np.int64)
        return self.slots[rows], np.empty((0, SEED), np.uint8), self.vectors[helper - self._seeded][rows]


def expanded(seeds: NDArray[np.uint8], d: int) -> NDArray[np.int64]:
    """The first d numbers below the prime of each seed: seeds of shape (n, 32), numbers (n, d)."""
    out = np.empty((len(seeds), d), np.int64)
    for row, seed in zip(out, seeds, strict=True):
        row[:] = Keystream(seed.tobytes()).below(d, PRIME).view(np.int64)
    return out


def total(seeds: NDArray[np.uint8], vectors: NDArray[np.int64], d: int) -> NDArray[np.int64]:
    """A helper's total modulo the prime, of shape (d,)."""
    # In halves of 31 bits, whose sums over 2³¹ agents fit: whole numbers' sum wouldn't over five.
    low, high = np.zeros(d, np.int64), np.zeros(d, np.int64)
    batches = (expanded(seeds[i : i + _SOME], d) for i in range(0, len(seeds), _SOME))
    for some in itertools.chain([vectors], batches):
        low, high = low + (some & (2**_HALF - 1)).sum(0), high + (some >> _HALF).sum(0)
    return np.array([(int(a) + (int(b) << _HALF)) % PRIME for a, b in zip(low, high, strict=True)], np.int64)


def opened(totals: Mapping[int, NDArray[np.int64]], threshold: int, helpers: int) -> NDArray[np.int64]:
    """The sum that t helpers' totals or more open.

    Raises:
        LpmError: where more totals than t contradict one another.
    """
    given = {k: torch.from_numpy(of) for k, of in totals.items()}
    return opened_with(given, threshold, helpers).numpy()
