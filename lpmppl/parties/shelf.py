"""The parts of one round that a helper holds, by client and slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lpmppl.effects.internals.validity import Circuit
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import Session
from lpmppl.parties.terms import Terms
from lpmppl.parties.wire import SEED, Entry, Parts

__all__ = ["Shelf"]

_MOST_SHARINGS = 64


class _Message(NamedTuple):
    parts: Parts
    taken: NDArray[np.bool_]
    """Which of its slots count: those that no earlier message had."""


class Shelf:
    """Parts by message, as they came: what is held is what was received."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._messages: dict[str, list[_Message]] = {}
        self._at: dict[str, NDArray[np.int32]] = {}
        self._form: dict[str, tuple[int, Terms]] = {}
        self._sharings: dict[str, set[bytes]] = {}
        self.nbytes = self.held = 0

    def new(self, client: str, parts: Parts) -> NDArray[np.bool_]:
        """Which of the message's slots aren't here, refusing other bytes for those that are."""
        d, terms = self._form.get(client, (parts.d, parts.terms))
        if d != parts.d:
            raise Refused(Reason.LENGTH, f"'{client}' has sent {d} numbers an agent in this round, and now {parts.d}")
        if terms != parts.terms:
            raise Refused(Reason.CONFLICT, f"'{client}' has sent {terms} in this round, and now {parts.terms}")
        at = self._where(client)[parts.slots]
        for i in np.flatnonzero(at >= 0):
            before = self._messages[client][at[i]].parts
            j = int(np.searchsorted(before.slots, parts.slots[i]))
            if before.sharing != parts.sharing or before.part(j) != parts.part(int(i)):
                raise Refused(Reason.CONFLICT, f"slot {parts.slots[i]} of '{client}' is here with other bytes")
        if len(self._sharings.get(client, set()) | {parts.sharing}) > _MOST_SHARINGS:
            raise Refused(
                Reason.CONFLICT, f"'{client}' has split its numbers anew {_MOST_SHARINGS} times; wait a round"
            )
        return at < 0

    def put(self, client: str, parts: Parts, new: NDArray[np.bool_], nbytes: int) -> None:
        """Keep a message, of which these slots are new."""
        mine = self._messages.setdefault(client, [])
        self._where(client)[parts.slots[new]] = len(mine)
        mine.append(_Message(parts, new))
        self._form[client] = parts.d, parts.terms
        self._sharings.setdefault(client, set()).add(parts.sharing)
        self.nbytes += nbytes
        self.held += int(new.sum())

    def entries(self, client: str | None = None) -> list[Entry]:
        """Whose parts are here, of one client or of all in the session's order."""
        found: dict[tuple[int, bytes], Entry] = {}
        for name in self._messages if client is None else [client]:
            for parts, taken in self._messages.get(name, []):
                key = self._session.places[name], parts.sharing
                if key not in found:
                    none = np.zeros(self._session.clients[name], bool)
                    found[key] = Entry(name, parts.d, parts.sharing, none, parts.terms)
                found[key].slots[parts.slots[taken]] = True
        return [found[key] for key in sorted(found)]

    def has(self, wanted: Sequence[Entry], d: int) -> bool:
        """Whether all slots of a set are here, of its sharings, with d numbers an agent on the same terms."""
        here = {entry.key: entry.slots for entry in self.entries()}
        return all(
            entry.d == d
            and entry.terms == wanted[0].terms
            and entry.key in here
            and not bool((entry.slots & ~here[entry.key]).any())
            for entry in wanted
        )

    def chosen(self, entries: Sequence[Entry], d: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The seeds and vectors of a set that is here."""
        wanted = {(entry.client, entry.sharing): entry.slots for entry in entries}
        words = entries[0].terms.words(d) if entries else d
        seeds, vectors = [np.empty((0, SEED), np.uint8)], [np.empty((0, words), np.int64)]
        for (client, sharing), slots in wanted.items():
            for parts, taken in self._messages[client]:
                if parts.sharing == sharing:
                    rows = slots[parts.slots] & taken
                    seeds.append(parts.seeds[rows[~parts.has_vector]])
                    vectors.append(parts.vectors[rows[parts.has_vector]])
        return np.concatenate(seeds), np.concatenate(vectors)

    def words(self, entry: Entry, circuit: Circuit) -> NDArray[np.int64]:
        """The words of an entry's agents, in slots' order: those that seeds give, and those that were sent."""
        at, rows = [np.empty(0, np.uint32)], [np.empty((0, circuit.words), np.int64)]
        for parts, taken in self._messages.get(entry.client, []):
            wanted = entry.slots[parts.slots] & taken
            if parts.sharing == entry.sharing and wanted.any():
                at.append(parts.slots[wanted])
                found = np.empty((int(wanted.sum()), circuit.words), np.int64)
                vector = parts.has_vector[wanted]
                seeds = torch.from_numpy(parts.seeds[wanted[~parts.has_vector]])
                found[vector] = parts.vectors[wanted[parts.has_vector]]
                found[~vector] = circuit.expanded(seeds).numpy()
                rows.append(found)
        return np.concatenate(rows)[np.argsort(np.concatenate(at))]

    def _where(self, client: str) -> NDArray[np.int32]:
        if client not in self._at:
            self._at[client] = np.full(self._session.clients[client], -1, np.int32)
        return self._at[client]
