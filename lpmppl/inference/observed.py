"""Observed counts, read, checked and brought onto the days and strata of a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from lpmppl.errors import InputError, nearest
from lpmppl.models.model import Model

__all__ = ["Observed", "Stream", "tally_of"]

REPORTED = "reported"
"""What is reported is the tally `reported_deaths`, of the counts at the site `reported/deaths`."""


@dataclass(frozen=True)
class Stream:
    """One series of counts, and what of the model it is.

    Args:
        name: what it is called in the data.
        tally: the tally of the model.
        counts: the counts on each day, float64 of shape (T, K), NaN where a day wasn't seen.
        kept: the strata of the model's tally that the counts keep, with their labels; their product is K.
        axes: the places of the strata that are kept among those of the tally.
        shape: the sizes of the tally's strata.
    """

    name: str
    tally: str
    counts: np.ndarray
    kept: Mapping[str, Sequence[str]]
    axes: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def site(self) -> str | None:
        """The site of the count, where it is one of reports."""
        return (
            f"{REPORTED}/{self.tally.removeprefix(f'{REPORTED}_')}" if self.tally.startswith(f"{REPORTED}_") else None
        )

    def folded(self, groups: np.ndarray) -> np.ndarray:
        """Sum values of the model's strata, shape (…, G), over those that the counts don't keep: shape (…, K)."""
        lead = groups.shape[:-1]
        wide = groups.reshape(*lead, *self.shape)
        gone = tuple(len(lead) + k for k in range(len(self.shape)) if k not in self.axes)
        return np.asarray(wide.sum(gone)).reshape(*lead, -1)

    def array(self, values: np.ndarray, lead: Sequence[str] = ()) -> xr.DataArray:
        """Values of shape (…, T, K) as days and strata by name."""
        sizes = [len(labels) for labels in self.kept.values()]
        dims = (*lead, "day", *self.kept)
        return xr.DataArray(values.reshape(*values.shape[:-1], *sizes), dims=dims, coords=dict(self.kept))


@dataclass(frozen=True)
class Observed:
    """All that was observed of a society.

    Args:
        streams: the series.
        days: how many days, from the model's first one on.
        start: the date of day 0, or "" where days are only numbers.
    """

    streams: Sequence[Stream]
    days: int
    start: str

    @classmethod
    def of(cls, model: Model, data: Any, until: str | int | None = None) -> Observed:
        """Read what was observed.

        Args:
            model: the society.
            data: counts by name, such as "deaths": an xarray Dataset over `day` and strata of the model, a pandas
                DataFrame with a row for each day, or a mapping of series from day 0 on. NaN or an absent day wasn't
                seen. Days are dates where the model has a start, or numbers.
            until: the last day, an ISO date or a number; all days by default.
        Raises:
            InputError: for a stream that the model doesn't count; counts that are negative, broken or none; a day there
                twice or not of a form that is understood; strata that aren't the model's.
        """
        table = _dataset(data)
        if not table.data_vars:
            raise InputError("nothing was observed; give counts by name, such as {'tally': [0, 2, 3]}")
        start = str(getattr(model, "start", "") or "")
        if not table.sizes.get("day", 1):
            raise InputError(f"'{next(iter(table.data_vars))}' has no days; give a count for each, such as [0, 2, 3]")
        number = _numbers(table["day"], start)
        last = int(number.max()) if until is None else _last(until, start)
        keep = (number >= 0) & (number <= last)
        if not keep.any():
            raise InputError(
                f"nothing was observed from day 0{f' ({start})' if start else ''} to day {last}; give other data or "
                "dates"
            )
        days = last + 1
        streams = []
        for key, values in table.data_vars.items():
            stream = _stream(model, str(key), values.isel(day=np.flatnonzero(keep)), number[keep], days)
            streams.append(stream)
        return cls(streams, days, start)

    @property
    def counts(self) -> np.ndarray:
        """All counts, shape (D,): stream by stream, day by day."""
        return np.concatenate([s.counts.reshape(-1) for s in self.streams])

    def split(self, cells: np.ndarray) -> list[np.ndarray]:
        """Values of all cells, of as many days as they have, stream by stream: (…, D) to (…, T, K) each."""
        strata = [s.counts.shape[1] for s in self.streams]
        days = cells.shape[-1] // sum(strata)
        parts = np.split(cells, days * np.cumsum(strata)[:-1], axis=-1)
        return [p.reshape(*p.shape[:-1], days, k) for p, k in zip(parts, strata, strict=True)]

    def only(self, streams: Collection[str], cells: np.ndarray) -> np.ndarray:
        """Of values of all cells, shape (B, D), those of some streams."""
        parts = zip(self.streams, self.split(cells), strict=True)
        return np.concatenate([x.reshape(len(cells), -1) for s, x in parts if s.name in streams], -1)


def _dataset(data: Any) -> xr.Dataset:
    """Whatever was given as a Dataset over days."""
    if isinstance(data, xr.DataArray):
        data = data.to_dataset(name=data.name or "counts")
    if isinstance(data, pd.DataFrame):
        if isinstance(data.index, pd.DatetimeIndex) and data.index.tz is not None:
            raise InputError(
                f"the days are in the time zone {data.index.tz}; give dates, as by .index.tz_localize(None)"
            )
        data = xr.Dataset({str(name): ("day", data[name].to_numpy()) for name in data}, {"day": data.index})
    if isinstance(data, xr.Dataset):
        if "day" not in data.dims or "day" not in data.coords:
            raise InputError(
                f"what was observed has dimensions {', '.join(map(str, data.dims)) or 'none'}; give days as 'day'"
            )
        return data
    if not isinstance(data, Mapping):
        raise InputError(f"{type(data).__name__} was given as data; give a Dataset, a DataFrame or series by name")
    found = {}
    for name, series in data.items():
        try:
            values = np.asarray([float(x) for x in series], dtype=float)
        except (TypeError, ValueError) as e:
            raise InputError(
                f"what was observed of '{name}' can't be read: {series!r}; give a number for each day"
            ) from e
        found[str(name)] = xr.DataArray(values, dims="day", coords={"day": np.arange(len(values))})
    return xr.Dataset(found)


def _numbers(day: xr.DataArray, start: str) -> np.ndarray:
    """The number of each day, from the model's start."""
    values = day.to_numpy()
    if values.dtype.kind in "OUS":
        try:
            values = pd.to_datetime([str(v) for v in values], format="%Y-%m-%d").to_numpy()
        except ValueError as e:
            raise InputError(f"the days can't be read as dates such as 2020-03-01: {e}") from e
    if values.dtype.kind == "M":
        if not start:
            raise InputError("the data have dates, but the model has none; give days as numbers from 0 on")
        whole = values.astype("datetime64[D]")
        if (whole != values).any():
            raise InputError(
                f"the data have times of day, such as {values[whole != values][0]}; give one row for each date"
            )
        number = (whole - np.datetime64(start, "D")).astype(int)
    elif values.dtype.kind in "iu":
        number = values.astype(int)
    else:
        raise InputError(f"the days are {values.dtype}; give dates or whole numbers")
    seen, count = np.unique(number, return_counts=True)
    if (count > 1).any():
        raise InputError(f"day {values[number == seen[count > 1][0]][0]} is there twice; keep one row for each day")
    return number


def _last(until: str | int, start: str) -> int:
    if isinstance(until, int | np.integer) and not isinstance(until, bool):
        last = int(until)
    else:
        try:
            end = date.fromisoformat(str(until))
        except ValueError as e:
            raise InputError(f"until={until!r} is no date; write it as '2020-05-31'") from e
        if not start:
            raise InputError(f"until={until!r} is a date, but the model has none; give the number of the last day")
        last = (end - date.fromisoformat(start)).days
    if last < 0:
        raise InputError(f"until={until!r} comes before the first day{f', {start}' if start else ''}")
    return last


def tally_of(model: Model, name: str) -> str:
    """The tally that a stream is, what is reported before what happened; InputError where the model counts no such."""
    tally = next((t for t in (f"{REPORTED}_{name}", name) if t in model.tallies), None)
    if tally is None:
        known = [t.removeprefix(f"{REPORTED}_") for t in model.tallies]
        raise InputError(nearest("stream that the model counts", name, sorted({*known})))
    return tally


def _stream(model: Model, name: str, values: xr.DataArray, number: np.ndarray, days: int) -> Stream:
    tally = tally_of(model, name)
    strata = {} if model.by is None else {d: [str(x) for x in labels] for d, labels in model.by.dims.items()}
    kept = [str(d) for d in values.dims if d != "day"]
    for dim in kept:
        if dim not in strata:
            raise InputError(
                nearest(f"stratum of {name}", dim, strata)
                if strata
                else f"{name} has the dimension '{dim}', but the model has no strata"
            )
        labels = [str(x) for x in values[dim].to_numpy()]
        if sorted(labels) != sorted(strata[dim]):
            raise InputError(
                f"the {dim}s of '{name}' are {', '.join(labels)}; the model's are {', '.join(strata[dim])}"
            )
    kept = [d for d in strata if d in kept]
    ordered = values.transpose("day", *kept)
    for dim in kept:
        order = {str(x): k for k, x in enumerate(ordered[dim].to_numpy())}
        ordered = ordered.isel({dim: [order[label] for label in strata[dim]]})
    try:
        found = ordered.to_numpy().astype(float)
    except (TypeError, ValueError) as e:
        raise InputError(f"what was observed of '{name}' are no numbers ({e}); give counts") from e
    bad = ~np.isnan(found) & ~((found >= 0) & np.isfinite(found))
    if bad.any():
        at = int(np.argwhere(bad)[0][0])
        raise InputError(
            f"'{name}' has {found[bad][0]:g} on day {number[at]}: give counts, 0 or more, or NaN if unseen"
        )
    if np.isnan(found).all():
        raise InputError(f"'{name}' has no number on any of the days; leave it out or give other dates")
    counts = np.full((days, *found.shape[1:]), np.nan)
    counts[number] = found
    return Stream(
        name, tally, counts.reshape(days, -1), {d: strata[d] for d in kept},
        tuple(k for k, d in enumerate(strata) if d in kept), tuple(len(x) for x in strata.values()),
    )  # fmt: skip
