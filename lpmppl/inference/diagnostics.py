"""Whether posteriors of a model are right: fitted to data that it made itself, by parameters that are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from lpmppl.errors import InputError, LpmError
from lpmppl.inference.calibrate import calibrate, fitted_names
from lpmppl.inference.checks import alone, checked, whole
from lpmppl.inference.exactly import calibrate_exactly
from lpmppl.inference.observed import tally_of
from lpmppl.inference.run import drawn, run
from lpmppl.inference.scales import Scale
from lpmppl.models.model import Model

__all__ = ["simulation_based_calibration"]

_BINS, _LEVEL, _SURE = 10, 0.9, 0.01
_FITS = 2**40
"""From which seed on fits have theirs, which no data set has."""

_FEW = 20
"""Data sets below which uniformity can't be judged."""


def simulation_based_calibration(
    model: Model,
    streams: str | Sequence[str] | Mapping[str, str],
    days: int,
    datasets: int = 200,
    *,
    exactly: bool = False,
    parameters: Collection[str] | str = "all",
    set: Mapping[str, float] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> xr.Dataset:
    r"""Fit data that the model made by parameters from its priors, and see where these lie among the posterior's draws.

    Where posteriors are right, the rank of a parameter among the draws is uniform, and 90 % intervals hold 90 % of them
    (Talts et al., arXiv:1804.06788, 2018):

    .. math:: \theta \sim \pi, \quad y \sim p(y \mid \theta), \quad \theta_1, \dots, \theta_L \sim q(\theta \mid y)
        \;\Rightarrow\; \#\{\theta_l < \theta\} \sim \mathrm{Uniform}\{0, \dots, L\}

    Args:
        model: the society.
        streams: what is observed, by the names that `calibrate` takes, as the whole society's counts; or tallies by
            such names, as in `{"infection": "infections"}` for a hazard site.
        days: for how many days.
        datasets: how many data sets.
        exactly: fit by `calibrate_exactly`, by hazard sites.
        parameters: those that are drawn and fitted, or "all".
        set: values of parameters that aren't.
        seed: the seed of all chance.
        progress: is told in words how far it is.
        options: what else the fit is given, such as `rounds`.
    Returns:
        over `dataset` and `parameter`: `rank`, the share of draws below the truth, `covered`, whether the 90 % interval
        holds it, `truth`, `mean` and `sd`; over `parameter`: `p_value` of a chi-squared test of uniform ranks, and
        `coverage`. Its attrs have `verdict` in words, and `failed`, how many fits had no result.
    Raises:
        InputError: for a stream, parameter or number that can't be used.
    """
    alone("a check of posteriors")
    days, datasets = whole("days", days, 2), whole("datasets", datasets, 2)
    fixed, _ = checked(model, days, seed, set or {}, (), None, "")
    tallies = _tallies(model, streams)
    scale = Scale(model, fitted_names(model, parameters, fixed))
    (rest,) = drawn(model, fixed, None, int(seed))
    truths = scale.values(scale.drawn(datasets, int(seed)))
    rank, truth, mean, sd, covered = (np.full((datasets, len(scale)), np.nan) for _ in range(5))
    failed = 0
    for k, values in enumerate(truths):
        progress(f"data set {k + 1} of {datasets}")
        made = run(model, days, seed=int(seed) + 1 + k, set={**rest, **values})["prior_predictive"].to_dataset()
        seen: dict[str, Any] = {
            n: made[t].sum([d for d in made[t].dims if d != "day"]).to_numpy().astype(float) for n, t in tallies.items()
        }
        try:
            again: dict[str, Any] = {"parameters": scale.names, "set": fixed, "seed": _FITS + int(seed) + k}
            if exactly:
                found = calibrate_exactly(model, seen, **again, **options)
            else:
                found = calibrate(model, seen, **again, **{"restarts": 1, **options})
        except LpmError:
            failed += 1
            continue
        for p, name in enumerate(scale.names):
            draws = found["posterior"][name].to_numpy().reshape(-1)
            truth[k, p], mean[k, p], sd[k, p] = values[name], draws.mean(), draws.std()
            rank[k, p] = (draws < values[name]).mean()
            low, high = np.quantile(draws, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
            covered[k, p] = low <= values[name] <= high
    dims = ("dataset", "parameter")
    ranks = xr.Dataset(
        {
            n: (dims, x)
            for n, x in zip(("rank", "truth", "mean", "sd", "covered"), (rank, truth, mean, sd, covered), strict=True)
        },
        {"dataset": np.arange(datasets), "parameter": scale.names},
    )
    ranks["p_value"] = ("parameter", [_uniform(rank[:, p]) for p in range(len(scale))])
    ranks["coverage"] = ranks["covered"].mean("dataset")
    return ranks.assign_attrs(verdict=json.dumps(_said(ranks, datasets - failed), ensure_ascii=False), failed=failed)


def _tallies(model: Model, streams: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """The tally of each stream, by its name in the data."""
    if isinstance(streams, Mapping):
        asked = dict(streams)
    else:
        asked = {name: name for name in ([streams] if isinstance(streams, str) else streams)}
    if not asked:
        raise InputError(f"streams= names nothing; give one or more, such as '{next(iter(model.tallies))}'")
    return {name: tally_of(model, tally) for name, tally in asked.items()}


def _uniform(ranks: np.ndarray) -> float:
    """The p-value of ranks in (0, 1) being uniform."""
    known = ranks[~np.isnan(ranks)]
    bins = min(_BINS, max(2, len(known) // 5))
    if len(known) < bins:
        return float("nan")
    return float(stats.chisquare(np.histogram(known, bins, (0.0, 1.0))[0]).pvalue)


def _said(found: xr.Dataset, known: int) -> list[str]:
    """What the ranks and intervals say, in words."""
    if known < _FEW:
        return [f"{known} data sets are too few to judge: give {_FEW} or more"]
    said = []
    for name in found["parameter"].values:
        one = found.sel(parameter=name)
        p, share = float(one["p_value"]) * found.sizes["parameter"], float(one["coverage"])
        edges = float(((one["rank"] < 0.05) | (one["rank"] > 0.95)).mean())
        if p < _SURE:
            way = "too confident" if edges > 0.15 else "too wide or biased"
            said.append(f"{name}: {way}, its ranks aren't uniform; 90 % intervals hold {share:.0%}")
    return said or ["ranks are uniform as far as this many data sets can tell"]
