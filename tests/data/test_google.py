"""Google's mobility in both published formats: shares of change, whole series, and faults by name."""

from datetime import date, timedelta

import numpy as np
import pytest

from lpmppl.data import google

COUNTIES = ["New York County", "Bronx County", "Kings County", "Queens County", "Richmond County"]
CHANGES = [f"{category}_percent_change_from_baseline" for category in google.CATEGORIES]


def change(county, day, category):
    """Another percentage for every cell."""
    return -60 + 10 * COUNTIES.index(county) + 2 * day + category


def report(days=3):
    """Google's own format: some states and counties of others, a gap in the parks of one, and the late columns."""
    columns = "country_region_code,country_region,sub_region_1,sub_region_2,metro_area,census_fips_code,date,"
    lines = [columns + ",".join(CHANGES)]
    for county in COUNTIES:
        for k in range(days):
            cells = [str(change(county, k, c)) for c in range(len(CHANGES))]
            if county == "Richmond County":
                cells[google.CATEGORIES.index("parks")] = ""
            place = f"US,United States,New York,{county},,36000,{date(2020, 2, 28) + timedelta(k)}"
            lines.append(",".join([place, *cells]))
    lines.append(f"US,United States,Virginia,Richmond County,,51000,2020-02-28{',1' * len(CHANGES)}")
    lines.append(f"US,United States,New York,,,,2020-02-28{',1' * len(CHANGES)}")
    lines.append(f"AU,Australia,New South Wales,,,,2020-02-28{',' * len(CHANGES)}")
    return "\n".join(lines) + "\n"


CITY = """year,month,day,cityid,gps_retail_and_recreation,gps_grocery_and_pharmacy,gps_parks,gps_transit_stations,\
gps_workplaces,gps_residential,gps_away_from_home
2020,2,28,1,.5,.5,.5,.5,.5,.5,.5
2020,2,28,2,.0266,-.00444,.119,.00882,.0341,-.00282,.00543
2020,2,29,1,.5,.5,.5,.5,.5,.5,.5
2020,2,29,2,.0242,-.00262,.,.00496,-.674,-.00216,.00426
"""


@pytest.fixture
def write(tmp_path):
    def text(content):
        path = tmp_path / "mobility.csv"
        path.write_text(content)
        return path

    return text


def test_googles_own_report_by_borough(write):
    read = google.read(write(report()))
    assert read["borough"].values.tolist() == ["Bronx", "Brooklyn", "Manhattan", "Queens", "Staten Island"]
    assert read["day"].values.astype("datetime64[D]").tolist() == [date(2020, 2, 28) + timedelta(k) for k in range(3)]
    counties = ["Bronx County", "Kings County", "New York County", "Queens County", "Richmond County"]
    for c, category in enumerate(google.CATEGORIES):
        expected = np.array([[change(county, k, c) / 100 for county in counties] for k in range(3)])
        if category == "parks":
            expected[:, 4] = np.nan
        np.testing.assert_allclose(read[category], expected, rtol=0, atol=1e-15)
        assert read[category].attrs["units"] == "share"
    assert read.attrs["days_in_mean"] == 1


def test_city_by_way_of_opportunity_insights(write):
    read = google.read(write(CITY))
    assert read["workplaces"].dims == ("day",)
    assert read["workplaces"].values.tolist() == [0.0341, -0.674]
    assert read["transit_stations"].values.tolist() == [0.00882, 0.00496]
    np.testing.assert_array_equal(read["parks"], [0.119, np.nan])
    assert read.attrs["days_in_mean"] == 7


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("Kings County", "King County", ["'Kings County'", "Brooklyn"]),
        ("Kings County,,36000,2020-02-29", "Kings County,,36000,2020-02-28", ["2020-02-28 twice", "Kings County"]),
        ("Queens County,,36000,2020-02-29", "Albany County,,36000,2020-02-29", ["misses 2020-02-29", "Queens County"]),
        ("Queens County,,36000,2020-03-01", "Albany County,,36000,2020-03-01", ["'Queens County' goes from"]),
        ("2020-02-28,-60,", "2020-02-28,-101,", ["2020-02-28", CHANGES[0], "below -100"]),
        ("2020-02-28,-60,", "2020-02-28,,", ["2020-02-28", CHANGES[0], "empty"]),
        ("2020-02-28,-60,", "2020-02-28,low,", ["'low'", "no number"]),
        ("sub_region_2", "county", ["no column 'sub_region_2'"]),
        (CHANGES[0], "workplaces", [f"no column '{CHANGES[0]}'"]),
        ("US,", "USA,", ["no rows of country_region_code US"]),
    ],
)
def test_faults_of_googles_report_are_named(write, refused, old, new, names):
    assert old in report()
    refused(google.read, write(report().replace(old, new)), *names)


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("2020,2,29,2", "2020,3,1,2", ["misses 2020-02-29"]),
        ("2020,2,29,2", "2020,2,28,2", ["2020-02-28 twice"]),
        ("-.674", "-67.4", ["2020-02-29", "'gps_workplaces' is '-67.4'", "below -1"]),
        ("-.674", ".", ["2020-02-29", "'gps_workplaces' is empty"]),
        (",2,.0", ",7,.0", ["no rows of cityid 2"]),
        ("gps_workplaces", "gps_work", ["no column 'gps_workplaces'", "'gps_work'"]),
        ("2020,2,29,2", "2020,2,30,2", ["'2020-02-30'", "no date"]),
        ("gps_", "", ["no column 'gps_workplaces'"]),
    ],
)
def test_faults_of_the_citys_file_are_named(write, refused, old, new, names):
    assert old in CITY
    refused(google.read, write(CITY.replace(old, new)), *names)


def test_other_files_are_refused(write, refused, tmp_path):
    refused(google.read, write("date,place\n2020-03-01,home\n"), "neither", "gps_workplaces")
    refused(google.read, tmp_path / "none.csv", "is not there")


def test_published_formats_agree_on_the_city(published):
    """Opportunity Insights' 7-day mean of the city lies among the boroughs' 7-day means, and follows their mean."""
    city = google.read(published("nyc_oi_google_mobility_daily.csv"))
    boroughs = google.read(published("nyc_google_mobility_boro_early.csv"))
    assert city["workplaces"].min() == -0.674
    for category in google.CATEGORIES[:3]:
        mean = boroughs[category].rolling(day=7).mean().dropna("day")
        days = np.intersect1d(mean["day"], city["day"])
        ours, theirs = city[category].sel(day=days), mean.sel(day=days)
        assert (ours >= theirs.min("borough") - 0.005).all()
        assert (ours <= theirs.max("borough") + 0.005).all()
        assert np.corrcoef(ours, theirs.mean("borough"))[0, 1] > 0.99
