"""Killed at any moment, a command leaves what can be gone on with, or nothing that looks like a result."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from datetime import date
from pathlib import Path

import pytest
import xarray as xr

from lpmppl.models.population import Population
from tests.hardening import documents
from tests.hardening.forks import Ended, Forks

SIMULATE = ["simulate", "nyc", "--model", "seirm", "--agents", "2000", "--days", "120", "--set",
            "initial_infected=0.01",
            "--checkpoint-every", "10"]  # fmt: skip
CALIBRATE = ["calibrate", "nyc", "--agents", "1000", "--coarse", "0", "--rounds", "2", "--simulations", "2", "--stream",
             "admissions", "--fit", "beta", "--data", "data.csv", "--until", "2020-03-04"]  # fmt: skip

WHOLE = ["report.html", "results.nc", "run.json"]
"""What a run that is done has in its folder."""


def some(few: int, all_of_them: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("times", [few, pytest.param(all_of_them, marks=pytest.mark.slow)])


def same(a: Path, b: Path) -> None:
    """Two results hold the same numbers."""
    with xr.open_datatree(a, engine="h5netcdf") as one, xr.open_datatree(b, engine="h5netcdf") as other:
        assert set(one.children) == set(other.children)
        for group in one.children:
            xr.testing.assert_identical(one[group].to_dataset(), other[group].to_dataset())


def record(folder: Path) -> str:
    """How far a run says that it got; nothing where it wasn't begun."""
    kept = folder / "run.json"
    return json.loads(kept.read_text(encoding="utf-8"))["status"] if kept.exists() else ""


def undisturbed(forks: Forks, folder: Path, line: list[str]) -> float:
    """Let a command run to its end, and give how long it took."""
    began = time.monotonic()
    ended = forks.run(folder, [*line, "--out", "whole"])
    assert ended.code == 0, ended
    return time.monotonic() - began


def killed(forks: Forks, folder: Path, line: list[str], seconds: float, how: int = signal.SIGKILL) -> Ended:
    running = forks.start(folder, line)
    time.sleep(seconds)
    if running.alive():
        running.signal(how)
    return running.end()


@some(1, 20)
def test_a_simulation_killed_at_any_moment_goes_on_to_the_same_numbers(
    forks: Forks, times: int, tmp_path: Path
) -> None:
    forks.run(tmp_path, [*SIMULATE[:6], "--days", "1"])
    lasts, chance, resumed = undisturbed(forks, tmp_path, SIMULATE), random.Random(times), 0
    for _ in range(times):
        folder = tmp_path / "a"
        shutil.rmtree(folder, ignore_errors=True)
        killed(forks, tmp_path, [*SIMULATE, "--out", "a"], chance.uniform(0.0, lasts))
        if (status := record(folder)) == "done":
            assert "this run is done" in forks.run(tmp_path, ["simulate", "--resume", "a"]).refused()
        else:
            line = ["simulate", "--resume", "a"] if status else [*SIMULATE, "--out", "a"]
            ended = forks.run(tmp_path, line)
            assert ended.code == 0, ended
            resumed += bool(status)
        assert sorted(p.name for p in folder.iterdir()) == WHOLE
        same(folder / "results.nc", tmp_path / "whole" / "results.nc")
    assert resumed or times < 20


@pytest.mark.slow
def test_a_simulation_killed_again_and_again_comes_to_its_end(forks: Forks, tmp_path: Path) -> None:
    lasts = undisturbed(forks, tmp_path, SIMULATE)
    line = [*SIMULATE, "--out", "a"]
    for _ in range(4):
        ended = killed(forks, tmp_path, line, lasts / 3)
        if (tmp_path / "a" / "run.json").exists():
            line = ["simulate", "--resume", "a"]
        if ended.code == 0:
            break
    if ended.code:
        assert forks.run(tmp_path, line).code == 0
    same(tmp_path / "a" / "results.nc", tmp_path / "whole" / "results.nc")


@pytest.mark.slow
@pytest.mark.parametrize("times", [20])
def test_a_calibration_killed_at_any_moment_goes_on_to_the_same_posterior(
    forks: Forks, times: int, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text(documents.by_day(8, date(2020, 2, 28)))
    lasts, chance, rounds = undisturbed(forks, tmp_path, CALIBRATE), random.Random(5), 0
    for _ in range(times):
        folder = tmp_path / "a"
        shutil.rmtree(folder, ignore_errors=True)
        killed(forks, tmp_path, [*CALIBRATE, "--out", "a"], chance.uniform(0.1 * lasts, 1.1 * lasts))
        if (status := record(folder)) == "done":
            assert "this run is done" in forks.run(tmp_path, ["calibrate", "--resume", "a"]).refused()
        else:
            rounds += (folder / "checkpoint.npz").exists()
            if not (folder / "results.nc").exists():
                assert "no result" in forks.run(tmp_path, ["report", "a"]).refused()
            ended = forks.run(tmp_path, ["calibrate", "--resume", "a"] if status else [*CALIBRATE, "--out", "a"])
            assert ended.code == 0, ended
        assert sorted(p.name for p in folder.iterdir()) == WHOLE
        same(folder / "results.nc", tmp_path / "whole" / "results.nc")
    assert rounds


@pytest.mark.slow
def test_a_calibration_killed_again_and_again_comes_to_its_end(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text(documents.by_day(8, date(2020, 2, 28)))
    undisturbed(forks, tmp_path, CALIBRATE)
    line, folder, kills = [*CALIBRATE, "--out", "a"], tmp_path / "a", 0
    # Each time as soon as one round more is kept.
    for _ in range(4):
        running, kept = forks.start(tmp_path, line), folder / "checkpoint.npz"
        before = kept.stat().st_mtime_ns if kept.exists() else 0
        while running.alive() and not (kept.exists() and kept.stat().st_mtime_ns > before):
            time.sleep(0.002)
        kills += running.alive()
        if running.alive():
            running.signal(signal.SIGKILL)
        if running.end().code == 0:
            break
        line = ["calibrate", "--resume", "a"]
    assert kills > 1
    if record(folder) != "done":
        assert forks.run(tmp_path, line).code == 0
    same(folder / "results.nc", tmp_path / "whole" / "results.nc")


ONCE = {
    "counterfactual": ["counterfactual", "nyc", "--model", "sir", "--agents", "1000", "--days", "20", "--do",
                       "transmission=0.5@1"],
    "sensitivity": ["sensitivity", "nyc", "--model", "sir", "--agents", "1000", "--days", "10", "--of", "infections",
                    "--wrt", "beta", "--draws", "2", "--no-audit"],
}  # fmt: skip


@pytest.mark.parametrize("what", ONCE)
@some(1, 12)
def test_what_keeps_nothing_until_it_is_done_is_begun_anew(forks: Forks, what: str, times: int, tmp_path: Path) -> None:
    line = ONCE[what]
    lasts, chance, begun = undisturbed(forks, tmp_path, line), random.Random(7), 0
    for k in range(times):
        folder = tmp_path / f"a{k}"
        killed(forks, tmp_path, [*line, "--out", folder.name], chance.uniform(0.1 * lasts, 0.9 * lasts))
        if not (folder / "results.nc").exists():
            if record(folder):
                begun += 1
                assert "can't be taken up again" in forks.run(tmp_path, ["simulate", "--resume", folder.name]).refused()
                assert "no result" in forks.run(tmp_path, ["report", folder.name]).refused()
            ended = forks.run(tmp_path, [*line, "--out", folder.name])
            assert ended.code == 0, ended
            assert sorted(p.name for p in folder.iterdir()) == WHOLE
        same(folder / "results.nc", tmp_path / "whole" / "results.nc")
    assert begun or times < 12


def test_only_what_is_lost_is_begun_anew(forks: Forks, tmp_path: Path) -> None:
    """Neither what is done, nor what can be taken up again, nor a folder in which there is something else."""
    line = [*ONCE["sensitivity"], "--out", "a"]
    folder = tmp_path / "a"
    folder.mkdir()
    lost: dict[str, object] = {"status": "running", "sensitivity": {}}
    for kept in ({**lost, "status": "done"}, {"status": "running"}, {"status": "running", "calibration": {}}, [], "x"):
        (folder / "run.json").write_text(json.dumps(kept))
        assert "isn't empty" in forks.run(tmp_path, line).refused()
        assert json.loads((folder / "run.json").read_text()) == kept
    (folder / "run.json").write_text(json.dumps(lost))
    (folder / "mine.txt").write_text("mine")
    assert "isn't empty" in forks.run(tmp_path, line).refused()
    (folder / "mine.txt").unlink()
    assert forks.run(tmp_path, line).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("times", [8])
def test_a_population_killed_while_it_is_built_is_built_again(forks: Forks, times: int, tmp_path: Path) -> None:
    line = ["population", "nyc", "--agents", "20000", "--seed", "7", "--out"]
    began, chance = time.monotonic(), random.Random(3)
    cache = forks.folder / "cache"
    assert forks.run(tmp_path, [*line, "whole.zarr"]).code == 0
    lasts = time.monotonic() - began
    whole = Population.open(tmp_path / "whole.zarr").dataset
    for _ in range(times):
        for entry in (*cache.glob("nyc-20000-7-*"), *tmp_path.glob("p.zarr")):
            shutil.rmtree(entry)
        killed(forks, tmp_path, [*line, "p.zarr"], chance.uniform(0.1 * lasts, lasts))
        if not (tmp_path / "p.zarr").exists():
            assert forks.run(tmp_path, [*line, "p.zarr"]).code == 0
        # When it was made may differ.
        xr.testing.assert_equal(Population.open(tmp_path / "p.zarr").dataset, whole)
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("p.zarr", "whole.zarr")] == []


@pytest.mark.parametrize(
    "line",
    [["population", "nyc", "--agents", "60000", "--out", "p.zarr"], [*SIMULATE, "--out", "a"]],
    ids=["population", "simulate"],
)
def test_ctrl_c_ends_with_130_and_one_line(forks: Forks, line: list[str], tmp_path: Path) -> None:
    ended = killed(forks, tmp_path, line, 0.5, signal.SIGINT)
    assert ended.code == 130, ended
    (said,) = ended.err.splitlines()
    assert "interrupted" in said
    assert not list(tmp_path.glob("*.partial")) and not (tmp_path / "p.zarr").exists()
