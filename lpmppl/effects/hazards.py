"""Hazards that accrue: a step's hazard on top of what agents at risk have met so far, in one blocked pass."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from lpmppl.effects.fields import Field, Rooms, Shape, row_of, shape_of
from lpmppl.effects.internals.segments import (
    BLOCK,
    blocked,
    broadcast,
    empty,
    expose,
    known,
    meeting,
    meeting_sum,
)

__all__ = ["accumulate", "rows"]


def accumulate(
    before: Tensor,
    hazard: Tensor | Field | float,
    at_risk: Tensor,
    dt: Tensor | float,
    level: Tensor | None = None,
    crossed: Tensor | None = None,
) -> Tensor:
    """Add a step's hazard to the cumulative hazard of the agents at risk, in one blocked pass where it is a field.

    Args:
        before: cumulative hazard, shape (…, N).
        hazard: hazard per unit of time, a field, a number or a tensor broadcastable to (…, N).
        at_risk: Boolean, shape (…, N).
        dt: the length of the step, a number or a tensor whose last dimension is 1.
        level: where the hazard is a field, levels of shape (…, N) to look out for in the same pass.
        crossed: a Boolean of the result's shape to write into where `level` lies in (before, after] of one at risk.
    Returns:
        `before + at_risk · hazard · dt`, in the dtype of `before`, shape broadcast of all.
    """
    if not isinstance(hazard, Field):
        return before + (at_risk * (hazard * dt)).to(before.dtype)
    step: Field = hazard * dt
    shape = broadcast(before.shape, step.shape, at_risk.shape, shape_of(level if level is not None else 0.0))
    lead, n = tuple(shape[:-1]), shape[-1]
    out = empty(shape, before.dtype, before.device)
    found: dict[int, Tensor] = {}
    for k, row in enumerate(rows(lead)):
        here, was, risk = step.at(lead, row), before[row_of(lead, before, row)], at_risk[row_of(lead, at_risk, row)]
        if level is None or crossed is None:
            work = functools.partial(_exposing, here, was, risk, out[row])
        else:
            levels = level[row_of(lead, level, row)]
            work = functools.partial(_meeting, here, was, risk, out[row], levels, crossed[row], k * n, found)
        blocked(n, work, _length(n), before.device)
    if crossed is not None and found:
        known(crossed, torch.cat([found[k] for k in sorted(found)]))
    return out


def _length(n: int) -> int:
    """Agents per block: of many, twice as many, since each block costs the interpreter as much as fifty thousand."""
    return BLOCK if n < 16 * BLOCK else 2 * BLOCK


def _rooms(like: Tensor) -> Rooms:
    return Rooms(_length(like.shape[-1]) if like.device.type == "cpu" else like.shape[-1], like.device)


def _exposing(hazard: Field, before: Tensor, risk: Tensor, after: Tensor) -> Callable[[slice], None]:
    rooms = _rooms(before)

    def do(block: slice) -> None:
        with rooms.room(block.stop - block.start) as step:
            hazard.fill(block, step, False, rooms)
            expose(step, risk[block], before[block], after[block])

    return do


def _meeting(
    hazard: Field,
    before: Tensor,
    risk: Tensor,
    after: Tensor,
    level: Tensor,
    event: Tensor,
    first: int,
    found: dict[int, Tensor],
) -> Callable[[slice], None]:
    meet = meeting(risk, before, after, level, event)
    places = torch.empty(_length(before.shape[-1]), dtype=torch.int64) if before.device.type == "cpu" else None
    flat = hazard.flat if places is not None else None
    if flat is not None and (whole := meeting_sum(*flat, risk, before, after, level, event)):

        def at_once(block: slice) -> None:
            assert places is not None
            found[first + block.start] = whole(block, first + block.start, places)

        return at_once
    rooms = _rooms(before)

    def do(block: slice) -> None:
        with rooms.room(block.stop - block.start) as step:
            hazard.fill(block, step, False, rooms)
            # Who it is is looked up while the block is in cache.
            found[first + block.start] = meet(step, block, first + block.start, places)

    return do


def rows(lead: Shape) -> list[Shape]:
    """Every index of the leading dimensions."""
    return list(itertools.product(*(range(n) for n in lead)))
