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
from lpmppl.inference.side_by_side import cores, parted, side_by_side
from lpmppl.models.model import Model

__all__ = [
    "Way",
    "chances",
    "differences",
    "either_side",
    "either_value",
    "on_each_side",
    "slope",
    "spread",
    "takes_rows",
]

_EDGE = 100.0
"""How far from its middle a value lies, on the scale on which it is unbounded, that is at an edge: e^−100 of it."""

_PRIOR_DRAWS = 2000
_TRIAL, _TIPPED = 2, 2.0
_TAKES_ROWS: WeakKeyDictionary[Model, dict[frozenset[str], bool]] = WeakKeyDictionary()

Way = tuple[Mapping[str, float], Mapping[str, float], float]
"""Two settings of parameters, and how far apart they are."""


def differences(question: Question, chances: Sequence[int], ways: Sequence[Way]) -> tuple[np.ndarray, np.ndarray]:
    """The difference of what is asked for between either side of each way, over their distance.

    All sides have the same draw of everybody's chance. Those of one draw are simulated together, a row each: the laws
    have it that a row is the run of its parameters.

    Args:
        question: what is asked.
        chances: which draws of the agents' chance, D of them.
        ways: from where to where.
    Returns:
        differences of shape (D, ways, M), and the mean of all sides, shape (D, M).
    """
    sides = [side for above, below, _ in ways for side in (above, below)]
    (found,) = on_each_side([question], chances, sides)
    found = found.astype(float)
    width = np.array([distance for _, _, distance in ways])
    return (found[:, ::2] - found[:, 1::2]) / width[:, None], found.mean(1)


def on_each_side(
    asked: Sequence[Question], chances: Sequence[int], sides: Sequence[Mapping[str, float]]
) -> list[np.ndarray]:
    """What is asked for on every side, with the same draws of everybody's chance.

    Args:
        asked: questions that differ in their tally and how it is read.
        chances: which draws of the agents' chance, D of them.
        sides: settings of parameters.
    Returns:
        for each question, shape (D, sides, M).
    """
    question = asked[0]
    population = question.model.population
    rows = max(2, ROWS // population.everybody)
    at_once = cores(population, question.days * len(sides) * len(chances), min(rows, len(sides)))
    batches = parted(len(sides), rows, at_once, len(chances))
    parts = [[sides[k] for k in batch] for batch in batches]
    if max(map(len, parts)) > 1 and not takes_rows(question, sides):
        parts = [[side] for side in sides]

    def piece(k: int) -> list[np.ndarray]:
        return _together(asked, chances[k // len(parts)], parts[k % len(parts)])

    found = side_by_side(piece, len(chances) * len(parts), at_once)
    each = [np.concatenate(of) for of in zip(*found, strict=True)]
    return [x.reshape(len(chances), len(sides), *x.shape[1:]) for x in each]


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


def takes_rows(question: Question, sides: Sequence[Mapping[str, float]]) -> bool:
    """Whether the model takes parameters in rows, and makes of each row what it makes of it alone.

    A program that reads a parameter as one number can't, or worse, makes the same of all rows. Two rows that differ in
    every parameter tell.
    """
    key = frozenset(name for side in sides for name in side)
    known = _TAKES_ROWS.setdefault(question.model, {})
    if any(takes and key <= more for more, takes in known.items()):
        return True
    if key not in known:
        one = {name: next(side[name] for side in sides if name in side) for name in key}
        found = {name: [side.get(name, question.theta[name]) for side in sides] for name in key}
        other = {name: next((x for x in reversed(found[name]) if x != one[name]), one[name]) for name in key}
        try:
            known[key] = _alike(question, [one, other])
        except (RuntimeError, ValueError, IndexError, TypeError, LpmError):
            known[key] = False
    return known[key]


def _alike(question: Question, sides: Sequence[Mapping[str, float]]) -> bool:
    days = min(_TRIAL, question.days)
    rows = _recorded(question, 0, sides, days)
    return all(_same(rows, _recorded(question, 0, [side], days), k) for k, side in enumerate(sides))


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
