"""Runs that have nothing to do with one another, side by side, each in a process on a core of its own."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import pickle
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from lpmppl.errors import LpmError
from lpmppl.inference.memory import free_memory
from lpmppl.models.population import Population

__all__ = ["cores", "in_batches", "parted", "side_by_side"]

T = TypeVar("T")

_WORTH = 2e7
"""Agents times days, over all pieces, from which processes are worth their start: about a second."""

_WITH_PARENT = 1
"""Linux's `PR_SET_PDEATHSIG`: the signal that a process gets when the one that began it is gone."""

_A_ROW = 400
"""Bytes that an agent takes in each row while it runs: of the pandemic 270, and 370 where runs are guided."""


def cores(population: Population, days: float, rows: int = 1) -> int:
    """How many processes to use for runs of a population: 1 where more don't pay, or can't be.

    Each takes one of torch's threads. They are forked, which is safe on Linux alone, and not beside a device, ranks or
    parties that talk over gRPC, whose own threads a fork may hang on.

    Args:
        population: the agents.
        days: how many days, over all runs.
        rows: how many runs a process has at once, for all of which there must be memory.
    """
    can = sys.platform == "linux" and population.device.type == "cpu" and population.ranks is None
    can = can and "grpc" not in sys.modules
    inside = multiprocessing.current_process().daemon or threading.current_thread() is not threading.main_thread()
    threads = torch.get_num_threads()
    if not can or inside or threads < 2 or population.size * days < _WORTH:
        return 1
    free = free_memory()
    return threads if free is None else max(1, min(threads, int(free / (_A_ROW * population.size * rows))))


def parted(count: int, most: int, at_once: int, times: int = 1) -> list[range]:
    """Parts of 0 … count − 1, alike in size, of so many at most, that keep so many processes busy to the end.

    Args:
        count: how many there are.
        most: how many a part may have.
        at_once: how many processes there are.
        times: how many times all parts are done.

    >>> parted(5, 4, 1), parted(5, 9, 2)
    ([range(0, 2), range(2, 5)], [range(0, 2), range(2, 5)])
    >>> len(parted(50, 50, 2, times=2)), len(parted(50, 50, 2, times=3))
    (1, 2)
    """
    # So many parts that all of them, done so many times, are as many for each process.
    even = at_once // math.gcd(at_once, times)
    parts = min(-(-max(math.ceil(count / most), 1) // even) * even, count)
    return [range(k * count // parts, (k + 1) * count // parts) for k in range(parts)]


def in_batches(piece: Callable[[slice], T], count: int, most: int, population: Population, days: int) -> list[T]:
    """Do runs 0 … count − 1 of so many days in batches of so many rows at most, side by side where that pays."""
    at_once = cores(population, days * count, min(most, count))
    batches = [slice(rows.start, rows.stop) for rows in parted(count, most, at_once)]
    return side_by_side(lambda k: piece(batches[k]), len(batches), at_once)


def side_by_side(
    piece: Callable[[int], T], count: int, at_once: int, done: Callable[[int], object] | None = None
) -> list[T]:
    """Do pieces 0 … count − 1 of some work, so many at once, and give what they come to in order.

    A piece sees everything as it is now and changes nothing here; what it gives is copied. Warnings are repeated here.

    Args:
        piece: does one.
        count: how many there are.
        at_once: how many processes to use, as `cores` gives them; in this process where that is one.
        done: called with how many are done, each time that one is.
    Raises:
        Exception: what a piece has raised, the first that is met.
        LpmError: where a process was ended from outside.

    >>> side_by_side(lambda k: k * k, 4, at_once=2)
    [0, 1, 4, 9]
    """
    found: dict[int, Any] = {}
    if min(at_once, count) < 2:
        for k in range(count):
            found[k] = piece(k)
            if done is not None:
                done(len(found))
        return [*found.values()]
    workers = _Workers(piece, min(at_once, count))
    try:
        waiting, busy = list(range(count))[::-1], list(workers.lines)
        for line in busy:
            line.send(waiting.pop())
        while busy:
            ready = wait(busy)
            for line in [x for x in busy if x in ready]:
                k, result, error, said = workers.told(line)
                for category, message in said:
                    warnings.warn(message, category, stacklevel=2)
                if error is not None:
                    raise error
                found[k] = result
                if done is not None:
                    done(len(found))
                if waiting:
                    line.send(waiting.pop())
                else:
                    busy.remove(line)
    finally:
        workers.end()
    return [found[k] for k in range(count)]


class _Workers:
    """Processes that do pieces by their number until they are told no more."""

    def __init__(self, piece: Callable[[int], Any], count: int) -> None:
        context = multiprocessing.get_context("fork")
        self.lines: list[Connection] = []
        self._processes = []
        for _ in range(count):
            here, there = context.Pipe()
            self.lines.append(here)
            # What is held open by a process that this one starts would keep another from hearing that this one is gone.
            process = context.Process(target=_work, args=(piece, there, list(self.lines)), daemon=True)
            with warnings.catch_warnings():
                # From Python 3.12 a fork beside torch's threads warns; a piece uses none of them.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            there.close()
            self._processes.append(process)

    def told(self, line: Connection) -> tuple[int, Any, BaseException | None, list[tuple[type[Warning], str]]]:
        try:
            return pickle.loads(line.recv_bytes())
        except EOFError:
            raise LpmError(
                "a process that ran a part was ended from outside, perhaps for want of memory; ask for fewer agents, "
                "or have one part run at a time by torch.set_num_threads(1)"
            ) from None

    def end(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        for line in self.lines:
            line.close()


def _sent(error: Exception) -> Exception:
    """An error as it can be sent, with where it was raised unless that is for the words to say."""
    if not isinstance(error, LpmError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001
        return LpmError(f"{type(error).__name__}: {error}")
    return error


def _work(piece: Callable[[int], Any], line: Connection, others: list[Connection]) -> None:
    # Whoever presses Ctrl-C means the process that asked; it ends this one, which doesn't outlive it either.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_WITH_PARENT, signal.SIGKILL)
    torch.set_num_threads(1)
    for other in others:
        other.close()
    while True:
        try:
            k = line.recv()
        except EOFError:
            return
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")  # whether they are shown is for where they are repeated
            result, error = None, None
            try:
                result = piece(k)
            except Exception as raised:  # noqa: BLE001
                error = _sent(raised)
        # By value: torch's own way over a line leaves tensors in files that are shared.
        line.send_bytes(pickle.dumps((k, result, error, [(w.category, str(w.message)) for w in said])))
