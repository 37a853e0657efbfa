"""Full disks, folders that can't be written or are gone, clocks that jump, and two runs in one folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

import lpmppl as lpm
from lpmppl.data import nyc as builder
from lpmppl.data import store
from lpmppl.errors import InputError, LpmError
from lpmppl.report import datatree
from lpmppl.report.atomic import replacing
from tests.hardening.forks import Forks
from tests.hardening.test_commands import ended
from tests.hardening.test_kills import SIMULATE, same

SMALL = ["--model", "sir", "--agents", "1000", "--days", "4"]
WRITERS: dict[str, list[str]] = {
    "simulate": ["simulate", "nyc", *SMALL, "--out", "{}/a"],
    "counterfactual": ["counterfactual", "nyc", *SMALL, "--do", "transmission=0.5@1", "--out", "{}/a"],
    "population": ["population", "nyc", "--agents", "1000", "--out", "{}/p.zarr"],
    "people": ["party", "people", "--agents", "1000", "--out", "{}/people"],
    "session": ["party", "session", "--client", "bronx=20", "--out", "{}/s.json"],
    "certificates": ["party", "certificates", "--session", "s.json", "--out", "{}/c"],
}
"""Commands that write, each in a folder."""


@pytest.fixture
def here(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.set_num_threads(1)
    cache = tmp_path_factory.getbasetemp() / "disk-cache"
    monkeypatch.setenv("LPMPPL_CACHE", str(cache))
    monkeypatch.setattr("sys.argv", ["lpmppl"])
    monkeypatch.chdir(tmp_path)
    lpm.nyc.population(1_000)
    ended(["party", "session", "--client", "bronx=20", "--out", "s.json"])
    return tmp_path


Mount = Callable[[str], None]


@pytest.fixture
def disk(here: Path) -> Iterator[tuple[Path, Mount]]:
    """A disk of its own, and what mounts it anew with other options."""
    place = here / "disk"
    place.mkdir()

    def mount(options: str) -> None:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, check=False)
        if made.returncode:
            pytest.skip(f"needs a mount: {made.stderr.decode().strip()}")

    try:
        mount("size=2m,mode=700")
    except FileNotFoundError:
        pytest.skip("needs mount")
    yield place, lambda options: mount(f"remount,{options}")
    os.chdir("/")
    subprocess.run(["umount", "-l", place], check=False)


def refused(line: list[str], where: str) -> str:
    """The one line with which a command is refused, that leaves nothing behind."""
    code, out, err = ended([word.format(where) for word in line])
    assert code == 2, (code, out, err)
    (said,) = [each for each in err.splitlines() if not each.startswith("lpmppl: warning: ")]
    assert said.startswith("lpmppl: ") and "Traceback" not in err
    return said


@pytest.mark.parametrize(
    "what", [w if w != "counterfactual" else pytest.param(w, marks=pytest.mark.slow) for w in WRITERS]
)
def test_a_full_disk(what: str, disk: tuple[Path, Mount]) -> None:
    place, mount = disk
    mount("size=4k")
    (place / "filler").write_bytes(bytes(4_096))
    refused(WRITERS[what], "disk")
    left = sorted(p.name for p in place.rglob("*"))
    assert left in (["filler"], ["c", "filler"]), left
    mount("size=64m")
    assert ended([word.format("disk") for word in WRITERS[what]])[0] == 0


@pytest.mark.parametrize("what", WRITERS)
def test_a_disk_that_is_read_only(what: str, disk: tuple[Path, Mount]) -> None:
    place, mount = disk
    mount("ro")
    said = refused(WRITERS[what], "disk")
    assert "disk" in said
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("bytes_at_most", [0, 5_000])
def test_files_that_may_not_grow(bytes_at_most: int, here: Path) -> None:
    resource = pytest.importorskip("resource", reason="needs limits on the size of files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for what in ("simulate", "population") if bytes_at_most else WRITERS:
        line = [word.format(".") for word in WRITERS[what]]
        before = sorted(p.name for p in here.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(bytes_at_most, 0), limits[1]))
        try:
            from lpmppl.cli.app import invoke

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                code = invoke(line)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        left = [p.name for p in here.iterdir() if p.name not in before]
        assert code == 2 or (code == 0 and what == "population"), what
        assert left == (["p.zarr"] if code == 0 else []) or left == ["c"], left
        for name in left:
            shutil.rmtree(here / name)


def test_a_disk_that_fills_in_mid_run_costs_nothing_that_was_kept(disk: tuple[Path, Mount], here: Path) -> None:
    place, mount = disk
    whole = [word.format(".") for word in WRITERS["simulate"]]
    assert ended(whole)[0] == 0
    # The record and a checkpoint have room, the result hasn't.
    mount("size=60k")
    line = [*WRITERS["simulate"], "--checkpoint-every", "1"]
    assert "can't write" in refused(line, "disk")
    assert (place / "a" / "checkpoint.npz").exists()
    mount("size=64m")
    code, _, err = ended(["simulate", "--resume", "disk/a"])
    assert code == 0, err
    same(place / "a" / "results.nc", here / "a" / "results.nc")


def test_a_full_disk_leaves_a_network_and_a_result_as_they_were(disk: tuple[Path, Mount], here: Path) -> None:
    place, mount = disk
    mount("size=200k")
    people = lpm.nyc.population(1_000)
    tree = lpm.run(lpm.nyc.sir(people), days=3)
    path = datatree.save(tree, place / "results.nc")
    before = path.read_bytes()
    (place / "filler").write_bytes(bytes(200_000 - len(before) - 16_384))
    with pytest.raises(InputError, match="can't write"):
        datatree.save(tree, path)
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="can't be written"):
        store.save(builder.build(1_000, 0), place / "p.zarr")
    assert sorted(p.name for p in place.iterdir()) == ["filler", "results.nc"]


def test_a_cache_that_cannot_be_written_costs_a_warning(
    disk: tuple[Path, Mount], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, mount = disk
    mount("ro")
    monkeypatch.setenv("LPMPPL_CACHE", str(place / "cache"))
    with pytest.warns(UserWarning, match="not kept in the cache"):
        assert lpm.nyc.population(1_000).size == 1_000


def test_what_is_no_file_is_never_replaced(here: Path) -> None:
    os.mkfifo(here / "pipe")
    with pytest.raises(InputError, match="is no file"), replacing(here / "pipe") as part:
        part.write_text("x")
    assert not (here / "pipe").is_file() and sorted(p.name for p in here.iterdir()) == ["pipe", "s.json"]


class Jumping:
    """A clock that goes back an hour, or on a year, each time that it is read."""

    def __init__(self) -> None:
        self.reads = 0

    def time(self) -> float:
        self.reads += 1
        return 1.8e9 + (-3_600 * self.reads if self.reads % 2 else 3.2e7 * self.reads)

    def now(self, tz: object = None) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.time() - 1.8e9)


def test_a_clock_that_jumps_changes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ended(["simulate", "nyc", *SMALL, "--json", "--out", "a"])
    clock = Jumping()
    monkeypatch.setattr(time, "time", clock.time)
    jumped = ended(["simulate", "nyc", *SMALL, "--json", "--out", "b"])
    (one, other) = (json.loads(x[1]) for x in (plain, jumped))
    assert one["totals"] == other["totals"]
    assert other["seconds"] >= 0 and other["population_seconds"] >= 0


def test_nothing_waits_by_the_clock_on_the_wall() -> None:
    """A wall's clock may be set while something waits: deadlines are on the monotonic one."""
    root = Path(lpm.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        if re.search(r"\btime\.time\(|\butcnow\(", path.read_text(encoding="utf-8")):
            found.add(path.relative_to(root).as_posix())
    # A server's Retry-After may be a date, and files have theirs, which say when by that clock.
    assert found <= {"effects/language/client.py", "data/together.py"}


@pytest.mark.slow
def test_two_runs_begun_in_one_folder_are_one(forks: Forks, tmp_path: Path) -> None:
    assert forks.run(tmp_path, [*SIMULATE, "--out", "whole"]).code == 0
    for _ in range(2):
        both = [forks.start(tmp_path, [*SIMULATE, "--out", "a"]) for _ in range(2)]
        first, second = sorted((each.end() for each in both), key=lambda x: x.code)
        assert first.code == 0, (first, second)
        said = second.refused()
        assert "isn't empty" in said or "in use by another lpmppl" in said
        same(tmp_path / "a" / "results.nc", tmp_path / "whole" / "results.nc")
        assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["report.html", "results.nc", "run.json"]
        shutil.rmtree(tmp_path / "a")


@pytest.mark.slow
def test_a_run_is_not_taken_up_while_it_goes_on(forks: Forks, tmp_path: Path) -> None:
    assert forks.run(tmp_path, [*SIMULATE, "--out", "whole"]).code == 0
    running = forks.start(tmp_path, [*SIMULATE, "--out", "a"])
    while not (tmp_path / "a" / "checkpoint.npz").exists():
        assert running.alive(), running.end()
        time.sleep(0.005)
    assert "in use by another lpmppl" in forks.run(tmp_path, ["simulate", "--resume", "a"]).refused()
    assert running.end().code == 0
    same(tmp_path / "a" / "results.nc", tmp_path / "whole" / "results.nc")


@pytest.mark.slow
@pytest.mark.parametrize("instead", ["nothing", "a file"])
def test_a_folder_that_goes_in_mid_run(forks: Forks, instead: str, tmp_path: Path) -> None:
    running = forks.start(tmp_path, [*SIMULATE, "--out", "a"])
    while not (tmp_path / "a" / "checkpoint.npz").exists():
        assert running.alive(), running.end()
        time.sleep(0.005)
    (tmp_path / "a").rename(tmp_path / "gone")
    if instead == "a file":
        (tmp_path / "a").write_text("mine")
    done = running.end()
    assert done.code == 2, done
    lines = [each for each in done.err.splitlines() if not each.startswith("lpmppl: warning: ")]
    assert len(lines) == 1 and "can't write" in lines[0], done
    if instead == "a file":
        assert (tmp_path / "a").read_text() == "mine"
    else:
        assert not (tmp_path / "a").exists()
    assert forks.run(tmp_path, ["simulate", "--resume", "gone"]).code == 0


@pytest.mark.slow
def test_a_folder_whose_name_is_not_text(forks: Forks, tmp_path: Path) -> None:
    """Names on a disk are bytes; what can't be written down is refused, all else works."""
    place = os.fsencode(tmp_path) + b"/th\xe9"
    Path(os.fsdecode(place)).mkdir()
    line = ["simulate", "nyc", *SMALL]
    assert forks.run(place, [*line, "--out", "a"]).code == 0
    assert forks.run(place, ["population", "nyc", "--agents", "1000", "--out", "p.zarr"]).code == 0
    for more in (["--out", "b"], ["--json"], []):
        done = forks.run(place, [*line[:4], "--days", "4", "--population", "p.zarr", *more])
        assert done.code == 0 or "UTF-8" in done.refused(), done
    assert forks.run(place, ["report", "a"]).code == 0


@pytest.mark.parametrize("path", ["loop/x", "a/" * 2_500, "a/" * 900, "file/x", "dangling"])
def test_paths_that_lead_nowhere(path: str, here: Path) -> None:
    (here / "loop").symlink_to("loop")
    (here / "dangling").symlink_to("nothing/at/all")
    (here / "file").write_text("")
    before = sorted(p.name for p in here.rglob("*"))
    for line in (
        ["simulate", "nyc", *SMALL, "--out", path],
        ["simulate", "--resume", path],
        ["simulate", "nyc", *SMALL, "--population", path],
        ["report", path],
        ["forecast", path],
        ["population", "nyc", "--agents", "1000", "--out", path],
        ["population", "describe", path],
        ["calibrate", "nyc", "--agents", "1000", "--data", path],
        ["party", "session", "--client", "bronx=20", "--out", path],
        ["party", "certificates", "--session", path, "--out", "c"],
        ["party", "people", "--agents", "1000", "--out", path],
    ):
        refused(line, "")
        assert sorted(p.name for p in here.rglob("*")) == before, line
    for read in (lambda: lpm.run(lpm.nyc.sir(lpm.nyc.population(1_000)), days=1, checkpoint=f"{path}/c.npz"),):
        with pytest.raises((LpmError, OSError)):
            read()
