"""What this machine has and what a run takes of it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from lpmppl.errors import InputError, nearest
from lpmppl.inference.memory import free_memory

__all__ = ["CITY_BYTES", "check_device", "check_memory", "free_disk", "peak_rss_mb"]

CITY_BYTES = 550
"""Memory that a person takes at the peak of building and simulating, in bytes (the pandemic at 8.4 million)."""


def check_device(name: str) -> None:
    """Raise InputError unless torch can compute on the device of this name."""
    import torch

    count = torch.cuda.device_count()
    here = ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    here += ["mps"] if torch.backends.mps.is_available() else []
    if name not in here:
        raise InputError(nearest("device", name, here))


def check_memory(agents: int) -> None:
    """Raise InputError where so many agents can't fit into the free memory."""
    free, need = free_memory(), agents * CITY_BYTES
    if free is not None and need > free:
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


def free_disk(folder: Path) -> float:
    """Give the free space in bytes where `folder` is or would be."""
    # A name that is too long, or in a folder that can't be read, counts as one that isn't there.
    existing = next(p for p in (folder, *folder.absolute().parents) if os.access(p, os.F_OK))
    return float(shutil.disk_usage(existing).free)
