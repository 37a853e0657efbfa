"""Sets of agents, as entries of clients' slots: in batches, without some of them, and together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lpmppl.parties.wire import Entry

__all__ = ["batches", "invalid", "kept", "merged"]


def batches(entries: Sequence[Entry], size: int) -> Iterator[list[Entry]]:
    """The agents of entries in order, so many at a time."""
    batch: list[Entry] = []
    room = size
    for entry in entries:
        at = np.flatnonzero(entry.slots)
        while len(at):
            some, at = at[:room], at[room:]
            batch.append(entry._replace(slots=np.isin(np.arange(len(entry.slots)), some)))
            room -= len(some)
            if not room:
                yield batch
                batch, room = [], size
    if batch:
        yield batch


def kept(entries: Sequence[Entry], keep: NDArray[np.bool_]) -> list[Entry]:
    """Entries without the agents, in order, that aren't to be kept; those that are empty then stay."""
    found, first = [], 0
    for entry in entries:
        slots = entry.slots.copy()
        at = np.flatnonzero(slots)
        slots[at] = keep[first : first + len(at)]
        first += len(at)
        found.append(entry._replace(slots=slots))
    return found


def merged(entries: Sequence[Entry]) -> list[Entry]:
    """One entry of each client and sharing, without empty ones."""
    found: dict[tuple[object, ...], Entry] = {}
    for entry in entries:
        before = found.get(entry.key)
        found[entry.key] = entry if before is None else entry._replace(slots=before.slots | entry.slots)
    return [entry for entry in found.values() if entry.slots.any()]


def invalid(before: Sequence[Entry], after: Sequence[Entry]) -> dict[str, int]:
    """How many agents of each client were left out, of whom some were."""
    found: dict[str, int] = {}
    for sign, entries in ((1, before), (-1, after)):
        for entry in entries:
            found[entry.client] = found.get(entry.client, 0) + sign * int(entry.slots.sum())
    return {client: agents for client, agents in found.items() if agents}
