"""Every semi-private part of Pyro, ChiRho and torch that the package leans on, in one place.

Each name here has a test in `tests/test_compat.py` that fails when the upstream part moves, or when a repair is no
longer needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import chirho.dynamical.internals.backends.torchdiffeq as _chirho_ode
import torch
import torchdiffeq
from chirho.dynamical.internals._utils import ShallowMessenger
from chirho.dynamical.internals.solver import Interruption, Solver, get_new_interruptions, simulate_point
from chirho.indexed.handlers import IndexPlatesMessenger
from chirho.indexed.internals import add_indices
from chirho.indexed.ops import IndexSet, get_index_plates
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.broadcast_messenger import BroadcastMessenger
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK, effectful
from pyro.poutine.trace_messenger import TraceMessenger
from torch.autograd import forward_ad as _forward_ad

__all__ = [
    "BlockMessenger",
    "CondIndepStackFrame",
    "ConditionMessenger",
    "IndexPlatesMessenger",
    "IndexSet",
    "Interruption",
    "Messenger",
    "Solver",
    "TraceMessenger",
    "acts_of",
    "add_indices",
    "backward_pass",
    "broadcast_to_plates",
    "chirho_repair_in_force",
    "effectful",
    "forward_mode",
    "get_index_plates",
    "get_new_interruptions",
    "handler_stack",
    "inside_transform",
    "interruptions_renewed",
    "repair_chirho",
    "simulate_point",
    "storage_uses",
    "touched",
    "under_handlers",
]

Message = dict[str, Any]


def _batched_odeint(
    func: Callable[..., tuple[torch.Tensor, ...]],
    y0: tuple[torch.Tensor, ...],
    t: torch.Tensor,
    *,
    event_fn: Callable[..., torch.Tensor] | None = None,
    **odeint_kwargs: Any,
) -> Any:
    """Solve a batch of ODEs with time on the last dimension of the result."""
    # ChiRho keeps times on the CPU, torchdiffeq wants them where the state is.
    t = t.to(y0[0].device)
    derivative = func(t.unsqueeze(0) if t.ndim == 0 else t[..., 0], y0)
    batch = torch.broadcast_shapes(*(d.shape for d in derivative))
    start = tuple(y.expand(batch) for y in y0)
    event = None
    if event_fn is None:
        path = torchdiffeq.odeint(func, start, t, **odeint_kwargs)
    else:
        event, path = torchdiffeq.odeint_event(func, start, t, event_fn=event_fn, **odeint_kwargs)
    return _chirho_ode.OdeintResult(tuple(y.movedim(0, -1) for y in path), event)


def chirho_repair_needed() -> bool:
    """Say whether ChiRho's own solver still fails on the installed torch."""
    solve = getattr(_chirho_ode, "_lpmppl_original", _chirho_ode._batched_odeint)
    try:
        solve(lambda _, y: y, (torch.ones(1),), torch.tensor([0.0, 1.0]))
    except TypeError:
        return True
    return False


def chirho_repair_in_force() -> bool:
    """Say whether `TorchDiffEq` runs through the repaired solver step."""
    return _chirho_ode._batched_odeint is _batched_odeint


def repair_chirho() -> None:
    """Put the repaired solver step into ChiRho, once."""
    if not chirho_repair_in_force():
        _chirho_ode._lpmppl_original = _chirho_ode._batched_odeint
        _chirho_ode._batched_odeint = _batched_odeint


def storage_uses(storage: torch.UntypedStorage) -> int:
    """Count the tensors and handles that share a storage, this handle included."""
    return int(torch._C._storage_Use_Count(storage._cdata))


def touched(x: torch.Tensor) -> None:
    """Count a change that was made to a tensor's memory from outside torch, as torch counts its own."""
    if not x.is_inference():
        torch._C._autograd._unsafe_set_version_counter((x,), (x._version + 1,))


def backward_pass() -> int:
    """The number of the pass backwards that autograd is in, −1 outside of one."""
    return int(torch._C._current_graph_task_id())


def inside_transform(x: torch.Tensor) -> bool:
    """Say whether a tensor is one of `torch.func`'s, which has no memory of its own to look at."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def forward_mode() -> bool:
    """Say whether tensors may have a tangent now."""
    return bool(_forward_ad._current_level >= 0)


@contextmanager
def interruptions_renewed() -> Iterator[Callable[[], None]]:
    """Give a function that puts ChiRho's used-up interruptions back where they stood; it is called at the end too.

    An interruption takes itself off the stack in the first simulation that meets it.
    """
    stood = list(_PYRO_STACK)

    def renew() -> None:
        for place, handler in reversed(list(enumerate(stood))):
            if isinstance(handler, ShallowMessenger) and handler not in _PYRO_STACK:
                inner = next((h for h in stood[place + 1 :] if h in _PYRO_STACK), None)
                _PYRO_STACK.insert(len(_PYRO_STACK) if inner is None else _PYRO_STACK.index(inner), handler)
            if isinstance(handler, ShallowMessenger):
                handler.used = False

    try:
        yield renew
    finally:
        renew()


def acts_of(interruption: Interruption[torch.Tensor]) -> Mapping[str, Any]:
    """What an interruption is to set each state key to, where it is an intervention given as a mapping."""
    callback = interruption.callback
    names = callback.__code__.co_freevars
    cells = callback.__closure__ or ()
    act = dict(zip(names, (c.cell_contents for c in cells), strict=True)).get("intervention")
    return act if isinstance(act, Mapping) else {}


def handler_stack() -> tuple[Messenger, ...]:
    """Give the active handlers, outermost first."""
    return tuple(_PYRO_STACK)


@contextmanager
def under_handlers(stack: Sequence[Messenger]) -> Iterator[None]:
    """Have these handlers active and no others, as they were at another time, outermost first."""
    now = list(_PYRO_STACK)
    _PYRO_STACK[:] = stack
    try:
        yield
    finally:
        _PYRO_STACK[:] = now


def broadcast_to_plates(msg: Message) -> None:
    """Expand a sample site's distribution to the sizes of its plates, as `pyro.plate` does."""
    BroadcastMessenger._pyro_sample(msg)  # type: ignore[arg-type]
