"""Totals and summaries against hand-made results."""

import numpy as np
import pytest
import xarray as xr

from lpmppl.report import tables


def tree(
    dims: tuple[str, ...], values: np.ndarray, kind: str = "flow", units: str = "people", **coords: list[str]
) -> xr.DataTree:
    tally = xr.DataArray(values, dims=dims, coords=coords, attrs={"kind": kind, "units": units})
    return xr.DataTree.from_dict(
        {"/": xr.Dataset(attrs={"agents": 1000}), "/prior_predictive": xr.Dataset({"cases": tally})}
    )


def test_a_flow_adds_up_over_days_and_strata() -> None:
    values = np.arange(12.0).reshape(1, 1, 3, 4)
    assert tables.totals(tree(("chain", "draw", "day", "ward"), values)) == {"cases": 66}


def test_a_stock_is_that_of_the_last_day_and_its_largest_daily_total_not_the_sum_of_peaks() -> None:
    values = np.array([[5.0, 0.0], [0.0, 6.0], [4.0, 4.0], [2.0, 1.0]])[None, None]
    found = tables.totals(tree(("chain", "draw", "day", "ward"), values, kind="stock"))
    assert found == {"peak_cases": 8, "cases": 3}


def test_what_isnt_people_has_no_rate_per_head() -> None:
    values = np.arange(12.0).reshape(1, 1, 3, 4)
    money = tree(("chain", "draw", "day", "quartile"), values, units="dollars per day")
    assert tables.summary(money)["per_100000"].isna().all()
    assert tables.unit(tables.tallies(money)["cases"]) == "dollars"
    assert tables.summary(tree(("chain", "draw", "day"), values[..., 0]))["per_100000"].tolist() == [1200.0]


def test_several_draws_give_the_median_of_their_totals() -> None:
    values = np.array([[1.0, 1.0], [5.0, 5.0], [100.0, 0.0]])[None]
    assert tables.totals(tree(("chain", "draw", "day"), values)) == {"cases": 10}


def test_worlds_are_told_apart() -> None:
    values = np.array([[1.0, 2.0], [10.0, 20.0]])[None, None]
    found = tables.totals(tree(("chain", "draw", "world", "day"), values, world=["as it was", "half"]))
    assert found == {"cases[as it was]": 3, "cases[half]": 30}


def test_worlds_of_several_policies_are_named_after_them() -> None:
    values = np.array([[[1.0], [2.0]], [[3.0], [4.0]]])[None, None]
    found = tables.totals(tree(("chain", "draw", "masks", "schools", "day"), values))
    assert found == {"cases[factual]": 1, "cases[schools]": 2, "cases[masks]": 3, "cases[masks, schools]": 4}


def test_whole_numbers_stay_whole_in_json_and_fractions_stay_fractions() -> None:
    whole = tables.totals(tree(("chain", "draw", "day"), np.array([[[1.0, 2.0]]])))["cases"]
    fraction = tables.totals(tree(("chain", "draw", "day"), np.array([[[1.0, 2.5]]])))["cases"]
    assert isinstance(whole, int)
    assert fraction == 3.5


def test_summary_holds_every_group_and_its_groups_add_up(result: xr.DataTree) -> None:
    summary = tables.summary(result)
    infections = summary[summary["tally"] == "infections"]
    everyone = infections[infections["stratum"] == ""]["value"].item()
    assert everyone == tables.totals(result)["infections"]
    for stratum, groups in (("borough", 5), ("age", 9)):
        rows = infections[infections["stratum"] == stratum]
        assert len(rows) == groups
        assert rows["value"].sum() == pytest.approx(everyone)
        assert rows["people"].sum() == pytest.approx(8_400_000, abs=50)
        np.testing.assert_allclose(rows["per_100000"], 1e5 * rows["value"] / rows["people"])


def test_rates_are_left_open_where_residents_are_unknown() -> None:
    summary = tables.summary(tree(("chain", "draw", "day", "ward"), np.ones((1, 1, 2, 2)), ward=["a", "b"]))
    by_ward = summary[summary["stratum"] == "ward"]
    assert by_ward["group"].tolist() == ["a", "b"]
    assert by_ward["per_100000"].isna().all()


def test_a_band_holds_ninety_per_cent_of_draws() -> None:
    values = np.arange(101.0).reshape(1, 101, 1)
    summary = tables.summary(tree(("chain", "draw", "day"), values))
    assert (summary["low"].item(), summary["value"].item(), summary["high"].item()) == (5.0, 50.0, 95.0)
