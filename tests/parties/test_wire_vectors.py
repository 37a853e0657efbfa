"""The bytes of messages against those that Python's own integers give, kept as JSON for other implementations."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpmppl.parties.coordinator import ASK
from lpmppl.parties.helper import Helper
from lpmppl.parties.refusals import Refused
from lpmppl.parties.results import NOT_OPENED, OPENED, PENDING, Result
from lpmppl.parties.session import Session
from lpmppl.parties.terms import PLAIN, Rule, Terms
from lpmppl.parties.wire import Entry, Kind, Parts, entries_of, pack_entries, packed, unpacked
from tests.parties.parts import no_waiting_for_disks

__all__ = ["no_waiting_for_disks"]

VECTORS = Path(__file__).parent / "wire_vectors.json"
SESSION = Session(bytes(range(16)), 2, "sir-1", 3, {"bronx": 6, "queens": 5}, least=2, longest=64)
PROVED = Session(bytes(range(16)), 2, "sir-1", 3, {"bronx": 6, "queens": 5}, least=2, longest=64, proofs=True)
SHARING = bytes(range(100, 116))
NAMES = ["coordinator", "helper-0", "helper-1", "helper-2", "bronx", "queens"]
KINDS = [
    "PARTS",
    "TAKEN",
    "HOLDING",
    "HELD",
    "CLOSE",
    "SUM",
    "TOTAL",
    "DROP",
    "ASK",
    "RESULT",
    "CLOSED",
    "CHECK",
    "VERIFIED",
]
FIELDS = ["id", "version", "model", "helpers", "clients", "least", "deadline", "longest", "threshold", "proofs"]


def tag(of: Session) -> bytes:
    fields = {name: getattr(of, name) for name in FIELDS} | {"id": of.id.hex(), "clients": dict(of.clients)}
    text = json.dumps({**fields, "model": ""}, indent=1) + "\n"
    return hashlib.sha256(text.encode()).digest()[:16]


def le(x: int, size: int) -> bytes:
    return (x % 256**size).to_bytes(size, "little")


def message(kind: str, sender: str, recipient: str, round: int, d: int, body: bytes, of: Session = SESSION) -> bytes:
    head = b"LPMS" + le(2, 2) + le(KINDS.index(kind) + 1, 2) + le(72 + len(body), 4) + le(round, 4) + tag(of)
    head += hashlib.sha256(b"sir-1").digest() + le(NAMES.index(sender), 2) + le(NAMES.index(recipient), 2) + le(d, 4)
    return head + body


def terms(sigma: float = 0.0, rule: int = 0, bits: int = 0, rows: int = 1) -> bytes:
    return struct.pack("<d", sigma) + le(rule, 1) + le(bits, 1) + le(rows, 2)


def parts(slots: list[int], seeds: list[bytes], vectors: list[list[int]], said: bytes = terms()) -> bytes:
    counts = SHARING + le(len(slots), 4) + le(len(seeds), 4) + le(len(vectors), 4) + said
    return counts + b"".join(le(x, 8) for row in vectors for x in row) + b"".join(seeds + [le(s, 4) for s in slots])


def entry(client: str, d: int, slots: list[int], agents: int, said: bytes = terms()) -> bytes:
    bits = sum(1 << s for s in slots)
    return le(NAMES.index(client), 2) + bytes(2) + le(d, 4) + SHARING + said + le(bits, -(-agents // 8))


SEEDS = [bytes([k]) * 32 for k in (7, 8, 9)]
ONE, NOISED = terms(rule=2), terms(2.5)
GOOD = {
    "two numbers of bronx's agents 0, 1, 3 and 4 for helper 0": (
        *("PARTS", "bronx", "helper-0", 5, 2),
        parts([0, 1, 3, 4], SEEDS[:2], [[1, -1], [2**62, -(2**63)]]),
    ),
    "likewise with noise, for helper 1": (
        *("PARTS", "bronx", "helper-1", 5, 2),
        parts([0, 1, 3], SEEDS[:2], [[3, 4]], NOISED),
    ),
    "taken": ("TAKEN", "helper-0", "bronx", 5, 0, b""),
    "which of my slots do you have?": ("HOLDING", "queens", "helper-2", 5, 0, b""),
    "these": ("HELD", "helper-2", "queens", 5, 0, entry("queens", 2, [1, 4], 5)),
    "the round is closed": ("CLOSE", "coordinator", "helper-2", 5, 0, b""),
    "then this is here": (
        *("CLOSED", "helper-2", "coordinator", 5, 0),
        SEEDS[0] + entry("bronx", 2, [0, 5], 6, NOISED) + entry("queens", 2, [4], 5, NOISED),
    ),
    "check these proofs": (
        *("CHECK", "coordinator", "helper-2", 5, 0),
        b"".join(SEEDS) + entry("bronx", 2, [0, 2], 6, ONE),
    ),
    "verifiers of two agents": ("VERIFIED", "helper-2", "coordinator", 5, 0, b"".join(le(x, 8) for x in (1, 2, 3, 4))),
    "sum over these": (
        "SUM",
        "coordinator",
        "helper-2",
        5,
        2,
        entry("bronx", 2, [0, 5], 6) + entry("queens", 2, [4], 5),
    ),
    "the helper's sum": ("TOTAL", "helper-2", "coordinator", 5, 2, le(-1, 8) + le(2**63 - 1, 8)),
    "forget the round": ("DROP", "coordinator", "helper-2", 5, 0, b""),
    "what came of it? wait 1.5 s, I have sent all": (
        "ASK",
        "queens",
        "coordinator",
        5,
        0,
        le(1, 2) + bytes(2) + le(1500, 4),
    ),
    "nothing yet": ("RESULT", "coordinator", "queens", 5, 0, bytes(16) + b"the helpers are summing"),
    "a sum over three": (
        *("RESULT", "coordinator", "queens", 5, 2),
        le(1, 2) + bytes(6) + le(3, 8) + le(-2, 8) + le(9, 8) + le(0b100001, 1) + le(0b10000, 1),
    ),
    "no sum": ("RESULT", "coordinator", "queens", 5, 0, le(2, 2) + bytes(6) + le(0, 8) + b"too few"),
}

P0 = ("PARTS", "bronx", "helper-0", 0, 2)
FINE = parts([0, 1, 3, 4], SEEDS[:2], [[1, 2], [3, 4]])


def cut(at: int, by: bytes) -> bytes:
    whole = message(*P0, FINE)
    return whole[:at] + by + whole[at + len(by) :]


BAD: list[tuple[str, str, bytes]] = [
    ("a header that is cut off", "truncated", message(*P0, FINE)[:71]),
    ("a body that is cut off", "truncated", message(*P0, FINE)[:-1]),
    ("a byte too many", "truncated", message(*P0, FINE) + b"\0"),
    ("no counts", "truncated", message(*P0, FINE[:39])),
    ("another magic", "malformed", cut(0, b"LPMX")),
    ("version 1", "version", cut(4, le(1, 2))),
    ("another kind", "malformed", message("SUM", *P0[1:], FINE)),
    ("another session's tag", "session", cut(16, bytes(16))),
    ("another model's digest", "model", cut(32, bytes(32))),
    ("queens as the sender", "sender", message("PARTS", "queens", "helper-0", 0, 2, FINE)),
    ("nobody as the sender", "sender", cut(64, le(6, 2))),
    ("helper 1 as the recipient", "recipient", message("PARTS", "bronx", "helper-1", 0, 2, FINE)),
    ("a round to come", "early", message("PARTS", "bronx", "helper-0", 1, 2, FINE)),
    ("no numbers", "length", message("PARTS", "bronx", "helper-0", 0, 0, FINE)),
    ("more numbers than the session has", "length", message("PARTS", "bronx", "helper-0", 0, 65, FINE)),
    ("three numbers where vectors have two", "parts", message("PARTS", "bronx", "helper-0", 0, 3, FINE)),
    ("a vector where a seed belongs", "parts", message(*P0, parts([0, 1], [], [[1, 2], [3, 4]]))),
    ("no slots", "parts", message(*P0, parts([], [], []))),
    ("slots that decrease", "slots", message(*P0, parts([0, 3, 1, 4], SEEDS[:2], [[1, 2], [3, 4]]))),
    ("a slot twice", "slots", message(*P0, parts([0, 1, 1], SEEDS[:2], [[1, 2]]))),
    ("a slot that bronx doesn't have", "slots", message(*P0, parts([0, 7], SEEDS[:1], [[1, 2]]))),
    ("a rule that there isn't", "proof", message(*P0, parts([0], [], [[1, 2]], terms(rule=5)))),
    ("noise that is no number", "noise", message(*P0, parts([0], [], [[1, 2]], terms(float("nan"))))),
    ("negative noise", "noise", message(*P0, parts([0], [], [[1, 2]], terms(-1.0)))),
    ("numbers of 61 bits", "proof", message(*P0, parts([0], [], [[1, 2]], terms(rule=3, bits=61)))),
    ("rows that don't divide them", "proof", message(*P0, parts([0], [], [[1, 2]], terms(rule=2, rows=3)))),
    ("a proof that is cut off", "parts", message(*P0, parts([0], [], [[0] * 6], ONE))),
    ("a word that isn't modulo p", "range", message(*P0, parts([0], [], [[2**61 - 1] + [0] * 6], ONE))),
]


def written() -> str:
    found = {
        "sessions": [
            {"proofs": of.proofs, "tag": tag(of).hex(), "parties": NAMES, "clients": dict(of.clients)}
            for of in (SESSION, PROVED)
        ],
        "messages": [
            {"what": what, "kind": kind, "sender": sender, "recipient": recipient, "round": round, "d": d}
            | {"body": body.hex(), "message": message(kind, sender, recipient, round, d, body).hex()}
            for what, (kind, sender, recipient, round, d, body) in GOOD.items()
        ],
        "refused by helper 0 from bronx": [{"why": why, "reason": r, "message": m.hex()} for why, r, m in BAD]
        + [{"why": "nothing is proved", "reason": "proof", "proofs": True, "message": UNPROVED.hex()}],
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


UNPROVED = message(*P0, FINE, of=PROVED)


def stored(what: str) -> list[dict[str, Any]]:
    return json.loads(VECTORS.read_text())[what] if VECTORS.exists() else []


def test_the_vectors_on_disk_are_those_of_python_integers() -> None:
    assert VECTORS.read_text() == written(), "write them anew: PYTHONPATH=. python tests/parties/test_wire_vectors.py"


@pytest.mark.parametrize("case", stored("messages"), ids=lambda c: c["what"])
def test_messages_are_packed_and_unpacked_so(case: dict[str, Any]) -> None:
    kind, body = Kind[case["kind"]], bytes.fromhex(case["body"])
    made = packed(SESSION, kind, case["sender"], case["recipient"], case["round"], case["d"], body)
    assert made.hex() == case["message"]
    header, rest = unpacked(SESSION, made, kind, case["sender"], case["recipient"])
    assert (header.kind, header.round, header.sender, header.d) == (kind, case["round"], case["sender"], case["d"])
    assert bytes(rest) == body


def slots(agents: int, *at: int) -> Any:
    return np.isin(np.arange(agents), at)


def test_bodies_are_packed_and_unpacked_so() -> None:
    bodies = {what: body for what, (*_, body) in GOOD.items()}
    seeds = np.frombuffer(b"".join(SEEDS[:2]), np.uint8).reshape(2, 32)
    vectors = np.array([[1, -1], [2**62, -(2**63)]])
    at = np.array([0, 1, 3, 4], np.uint32)
    plain = bodies["two numbers of bronx's agents 0, 1, 3 and 4 for helper 0"]
    assert Parts.body(SHARING, at, seeds, vectors) == plain
    found = Parts.of(SESSION, memoryview(plain), 2, "bronx", 0)
    assert (found.sharing, found.terms, found.slots.tolist()) == (SHARING, PLAIN, at.tolist())
    assert (found.seeds.tolist(), found.vectors.tolist()) == (seeds.tolist(), vectors.tolist())
    noised = bodies["likewise with noise, for helper 1"]
    assert Parts.body(SHARING, at[:3], seeds, np.array([[3, 4]]), Terms(2.5)) == noised
    assert Parts.of(SESSION, memoryview(noised), 2, "bronx", 1).terms == Terms(2.5)
    for what, skip, entries in (
        ("these", 0, [Entry("queens", 2, SHARING, slots(5, 1, 4))]),
        ("sum over these", 0, [Entry("bronx", 2, SHARING, slots(6, 0, 5)), Entry("queens", 2, SHARING, slots(5, 4))]),
        ("check these proofs", 96, [Entry("bronx", 2, SHARING, slots(6, 0, 2), Terms(rule=Rule.AT_MOST_ONE))]),
    ):
        assert pack_entries(SESSION, entries) == bodies[what][skip:]
        again = entries_of(SESSION, bodies[what][skip:])
        assert [e.key for e in again] == [e.key for e in entries]
        assert all(np.array_equal(a.slots, b.slots) for a, b in zip(again, entries, strict=True))
    assert ASK.pack(1, 1500) == bodies["what came of it? wait 1.5 s, I have sent all"]
    for what, result in (
        ("nothing yet", Result(PENDING, 0, why="the helpers are summing")),
        ("no sum", Result(NOT_OPENED, 0, why="too few")),
        (
            "a sum over three",
            Result(OPENED, 2, 3, np.array([-2, 9]), {"bronx": slots(6, 0, 5), "queens": slots(5, 4)}),
        ),
    ):
        assert result.packed() == bodies[what]
        assert Result.of(SESSION, result.d, bodies[what]).packed() == bodies[what]


@pytest.mark.parametrize("case", stored("refused by helper 0 from bronx"), ids=lambda c: c["why"])
def test_bad_messages_are_refused_by_name(tmp_path: Path, case: dict[str, Any]) -> None:
    helper = Helper(PROVED if case.get("proofs") else SESSION, 0, tmp_path, most=10**6)
    with pytest.raises(Refused) as caught:
        helper.submit(bytes.fromhex(case["message"]), "bronx")
    assert caught.value.reason.value == case["reason"]
    assert helper.slots == 0
    helper.end()


if __name__ == "__main__":
    VECTORS.write_text(written())
