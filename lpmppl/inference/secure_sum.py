"""Sums of what several have, of which none shows its part: numbers under masks that cancel in the sum."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lpmppl.errors import LpmError

__all__ = ["agreed", "masked", "opened"]

_ONE, _LARGEST = 2.0**40, 2.0**22
"""What a 1 is among the integers modulo 2⁶⁴, and the largest sum of sizes."""


def agreed(parties: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """A key for each pair of parties, which both of them have: by party and other party."""
    keys: dict[str, dict[str, bytes]] = {name: {} for name in parties}
    for k, one in enumerate(parties):
        for other in parties[k + 1 :]:
            keys[one][other] = keys[other][one] = secrets.token_bytes(32)
    return keys


def masked(values: np.ndarray, party: str, keys: Mapping[str, bytes], turn: int) -> np.ndarray:
    r"""A party's numbers under the masks that it shares with each of the others.

    .. math:: m_i = \lfloor 2^{40} x_i \rceil + \sum_{j > i} G(k_{ij}, t) - \sum_{j < i} G(k_{ij}, t) \mod 2^{64}

    with G the bytes of SHAKE-256. Without one of the keys it can't be told from uniform integers (Bonawitz et al., ACM
    CCS 2017; without what they do for parties that are lost on the way).

    Args:
        values: its numbers, below 4 million over the number of parties in size, shape (n,).
        party: its name.
        keys: its key with each of the others, by their names.
        turn: a number that was never used with these keys.
    Returns:
        uint64 of shape (n,).
    Raises:
        LpmError: for a number that is too large or none.
    """
    fit = np.abs(values) < _LARGEST / (len(keys) + 1)
    if not bool(fit.all()):
        raise LpmError(f"'{party}' has {values[~fit][0]:g} to sum, which is too large or none")
    found = np.rint(values.astype(np.float64) * _ONE).astype(np.int64).view(np.uint64)
    for other, key in keys.items():
        stream = hashlib.shake_256(key + turn.to_bytes(8, "little")).digest(8 * len(found))
        mask = np.frombuffer(stream, dtype="<u8")
        found = found + mask if other > party else found - mask
    return found


def opened(parts: Iterable[np.ndarray]) -> np.ndarray:
    """The sum of all parties' numbers, float64 of shape (n,), from what each of them sent.

    >>> keys = agreed(["a", "b", "c"])
    >>> opened(masked(np.array([x, 1.0]), name, keys[name], 0) for name, x in zip("abc", (0.5, -2.25, 4.0)))
    array([2.25, 3.  ])
    """
    total = np.stack(list(parts)).sum(0, dtype=np.uint64)
    return np.asarray(total.view(np.int64) / _ONE)
