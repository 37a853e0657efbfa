"""What was observed, brought onto a model's days and strata, or refused by name."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.inference.observed import Observed

SIR = lpm.nyc.sir(lpm.nyc.population(1_000))
PANDEMIC = lpm.nyc.pandemic(lpm.nyc.population(2_000))
BOROUGHS = list(SIR.by.dims["borough"])


def dated(name, values, first="2020-03-01", **coords):
    days = pd.date_range(first, periods=len(values))
    return xr.Dataset({name: (("day", *coords), np.asarray(values, dtype=float))}, {"day": days, **coords})


def test_series_by_name_are_days_from_the_first_on() -> None:
    seen = Observed.of(SIR, {"infections": [3, float("nan"), 5]})
    assert seen.days == 3 and seen.start == ""
    assert np.array_equal(seen.counts, [3, np.nan, 5], equal_nan=True)


def test_dates_are_brought_onto_the_models_days_and_gaps_are_unseen() -> None:
    data = dated("deaths", [7, 1, 2, 3], "2020-02-29").isel(day=[0, 1, 3])
    seen = Observed.of(PANDEMIC, data, until="2020-03-04")
    (deaths,) = seen.streams
    assert deaths.tally == "reported_deaths" and deaths.site == "reported/deaths"
    assert np.array_equal(deaths.counts[:, 0], [1, np.nan, 3, np.nan], equal_nan=True)


def test_strata_are_put_in_the_models_order_and_sums_over_the_others() -> None:
    counts = np.arange(10.0).reshape(2, 5)
    data = dated("admissions", counts[:, ::-1], borough=BOROUGHS[::-1])
    (stream,) = Observed.of(PANDEMIC, data).streams
    assert np.array_equal(stream.counts, counts) and list(stream.kept["borough"]) == BOROUGHS
    cells = np.arange(45.0)
    assert np.array_equal(stream.folded(cells), cells.reshape(5, 9).sum(1))


def test_a_data_frame_is_read_and_a_time_zone_refused() -> None:
    frame = pd.DataFrame({"deaths": [1, 2]}, index=pd.date_range("2020-03-01", periods=2))
    assert Observed.of(PANDEMIC, frame).days == 2
    with pytest.raises(InputError, match="time zone America/New_York; give dates"):
        Observed.of(PANDEMIC, frame.tz_localize("America/New_York"))


@pytest.mark.parametrize(
    ("data", "until", "said"),
    [
        ({"infectons": [1]}, None, "did you mean 'infections'"),
        ({"infections": [1, -2]}, None, "has -2 on day 1: give counts"),
        ({"infections": [1, float("inf")]}, None, "has inf on day 1"),
        ({"infections": [float("nan")] * 2}, None, "no number on any of the days"),
        ({"infections": ["many"]}, None, "can't be read"),
        ({"infections": 3}, None, "can't be read|no iterable|give a number"),
        ({}, None, "nothing was observed"),
        ({"infections": []}, None, "'infections' has no days"),
        ([1, 2], None, "list was given as data"),
        ({"infections": [1, 2]}, "2020-03-02", "the model has none; give the number of the last day"),
        ({"infections": [1, 2]}, -1, "comes before the first day"),
        (dated("infections", [1.0]), None, "the data have dates, but the model has none"),
        (xr.Dataset({"infections": ("week", [1.0])}), None, "give days as 'day'"),
        (xr.Dataset({"infections": ("day", [1.0, 2.0])}, {"day": [1, 1]}), None, "day 1 is there twice"),
        (xr.Dataset({"infections": ("day", [1.0])}, {"day": [0.5]}), None, "give dates or whole numbers"),
    ],
)
def test_what_cannot_be_observed_is_refused_by_name(data, until, said) -> None:
    with pytest.raises(InputError, match=said):
        Observed.of(SIR, data, until)


@pytest.mark.parametrize(
    ("data", "until", "said"),
    [
        (dated("deaths", [1.0]).assign_coords(day=[np.datetime64("2020-03-01T17:00")]), None, "times of day"),
        (dated("deaths", [1.0], "2019-01-01"), None, "nothing was observed from day 0"),
        (dated("deaths", [1.0]), "May", "no date; write it as"),
        (dated("deaths", [1.0]), "2020-02-01", "comes before the first day, 2020-03-01"),
        (dated("deaths", [[1.0]], county=["Kings"]), None, "stratum of deaths"),
        (dated("deaths", [[1.0] * 5], borough=[*BOROUGHS[:4], "Kings"]), None, "the boroughs of 'deaths' are"),
        (dated("deaths", [1.0]).assign_coords(day=["1 March"]), None, "can't be read as dates"),
    ],
)
def test_days_and_strata_that_are_not_the_models_are_refused(data, until, said) -> None:
    with pytest.raises(InputError, match=said):
        Observed.of(PANDEMIC, data, until)
