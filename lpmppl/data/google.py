"""Google's mobility: how much more or less people were at places than before the pandemic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from lpmppl.data import series
from lpmppl.data.acs import BOROUGHS
from lpmppl.errors import InputError

__all__ = ["CATEGORIES", "read"]

CATEGORIES = ("workplaces", "retail_and_recreation", "transit_stations", "grocery_and_pharmacy", "parks", "residential")
"""Of places. Residential is time spent there, the others are visits."""

_NEEDED = CATEGORIES[:3]
_COUNTIES = dict(
    zip(BOROUGHS, ("Bronx County", "Kings County", "New York County", "Queens County", "Richmond County"), strict=True)
)
_NEW_YORK_CITY = "2"  # in Opportunity Insights' list of cities, where it is all five boroughs
_SUFFIX = "_percent_change_from_baseline"
_WHAT = (
    "Google's Community Mobility Report with the five counties of New York City, or Opportunity Insights' "
    "'Google Mobility - City - Daily.csv'"
)


def read(path: str | Path) -> xr.Dataset:
    """Read the change of mobility by day, from either of the two published formats; its columns tell which.

    Google's own report (`sub_region_2`, `…_percent_change_from_baseline`) gives each county and day; of a report of the
    whole country or world only New York's five counties are read. Opportunity Insights' (`cityid`, `gps_…`) gives the
    city, a mean over 7 days.

    Returns:
        A variable for each of `CATEGORIES` that the file has, (day, borough) from Google's report, (day) from the
        other: change from before the pandemic as a share, -0.67 = 67 % fewer; activity is 1 + change. nan, in other
        categories than workplaces, retail and transit: withheld, for too few people were there.

    Raises:
        InputError: the file has neither format; a county is missing; a day is missing or there twice; a number is
            missing in workplaces, retail or transit; or a change is less than -100 %.
    """
    names = [name.lower() for name in series.header(path, _WHAT)]
    if "cityid" in names or any(name.startswith("gps_") for name in names):
        return _city(path)
    if "sub_region_2" in names or any(name.endswith(_SUFFIX) for name in names):
        return _boroughs(path)
    raise InputError(f"'{path}' has neither columns such as 'workplaces{_SUFFIX}' nor 'gps_workplaces'; give {_WHAT}")


def _city(path: str | Path) -> xr.Dataset:
    columns = {category: f"gps_{category}" for category in CATEGORIES}
    keys = ["year", "month", "day", "cityid"]
    needed = [*keys, *(columns[category] for category in _NEEDED)]
    where = {"cityid": [_NEW_YORK_CITY]}
    table = series.read(path, needed, _WHAT, optional=columns.values(), where=where).dated("year", "month", "day")
    return xr.Dataset(
        {
            category: xr.Variable("day", _change(table, category, column, -1.0), _attrs(category))
            for category, column in columns.items()
            if column in table.cells
        },
        {"day": table.days},
        table.attrs(
            "Google Community Mobility Reports by way of Opportunity Insights, "
            "github.com/OpportunityInsights/EconomicTracker",
            days_in_mean=7,
        ),
    )


def _boroughs(path: str | Path) -> xr.Dataset:
    columns = {category: f"{category}{_SUFFIX}" for category in CATEGORIES}
    keys = ["country_region_code", "sub_region_1", "sub_region_2", "date"]
    where = {"country_region_code": ["US"], "sub_region_1": ["New York"], "sub_region_2": list(_COUNTIES.values())}
    needed = [*keys, *(columns[category] for category in _NEEDED)]
    whole = series.read(path, needed, _WHAT, optional=columns.values(), where=where).on("date")
    tables = {}
    for borough, county in _COUNTIES.items():
        part = whole.only("sub_region_2", county)
        if not len(part):
            raise InputError(f"'{path}' has no rows of '{county}' ({borough}); give {_WHAT}")
        try:
            tables[borough] = part.dated()
        except InputError as error:
            raise InputError(f"{error} ({county})") from error
    days = tables[BOROUGHS[0]].days
    for borough, table in tables.items():
        if not table.days.equals(days):
            raise InputError(
                f"'{path}': '{_COUNTIES[borough]}' goes from {table.days[0]:%Y-%m-%d} to {table.days[-1]:%Y-%m-%d}, "
                f"'{_COUNTIES[BOROUGHS[0]]}' from {days[0]:%Y-%m-%d} to {days[-1]:%Y-%m-%d}; {series.AGAIN}"
            )
    variables = {}
    for category, column in columns.items():
        if column in whole.cells:
            change = pd.Series(_change(whole, category, column, -100.0) / 100, index=whole.cells.index)
            values = np.stack([change[table.cells.index] for table in tables.values()], axis=1)
            variables[category] = xr.Variable(("day", "borough"), values, _attrs(category))
    return xr.Dataset(
        variables,
        {"day": days, "borough": list(BOROUGHS)},
        whole.attrs("Google Community Mobility Reports, google.com/covid19/mobility", days_in_mean=1),
    )


def _change(table: series.Table, category: str, column: str, least: float) -> NDArray[np.float64]:
    return table.numbers(column, least=least, missing="no" if category in _NEEDED else "anywhere")


def _attrs(category: str) -> dict[str, str]:
    return {
        "long_name": f"change of {'time at home' if category == 'residential' else category.replace('_', ' ')}",
        "units": "share",
        "baseline": "median of the same day of the week, 3 January to 6 February 2020",
    }
