"""How a session's numbers are split and summed: additively among all helpers, with proofs, or with a threshold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lpmppl.effects.internals.discrete_gaussian import discrete_gaussian
from lpmppl.effects.internals.threshold import PRIME
from lpmppl.errors import InputError
from lpmppl.parties import proofs, splitting, thresholds
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import Session
from lpmppl.parties.terms import PLAIN, Terms

__all__ = ["check_range", "check_size", "opened", "split", "total"]


def split(
    session: Session, values: NDArray[np.int64], slots: NDArray[np.uint32], terms: Terms = PLAIN
) -> splitting.Parted:
    """Some agents' numbers, of shape (n, d), in parts for all helpers."""
    if session.threshold is not None:
        return thresholds.Shamir(values, slots, session.helpers, session.threshold)
    circuit = terms.circuit(values.shape[1])
    if circuit is None:
        return splitting.Additive(values, slots, session.helpers)
    return proofs.Proven(values, slots, session.helpers, circuit)


def total(
    session: Session, seeds: NDArray[np.uint8], vectors: NDArray[np.int64], d: int, terms: Terms = PLAIN
) -> NDArray[np.int64]:
    """A helper's sum of its parts, with its noise, of shape (d,)."""
    circuit = terms.circuit(d)
    if circuit is not None:
        found = proofs.total(circuit, seeds, vectors)
    else:
        found = (splitting if session.threshold is None else thresholds).total(seeds, vectors, d)
    if not terms.sigma:
        return found
    found = found + discrete_gaussian(terms.sigma, (d,)).numpy()
    return found if circuit is None else found % circuit.field.prime


def opened(session: Session, totals: Mapping[int, NDArray[np.int64]], terms: Terms = PLAIN) -> NDArray[np.int64]:
    """The sum that helpers' totals open.

    Raises:
        LpmError: where totals contradict one another, which can be seen with more of them than a threshold.
    """
    circuit = terms.circuit(len(next(iter(totals.values()))))
    if circuit is not None:
        return proofs.opened(circuit, totals)
    if session.threshold is None:
        return np.sum(list(totals.values()), axis=0, dtype=np.int64)
    return thresholds.opened(totals, session.threshold, session.helpers)


def check_size(session: Session, values: NDArray[np.int64], terms: Terms = PLAIN) -> None:
    """Refuse numbers whose sum over all agents might be beyond what the field of a threshold or of proofs holds."""
    most = (2**60 - 1) // sum(session.clients.values())
    in_field = session.threshold is not None or terms.rule
    if in_field and bool((np.abs(values) > most).any() or (values == -(2**63)).any()):
        raise InputError(
            f"values are up to {max(-int(values.min()), int(values.max()))} in size: with a threshold or proofs and "
            f"all these agents they may be up to {most}; encode with bits=60"
        )


def check_range(session: Session, vectors: NDArray[np.int64], terms: Terms = PLAIN) -> None:
    """Refuse vectors that are no parts: with a threshold or proofs those are from 0 to 2⁶¹ − 2."""
    in_field = session.threshold is not None or terms.rule
    if in_field and bool(((vectors < 0) | (vectors >= PRIME)).any()):
        raise Refused(Reason.RANGE, "a vector has numbers that are no parts; those are from 0 to 2⁶¹ − 2")
