"""The published ACS tables of New York's community districts, and the small tables shipped beside them."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from lpmppl.data.numeric import numeric
from lpmppl.errors import InputError

__all__ = ["AGE_GROUPS", "BANDS", "BOROUGHS", "INDUSTRIES", "OCCUPATIONS", "Tables", "read", "shipped"]

BOROUGHS = ("Bronx", "Brooklyn", "Manhattan", "Queens", "Staten Island")
"""In the order of the borough codes."""

# First two digits of a PUMA's code, in the order of BOROUGHS, in the two censuses whose PUMAs have been in use.
_PREFIXES = {"2020": ("42", "43", "41", "44", "45"), "2010": ("37", "40", "38", "41", "39")}

AGE_GROUPS = {"PU16": "under 16", "P16t64": "16–64", "P65pl": "65+"}
BANDS = {
    "ELI": "0–30 % AMI",
    "VLI": "31–50 % AMI",
    "LI": "51–80 % AMI",
    "MI": "81–120 % AMI",
    "MIDI": "121–165 % AMI",
    "HI": "over 165 % AMI",
}
OCCUPATIONS = {
    "mbsa": "management, business, science and arts",
    "srvc": "service",
    "slsoff": "sales and office",
    "cstmnt": "natural resources, construction and maintenance",
    "prdtrn": "production, transportation and material moving",
}
INDUSTRIES = {
    "agff": "agriculture, forestry, fishing, hunting and mining",
    "cnstn": "construction",
    "mnfct": "manufacturing",
    "whlsl": "wholesale trade",
    "rtl": "retail trade",
    "trwhu": "transportation, warehousing and utilities",
    "info": "information",
    "fire": "finance, insurance and real estate",
    "pfmg": "professional, scientific and management",
    "edhlt": "education, health care and social assistance",
    "arten": "arts, entertainment, accommodation and food",
    "oth": "other services",
    "pbadm": "public administration",
}
_CODES = ["Pop1", *AGE_GROUPS, "HHlds3", *BANDS, "MdHInc", "LF", "CvEm1", *OCCUPATIONS, *INDUSTRIES]
_CITY = [f"MW{code}" for code in INDUSTRIES]
_POSITIVE = ["Pop1", *AGE_GROUPS, "HHlds3", "LF", "CvEm1", "MdHInc"]  # a PUMA without any of these is no PUMA


@dataclass(frozen=True)
class Tables:
    """What a population is raked to.

    `acs`: people, households and jobs by PUMA (rows, four digits) and ACS code (columns); `city`: median household
    income and wages of the whole city, dollars a year; `county`: residents by borough, decade of age and sex; `typed`:
    typed-in and modelled figures (table, row, column, value, kind, source); `source`: where `acs` comes from;
    `census`: whose PUMAs these are; `checksum`: SHA-256 of all.
    """

    acs: pd.DataFrame
    city: pd.Series
    county: pd.DataFrame
    typed: pd.DataFrame
    source: str
    census: str
    checksum: str

    @property
    def pumas(self) -> list[str]:
        """The PUMA codes, in the order of the rows."""
        return list(self.acs.index)

    @property
    def boroughs(self) -> list[int]:
        """The borough code of each PUMA."""
        return [_PREFIXES[self.census].index(puma[:2]) for puma in self.acs.index]

    def value(self, table: str, row: str, column: str) -> float:
        """One typed figure.

        >>> shipped().value("household_size", "1", "share")
        0.325
        """
        return float(self.sheet(table).loc[row, column])

    def sheet(self, table: str) -> pd.DataFrame:
        """A typed table as rows × columns."""
        part = self.typed[self.typed["table"] == table]
        return part.pivot(index="row", columns="column", values="value").loc[part["row"].unique()]

    def origin(self, table: str, row: str) -> tuple[str, str]:
        """Kind and source of a typed row."""
        part = self.typed[(self.typed["table"] == table) & (self.typed["row"] == row)].iloc[0]
        return str(part["kind"]), str(part["source"])


def read(*paths: str | Path) -> Tables:
    """Read published ACS tables of New York: CSV with a column `Geog` and `<code>_<year>E` estimates.

    Several files of one vintage (such as demographic and economic) are joined on `Geog`. `Geog` holds `NYC`, and one
    four-digit PUMA (of the 2020 or the 2010 census) a row; boroughs and margins of error are not needed.

    Raises InputError that names the missing column or row.
    """
    if not paths:
        raise InputError("no ACS table given: pass the path of at least one CSV file")
    frames = []
    for path in map(Path, paths):
        if not path.is_file():
            raise InputError(f"ACS table '{path}' is not there; give the path of a CSV file")
        frames.append(_frame(path.read_bytes(), str(path)))
    joined = frames[0]
    for frame in frames[1:]:
        joined = joined.join(frame[frame.columns.difference(joined.columns)], how="outer")
    return _tables(joined, ", ".join(Path(path).name for path in paths))


@lru_cache(maxsize=1)
def shipped() -> Tables:
    """The tables in the package: ACS 2020–2024."""
    return _tables(_frame(_resource("acs_2020_2024.csv"), "the shipped table"), "ACS 2020–2024 5-year, NYC DCP EDDE")


def _resource(name: str) -> bytes:
    return files("lpmppl.data").joinpath("tables", name).read_bytes()


def _frame(raw: bytes, name: str) -> pd.DataFrame:
    try:
        frame = pd.read_csv(io.BytesIO(raw), dtype={"Geog": str})
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise InputError(f"'{name}' is not a CSV table of ACS estimates ({str(error).splitlines()[0]})") from error
    if "Geog" not in frame:
        raise InputError(f"'{name}' has no column 'Geog': not a table of the published ACS format")
    if frame["Geog"].duplicated().any():
        raise InputError(f"'{name}' has row '{frame['Geog'][frame['Geog'].duplicated()].iloc[0]}' twice")
    return frame.set_index("Geog")


def _tables(frame: pd.DataFrame, name: str) -> Tables:
    vintages = {match[1] for column in frame if (match := re.fullmatch(r"[A-Za-z0-9]+_(\d\d)E", str(column)))}
    if len(vintages) != 1:
        found = ", ".join(sorted(vintages)) or "none"
        raise InputError(f"{name}: columns <code>_<year>E of exactly one vintage are needed, found: {found}")
    (vintage,) = vintages
    for code in _CODES + _CITY:
        if f"{code}_{vintage}E" not in frame:
            raise InputError(f"{name}: column '{code}_{vintage}E' is missing")
    if "NYC" not in frame.index:
        raise InputError(f"{name}: row 'NYC' is missing")
    pumas = sorted(row for row in frame.index if re.fullmatch(r"\d{4}", str(row)))
    # Codes 41xx are of Manhattan in one census and of Queens in the other; 3xxx are only in the older one.
    census = "2010" if any(puma.startswith("3") for puma in pumas) else "2020"
    for borough, prefix in zip(BOROUGHS, _PREFIXES[census], strict=True):
        if not any(puma.startswith(prefix) for puma in pumas):
            raise InputError(f"{name}: no row of a PUMA of {borough} ({prefix}xx)")
    for puma in pumas:
        if puma[:2] not in _PREFIXES[census]:
            raise InputError(f"{name}: row '{puma}' is no PUMA of New York City in the census of {census}")
    columns = {f"{code}_{vintage}E": code for code in _CODES}
    acs = frame.loc[pumas, list(columns)].rename(columns=columns).apply(numeric)
    city = numeric(frame.loc["NYC", [f"{code}_{vintage}E" for code in [*_CITY, "MdHInc"]]])
    city.index = pd.Index([*_CITY, "MdHInc"])
    for table, row in ((acs, None), (city.to_frame("NYC").T, "NYC")):
        bad = ~np.isfinite(table) | (table < 0) | ((table == 0) & table.columns.isin(_POSITIVE))
        if bad.to_numpy().any():
            at = bad.stack()[lambda cells: cells].index[0]
            column = f"{at[1]}_{vintage}E"
            raise InputError(f"{name}: row '{row or at[0]}', column '{column}' is no number of people or dollars")
    _consistent(acs, name, vintage)
    county = pd.read_csv(io.BytesIO(_resource("county_age_sex.csv")), index_col="borough").drop(columns="source")
    typed = pd.read_csv(io.BytesIO(_resource("typed.csv")), dtype={"row": str, "column": str})
    digest = hashlib.sha256()
    for part in (acs, city.to_frame(), county, typed):
        digest.update(part.to_csv().encode())
    source = name if name.startswith("ACS") else f"{name} (vintage 20{vintage})"
    return Tables(
        acs=acs.astype("float64"),
        city=city.astype("float64"),
        county=county.astype("float64"),
        typed=typed,
        source=source,
        census=census,
        checksum=digest.hexdigest(),
    )


def _consistent(acs: pd.DataFrame, name: str, vintage: str) -> None:
    parts = {"Pop1": list(AGE_GROUPS), "HHlds3": list(BANDS), "CvEm1": list(OCCUPATIONS)}
    for total, codes in [*parts.items(), ("CvEm1", list(INDUSTRIES))]:
        gap = (acs[codes].sum(axis=1) - acs[total]).abs() / acs[total].clip(lower=1)
        if (gap > 0.01).any():
            row = gap.idxmax()
            raise InputError(
                f"{name}: row '{row}': {codes[0]}…{codes[-1]} add to {acs.loc[row, codes].sum():.0f}, "
                f"not to {total}_{vintage}E = {acs.loc[row, total]:.0f}"
            )
