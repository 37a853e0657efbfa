"""Memory that has been freed, given back to the system."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["trim"]

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def trim() -> None:
    """Give the system back what has been freed.

    glibc keeps it where what is still held lies between: measured, that is as much again as all checkpoints and graphs,
    or as the tape of a derivative along paths.
    """
    if (give_back := getattr(_LIBC, "malloc_trim", None)) is not None:
        give_back(0)
