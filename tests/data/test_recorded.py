"""The record of New York's 2020: what is typed in is what was published, and faults in one's own record are named."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lpmppl.data.recorded import ACTIVITIES, Recorded, _weeks, shipped
from lpmppl.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def published():
    """The folder of the publishers' files."""
    folder = (ROOT / os.environ.get("LPMPPL_DATA", "../shared/data")).resolve()
    if not (folder / "nyc_oi_google_mobility_daily.csv").is_file():
        pytest.skip(f"the publishers' files are not in {folder}; set LPMPPL_DATA to their folder")
    return folder


@pytest.fixture(scope="module")
def google(published):
    table = pd.read_csv(published / "nyc_oi_google_mobility_daily.csv", na_values=".")
    return table.set_index(pd.to_datetime(table[["year", "month", "day"]]))


def series(**changes):
    """Ten quiet days."""
    given = {
        "days": np.arange("2020-03-01", "2020-03-11", dtype="datetime64[D]"),
        "stringency": np.full(10, 20.0),
        "activity": {name: np.ones(10) for name in ACTIVITIES},
        "admissions": np.zeros(10),
    }
    return {**given, **changes}


def replaced(values, at, value):
    values = np.array(values)
    values[at] = value
    return values


def test_shipped_record_has_each_typed_week_on_its_thursday():
    record, weeks = shipped(), _weeks()
    assert len(record.days) == 7 * len(weeks) == 308
    thursday = np.isin(record.days, weeks["week"].to_numpy().astype("datetime64[D]") + 3)
    np.testing.assert_allclose(record.stringency[thursday], weeks["stringency"])
    np.testing.assert_allclose(record.admissions[thursday], weeks["admissions"])
    np.testing.assert_allclose(record.table[thursday], 1 + weeks[list(ACTIVITIES)])


def test_days_between_two_thursdays_are_on_the_line():
    record = shipped()
    between = np.flatnonzero((record.days > np.datetime64("2020-03-12")) & (record.days < np.datetime64("2020-03-19")))
    # Typed in: -0.057 and -0.405.
    np.testing.assert_allclose(
        record.activity["workplaces"][between], 1 - 0.057 - (0.405 - 0.057) * np.arange(1, 7) / 7
    )


def test_steady_admissions_are_approached_exponentially():
    record = Recorded(**series(admissions=np.full(10, 14.0)))
    np.testing.assert_allclose(record.smoothed(), 14 * (1 - (6 / 7) ** np.arange(10)))


def test_the_outset_is_the_first_admission():
    assert Recorded(**series(admissions=replaced(np.zeros(10), slice(4, 6), 0.1))).outset == np.datetime64("2020-03-05")
    assert Recorded(**series()).outset == np.datetime64("2020-03-11")


def test_days_of_pandas_are_taken():
    days = pd.date_range("2020-03-01", periods=10)
    assert (Recorded(**series(days=days)).days == series()["days"]).all()


DAYS = series()["days"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"days": np.delete(np.append(DAYS, DAYS[-1] + 1), 4)}, "2020-03-05 is missing"),
        ({"days": DAYS[::-1]}, "out of order: 2020-03-09 follows 2020-03-10"),
        ({"days": replaced(DAYS, 3, DAYS[2])}, "out of order: 2020-03-03 follows 2020-03-03"),
        ({"days": replaced(DAYS, 3, np.datetime64("NaT"))}, "entry 3 of the days recorded is no date"),
        ({"days": ["someday"] * 10}, "must be dates"),
        ({"days": []}, "give one date or more"),
        ({"stringency": np.full(9, 20.0)}, r"stringency has shape \(9,\), but 10 days"),
        (
            {"stringency": replaced(np.full(10, 20.0), 2, 101.0)},
            "stringency is 101 on 2020-03-03; it must be at most 100",
        ),
        ({"stringency": replaced(np.full(10, 20.0), 2, -1.0)}, "stringency is -1 on 2020-03-03"),
        ({"stringency": ["mild"] * 10}, "stringency: the values recorded must be numbers"),
        ({"admissions": replaced(np.zeros(10), 9, np.nan)}, "admissions is nan on 2020-03-10; it must be a number"),
        ({"admissions": replaced(np.zeros(10), 9, np.inf)}, "admissions is inf on 2020-03-10; it must be a number"),
        ({"admissions": replaced(np.zeros(10), 0, -0.5)}, "admissions is -0.5 on 2020-03-01"),
        ({"activity": {name: np.full(10, -0.67) for name in ACTIVITIES}}, "an activity of 0.33"),
        ({"activity": {name: np.zeros(10) for name in ACTIVITIES}}, "activity is 0 on 2020-03-01"),
        ({"activity": {"workplaces": np.ones(10)}}, "lacks retail, transit"),
        ({"activity": {**series()["activity"], "retial": np.ones(10)}}, "did you mean 'retail'"),
    ],
)
def test_faults_are_named(changes, message):
    with pytest.raises(InputError, match=message) as error:
        Recorded(**series(**changes))
    assert "\n" not in str(error.value)


def test_typed_activity_is_googles(google):
    weeks = _weeks()
    sunday = google.loc[weeks["week"] + pd.Timedelta(days=6)]
    columns = {"workplaces": "workplaces", "retail": "retail_and_recreation", "transit": "transit_stations"}
    for name, column in columns.items():
        np.testing.assert_allclose(weeks[name], sunday[f"gps_{column}"], atol=5.01e-4)


def test_a_sundays_value_is_the_mean_of_its_week(published, google):
    """The city's series is a mean of the last seven days, not the next or those around: by the boroughs' daily ones."""
    boroughs = pd.read_csv(published / "nyc_google_mobility_boro_early.csv", parse_dates=["date"])
    daily = boroughs.groupby("date")["workplaces_percent_change_from_baseline"].mean() / 100
    city = google["gps_workplaces"]
    means = {shift: daily.rolling(7).mean().shift(-shift) for shift in (0, 3, 6)}
    off = {shift: float((city - mean).dropna().abs().mean()) for shift, mean in means.items()}
    assert off[0] < 0.02  # what weighing the boroughs by their people changes
    assert min(off[3], off[6]) > 2 * off[0]


def test_typed_stringency_is_oxcgrts(published):
    table = pd.read_csv(published / "nys_oxcgrt_indices.csv", parse_dates=["Date"])
    daily = table[table["index"] == "StringencyIndex"].set_index("Date")["value"]
    weeks = _weeks()
    means = [daily[monday : monday + pd.Timedelta(days=6)].mean() for monday in weeks["week"]]
    np.testing.assert_allclose(weeks["stringency"], means, atol=5.01e-3)


def test_typed_admissions_are_nyc_healths(published):
    table = pd.read_csv(published / "nyc_data_by_day.csv")
    daily = table.set_index(pd.to_datetime(table["date_of_interest"], format="%m/%d/%Y"))["HOSPITALIZED_COUNT"]
    weeks = _weeks()
    sums = [daily[monday : monday + pd.Timedelta(days=6)].sum() for monday in weeks["week"]]
    np.testing.assert_allclose(weeks["admissions"], np.array(sums) / 7 / 84, atol=5.01e-4)
