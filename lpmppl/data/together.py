"""A population that several processes build: each some areas, into files that all of them see."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpmppl.data import nyc, store
from lpmppl.errors import InputError

__all__ = ["build"]

Whole = NDArray[np.int64]

_LEFT = 3600.0
"""Seconds after which a folder that nobody writes into was left by a build that was killed."""


def build(agents: int, seed: int, path: Path, rank: int, count: int, total: Callable[[Whole], Whole]) -> bool:
    """Build the population of New York in several processes and keep it at `path`, as `nyc.build` makes it in one.

    Each holds the people of one area at a time. The first, which finds work and schools for all, reads what that takes
    from the files: age, industry, PUMA and kind of home.

    Args:
        agents: how many people.
        seed: the seed of the synthesis.
        path: where it is to be, in a folder that all processes see; other ones there are left alone.
        rank: which of the processes this is, from 0.
        count: how many there are.
        total: given integers of one shape in each process, their sum, in all of them.
    Returns:
        whether it is there now; it isn't where the processes don't share the folder, or it can't be written.
    Raises:
        InputError: as `nyc.build` does.
    """
    city = nyc.City(agents, seed)
    token = np.frombuffer(np.random.SeedSequence().generate_state(1, np.uint64).tobytes(), np.int64) >> 8
    token = total(token if rank == 0 else np.zeros(1, np.int64))
    aside = path.with_name(f".{path.name}.{int(token[0]):x}.building")
    try:
        if rank == 0:
            _begin(city, aside)
        total(np.zeros(1, np.int64))
        if not _all(aside.is_dir() and any(aside.iterdir()), count, total):
            return False
        _settle(city, aside, rank, count, total)
        if rank == 0:
            _finish(city, aside, path)
        return _all(path.exists(), count, total)
    finally:
        if rank == 0:
            shutil.rmtree(aside, ignore_errors=True)


def _all(here: bool, count: int, total: Callable[[Whole], Whole]) -> bool:
    return int(total(np.array([here], np.int64))[0]) == count


def _begin(city: nyc.City, aside: Path) -> None:
    """Make the files of all people, which nobody is in yet; none where they can't be written."""
    _sweep(aside)
    try:
        aside.mkdir(parents=True)
        for name, kind in nyc.PEOPLE.items():
            np.lib.format.open_memmap(_file(aside, name), "w+", kind, (city.agents,))
            # A process that writes where the disk turns out to be full is killed.
            with _file(aside, name).open("r+b") as file:
                getattr(os, "posix_fallocate", lambda *_: None)(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)


def _sweep(aside: Path) -> None:
    """Take away what builds that were killed have left: folders into which nobody has written for an hour."""
    for left in aside.parent.glob(".nyc-*.building"):
        with contextlib.suppress(OSError):
            written = max(path.stat().st_mtime for path in (left, *left.iterdir()))
            if time.time() - written > _LEFT:
                shutil.rmtree(left, ignore_errors=True)


def _file(aside: Path, name: str) -> Path:
    return aside / f"{name}.npy"


def _settle(city: nyc.City, aside: Path, rank: int, count: int, total: Callable[[Whole], Whole]) -> None:
    """Put the people of this process's areas into the files, and their homes into some of their own."""
    first = np.cumsum(city.residents) - city.residents
    dwellings = np.zeros(len(first), np.int64)
    mine = _shared_out(city.residents, count)[rank]
    for p in mine:
        people, homes = city.area(p)
        dwellings[p] = len(homes["household_size"])
        for name, values in people.items():
            _open(aside, name)[first[p] : first[p] + len(values)] = values
        for name, values in homes.items():
            np.save(_file(aside, f"{name}-{p}"), values)
    # Only now is it known how many homes there are before those of an area.
    dwellings = total(dwellings)
    before = np.cumsum(dwellings) - dwellings
    for p in mine:
        _open(aside, "household")[first[p] : first[p] + city.residents[p]] += before[p].astype(np.int32)
    total(np.zeros(1, np.int64))


def _open(aside: Path, name: str) -> NDArray[Any]:
    return np.lib.format.open_memmap(_file(aside, name), "r+")


def _shared_out(residents: Whole, count: int) -> list[list[int]]:
    """Areas of as many people in all for each process."""
    parts: list[list[int]] = [[] for _ in range(count)]
    held = np.zeros(count, np.int64)
    for p in np.argsort(-residents, kind="stable").tolist():
        least = int(held.argmin())
        parts[least].append(p)
        held[least] += residents[p]
    return parts


def _finish(city: nyc.City, aside: Path, path: Path) -> None:
    """Bring all areas together, and keep the population."""
    areas = range(len(city.residents))
    person = {name: np.load(_file(aside, name), mmap_mode="r") for name in nyc.PEOPLE}
    homes = {name: np.concatenate([np.load(_file(aside, f"{name}-{p}")) for p in areas]) for name in nyc.HOMES}
    try:
        store.save(city.dataset(person, homes), path)
    except (InputError, OSError) as error:
        # Another run may have finished the same population first; that one is as good.
        if not path.exists():
            warnings.warn(f"the population is not kept: {error}; set LPMPPL_CACHE to another folder", stacklevel=2)
