"""OxCGRT's index in all of its layouts: the same series, and faults by name."""

import csv
from datetime import date, timedelta

import numpy as np
import pytest

from lpmppl.data import oxcgrt

DAYS = [date(2020, 2, 28) + timedelta(k) for k in range(4)]
INDEX = [5.56, 5.56, 19.44, 82.41]
PLACE = "United States,US_NY,New York,,,STATE_TOTAL"


def long():
    lines = ["index,CountryCode,CountryName,RegionCode,RegionName,CityCode,CityName,Jurisdiction,Date,value"]
    for index, factor in (("StringencyIndex", 1.0), ("EconomicSupportIndex", 0.5)):
        lines += [f"{index},USA,{PLACE},{day},{factor * x}" for day, x in zip(DAYS, INDEX, strict=True)]
    return "\n".join(lines) + "\n"


def compact():
    lines = [
        "CountryCode,CountryName,RegionCode,RegionName,CityCode,CityName,Jurisdiction,Date,StringencyIndex_Average"
    ]
    lines += [f"USA,{PLACE},{day:%Y%m%d},{x}" for day, x in zip(DAYS, INDEX, strict=True)]
    lines += [f"USA,{PLACE.replace('TOTAL', 'WIDE')},{day:%Y%m%d},1" for day in DAYS]
    lines += [f"USA,United States,US_VA,Virginia,,,STATE_TOTAL,{day:%Y%m%d},2" for day in DAYS]
    return "\n".join(lines) + "\n"


def wide(days=DAYS, values=INDEX):
    names = [f"{day:%d%b%Y}" for day in days]
    head = ["CountryCode,CountryName,RegionCode,RegionName,CityCode,CityName,Jurisdiction", *names]
    nation = ["ABW,Aruba,,,,,NAT_TOTAL", *("0" for _ in days)]
    return "\n".join(",".join(row) for row in (head, nation, [f"USA,{PLACE}", *map(str, values)])) + "\n"


@pytest.fixture
def write(tmp_path):
    def text(content, name="OxCGRT_timeseries_StringencyIndex_v1.csv"):
        path = tmp_path / name
        path.write_text(content)
        return path

    return text


@pytest.mark.parametrize("content", [long(), compact(), wide()], ids=["long", "compact", "wide"])
def test_layouts_say_the_same(write, content):
    read = oxcgrt.read(write(content))
    assert read["stringency"].dims == ("day",)
    assert read["stringency"].values.tolist() == INDEX
    assert read["day"].values.astype("datetime64[D]").tolist() == DAYS
    assert read.attrs["region"] == "US_NY"
    assert read["stringency"].attrs["units"] == "0 to 100"


def test_days_that_are_not_published_are_left_out(write, refused):
    read = oxcgrt.read(write(wide([*DAYS, date(2020, 3, 3)], [*INDEX, ""])))
    assert read["day"].values.astype("datetime64[D]").tolist() == DAYS
    refused(oxcgrt.read, write(wide(values=[1, "", 2, 3])), "2020-02-29", "empty")
    refused(oxcgrt.read, write(wide(values=[""] * 4)), "holds no number")


def test_other_regions(write, refused):
    assert oxcgrt.read(write(compact()), "US_VA")["stringency"].values.tolist() == [2] * 4
    refused(lambda path: oxcgrt.read(path, "US_XX"), write(wide()), "no rows of RegionCode US_XX")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (long().replace("2020-02-29,5.56", "2020-02-28,5.56"), ["2020-02-28 twice"]),
        (
            long().replace("StringencyIndex,USA,United States,US_NY,New York,,,STATE_TOTAL,2020-03-01,19.44\n", ""),
            ["misses"],
        ),
        (long().replace("StringencyIndex", "OtherIndex"), ["no rows of", "index StringencyIndex"]),
        (long().replace("82.41", "101"), ["2020-03-02", "'101'", "above 100"]),
        (long().replace("82.41", "-1"), ["2020-03-02", "below 0"]),
        (long().replace("82.41", "strict"), ["'strict'"]),
        (compact().replace("StringencyIndex_Average", "StringencyIndex"), ["no column 'StringencyIndex_Average'"]),
        (compact().replace("STATE_TOTAL", "STATE_WIDE"), ["no rows of jurisdiction"]),
        (wide().replace("29Feb2020", "28Feb2020"), ["'28Feb2020' twice"]),
        (wide().replace("29Feb2020", "30Mar2020"), ["misses 2020-02-29"]),
        (wide().replace("29Feb2020", "30Feb2020"), ["'30Feb2020'", "no date"]),
        (wide() + wide().splitlines()[-1] + "\n", ["region 'US_NY' twice"]),
        (wide().replace("82.41", "824.1"), ["2020-03-02", "'824.1'"]),
        ("RegionCode,n\nUS_NY,1\n", ["neither a column 'Date'"]),
    ],
)
def test_faults_are_named(write, refused, content, names):
    refused(oxcgrt.read, write(content), *names)


def test_another_index_is_refused_by_its_name(write, refused):
    refused(oxcgrt.read, write(wide(), "OxCGRT_timeseries_EconomicSupportIndex_v1.csv"), "EconomicSupportIndex")


def test_published_series_is_the_same_laid_out_wide(published, write):
    path = published("nys_oxcgrt_indices.csv")
    read = oxcgrt.read(path).sel(day=slice(None, "2020-12-31"))
    assert read["day"].size == 366
    assert read["stringency"].sel(day="2020-01-01") == 0
    assert read["stringency"].max() == 82.41
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["index"] == "StringencyIndex"][:366]
    again = oxcgrt.read(write(wide([date.fromisoformat(row["Date"]) for row in rows], [row["value"] for row in rows])))
    np.testing.assert_array_equal(read["stringency"], again["stringency"])
    np.testing.assert_array_equal(read["day"], again["day"])
