"""Abduction in two passes: runs guided by what was seen, and the noise that each of them must have had."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lpmppl.effects.handlers.abducted import Abduct, Abducted
from lpmppl.effects.handlers.guided import Guided, Observations
from lpmppl.effects.handlers.stratified import each
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError
from lpmppl.inference.likelihood import Guide, with_shares
from lpmppl.inference.run import playing
from lpmppl.inference.seen import by_stratum
from lpmppl.models.model import Model

__all__ = ["MOST", "Abduction", "abducted"]

_LEAST, _LEAST_EACH = 10.0, 2.0
"""The effective number of guided runs that there must be: of all draws together, or of each draw of a posterior."""
_APART = 15.0
"""How far apart the log-probabilities of what was seen may be between draws of a posterior given the same."""
MOST = 1_000_000
"""How many guided runs may be asked for."""


@dataclass(frozen=True)
class Abduction:
    """Draws of a society that are as was seen.

    Attributes:
        whose: which draw of the parameters each one has.
        noises: the noise of each, with which a run has exactly the events that were seen.
        weights: what each counts for, adding up to 1, float64 of shape (draws,).
        effective: the effective number of guided runs that they were chosen from.
        runs: how many of those there were.
        series: what was seen, as it was read.
    """

    whose: list[int]
    noises: list[Abducted]
    weights: np.ndarray
    effective: float
    runs: int
    series: Observations


def abducted(
    model: Model,
    observed: Observations,
    thetas: Sequence[Mapping[str, float]],
    number: int,
    guided: int,
    days: int,
    seed: int,
    acts: Sequence[Sequence[Any]] = (),
    fitted: bool = False,
) -> Abduction:
    r"""Find parameters and noise under which as many events happen each day as were seen.

    Runs are guided, so that each has just these, and chosen with probabilities in proportion to their weights. Where
    the parameters come from a posterior, which has seen the same, each draw of it chooses among its own runs; from
    priors, all choose among all.

    Args:
        model: the society.
        observed: by hazard site, the number of events on each day from the first on, NaN where it wasn't seen.
        thetas: the parameters of each draw, all of them.
        number: how many noises are to be chosen, a multiple of the draws of a posterior.
        guided: how many guided runs are made for each of them, among all parameters alike.
        days: how many days the society is to be run for.
        seed: the seed of all chance.
        acts: what was done: name, value and day.
        fitted: whether the parameters are draws of the posterior given what was seen.
    Raises:
        InputError: for a site that there isn't, a series that isn't of counts or longer than the run; where no run can
            be as was seen, or too few carry the weight.
    """
    series = Guided(by_stratum(model, observed)).observations
    span = max(len(counts) for counts in series.values())
    if span > days:
        raise InputError(f"{span} days were observed, but the run has {days}; run it for as many, or observe fewer")
    done = [act for act in acts if act[2] < span]
    whose = np.repeat(np.arange(len(thetas)), number * guided // len(thetas)).tolist()
    _, log_weights = Guide(model, series, span, seed, done)([thetas[k] for k in whose], range(len(whose)))
    groups = np.arange(len(whose)).reshape(len(thetas) if fitted else 1, -1)
    logs = log_weights.numpy()[groups]
    _check(logs, series, fitted)
    shares = np.exp(logs - logs.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    chance = np.random.default_rng(seed)
    picked: list[int] = []
    for group, share in zip(groups, shares, strict=True):
        places = (chance.random() + np.arange(number // len(groups))) * len(groups) / number
        picked += group[np.searchsorted(share.cumsum(), places).clip(max=len(group) - 1)].tolist()
    runs, times = np.unique(picked, return_counts=True)
    noises = [_noise(model, series, thetas[whose[k]], int(k), span, seed, done) for k in runs]
    return Abduction(
        [whose[k] for k in runs], noises, times / times.sum(), float(_effective(logs).sum()), len(whose), series
    )


def _effective(logs: np.ndarray) -> np.ndarray:
    r"""The effective number of runs, :math:`(\sum w)^2 / \sum w^2`, of log-weights of shape (groups, runs)."""
    weights = np.exp(logs - logs.max(-1, keepdims=True))
    return np.asarray(weights.sum(-1) ** 2 / (weights**2).sum(-1))


def _check(logs: np.ndarray, series: Observations, fitted: bool) -> None:
    """Refuse guided runs that can't be as was seen, or of which too few carry the weight."""
    impossible = ~np.isfinite(logs).any(-1)
    if impossible.any():
        whole = ", ".join(f"{site} {[int(x) if x == x else None for x in counts]}" for _, site, counts in each(series))
        of = f"with {impossible.sum()} of {len(logs)} draws of the posterior, " if fitted else ""
        raise InputError(
            f"{of}none of {logs.shape[1]} guided runs could have as many events as were seen of {whole}: somebody "
            "must be there to bring them, and as many be at risk; give more guided=, or look at what begins it"
        )
    worth, least = float(np.median(_effective(logs))), _LEAST_EACH if fitted else _LEAST
    if worth < least:
        one = "each draw's guided runs are" if fitted else "the guided runs are"
        raise InputError(
            f"{one} worth {worth:.1f} that are as was seen, of {logs.shape[1]}, and {least:g} are "
            "needed; give more guided=, observe a shorter span, or draw from a posterior that has seen the same"
        )
    evidence = np.logaddexp.reduce(logs, -1)
    far = int((evidence < evidence.max() - _APART).sum())
    if far:
        warnings.warn(
            f"what was seen is e^{_APART:g} times less likely with {far} of {len(logs)} draws of the posterior than "
            "with the best: it must be one given the same observations",
            stacklevel=4,
        )


def _noise(
    model: Model,
    series: Observations,
    values: Mapping[str, float],
    draw: int,
    days: int,
    seed: int,
    acts: Sequence[Sequence[Any]],
) -> Abducted:
    """Make the guided run of a draw again, and keep the noise that it must have had."""
    noise = Abducted(seed, draw)
    inside = [Guided(with_shares(series, [values]), seed, draw), Abduct(noise)]
    with torch.no_grad(), playing(model, seed, draw, acts, DiscreteTime(), inside=inside, noise=noise):
        theta = {name: torch.tensor(x, device=model.population.device) for name, x in values.items()}
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(float(days)))
    return noise
