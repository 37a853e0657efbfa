"""The Health Department's files: the counts are those of the file, and what can't be is refused."""

import csv
from datetime import date, timedelta

import numpy as np
import pytest

from lpmppl.data import nyc_health

PREFIXES = ["", "BX_", "BK_", "MN_", "QN_", "SI_"]
CODES = ["CASE_COUNT", "PROBABLE_CASE_COUNT", "HOSPITALIZED_COUNT", "DEATH_COUNT"]


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def days():
    """Four days in the published format; every count is another number, and two of every six have no borough."""
    rows = []
    for k in range(4):
        row = {"date_of_interest": f"{date(2020, 2, 28) + timedelta(k):%m/%d/%Y}"}
        for c, code in enumerate(CODES):
            parts = [100 * k + 10 * c + b for b in range(5)]
            row |= {f"{prefix}{code}": count for prefix, count in zip(PREFIXES, [sum(parts) + 2, *parts], strict=True)}
            row[f"{code}_7DAY_AVG"] = 1
        rows.append(row)
    return rows


def test_counts_are_those_of_the_file(days, tmp_path):
    read = nyc_health.read(write(tmp_path / "data-by-day.csv", days))
    assert read["day"].values.astype("datetime64[D]").tolist() == [date(2020, 2, 28) + timedelta(k) for k in range(4)]
    assert read["borough"].values.tolist() == ["Bronx", "Brooklyn", "Manhattan", "Queens", "Staten Island"]
    for name, code in zip(["cases", "probable_cases", "admissions", "deaths"], CODES, strict=True):
        assert read[name].dims == ("day",)
        assert read[name].values.tolist() == [row[code] for row in days]
        assert read[f"borough_{name}"].values.tolist() == [[row[p + code] for p in PREFIXES[1:]] for row in days]
        assert read[name].attrs["units"] == "people per day"
    assert read.attrs["deaths"] == "confirmed + probable"


def test_deaths_are_confirmed_and_probable_where_the_file_has_them_apart(days, tmp_path, refused):
    for row in days:
        row |= {f"{prefix}PROBABLE_DEATH_COUNT": 7 if prefix == "" else 1 for prefix in PREFIXES}
    read = nyc_health.read(write(tmp_path / "older.csv", days))
    assert read["deaths"].values.tolist() == [row["DEATH_COUNT"] + 7 for row in days]
    assert read["borough_deaths"].sel(borough="Queens").values.tolist() == [row["QN_DEATH_COUNT"] + 1 for row in days]
    for row in days:
        del row["QN_PROBABLE_DEATH_COUNT"]
    refused(nyc_health.read, write(tmp_path / "half.csv", days), "QN_PROBABLE_DEATH_COUNT")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda rows: rows.pop(2), ["misses 2020-03-01"]),
        (lambda rows: rows.append(rows[1]), ["2020-02-29 twice"]),
        (lambda rows: rows[1].update(MN_HOSPITALIZED_COUNT=-1), ["2020-02-29", "MN_HOSPITALIZED_COUNT", "below 0"]),
        (lambda rows: rows[1].update(DEATH_COUNT=""), ["2020-02-29", "'DEATH_COUNT' is empty"]),
        (lambda rows: rows[1].update(CASE_COUNT="n/a"), ["'n/a'"]),
        (lambda rows: rows[1].update(CASE_COUNT=3.5), ["3.5", "whole"]),
        (lambda rows: rows[1].update(CASE_COUNT=509), ["2020-02-29", "boroughs", "510", "509"]),
        (lambda rows: [row.pop("SI_DEATH_COUNT") for row in rows], ["no column 'SI_DEATH_COUNT'"]),
        (lambda rows: [row.update(QN_CASE_COUNT="") for row in rows], ["'QN_CASE_COUNT' holds no number"]),
    ],
)
def test_faults_of_daily_counts_are_named(days, tmp_path, refused, change, names):
    change(days)
    refused(nyc_health.read, write(tmp_path / "own.csv", days), *names)


def test_published_days(published):
    path = published("nyc_data_by_day.csv")
    read = nyc_health.read(path).sel(day=slice("2020-02-29", "2020-12-31"))
    assert read["day"].size == 307
    # The peaks of the first wave, as the Health Department has them.
    peaks = (("cases", "2020-04-06", 6353), ("admissions", "2020-03-30", 1858), ("deaths", "2020-04-07", 832))
    for name, day, count in peaks:
        assert read[name].max() == read[name].sel(day=day) == count
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert read["borough_deaths"].sum() == sum(int(row[f"{p}DEATH_COUNT"]) for row in rows[:307] for p in PREFIXES[1:])
    assert (read["borough_cases"].sum("borough") <= read["cases"]).all()


@pytest.fixture
def rates(tmp_path):
    def text(content):
        path = tmp_path / "weekly-death-rate-age.csv"
        path.write_text(content)
        return path

    return text


WHOLE = "week_ending,age_all_ages,age_75up,age_0_17,age_18_74\n03/07/2020,1.5,3,0,\n03/14/2020,,5.25,1,4\n"


def test_suppressed_rates_are_nan(rates):
    read = nyc_health.weekly_rates(rates(WHOLE))
    assert read["age"].values.tolist() == ["0–17", "18–74", "75+"]
    np.testing.assert_array_equal(read["rate"], [[0, np.nan, 3], [1, 4, 5.25]])
    np.testing.assert_array_equal(read["rate_all_ages"], [1.5, np.nan])
    assert read["week"].values.astype("datetime64[D]").tolist() == [date(2020, 3, 7), date(2020, 3, 14)]
    assert "100,000" in read["rate"].attrs["units"]


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("age_18_74", "age_19_74", ["'age_19_74'", "doesn't follow"]),
        ("age_75up", "age_75_90", ["'age_91up'"]),
        ("age_0_17", "all", ["'age_18_74'", "doesn't follow"]),
        ("age_18_74", "age_0up", ["'age_0up'", "doesn't follow"]),
        ("age_", "years ", ["no column such as 'age_18_24'"]),
        ("5.25", "-1", ["2020-03-14", "'age_75up' is '-1'"]),
        ("03/14/2020", "03/21/2020", ["misses 2020-03-14"]),
        ("0,\n", "0,x\n", ["'x'"]),
    ],
)
def test_faults_of_weekly_rates_are_named(rates, refused, old, new, names):
    assert old in WHOLE
    refused(nyc_health.weekly_rates, rates(WHOLE.replace(old, new)), *names)


def test_published_rates(published):
    for kind, groups in (("case", 10), ("hosp", 10), ("death", 8)):
        read = nyc_health.weekly_rates(published(f"nyc_weekly_{kind}_rate_age.csv"))
        assert read["age"].size == groups
        assert (np.isnan(read["rate"]) | (read["rate"] >= 0)).all()
        spring = read["rate"].sel(week=slice("2020-04-04", "2020-04-11"))
        if kind != "case":  # risk rises with age
            assert (spring.sel(age="75+") > spring.sel(age="45–54")).all()


TESTS = (
    "DATE,TOTAL_TESTS,POSITIVE_TESTS,PERCENT_POSITIVE,TOTAL_ANTIGEN_TESTS\n"
    "03/03/2020,15,1,0.07,2\n03/04/2020,40,5,0.12,0\n"
)


def test_tests_by_day(tmp_path, refused):
    path = tmp_path / "tests.csv"
    path.write_text(TESTS)
    read = nyc_health.tests(path)
    assert read["tests"].values.tolist() == [15, 40]
    assert read["positive"].values.tolist() == [1, 5]
    assert read["antigen_tests"].values.tolist() == [2, 0]
    path.write_text(TESTS.replace("40,5", "4,5"))
    refused(nyc_health.tests, path, "2020-03-04", "POSITIVE_TESTS", "5, more than", "4;")
    path.write_text("DATE,TOTAL_TESTS,POSITIVE_TESTS\n03/03/2020,15,1\n")
    assert "antigen_tests" not in nyc_health.tests(path)


def test_published_tests(published):
    read = nyc_health.tests(published("nyc_tests_by_day.csv"))
    week = read.sel(day=slice("2020-03-15", "2020-03-21")).sum()
    assert week["positive"] / week["tests"] == pytest.approx(0.48, abs=0.01)  # the test-limited spring


BY_AGE = (
    "week_ending,perpos_all_ageg,testrate_all_ageg,numtest_all_ageg,perpos_0_17,testrate_0_17,numtest_0_17,"
    "perpos_18up,testrate_18up,numtest_18up\n03/07/2020,10,3,30,,0,0,10,4,30\n03/14/2020,20,3,50,25,1,20,16,4,30\n"
)


def test_tests_by_age(tmp_path, refused):
    path = tmp_path / "testing-by-age.csv"
    path.write_text(BY_AGE)
    read = nyc_health.tests_by_age(path)
    assert read["age"].values.tolist() == ["0–17", "18+"]
    assert read["people_tested"].values.tolist() == [[0, 30], [20, 30]]
    np.testing.assert_array_equal(read["positive"], [[np.nan, 10], [25, 16]])
    assert read["test_rate"].values.tolist() == [[0, 4], [1, 4]]
    for old, new, names in (
        ("16,4,30", ",4,30", ["2020-03-14", "'perpos_18up' is empty", "30 people"]),
        ("16,4,30", "160,4,30", ["'perpos_18up' is '160'", "above 100"]),
        ("testrate_18up", "rate_18up", ["no column 'testrate_18up'", "'rate_18up'"]),
    ):
        path.write_text(BY_AGE.replace(old, new))
        refused(nyc_health.tests_by_age, path, *names)


def test_published_tests_by_age(published):
    read = nyc_health.tests_by_age(published("nyc_testing_by_age.csv"))
    assert read["people_tested"].sel(week="2020-12-26").sum() <= 351_077  # all ages; some have none
    assert read["people_tested"].sel(week="2020-12-26").sum() > 350_000


STACK = (
    "vintage_commit_date,vintage_commit,DATE_OF_INTEREST,CASE_COUNT,HOSPITALIZED_COUNT,DEATH_COUNT,PROBABLE_CASE_COUNT\n"
    "2020-03-10,bbb,2020-03-02,3,2,1,4\n2020-03-10,bbb,2020-03-03,5,2,,0\n2020-03-10,bbb,2020-03-04,6,2,0,0\n"
    "2020-03-03,aaa,2020-03-03,1,,,\n2020-03-03,aaa,2020-03-02,2,,,\n"
)


def test_vintages_keep_what_was_known_when(tmp_path):
    path = tmp_path / "vintages.csv"
    path.write_text(STACK)
    read = nyc_health.vintages(path)
    assert read["cases"].dims == ("vintage", "day")
    assert read["commit"].values.tolist() == ["aaa", "bbb"]
    assert read["vintage"].values.astype("datetime64[D]").tolist() == [date(2020, 3, 3), date(2020, 3, 10)]
    np.testing.assert_array_equal(read["cases"], [[2, 1, np.nan], [3, 5, 6]])
    np.testing.assert_array_equal(read["deaths"], [[np.nan] * 3, [1, np.nan, 0]])
    np.testing.assert_array_equal(read["probable_cases"].sel(vintage="2020-03-10"), [4, 0, 0])
    assert read.attrs["deaths"] == "confirmed only"


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("2020-03-03,5", "2020-03-02,5", ["2020-03-02 twice", "version of 2020-03-10"]),
        ("2020-03-04,6", "2020-03-05,6", ["misses 2020-03-04", "version of 2020-03-10"]),
        ("2020-03-04,6", "2020-03-04,-6", ["'CASE_COUNT' is '-6'"]),
        ("2020-03-03,aaa,2020-03-03", "2020-03-01,aaa,2020-03-03", ["'aaa' needs one date"]),
        ("2020-03-03,aaa", "2020-03-02,aaa", ["2020-03-03", "later than its version of 2020-03-02"]),
        ("2020-03-03,aaa", "2020-03-10,aaa", ["two versions of 2020-03-10"]),
        ("2020-03-03,aaa", "spring,aaa", ["'aaa' needs one date", "'spring'"]),
    ],
)
def test_faults_of_vintages_are_named(tmp_path, refused, old, new, names):
    path = tmp_path / "vintages.csv"
    assert old in STACK
    path.write_text(STACK.replace(old, new))
    refused(nyc_health.vintages, path, *names)


def test_published_vintages_fill_up_with_time(published):
    read = nyc_health.vintages(published("nyc_vintages.csv"))
    early = read["admissions"].sel(day=slice("2020-03-10", "2020-03-25")).sum("day")
    assert (early.diff("vintage")[:2] > 0).all()  # right truncation: later versions know of more
    now = nyc_health.read(published("nyc_data_by_day.csv"))["deaths"].sel(day=slice(None, "2020-04-30")).sum()
    then = read["deaths"].sel(vintage="2020-12-15", day=slice(None, "2020-04-30")).sum()
    assert now == 19_327  # confirmed + probable, where every version here has confirmed only
    assert then < 15_000
