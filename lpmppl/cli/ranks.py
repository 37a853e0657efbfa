"""Many processes for one run: `--ranks` starts them, as torchrun may, and one of them speaks."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lpmppl.cli.interrupted import CTRL_C, ending
from lpmppl.errors import InputError, LpmError

if TYPE_CHECKING:
    from lpmppl.effects.ranks import Ranks

__all__ = ["joined", "launch", "restarts", "speaks", "started"]

_MOST_A_CORE = 8
"""Ranks for each core of this machine, beyond which they only wait for each other."""

_GRACE = 10.0
"""Seconds that the other ranks get to end by themselves after one has."""


def started() -> int:
    """How many ranks this process is one of, as torchrun or `launch` have said."""
    try:
        return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    except ValueError:
        raise InputError(
            f"WORLD_SIZE={os.environ['WORLD_SIZE']!r} is no number of ranks; start with torchrun"
        ) from None


def restarts() -> int:
    """How often torchrun has started these ranks again, since one of them ended badly."""
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if "RANK" in os.environ else "0"
    if not count.isdecimal():
        raise InputError(f"TORCHELASTIC_RESTART_COUNT={count!r} is no number of restarts; start with torchrun")
    return int(count)


@contextlib.contextmanager
def joined() -> Iterator[Ranks | None]:
    """The ranks that this process is one of, which add up together within; None where it is alone."""
    if started() == 1:
        yield None
        return
    from lpmppl.effects.handlers.sharded import Sharded
    from lpmppl.effects.ranks import Ranks

    ranks = Ranks.begin()
    try:
        with Sharded(ranks):
            yield ranks
    finally:
        ranks.end()


def speaks() -> bool:
    """Whether this process is the one that answers, and keeps what comes out."""
    return started() == 1 or os.environ["RANK"] == "0"


def launch(ranks: int, arguments: Sequence[str]) -> int:
    """Run a command line in so many processes on this machine, which share the population; the exit code.

    Raises:
        InputError: for more ranks than this machine is good for.
        LpmError: by the rank that ended without saying why, once all others have ended.
    """
    if ranks > (most := _MOST_A_CORE * (os.cpu_count() or 1)):
        raise InputError(f"--ranks {ranks}: this machine has {os.cpu_count()} cores; give at most {most}")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        said = [Path(folder) / f"{rank}.log" for rank in range(ranks)]
        with ending(), contextlib.ExitStack() as stack:
            running = [_start(rank, ranks, port, arguments, said[rank], stack) for rank in range(ranks)]
            try:
                codes = _watched(running)
            except KeyboardInterrupt:
                # The first rank says how to go on.
                for process in running:
                    process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    running[0].wait(_GRACE)
                return CTRL_C
            finally:
                _end(running)
        return _told(codes, [path.read_text(errors="replace") if path.exists() else "" for path in said])


def _start(
    rank: int, ranks: int, port: int, arguments: Sequence[str], log: Path, stack: contextlib.ExitStack
) -> subprocess.Popen[bytes]:
    threads = str(max(1, (os.cpu_count() or 1) // ranks))
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # Threads of one rank that wait actively would take the cores of the others.
    usual = {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
    if sys.platform == "linux":
        usual["GLOO_SOCKET_IFNAME"] = "lo"
    # The first may draw a progress bar; of the others what they said is read where they end badly.
    err = stack.enter_context(log.open("wb")) if rank else None
    out = subprocess.DEVNULL if rank else None
    command = [sys.executable, "-m", "lpmppl", *arguments]
    return subprocess.Popen(
        command, env={**usual, **os.environ, **place}, stdin=subprocess.DEVNULL, stdout=out, stderr=err
    )


def _watched(running: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """The exit codes, once all have ended, or so long after one ended badly."""
    until = None
    while any(process.poll() is None for process in running):
        if until is None and any(process.poll() for process in running):
            until = time.monotonic() + _GRACE
        if until is not None and time.monotonic() > until:
            break
        time.sleep(0.02)
    return [process.poll() or 0 for process in running]


def _end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in running:
        if process.poll() is None:
            process.terminate()
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
        if process.poll() is None:
            process.kill()
            process.wait()


def _told(codes: Sequence[int], said: Sequence[str]) -> int:
    """The exit code of all, and a word of whoever was killed, or ended badly where the first rank didn't."""
    killed = [rank for rank, code in enumerate(codes) if code < 0]
    if killed:
        names = ", ".join(f"{rank} by {_signal(-codes[rank])}" for rank in killed)
        how = f"rank {names} was killed, and the run has ended with it"
        raise LpmError(f"{how}; go on with --resume, or start it again")
    if codes[0] == 0 and any(codes):
        rank = next(rank for rank, code in enumerate(codes) if code)
        last = (said[rank].strip().splitlines() or ["nothing"])[-1]
        raise LpmError(f"rank {rank} ended with code {codes[rank]} and said: {last}")
    return codes[0]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
