"""Ctrl-C, with the way to go on."""

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

__all__ = ["CTRL_C", "Interrupted", "ending", "leave", "wait_for_imports"]

CTRL_C = 130
"""The exit code of a program that Ctrl-C ended."""

_PATIENCE = 0.05
"""Seconds after which a Ctrl-C that came during an import or a compilation is tried again."""

_DELICATE = ("/numba/", "/llvmlite/")
"""Where an exception out of nowhere leaves a compiler's locks and memory as they may not be, or is lost."""

_UNFINISHED = ("new_event_loop",)
"""What is half made where an exception comes in between, and complains when it is taken down."""


class Interrupted(Exception):  # noqa: N818  it is no error
    """The user pressed Ctrl-C; the message says what is kept and how to go on."""


def leave(code: int) -> NoReturn:
    """End the program with this exit code; after a Ctrl-C, at once.

    What it cut short, such as a loop that reads Zarr chunks, would complain as it is taken down, or wait for ever;
    and after one within an `exec`, as where a dataclass is made, Python ends by signal whatever code is asked for.
    """
    if code == CTRL_C:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def wait_for_imports() -> None:
    """Let a Ctrl-C that comes while modules are imported, or loops compiled, take effect once they are.

    Compiled modules, torch's first of all, abort the process or forget the exception when it is raised amid them, and
    so does LLVM.
    A Ctrl-C that the program was started to ignore, as a shell's background jobs are, stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt_when_safe)


def _interrupt_when_safe(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        file = frame.f_code.co_filename.replace(os.sep, "/")
        delicate = any(part in file for part in _DELICATE) or frame.f_code.co_name in _UNFINISHED
        if file == "<frozen importlib._bootstrap>" or delicate:
            again = threading.Timer(_PATIENCE, _thread.interrupt_main, (number,))
            again.daemon = True
            again.start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Leave by the door when the process is told to end, so that what it has started ends too."""
    told = [s for s in (getattr(signal, n, None) for n in ("SIGTERM", "SIGHUP")) if s is not None]
    before = {s: signal.getsignal(s) for s in told}
    for s in told:
        if before[s] is signal.SIG_DFL:
            signal.signal(s, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
