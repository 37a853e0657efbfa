"""`lpmppl simulate --ranks`: many processes, one answer, and one end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
CITY = ("simulate", "nyc", "--agents", "2000", "--days", "12", "--set", "initial_infected=0.05")


def test_any_number_of_ranks_gives_the_same_answer(lpm: Run, tmp_path: Path, environment: dict[str, str]) -> None:
    one = lpm(*CITY, "--json").json
    assert one["ranks"] == 1
    assert one["totals"]["infections"] > 20
    two = lpm(*CITY, "--ranks", "2", "--out", "two", "--json").json
    assert two["ranks"] == 2
    same = ("agents", "totals", "units", "set", "interventions", "days", "seed")
    assert {key: two[key] for key in same} == {key: one[key] for key in same}
    assert {path.name for path in (tmp_path / "two").iterdir()} >= {"results.nc", "report.html", "run.json"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "lpmppl"]
    started = subprocess.run(
        [*torchrun, *CITY, "--model", "seirm", "--json"],
        env={**environment, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    (line,) = [line for line in started.stdout.splitlines() if line.startswith("{")]
    assert f'"infections": {one["totals"]["infections"]}' in line
    assert '"ranks": 2' in line


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--ranks", "0"), "0"),
        (("--ranks", "5000"), "cores; give at most"),
        (("--ranks", "2", "--model", "pandemic", "--behaviour", "llm"), "a language model is told of everybody"),
        (("--ranks", "2", "--device", "cuda"), "ranks compute on the CPU"),
    ],
)
def test_what_ranks_can_not_do_is_refused_in_one_line(here: Run, more: tuple[str, ...], words: str) -> None:
    assert words in here(*CITY, *more).refused()


@pytest.mark.parametrize("command", ["counterfactual", "sensitivity", "calibrate"])
def test_commands_of_one_process_refuse_torchrun(here: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert f"`lpmppl {command}` runs in one process" in here(command, "nyc").refused()


def test_another_number_than_torchrun_has_started_is_refused(here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert "--ranks 2: torchrun has started 3" in here(*CITY, "--ranks", "2").refused()
    monkeypatch.delenv("WORLD_SIZE")
    assert here(*CITY[:4], "--days", "1", "--out", "alone", "--json").json["ranks"] == 1
    assert Path("alone/results.nc").exists()
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert "WORLD_SIZE='many' is no number of ranks" in here(*CITY, "--ranks", "2").refused()


def test_bad_input_is_refused_in_one_line_on_ranks_too(lpm: Run) -> None:
    assert "did you mean 'beta'" in lpm(*CITY, "--ranks", "2", "--set", "betta=1").refused()


def test_a_killed_run_goes_on_with_another_number_of_ranks(lpm: Run, start: Run, tmp_path: Path) -> None:
    asked = ("simulate", "nyc", "--agents", "2000", "--days", "150", "--set", "initial_infected=0.05")
    process = start(*asked, "--ranks", "2", "--out", "out", "--checkpoint-every", "3")
    eventually(lambda: len(list(tmp_path.glob("out/checkpoint.npz.*-of-2"))) == 2 and process.poll() is None)
    os.kill(children(process.pid)["1"], signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == 2
    on = lpm("simulate", "--resume", "out", "--ranks", "3", "--json").json
    assert (on["ranks"], on["totals"]) == (3, lpm(*asked, "--json").json["totals"])
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == {"results.nc", "report.html", "run.json"}
    assert "this run is done" in lpm("simulate", "--resume", "out", "--ranks", "2").refused()


def test_a_run_that_torchrun_starts_again_has_a_folder_of_the_same_run(
    here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, city = ("--days", "2", "--out", "out"), CITY[:4]
    Path("out").mkdir()
    Path("out/checkpoint.npz.5.0-of-2").touch()
    assert "isn't empty" in here(*city, *asked).refused()
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("TORCHELASTIC_RESTART_COUNT", "1")):
        monkeypatch.setenv(name, value)
    first = here(*city, *asked, "--json")
    assert first.err == "lpmppl: torchrun's restart 1: from day 0\n"
    assert {path.name for path in Path("out").iterdir()} == {"results.nc", "report.html", "run.json"}
    for more in (("--seed", "1"), ("--model", "sir")):
        assert "is of another run than torchrun has started again" in here(*city, *asked, *more).refused()
    again = here(*city, *asked, "--json")
    assert (again.code, again.out) == (0, "")
    assert again.err == "lpmppl: torchrun's restart 1: the run in out is done\n"
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "once")
    assert "TORCHELASTIC_RESTART_COUNT='once' is no number" in here(*city, *asked).refused()


@pytest.mark.slow
@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="processes are read in /proc")
def test_torchrun_goes_on_where_a_killed_worker_left(lpm: Run, tmp_path: Path, environment: dict[str, str]) -> None:
    asked = (
        "simulate",
        "nyc",
        "--model",
        "seirm",
        "--agents",
        "2000",
        "--days",
        "150",
        "--set",
        "initial_infected=0.05",
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.Popen(
        [*torchrun, "--max-restarts", "1", "-m", "lpmppl", *asked, "--out", "out", "--checkpoint-every", "3", "--json"],
        env={**environment, "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: (tmp_path / "out/checkpoint.npz").exists() and process.poll() is None)
        os.kill(children(process.pid)["1"], signal.SIGKILL)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "lpmppl: torchrun's restart 1: going on from the checkpoint in out" in err
    (line,) = [line for line in out.splitlines() if line.startswith("{")]
    assert json.loads(line)["totals"] == lpm(*asked, "--json").json["totals"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.nc", "report.html", "run.json"}


def children(pid: int) -> dict[str, int]:
    """The ranks that a process has started, by their number."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                given = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            found |= {x[5:].decode(): int(child) for x in given if x.startswith(b"RANK=")}
    return found


def eventually(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.02)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="processes are read in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_all_ranks_end_when_one_is_killed_or_the_run_is_told_to(start: Run, how: signal.Signals) -> None:
    process = start(*CITY[:4], "--days", "50000", "--ranks", "2")
    ranks = eventually(lambda: found if len(found := children(process.pid)) == 2 else None)
    # Both are in the run once they have used some seconds of the processor.
    eventually(lambda: all(int(Path(f"/proc/{pid}/stat").read_text().split()[13]) > 400 for pid in ranks.values()))
    began = time.monotonic()
    os.kill(ranks["1"] if how is signal.SIGKILL else process.pid, how)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 45
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values())
    if how is signal.SIGKILL:
        assert process.returncode == 2
        assert "lpmppl: rank 1 by SIGKILL was killed, and the run has ended with it" in err
        assert "Traceback" not in err
    else:
        assert process.returncode == (130 if how is signal.SIGINT else 128 + signal.SIGTERM)
