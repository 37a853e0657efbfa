"""Forecasts: quantiles of what will be counted in the weeks after the data, and how good they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.inference.run import whole

__all__ = ["QUANTILES", "forecast", "persistence", "scored", "weighted_interval_score"]

QUANTILES = (0.01, 0.025, *(round(0.05 * k, 2) for k in range(1, 20)), 0.975, 0.99)
"""The 23 quantiles of the forecast hubs of the United States."""

_PATHS = 10_000


def forecast(fit: xr.DataTree, every: int = 7, *, summed: bool = False) -> xr.Dataset:
    """The quantiles of what will be counted after the days that were fitted, in weeks.

    Args:
        fit: what `lpm.calibrate` gave, with `ahead` of at least one week.
        every: days in a week.
        summed: of the sums over strata.
    Returns:
        by stream: `quantile`, `horizon` (weeks from 1), strata; counts in a week.
    Raises:
        InputError: for a fit without days ahead.
    """
    daily = _ahead(fit)
    if summed:
        daily = daily.sum([d for d in daily.dims if d not in ("chain", "draw", "day")])
    weeks = _weeks(daily, every)
    return weeks.quantile(QUANTILES, ("chain", "draw")).transpose("quantile", "horizon", ...)


def scored(fit: xr.DataTree, data: Any, every: int = 7, seed: int = 0) -> xr.Dataset:
    """How good a forecast was, beside persistence, the last week going on.

    Args:
        fit: what `lpm.calibrate` gave, with `ahead` of at least one week.
        data: what was counted, as `lpm.calibrate` takes it, a Dataset with the days after the fit.
        every: days in a week.
        seed: the seed of persistence's paths.
    Returns:
        by stream, over `forecaster` ("model", "persistence"), `horizon` and strata: `<stream>_wis`, the weighted
        interval score, counts a week, and `<stream>_covered`, whether the 90 % interval held what was counted.
    Raises:
        InputError: for a fit without days ahead, or data that don't have these days.
    """
    found = {"model": forecast(fit, every)}
    seen = fit["observed_data"].to_dataset()
    first, last = int(fit.attrs["fitted_days"]), int(fit.attrs["days"])
    truth = _weeks(_later(data, seen, str(fit.attrs.get("start", "")), first, last), every)
    horizons = truth.sizes["horizon"]
    found["persistence"] = xr.Dataset(
        {str(n): persistence(x, horizons, every, seed) for n, x in seen.data_vars.items()}
    )
    out: dict[str, xr.DataArray] = {}
    for name, y in truth.data_vars.items():
        scores, held = [], []
        for quantiles in found.values():
            q = quantiles[name].isel(horizon=slice(horizons))
            scores.append(weighted_interval_score(q, y))
            held.append((y >= q.sel(quantile=0.05)) & (y <= q.sel(quantile=0.95)))
        which = xr.IndexVariable("forecaster", list(found))
        out[f"{name}_wis"] = xr.concat(scores, which, coords="minimal", compat="override").drop_vars(
            "quantile", errors="ignore"
        )
        out[f"{name}_covered"] = xr.concat(
            [h.drop_vars("quantile", errors="ignore") for h in held], which, coords="minimal", compat="override"
        )
    return xr.Dataset(out)


def weighted_interval_score(quantiles: xr.DataArray, y: xr.DataArray) -> xr.DataArray:
    r"""The weighted interval score, in units of y: less is better (Bracher et al., PLOS Comp. Biol. 17, 2021).

    .. math:: \mathrm{WIS} = \frac{1}{K + 1/2} \Big(\tfrac12 |y - m| + \sum_k \tfrac{\alpha_k}{2}
        \mathrm{IS}_{\alpha_k}\Big) = \frac{1}{K + 1/2} \sum_\tau (1\{y \le q_\tau\} - \tau)(q_\tau - y)

    Args:
        quantiles: of levels τ along the dimension `quantile`, an odd number of them, symmetric about 0.5.
        y: what came.
    """
    level = quantiles["quantile"]
    loss = ((y <= quantiles).astype(float) - level) * (quantiles - y)
    return loss.sum("quantile") / (quantiles.sizes["quantile"] / 2)


def persistence(history: xr.DataArray, horizons: int, every: int = 7, seed: int = 0) -> xr.DataArray:
    """The last week going on, with what weeks differed by in the past, either way: the hubs' baseline.

    Args:
        history: counts over `day` and strata, two weeks or more; NaN counts as nothing.
        horizons: for how many weeks.
        every: days in a week.
        seed: the seed of its paths.
    Returns:
        quantiles over `quantile`, `horizon` and strata.
    Raises:
        InputError: where there are fewer than two weeks.
    """
    weeks = history.sizes["day"] // every
    if weeks < 2:
        raise InputError(f"{history.sizes['day']} days are too few for persistence: give two weeks or more")
    tail = history.fillna(0.0).isel(day=slice(history.sizes["day"] - weeks * every, None))
    other = [d for d in tail.dims if d != "day"]
    counts = tail.transpose("day", *other).to_numpy()
    sums = counts.reshape(weeks, every, *counts.shape[1:]).sum(1)
    steps = np.diff(sums, axis=0)
    both = np.concatenate([steps, -steps])
    rng = np.random.default_rng(seed)
    paths = sums[-1] + np.cumsum(both[rng.integers(len(both), size=(_PATHS, horizons))], 1)
    found = np.quantile(np.maximum(paths, 0.0), QUANTILES, axis=0)
    found += sums[-1] - np.median(np.maximum(paths, 0.0), 0)
    coords = {"quantile": list(QUANTILES), "horizon": np.arange(1, horizons + 1), **{d: history[d] for d in other}}
    return xr.DataArray(np.maximum(found, 0.0), dims=("quantile", "horizon", *other), coords=coords)


def _ahead(fit: xr.DataTree) -> xr.Dataset:
    if not isinstance(fit, xr.DataTree) or "forecast" not in fit.children:
        raise InputError("this has no days after those that were fitted; make it with lpm.calibrate(…, ahead=28)")
    return fit["forecast"].to_dataset()


def _later(data: Any, seen: xr.Dataset, start: str, first: int, last: int) -> xr.Dataset:
    """What was counted on days `first` to `last` − 1, by the streams that were fitted."""
    if not isinstance(data, xr.Dataset) or "day" not in data.coords:
        raise InputError("give what was counted later as a Dataset over day, with the streams that were fitted")
    if data["day"].dtype.kind == "M":
        data = data.assign_coords(
            day=(data["day"].to_numpy().astype("datetime64[D]") - np.datetime64(start, "D")).astype(int)
        )
    if missing := [str(n) for n in seen if n not in data]:
        raise InputError(f"what was counted later lacks {', '.join(missing)}, which was fitted")
    lacks = sorted(set(range(first, last)) - set(data["day"].to_numpy().tolist()))
    if lacks:
        raise InputError(f"what was counted later lacks day {lacks[0]}; give all days from {first} to {last - 1}")
    found = data[list(seen.data_vars)].sel(day=range(first, last))
    strata = {d: seen[d] for d in seen.dims if d != "day" and d in seen.coords}
    return found.sel(strata) if strata else found


def _weeks(daily: xr.Dataset, every: int) -> xr.Dataset:
    """Sums over whole weeks from the first day on, along `horizon`."""
    weeks = daily.sizes["day"] // whole("every", every, 1)
    if not weeks:
        raise InputError(f"{daily.sizes['day']} days ahead are less than a week of {every}; give more with ahead=")
    cut = daily.isel(day=slice(weeks * every))
    number = xr.DataArray(np.repeat(np.arange(1, weeks + 1), every), dims="day", name="horizon")
    return cut.groupby(number).sum("day")
