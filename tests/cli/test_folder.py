"""One run, one folder."""

from pathlib import Path

import pytest

from lpmppl.cli.folder import RunFolder
from lpmppl.errors import InputError


def test_two_processes_can_not_work_in_one_folder(tmp_path: Path) -> None:
    first = RunFolder.claim(tmp_path / "a", {"status": "running"})
    with pytest.raises(InputError, match="in use by another lpmppl"):
        RunFolder.reopen(tmp_path / "a")
    first.unlock()
    assert RunFolder.reopen(tmp_path / "a").record == {"status": "running"}


def test_an_abandoned_claim_removes_what_it_made_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    RunFolder.claim(tmp_path / "runs" / "x" / "y", {"status": "running"}).abandon()
    assert [p.name for p in tmp_path.rglob("*")] == ["runs"]
    RunFolder.claim(tmp_path / "runs", {"status": "running"}).abandon()
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_checkpoint_is_never_abandoned(tmp_path: Path) -> None:
    folder = RunFolder.claim(tmp_path / "a", {"status": "running"})
    folder.checkpoint.write_bytes(b"days of work")
    folder.abandon()
    assert folder.checkpoint.exists()
    assert RunFolder.reopen(tmp_path / "a").record["status"] == "running"


def test_the_record_grows(tmp_path: Path) -> None:
    folder = RunFolder.claim(tmp_path / "a", {"status": "running", "seed": 3})
    folder.write({"status": "done"})
    assert folder.record == {"status": "done", "seed": 3}
