"""The Oxford COVID-19 Government Response Tracker: how strict the rules were on each day."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import xarray as xr

from lpmppl.data import series
from lpmppl.errors import InputError

__all__ = ["read"]

_INDEX = "StringencyIndex"
_WHAT = f"OxCGRT's indices by day, such as data/timeseries_indices/OxCGRT_timeseries_{_INDEX}_v1.csv"
_DATE = re.compile(r"\d\d[A-Z][a-z][a-z]\d{4}")


def read(path: str | Path, region: str = "US_NY") -> xr.Dataset:
    """Read the stringency index of a region by day, from any of the published formats; the columns tell which.

    Wide: a row for each region and a column for each day (01Jan2020 …), one index a file. Long: a row for each region
    and day with a column `Date`, and the index either in `StringencyIndex_Average` (the compact files) or in `value`
    where `index` is `StringencyIndex`. Days at the ends for which no value is published are left out.

    Args:
        path: the file.
        region: OxCGRT's code of the region, by default New York State: there is no index of the city.

    Returns:
        `stringency` (day), from 0 (no rules) to 100.

    Raises:
        InputError: the file has none of these formats, or another index; it doesn't have the region; a day is missing
            or there twice; or a value is missing between others, or outside 0 … 100.
    """
    names = series.header(path, _WHAT)
    days = [name for name in names if _DATE.fullmatch(name)]
    if days:
        table, column = _wide(path, region, days), "value"
    elif "date" in (name.lower() for name in names):
        table, column = _long(path, region, names)
    else:
        raise InputError(f"'{path}' has neither a column 'Date' nor columns such as '01Jan2020'; give {_WHAT}")
    table = table.dated("Date").trimmed(column)
    attrs = {"long_name": "stringency index of the state's rules, those of the nation included", "units": "0 to 100"}
    return xr.Dataset(
        {"stringency": ("day", table.numbers(column, least=0, most=100), attrs)},
        {"day": table.days},
        table.attrs("OxCGRT, doi:10.1038/s41562-021-01079-8 (CC BY 4.0)", region=region),
    )


def _wide(path: str | Path, region: str, days: list[str]) -> series.Table:
    if (match := re.search(r"_([A-Za-z]+Index)_", Path(path).name)) and match[1] != _INDEX:
        raise InputError(f"'{path}' is of the {match[1]}, not of the {_INDEX}; give {_WHAT}")
    table = _total(
        series.read(path, ["RegionCode", *days], _WHAT, optional=["Jurisdiction"], where={"RegionCode": [region]})
    )
    if len(table) > 1:
        raise InputError(
            f"'{path}' has region '{region}' twice, in lines {list(table.cells.index)[:2]}; keep one of them"
        )
    line = table.cells.index[0]
    cells = pd.DataFrame({"Date": days, "value": table.cells.loc[line, days].to_list()}, index=[line] * len(days))
    return series.Table(table.name, cells, table.checksum)


def _long(path: str | Path, region: str, names: list[str]) -> tuple[series.Table, str]:
    needed, where = ["RegionCode", "Date"], {"RegionCode": [region]}
    if "index" in (name.lower() for name in names):
        column = "value"
        where["index"] = [_INDEX]
        needed.append("index")
    else:
        column = f"{_INDEX}_Average"
    table = series.read(path, [*needed, column], _WHAT, optional=["Jurisdiction"], where=where)
    return _total(table), column


def _total(table: series.Table) -> series.Table:
    """The rows of all rules that hold in a region, where those of single governments stand beside them."""
    if "Jurisdiction" not in table.cells:
        return table
    keep = table.cells[table.cells["Jurisdiction"].str.endswith("_TOTAL")]
    if not len(keep):
        raise InputError(f"'{table.name}' has no rows of jurisdiction 'STATE_TOTAL'; give {_WHAT}")
    return series.Table(table.name, keep, table.checksum)
