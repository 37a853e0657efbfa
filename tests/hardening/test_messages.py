"""Parties' messages and what parties keep, damaged on the way: read or refused by name, and nothing else."""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from lpmppl.parties.agreement import SplitAgreement
from lpmppl.parties.certificates import Credentials, issue
from lpmppl.parties.encoding import Encoding
from lpmppl.parties.floats import floats
from lpmppl.parties.kept import Journal
from lpmppl.parties.results import Decision, Memory, Result
from lpmppl.parties.session import COORDINATOR, Session
from lpmppl.parties.shelf import Shelf
from lpmppl.parties.society import Known
from lpmppl.parties.terms import PLAIN, Rule, Terms
from lpmppl.parties.wire import Entry, Kind, Parts, entries_of, pack_entries, packed, unpacked
from tests.hardening.strategies import (
    UNREADABLE,
    Shown,
    byte_edits,
    bytes_after,
    clear,
    few,
    fuzz,
    fuzz_file,
    fuzz_json,
    many,
    of_bytes,
    places,
    put,
    read_or_refused,
    replaced,
)
from tests.parties.parts import SHARING, messages, numbers, session

words = st.tuples(
    st.just("word"),
    st.tuples(places, st.sampled_from(["<B", "<H", "<I", "<Q", "<d"])),
    st.one_of(st.integers(0, 255), st.sampled_from([2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1])),
)


def after(content: bytes, edits: list[tuple[str, Any, Any]]) -> bytes:
    """A message after edits of its bytes and of whole fields; its header says how long it is then."""
    for edit in edits:
        if edit[0] != "word":
            content = bytes_after(content, [edit])
            continue
        _, (place, form), value = edit
        size = struct.calcsize(form)
        at = int(place * max(0, len(content) - size + 1))
        if len(content) >= size:
            new = struct.pack(form, value % 2 ** (8 * size) if form != "<d" else float(value))
            content = content[:at] + new + content[at + size :]
    if len(content) >= 12 and edits[-1][0] != "cut":
        content = content[:8] + struct.pack("<I", len(content)) + content[12:]
    return content


damage = few(st.one_of(words, words, byte_edits))


@many(30, 600)
@pytest.mark.parametrize("terms", [PLAIN, Terms(0.0, Rule.BOOLEANS), Terms(2.0), Terms(0.0, Rule.BOUNDED, 3)])
def test_a_damaged_upload(terms: Terms, many: int, shown: Shown) -> None:
    of = session(longest=4096)
    values = numbers(1, 6, 4) if terms.rule is Rule.NOTHING else torch.ones(6, 4, dtype=torch.int64)
    whole = messages(of, "bronx", values, terms=terms)[1]

    def read(content: bytes) -> None:
        shelf = Shelf(of)
        for message in (whole, content):
            header, body = unpacked(of, message, Kind.PARTS, "bronx", "helper-1")
            parts = Parts.of(of, body, header.d, "bronx", 1)
            shelf.put("bronx", parts, shelf.new("bronx", parts), len(message))
        found = shelf.entries()
        assert entries_of(of, pack_entries(of, found))
        shelf.chosen(found, header.d)

    fuzz(damage, lambda edits: _check(lambda: read(after(whole, edits))), many, shown)


def _check(read: Callable[[], Any]) -> None:
    read_or_refused(read, one_line=False)


@many(30, 600)
def test_damaged_entries(many: int, shown: Shown) -> None:
    of = session({"bronx": 60, "queens": 5})
    entries = [
        Entry("bronx", 4, SHARING, np.arange(60) % 3 == 0, Terms(2.0)),
        Entry("bronx", 4, bytes(range(1, 17)), np.arange(60) % 3 == 1, Terms(2.0)),
        Entry("queens", 4, SHARING, np.ones(5, bool), Terms(2.0)),
    ]
    whole = packed(of, Kind.SUM, COORDINATOR, "helper-0", 3, 4, pack_entries(of, entries))

    def read(content: bytes) -> None:
        _, body = unpacked(of, content, Kind.SUM, COORDINATOR, "helper-0")
        for entry in entries_of(of, body):
            entry.terms.check(of, entry.d)

    fuzz(damage, lambda edits: _check(lambda: read(after(whole, edits))), many, shown)


@many(30, 600)
@pytest.mark.parametrize("status", [0, 1, 2])
def test_a_damaged_result_of_a_round(status: int, many: int, shown: Shown) -> None:
    of = session()
    slots = {"bronx": np.ones(6, bool), "queens": np.zeros(5, bool)}
    total = np.arange(4)
    result = Result(status, 4, 6, total, slots) if status == 1 else Result(status, 4, why="too few: é")
    whole = packed(of, Kind.RESULT, COORDINATOR, "bronx", 3, 4, result.packed())

    def read(content: bytes) -> None:
        header, body = unpacked(of, content, Kind.RESULT, COORDINATOR, "bronx")
        found = Result.of(of, header.d, body)
        assert found.status in (0, 1, 2)

    fuzz(damage, lambda edits: _check(lambda: read(after(whole, edits))), many, shown)


@many(40, 800)
def test_damaged_numbers(many: int, shown: Shown) -> None:
    drawn = st.tuples(
        st.binary(max_size=200), st.sampled_from([(-1, 2), (3,), (2, 3), (1,)]), st.sampled_from(["<f4", "<f8"])
    )
    fuzz(drawn, lambda x: _check(lambda: floats(x[0], "numbers", x[1], x[2])), many, shown)


@many(40, 1500)
def test_a_damaged_session(many: int, tmp_path: Path, shown: Shown) -> None:
    path = tmp_path / "s.json"
    session(threshold=2).save(path)

    def read() -> None:
        of = Session.open(path)
        assert len(of.parties) == of.helpers + len(of.clients) + 1
        assert len(of.tag) == 16 and len(of.digest) == 32

    fuzz_json(path, read, tmp_path, many, shown, one_line=False)


@many(8, 500)
def test_damaged_certificates(many: int, tmp_path: Path, shown: Shown) -> None:
    issue(tmp_path, ["bronx", "queens"])
    whole = {
        name: (tmp_path / name).read_bytes() for name in ("ca.pem", "bronx.pem", "bronx.key", "ca.key", "queens.key")
    }

    def check(drawn: tuple[str, Any]) -> None:
        name, edits = drawn
        path = tmp_path / name
        clear(path)
        if isinstance(edits, str):
            put(path, edits)
        elif isinstance(edits, bytes):
            path.write_bytes(edits)
        elif isinstance(edits, tuple):
            head, *middle, foot = whole[name].splitlines()
            path.write_bytes(b"\n".join([head, b64encode(bytes_after(b64decode(b"".join(middle)), edits[0])), foot]))
        else:
            path.write_bytes(bytes_after(whole[name], edits))
        read_or_refused(lambda: Credentials(tmp_path, "bronx"), tmp_path, one_line=False)
        clear(path)
        path.write_bytes(whole[name])

    within = st.tuples(few(byte_edits))
    of = st.one_of(few(byte_edits), within, st.sampled_from(UNREADABLE), st.sampled_from(sorted(whole.values())))
    # A key on another curve, and a certificate of another version of X.509.
    found = [("bronx.key", [("flip", 0.25, 2)]), ("bronx.pem", ([("flip", 0.026, 4)],))]
    fuzz(st.tuples(st.sampled_from(["ca.pem", "bronx.pem", "bronx.key"]), of), check, many, shown, found)


@many(20, 700)
def test_what_the_coordinator_keeps(many: int, tmp_path: Path, shown: Shown) -> None:
    of, state = session(), tmp_path / "state"
    memory = Memory(of, state)
    slots = {"bronx": np.ones(6, bool), "queens": np.zeros(5, bool)}
    memory.keep(Result(1, 4, 6, np.arange(4), slots))
    memory.decide(1, Decision(4, [Entry("bronx", 4, SHARING, np.ones(6, bool))], [0, 1, 2]))
    memory.decide(2, Decision(0, (), (), "too few: é"))
    whole = {path.name: path.read_bytes() for path in state.iterdir()}

    def read() -> None:
        again = Memory(of, state)
        for round in range(again.rounds):
            d, body = again.result(round)
            Result.of(of, d, body)
        for round in (1, 2):
            again.decided(round)

    def check(drawn: tuple[str, Any]) -> None:
        name, edits = drawn
        clear(state)
        state.mkdir()
        for each, content in whole.items():
            (state / each).write_bytes(content)
        clear(state / name)
        if isinstance(edits, str):
            put(state / name, edits)
        else:
            (state / name).write_bytes(bytes_after(whole[name], edits))
        read_or_refused(read, tmp_path, one_line=False)

    of_files = st.one_of(few(byte_edits), st.sampled_from(UNREADABLE))
    fuzz(st.tuples(st.sampled_from(sorted(whole)), of_files), check, many, shown)


@many(30, 800)
def test_a_damaged_journal(many: int, tmp_path: Path, shown: Shown) -> None:
    """What was acknowledged last and is damaged is lost, what came before never is."""
    path = tmp_path / "parts"
    journal = Journal(path)
    records = [bytes([k]) * (10 * k) for k in range(6)]
    for record in records:
        journal.append(record)
    journal.close()
    whole = path.read_bytes()
    ends = np.cumsum([0, *(8 + len(r) for r in records)])

    def check(edits: Any) -> None:
        path.write_bytes(content := bytes_after(whole, edits))
        found: list[bytes] = []
        read_or_refused(lambda: found.extend(Journal(path)))
        same = next(
            (k for k, (a, b) in enumerate(zip(content, whole, strict=False)) if a != b), min(len(content), len(whole))
        )
        sound = int(np.searchsorted(ends, same, side="right")) - 1
        assert found[:sound] == records[:sound]
        again: list[bytes] = []
        read_or_refused(lambda: again.extend(Journal(path)), tmp_path)
        assert again == found

    fuzz(few(byte_edits), check, many, shown)


@many(15, 400)
def test_what_a_client_knew(many: int, tmp_path: Path, shown: Shown) -> None:
    path = tmp_path / "bronx.lived"
    Known({"infections": torch.ones(3, 2)}, torch.ones(4, 6, dtype=torch.bool), torch.arange(4), 9).save(path)
    fuzz_file(path, lambda: Known.open(path), many, shown, st.one_of(of_bytes, replaced), tmp_path)


@many(6, 200)
def test_what_an_institution_keeps_and_is_sent(many: int, tmp_path: Path, shown: Shown) -> None:
    from lpmppl.cli.party import two

    model, data = two(), {"infections": [1.0, 2.0, 3.0, 2.0]}
    terms = SplitAgreement({"hospitals": ["infections"], "registry": ["recoveries"]}, 4, 8, 0)
    of, state = terms.session(model, 2), tmp_path / "state"
    mine = Encoding(of, terms, "hospitals", model, data, state)
    features = torch.rand(4, len(mine.series), 4, mine._features)
    mine.learn(0, mine_read(mine, features))
    mine.step(0, struct.pack("<d", 1.0))
    whole = {path.name: path.read_bytes() for path in state.iterdir()}

    def check(drawn: tuple[str, Any, bytes]) -> None:
        name, edits, body = drawn
        clear(state)
        state.mkdir()
        for each, content in whole.items():
            (state / each).write_bytes(content)
        if edits is not None:
            clear(state / name)
            put(state / name, edits) if isinstance(edits, str) else (state / name).write_bytes(
                bytes_after(whole[name], edits)
            )

        def read() -> None:
            again = Encoding(of, terms, "hospitals", model, data, state)
            for act in (
                lambda: again.read(1, True, body),
                lambda: again.learn(1, body),
                lambda: again.step(1, body),
                lambda: again.own(1, body),
            ):
                _check(act)

        read_or_refused(read, one_line=False)

    of_files = st.one_of(st.none(), few(byte_edits), st.sampled_from(UNREADABLE))
    good = features.numpy().tobytes()
    bodies = st.one_of(st.binary(max_size=64), st.just(good), few(byte_edits).map(lambda e: bytes_after(good, e)))
    fuzz(st.tuples(st.sampled_from(sorted(whole)), of_files, bodies), check, many, shown)


def mine_read(mine: Encoding, features: torch.Tensor) -> bytes:
    """The bytes of a derivative of what it reads in these series."""
    return torch.ones_like(mine.read(0, True, features.numpy().tobytes())).numpy().tobytes()
