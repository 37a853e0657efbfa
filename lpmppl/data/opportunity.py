"""Opportunity Insights' Economic Tracker: the city's jobs and claims by week, and the nation's spending by day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from lpmppl.data import series

__all__ = ["claims", "employment", "spending"]

_SOURCE = "Opportunity Insights Economic Tracker, github.com/OpportunityInsights/EconomicTracker"
_NEW_YORK_CITY = {"cityid": ["2"]}
_QUARTILES = ["q1", "q2", "q3", "q4"]


def employment(path: str | Path) -> xr.Dataset:
    """Read `Employment - City - Weekly.csv`: how many have a job, of New York City's workers, against January 2020.

    Returns:
        `employment` (week) and `employment_by_quartile` (week, quartile of wages, q1 the lowest), change as a share:
        -0.335 is a third fewer; `week` is its last day, a Friday. nan: a quartile is not published in the first or last
        weeks.

    Raises:
        InputError: the file isn't that table or lacks the city; a week is missing or there twice; or a number is
            missing between others, no number, or less than -1.
    """
    what = "Opportunity Insights' 'Employment - City - Weekly.csv'"
    keys = ["year", "month", "day_endofweek"]
    columns = [f"emp_inc{quartile}" for quartile in _QUARTILES]
    table = series.read(path, [*keys, "cityid", "emp", *columns], what, where=_NEW_YORK_CITY)
    table = table.dated(*keys, every=7).trimmed("emp")
    return xr.Dataset(
        {"employment": ("week", table.numbers("emp", least=-1), _change("employment", "January 2020"))}
        | _quartiles(table, columns, "week", "employment", "January 2020"),
        {"week": table.days, "quartile": _QUARTILES},
        table.attrs(_SOURCE, place="New York City"),
    )


def claims(path: str | Path) -> xr.Dataset:
    """Read `UI Claims - City - Weekly.csv`: new claims for unemployment insurance in New York City.

    Returns:
        `claims` (week), initial claims for regular insurance a week, and `claim_rate` (week), per 100 people in the
        labour force of 2019 a week; `week` is its last day, a Saturday. Weeks at the ends that are not published are
        left out.

    Raises:
        InputError: the file isn't that table or lacks the city; a week is missing or there twice; or a number is
            missing between others, negative or no whole number of claims.
    """
    what = "Opportunity Insights' 'UI Claims - City - Weekly.csv'"
    keys = ["year", "month", "day_endofweek"]
    count, rate = "initclaims_count_regular", "initclaims_rate_regular"
    table = series.read(path, [*keys, "cityid", count, rate], what, where=_NEW_YORK_CITY)
    table = table.dated(*keys, every=7).trimmed(count)
    whole = table.numbers(count, least=0, whole=True).astype(np.int64)
    per = {"long_name": "initial claims, regular", "units": "per 100 people in the labour force of 2019 per week"}
    return xr.Dataset(
        {
            "claims": ("week", whole, {"long_name": "initial claims, regular", "units": "claims per week"}),
            "claim_rate": ("week", table.numbers(rate, least=0), per),
        },
        {"week": table.days},
        table.attrs(_SOURCE, place="New York City"),
    )


def spending(path: str | Path) -> xr.Dataset:
    """Read `Affinity - National - Daily.csv`: what people spend by card in the United States, against January 2020.

    Rows of whole weeks, which follow the daily ones from June 2022, are left out, and so are days before the first
    number.

    Returns:
        `spending` (day) and `spending_by_quartile` (day, quartile of the median income where the card holder lives, q1
        the lowest), change as a share, seasonally adjusted, a mean over the last 7 days.

    Raises:
        InputError: the file isn't that table; a day is missing or there twice; or a number is missing between others,
            no number, or less than -1.
    """
    what = "Opportunity Insights' 'Affinity - National - Daily.csv'"
    columns = [f"spend_all_{quartile}" for quartile in _QUARTILES]
    keys = ["year", "month", "day"]
    table = series.read(path, [*keys, "freq", "spend_all", *columns], what, where={"freq": ["d"]})
    table = table.dated(*keys).trimmed("spend_all")
    base = "6 January to 2 February 2020"
    return xr.Dataset(
        {"spending": ("day", table.numbers("spend_all", least=-1), _change("card spending", base))}
        | _quartiles(table, columns, "day", "spending", base),
        {"day": table.days, "quartile": _QUARTILES},
        table.attrs(f"{_SOURCE}; Affinity Solutions", place="United States", days_in_mean=7),
    )


def _quartiles(
    table: series.Table, columns: list[str], dim: str, name: str, base: str
) -> dict[str, tuple[tuple[str, str], np.ndarray, dict[str, str]]]:
    values = np.stack([table.numbers(column, least=-1, missing="at the ends") for column in columns], axis=1)
    return {f"{name}_by_quartile": ((dim, "quartile"), values, _change(f"{name} by quartile of income", base))}


def _change(what: str, base: str) -> dict[str, str]:
    return {"long_name": f"change of {what}", "units": "share", "baseline": base}
