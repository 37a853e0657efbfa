"""What a helper does, apart from the network: keep parts, close rounds, and give one sum each."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpmppl.parties.arithmetic import check_range, total
from lpmppl.parties.kept import Journal, folder_of, replace
from lpmppl.parties.proofs import NONCE, challenge, verifiers
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import COORDINATOR, Session, helper_name
from lpmppl.parties.shelf import Shelf
from lpmppl.parties.wire import Entry, Kind, Parts, entries_of, packed, unpacked

__all__ = ["Helper"]

_DROPPED = bytes(32)


class Helper:
    """A helper of a session, whose state survives its process.

    In its folder are the journal of the open round, the bytes that it drew when that round was closed, the challenge
    that proofs were checked with, and, of the last round that is past, which set was summed and the sum. A round's
    parts are deleted as soon as that is written.

    Args:
        session: the session.
        index: k, from 0.
        state: the folder.
        most: bytes of parts that are held at once.
    Raises:
        InputError: for a folder that is another's.
    """

    def __init__(self, session: Session, index: int, state: str | Path, most: int) -> None:
        self.session, self.index, self.name, self.most = session, index, helper_name(index), most
        self.folder = folder_of(state, session.tag + session.digest + self.name.encode())
        given = {int(path.name.split("-")[1]): path for path in self.folder.glob("given-*")}
        self.round = max(given, default=-1) + 1
        for round, path in given.items():
            if round < self.round - 1:
                path.unlink()
        self._last = given[self.round - 1].read_bytes() if given else b""
        self._tidy()
        self.nonce, self._challenge = self._read("closed"), self._read("checked")
        self._shelf, self._journal = Shelf(session), Journal(self._path("parts"))
        for message in self._journal:
            self._shelve(message, session.parties[int.from_bytes(message[64:66], "little")])

    @property
    def nbytes(self) -> int:
        """Bytes of the messages that are held."""
        return self._shelf.nbytes

    @property
    def slots(self) -> int:
        """How many agents' parts are held."""
        return self._shelf.held

    def submit(self, message: bytes, client: str) -> int:
        """Take a client's parts, on disk when this returns; how many weren't there before.

        Raises:
            Refused: by name, and then nothing of the message is kept.
        """
        if client not in self.session.clients:
            raise Refused(Reason.ROLE, f"only clients submit parts, and '{client}' isn't one of the session")
        if len(message) > self.session.largest:
            raise Refused(Reason.OVERSIZED, f"{len(message)} bytes are more than {self.session.largest} a message")
        parts = self._parts(message, client)
        check_range(self.session, parts.vectors, parts.terms)
        new = self._shelf.new(client, parts)
        if not new.any():
            return 0
        if self.nbytes + len(message) > self.most:
            raise Refused(Reason.FULL, f"{self.name} holds {self.nbytes} bytes of {self.most}; wait, then send again")
        self._journal.append(message)
        self._shelf.put(client, parts, new, len(message))
        return int(new.sum())

    @property
    def closed(self) -> bool:
        """Whether the open round takes no more parts."""
        return bool(self.nonce)

    def held(self, round: int, client: str) -> list[Entry]:
        """Which of a client's own slots are here."""
        self._check_open(round)
        return self._shelf.entries(client)

    def close(self, round: int) -> list[Entry]:
        """Take no more parts of a round, and say whose are here; the same however often it is asked."""
        if round < self.round:
            raise Refused(
                Reason.LATE,
                f"{self.name} is done with round {round}, and round {self.round} is open; the coordinator has lost "
                "its state: start it with its own folder, or make a new session",
            )
        self._forward(round)
        if not self.closed:
            # Drawn when nothing can come any more, so that no client knows it while it proves.
            self.nonce = self._keep("closed", secrets.token_bytes(NONCE))
        return self._shelf.entries()

    def verify(self, round: int, body: bytes) -> NDArray[np.int64]:
        """The verifiers of agents' proofs, of shape (n, v), for one challenge a round: two would tell of the numbers.

        Raises:
            Refused: for a round that isn't closed, another challenge, or agents that aren't here or prove nothing.
        """
        self._check_closed(round)
        size = NONCE * self.session.helpers
        nonces = [body[i : i + NONCE] for i in range(0, size, NONCE)]
        if len(body) < size or nonces[self.index] != self.nonce:
            raise Refused(Reason.OTHER_CHALLENGE, f"the challenge isn't one that {self.name} has a part in")
        entries = entries_of(self.session, body[size:])
        d = entries[0].d if entries else 0
        circuit = entries[0].terms.circuit(d) if entries else None
        if circuit is None or not self._shelf.has(entries, d):
            raise Refused(Reason.NOT_HELD, f"{self.name} doesn't have proofs of all agents in the set")
        asked = challenge(self.session.tag, round, nonces)
        if self._challenge not in (b"", asked):
            raise Refused(Reason.OTHER_CHALLENGE, f"{self.name} has answered another challenge of round {round}")
        if not self._challenge:
            self._challenge = self._keep("checked", asked)
        return np.concatenate([verifiers(circuit, self._shelf.words(entry, circuit), asked) for entry in entries])

    def total(self, round: int, d: int, body: bytes) -> NDArray[np.int64]:
        """The sum of the parts over one set, which may then be asked for again, and no other.

        Raises:
            Refused: for a round that isn't closed, a second set, one not wholly here, or one below the session's least.
        """
        digest = hashlib.sha256(d.to_bytes(4, "little") + body).digest()
        if round == self.round - 1 and self._last:
            if self._last[:32] == digest:
                return np.frombuffer(self._last, "<i8", offset=32).astype(np.int64)
            raise Refused(
                Reason.OTHER_SET, f"{self.name} gives one sum a round: another set's would open the difference"
            )
        if round < self.round:
            raise Refused(Reason.LATE, f"{self.name} is done with round {round}, and round {self.round} is open")
        self._check_closed(round)
        entries = entries_of(self.session, body)
        agents = sum(int(entry.slots.sum()) for entry in entries)
        if agents < self.session.least:
            raise Refused(Reason.TOO_FEW, f"a sum over {agents} agents is over fewer than least={self.session.least}")
        if not self._shelf.has(entries, d):
            raise Refused(Reason.NOT_HELD, f"{self.name} doesn't have the parts of all {agents} agents in the set")
        found = total(self.session, *self._shelf.chosen(entries, d), d, entries[0].terms)
        self._give(digest + found.astype("<i8").tobytes())
        return found

    def drop(self, round: int) -> None:
        """Forget a round without a sum; one that is past stays as it is."""
        if round >= self.round:
            self._forward(round)
            self._give(_DROPPED)

    def end(self) -> None:
        """Close the files; what is held stays on disk."""
        self._journal.close()

    def _give(self, content: bytes) -> None:
        # The sum is on disk before the parts go: after a crash between the two it can still be given.
        replace(self._path("given"), content)
        self._last, self.round, self.nonce, self._challenge = content, self.round + 1, b"", b""
        self._shelf = Shelf(self.session)
        self._journal.close()
        self._tidy()
        self._journal = Journal(self._path("parts"))

    def _forward(self, round: int) -> None:
        """Go on to a later round, without a sum of those between: after a helper lost its state."""
        while self.round < round:
            self.round = round - 1
            self._give(_DROPPED)

    def _tidy(self) -> None:
        """Delete what belongs to rounds that are past."""
        for path in (path for what in ("parts", "closed", "checked") for path in self.folder.glob(f"{what}-*")):
            if int(path.name.split("-")[1]) < self.round:
                path.unlink()
        for path in self.folder.glob("given-*"):
            if int(path.name.split("-")[1]) < self.round - 1:
                path.unlink()

    def _parts(self, message: bytes, client: str) -> Parts:
        header, body = unpacked(self.session, message, Kind.PARTS, client, self.name)
        self._check_open(header.round)
        return Parts.of(self.session, body, header.d, client, self.index)

    def _shelve(self, message: bytes, client: str) -> None:
        header, body = unpacked(self.session, message, Kind.PARTS, client, self.name)
        parts = Parts.of(self.session, body, header.d, client, self.index)
        self._shelf.put(client, parts, self._shelf.new(client, parts), len(message))

    def _check_open(self, round: int) -> None:
        if round < self.round or (round == self.round and self.closed):
            raise Refused(Reason.LATE, f"round {round} is closed at {self.name}")
        if round > self.round:
            raise Refused(Reason.EARLY, f"round {round} isn't open yet at {self.name}, whose round is {self.round}")

    def _check_closed(self, round: int) -> None:
        if round != self.round or not self.closed:
            raise Refused(Reason.NOT_CLOSED, f"round {round} isn't closed at {self.name}, whose round is {self.round}")

    def _read(self, what: str) -> bytes:
        path = self._path(what)
        return path.read_bytes() if path.exists() else b""

    def _keep(self, what: str, content: bytes) -> bytes:
        replace(self._path(what), content)
        return content

    def _path(self, what: str) -> Path:
        return self.folder / f"{what}-{self.round:08d}"

    def answer(self, kind: Kind, recipient: str, round: int, d: int = 0, body: bytes = b"") -> bytes:
        """A message of this helper."""
        return packed(self.session, kind, self.name, recipient, round, d, body)

    def asked(self, kind: Kind, message: bytes, by: str) -> tuple[int, int, memoryview]:
        """The round, d and body of a request, which only the coordinator may make unless it is for one's own slots."""
        if kind is not Kind.HOLDING and by != COORDINATOR:
            raise Refused(Reason.ROLE, f"only the coordinator may send {kind.name}, and this is '{by}'")
        header, body = unpacked(self.session, message, kind, by, self.name)
        return header.round, header.d, body
