"""Agents' numbers in parts with proofs that they are in their range, which helpers check without learning them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lpmppl.effects.internals.validity import Circuit
from lpmppl.parties.splitting import Additive

__all__ = ["NONCE", "Proven", "challenge", "opened", "total", "valid", "verifiers"]

NONCE = 32
"""The random bytes of each helper that make a challenge."""

_SOME = 2048


class Proven(Additive):
    """Many agents' numbers and proofs in parts for m helpers, as `Circuit.proved` makes them, modulo 2⁶¹ − 1.

    Args:
        values: x, of shape (n, d).
        slots: of shape (n,).
        helpers: m.
        circuit: what is proved.
    Raises:
        InputError: for numbers that aren't so.
    """

    def __init__(self, values: NDArray[np.int64], slots: NDArray[np.uint32], helpers: int, circuit: Circuit) -> None:
        self.slots, self.helpers = slots, helpers
        proved = circuit.proved(torch.from_numpy(np.ascontiguousarray(values)), helpers)
        self.seeds, self.vectors = proved.seeds.permute(1, 0, 2).numpy(), proved.vector.numpy()


def total(circuit: Circuit, seeds: NDArray[np.uint8], vectors: NDArray[np.int64]) -> NDArray[np.int64]:
    """A helper's sum of its parts modulo p, of shape (d,)."""
    parts = [part[i : i + _SOME] for part in (seeds, vectors) for i in range(0, len(part), _SOME)]
    sums = [circuit.added(circuit.measure(torch.tensor(part))) for part in parts]
    none = torch.zeros((1, circuit.d), dtype=torch.int64)
    return circuit.added(torch.stack(sums) if sums else none).numpy()


def opened(circuit: Circuit, totals: Mapping[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The sum that all helpers' totals open, int64 of shape (d,)."""
    return circuit.opened(torch.from_numpy(part) for part in totals.values()).numpy()


def challenge(tag: bytes, round: int, nonces: Sequence[bytes]) -> bytes:
    """What proofs of a round are checked with: nobody knows it while any helper still takes parts."""
    return hashlib.sha256(b"".join([tag, round.to_bytes(4, "little"), *nonces])).digest()


def verifiers(circuit: Circuit, words: NDArray[np.int64], challenge: bytes) -> NDArray[np.int64]:
    """A helper's share of what is opened to check agents' proofs: words of shape (n, w), verifiers (n, v)."""
    return circuit.verifier(torch.from_numpy(words), challenge).numpy()


def valid(circuit: Circuit, verifiers: Mapping[int, NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Of which agents the proofs hold, from all helpers' verifiers of shape (n, v)."""
    given = {k: torch.from_numpy(np.ascontiguousarray(of)) for k, of in verifiers.items()}
    return circuit.accepted(given, len(given)).numpy()
