"""Commands in processes that begin at once: forks of one that has loaded everything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PARENT = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
import lpmppl, lpmppl.cli.app, lpmppl.models.nyc, lpmppl.report.page, lpmppl.data.nyc_health, lpmppl.data.store
import lpmppl.inference.calibrate, lpmppl.inference.counterfactual, lpmppl.inference.sensitivity
from lpmppl.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
for asked in sys.stdin:
    folder, line, out, err = json.loads(asked)
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.chdir(os.fsencode(folder) if isinstance(folder, str) else bytes(folder))
        for name, number in ((out, 1), (err, 2)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv = ["lpmppl", *line]
        code = 99
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
    print(pid, flush=True)
"""
"""Forks a process for each line that it reads; it never waits for one, as whoever asked watches for its end."""


def environment(cache: Path) -> dict[str, str]:
    """The environment of a command of its own process."""
    import lpmppl.errors

    root = str(Path(lpmppl.errors.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    more = {"PYTHONPATH": path, "LPMPPL_CACHE": str(cache), "COLUMNS": "100", "NO_COLOR": "1"}
    return {**os.environ, **more, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}


class Ended(NamedTuple):
    """How a command ended: its exit code, negative for a signal, and what it said."""

    code: int
    out: str
    err: str

    def refused(self) -> str:
        """The one line with which it was refused."""
        assert self.code == 2, self
        (line,) = self.err.splitlines()
        assert line.startswith("lpmppl: ") and "Traceback" not in line, self
        return line.removeprefix("lpmppl: ")


class Running:
    """A command in a process of its own."""

    def __init__(self, pid: int, said: Path) -> None:
        self.pid, self.said = pid, said

    def alive(self) -> bool:
        """Whether it is still at work: what has ended is a zombie of its parent."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except FileNotFoundError:
            return False

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, patience: float = 240.0) -> Ended:
        """Wait for its end."""
        until = time.monotonic() + patience
        while self.alive():
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError("it goes on for ever")
            time.sleep(0.01)
        status = int(Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[-1])
        out, err = (self.said.with_suffix(f".{n}").read_text(errors="replace") for n in ("out", "err"))
        return Ended(os.waitstatus_to_exitcode(status), out, err)


class Forks:
    """A process that has loaded lpmppl, and begins commands at once.

    Args:
        folder: where what they say is kept, and the cache.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.parent = subprocess.Popen(
            [sys.executable, "-c", PARENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment(folder / "cache"),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert self.parent.stdout is not None
        assert self.parent.stdout.readline() == "ready\n"

    def start(self, where: Path | bytes, line: Sequence[str]) -> Running:
        """Begin a command in a folder."""
        self.count += 1
        said = self.folder / f"said-{self.count}"
        asked = [list(where) if isinstance(where, bytes) else str(where), list(line)]
        assert self.parent.stdin is not None and self.parent.stdout is not None
        self.parent.stdin.write(json.dumps([*asked, f"{said}.out", f"{said}.err"]) + "\n")
        self.parent.stdin.flush()
        return Running(int(self.parent.stdout.readline()), said)

    def run(self, where: Path | bytes, line: Sequence[str]) -> Ended:
        """A command from its beginning to its end."""
        return self.start(where, line).end()

    def close(self) -> None:
        """End the process that begins others."""
        assert self.parent.stdin is not None
        self.parent.stdin.close()
        self.parent.wait(30)
        assert self.parent.stdout is not None
        self.parent.stdout.close()
