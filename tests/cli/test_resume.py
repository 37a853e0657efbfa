"""Killed or interrupted, a run goes on to the same numbers."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Start = Callable[..., subprocess.Popen[str]]
DAYS = "900"
SEEDED = ("--set", "initial_infected=0.01")
LONG = ("simulate", "nyc", "--agents", "2000", *SEEDED, "--days", DAYS, "--checkpoint-every", "2", "--json")


def stop_after_first_checkpoint(process: subprocess.Popen[str], folder: Path, how: signal.Signals) -> tuple[str, str]:
    """Signal a process as soon as it has written a checkpoint, and wait for its end."""
    until = time.monotonic() + 120
    while not (folder / "checkpoint.npz").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)
    process.send_signal(how)
    return process.communicate(timeout=60)


@pytest.fixture
def uninterrupted(here: Run) -> dict[str, float]:
    return here(*LONG).json["totals"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_numbers(
    here: Run, start: Start, tmp_path: Path, uninterrupted: dict[str, float], how: signal.Signals
) -> None:
    folder = tmp_path / "a"
    process = start(*LONG, "--out", "a")
    out, err = stop_after_first_checkpoint(process, folder, how)
    assert out == ""
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert err.splitlines() == ["lpmppl: interrupted; go on with: lpmppl simulate --resume a"]
    assert {p.name for p in folder.iterdir() if not p.name.startswith(".")} == {"checkpoint.npz", "run.json"}
    assert json.loads((folder / "run.json").read_text())["status"] == "running"

    found = here("simulate", "--resume", "a", "--json").json
    assert found["totals"] == uninterrupted
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "results.nc", "run.json"]
    assert "this run is done" in here("simulate", "--resume", "a").refused()


def interrupted_run(here: Run, folder: Path) -> dict[str, Any]:
    """A finished small run, set back to the moment before its end was recorded."""
    found = here("simulate", "--agents", "2000", *SEEDED, "--days", "9", "--out", str(folder), "--json").json
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
    return found


def test_killed_between_any_two_writes_nothing_is_lost(here: Run, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    expected = interrupted_run(here, folder)["totals"]
    for lost in (["report.html"], ["report.html", "results.nc"]):
        for name in lost:
            (folder / name).unlink(missing_ok=True)
        (folder / ".results.nc.part").write_text("half")
        (folder / ".checkpoint.npz.123").write_text("half")
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps({**record, "status": "running"}))
        assert here("simulate", "--resume", "a", "--json").json["totals"] == expected
        assert sorted(p.name for p in folder.iterdir()) == ["report.html", "results.nc", "run.json"]


def test_options_that_contradict_the_run_are_refused(here: Run, tmp_path: Path) -> None:
    interrupted_run(here, tmp_path / "a")
    refusals = {
        "agents 2000, not 3000": ["--agents", "3000"],
        "days 9, not 8": ["--days", "8"],
        "set initial_infected=0.01, not latent_mean=3": ["--set", "latent_mean=3"],
        "intervene none, not transmission=0.3@2": ["--intervene", "transmission=0.3@2"],
        "--out b out": ["--out", "b"],
    }
    for words, options in refusals.items():
        assert words in here("simulate", "--resume", "a", *options).refused()
    assert here("simulate", "nyc", "--resume", "a", "--agents", "2000", "--days", "9").code == 0


def test_a_damaged_checkpoint_is_refused_and_the_folder_kept(here: Run, tmp_path: Path) -> None:
    interrupted_run(here, tmp_path / "a")
    (tmp_path / "a" / "checkpoint.npz").write_bytes(b"PK\x03\x04 not a checkpoint")
    assert "checkpoint.npz" in here("simulate", "--resume", "a").refused()
    assert (tmp_path / "a" / "run.json").exists()


def test_a_run_on_a_saved_population_goes_on_with_it(here: Run, tmp_path: Path) -> None:
    here("population", "nyc", "--agents", "2000", "--out", "p.zarr")
    found = here("simulate", "--population", "p.zarr", *SEEDED, "--days", "9", "--out", "a", "--json").json
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["settings"]["agents"] == 2000
    (tmp_path / "a" / "run.json").write_text(json.dumps({**record, "status": "running"}))
    assert "population" in here("simulate", "--resume", "a", "--population", "q.zarr").refused()
    assert here("simulate", "--resume", "a", "--json").json["totals"] == found["totals"]


def test_a_done_run_that_lost_its_files_says_how_to_get_them_back(here: Run, tmp_path: Path) -> None:
    here("simulate", "--agents", "2000", "--days", "3", "--out", "a")
    assert "its report is a/report.html" in here("simulate", "--resume", "a").refused()
    (tmp_path / "a" / "report.html").unlink()
    assert "make it again with lpmppl report a" in here("simulate", "--resume", "a").refused()
    (tmp_path / "a" / "results.nc").unlink()
    assert "a/results.nc is gone: start anew with --out" in here("simulate", "--resume", "a").refused()


def test_a_run_on_other_data_is_refused(here: Run, tmp_path: Path) -> None:
    interrupted_run(here, tmp_path / "a")
    source = tmp_path / "a" / "run.json"
    record = json.loads(source.read_text())
    record["data"]["tables_sha256"] = "another"
    source.write_text(json.dumps(record))
    assert "have changed" in here("simulate", "--resume", "a").refused()


@pytest.mark.parametrize("seconds", [0.4, 0.7, 1.0, 3.0])
def test_ctrl_c_without_a_folder_says_that_nothing_is_kept(start: Start, tmp_path: Path, seconds: float) -> None:
    process = start("simulate", "nyc", "--agents", "2000", "--days", "100000")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert len(err.splitlines()) == 1
    assert "interrupted" in err
    assert list(tmp_path.iterdir()) == []
