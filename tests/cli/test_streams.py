"""Output that can't be written as it is, and disks that are full."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")

Shell = Callable[..., subprocess.CompletedProcess[str]]
SMALL = "simulate --agents 2000 --days 3"


@pytest.fixture
def shell(environment: dict[str, str], tmp_path: Path) -> Shell:
    """Run `lpmppl WORDS` in a shell, where it can be given other streams and limits."""

    def run(words: str, before: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", f"{before} {shlex.quote(sys.executable)} -m lpmppl {words}"],
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def test_json_is_ascii_whatever_the_names(shell: Shell, tmp_path: Path) -> None:
    ended = shell(f"{SMALL} --json --out runs/é1", PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["out"] == "runs/é1"
    assert (tmp_path / "runs" / "é1" / "report.html").exists()


def test_tables_are_printed_where_stdout_is_ascii(shell: Shell) -> None:
    ended = shell("population describe --agents 2000", PYTHONIOENCODING="ascii")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "0\\u20139, female" in ended.stdout


def test_a_closed_stream_stops_nothing(shell: Shell, tmp_path: Path) -> None:
    ended = shell(f"{SMALL} --json 2>&-")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["agents"] == 2000
    assert shell(f"{SMALL} --out a >&-").returncode == 0
    assert (tmp_path / "a" / "report.html").exists()
    ended = shell("simulate --days 0 2>&-")
    assert (ended.returncode, ended.stdout) == (2, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("options", ["", "--json"])
def test_a_full_stdout_is_one_line(shell: Shell, options: str) -> None:
    ended = shell(f"{SMALL} {options} >/dev/full")
    assert ended.returncode == 2
    assert ended.stderr == "lpmppl: reading or writing failed: No space left on device\n"


def test_a_disk_that_is_full_at_the_result_is_one_line(shell: Shell, tmp_path: Path) -> None:
    shell(SMALL)
    ended = shell(f"{SMALL} --out a", before="ulimit -f 20;")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "lpmppl: can't write a/results.nc (File too large): free or choose another folder\n"
    assert list(tmp_path.iterdir()) == []
