"""Full reverse mode in bounded memory: days are simulated again on the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lpmppl._compat import Message, Messenger, handler_stack, under_handlers
from lpmppl.effects.handlers.time import Steps
from lpmppl.effects.internals.freed import trim
from lpmppl.effects.tape import on_tape
from lpmppl.errors import InputError, LpmError
from lpmppl.typing import State

__all__ = ["Checkpointed"]


class Checkpointed(Messenger):
    r"""Keep the state every few days only, and simulate the days between again when their derivatives are asked for.

    A graph over T days keeps what every operation needs of all agents. With a checkpoint every k days it keeps T / k
    states, and in a pass backwards the graph of k days at a time; each day is simulated twice. The memory is least
    where both are alike, for k near :math:`\sqrt{T}` (Griewank & Walther, ACM Trans. Math. Softw. 26, 2000, 19).
    Values and derivatives are those without it, bit for bit. Nobody counts a day twice: tallies of days that are
    simulated again reach no handler. What the model reads besides the state, such as parameters, must be the same on
    the way back, and no other thread may simulate meanwhile. It goes inside `DiscreteTime`, and is of no use along
    paths, whose tape keeps what happens only.

    Args:
        every: days, or rather steps, from one checkpoint to the next; about the root of their number by default.
    Raises:
        InputError: for a number below 1.
        LpmError: under `Pathwise`.
    """

    def __init__(self, every: int | None = None) -> None:
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise InputError(f"every={every!r} was given; give a whole number of steps, 1 or more")
        super().__init__()
        self.every = every

    def _pyro_steps(self, msg: Message) -> None:
        if msg["done"] or not torch.is_grad_enabled():
            return
        if on_tape():
            raise LpmError("Checkpointed stands around Pathwise, whose tape keeps what happens only; leave it out")
        steps, state, first, last = msg["args"]
        every = self.every or max(1, math.isqrt(last - first))
        for begin in range(first, last, every):
            state = _kept(steps, state, begin, min(last, begin + every))
        msg["value"], msg["done"] = state, True


class _Again(Messenger):
    """Keep the tallies of days that are simulated again from the handlers outside."""

    def _pyro_tally(self, msg: Message) -> None:
        msg["stop"] = True


def _kept(steps: Steps, state: State, first: int, last: int) -> State:
    """Some steps, of which only the state at their beginning is kept."""
    handlers, known = handler_stack(), False

    def work(state: Mapping[str, Tensor]) -> State:
        nonlocal known
        again, known = known, True
        trim()
        with under_handlers((*handlers, _Again()) if again else handlers):
            return steps(state, first, last)

    return checkpoint(work, state, use_reentrant=False)
