"""Small valid documents of every kind that lpmppl reads."""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache
from importlib.resources import files

import numpy as np

from lpmppl.data import google
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR

PREFIXES = ("", "BX_", "BK_", "MN_", "QN_", "SI_")
CODES = ("CASE_COUNT", "PROBABLE_CASE_COUNT", "HOSPITALIZED_COUNT", "DEATH_COUNT")
COUNTIES = ("New York County", "Bronx County", "Kings County", "Queens County", "Richmond County")


def days(first: date = date(2020, 2, 28), many: int = 4, every: int = 1) -> list[date]:
    return [first + timedelta(every * k) for k in range(many)]


def _csv(rows: list[list[object]]) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def by_day(many: int = 4, first: date = date(2020, 2, 28)) -> str:
    """The Health Department's data-by-day.csv."""
    head = ["date_of_interest", *(p + c for c in CODES for p in PREFIXES)]
    rows: list[list[object]] = [list(head)]
    for k, day in enumerate(days(first, many)):
        row: list[object] = [f"{day:%m/%d/%Y}"]
        for c in range(len(CODES)):
            parts = [10 * k + c + b for b in range(5)]
            row += [sum(parts) + 2, *parts]
        rows.append(row)
    return _csv(rows)


def rates() -> str:
    ages = ["age_0_4", "age_5_12", "age_13_17", "age_18_24", "age_25_34", "age_35_44", "age_45_54", "age_55_64"]
    ages += ["age_65_74", "age_75up"]
    rows: list[list[object]] = [["week_ending", "age_all_ages", *ages]]
    rows += [[f"{day:%m/%d/%Y}", 12.5, *(1.5 * k for k in range(len(ages)))] for day in days(date(2020, 3, 7), 3, 7)]
    rows[2][3] = ""
    return _csv(rows)


def tests() -> str:
    head = ["DATE", "TOTAL_TESTS", "POSITIVE_TESTS", "TOTAL_ANTIGEN_TESTS", "PERCENT_POSITIVE"]
    return _csv([head, *([f"{d:%m/%d/%Y}", 100 + k, 10 + k, 5, 0.1] for k, d in enumerate(days()))])


def tests_by_age() -> str:
    ages = ["0_4", "5_12", "13_17", "18_24", "25_34", "35_44", "45_54", "55_64", "65_74", "75up"]
    head = ["week_ending", *(f"{kind}_{age}" for kind in ("numtest", "testrate", "perpos") for age in ages)]
    return _csv(
        [head, *([f"{d:%m/%d/%Y}", *[40] * 10, *[12.5] * 10, *[3.25] * 10] for d in days(date(2020, 3, 7), 3, 7))]
    )


def vintages() -> str:
    head = ["vintage_commit_date", "vintage_commit", "DATE_OF_INTEREST", "CASE_COUNT", "HOSPITALIZED_COUNT"]
    rows: list[list[object]] = [[*head, "DEATH_COUNT", "PROBABLE_CASE_COUNT"]]
    for v, until in enumerate((date(2020, 3, 4), date(2020, 3, 9), date(2020, 3, 14))):
        many = (until - date(2020, 2, 28)).days
        rows += [[until, f"c{v}", f"{d:%m/%d/%Y}", 9 + k, 3 + k, k, 1] for k, d in enumerate(days(many=many))]
    return _csv(rows)


def mobility() -> str:
    """Google's own report."""
    names = [f"{category}_percent_change_from_baseline" for category in google.CATEGORIES]
    head = ["country_region_code", "country_region", "sub_region_1", "sub_region_2", "census_fips_code", "date", *names]
    rows: list[list[object]] = [list(head)]
    for county in COUNTIES:
        rows += [["US", "United States", "New York", county, 36000, d, *[-10 - k] * 6] for k, d in enumerate(days())]
    rows.append(["US", "United States", "Virginia", "Richmond County", 51000, date(2020, 2, 28), *[1] * 6])
    return _csv(rows)


def city_mobility() -> str:
    head = ["year", "month", "day", "cityid", *(f"gps_{category}" for category in google.CATEGORIES)]
    return _csv([head, *([d.year, d.month, d.day, c, *[-0.25] * 6] for d in days() for c in (1, 2))])


_PLACE = "USA,United States,US_NY,New York,,,STATE_TOTAL"


def stringency_long() -> str:
    head = "index,CountryCode,CountryName,RegionCode,RegionName,CityCode,CityName,Jurisdiction,Date,value\n"
    return head + "".join(f"{i},{_PLACE},{d},55.56\n" for i in ("StringencyIndex", "OtherIndex") for d in days())


def stringency_compact() -> str:
    head = "CountryCode,CountryName,RegionCode,RegionName,CityCode,CityName,Jurisdiction,Date,StringencyIndex_Average\n"
    return head + "".join(f"{_PLACE},{d:%Y%m%d},55.56\n" for d in days())


def stringency_wide() -> str:
    head = "CountryCode,CountryName,RegionCode,RegionName,CityCode,CityName,Jurisdiction,"
    head += ",".join(f"{d:%d%b%Y}" for d in days())
    return f"{head}\nABW,Aruba,,,,,NAT_TOTAL,0,0,0,0\n{_PLACE},5.56,5.56,19.44,82.41\n"


def jobs() -> str:
    head = ["year", "month", "day_endofweek", "cityid", "emp", *(f"emp_incq{q}" for q in range(1, 5))]
    return _csv(
        [head, *([d.year, d.month, d.day, c, *[-0.3] * 5] for d in days(date(2020, 4, 10), 4, 7) for c in (1, 2))]
    )


def claims() -> str:
    head = ["year", "month", "day_endofweek", "cityid", "initclaims_count_regular", "initclaims_rate_regular"]
    return _csv([head, *([d.year, d.month, d.day, 2, 100_000, 2.45] for d in days(date(2020, 4, 11), 4, 7))])


def spending() -> str:
    head = ["year", "month", "day", "freq", "spend_all", *(f"spend_all_q{q}" for q in range(1, 5))]
    return _csv([head, *([d.year, d.month, d.day, "d", *[-0.01] * 5] for d in days())])


@cache
def contacts() -> tuple[str, str]:
    """A contact matrix of 18 ages, and the people of each."""
    chance = np.random.default_rng(0)
    people = chance.integers(2_000, 9_000, 18).astype(float)
    meetings = chance.uniform(1, 100, (18, 18))
    matrix = (meetings + meetings.T) / people[:, None]
    return _csv([[f"{x:.16f}" for x in row] for row in matrix]), _csv([[k, n] for k, n in enumerate(people)])


@cache
def acs() -> str:
    """The published table that the package ships."""
    return files("lpmppl.data").joinpath("tables", "acs_2020_2024.csv").read_text(encoding="utf-8")


def counts(many: int = 4) -> str:
    """What an institution saw."""
    return _csv([["infections", "recoveries"], *([3 * k, k] for k in range(many))])


def society(agents: int = 400) -> SIR:
    """A small society of two areas."""
    people = Population.of({"household": np.arange(agents) // 2, "borough": (np.arange(agents) % 2).astype(np.uint8)})
    return SIR(people, [people.everyone()], by={"borough": "borough"})
