"""How a session's numbers are split and summed: additively among all helpers, or with a threshold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lpmppl.effects.internals.threshold import PRIME
from lpmppl.errors import InputError
from lpmppl.parties import splitting, thresholds
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import Session

__all__ = ["check_range", "check_size", "opened", "split", "total"]


def split(session: Session, values: NDArray[np.int64], slots: NDArray[np.uint32]) -> splitting.Parted:
    """Some agents' numbers, of shape (n, d), in parts for all helpers."""
    if session.threshold is None:
        return splitting.Additive(values, slots, session.helpers)
    return thresholds.Shamir(values, slots, session.helpers, session.threshold)


def total(session: Session, seeds: NDArray[np.uint8], vectors: NDArray[np.int64], d: int) -> NDArray[np.int64]:
    """A helper's sum of its parts, of shape (d,)."""
    return (splitting if session.threshold is None else thresholds).total(seeds, vectors, d)


def opened(session: Session, totals: Mapping[int, NDArray[np.int64]]) -> NDArray[np.int64]:
    """The sum that helpers' totals open.

    Raises:
        LpmError: where totals contradict one another, which can be seen with more of them than a threshold.
    """
    if session.threshold is None:
        return np.sum(list(totals.values()), axis=0, dtype=np.int64)
    return thresholds.opened(totals, session.threshold, session.helpers)


def check_size(session: Session, values: NDArray[np.int64]) -> None:
    """Refuse numbers whose sum over all agents might be beyond what a threshold's field holds."""
    most = (2**60 - 1) // sum(session.clients.values())
    if session.threshold is not None and bool((np.abs(values) > most).any() or (values == -(2**63)).any()):
        raise InputError(
            f"values are up to {max(-int(values.min()), int(values.max()))} in size: with a threshold and all these "
            f"agents they may be up to {most}; encode with bits=60"
        )


def check_range(session: Session, vectors: NDArray[np.int64]) -> None:
    """Refuse vectors that are no parts: with a threshold those are from 0 to 2⁶¹ − 2."""
    if session.threshold is not None and bool(((vectors < 0) | (vectors >= PRIME)).any()):
        raise Refused(Reason.RANGE, "a vector has numbers that are no parts; those are from 0 to 2⁶¹ − 2")
