"""Derivatives of a large society from a smaller one, held against the large one where they are steepest."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from lpmppl.errors import LpmError
from lpmppl.inference.audit import are_apart
from lpmppl.inference.differences import differences, either_side, slope
from lpmppl.inference.flipping import Question

__all__ = ["Whole", "against_whole"]

_OF_NOTE = 1e-3
"""The least component of a direction that is gone along: a lesser one may round to nothing."""


@dataclass(frozen=True)
class Whole:
    """What a large society makes of a smaller one's derivatives.

    Attributes:
        factor: what these are multiplied by.
        ratio: the large one's elasticity along the steepest direction over theirs, NaN where that is lost in noise.
        ratio_se: its standard error.
        base: what was asked for in the large one, shape (M,).
    """

    factor: float
    ratio: float
    ratio_se: float
    base: np.ndarray

    @property
    def gap(self) -> float:
        """By what share derivatives may be off, as far as one direction can tell."""
        return math.hypot(self.ratio - 1, self.ratio_se) if math.isfinite(self.ratio) else 0.0


def against_whole(large: Question, each: np.ndarray, typical: np.ndarray, agents: int, step: float) -> Whole:
    r"""Run a large society on either side along the direction in which a smaller one's derivatives are steepest.

    Elasticities depend less on how many agents there are than what happens to one of them, and scatter less. With g the
    derivatives' mean in units of their priors' deviations and V its variance, the derivative along g comes to
    :math:`(|g|^2 - \mathrm{tr} V)/|g|` where there is no noise in g.

    Args:
        large: the question, of the large society.
        each: derivatives of every draw in the smaller one, shape (D, M, P).
        typical: what was asked for in each, shape (D, M).
        agents: how many agents the smaller one has.
        step: how far to go to either side.
    Raises:
        LpmError: where the smaller society has none of what is asked for, and the large one some.
    """
    model, names, draws = large.model, large.names, len(each)
    free = each.sum(1) * np.array([slope(model, large.theta, n) for n in names])
    steepest = free.mean(0)
    length = float(np.linalg.norm(steepest))
    size = model.population.everybody / agents
    if not length:
        base = large.read(large.series(large.run(large.values(), 0)))
        if base.any() and not typical.any():
            raise LpmError(
                f"none of {large.of} in {draws} draws of {agents:,} agents, and {base.sum():,.0f} in the whole "
                "society: take more agents in within=, or leave it out"
            )
        return Whole(size, math.nan, math.nan, base)
    chosen = np.where(np.abs(steepest) < _OF_NOTE * length, 0.0, steepest)
    direction = chosen / np.linalg.norm(chosen)
    along = {n: d for n, d in zip(names, direction.tolist(), strict=True) if d}
    apart, (base,) = differences(large, [0], [either_side(model, large.theta, along, step)])
    there, came = float(apart.sum()), typical.sum(1)
    if came.mean() and base.sum() / came.mean() > 0:
        size = float(base.sum() / came.mean())
    foreseen = size * (length - float(free.var(0, ddof=1).sum()) / draws / length)
    if foreseen <= 0:
        warnings.warn(
            f"derivatives in {agents:,} agents are lost in their noise over {draws} draws, and can't be held against "
            "the whole society; take more draws, or more agents in within=",
            stacklevel=4,
        )
        return Whole(size, math.nan, math.nan, base)
    scatter = size * (free @ direction) / foreseen - (came / came.mean() if came.mean() else 0.0)
    ratio, error = there / foreseen, float(scatter.std(ddof=1)) / math.sqrt(draws)
    if are_apart(ratio, 1.0, error, draws):
        warnings.warn(
            f"along the direction in which it is steepest the whole society's elasticity is {ratio:.2f} times that of "
            f"{agents:,} agents; errors are as much larger; take more agents in within=",
            stacklevel=4,
        )
    return Whole(size * ratio if ratio > 0 else size, ratio, abs(ratio) * error, base)
