"""Handlers that read agents one by one, which neither secret sharing nor ranks can let them."""

from __future__ import annotations

from lpmppl._compat import handler_stack
from lpmppl.effects.handlers.abducted import Abduct
from lpmppl.effects.handlers.decided import Decided
from lpmppl.effects.handlers.flips import Flips, Stakes
from lpmppl.effects.handlers.guided import Guided
from lpmppl.effects.handlers.held import Held
from lpmppl.effects.handlers.sources import Sources

__all__ = ["reader"]


def reader() -> str:
    """The name of the innermost handler in force that reads agents one by one, empty where there is none."""
    one_by_one = Abduct | Decided | Flips | Guided | Held | Sources | Stakes
    found = [type(handler).__name__ for handler in handler_stack() if isinstance(handler, one_by_one)]
    return found[-1] if found else ""
