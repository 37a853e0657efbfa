"""Agents' numbers in parts for helpers, each agent by itself, and a helper's sum of its parts."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from lpmppl.effects.internals.shares import SEED, Keystream

__all__ = ["Additive", "Parted", "expanded", "fresh", "total"]

_SOME = 2048


class Parted(ABC):
    """Many agents' numbers in parts for helpers."""

    slots: NDArray[np.uint32]
    seeds: NDArray[np.uint8]

    @abstractmethod
    def of(
        self, helper: int, rows: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.int64]]:
        """What a helper gets of some agents: slots, seeds and vectors."""


class Additive(Parted):
    r"""Many agents' numbers in parts for m helpers: additive shares modulo 2⁶⁴, with seeds of an agent's own.

    .. math:: x_i = v_i + \sum_{k=1}^{m-1} G(s_{ik}) \mod 2^{64}

    Helper i mod m has the vector v_i, so that all have as much to receive; the others have the seeds, in order.

    Args:
        values: x, of shape (n, d).
        slots: i, of shape (n,).
        helpers: m.
    """

    def __init__(self, values: NDArray[np.int64], slots: NDArray[np.uint32], helpers: int) -> None:
        self.slots, self.helpers = slots, helpers
        self.seeds = fresh(len(values), helpers - 1)
        self.vectors = np.array(values, "<i8")
        for first in range(0, len(values), _SOME):
            some = slice(first, first + _SOME)
            masks = expanded(self.seeds[some].reshape(-1, SEED), values.shape[1])
            self.vectors[some] -= masks.reshape(-1, helpers - 1, values.shape[1]).sum(1)

    def of(
        self, helper: int, rows: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint8], NDArray[np.int64]]:
        holder = self.slots % self.helpers
        at = np.flatnonzero(rows & (holder != helper))
        seeds = self.seeds[at, helper - (helper > holder[at]).astype(np.int64)]
        return self.slots[rows], seeds, self.vectors[rows & (holder == helper)]


def fresh(agents: int, each: int) -> NDArray[np.uint8]:
    """Seeds from the operating system, of shape (agents, each, 32)."""
    return np.frombuffer(secrets.token_bytes(SEED * agents * each), np.uint8).reshape(agents, each, SEED)


def expanded(seeds: NDArray[np.uint8], d: int) -> NDArray[np.int64]:
    """The first d words of each seed's keystream: seeds of shape (n, 32), words (n, d)."""
    out, raw = np.empty((len(seeds), d), "<i8"), seeds.tobytes()
    for i, row in enumerate(out):
        Keystream(raw[SEED * i : SEED * (i + 1)]).fill(row)
    return out


def total(seeds: NDArray[np.uint8], vectors: NDArray[np.int64], d: int) -> NDArray[np.int64]:
    """The sum modulo 2⁶⁴ of seeds' keystreams and vectors, of shape (d,)."""
    found = vectors.sum(0, dtype=np.int64)
    for first in range(0, len(seeds), _SOME):
        found = found + expanded(seeds[first : first + _SOME], d).sum(0)
    return found
