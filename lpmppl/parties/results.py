"""What a round came to, who is in its sum, and the coordinator's memory of both."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpmppl.errors import InputError
from lpmppl.parties.arithmetic import opened
from lpmppl.parties.kept import folder_of, replace
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import COORDINATOR, Session
from lpmppl.parties.terms import PLAIN, Terms
from lpmppl.parties.wire import Entry, bitmap, bits, entries_of, pack_entries

__all__ = ["Decision", "Memory", "Result", "chosen"]

_HEAD = struct.Struct("<H6xQ")
_D = struct.Struct("<I")
PENDING, OPENED, NOT_OPENED = range(3)


class Decision(NamedTuple):
    """Over whom a round is summed: entries with d numbers an agent, and helpers who have all of them; or why not."""

    d: int
    entries: Sequence[Entry]
    helpers: Sequence[int] = ()
    why: str = ""

    @property
    def terms(self) -> Terms:
        return self.entries[0].terms if self.entries else PLAIN

    @property
    def agents(self) -> int:
        return sum(int(entry.slots.sum()) for entry in self.entries)


class Result(NamedTuple):
    """What the coordinator says of a round: nothing yet, its sum, or that there is none and why."""

    status: int
    d: int
    included: int = 0
    total: NDArray[np.int64] = np.empty(0, np.int64)
    slots: dict[str, NDArray[np.bool_]] = {}
    why: str = ""

    def packed(self) -> bytes:
        """The body of a message."""
        head = _HEAD.pack(self.status, self.included)
        if self.status != OPENED:
            return head + self.why.encode()
        return b"".join([head, self.total.astype("<i8").tobytes(), *(bits(slots) for slots in self.slots.values())])

    @classmethod
    def of(cls, session: Session, d: int, body: memoryview | bytes) -> Result:
        """The result that a body holds."""
        if len(body) < _HEAD.size:
            raise Refused(Reason.TRUNCATED, f"a result has {_HEAD.size} bytes or more, not {len(body)}")
        status, included = _HEAD.unpack_from(body)
        rest = memoryview(body)[_HEAD.size :]
        if status not in (PENDING, OPENED, NOT_OPENED):
            raise Refused(Reason.MALFORMED, f"a result has no status {status}")
        if status != OPENED:
            return cls(status, d, why=bytes(rest).decode(errors="replace"))
        if len(rest) < 8 * d:
            raise Refused(Reason.TRUNCATED, f"a total of {d} numbers has {8 * d} bytes, not {len(rest)}")
        total, slots, first = np.frombuffer(rest, "<i8", d).astype(np.int64), {}, 8 * d
        for client, agents in session.clients.items():
            slots[client] = bitmap(rest[first : first + -(-agents // 8)], agents)
            first += -(-agents // 8)
        return cls(status, d, included, total, slots)

    @classmethod
    def summed(cls, session: Session, decision: Decision, totals: Mapping[int, NDArray[np.int64]]) -> Result:
        """The sum that helpers' totals open.

        Raises:
            LpmError: where they contradict one another.
        """
        slots = {client: np.zeros(agents, bool) for client, agents in session.clients.items()}
        for entry in decision.entries:
            slots[entry.client] |= entry.slots
        return cls(OPENED, decision.d, decision.agents, opened(session, totals, decision.terms), slots)


def chosen(session: Session, holdings: Mapping[int, Sequence[Entry]]) -> Decision:
    """The agents whose parts, of one sharing, length and terms, are with every helper that has closed the round.

    With a threshold, helpers that lack much are left out as long as there are enough: of the t with most parts or more,
    as many as have the most agents in common. Where clients differ in how many numbers an agent has, or on what terms,
    those count with whom the most agents agree: one client can't spoil a round for the others.
    """
    had = {k: sum(int(entry.slots.sum()) for entry in mine) for k, mine in holdings.items()}
    order = sorted(holdings, key=lambda k: -had[k])
    found = [_common(session, holdings, order[:n]) for n in range(session.needed, len(order) + 1)]
    best = max(reversed(found), key=lambda decision: decision.agents)
    said = ", ".join(f"helper {k} {had[k]}" for k in sorted(had))
    return enough(session, best, f"the parts of {best.agents} agents reached every helper ({said})")


def enough(session: Session, decision: Decision, what: str = "") -> Decision:
    """A decision, or that there are too few agents to open their sum."""
    if decision.agents >= session.least:
        return decision
    what = what or f"the numbers of {decision.agents} agents are proved to be valid"
    return Decision(0, (), (), f"{what}, fewer than {session.least}")


def _common(session: Session, holdings: Mapping[int, Sequence[Entry]], helpers: Sequence[int]) -> Decision:
    by_key = [{(session.places[e.client], e.sharing, e.d, e.terms): e for e in holdings[k]} for k in helpers]
    common: list[Entry] = []
    for key in sorted(set.intersection(*(set(mine) for mine in by_key))):
        slots = np.logical_and.reduce([mine[key].slots for mine in by_key])
        if slots.any():
            common.append(by_key[0][key]._replace(slots=slots))
    agents: dict[tuple[int, Terms], int] = {}
    for entry in common:
        form = entry.d, entry.terms
        agents[form] = agents.get(form, 0) + int(entry.slots.sum())
    d, terms = max(sorted(agents), key=agents.__getitem__, default=(0, PLAIN))
    return Decision(d, [entry for entry in common if (entry.d, entry.terms) == (d, terms)], sorted(helpers))


class Memory:
    """The coordinator's decisions and results on disk: what was decided before it is acted on, and all results.

    Args:
        session: the session.
        state: the folder.
    Raises:
        InputError: for a folder that is another's, or that lacks a result.
    """

    def __init__(self, session: Session, state: str | Path) -> None:
        self._session = session
        self.folder = folder_of(state, session.tag + session.digest + COORDINATOR.encode())
        self.rounds = len(list(self.folder.glob("result-*")))
        if self.rounds and not self._path("result", self.rounds - 1).exists():
            raise InputError(f"state folder {self.folder} lacks the result of a round; restore it")

    def decided(self, round: int) -> Decision | None:
        """What was decided for a round, if anything."""
        path = self._path("decided", round)
        if not path.exists():
            return None
        content = self._read(path)
        try:
            (d,), first = _D.unpack_from(content), _D.size + -(-self._session.helpers // 8)
            helpers = np.flatnonzero(bitmap(content[_D.size : first], self._session.helpers)).tolist()
            if d == 0:
                return Decision(0, (), helpers, content[first:].decode())
            return Decision(d, entries_of(self._session, content[first:]), helpers)
        except (Refused, UnicodeDecodeError) as e:
            raise InputError(f"{path} is damaged ({e}): put back a copy of it, or make a new session") from e

    def decide(self, round: int, decision: Decision) -> None:
        """Keep what is decided, before it is acted on."""
        rest = pack_entries(self._session, decision.entries) if decision.d else decision.why.encode()
        helpers = bits(np.isin(np.arange(self._session.helpers), decision.helpers))
        replace(self._path("decided", round), _D.pack(decision.d) + helpers + rest)

    def closing(self, round: int) -> bool:
        """Whether the round was being closed already."""
        return self._path("closing", round).exists()

    def close(self, round: int) -> None:
        """Keep that the round is being closed: whoever starts again doesn't wait for clients."""
        replace(self._path("closing", round), b"")

    def result(self, round: int) -> tuple[int, bytes]:
        """The d and body of a past round's result."""
        content = self._read(self._path("result", round))
        return int(_D.unpack_from(content)[0]), content[_D.size :]

    def keep(self, result: Result) -> None:
        """Keep the result of the next round."""
        replace(self._path("result", self.rounds), _D.pack(result.d) + result.packed())
        for what in ("decided", "closing"):
            self._path(what, self.rounds).unlink(missing_ok=True)
        self.rounds += 1

    def _read(self, path: Path) -> bytes:
        """What is kept in a file, which begins with d."""
        try:
            content = path.read_bytes()
        except OSError as e:
            raise InputError(f"{path} can't be read ({e.strerror or e}): restore it, or make a new session") from e
        if len(content) < _D.size:
            raise InputError(f"{path} is cut off: put back a copy of it, or make a new session")
        return content

    def _path(self, what: str, round: int) -> Path:
        return self.folder / f"{what}-{round:08d}"
