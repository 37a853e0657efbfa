"""Ctrl-C, with the way to go on."""

__all__ = ["Interrupted", "forget_interrupt"]


class Interrupted(Exception):  # noqa: N818  it is no error
    """The user pressed Ctrl-C; the message says what is kept and how to go on."""


def forget_interrupt() -> None:
    """Let the exit code count: after a Ctrl-C within an `exec`, as where a dataclass is made, Python ends by signal.

    CPython notes such a Ctrl-C even if it is caught further up, until the next `exec`.
    """
    exec("")
