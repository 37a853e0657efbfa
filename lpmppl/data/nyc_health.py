"""The files of New York City's Health Department: days, weeks by age, tests, and what was known when."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from lpmppl.data import series
from lpmppl.data.acs import BOROUGHS
from lpmppl.errors import InputError

__all__ = ["read", "tests", "tests_by_age", "vintages", "weekly_rates"]

_SOURCE = "NYC Department of Health and Mental Hygiene, github.com/nychealth/coronavirus-data"
_COUNTS = {
    "cases": ("CASE_COUNT", "people with a positive PCR test, by day of diagnosis"),
    "probable_cases": (
        "PROBABLE_CASE_COUNT",
        "people with a positive antigen test and no PCR test, by day of diagnosis",
    ),
    "admissions": ("HOSPITALIZED_COUNT", "people admitted to hospital, by day of admission"),
    "deaths": ("DEATH_COUNT", "people who died, by day of death"),
}
_PREFIXES = dict(zip(("BX", "BK", "MN", "QN", "SI"), BOROUGHS, strict=True))
_BOTH = "confirmed + probable"


def read(path: str | Path) -> xr.Dataset:
    """Read `trends/data-by-day.csv`: cases, admissions and deaths, by day of the event.

    Deaths are confirmed + probable: in files from May 2023 on `DEATH_COUNT` holds both, in earlier ones
    `PROBABLE_DEATH_COUNT` stands beside it and is added. Those of `vintages` are confirmed only.

    Returns:
        `cases`, `probable_cases`, `admissions`, `deaths` (day) of the city, people a day, and `borough_cases` …
        (day, borough), which add to less than the city: some people have no known borough.

    Raises:
        InputError: the file isn't that table; a day is missing or there twice; a count is missing, negative or no
            whole number; or the boroughs add to more than the city.
    """
    what = "the Health Department's trends/data-by-day.csv"
    places = {"": "the city", **{f"{prefix}_": borough for prefix, borough in _PREFIXES.items()}}
    needed = [f"{place}{code}" for place in places for code, _ in _COUNTS.values()]
    probable = [f"{place}PROBABLE_DEATH_COUNT" for place in places]
    table = series.read(path, ["date_of_interest", *needed], what, optional=probable).dated("date_of_interest")
    apart = [name for name in probable if name in table.cells]
    if apart and apart != probable:
        raise InputError(
            f"'{path}' has column '{apart[0]}' but not {', '.join(set(probable) - set(apart))}; give {what}"
        )
    variables: dict[str, xr.Variable] = {}
    for name, (code, meaning) in _COUNTS.items():
        columns = {place: [f"{place}{code}"] for place in places}
        if name == "deaths":
            meaning = f"{meaning}, {_BOTH}"
            for place in places if apart else ():
                columns[place].append(f"{place}PROBABLE_DEATH_COUNT")
        counts = {place: sum(_counts(table, column) for column in columns[place]) for place in places}
        city = np.asarray(counts.pop(""))
        borough = np.stack(list(counts.values()), axis=1)
        more = borough.sum(axis=1) > city
        if more.any():
            at = int(np.argmax(more))
            raise InputError(
                f"'{path}', {table.row(at)}: '{code}' of the boroughs add to {borough[at].sum()}, more than the city's "
                f"{city[at]}; {series.AGAIN}"
            )
        attrs = {"long_name": meaning, "units": "people per day"}
        variables[name] = xr.Variable("day", city, attrs)
        variables[f"borough_{name}"] = xr.Variable(("day", "borough"), borough, attrs)
    return xr.Dataset(
        variables,
        {"day": table.days, "borough": list(BOROUGHS)},
        table.attrs(f"{_SOURCE}, trends/data-by-day.csv", deaths=_BOTH),
    )


def weekly_rates(path: str | Path) -> xr.Dataset:
    """Read `trends/weekly-case-rate-age.csv`, or that of `hosp` or `death`: events per 100,000 residents of an age.

    Returns:
        `rate` (week, age) and `rate_all_ages` (week), per 100,000 residents a week; `week` is its last day, a Saturday.
        nan: the count was 1 to 4 and is suppressed.

    Raises:
        InputError: the file isn't that table; its ages don't follow on each other; a week is missing or there twice; or
            a rate is negative or no number.
    """
    what = "the Health Department's trends/weekly-case-rate-age.csv, …hosp-rate… or …death-rate…"
    ages = _ages(path, what, "age_")
    table = series.read(path, ["week_ending", "age_all_ages", *ages], what).dated("week_ending", every=7)
    rate = np.stack([table.numbers(name, least=0, missing="anywhere") for name in ages], axis=1)
    attrs = {
        "long_name": "events by age",
        "units": "per 100,000 residents per week",
        "missing": "suppressed, count 1-4",
    }
    total = table.numbers("age_all_ages", least=0, missing="anywhere")
    return xr.Dataset(
        {"rate": (("week", "age"), rate, attrs), "rate_all_ages": ("week", total, attrs)},
        {"week": table.days, "age": list(ages.values())},
        table.attrs(f"{_SOURCE}, trends/{Path(path).name}"),
    )


def tests(path: str | Path) -> xr.Dataset:
    """Read `trends/tests.csv`: tests by day of the specimen.

    Returns:
        `tests` and `positive` (day): PCR tests and the positive ones, tests a day; `antigen_tests` (day) if they are
        in the file.

    Raises:
        InputError: the file isn't that table; a day is missing or there twice; a count is missing, negative or no
            whole number; or more tests are positive than there are.
    """
    what = "the Health Department's trends/tests.csv"
    needed = ["DATE", "TOTAL_TESTS", "POSITIVE_TESTS"]
    table = series.read(path, needed, what, optional=["TOTAL_ANTIGEN_TESTS"]).dated("DATE")
    total, positive = _counts(table, "TOTAL_TESTS"), _counts(table, "POSITIVE_TESTS")
    if (positive > total).any():
        at = int(np.argmax(positive > total))
        raise InputError(
            f"'{path}', {table.row(at)}: 'POSITIVE_TESTS' is {positive[at]}, more than 'TOTAL_TESTS' = {total[at]}; "
            f"{series.AGAIN}"
        )
    variables = {
        "tests": xr.Variable("day", total, {"long_name": "PCR tests", "units": "tests per day"}),
        "positive": xr.Variable("day", positive, {"long_name": "positive PCR tests", "units": "tests per day"}),
    }
    if "TOTAL_ANTIGEN_TESTS" in table.cells:
        antigen = _counts(table, "TOTAL_ANTIGEN_TESTS")
        variables["antigen_tests"] = xr.Variable(
            "day", antigen, {"long_name": "antigen tests", "units": "tests per day"}
        )
    return xr.Dataset(variables, {"day": table.days}, table.attrs(f"{_SOURCE}, trends/tests.csv"))


def tests_by_age(path: str | Path) -> xr.Dataset:
    """Read `trends/testing-by-age.csv`: people tested by PCR in a week, by age.

    Returns:
        `people_tested`, people a week; `test_rate`, per 100,000 residents a week; `positive`, percent of those tested
        (nan where nobody was), each (week, age); `week` is its last day, a Saturday.

    Raises:
        InputError: the file isn't that table; its ages don't follow on each other; a week is missing or there twice; or
            a number is missing, negative or beyond 100 %.
    """
    what = "the Health Department's trends/testing-by-age.csv"
    ages = _ages(path, what, "numtest_")
    names = {kind: [column.replace("numtest_", f"{kind}_", 1) for column in ages] for kind in ("testrate", "perpos")}
    table = series.read(path, ["week_ending", *ages, *names["testrate"], *names["perpos"]], what)
    table = table.dated("week_ending", every=7)
    people = np.stack([_counts(table, name) for name in ages], axis=1)
    rate = np.stack([table.numbers(name, least=0) for name in names["testrate"]], axis=1)
    positive = np.stack(
        [table.numbers(name, least=0, most=100, missing="anywhere") for name in names["perpos"]], axis=1
    )
    lost = np.isnan(positive) & (people > 0)
    if lost.any():
        at, of = np.argwhere(lost)[0]
        raise InputError(
            f"'{path}', {table.row(int(at))}: column '{names['perpos'][of]}' is empty, though {people[at, of]} people "
            f"were tested; {series.AGAIN}"
        )
    dims = ("week", "age")
    return xr.Dataset(
        {
            "people_tested": (dims, people, {"long_name": "people with a PCR test", "units": "people per week"}),
            "test_rate": (dims, rate, {"long_name": "PCR tests", "units": "per 100,000 residents per week"}),
            "positive": (
                dims,
                positive,
                {"long_name": "people with a positive test, of those tested", "units": "percent"},
            ),
        },
        {"week": table.days, "age": list(ages.values())},
        table.attrs(f"{_SOURCE}, trends/testing-by-age.csv"),
    )


def vintages(path: str | Path) -> xr.Dataset:
    """Read stacked versions of the daily counts of the city: what was known on which day.

    One row for a version and a day: `vintage_commit_date`, `vintage_commit`, `DATE_OF_INTEREST`, `CASE_COUNT`,
    `HOSPITALIZED_COUNT`, `DEATH_COUNT`, perhaps `PROBABLE_CASE_COUNT`.

    Returns:
        `cases`, `admissions`, `deaths` and, if the file has them, `probable_cases` (vintage, day), people a day;
        `vintage` is the day of publication, `commit` (vintage) its version. nan: that version doesn't say; the earliest
        leave cells blank. Deaths are confirmed only, unlike those of `read`.

    Raises:
        InputError: the file isn't that table; a version has a day twice, misses one, or tells of days to come; or a
            count is negative or no whole number.
    """
    what = "a stack of versions of the Health Department's daily counts"
    codes = {name: code for name, (code, _) in _COUNTS.items()}
    probable = codes["probable_cases"]
    keys = ["vintage_commit_date", "vintage_commit", "DATE_OF_INTEREST"]
    table = series.read(
        path, [*keys, *(code for code in codes.values() if code != probable)], what, optional=[probable]
    )
    counts = {
        name: pd.Series(table.numbers(code, least=0, whole=True, missing="anywhere"), index=table.cells.index)
        for name, code in codes.items()
        if code in table.cells
    }
    versions: dict[pd.Timestamp, tuple[str, series.Table]] = {}
    for commit in dict.fromkeys(table.cells["vintage_commit"]):
        part = table.only("vintage_commit", commit)
        stamps = sorted(set(part.cells["vintage_commit_date"]))
        stamp = pd.to_datetime(stamps[0], format="%Y-%m-%d", errors="coerce")
        if len(stamps) > 1 or pd.isna(stamp):
            found = ", ".join(repr(one) for one in stamps[:3])
            raise InputError(f"'{path}': version '{commit}' needs one date such as 2020-04-01, not {found}; correct it")
        if stamp in versions:
            raise InputError(f"'{path}' has two versions of {stamps[0]}; keep one of them")
        try:
            part = part.dated("DATE_OF_INTEREST")
        except InputError as error:
            raise InputError(f"{error} (version of {stamps[0]})") from error
        if part.days[-1] > stamp:
            raise InputError(f"'{path}', {part.row(-1)} is later than its version of {stamps[0]}; correct it")
        versions[stamp] = commit, part
    published = sorted(versions)
    first = min(part.days[0] for _, part in versions.values())
    day = pd.date_range(first, max(part.days[-1] for _, part in versions.values()))
    variables = {}
    for name, count in counts.items():
        values = np.full((len(published), len(day)), np.nan)
        for row, stamp in zip(values, published, strict=True):
            part = versions[stamp][1]
            row[day.get_indexer(part.days)] = count[part.cells.index]
        meaning = _COUNTS[name][1] + (", confirmed only" if name == "deaths" else "")
        variables[name] = xr.Variable(("vintage", "day"), values, {"long_name": meaning, "units": "people per day"})
    return xr.Dataset(
        variables,
        {
            "vintage": pd.DatetimeIndex(published).as_unit("ns"),
            "day": day,
            "commit": ("vintage", [versions[stamp][0] for stamp in published]),
        },
        table.attrs(f"{_SOURCE}, versions of the daily counts", deaths="confirmed only"),
    )


def _counts(table: series.Table, column: str) -> NDArray[np.int64]:
    return table.numbers(column, least=0, whole=True).astype(np.int64)


def _ages(path: str | Path, what: str, prefix: str) -> dict[str, str]:
    """Columns such as age_18_24 and age_75up, and their labels; every age must be in one of them."""
    matches = [re.fullmatch(rf"{prefix}(\d+)(?:_(\d+)|up)", name.lower()) for name in series.header(path, what)]
    found = [(int(m[1]), int(m[2]) if m[2] else None, m[0]) for m in matches if m]
    found.sort(key=lambda group: group[0])
    if not found:
        raise InputError(f"'{path}' has no column such as '{prefix}18_24'; give {what}")
    due: int | None = 0
    for low, high, name in found:
        if low != due or (high is not None and high < low):
            raise InputError(f"'{path}': column '{name}' doesn't follow on the ages before it; give {what}")
        due = None if high is None else high + 1
    if due is not None:
        raise InputError(f"'{path}' has no column such as '{prefix}{due}up' for the oldest; give {what}")
    return {name: f"{low}+" if high is None else f"{low}–{high}" for low, high, name in found}
