"""Forecasts in weeks: the score by its definition, persistence, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.inference.baselines import QUANTILES, arima, persistence
from lpmppl.inference.forecast import forecast, hybrid, scored, weighted_interval_score
from lpmppl.inference.hybrid import corrected

PLACES = ["north", "south"]


def fit(ahead=15, level=10.0, start="2020-03-01"):
    """What a calibration of 21 days leaves of its streams, with Poisson reports."""
    rng = np.random.default_rng(0)
    seen = xr.Dataset(
        {"deaths": (("day", "place"), rng.poisson(level, (21, 2)).astype(float))}, {"day": range(21), "place": PLACES}
    )
    later = xr.Dataset(
        {"deaths": (("chain", "draw", "day", "place"), rng.poisson(level, (1, 400, ahead, 2)).astype(float))},
        {"day": range(21, 21 + ahead), "place": PLACES},
    )
    fitted = rng.poisson(level, (1, 400, 21, 2)).astype(float)
    before = xr.Dataset({"deaths": (("chain", "draw", "day", "place"), fitted)}, {"day": range(21), "place": PLACES})
    root = xr.Dataset(attrs={"fitted_days": 21, "days": 21 + ahead, "start": start})
    groups = {"observed_data": seen, "posterior_predictive": before, "forecast": later}
    return xr.DataTree.from_dict({"/": root, **groups})


def later(level=10.0, ahead=15):
    values = np.random.default_rng(1).poisson(level, (21 + ahead, 2)).astype(float)
    days = pd.date_range("2020-03-01", periods=21 + ahead)
    return xr.Dataset({"deaths": (("day", "place"), values)}, {"day": days, "place": PLACES})


def test_the_score_is_the_sum_of_its_intervals() -> None:
    q = xr.DataArray(
        np.sort(np.random.default_rng(0).normal(size=23)), dims="quantile", coords={"quantile": list(QUANTILES)}
    )
    for y in (-3.0, 0.1, 4.0):
        total = 0.5 * abs(y - float(q.sel(quantile=0.5)))
        for k in range(11):
            low, high, alpha = float(q[k]), float(q[22 - k]), 2 * QUANTILES[k]
            total += alpha / 2 * (high - low + 2 / alpha * (max(0.0, low - y) + max(0.0, y - high)))
        assert float(weighted_interval_score(q, xr.DataArray(y))) == pytest.approx(total / 11.5)
    assert float(weighted_interval_score(xr.full_like(q, 2.0), xr.DataArray(2.0))) == 0.0


def test_weeks_are_whole_and_their_quantiles_in_order() -> None:
    found = forecast(fit())["deaths"]
    assert found.dims == ("quantile", "horizon", "place") and found.sizes["quantile"] == 23
    assert found["horizon"].values.tolist() == [1, 2]
    assert bool((found.diff("quantile") >= 0).all())
    middle = found.sel(quantile=0.5)
    assert bool((abs(middle - 70) < 3).all())


def test_persistence_is_the_last_week_and_widens() -> None:
    history = xr.DataArray(np.repeat([10.0, 20.0, 30.0], 7), dims="day")
    found = persistence(history, 3)
    assert found.sel(quantile=0.5).values == pytest.approx([210.0] * 3)
    width = (found.sel(quantile=0.95) - found.sel(quantile=0.05)).values
    assert width[0] == pytest.approx(140.0) and width[2] > width[0]
    assert bool((found >= 0).all())
    with pytest.raises(InputError, match="two weeks or more"):
        persistence(history.isel(day=slice(10)), 1)


def test_the_right_law_scores_better_than_a_wrong_one_and_covers() -> None:
    right, wrong = scored(fit(), later()), scored(fit(level=30.0), later())
    assert right["deaths_wis"].dims == ("forecaster", "horizon", "place")
    good, bad = (float(s["deaths_wis"].sel(forecaster="model").mean()) for s in (right, wrong))
    assert good < 10 < bad
    assert bool(right["deaths_covered"].sel(forecaster="model").all())
    assert not bool(wrong["deaths_covered"].sel(forecaster="model").any())


def test_arima_goes_on_with_what_it_saw() -> None:
    rng = np.random.default_rng(3)
    week = np.array([1.3, 1.1, 1.0, 1.0, 1.0, 0.8, 0.8])
    level = 1000 * np.exp(-0.03 * np.arange(70)) * np.tile(week, 10)
    history = xr.DataArray(rng.poisson(level[:56]).astype(float), dims="day")
    found = arima(history, 2)
    assert found.dims == ("quantile", "horizon") and bool((found.diff("quantile") >= 0).all())
    truth = level[56:].reshape(2, 7).sum(1)
    assert bool((found.sel(quantile=0.01) < truth).all() and (found.sel(quantile=0.99) > truth).all())
    # Persistence knows of no decline.
    last = persistence(history, 2).sel(quantile=0.5)
    assert bool((abs(found.sel(quantile=0.5) - truth) < abs(last - truth)).all())
    assert (arima(history, 2) == found).all()
    with pytest.raises(InputError, match="20 days are too few for ARIMA"):
        arima(history.isel(day=slice(20)), 1)


def test_arima_stands_days_that_were_not_seen_and_nothing_at_all() -> None:
    history = xr.DataArray(np.random.default_rng(1).poisson(20.0, (30, 2)).astype(float), dims=("day", "place"))
    history[5:8] = np.nan
    found = arima(history.assign_coords(place=PLACES), 1)
    assert found.dims == ("quantile", "horizon", "place") and bool(np.isfinite(found).all())
    assert abs(float(found.sel(quantile=0.5).mean()) - 140) < 25
    assert float(arima(xr.zeros_like(history), 1).max()) < 1.0


def test_the_hybrid_takes_what_the_model_missed_by_and_lets_it_die_away() -> None:
    """A society that counts half of what is seen, and one that is right."""
    rng = np.random.default_rng(0)
    levels = {"half": 50.0, "right": 100.0}
    seen = xr.DataArray(rng.poisson(100.0, (56, 2)).astype(float), dims=("day", "place"), coords={"place": PLACES})
    for name, level in levels.items():
        fitted = xr.DataArray(rng.poisson(level, (1, 200, 56, 2)).astype(float), dims=("chain", "draw", "day", "place"))
        ahead = xr.DataArray(
            rng.poisson(7 * level, (1, 200, 4, 2)).astype(float),
            dims=("chain", "draw", "horizon", "place"),
            coords={"horizon": [1, 2, 3, 4], "place": PLACES},
        )
        found = corrected(seen, fitted, ahead)
        middle = found.sel(quantile=0.5)
        assert found.dims == ("quantile", "horizon", "place") and bool((found.diff("quantile") >= 0).all())
        if name == "right":
            assert bool((abs(middle - 700) < 30).all())
            width = found.sel(quantile=0.95) - found.sel(quantile=0.05)
            assert bool((width < 1.5 * 3.3 * 700**0.5).all())
        else:
            assert bool((middle.sel(horizon=1) > 600).all())
            assert bool((middle.sel(horizon=4) < middle.sel(horizon=1)).all()) and bool((middle > 500).all())


def test_forecasters_are_scored_side_by_side() -> None:
    found = scored(fit(), later(), forecasters=("model", "hybrid", "persistence", "arima"))
    assert found["forecaster"].values.tolist() == ["model", "hybrid", "persistence", "arima"]
    score = found["deaths_wis"].mean(["horizon", "place"])
    assert bool((score > 0).all()) and float(score.sel(forecaster="hybrid")) < 1.5 * float(
        score.sel(forecaster="model")
    )
    assert found["deaths_covered"].dtype == bool and bool(
        (found["deaths_covered_half"] <= found["deaths_covered"]).all()
    )
    assert bool((hybrid(fit())["deaths"].sel(quantile=0.99) > forecast(fit())["deaths"].sel(quantile=0.5)).all())
    with pytest.raises(InputError, match="did you mean 'arima'"):
        scored(fit(), later(), forecasters=["arma"])
    with pytest.raises(InputError, match="no forecaster"):
        scored(fit(), later(), forecasters=[])


def test_what_cannot_be_forecast_or_scored_is_refused() -> None:
    with pytest.raises(InputError, match="less than a week"):
        forecast(fit(ahead=5))
    with pytest.raises(InputError, match="no days after"):
        forecast(lpm.run(lpm.nyc.sir(lpm.nyc.population(1_000)), 2))
    with pytest.raises(InputError, match="lacks deaths"):
        scored(fit(), later().rename(deaths="cases"))
    with pytest.raises(InputError, match="lacks day 30"):
        scored(fit(), later().isel(day=slice(30)))
    with pytest.raises(InputError, match="as a Dataset over day"):
        scored(fit(), {"deaths": [1, 2]})


def test_what_was_not_seen_later_is_not_scored_as_nothing() -> None:
    gaps = later().copy(deep=True)
    gaps["deaths"][25] = np.nan
    with pytest.raises(InputError, match="'deaths' has no number on day 25"):
        scored(fit(), gaps)
    with pytest.raises(InputError, match=r"'deaths' is by day, and what was fitted by day, place"):
        scored(fit(), later().sum("place"))
    twice = xr.concat([later(), later().isel(day=[25])], "day")
    with pytest.raises(InputError, match="has day 25 twice"):
        scored(fit(), twice)
    with pytest.raises(InputError, match="lacks the place south"):
        scored(fit(), later().isel(place=[0]))
    for ask in (hybrid, lambda tree: scored(tree, later())):
        with pytest.raises(InputError, match="--ahead 28"):
            ask(lpm.run(lpm.nyc.sir(lpm.nyc.population(1_000)), 2))


def test_persistence_goes_on_from_the_last_week_that_was_seen() -> None:
    history = xr.DataArray(np.repeat([10.0, 20.0, 30.0, 0.0], 7), dims="day")
    history[22:] = np.nan
    assert persistence(history, 1).sel(quantile=0.5).values == pytest.approx([210.0])
    # Nobody counted before there was anything to count.
    late = history.isel(day=slice(21)).copy()
    late[:17] = np.nan
    assert persistence(late, 1).sel(quantile=0.5).values == pytest.approx([120.0])
    gap = history.isel(day=slice(21)).copy()
    gap[12] = np.nan
    assert persistence(gap, 1).sel(quantile=0.5).values == pytest.approx([210.0])
    with pytest.raises(InputError, match="no two weeks were seen whole"):
        persistence(history.where(history < 0), 1)
    for ask in (persistence, arima):
        for bad in (-history, history.where(history != 20.0, np.inf)):
            with pytest.raises(InputError, match="below 0 or none"):
                ask(bad, 1)
        with pytest.raises(InputError, match="over `day`"):
            ask(history.rename(day="week"), 1)
        with pytest.raises(InputError, match="every=0"):
            ask(history.fillna(1.0), 1, every=0)
    with pytest.raises(InputError, match="0 days are too few"):
        arima(history.where(history < 0), 1)
