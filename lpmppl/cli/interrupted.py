"""Ctrl-C, with the way to go on."""

__all__ = ["Interrupted"]


class Interrupted(Exception):  # noqa: N818  it is no error
    """The user pressed Ctrl-C; the message says what is kept and how to go on."""
