"""What was recorded of a city in an epidemic: its policies, its activity and its admissions, day by day."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd

from lpmppl.errors import InputError, nearest

__all__ = ["ACTIVITIES", "Recorded", "shipped"]

ACTIVITIES = ("workplaces", "retail", "transit")
"""The places whose visits are recorded, in the order of every table of activity."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """Daily series of one city.

    Published mobility is often a mean of the last seven days: it then says what happened three days before its date.

    Args:
        days: the dates, one a day without gaps, shape (T,).
        stringency: the OxCGRT stringency index, 0 to 100, shape (T,).
        activity: visits relative to before the epidemic (1 = as before) by place, for each of `ACTIVITIES`, shape (T,).
        admissions: hospital admissions a day per 100,000 residents, shape (T,).
    Raises:
        InputError: for days that are missing or out of order, and for a value that is missing, negative or out of
            range; naming the series and the day.
    """

    days: np.ndarray
    stringency: np.ndarray
    activity: Mapping[str, np.ndarray]
    admissions: np.ndarray

    def __post_init__(self) -> None:
        try:
            days = np.asarray(self.days, dtype="datetime64[D]")
        except ValueError as error:
            raise InputError(f"the days recorded must be dates such as 2020-03-22 ({error})") from error
        _consecutive(days)
        for name in self.activity:
            if name not in ACTIVITIES:
                raise InputError(nearest("activity", str(name), ACTIVITIES))
        if missing := [name for name in ACTIVITIES if name not in self.activity]:
            raise InputError(f"the activity recorded lacks {', '.join(missing)}; give each of {', '.join(ACTIVITIES)}")
        activity = {name: _series(f"{name} activity", self.activity[name], days) for name in ACTIVITIES}
        for name, values in activity.items():
            if (values == 0).any():
                raise InputError(f"{name} activity is 0 on {days[values == 0][0]}; activity must be above 0")
        object.__setattr__(self, "days", days)
        object.__setattr__(self, "stringency", _series("stringency", self.stringency, days, highest=100.0))
        object.__setattr__(self, "activity", activity)
        object.__setattr__(self, "admissions", _series("admissions", self.admissions, days))

    @property
    def table(self) -> np.ndarray:
        """The activity as days × places, shape (T, 3), in the order of `ACTIVITIES`."""
        return np.stack([self.activity[name] for name in ACTIVITIES], axis=-1)

    def smoothed(self, days: float = 7.0) -> np.ndarray:
        r"""The admissions known on the morning of each day, smoothed exponentially as `admissions/week` is in a run.

        .. math:: a_{t+1} = a_t + (x_t - a_t) / \tau, \quad a_0 = 0

        Args:
            days: the time constant τ.

        Returns:
            Admissions a day per 100,000 residents, shape (T,).
        """
        known, now = np.zeros(len(self.days)), 0.0
        for k, today in enumerate(self.admissions):
            known[k] = now
            now += (today - now) / days
        return known

    @property
    def outset(self) -> np.datetime64:
        """The first day with an admission; the day after the last where there is none."""
        some = self.admissions > 0
        return self.days[int(some.argmax())] if some.any() else self.days[-1] + np.timedelta64(1, "D")


def _consecutive(days: np.ndarray) -> None:
    if days.ndim != 1 or not len(days):
        raise InputError(f"the days recorded have shape {days.shape}; give one date or more, shape (T,)")
    if np.isnat(days).any():
        raise InputError(f"entry {int(np.isnat(days).argmax())} of the days recorded is no date; give every day")
    steps = np.diff(days).astype(int)
    if (steps < 1).any():
        k = int((steps < 1).argmax())
        raise InputError(f"the days recorded are out of order: {days[k + 1]} follows {days[k]}; sort them")
    if (steps > 1).any():
        k = int((steps > 1).argmax())
        raise InputError(f"{days[k] + np.timedelta64(1, 'D')} is missing from the days recorded; give every day")


def _series(name: str, values: Any, days: np.ndarray, highest: float = math.inf) -> np.ndarray:
    try:
        series = np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{name}: the values recorded must be numbers ({error})") from error
    if series.shape != days.shape:
        raise InputError(f"{name} has shape {series.shape}, but {len(days)} days are recorded; give one value a day")
    for bad, what in (
        (~np.isfinite(series), "a number"),
        (series < 0, "0 or more"),
        (series > highest, f"at most {highest:g}"),
    ):
        if bad.any():
            k = int(bad.argmax())
            hint = " (a change of −67 % is an activity of 0.33)" if name.endswith("activity") else ""
            raise InputError(f"{name} is {series[k]:g} on {days[k]}; it must be {what}{hint}")
    return series


@lru_cache(maxsize=1)
def shipped() -> Recorded:
    """New York from 24 February to 27 December 2020: weekly means, linear between the Thursdays of the weeks.

    >>> record = shipped()
    >>> float(record.stringency[record.days == np.datetime64("2020-04-02")][0])
    82.41
    """
    weeks = _weeks()
    monday = weeks["week"].to_numpy().astype("datetime64[D]")
    days = np.arange(monday[0], monday[-1] + np.timedelta64(7, "D"))
    origin = days[0]

    def daily(column: str) -> np.ndarray:
        return np.interp((days - origin).astype(float), (monday - origin).astype(float) + 3.0, weeks[column])

    activity = {name: 1.0 + daily(name) for name in ACTIVITIES}
    return Recorded(days, daily("stringency"), activity, daily("admissions"))


def _weeks() -> pd.DataFrame:
    """The shipped table as it is typed in: one row a week."""
    raw = files("lpmppl.data").joinpath("tables", "nyc_2020.csv").read_bytes()
    return pd.read_csv(io.BytesIO(raw), comment="#", parse_dates=["week"])
