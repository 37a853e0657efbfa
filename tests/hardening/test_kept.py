"""What a run says of itself and what language models answered, damaged on the way: read, or refused on purpose."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from lpmppl.cli.folder import RunFolder
from lpmppl.cli.settings import Settings
from lpmppl.effects.language.answers import Answers
from lpmppl.errors import InputError
from tests.hardening.strategies import (
    Shown,
    byte_edits,
    bytes_after,
    clear,
    few,
    fuzz,
    fuzz_json,
    many,
    put,
    read_or_refused,
)

RECORD: dict[str, Any] = {
    "status": "running",
    "command": "lpmppl simulate",
    "created": "2026-01-01T00:00:00+00:00",
    "seed": 0,
    "settings": Settings(
        "nyc", "", "sir", 1_000, 3, 0, 0, "cpu", {"beta": 0.3}, (("transmission", 0.5, 1),), by=(("age", "age_band"),)
    ).record(),
    "versions": {"lpmppl": "0"},
    "calibration": {"data": "x.csv", "vintage": "", "until": "2020-03-03", "streams": ["admissions"], "fit": []},
    "data": {},
}


@many(25, 900)
def test_a_damaged_run(many: int, tmp_path: Path, shown: Shown) -> None:
    path = tmp_path / "run" / "run.json"
    path.parent.mkdir()
    path.write_text(json.dumps(RECORD))

    def read() -> None:
        for kind in ("", "calibration"):
            try:
                folder = RunFolder.reopen(path.parent, kind)
            except InputError:
                continue
            try:
                Settings.read(folder.record.get("settings", {}), "--resume run")
            finally:
                folder.unlock()
        Settings.read(RunFolder.seen(path.parent).record.get("settings", {}), "run")

    fuzz_json(path, read, tmp_path, many, shown)


@many(15, 500)
def test_damaged_answers(many: int, tmp_path: Path, shown: Shown) -> None:
    asked = ("model", "Do you go out?", ("yes", "no"))
    made = tmp_path / "made.sqlite"
    with Answers(made) as answers:
        for k in range(6):
            answers.keep(*asked, k, k % 2)
        answers.keep("model", "And now?", ("yes", "no"), 0, None)
        answers.keep_chances("exact", asked[1], asked[2], [0.25, 0.75])
    whole, path = made.read_bytes(), tmp_path / "answers.sqlite"
    cells = st.sampled_from(
        [None, "", "x", b"\xff", "[", "[]", "{}", '["a"]', "[0.5]", "[1e999, 1]", -1, 2, 2**40, 0.5, "[null, 1]"]
    )
    columns = st.sampled_from(
        ["answers.answer", "answers.ordinal", "chances.chances", "questions.model", "questions.options"]
    )

    def read() -> None:
        with Answers(path) as answers:
            answers.models()
            answers.known(*asked)
            answers.known_each("model", ["And now?", "What?"], ("yes", "no"))
            answers.exact("exact")
            found = answers.chances("exact", asked[1], asked[2])
            assert found is None or (len(found) == 2 and abs(sum(found) - 1) < 1e-6), found
            answers.keep("model", "And tomorrow?", ("yes", "no"), 0, 1)

    def check(drawn: tuple[str, Any]) -> None:
        how, edits = drawn
        for each in tmp_path.glob("answers.sqlite*"):
            clear(each)
        if how == "put":
            put(path, edits)
        elif how == "bytes":
            path.write_bytes(bytes_after(whole, edits))
        else:
            path.write_bytes(whole)
            with sqlite3.connect(path) as file:
                table, _, column = edits[0].partition(".")
                file.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (edits[1],))
            file.close()
        read_or_refused(read, one_line=False)

    drawn = st.one_of(
        st.tuples(st.just("bytes"), few(byte_edits)),
        st.tuples(st.just("cell"), st.tuples(columns, cells)),
        st.tuples(st.just("put"), st.sampled_from(["folder", "loop", "empty"])),
    )
    fuzz(drawn, check, many, shown, [("bytes", [("flip", 0.18359375, 128)])])
