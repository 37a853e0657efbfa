"""What becomes of files and command lines on the way, and what must hold whatever became of them.

A valid document is damaged by a few edits: of its bytes, of a table's cells and columns, of a JSON document's values.
Whoever reads it either succeeds or refuses on purpose, soon, and leaves no file behind.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import gzip
import io
import json
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from lpmppl.errors import LpmError

SECONDS = 20
"""Of computing, beyond which something hangs."""
PATIENCE = 240
"""Seconds by the wall's clock, on a machine with much else to do."""

CELLS = (
    "", ".", " ", "NaN", "nan", "inf", "-inf", "-1", "-0", "0", "1", "+1", " 1 ", "1.5", "1e5", "1e308", "1e309",
    "1e-400",
    "9" * 30, "9" * 400, "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1_000", "1,000", "0x10",
    "١٢", "½", "１２", "é", "\u2028", "\u202e", '"', '""', "a\nb", "\0", "\ufeff", "TRUE", "None", "=1+1", "2020-02-30",
    "0000-00-00", "0001-01-01", "9999-12-31", "29/02/2021", "1677-01-01", "2262-04-12", "01Jan2020", "20200301",
    "2020-03-01", "x" * 5000, "NYC", "3701", "US", "d", "2",
)  # fmt: skip
"""What may stand in a table's cell."""

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 2.5, 10**9, 2**31, 2**63 - 1, 2**63, 10**400, -(10**400), 1e308, float("nan"),
    float("inf"), "", "0", "nyc", "abc", "\0", "\ud800", "é", "x" * 300, "x" * 5000, "../..", "/dev/null", [], {}, [[]],
    [None], ["a"], [1, 2, 3], [["a", 1, 2]], {"a": 1}, {"beta": "x"}, {"": None}, "running", "done",
)  # fmt: skip
"""What may stand in a JSON document."""

PIECES = (
    b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n\n", b",", b'"', b"\x1f\x8b", b"PK\x03\x04",
    b"\x89HDF", b"<html>", b"{", b"[" * 3000, b"-", b"9" * 30, "é".encode("latin-1"), "é".encode(), b"\xed\xa0\x80",
    b"#", b";",
)  # fmt: skip
"""What may be put between bytes."""

Shown = Callable[[str, float], None]
"""Told a number that stands at the end of the report."""

places = st.floats(0.0, 1.0, exclude_max=True)

byte_edits = st.one_of(
    st.tuples(st.just("flip"), places, st.integers(1, 255)),
    st.tuples(st.just("cut"), places, st.just(0)),
    st.tuples(st.just("lose"), places, st.integers(1, 200)),
    st.tuples(st.just("twice"), places, st.integers(1, 2000)),
    st.tuples(st.just("zero"), places, st.integers(1, 64)),
    st.tuples(st.just("put"), places, st.sampled_from(PIECES)),
    st.tuples(
        st.sampled_from(["empty", "gzip", "bom", "crlf", "utf-16", "latin", "upside down"]), st.just(0.0), st.just(0)
    ),
)
table_edits = st.one_of(
    st.tuples(st.just("cell"), places, places, st.sampled_from(CELLS)),
    st.tuples(st.just("cells"), st.just(0.0), places, st.sampled_from(CELLS)),
    st.tuples(st.just("name"), st.just(0.0), places, st.sampled_from([*CELLS, "date", "Date", "value"])),
    st.tuples(st.sampled_from(["no column", "column twice", "swap columns"]), places, places, st.just("")),
    st.tuples(
        st.sampled_from(["no row", "row twice", "swap rows", "half a row", "more cells"]), places, places, st.just("")
    ),
)
value_edits = st.one_of(
    st.tuples(st.just("value"), places, st.sampled_from(VALUES)),
    st.tuples(st.sampled_from(["lose", "more", "wrap"]), places, st.just(None)),
)


def few(edits: st.SearchStrategy[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    """One to so many edits: damage that leaves the most of a document as it was."""
    return st.lists(edits, min_size=1, max_size=most)


def bytes_after(content: bytes, edits: Sequence[tuple[str, float, Any]]) -> bytes:
    """Bytes after edits."""
    for kind, place, by in edits:
        at = int(place * len(content))
        match kind:
            case "flip" if content:
                content = content[:at] + bytes([content[at] ^ by]) + content[at + 1 :]
            case "cut":
                content = content[:at]
            case "lose":
                content = content[:at] + content[at + by :]
            case "twice":
                content = content[: at + by] + content[at:]
            case "zero":
                content = content[:at] + bytes(min(by, len(content) - at)) + content[at + by :]
            case "put":
                content = content[:at] + by + content[at:]
            case "empty":
                content = b""
            case "gzip":
                content = gzip.compress(content)
            case "bom":
                content = b"\xef\xbb\xbf" + content
            case "crlf":
                content = content.replace(b"\n", b"\r\n")
            case "utf-16":
                content = content.decode("latin-1").encode("utf-16")
            case "latin":
                content = content.decode("latin-1").replace("0", "é", 1).encode("latin-1")
            case "upside down":
                content = b"\n".join(reversed(content.split(b"\n")))
    return content


def table_after(text: str, edits: Sequence[tuple[str, float, float, str]]) -> bytes:
    """A CSV table after edits of its rows, columns and cells."""
    rows = list(csv.reader(io.StringIO(text)))
    for kind, down, right, cell in edits:
        r = 1 + int(down * max(0, len(rows) - 1)) if len(rows) > 1 else 0
        if not rows or not rows[0]:
            break
        c = int(right * len(rows[0]))
        row = rows[r]
        match kind:
            case "cell" if c < len(row):
                row[c] = cell
            case "cells":
                for each in rows[1:]:
                    if c < len(each):
                        each[c] = cell
            case "name":
                rows[0][c] = cell
            case "no column":
                rows = [each[:c] + each[c + 1 :] for each in rows]
            case "column twice":
                rows = [[*each, each[c] if c < len(each) else ""] for each in rows]
            case "swap columns":
                rows = [[*each[c:], *each[:c]] for each in rows]
            case "no row":
                del rows[r]
            case "row twice":
                rows.insert(r, list(row))
            case "swap rows":
                rows[r], rows[-1] = rows[-1], rows[r]
            case "half a row":
                rows[r] = row[:c]
            case "more cells":
                row.append(cell)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def value_after(value: Any, edits: Sequence[tuple[str, float, Any]]) -> Any:
    """A JSON value after edits of what is anywhere within it."""
    value = copy.deepcopy(value)
    for kind, place, new in edits:
        spots = list(_spots(value))
        if not spots:
            value = new
            continue
        within, key = spots[int(place * len(spots))]
        match kind:
            case "value":
                within[key] = copy.deepcopy(new)
            case "lose":
                del within[key]
            case "more":
                if isinstance(within, dict):
                    within[f"{key} more"] = within[key]
                else:
                    within.append(within[key])
            case "wrap":
                within[key] = [within[key]]
    return value


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _spots(value[key])


def json_after(document: Any, edits: Sequence[tuple[str, float, Any]]) -> bytes:
    """The bytes of a JSON document after edits of its values."""
    return json.dumps(value_after(document, edits)).encode()


UNREADABLE = ("folder", "missing", "loop", "dangling", "empty")
"""What may be in a file's place."""


def put(path: Path, what: str) -> None:
    """Put something else in a file's place."""
    clear(path)
    match what:
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "dangling":
            path.symlink_to("nowhere")
        case "empty":
            path.write_bytes(b"")


def clear(path: Path) -> None:
    """Take away whatever is at a path."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


class Hang(BaseException):
    """Something took longer than anything may."""


@contextlib.contextmanager
def soon(computing: float = SECONDS, waiting: float = PATIENCE) -> Iterator[None]:
    """Raise `Hang` from what computes, or waits, for too long."""

    def stop(number: int, _: object) -> None:
        raise Hang(f"{signal.Signals(number).name}: it goes on for ever")

    before = {s: signal.signal(s, stop) for s in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, computing)
    signal.setitimer(signal.ITIMER_REAL, waiting)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for s, handler in before.items():
            signal.signal(s, handler)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything below a folder, with its size and when it was changed."""
    found = {}
    for entry in sorted(folder.rglob("*")):
        about = entry.lstat()
        found[str(entry.relative_to(folder))] = (about.st_size, about.st_mtime_ns) if not entry.is_dir() else (0, 0)
    return found


def read_or_refused(read: Callable[[], Any], folder: Path | None = None, one_line: bool = True) -> bool:
    """Whether a reader succeeds; if it doesn't, it refuses on purpose, in words, and nothing is left of it either way.

    Any other exception, a warning of numbers, a hang or a change among the files of `folder` fails the test.
    """
    before = listing(folder) if folder else {}
    try:
        with soon(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Of numbers that overflow, or are none.
            warnings.simplefilter("error", RuntimeWarning)
            read()
    except LpmError as refusal:
        said = str(refusal)
        assert said.strip(), repr(refusal)
        assert "Traceback" not in said
        assert not one_line or "\n" not in said, said
        well = False
    else:
        well = True
    if folder:
        assert listing(folder) == before
    return well


def fuzz(
    strategy: st.SearchStrategy[Any],
    check: Callable[[Any], None],
    many: int,
    shown: Shown,
    found: Sequence[Any] = (),
) -> int:
    """Check so many inputs: the same ones each time where they are few, others each time where they are many.

    Args:
        strategy: what they are drawn from.
        check: what must hold of one.
        many: how many.
        shown: told how many there were.
        found: inputs besides, of which something once broke.
    """
    count = 0

    def one(drawn: Any) -> None:
        nonlocal count
        check(drawn)
        count += 1

    settings = hypothesis.settings(
        max_examples=many,
        deadline=None,
        database=None,
        derandomize=many < MANY,
        print_blob=True,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    test = hypothesis.given(strategy)(one)
    for each in found:
        test = hypothesis.example(each)(test)
    try:
        settings(test)()
    finally:
        shown("inputs", count)
    return count


replaced = st.tuples(st.just(put), st.sampled_from(UNREADABLE))
"""Something else in the place of a file."""

of_bytes = st.tuples(st.just(bytes_after), few(byte_edits))
"""Damage to a file's bytes."""


def fuzz_file(
    path: Path,
    read: Callable[[], Any],
    many: int,
    shown: Shown,
    damage: st.SearchStrategy[Any],
    folder: Path | None = None,
    one_line: bool = True,
    found: Sequence[Any] = (),
) -> int:
    """Damage a file so many times, and read it.

    Args:
        path: the file, as it was written.
        read: reads it.
        many: how many times.
        shown: told how many there were.
        damage: what is done, and with what: `put`, or what makes bytes of the whole ones and that.
        folder: what reading must leave as it is, where it must.
        one_line: whether a refusal is one line.
        found: damage besides, of which something once broke.
    """
    whole = path.read_bytes()

    def check(drawn: tuple[Callable[..., Any], Any]) -> None:
        how, edits = drawn
        clear(path)
        if how is put:
            put(path, edits)
        else:
            path.write_bytes(how(whole, edits))
        read_or_refused(read, folder, one_line)

    return fuzz(damage, check, many, shown, found)


def fuzz_json(
    path: Path,
    read: Callable[[], Any],
    folder: Path | None,
    many: int,
    shown: Shown,
    one_line: bool = True,
) -> int:
    """Damage a kept JSON document so many times, its bytes or its values, or put something else there, and read it.

    Args:
        path: the document, as it was written.
        read: reads it.
        folder: what reading must leave as it is, where it must.
        many: how many.
        shown: told how many there were.
        one_line: whether a refusal is one line.
    """

    def values(whole: bytes, edits: Any) -> bytes:
        return json_after(json.loads(whole), edits)

    of_values = st.tuples(st.just(values), few(value_edits))
    return fuzz_file(path, read, many, shown, st.one_of(of_bytes, of_values, of_values, replaced), folder, one_line)


MANY = 100
"""From so many inputs on, they are others each time."""


def many(few_of_them: int, all_of_them: int) -> pytest.MarkDecorator:
    """Few inputs in every run of the tests, and as many as find something in the slow one."""
    return pytest.mark.parametrize("many", [few_of_them, pytest.param(all_of_them, marks=pytest.mark.slow)])


@contextlib.contextmanager
def no_network() -> Iterator[None]:
    """Within, nobody beyond this machine can be reached."""
    import socket

    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family in (socket.AF_INET, socket.AF_INET6) and host not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionRefusedError(111, f"tests reach nobody, and not {host}")
        connect(self, address)

    socket.socket.connect = refuse  # type: ignore[method-assign]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]
