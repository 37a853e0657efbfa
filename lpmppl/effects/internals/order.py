"""The orders of handlers that would be wrong in silence, found before the first step."""

from __future__ import annotations

from lpmppl._compat import BlockMessenger, ConditionMessenger, IndexPlatesMessenger, TraceMessenger, handler_stack
from lpmppl.errors import LpmError

__all__ = ["check_order"]


def check_order(noise: type, solver: type) -> None:
    """Refuse a trace or block inside the noise, agents conditioned outside it, and two solvers or two noises at once.

    Raises:
        LpmError: naming the two handlers and the mend.
    """
    stack = list(handler_stack())
    noises = [i for i, h in enumerate(stack) if isinstance(h, noise)]
    if len(noises) > 1:
        raise LpmError(f"{noise.__name__} stands inside another {noise.__name__}: the inner one would win; keep one")
    if sum(isinstance(h, solver) for h in stack) > 1:
        raise LpmError(f"{solver.__name__} stands inside another {solver.__name__}: keep one")
    for handler in stack:
        if isinstance(handler, IndexPlatesMessenger) and handler._orig_dim > -3:
            raise LpmError(
                f"{type(handler).__name__} has its worlds from dimension {handler._orig_dim}, where agents (-1) or "
                "draws "
                "(-2) are: give it first_available_dim=-3"
            )
    if not noises:
        return
    for i, handler in enumerate(stack):
        name = type(handler).__name__
        if i > noises[0] and isinstance(handler, TraceMessenger | BlockMessenger):
            raise LpmError(
                f"{name} stands inside {noise.__name__}, where it sees or hides the agents' own chance: "
                f"put {noise.__name__} around the model and {name} (or the inference that brings it) outside"
            )
        if i < noises[0] and isinstance(handler, ConditionMessenger) and _names_steps(handler.data):
            raise LpmError(
                f"{name} on agents' sites stands outside {noise.__name__}, which would never ask it: put it inside "
                f"{noise.__name__}"
            )


def _names_steps(data: object) -> bool:
    return isinstance(data, dict) and any(str(site).startswith("t=") for site in data)
