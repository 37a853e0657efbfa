"""Derivatives by differences among the same chance: right for any program, at two runs for each parameter and draw."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor
from torch.distributions import biject_to

from lpmppl.effects.handlers.record import Record
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.flipping import ROWS, Question, by_row, expanded
from lpmppl.models.model import Model

__all__ = ["Way", "chances", "differences", "either_side", "either_value", "on_each_side", "slope", "spread"]

_EDGE = 100.0
"""How far from its middle a value lies, on the scale on which it is unbounded, that is at an edge: e^−100 of it."""

_PRIOR_DRAWS = 2000
_TRIAL, _TIPPED = 2, 2.0
_TAKES_ROWS: WeakKeyDictionary[Model, dict[tuple[str, ...], bool]] = WeakKeyDictionary()

Way = tuple[Mapping[str, float], Mapping[str, float], float]
"""Two settings of parameters, and how far apart they are."""


def differences(question: Question, chance: int, ways: Sequence[Way]) -> tuple[np.ndarray, np.ndarray]:
    """The difference of what is asked for between either side of each way, over their distance.

    All sides have the same draw of everybody's chance. Those of one draw are simulated together, a row each: the laws
    have it that a row is the run of its parameters.

    Args:
        question: what is asked.
        chance: which draw of the agents' chance.
        ways: from where to where.
    Returns:
        differences of shape (ways, M), and the mean of all sides, shape (M,).
    """
    sides = [side for above, below, _ in ways for side in (above, below)]
    (found,) = on_each_side([question], chance, sides)
    found = found.astype(float)
    width = np.array([distance for _, _, distance in ways])
    return (found[::2] - found[1::2]) / width[:, None], found.mean(0)


def on_each_side(asked: Sequence[Question], chance: int, sides: Sequence[Mapping[str, float]]) -> list[np.ndarray]:
    """What is asked for on every side, with the same draw of everybody's chance.

    Args:
        asked: questions that differ in their tally and how it is read.
        chance: which draw of the agents' chance.
        sides: settings of parameters.
    Returns:
        for each question, shape (sides, M).
    """
    question = asked[0]
    rows = max(2, ROWS // question.model.population.everybody)
    batches = [sides[k : k + rows] for k in range(0, len(sides), rows)]
    if len(sides) > 1 and not _takes_rows(question, batches):
        batches = [[side] for side in sides]
    parts = [_together(asked, chance, batch) for batch in batches]
    return [np.concatenate(of) for of in zip(*parts, strict=True)]


def _together(asked: Sequence[Question], chance: int, sides: Sequence[Mapping[str, float]]) -> list[np.ndarray]:
    """What each question asks for on every side, shape (sides, M)."""
    record = _recorded(asked[0], chance, sides, asked[0].days)
    return [np.stack([q.read(row) for row in by_row(q.series(record), len(sides))]) for q in asked]


def _recorded(question: Question, chance: int, sides: Sequence[Mapping[str, float]], days: int) -> Record:
    """The tallies of a run with a row for each side, or of one side without rows."""
    theta: dict[str, Tensor] = question.values()
    device = question.model.population.device
    for name in dict.fromkeys(name for side in sides for name in side):
        values = torch.tensor([side.get(name, question.theta[name]) for side in sides], device=device)
        theta[name] = values.reshape(-1, 1) if len(sides) > 1 else values.reshape(())
    with torch.no_grad(), question.playing(chance, last=days) as record:
        state = question.model.initial(theta)
        question.days_from(theta, expanded(state, len(sides)) if len(sides) > 1 else state, 0, days)
    return record


def _takes_rows(question: Question, batches: Sequence[Sequence[Mapping[str, float]]]) -> bool:
    """Whether the model takes parameters in rows, and makes of each row what it makes of it alone.

    A program that reads a parameter as one number can't, or worse, makes the same of all rows.
    """
    key = tuple(sorted({name for batch in batches for side in batch for name in side}))
    known = _TAKES_ROWS.setdefault(question.model, {})
    if key not in known:
        try:
            known[key] = all(_alike(question, batch) for batch in batches)
        except (RuntimeError, ValueError, IndexError, TypeError, LpmError):
            known[key] = False
    return known[key]


def _alike(question: Question, batch: Sequence[Mapping[str, float]]) -> bool:
    days = min(_TRIAL, question.days)
    rows = _recorded(question, 0, batch, days)
    return all(_same(rows, _recorded(question, 0, [side], days), k) for k, side in enumerate(batch))


def _same(rows: Record, alone: Record, row: int) -> bool:
    for name, series in rows.series.items():
        values = series.values
        mine = values[:, row] if values.ndim > 2 else values
        if mine.shape != alone.series[name].values.shape:
            return False
        # A rounding may tip one event.
        if np.abs(mine - alone.series[name].values).sum() > _TIPPED * max(1.0, series.quantum or 1.0):
            return False
    return True


def spread(model: Model, name: str) -> float:
    """The standard deviation of a parameter's prior on the scale on which it is unbounded."""
    return _spread(model.parameters[name].prior)


@lru_cache(maxsize=1024)
def _spread(prior: TorchDistributionMixin) -> float:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = biject_to(prior.support).inv(prior.sample((_PRIOR_DRAWS,)).double())
    return float(found[torch.isfinite(found)].std())


def inside(model: Model, name: str, value: float | None = None) -> bool:
    """Whether a parameter's value, or its default, lies inside its prior's support and not at an edge, as a share 0."""
    bounded = biject_to(model.parameters[name].prior.support)
    at = model.parameters[name].default if value is None else value
    # torch's inverse maps an edge to the number nearest to infinity that it can map back.
    return abs(float(bounded.inv(torch.tensor(at, dtype=torch.float64)))) < _EDGE


def either_side(model: Model, values: Mapping[str, float], direction: Mapping[str, float], step: float) -> Way:
    """The settings a step above and below along a direction, in standard deviations of the priors, two steps apart.

    Raises:
        InputError: for a parameter without room for a step to either side.
    """
    sides: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for name, much in direction.items():
        free = biject_to(model.parameters[name].prior.support).inv
        middle = free(torch.tensor(values[name], dtype=torch.float64))
        reach = step * much * spread(model, name)
        above, below = (float(free.inv(middle + sign * reach).float()) for sign in (1.0, -1.0))
        if not (math.isfinite(above) and math.isfinite(below) and (above - below) * much > 0):
            raise InputError(
                f"parameter {name}={values[name]:g} has no room for a step of {step:g} standard deviations to either "
                "side; set it to a value inside its prior's support, or give another step"
            )
        sides[0][name], sides[1][name] = above, below
    return (*sides, 2 * step)


def either_value(model: Model, values: Mapping[str, float], name: str, step: float) -> Way:
    """The values of one parameter a step above and below, as far apart as these are."""
    above, below, _ = either_side(model, values, {name: 1.0}, step)
    return above, below, above[name] - below[name]


def slope(model: Model, values: Mapping[str, float], name: str) -> float:
    """How much a parameter changes by where its unbounded scale moves by one standard deviation of its prior."""
    free = biject_to(model.parameters[name].prior.support)
    middle = free.inv(torch.tensor(values[name], dtype=torch.float64)).requires_grad_()
    (found,) = torch.autograd.grad(free(middle), middle)
    return float(found) * spread(model, name)


def chances(draws: int, apart: int = 0) -> Iterator[int]:
    """The draws of everybody's chance that an estimate is made of; `apart` ones have nothing to do with others."""
    return iter(range(apart * 2**20, apart * 2**20 + draws))
