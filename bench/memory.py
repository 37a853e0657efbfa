"""The memory of the process, as Linux counts it."""

from pathlib import Path


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}: these measurements need Linux")


def resident() -> int:
    """Return the bytes resident now."""
    return _status("VmRSS")


def peak() -> int:
    """Return the most bytes that were resident at once since `forget_peak`, or since the process began."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Let the peak start again from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
