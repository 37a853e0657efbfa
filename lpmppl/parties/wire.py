"""The bytes of messages, version 2, little-endian.

Every message, answers included, begins with a header of 72 bytes:

====== ===== ==========================================================================
offset bytes field
====== ===== ==========================================================================
0      4     "LPMS"
4      2     version
6      2     kind
8      4     length of the whole message
12     4     round
16     16    the session's tag
32     32    SHA-256 of the model's fingerprint
64     2     sender: its place among the session's parties
66     2     recipient, likewise
68     4     d, how many numbers an agent has in this round; 0 where it says nothing
====== ===== ==========================================================================

Then, by kind:

======== ============================================================================================
PARTS    sharing (16 random bytes), n slots, s seeds, v vectors (4 bytes each), terms (12); v × 8w bytes of
         vectors, s × 32 of seeds, n × 4 of slots in increasing order, vectors and seeds in slots' order.
         Helper k of m has the vector of slots with slot mod m = k, and seeds of the others; with a threshold t,
         helpers from t − 1 on have vectors of all and the others seeds. A vector has w = d words, or as many as the
         numbers and their proof take.
TAKEN    nothing: the answer to PARTS and DROP
HOLDING  nothing: which of my slots do you have?
CLOSE    nothing: take no more of this round, and say what you have
HELD     entries: client (2, its place among the parties), 2 zeros, d (4), sharing (16), terms (12), and a bitmap of its
         slots, ⌈n/8⌉ bytes, lowest bit first
CLOSED   32 random bytes, drawn when the round was closed, then entries as in HELD: the answer to CLOSE
CHECK    the 32 bytes of all helpers in order, then entries as in HELD: whose proofs to check
VERIFIED a verifier of each agent in the entries, in order: v words of 8 bytes
SUM      entries as in HELD: the set to sum over
TOTAL    8d bytes: the sum of the helper's parts, with its noise
DROP     nothing: forget this round
ASK      done (2: 1 where the client has sent what it will), 2 zeros, milliseconds to wait (4)
RESULT   status (2: 0 pending, 1 opened, 2 not opened), 2 zeros, 4 zeros, included (8); then the total, 8d bytes, and
         a bitmap of each client's slots in the session's order; or, where it isn't opened, text that says why
READ     learning (2: 1 where derivatives of it will follow), 2 zeros; 4d bytes of series of runs, float32 of shape
         (runs, series, days, features). Its round, as that of all kinds from here on, is a step of a split network
READING  4d bytes: what was read in them, float32 of shape (runs, series, width); the answer to READ and OWN
LEARN    4d bytes: the derivative of the loss with respect to what was read last
LENGTH   the length of the institution's gradient (float64): the answer to LEARN
STEP     the length of the whole network's gradient (float64)
STEPPED  nothing: the answer to STEP, once it is on disk
OWN      how many people the society has (8); 8d bytes of counts of runs, float64 of shape (runs, cells). What do you
         read in your own data? Asked once
======== ============================================================================================

*Terms* are the standard deviation of noise (8, floating point), the rule that is proved (1: 0 nothing, 1 each 0 or 1, 2
likewise and at most one of a row 1, 3 below 2^bits, 4 likewise and at most one of a row not 0), bits (1), rows (2).

A *sharing* names one splitting of numbers into parts. A client that starts anew splits anew, and parts of two
splittings don't add up: a slot counts only where all helpers have it of the same sharing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import VERSION, Session
from lpmppl.parties.terms import PLAIN, Terms
from lpmppl.parties.terms import SIZE as TERMS

__all__ = ["Entry", "Header", "Kind", "Parts", "bitmap", "bits", "entries_of", "pack_entries", "packed", "unpacked"]

HEADER = struct.Struct("<4sHHII16s32sHHI")
_PARTS = struct.Struct("<16sIII")
_HEAD = _PARTS.size + TERMS
_ENTRY = struct.Struct("<HxxI16s")
_MAGIC = b"LPMS"
SEED = 32


class Kind(IntEnum):
    """What a message is."""

    PARTS = 1
    TAKEN = 2
    HOLDING = 3
    HELD = 4
    CLOSE = 5
    SUM = 6
    TOTAL = 7
    DROP = 8
    ASK = 9
    RESULT = 10
    CLOSED = 11
    CHECK = 12
    VERIFIED = 13
    READ = 21
    READING = 22
    LEARN = 23
    LENGTH = 24
    STEP = 25
    STEPPED = 26
    OWN = 27


class Header(NamedTuple):
    """What a message says of itself: its kind, round, sender's name and numbers an agent."""

    kind: Kind
    round: int
    sender: str
    d: int


def packed(
    session: Session, kind: Kind, sender: str, recipient: str, round: int, d: int = 0, body: bytes = b""
) -> bytes:
    """A message of header and body."""
    length, numbers = HEADER.size + len(body), (session.places[sender], session.places[recipient])
    return HEADER.pack(_MAGIC, VERSION, kind, length, round, session.tag, session.digest, *numbers, d) + body


def unpacked(session: Session, message: bytes, kind: Kind, sender: str, recipient: str) -> tuple[Header, memoryview]:
    """A message's header and body, refused unless it is of this kind and session, and from the sender to the recipient.

    Args:
        session: of the recipient.
        message: all its bytes.
        kind: what is expected.
        sender: whose certificate it came with.
        recipient: who reads it.
    Raises:
        Refused: by name of what is wrong.
    """
    if len(message) < HEADER.size:
        raise Refused(Reason.TRUNCATED, f"{len(message)} bytes are fewer than the {HEADER.size} of a header")
    magic, version, number, length, round, tag, model, source, target, d = HEADER.unpack_from(message)
    if magic != _MAGIC:
        raise Refused(Reason.MALFORMED, "this isn't a message of lpmppl's parties")
    if version != VERSION:
        raise Refused(
            Reason.VERSION,
            f"the message has version {version}, and {recipient} speaks {VERSION}; take the same release of lpmppl",
        )
    if length != len(message):
        raise Refused(Reason.TRUNCATED, f"the message announces {length} bytes and has {len(message)}")
    if tag != session.tag:
        raise Refused(
            Reason.SESSION, f"the message is of another session than {recipient}'s; start all with the same file"
        )
    if model != session.digest:
        raise Refused(Reason.MODEL, f"{recipient} runs another model, '{session.model}'; run the same everywhere")
    parties = session.parties
    if source >= len(parties) or parties[source] != sender:
        claimed = f"'{parties[source]}'" if source < len(parties) else "nobody in the session"
        raise Refused(Reason.SENDER, f"the message says that it is from {claimed}, the certificate is of '{sender}'")
    if target >= len(parties) or parties[target] != recipient:
        raise Refused(Reason.RECIPIENT, f"the message is for another party than '{recipient}'")
    if number != kind:
        raise Refused(Reason.MALFORMED, f"a message of kind {number} was given where {kind.name} is expected")
    if d > session.longest:
        raise Refused(Reason.LENGTH, f"{d} numbers an agent are more than the session's longest={session.longest}")
    return Header(kind, round, sender, d), memoryview(message)[HEADER.size :]


class Parts(NamedTuple):
    """The parts of many agents for one helper: views on the message's bytes."""

    sharing: bytes
    d: int
    terms: Terms
    slots: NDArray[np.uint32]
    seeds: NDArray[np.uint8]
    vectors: NDArray[np.int64]
    has_vector: NDArray[np.bool_]

    @staticmethod
    def body(
        sharing: bytes,
        slots: NDArray[np.uint32],
        seeds: NDArray[np.uint8],
        vectors: NDArray[np.int64],
        terms: Terms = PLAIN,
    ) -> bytes:
        """The body of a message: slots of shape (n,), seeds (s, 32) and vectors (v, words)."""
        counts = _PARTS.pack(sharing, len(slots), len(seeds), len(vectors)) + terms.packed()
        arrays = vectors.astype("<i8", copy=False), seeds, slots.astype("<u4", copy=False)
        return b"".join([counts, *(x.tobytes() for x in arrays)])

    @classmethod
    def of(cls, session: Session, body: memoryview, d: int, client: str, helper: int) -> Parts:
        """The parts of a body, refused where they can't be a client's."""
        agents = session.clients[client]
        if d < 1:
            raise Refused(Reason.LENGTH, "0 numbers an agent were announced; give 1 or more")
        if len(body) < _HEAD:
            raise Refused(Reason.TRUNCATED, f"a body of {len(body)} bytes is shorter than the counts")
        sharing, n, seeds, vectors = _PARTS.unpack_from(body)
        terms = Terms.of(body[_PARTS.size : _HEAD])
        terms.check(session, d)
        words = terms.words(d)
        expected = _HEAD + 8 * words * vectors + SEED * seeds + 4 * n
        if n < 1 or n != seeds + vectors or len(body) != expected:
            raise Refused(
                Reason.PARTS,
                f"{n} slots, {seeds} seeds and {vectors} vectors of {words} were announced, and {len(body)} bytes "
                "given",
            )
        first = _HEAD + 8 * words * vectors
        at = np.frombuffer(body, "<u4", n, first + SEED * seeds)
        if bool((at[1:] <= at[:-1]).any()) or int(at[-1]) >= agents:
            raise Refused(Reason.SLOTS, f"slots must increase and be below {agents}, the client's number of agents")
        has_vector = session.gets_vector(at, helper)
        if int(has_vector.sum()) != vectors:
            raise Refused(Reason.PARTS, f"{vectors} vectors were given for {int(has_vector.sum())} slots that need one")
        return cls(
            sharing,
            d,
            terms,
            at,
            np.frombuffer(body, np.uint8, SEED * seeds, first).reshape(-1, SEED),
            np.frombuffer(body, "<i8", words * vectors, _HEAD).reshape(-1, words),
            has_vector,
        )

    def part(self, i: int) -> bytes:
        """The bytes of the i-th agent's part."""
        before = int(self.has_vector[:i].sum())
        return self.vectors[before].tobytes() if self.has_vector[i] else self.seeds[i - before].tobytes()


class Entry(NamedTuple):
    """Whose parts a helper has of one sharing, or a set asks for: Boolean over a client's slots."""

    client: str
    d: int
    sharing: bytes
    slots: NDArray[np.bool_]
    terms: Terms = PLAIN

    @property
    def key(self) -> tuple[str, int, bytes, Terms]:
        """What all helpers must have alike."""
        return self.client, self.d, self.sharing, self.terms


def pack_entries(session: Session, entries: Iterable[Entry]) -> bytes:
    """Entries as a body; equal sets in equal order have equal bytes."""
    heads = ((_ENTRY.pack(session.places[e.client], e.d, e.sharing) + e.terms.packed(), e) for e in entries)
    return b"".join(head + bits(e.slots) for head, e in heads)


def entries_of(session: Session, body: bytes | memoryview) -> list[Entry]:
    """The entries of a body, refused where they aren't of this session's clients, in order and each once."""
    found: list[Entry] = []
    parties, first, last = session.parties, 0, (0, b"")
    while first < len(body):
        if first + _ENTRY.size + TERMS > len(body):
            raise Refused(Reason.TRUNCATED, "the last entry is cut off")
        number, d, sharing = _ENTRY.unpack_from(body, first)
        if not session.helpers < number < len(parties) or (number, sharing) <= last:
            raise Refused(Reason.MALFORMED, "entries must be of the session's clients, in order and each once")
        first, last = first + _ENTRY.size + TERMS, (number, sharing)
        terms = Terms.of(body[first - TERMS : first])
        agents = session.clients[parties[number]]
        slots = bitmap(body[first : first + -(-agents // 8)], agents)
        first += -(-agents // 8)
        found.append(Entry(parties[number], d, sharing, slots, terms))
    return found


def bits(slots: NDArray[np.bool_]) -> bytes:
    """A Boolean array as bits, lowest first."""
    return np.packbits(slots, bitorder="little").tobytes()


def bitmap(content: bytes | memoryview, agents: int) -> NDArray[np.bool_]:
    """The Boolean array that `bits` has packed."""
    if len(content) != -(-agents // 8):
        raise Refused(Reason.TRUNCATED, f"a bitmap of {agents} slots has {-(-agents // 8)} bytes, not {len(content)}")
    return np.unpackbits(np.frombuffer(content, np.uint8), count=agents, bitorder="little").astype(bool)
