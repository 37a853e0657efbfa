"""The counts of the Health Department's files, as commands read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lpmppl.errors import InputError, nearest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["counted", "eight_days_before", "known_of"]

STREAMS = ("admissions", "deaths", "cases")


def eight_days_before(vintage: str) -> str:
    """The last day of what was known on a day that was all but complete."""
    try:
        return str(date.fromisoformat(vintage) - timedelta(days=8))
    except (ValueError, OverflowError) as error:
        raise InputError(f"--vintage {vintage}: write it as a date such as 2020-06-01") from error


def counted(path: str | Path, streams: Sequence[str], vintage: str = "") -> xr.Dataset:
    """Read the counts of streams by borough, or those of the whole city as they were known on a day."""
    from lpmppl.data import nyc_health

    _check(streams)
    if vintage:
        return known(path, streams, vintage)
    of = {f"borough_{n}": n for n in streams}
    return nyc_health.read(path)[list(of)].rename(of)


def known(path: str | Path, streams: Sequence[str], vintage: str) -> xr.Dataset:
    """Read the counts of streams in the whole city as they were known on a day."""
    table, days = versions(path)
    if vintage not in days:
        raise InputError(f"--vintage {vintage}: '{path}' has versions of {', '.join(days)}")
    return _version(table, streams, days.index(vintage))


def _check(streams: Sequence[str]) -> None:
    for name in streams:
        if name not in STREAMS:
            raise InputError(nearest("stream", name, STREAMS))


def known_of(path: str | Path, streams: Sequence[str], day: str) -> xr.Dataset:
    """Read the counts of streams in the whole city as they were known once those of a day were all but complete."""
    _check(streams)
    table, days = versions(path)
    later = [k for k, d in enumerate(days) if eight_days_before(d) >= day]
    if not later:
        raise InputError(f"'{path}' has no version of eight days after {day} or later, as is needed to score by")
    return _version(table, streams, later[0])


def _version(table: xr.Dataset, streams: Sequence[str], number: int) -> xr.Dataset:
    return table[list(streams)].isel(vintage=number, drop=True).dropna("day", how="all")


def versions(path: str | Path) -> tuple[xr.Dataset, list[str]]:
    """Read all versions of a file, and their dates."""
    from lpmppl.data import nyc_health

    table = nyc_health.vintages(path)
    return table, [str(v)[:10] for v in table["vintage"].values]
