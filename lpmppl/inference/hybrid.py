"""A hybrid forecast: the simulated weeks, times what the simulator lately missed by, as that dies away."""

from __future__ import annotations

import numpy as np
import xarray as xr

from lpmppl.inference.baselines import QUANTILES

__all__ = ["corrected", "residual_law"]

_MOST, _WIDEST = 0.95, 1.0
"""The most that one week's error is taken to say of the next one's, and the largest standard deviation of an error."""


def corrected(
    seen: xr.DataArray, fitted: xr.DataArray, ahead: xr.DataArray, every: int = 7, seed: int = 0
) -> xr.DataArray:
    r"""The simulator's forecast of weeks, with a residual model of its errors.

    .. math:: \log y_w = \log m_w + s_w + e_w, \qquad s_{w+1} = \varphi s_w + \sigma \sqrt{1 - \varphi^2}\, z_w

    with m what the simulator expected, e what it knows that a week varies by, and s its own error, of which φ and σ are
    estimated from the fitted weeks of all strata and the last one from its week. Forecast weeks are the simulated ones
    times :math:`e^{s}`.

    Args:
        seen: what was counted, over `day` and strata.
        fitted: what the simulator had in its place (chain, draw, day, strata).
        ahead: what it has for the weeks after (chain, draw, horizon, strata).
        every: days in a week.
        seed: the seed of the paths of s.
    Returns:
        quantiles over `quantile`, `horizon` and strata.
    """
    other = [d for d in seen.dims if d != "day"]
    weeks = seen.sizes["day"] // every
    y = _weeks(seen.transpose("day", *other).to_numpy().astype(float), weeks, every)
    draws = fitted.stack(sample=("chain", "draw")).transpose("sample", "day", *other).to_numpy().astype(float)
    m = np.stack([_weeks(x, weeks, every) for x in draws])
    # A week that wasn't seen whole says nothing.
    residual = np.log((y + 0.5) / (m.mean(0) + 0.5))
    noise = np.log((m + 0.5) / (m.mean(0) + 0.5)).var(0)
    carried, spread = residual_law(residual, noise)
    known = np.where(np.isnan(residual[-1]), 0.0, 1.0)
    trust = known * spread**2 / np.maximum(spread**2 + noise[-1], 1e-12)
    rng = np.random.default_rng(seed)
    paths = ahead.stack(sample=("chain", "draw")).transpose("sample", "horizon", *other)
    x = paths.to_numpy().astype(float).reshape(paths.sizes["sample"], paths.sizes["horizon"], -1)
    shape = (len(x), x.shape[-1])
    s = trust * np.nan_to_num(residual[-1]) + spread * np.sqrt(1 - trust) * rng.standard_normal(shape)
    out = np.empty_like(x)
    for h in range(x.shape[1]):
        s = carried * s + spread * np.sqrt(1 - carried**2) * rng.standard_normal(shape)
        out[:, h] = x[:, h] * np.exp(s)
    values = np.quantile(out, QUANTILES, axis=0).reshape(len(QUANTILES), *paths.shape[1:])
    coords = {"quantile": list(QUANTILES), **{d: paths[d] for d in ("horizon", *other) if d in paths.coords}}
    return xr.DataArray(values, dims=("quantile", "horizon", *other), coords=coords)


def residual_law(residual: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    """How much of a simulator's error a week later is left, and its standard deviation, by moments.

    Args:
        residual: logarithms of what was counted over what was expected, shape (W, K), NaN where it wasn't seen.
        noise: the variances that were foreseen, shape (W, K).

    >>> rng = np.random.default_rng(0)
    >>> s = np.zeros((400, 5))
    >>> for w in range(1, 400):
    ...     s[w] = 0.7 * s[w - 1] + 0.2 * rng.standard_normal(5)
    >>> carried, spread = residual_law(s + 0.1 * rng.standard_normal(s.shape), np.full(s.shape, 0.01))
    >>> abs(carried - 0.7) < 0.05, abs(spread - 0.2 / (1 - 0.49) ** 0.5) < 0.02
    (True, True)
    """
    known = ~np.isnan(residual)
    if not known.any():
        return 0.0, 0.0
    variance = float((residual[known] ** 2 - noise[known]).mean())
    if variance <= 0:
        return 0.0, 0.0
    pairs = residual[1:] * residual[:-1]
    along = float(np.nanmean(pairs)) if (~np.isnan(pairs)).any() else 0.0
    return float(np.clip(along / variance, 0.0, _MOST)), min(variance**0.5, _WIDEST)


def _weeks(daily: np.ndarray, weeks: int, every: int) -> np.ndarray:
    """Sums over the last whole weeks: (T, …) to (W, K)."""
    tail = daily[len(daily) - weeks * every :].reshape(weeks, every, -1)
    return np.asarray(tail.sum(1))
