"""What can go wrong in a user's hands, said in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "LpmError", "nearest"]


class LpmError(Exception):
    """The base of every error that lpmppl raises on purpose."""


class InputError(LpmError, ValueError):
    """Something the user gave can't be used; the message names it, its value and the remedy."""


def nearest(kind: str, name: str, valid: Iterable[str]) -> str:
    """Say that `name` is no valid `kind`, with the nearest valid name first.

    >>> nearest("parameter", "betta", ["beta", "gamma"])
    "unknown parameter 'betta': did you mean 'beta'? (one of: beta, gamma)"
    """
    names = sorted(map(str, valid))
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"unknown {kind} '{name}': {hint}(one of: {', '.join(names) or 'none'})"
