"""What this machine has and what a run takes of it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from lpmppl.errors import InputError, nearest

__all__ = ["CITY_BYTES", "check_device", "check_memory", "free_disk", "free_memory", "peak_rss_mb"]

CITY_BYTES = 550
"""Memory that a person takes at the peak of building and simulating, in bytes (the pandemic at 8.4 million)."""

WORLD_BYTES = 320
"""What a further world of a person takes, in bytes."""

GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
GROUP_USED = Path("/sys/fs/cgroup/memory.current")
MEMORY = Path("/proc/meminfo")


def check_device(name: str) -> None:
    """Raise InputError unless torch can compute on the device of this name."""
    import torch

    count = torch.cuda.device_count()
    here = ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    here += ["mps"] if torch.backends.mps.is_available() else []
    if name not in here:
        raise InputError(nearest("device", name, here))


def check_memory(agents: int, worlds: int = 1) -> None:
    """Raise InputError where so many agents, in so many worlds, can't fit into the free memory."""
    free, need = free_memory(), agents * (CITY_BYTES + (worlds - 1) * WORLD_BYTES)
    if free is not None and need > free:
        more = int((free / agents - CITY_BYTES) / WORLD_BYTES)
        if worlds > 1 and more > 0:
            raise InputError(
                f"{worlds - 1} policies among {agents:,} people take about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB "
                f"are free: give at most {more} at once, or fewer people"
            )
        fits = int(free / CITY_BYTES) // 100_000 * 100_000
        raise InputError(
            f"--agents {agents}: {agents:,} people take about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free, "
            f"so give at most {max(fits, 100_000):,}"
        )


def peak_rss_mb() -> float:
    """Give the most memory that this process has held so far, in MB (10⁶ bytes); NaN where the system doesn't say."""
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)


def free_memory() -> float | None:
    """Give the memory in bytes that a process can still take, also within its control group; None where unknown."""
    free = None
    if MEMORY.is_file():
        lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines() if ":" in line)
        free = 1024.0 * int(lines["MemAvailable"].split()[0]) if "MemAvailable" in lines else None
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        free = float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    if GROUP_LIMIT.is_file() and GROUP_USED.is_file():
        limit = GROUP_LIMIT.read_text().strip()
        if limit.isdigit():
            rest = float(limit) - int(GROUP_USED.read_text())
            free = rest if free is None else min(free, rest)
    return free


def free_disk(folder: Path) -> float:
    """Give the free space in bytes where `folder` is or would be."""
    # A name that is too long, or in a folder that can't be read, counts as one that isn't there.
    existing = next(p for p in (folder, *folder.absolute().parents) if os.access(p, os.F_OK))
    return float(shutil.disk_usage(existing).free)
