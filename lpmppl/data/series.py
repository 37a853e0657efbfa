"""Published tables as text, checked cell by cell: columns, days without gaps, and numbers within their bounds."""

from __future__ import annotations

import csv
import difflib
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lpmppl.errors import InputError

__all__ = ["AGAIN", "Table", "header", "opened", "read", "shown"]

_ABSENT = ("", ".")
_FORMATS = ("%Y-%m-%d", "%m/%d/%Y", "%Y%m%d", "%d%b%Y")
_MOST = 2.0**53
AGAIN = "correct it, or download the file again"
"""The remedy of a table that says what can't be."""


@dataclass(frozen=True)
class Table:
    """Some rows and columns of a published table.

    Args:
        name: the file as the user named it.
        cells: what the file says, as text; the index is the line in the file, the header being line 1.
        checksum: SHA-256 of the whole file.
        day: the day of every row, once `dated` has found it.
    """

    name: str
    cells: pd.DataFrame
    checksum: str
    day: pd.DatetimeIndex | None = None

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def days(self) -> pd.DatetimeIndex:
        """The day of every row of a table that is `dated`."""
        assert self.day is not None
        return self.day

    def row(self, place: int) -> str:
        """Name a row in a message: its line, and its day if that is known."""
        line = f"line {self.cells.index[place]}"
        return line if self.day is None else f"{line} ({self.day[place]:%Y-%m-%d})"

    def only(self, column: str, value: str) -> Table:
        """The rows in which `column` is `value`; there may be none."""
        keep = (self.cells[column] == value).to_numpy()
        return replace(self, cells=self.cells[keep], day=None if self.day is None else self.day[keep])

    def on(self, *columns: str) -> Table:
        """Find the day of each row, in the column of the date or in those of year, month and day.

        A date is written as 2020-03-01, 03/01/2020, 20200301 or 01Mar2020. Raises InputError for a cell that is none.
        """
        return replace(self, day=self._days(columns))

    def dated(self, *columns: str, every: int = 1) -> Table:
        """Sort the rows by day, and see that there is one for each.

        Args:
            columns: as those of `on`; none if the days are known.
            every: days from one row to the next.

        Raises:
            InputError: a cell is no date, a day is there twice, or days are missing; the first is named.
        """
        if not len(self):
            raise InputError(f"'{self.name}' has no rows under its header; {AGAIN}")
        day = self._days(columns) if columns else self.days
        order = np.argsort(day.to_numpy(), kind="stable")
        table = replace(self, cells=self.cells.iloc[order], day=day[order])
        days = table.days
        steps = np.diff(days.to_numpy()) // np.timedelta64(1, "D")
        if (steps == 0).any():
            at = int(np.argmax(steps == 0))
            lines = sorted(int(line) for line in table.cells.index[at : at + 2])
            raise InputError(
                f"'{self.name}' has {days[at]:%Y-%m-%d} twice, in lines {lines[0]} and {lines[1]}; keep one of them"
            )
        if (steps != every).any():
            at = int(np.argmax(steps != every))
            unit = "day" if every == 1 else f"{every} days"
            wanted = days[at] + pd.Timedelta(days=every)
            raise InputError(
                f"'{self.name}' misses {wanted:%Y-%m-%d}: a row for every {unit} is needed, but after "
                f"{days[at]:%Y-%m-%d} comes {days[at + 1]:%Y-%m-%d}; {AGAIN}"
            )
        return table

    def numbers(
        self,
        column: str,
        *,
        least: float | None = None,
        most: float | None = None,
        whole: bool = False,
        missing: Literal["no", "at the ends", "anywhere"] = "no",
    ) -> NDArray[np.float64]:
        """The numbers in `column`; nan where a cell is empty or `.` and that is allowed.

        Raises:
            InputError: a cell is no finite number, below `least`, above `most`, no whole number though `whole`, or
                missing where it may not be; or the column holds no number at all.
        """
        text = self.cells[column].str.strip()
        absent = text.isin(_ABSENT).to_numpy()
        value = np.array(pd.to_numeric(text.where(~absent, "nan"), errors="coerce"), dtype=np.float64)
        for wrong, fault in (
            (~absent & ~np.isfinite(value), "which is no number"),
            (np.zeros(0) if least is None else value < least, f"below {least or 0:g}"),
            (np.zeros(0) if most is None else value > most, f"above {most or 0:g}"),
            ((np.floor(value) != value) & ~absent if whole else np.zeros(0), "which is no whole number"),
            (np.abs(value) > _MOST if whole else np.zeros(0), "which is more than can be counted"),
        ):
            if wrong.any():
                at = int(np.argmax(wrong))
                raise InputError(
                    f"'{self.name}', {self.row(at)}: column '{column}' is '{shown(text.iloc[at])}', {fault}; {AGAIN}"
                )
        if absent.all():
            raise InputError(f"'{self.name}': column '{column}' holds no number at all; {AGAIN}")
        if missing == "anywhere":
            return value
        given = np.flatnonzero(~absent)
        first, last = (given[0], given[-1]) if missing == "at the ends" else (0, len(value) - 1)
        gaps = np.flatnonzero(absent[first : last + 1]) + first
        if len(gaps):
            raise InputError(
                f"'{self.name}', {self.row(int(gaps[0]))}: column '{column}' is empty, and may not be; {AGAIN}"
            )
        return value

    def trimmed(self, column: str) -> Table:
        """Without the rows before the first and after the last number in `column`: days that are not published."""
        given = np.flatnonzero(~self.cells[column].str.strip().isin(_ABSENT).to_numpy())
        if not len(given):
            raise InputError(f"'{self.name}': column '{column}' holds no number at all; {AGAIN}")
        keep = slice(int(given[0]), int(given[-1]) + 1)
        return replace(self, cells=self.cells.iloc[keep], day=None if self.day is None else self.day[keep])

    def attrs(self, source: str, **more: str | int | float) -> dict[str, str | int | float]:
        """What a dataset made from this table says of its making."""
        return {"source": source, "file": Path(self.name).name, "sha256": self.checksum, **more}

    def _days(self, columns: Sequence[str]) -> pd.DatetimeIndex:
        parts = [self.cells[column].str.strip() for column in columns]
        if len(parts) > 1:
            text = parts[0].str.cat([part.str.zfill(2) for part in parts[1:]], sep="-")
            formats: Sequence[str] = _FORMATS[:1]
        else:
            text, formats = parts[0], _FORMATS
        tried = [pd.to_datetime(text, format=form, errors="coerce") for form in formats]
        tried = [days.where(days.dt.year.between(1900, 2199)) for days in tried]
        best = min(tried, key=lambda days: int(days.isna().sum()))
        if best.isna().any():
            at = int(np.argmax(best.isna()))
            raise InputError(
                f"'{self.name}', {self.row(at)}: '{shown(text.iloc[at])}' in column '{'-'.join(columns)}' is no date "
                f"such as 2020-03-01 or 03/01/2020; {AGAIN}"
            )
        return pd.DatetimeIndex(best).as_unit("ns").rename(None)


def read(
    path: str | Path,
    needed: Collection[str],
    what: str,
    *,
    optional: Collection[str] = (),
    where: Mapping[str, Collection[str]] | None = None,
) -> Table:
    """Read a CSV table as text, whatever the case of its column names.

    Args:
        path: the file.
        needed: columns that must be there.
        what: the file that is meant, as a remedy says it.
        optional: columns that may be there.
        where: columns, and the values of which a row must have one to be read.

    Raises:
        InputError: there is no such file, or it is empty, binary, no table, without a needed column, or without any row
            that is asked for.
    """
    rows = _rows(path, what)
    names = _names(next(rows)[1])
    lower = [name.lower() for name in names]
    for column in needed:
        if column.lower() not in lower:
            others = [name for name in lower if name not in {known.lower() for known in (*needed, *optional)}]
            close = difflib.get_close_matches(column.lower(), others, n=1, cutoff=0.5)
            near = f" (the nearest is '{names[lower.index(close[0])]}')" if close else ""
            raise InputError(f"'{path}' has no column '{column}'{near}; give {what}")
    wanted = [column for column in dict.fromkeys([*needed, *optional]) if column.lower() in lower]
    for column in wanted:
        if lower.count(column.lower()) > 1:
            raise InputError(f"'{path}' has column '{column}' twice; keep one of them")
    place = {column: lower.index(column.lower()) for column in wanted}
    tests = [(place[column], frozenset(values)) for column, values in (where or {}).items()]
    lines, cells = [], []
    for line, row in rows:
        if len(row) != len(names):
            raise InputError(
                f"'{path}', line {line}: {len(row)} cells under a header of {len(names)}; the file is cut off "
                f"or damaged: {AGAIN}"
            )
        if all(row[at].strip() in values for at, values in tests):
            lines.append(line)
            cells.append([row[at] for at in place.values()])
    if not lines:
        asked = " and ".join(f"{column} {' or '.join(values)}" for column, values in (where or {}).items())
        raise InputError(f"'{path}' has no rows{f' of {asked}' if asked else ' under its header'}; give {what}")
    frame = pd.DataFrame(cells, columns=list(place), index=pd.Index(lines), dtype=str)
    with opened(path, what).open("rb") as file:
        return Table(str(path), frame, hashlib.file_digest(file, "sha256").hexdigest())


def header(path: str | Path, what: str) -> list[str]:
    """The names of a CSV table's columns. Raises InputError as `read` does."""
    return _names(next(_rows(path, what))[1])


def opened(path: str | Path, what: str) -> Path:
    """See that `path` is a file of text that can be read. Raises InputError if it is not."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"'{path}' is a folder; give the path of {what}")
    if not path.is_file():
        raise InputError(f"'{path}' is not there; give the path of {what}")
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise InputError(f"'{path}' can't be read ({error.strerror or error}); give the path of {what}") from error
    if not head.strip():
        raise InputError(f"'{path}' is empty; give the path of {what}")
    if b"\0" in head:
        raise InputError(f"'{path}' is binary and no CSV table; give the path of {what}")
    if re.match(rb"\s*<", head.removeprefix(b"\xef\xbb\xbf")):
        raise InputError(f"'{path}' is a web page and no CSV table; give the path of {what}")
    return path


def _names(row: Sequence[str]) -> list[str]:
    return [" ".join(name.split()) for name in row]


def shown(cell: str) -> str:
    """A cell as one line of a message can show it."""
    return shorten(cell, 40, placeholder="…") if len(cell) > 40 or "\n" in cell else cell


def _rows(path: str | Path, what: str) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of each row that is not blank; there is at least one."""
    found = False
    with opened(path, what).open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            for row in rows:
                if any(cell.strip() for cell in row):
                    found = True
                    yield rows.line_num, row
        except (UnicodeDecodeError, csv.Error) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"'{path}', line {rows.line_num + 1}: no CSV table ({reason}); give the path of {what}"
            ) from error
    if not found:
        raise InputError(f"'{path}' is empty; give the path of {what}")
