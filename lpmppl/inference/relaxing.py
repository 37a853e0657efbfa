"""The derivative of tallies by relaxations: a run whose events derive as fractions, and a pass backwards."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from lpmppl.effects.handlers.relaxations import GumbelSoftmax, MeanField, Relaxing, StraightThrough
from lpmppl.inference.flipping import Direct, Question

__all__ = ["RELAXATIONS", "relaxation", "relaxed"]

RELAXATIONS = ("straight-through", "gumbel-softmax", "mean-field")


def relaxation(name: str, chance: int = 0, seed: int = 0, tau: float = 1.0) -> Relaxing:
    """The handler of a relaxation, by the estimator's name."""
    if name == "gumbel-softmax":
        return GumbelSoftmax(tau, seed, chance)
    return StraightThrough() if name == "straight-through" else MeanField()


def relaxed(question: Question, chances: Iterable[int], name: str, tau: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Take derivatives by one run of each draw and a pass backwards for each of the M things asked for.

    Args:
        question: what is asked.
        chances: the draws of the agents' chance.
        name: the relaxation.
        tau: the temperature of the Gumbel-softmax.
    Returns:
        derivatives of every draw, shape (D, M, P), and what was asked for in it, (D, M).
    """
    value, base = [], []
    for chance in chances:
        theta = question.values(differentiated=True)
        wrt = {n: theta[n] for n in question.names}
        tally = Direct(question.of)
        with torch.enable_grad():
            record = question.run(theta, chance, tally, relaxation(name, chance, question.seed, tau))
        series = question.series(record)
        value.append(tally.derivatives(question, series, wrt))
        base.append(question.read(series))
    return np.array(value), np.array(base)
