"""Who meets whom, by age: the contact matrices of Mistry et al. (2021), brought to bands of ten years."""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from lpmppl.data import series
from lpmppl.data.nyc import AGE_BANDS
from lpmppl.errors import InputError, nearest

__all__ = ["WEIGHTS", "bands", "read"]

WEIGHTS = {"household": 4.11, "school": 11.41, "work": 8.07, "community": 2.79}
"""Contacts per day that the matrix of a setting is multiplied by, in Mistry et al. and in the publisher's README."""

_SOURCE = "Mistry et al., Nature Communications 12 (2021), doi:10.1038/s41467-020-20544-y"
_WHAT = "a contact matrix of github.com/mobs-lab/mixing-patterns, data/contact_matrices/…_18.csv or …_85.csv"
_AGES = "its ages, data/age_distributions/…_age_distribution_85.csv or …_18.csv"
_MOST = 1e12
"""More people, or contacts a day, than there can be."""

# First year of each group. The 18 groups end with 80–83 and 84+, for the 85 single years end with 84+.
_LOWER = {18: [*range(0, 81, 5), 84], 85: list(range(85))}


def read(path: str | Path, ages: str | Path, setting: str | None = None) -> xr.Dataset:
    """Read a contact matrix of 18 or 85 age groups with the ages of the people it was made for.

    The publisher's matrices of a setting are shares, F; M, the matrix of all contacts, is Σ w F over the settings. What
    is returned is w F or M. Reciprocity, n_i M_ij = n_j M_ji, must hold to 1 % and 0.0001 contacts per day: as often as
    i meets j, j meets i.

    Args:
        path: the matrix, without a header or with one that numbers the columns from 0.
        ages: the number of people by age, of 85 single years or of the same groups.
        setting: a name in `WEIGHTS`, or `overall`; by default what the publisher's file name says.

    Returns:
        `contacts` (age, contact), contacts per day of one person of `age` with people of age `contact`, and `people`
        (age); coordinate `lower` (age) is the first year of a group.

    Raises:
        InputError: a file isn't there or is no table of numbers; the matrix isn't square, of 18 or 85 groups, or has a
            missing or negative entry; or it doesn't fit the ages in size or reciprocity.
    """
    kind = _setting(path, setting)
    matrix = _numbers(path, _WHAT)
    if len(matrix) == matrix.shape[1] + 1 and (matrix[0] == np.arange(matrix.shape[1])).all():
        matrix = matrix[1:]
    size = len(matrix)
    if size != matrix.shape[1]:
        raise InputError(f"'{path}' has {size} rows and {matrix.shape[1]} columns, and must be square; give {_WHAT}")
    if size not in _LOWER:
        raise InputError(f"'{path}' has {size} age groups; matrices of 18 or 85 can be read: give {_WHAT}")
    if not matrix.any():
        raise InputError(f"'{path}' says that nobody meets anybody (all entries are 0); give {_WHAT}")
    contacts = matrix * WEIGHTS.get(kind, 1.0)
    people = _people(ages, size, path)
    _reciprocal(contacts, people, f"'{path}' does not fit the ages in '{ages}'")
    lower = _LOWER[size]
    labels = [_label(low, below) for low, below in zip(lower, [*lower[1:], None], strict=True)]
    return _dataset(
        contacts,
        people,
        labels,
        lower,
        {
            "source": _SOURCE,
            "setting": kind,
            "file": Path(path).name,
            "sha256": _checksum(path),
            "ages": Path(ages).name,
            "ages_sha256": _checksum(ages),
        },
    )


def bands(groups: xr.Dataset) -> xr.Dataset:
    """Bring a matrix to the bands 0–9, 10–19 … 80+ of the population of New York.

    M_IJ = Σ_{i∈I} n_i Σ_{j∈J} M_ij / n_I, which keeps every contact and reciprocity.

    Args:
        groups: `contacts`, `people` and `lower` as `read` returns them.

    Returns:
        The same for nine bands: `contacts` (age, contact), contacts per day, and `people` (age).

    Raises:
        InputError: a band has no people, or n_i M_ij = n_j M_ji does not hold.
    """
    lower = groups["lower"].to_numpy()
    member = np.minimum(lower // 10, len(AGE_BANDS) - 1)[None, :] == np.arange(len(AGE_BANDS))[:, None]
    fine, counts = groups["people"].to_numpy(), groups["contacts"].to_numpy()
    _reciprocal(counts, fine, "the contact matrix does not fit its 'people'")
    people = member @ fine
    if not (people > 0).all():
        raise InputError(f"no people of age {AGE_BANDS[int(np.argmin(people))]} in the contact matrix; give whole ages")
    contacts = member @ (fine[:, None] * counts) @ member.T / people[:, None]
    return _dataset(contacts, people, AGE_BANDS, list(range(0, 81, 10)), {str(k): v for k, v in groups.attrs.items()})


def _dataset(
    contacts: NDArray[np.float64],
    people: NDArray[np.float64],
    labels: list[str],
    lower: list[int],
    attrs: dict[str, str],
) -> xr.Dataset:
    return xr.Dataset(
        {
            "contacts": (("age", "contact"), contacts, {"long_name": "contacts of one person", "units": "per day"}),
            "people": ("age", people, {"long_name": "people of the model the matrix was made with", "units": "people"}),
        },
        {"age": labels, "contact": labels, "lower": ("age", lower, {"units": "years"})},
        attrs,
    )


def _label(low: int, below: int | None) -> str:
    if below is None:
        return f"{low}+"
    return str(low) if below == low + 1 else f"{low}–{below - 1}"


def _setting(path: str | Path, setting: str | None) -> str:
    """The setting of a matrix, given or in the publisher's file name."""
    known = [*WEIGHTS, "overall"]
    if setting is None:
        match = re.search(r"_(?:F_([a-z]+)_setting|M_(overall)_contact_matrix)_", Path(path).name)
        if not match:
            raise InputError(f"the name of '{path}' doesn't tell its setting; give setting= one of {', '.join(known)}")
        setting = match[1] or match[2]
    if setting not in known:
        raise InputError(nearest("setting", setting, known))
    return setting


def _numbers(path: str | Path, what: str) -> NDArray[np.float64]:
    """A file of finite numbers that are not negative, as many in every row."""
    rows: list[list[float]] = []
    try:
        with series.opened(path, what).open(encoding="utf-8-sig", newline="") as file:
            for line in csv.reader(file, strict=True):
                if not any(cell.strip() for cell in line):
                    continue
                row = [_number(cell, f"'{path}', row {len(rows) + 1}, column {k + 1}") for k, cell in enumerate(line)]
                if rows and len(row) != len(rows[0]):
                    raise InputError(
                        f"'{path}', row {len(rows) + 1}: {len(row)} numbers, where the rows before have "
                        f"{len(rows[0])}; {series.AGAIN}"
                    )
                rows.append(row)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"'{path}' is no CSV table ({str(error).splitlines()[0]}); give {what}") from error
    return np.array(rows)


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not cell.strip():
        raise InputError(f"{where} is empty, and may not be; {series.AGAIN}")
    if not np.isfinite(value):
        raise InputError(f"{where} is '{series.shown(cell)}', which is no number; {series.AGAIN}")
    if value < 0 or value > _MOST:
        fault = "below 0" if value < 0 else "more than there can be"
        raise InputError(f"{where} is {series.shown(cell)}, {fault}; {series.AGAIN}")
    return value


def _people(ages: str | Path, size: int, matrix: str | Path) -> NDArray[np.float64]:
    """People by age group of a matrix with `size` groups."""
    table = _numbers(ages, _AGES)
    if table.shape[1] != 2:
        raise InputError(f"'{ages}' has {table.shape[1]} columns; two are needed, age and people: give {_AGES}")
    if len(table) > 1 and table[0].tolist() == [0, 1] and table[1, 0] == 0:  # a header that numbers the columns
        table = table[1:]
    if (table[:, 0] != np.arange(len(table))).any():
        at = int(np.argmax(table[:, 0] != np.arange(len(table))))
        raise InputError(f"'{ages}', row {at + 1}: age {table[at, 0]:g} where {at} is due; {series.AGAIN}")
    count = table[:, 1]
    if len(count) not in {85, size}:
        raise InputError(
            f"'{ages}' has {len(count)} age groups, which '{matrix}' with {size} can't be matched with; give {_AGES}"
        )
    if not (count > 0).all():
        raise InputError(f"'{ages}': no people of age {int(np.argmin(count))}; {series.AGAIN}")
    return count if len(count) == size else np.add.reduceat(count, _LOWER[size])


def _reciprocal(contacts: NDArray[np.float64], people: NDArray[np.float64], what: str) -> None:
    meetings = people[:, None] * contacts
    apart = np.abs(meetings - meetings.T)
    wrong = apart > 0.01 * (meetings + meetings.T) / 2 + 1e-4 * np.maximum(people[:, None], people[None, :])
    if wrong.any():
        i, j = np.unravel_index(np.argmax(np.where(wrong, apart, 0)), wrong.shape)
        raise InputError(
            f"{what}: groups {i + 1} and {j + 1} have {meetings[i, j]:.6g} contacts a day counted on one side and "
            f"{meetings[j, i]:.6g} on the other; give the ages that the matrix was made with"
        )


def _checksum(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
