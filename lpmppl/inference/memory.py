"""What memory is free, and how many worlds fit into it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lpmppl.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["check_worlds", "free_memory"]

A_DAY, A_WORLD, A_SOURCE = 20, 16, 80
"""What a day takes for each person beside a state, what it does in each world, and who infected whom, in bytes: by
what was measured with 1 to 5 worlds of a million people in the New York epidemic (a state of 21 bytes a person) and
pandemic (92)."""

GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
GROUP_USED = Path("/sys/fs/cgroup/memory.current")
MEMORY = Path("/proc/meminfo")


def check_worlds(
    state: Mapping[str, torch.Tensor], worlds: int, *, people: int, results: int = 0, sources: bool = False
) -> None:
    """Refuse more worlds of a state than fit into the memory that is still free.

    Args:
        state: what one world begins from.
        worlds: how many there will be, the one as it was among them.
        people: how many people there are.
        results: what is kept of each world, in bytes.
        sources: whether it is recorded who infected whom.
    Raises:
        InputError: with how many policies at once do fit.
    """
    one = sum(x.numel() * x.element_size() for x in state.values())
    free = free_memory(next(iter(state.values())).device) if state else None
    day, each = one + A_DAY * people, one + (A_WORLD + A_SOURCE * sources) * people + results
    need = day + each * worlds
    if worlds > 1 and free is not None and need > free:
        fit = int((free - day) / each) - 1
        remedy = f"give at most {fit} at once, or fewer people" if fit > 0 else "give fewer people"
        policies = "1 policy takes" if worlds == 2 else f"{worlds - 1} policies at once take"
        raise InputError(f"{policies} about {need / 1e9:.2g} GB here, and {free / 1e9:.2g} GB are free: {remedy}")


def free_memory(device: torch.device | None = None) -> float | None:
    """Give the memory in bytes that a process can still take, also within its control group; None where unknown.

    Args:
        device: an accelerator, of whose memory it is; by default the machine's.
    """
    if device is not None and device.type == "cuda":
        import torch

        # What torch holds in reserve it gives out again.
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + reserve)
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
