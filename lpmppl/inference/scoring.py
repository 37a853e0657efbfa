"""The derivative of tallies by score functions: what comes after each step, weighed by how likely the step was."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from lpmppl.effects.handlers.held import BEFORE
from lpmppl.effects.handlers.score_function import ScoreFunction
from lpmppl.inference.flipping import Direct, Question

__all__ = ["scored"]


def scored(question: Question, chances: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Estimate derivatives from one run for each draw; the mean of the other draws is each one's baseline.

    Args:
        question: what is asked.
        chances: the draws of the agents' chance, two or more.
    Returns:
        derivatives of every draw, shape (D, M, P), and what was asked for in it, (D, M).
    """
    to_go, slopes, direct = [], [], []
    for chance in chances:
        theta = question.values(differentiated=True)
        wrt = {name: theta[name] for name in question.names}
        tally, scores = Direct(question.of), ScoreFunction(wrt)
        base = question.series(question.run(theta, chance, tally, scores))
        direct.append(tally.derivatives(question, base, wrt))
        steps = np.zeros((question.days + 1, len(wrt)))
        for step, found in scores.slopes().items():
            steps[step - BEFORE] = found.numpy()
        slopes.append(steps)
        to_go.append(_to_go(question, base))
    left, each = np.array(to_go), np.array(slopes)
    baseline = (left.sum(0) - left) / (len(left) - 1)
    value = np.einsum("dtm,dtp->dmp", left - baseline, each) + np.array(direct)
    return value, left[:, 0]


def _to_go(question: Question, base: np.ndarray) -> np.ndarray:
    """What is asked for, of the days from each one on, before the first one on as well: shape (T + 1, M)."""
    days = []
    for day in range(question.days):
        one = np.zeros(base.shape)
        one[day] = base[day]
        days.append(question.read(one))
    left = np.cumsum(np.array(days)[::-1], 0)[::-1]
    return np.concatenate([left[:1], left])
