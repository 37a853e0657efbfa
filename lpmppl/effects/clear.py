"""What is done with many agents at once that isn't a sum: the op by which secret sharing refuses it."""

from __future__ import annotations

from lpmppl._compat import effectful

__all__ = ["in_clear"]


@effectful(type="in_clear")
def in_clear(what: str, remedy: str) -> None:
    """Say that something is about to read many agents together, one by one or in small groups.

    Nothing comes of it, except under secret sharing, which refuses.

    Args:
        what: what is read, such as "who infected whom".
        remedy: what to do instead, where that is to be in secret.
    """
