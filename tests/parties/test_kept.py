"""Files that survive the end of a process at any moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpmppl.errors import InputError
from lpmppl.parties.kept import Journal, folder_of, replace
from tests.parties.parts import modes


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.data())
def test_a_journal_cut_anywhere_gives_the_records_that_are_whole(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("journal") / "parts"
    journal = Journal(path)
    ends = [0]
    for record in records:
        journal.append(record)
        ends.append(path.stat().st_size)
    journal.close()
    cut = data.draw(st.integers(0, ends[-1]))
    path.write_bytes(path.read_bytes()[:cut])
    kept = sum(end <= cut for end in ends[1:])
    again = Journal(path)
    assert list(again) == records[:kept]
    # What is written after the cut is read back too.
    again.append(b"more")
    again.close()
    assert list(Journal(path)) == [*records[:kept], b"more"]


def test_a_record_that_was_changed_ends_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "parts")
    journal.append(b"first")
    journal.append(b"second")
    journal.close()
    content = bytearray(journal.path.read_bytes())
    content[-1] ^= 1
    journal.path.write_bytes(content)
    assert list(Journal(journal.path)) == [b"first"]


def test_only_the_owner_can_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "state", b"me")
    journal = Journal(folder / "parts")
    journal.append(b"x")
    journal.close()
    replace(folder / "given", b"y")
    assert set(modes(folder).values()) == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_file_is_replaced_whole_and_nothing_is_left(tmp_path: Path) -> None:
    replace(tmp_path / "x", b"one")
    replace(tmp_path / "x", b"two")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"two"}


def test_a_folder_of_another_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path / "state", b"me")
    assert folder_of(tmp_path / "state", b"me") == tmp_path / "state"
    with pytest.raises(InputError, match="belongs to another session or party"):
        folder_of(tmp_path / "state", b"you")
    with pytest.raises(InputError, match="files of something else"):
        folder_of(tmp_path, b"me")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can't be used"):
        folder_of(tmp_path / "file", b"me")


def test_a_folder_whose_making_was_cut_off_is_used(tmp_path: Path) -> None:
    (tmp_path / ".owner.17.new").write_bytes(b"m")
    folder_of(tmp_path, b"me")
    assert modes(tmp_path) == {"owner": 0o600}
