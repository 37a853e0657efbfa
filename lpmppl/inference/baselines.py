"""Forecasters that know no society: the last week going on, and ARIMA."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.inference.checks import whole

__all__ = ["QUANTILES", "arima", "persistence"]

QUANTILES = (0.01, 0.025, *(round(0.05 * k, 2) for k in range(1, 20)), 0.975, 0.99)
"""The 23 quantiles of the forecast hubs of the United States."""

_PATHS = 10_000

_ORDERS = [((p, 1, q), (s, 0, 0, 7)) for p in range(3) for q in range(3) for s in (0, 1)]
"""Orders of ARIMA, and of its weekly season, from which the data choose."""


def persistence(history: xr.DataArray, horizons: int, every: int = 7, seed: int = 0) -> xr.DataArray:
    """The last week going on, with what weeks differed by in the past, either way: the hubs' baseline.

    Args:
        history: counts over `day` and strata, two weeks or more; NaN before the first number counts as nothing, and
            a later week with NaN wasn't seen.
        horizons: for how many weeks.
        every: days in a week.
        seed: the seed of its paths.
    Returns:
        quantiles over `quantile`, `horizon` and strata.
    Raises:
        InputError: where there are fewer than two weeks.
    """
    weeks = _checked(history).sizes["day"] // whole("every", every, 1)
    if weeks < 2:
        raise InputError(f"{history.sizes['day']} days are too few for persistence: give two weeks or more")
    rng = np.random.default_rng(whole("seed", seed, 0))

    def forecast(counts: np.ndarray) -> np.ndarray:
        begun = np.cumsum(~np.isnan(counts)) > 0
        counts = np.where(begun | ~begun.any(), counts, 0.0)
        sums = counts[len(counts) - weeks * every :].reshape(weeks, every).sum(1)
        sums = sums[~np.isnan(sums)]
        if len(sums) < 2:
            raise InputError("no two weeks were seen whole, as persistence needs: give more days")
        last, steps = sums[-1], np.diff(sums)
        both = np.concatenate([steps, -steps])
        paths = last + np.cumsum(both[rng.integers(len(both), size=(_PATHS, horizons))], 1)
        found = np.quantile(np.maximum(paths, 0.0), QUANTILES, axis=0)
        return np.maximum(found + last - np.median(np.maximum(paths, 0.0), 0), 0.0)

    return _each(history, horizons, forecast)


def arima(history: xr.DataArray, horizons: int, every: int = 7, seed: int = 0) -> xr.DataArray:
    r"""ARIMA of the logarithm of daily counts, :math:`\log(1 + y)`, with or without a weekly season.

    Of 18 orders (p, 1, q) with p and q up to 2, and an autoregression over a week or none, the one with the least
    corrected AIC is taken; its paths are simulated from the last day on, by statsmodels.

    Args:
        history: counts over `day` and strata, three weeks or more; NaN wasn't seen.
        horizons: for how many weeks.
        every: days in a week.
        seed: the seed of its paths.
    Returns:
        quantiles over `quantile`, `horizon` and strata.
    Raises:
        InputError: where there are fewer than 21 days, or statsmodels isn't installed.
    """
    seen = int(_checked(history).notnull().sum("day").min())
    every, seed = whole("every", every, 1), whole("seed", seed, 0)
    if history.sizes["day"] < 21 or seen < 7:
        raise InputError(f"{seen} days are too few for ARIMA: give three weeks or more, of which one was seen")
    try:
        from statsmodels.tsa.statespace.sarimax import SARIMAX
    except ImportError as e:
        raise InputError("ARIMA needs statsmodels: pip install 'lpmppl[forecast]'") from e

    def forecast(counts: np.ndarray) -> np.ndarray:
        logs, best, least = np.log1p(counts), None, math.inf
        for order, season in _ORDERS:
            with warnings.catch_warnings():
                # An order that isn't found to be the best has no need to converge.
                warnings.simplefilter("ignore")
                try:
                    fit: Any = SARIMAX(logs, order=order, seasonal_order=season).fit(disp=False, maxiter=100)
                except (np.linalg.LinAlgError, ValueError):
                    continue
            if fit.aicc < least:
                best, least = fit, fit.aicc
        if best is None:
            raise InputError("no ARIMA could be fitted to these counts: give more days")
        paths = best.simulate(horizons * every, anchor="end", repetitions=_PATHS, rng=np.random.default_rng(seed))
        # A path may run away beyond any number.
        daily = np.expm1(np.clip(np.asarray(paths).reshape(horizons * every, _PATHS), 0.0, 50.0))
        return np.quantile(daily.reshape(horizons, every, _PATHS).sum(1), QUANTILES, axis=-1)

    return _each(history, horizons, forecast)


def _checked(history: xr.DataArray) -> xr.DataArray:
    """The history, if it is counts over days."""
    if not isinstance(history, xr.DataArray) or "day" not in history.dims or history.dtype.kind not in "iuf":
        raise InputError("what was counted must be a DataArray of numbers over `day`")
    if bool((history < 0).any()) or bool(np.isinf(history).any()):
        raise InputError("what was counted has numbers below 0 or none: give counts, or NaN where it wasn't seen")
    return history


def _each(history: xr.DataArray, horizons: int, forecast: Callable[[np.ndarray], np.ndarray]) -> xr.DataArray:
    """Forecast every stratum by itself: from counts of shape (T,) to quantiles of shape (Q, H)."""
    whole("horizons", horizons, 1)
    other = [d for d in history.dims if d != "day"]
    counts = history.transpose("day", *other).to_numpy().astype(float)
    flat = counts.reshape(len(counts), -1)
    found = np.stack([forecast(series) for series in flat.T], -1)
    coords = {
        "quantile": list(QUANTILES),
        "horizon": np.arange(1, horizons + 1),
        **{d: history[d] for d in other if d in history.coords},
    }
    values = found.reshape(len(QUANTILES), horizons, *counts.shape[1:])
    return xr.DataArray(values, dims=("quantile", "horizon", *other), coords=coords)
