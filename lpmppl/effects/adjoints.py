"""Hazards that accrue on the tape: on the way back, one pass over the agents to whom something happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.fields import Field, Shape
from lpmppl.effects.hazards import accumulate, rows
from lpmppl.effects.internals.segments import blocked, differentiated
from lpmppl.effects.pullbacks import Bits, Found, Met, Path, Sink, inputs_of
from lpmppl.effects.standing import Standing, can_stand
from lpmppl.effects.tape import InPass, Taped, Version, kept, plain, taped

__all__ = ["accrued", "exposed", "left_on_tape"]


def exposed(
    before: Tensor,
    hazard: Tensor | Field | float,
    at_risk: Tensor,
    dt: Tensor | float,
    level: Tensor | None = None,
    crossed: Tensor | None = None,
) -> Taped:
    """Do as `accumulate`, with the derivative on the tape.

    On the way back an agent's adjoint stays what it is for all the time at risk before its event, and what all of them
    come to is added up on the groups that their hazards came from.
    """
    with torch.no_grad():
        held = hazard.detach() if isinstance(hazard, Field | Tensor) else hazard
        numbers = accumulate(plain(before), held, at_risk, dt, level, crossed)
    if before.shape != numbers.shape and differentiated(before):
        before = before.expand(numbers.shape)
    step = (hazard if isinstance(hazard, Field) else Field.even(hazard, numbers.shape[-1])) * dt
    inputs = dict(inputs_of(step, ()))
    token, old = taped(before)
    version = Version.after(old, numbers)
    accrual = _Accrual(version, step, inputs, at_risk, numbers)
    carried = (x.token if isinstance(x, Taped) else x for x in inputs.values())
    return Taped.of(numbers, version, _Accrue.apply(token, accrual, *carried), accrual)


def left_on_tape(after: Tensor, happened: Cohort, left: Tensor, hazard: Tensor) -> Tensor:
    r"""Put a derivative to what is left of the step after events, :math:`(\Lambda' - R) / (\Lambda' - \Lambda)`.

    Args:
        after: cumulative hazard at the end of the step, `accrued`.
        happened: to whom, of the same agents.
        left: what is left, shape (k,).
        hazard: what they met in the step, above 0, shape (k,).
    """
    assert isinstance(after, Taped)
    return _Left.apply(after.token, after.made_by, kept(happened.where, after.numel()), left, hazard)


def accrued(after: Tensor, happened: Cohort) -> bool:
    """Say whether a cumulative hazard is that of `exposed`, over the agents of a cohort."""
    return isinstance(after, Taped) and isinstance(after.made_by, _Accrual) and happened.shape == after.shape


class _Accrual:
    """What a step's hazard was made of, as far as the way back needs it."""

    def __init__(self, version: Version, step: Field, inputs: Mapping[Path, Tensor], at_risk: Tensor, after: Tensor):
        self.version, self.shape, self.device = version, after.shape, after.device
        self.versions = {path: x.version for path, x in inputs.items() if isinstance(x, Taped)}
        self.inputs = {path: (x.shape, x.dtype) for path, x in inputs.items()}
        self.step = Met.of(step.detach(), (), inputs.keys())
        self.risk = Bits.of(at_risk)
        self._events: InPass[list[tuple[Tensor, Tensor, Tensor]]] = InPass(list)

    def add(self, where: Tensor, today: Tensor, earlier: Tensor) -> None:
        """Take adjoints of events in this step: with respect to its own hazard, and to what came before."""
        self._events.value.append((where, today, earlier))

    def back(self) -> list[Tensor | None]:
        """Take the adjoint of the version it made back to the one before; gives those of its inputs."""
        flat, events = self.version.settle(), self._events.taken()
        for where, today, _ in events:
            flat.index_add_(0, where, today.to(flat.dtype))
        found = Found({path: shape for path, (shape, _) in self.inputs.items()}, self.device)
        lead, n = tuple(self.shape[:-1]), self.shape[-1]
        for k, row in enumerate(rows(lead)):
            self._row(lead, row, flat[k * n : (k + 1) * n], found)
        for where, today, earlier in events:
            flat.index_add_(0, where, (earlier - today).to(flat.dtype))
        self.version.done(flat)
        for path, version in self.versions.items():
            version.leave_all(found[path])
        return [None if path in self.versions else found[path].to(dtype) for path, (_, dtype) in self.inputs.items()]

    def _row(self, lead: Shape, row: Shape, adjoint: Tensor, found: Found) -> None:
        step, risk = self.step.at(lead, row), self.risk.at(lead, row)
        if self.device.type == "cpu" and adjoint.dtype == torch.float64 and can_stand(step):
            kept = self.version.adjoint.standing
            standing = kept.get(row) or kept.setdefault(row, Standing(step, adjoint.shape[0]))
            if standing.fits(step):
                standing.take_up(step, adjoint, risk, lead, row, found)
                return
        sinks: list[Sink] = []

        def work() -> Callable[[slice], None]:
            sink: Sink = {}
            sinks.append(sink)

            def block(agents: slice) -> None:
                here = adjoint[agents]
                if bool(here.any()):
                    step.pull(here.float() * risk.read(agents), agents, sink)

            return block

        blocked(adjoint.shape[0], work, device=self.device)
        step.collect(sinks, lead, row, found)


class _Accrue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor | None, accrual: _Accrual, *inputs: Tensor) -> Tensor:
        ctx.accrual, ctx.first = accrual, token is None
        return torch.zeros(1, device=accrual.device)

    @staticmethod
    def backward(ctx: Any, token: Tensor) -> Any:
        found = ctx.accrual.back()
        versions = ctx.accrual.versions
        inputs = (token if path in versions else x for path, x in zip(ctx.accrual.inputs, found, strict=True))
        return None if ctx.first else token, None, *inputs


class _Left(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, accrual: _Accrual, where: Tensor, left: Tensor, hazard: Tensor) -> Tensor:
        ctx.accrual, ctx.where = accrual, where
        ctx.save_for_backward(hazard.float(), left.float())
        return left

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> Any:
        hazard, left = ctx.saved_tensors
        each = adjoint / hazard
        ctx.accrual.add(ctx.where, each * (1.0 - left), each)
        return adjoint.new_zeros(1, dtype=torch.float32), None, None, None, None
