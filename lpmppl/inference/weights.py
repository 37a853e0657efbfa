"""Abduction: draws weighted by what was observed, so that a counterfactual is of the days that really were."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from lpmppl.effects.distributions import Counted
from lpmppl.errors import InputError, nearest
from lpmppl.inference.checks import whole
from lpmppl.inference.contrasts import check_compared, with_effects
from lpmppl.inference.policies import FACTUAL, WORLD

__all__ = ["WEIGHT", "weigh", "weighted"]

WEIGHT = "weight"
"""The coordinate of draws that says what each counts for; the weights add up to 1."""


def weigh(
    tree: xr.DataTree, observed: Mapping[str, Any], size: float | None = 10.0, least: float = 10.0, first: int = 0
) -> xr.DataTree:
    r"""Weight the draws of a counterfactual by how well their factual world agrees with observed tallies.

    Draws come from the prior or a posterior with chance of their own, so that the weights condition both: parameters
    and every person's noise. Effects and fates of the result are then those in the worlds that are like the observed
    one (abduction, action, prediction). It is for short spans: over long ones, few draws agree.

    .. math:: w_d \propto \prod_{k,t} \mathrm{NegBin}\big(y_{kt}; m^{(d)}_{kt} + \tfrac12, s\big)

    Args:
        tree: what `counterfactual` gave, of several draws.
        observed: series by tally of each day's sum over the society, as long as they were seen; NaN where a day isn't
            known.
        size: the dispersion s of the counts about the society's own, its variance being :math:`m + m^2 / s`; None where
            they are its own exactly, so that a draw counts or doesn't.
        least: the effective sample size that there must be, :math:`1 / \sum_d w_d^2`.
        first: the day of the first observation.
    Returns:
        the same tree with the coordinate `weight` on its draws, which `contrast`, `fates` and `cost_per` use, and with
        `effective_draws` and `observed` in its attrs.
    Raises:
        InputError: for a tally that the result hasn't, a series too long, negative or empty; if the effective sample
            size is below `least`.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> tree = lpm.counterfactual(model, {"transmission": 0.5}, at=1, days=2, draws=8)
    >>> seen = weigh(tree, {"infections": [1, 0]}, size=2.0, least=2.0)
    >>> bool(2.0 <= seen.attrs["effective_draws"] <= 8.0)
    True
    """
    check_compared(tree)
    if size is not None and not (_is_number(size) and size > 0):
        raise InputError(f"size={size} was given; give a dispersion above 0, or None for exact counts")
    if not (_is_number(least) and least >= 0):
        raise InputError(f"least={least} was given; give how many draws' worth there must be, such as 10")
    first = whole("first", first, 0)
    tallies = tree["prior_predictive"].to_dataset().sel({WORLD: FACTUAL}, drop=True)
    if not isinstance(observed, Mapping) or not observed:
        raise InputError("nothing was observed; give series by tally, such as {'tally': [0, 2, 3]}")
    score: Any = 0.0
    for name, series in observed.items():
        if name not in tallies.data_vars:
            raise InputError(nearest("tally", str(name), [str(n) for n in tallies.data_vars]))
        try:
            seen = np.asarray(series, float)
        except (TypeError, ValueError) as e:
            raise InputError(f"observed {name} can't be read: {series!r}; give one number for each day") from e
        days = tallies.sizes["day"]
        if seen.ndim != 1 or not 0 < len(seen) <= days - first or first < 0:
            raise InputError(
                f"observed {name} has shape {seen.shape} from day {first} of {days}; give one number for each day"
            )
        if np.isnan(seen).all():
            raise InputError(f"observed {name} has no number on any day; leave it out")
        if (seen < 0).any() or np.isinf(seen).any():
            raise InputError(f"observed {name} has {np.nanmin(seen):g} to {np.nanmax(seen):g}; counts are 0 or more")
        tally = tallies[name].sum([d for d in tallies[name].dims if d not in ("chain", "draw", "day")])
        own = tally.transpose("chain", "draw", "day").to_numpy()[0, :, first : first + len(seen)].astype(float)
        score = score + _agreement(own, seen, size)
    if WEIGHT in tree["prior_predictive"].coords:
        # What a draw counted for already it still does.
        with np.errstate(divide="ignore"):
            score = score + np.log(tree["prior_predictive"].coords[WEIGHT].to_numpy())
    if not np.isfinite(score).any():
        raise InputError("no draw agrees with what was observed; draw more, or observe a shorter span")
    weights = np.exp(score - score.max())
    weights /= weights.sum()
    effective = float(1 / (weights**2).sum())
    if effective < least:
        raise InputError(
            f"{effective:.1f} of {len(weights)} draws' worth agree with what was observed, and {least:g} are needed; "
            "draw more, observe a shorter span, or draw from a posterior"
        )
    found = weighted(tree.copy(), weights)
    said = json.loads(str(tree.attrs.get("observed", "{}")))
    said |= {name: np.asarray(series, float).tolist() for name, series in observed.items()}
    found.attrs |= {"effective_draws": effective, "observed": json.dumps(said)}
    return with_effects(found)


def weighted(tree: xr.DataTree, weights: np.ndarray) -> xr.DataTree:
    """Give the draws of a result their weights, shape (draws,)."""
    for group in ("prior", "prior_predictive", "flows", "sources", "triggers"):
        if group in tree.children:
            tree[group] = xr.DataTree(tree[group].to_dataset().assign_coords({WEIGHT: ("draw", weights)}))
    return tree


def _is_number(x: object) -> bool:
    return isinstance(x, int | float | np.number) and not isinstance(x, bool) and math.isfinite(x)


def _agreement(own: np.ndarray, seen: np.ndarray, size: float | None) -> np.ndarray:
    """The log-likelihood of a series in every draw, up to a constant: shape (draws,)."""
    known = ~np.isnan(seen)
    if size is None:
        return np.where((own[:, known] == seen[known]).all(-1), 0.0, -math.inf)
    mean = torch.from_numpy(own[:, known] + 0.5)
    return Counted(mean, size).log_prob(torch.from_numpy(seen[known])).sum(-1).numpy()
