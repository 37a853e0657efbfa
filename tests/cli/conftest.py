"""The real program, in its own process or in this one, with a cache of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lpmppl.errors
from lpmppl.cli.app import invoke

ROOT = Path(lpmppl.errors.__file__).parents[1]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    def refused(self) -> str:
        """The one line with which bad input was refused."""
        assert self.code == 2, (self.code, self.out, self.err)
        assert self.out == ""
        (line,) = self.err.splitlines()
        assert line.startswith("lpmppl: ")
        assert "Traceback" not in line
        return line.removeprefix("lpmppl: ")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a command: this package, and a cache that no other test run shares."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    cache = str(tmp_path_factory.mktemp("cache"))
    return {**os.environ, "PYTHONPATH": path, "LPMPPL_CACHE": cache, "COLUMNS": "100", "NO_COLOR": "1"}


def quick(arguments: Sequence[str]) -> list[str]:
    """Let `simulate` run the small model, unless the arguments name one or resume a run."""
    asked = list(arguments)
    if asked[:1] == ["simulate"] and not {"--model", "--resume"} & set(asked):
        asked += ["--model", "seirm"]
    return asked


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `lpmppl ARGUMENTS` in an empty folder and give its process; it doesn't outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "lpmppl", *quick(arguments)],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background jobs ignore Ctrl-C, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def lpm(start: Callable[..., subprocess.Popen[str]]) -> Callable[..., Ended]:
    """Run `lpmppl ARGUMENTS` to its end."""

    def run(*arguments: str) -> Ended:
        process = start(*arguments)
        out, err = process.communicate(timeout=300)
        return Ended(process.returncode, out, err)

    return run


@pytest.fixture
def here(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Run `lpmppl ARGUMENTS` to its end in this process, which has torch loaded already, in an empty folder."""
    for name in ("LPMPPL_CACHE", "COLUMNS", "NO_COLOR"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["lpmppl", *quick(arguments)])
        capfd.readouterr()
        code = invoke(quick(arguments))
        return Ended(code, *capfd.readouterr())

    return run
