"""Forecasts: quantiles of what will be counted in the weeks after the data, and how good they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from lpmppl.errors import InputError, nearest
from lpmppl.inference.baselines import QUANTILES, arima, persistence
from lpmppl.inference.checks import whole
from lpmppl.inference.hybrid import corrected

__all__ = ["FORECASTERS", "forecast", "hybrid", "scored", "weighted_interval_score"]

FORECASTERS = ("model", "hybrid", "persistence", "arima")


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


def hybrid(fit: xr.DataTree, every: int = 7, seed: int = 0) -> xr.Dataset:
    """The forecast times what the society lately missed by, as `lpmppl.inference.hybrid` explains; as `forecast`.

    Args:
        fit: what `lpm.calibrate` gave, with `ahead` of at least one week, fitted to two weeks or more.
        every: days in a week.
        seed: the seed of the paths of errors.
    Raises:
        InputError: for a fit without days ahead, or of fewer than two weeks.
    """
    later = _ahead(fit)
    seen, fitted = _seen(fit), fit["posterior_predictive"].to_dataset()
    if seen.sizes["day"] < 2 * whole("every", every, 1):
        raise InputError(f"{seen.sizes['day']} days are too few to learn what a forecast misses: fit two weeks or more")
    weeks = _weeks(later, every)
    return xr.Dataset({str(n): corrected(x, fitted[n], weeks[n], every, seed) for n, x in seen.data_vars.items()})


def scored(
    fit: xr.DataTree,
    data: Any,
    every: int = 7,
    seed: int = 0,
    *,
    forecasters: Sequence[str] = ("model", "hybrid", "persistence"),
) -> xr.Dataset:
    """How good a forecast was, beside others made from the same data.

    Args:
        fit: what `lpm.calibrate` gave, with `ahead` of at least one week.
        data: what was counted, as `lpm.calibrate` takes it, a Dataset with the days after the fit.
        every: days in a week.
        seed: the seed of others' paths.
        forecasters: of "model"; "hybrid", the model with what it lately missed by; "persistence", the last week going
            on; and "arima", for which statsmodels is needed.
    Returns:
        by stream, over `forecaster`, `horizon` and strata: `<stream>_wis`, the weighted interval score, counts a week,
        and `<stream>_covered` and `<stream>_covered_half`, whether the 90 % and 50 % intervals held what was counted.
    Raises:
        InputError: for a fit without days ahead, data that don't have these days, or a forecaster that there isn't.
    """
    for name in forecasters:
        if name not in FORECASTERS:
            raise InputError(nearest("forecaster", str(name), FORECASTERS))
    if not forecasters:
        raise InputError(f"no forecaster was given; give some of {', '.join(FORECASTERS)}")
    _ahead(fit)
    seen = _seen(fit)
    first, last = int(fit.attrs["fitted_days"]), int(fit.attrs["days"])
    truth = _weeks(_later(data, seen, str(fit.attrs.get("start", "")), first, last), every)
    horizons = truth.sizes["horizon"]
    found = {}
    for name in forecasters:
        if name in ("model", "hybrid"):
            found[name] = forecast(fit, every) if name == "model" else hybrid(fit, every, seed)
        else:
            by = persistence if name == "persistence" else arima
            found[name] = xr.Dataset({str(n): by(x, horizons, every, seed) for n, x in seen.data_vars.items()})
    out: dict[str, xr.DataArray] = {}
    for stream, y in truth.data_vars.items():
        each = {f: quantiles[stream].isel(horizon=slice(horizons)) for f, quantiles in found.items()}
        measures = {
            "wis": [weighted_interval_score(q, y) for q in each.values()],
            "covered": [(y >= q.sel(quantile=0.05)) & (y <= q.sel(quantile=0.95)) for q in each.values()],
            "covered_half": [(y >= q.sel(quantile=0.25)) & (y <= q.sel(quantile=0.75)) for q in each.values()],
        }
        which = xr.IndexVariable("forecaster", list(each))
        for what, values in measures.items():
            flat = [x.drop_vars("quantile", errors="ignore") for x in values]
            out[f"{stream}_{what}"] = xr.concat(flat, which, coords="minimal", compat="override")
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


def _seen(fit: xr.DataTree) -> xr.Dataset:
    """What a fit was given."""
    if "observed_data" not in fit.children:
        raise InputError(
            "the result holds no observed data, as where institutions keep them, so that what it missed can't be told; "
            "add them as its group 'observed_data'"
        )
    return fit["observed_data"].to_dataset()


def _ahead(fit: xr.DataTree) -> xr.Dataset:
    if not isinstance(fit, xr.DataTree) or "forecast" not in fit.children or "fitted_days" not in fit.attrs:
        raise InputError(
            "this has no days after those that were fitted; make it with lpm.calibrate(…, ahead=28), or --ahead 28"
        )
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
    found = data[list(seen.data_vars)].isel(day=np.flatnonzero(np.isin(data["day"], range(first, last)))).sortby("day")
    number, times = np.unique(found["day"], return_counts=True)
    if (times > 1).any():
        raise InputError(f"what was counted later has day {number[times > 1][0]} twice; keep one of them")
    for name, x in found.data_vars.items():
        if {*x.dims} != {*seen[name].dims}:
            raise InputError(
                f"what was counted later of '{name}' is by {', '.join(map(str, x.dims))}, and what was fitted by "
                f"{', '.join(map(str, seen[name].dims))}: give the same"
            )
        for dim in (d for d in x.dims if d != "day" and d in seen.coords):
            if gone := [str(label) for label in seen[dim].values if label not in x[dim].values]:
                raise InputError(f"what was counted later of '{name}' lacks the {dim} {gone[0]}, which was fitted")
        unseen = x.isnull().any([d for d in x.dims if d != "day"]).to_numpy()
        if unseen.any():
            raise InputError(
                f"'{name}' has no number on day {first + int(np.argmax(unseen))}, as is needed to score by"
            )
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
