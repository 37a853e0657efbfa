"""How likely it was that as many events happened each day as were seen, by guided runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from lpmppl.effects.handlers.guided import Guided
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError, nearest
from lpmppl.inference.run import alone, checked, drawn, playing, whole
from lpmppl.models.model import Model

__all__ = ["likelihood"]


def likelihood(
    model: Model,
    observed: Mapping[str, Sequence[float]],
    draws: int = 64,
    seed: int = 0,
    *,
    set: Mapping[str, float] | None = None,
    interventions: Sequence[tuple[str, float | str, int]] = (),
) -> xr.Dataset:
    r"""The log-likelihood of each day's number of events, the mean over guided runs of the weight of each.

    .. math:: \hat L = \frac1D \sum_{d=1}^D w_d, \qquad \mathbb E\, \hat L = P(k_1, \dots, k_T \mid \theta)

    Every run has as many events each day as were seen, to whom hazards and chance say (`lpmppl.effects.handlers.
    guided`).

    Args:
        model: the society, of some 100,000 agents or fewer.
        observed: by hazard site, such as "infection", the number of events on each day from the first on, NaN where it
            wasn't seen.
        draws: how many guided runs, 2 or more.
        seed: the seed of all chance.
        set: values of parameters, by name; the others are at their defaults.
        interventions: `(name, value, day)`: what was done.
    Returns:
        `log_weight` over `draw`; the attrs `log_likelihood`, with the standard error of its estimate `se`, and
        `effective_draws`, :math:`(\sum w)^2 / \sum w^2`. It is minus infinity where no run could be as was seen.
    Raises:
        InputError: for a site that there isn't, a series that isn't of counts, or a number that can't be used.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> seen = {"infection": [10, 12, 9]}
    >>> likely, not_so = (
    ...     likelihood(model, seen, draws=8, set={"initial_infected": 0.05, "beta": b}).attrs["log_likelihood"]
    ...     for b in (0.15, 0.6)
    ... )
    >>> likely > not_so
    True
    """
    alone("a likelihood")
    draws = whole("draws", draws, 2)
    series = Guided(observed).observations
    days = max(len(counts) for counts in series.values())
    fixed, acts = checked(model, max(1, days), seed, set or {}, interventions, None, "")
    (values,) = drawn(model, fixed, None, int(seed))
    logs = []
    for draw in range(draws):
        guided = Guided(series, int(seed), draw)
        with torch.no_grad(), playing(model, int(seed), draw, acts, DiscreteTime(), inside=[guided]):
            theta = {n: torch.tensor(x, device=model.population.device) for n, x in values.items()}
            simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(float(days)))
        for site in series:
            if site not in guided.sites:
                raise InputError(nearest("hazard site", site, guided.sites))
        logs.append(float(guided.log_weight))
    return _dataset(np.array(logs), int(seed))


def _dataset(logs: np.ndarray, seed: int) -> xr.Dataset:
    most = logs.max()
    weights = np.exp(logs - most) if math.isfinite(most) else np.zeros(len(logs))
    mean = weights.mean()
    return xr.Dataset({"log_weight": ("draw", logs)}, {"draw": np.arange(len(logs))}).assign_attrs(
        log_likelihood=float(most + np.log(mean)) if mean else -math.inf,
        se=float(weights.std(ddof=1) / math.sqrt(len(logs)) / mean) if mean else math.nan,
        effective_draws=float(weights.sum() ** 2 / (weights**2).sum()) if mean else 0.0,
        draws=len(logs),
        seed=seed,
    )
