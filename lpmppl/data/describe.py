"""Every margin of a built population beside its target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from lpmppl.data.acs import AGE_GROUPS, BANDS, BOROUGHS, INDUSTRIES, OCCUPATIONS, Tables, shipped
from lpmppl.data.labour import EMPLOYED, OUTSIDE
from lpmppl.data.nyc import AGE_BANDS
from lpmppl.data.provenance import provenance
from lpmppl.data.targets import persons, quarters, size_shares
from lpmppl.errors import InputError

__all__ = ["margins"]

_COLUMNS = ["margin", "group", "target", "built", "difference_percent", "source", "kind"]
_SCHOOL, _WORKPLACE = 2, 1
_NO_TABLE = "no table: listed as modelled in docs/population.md"

Numbers = NDArray[np.float64]


class _Margins:
    """Collects rows; areas are the city, its boroughs and its PUMAs."""

    def __init__(self, dataset: xr.Dataset, tables: Tables) -> None:
        self.data = {str(name): variable.values for name, variable in dataset.variables.items()}
        self.tables = tables
        self.factor = dataset.sizes["agent"] / float(tables.acs["Pop1"].sum())
        names = list(BOROUGHS)
        self.names = ["city", *names, *tables.pumas]
        borough = np.array(tables.boroughs)
        self.over = np.vstack(
            [np.ones_like(borough), *(borough == b for b in range(len(names))), np.eye(len(borough))]
        ).astype(float)
        self.rows: list[tuple[str, str, float, float, float, str, str]] = []

    def add(
        self,
        margin: str,
        groups: Iterable[str],
        target: Iterable[float],
        built: Iterable[float],
        source: str,
        kind: str,
    ) -> None:
        for group, goal, found in zip(groups, target, built, strict=True):
            gap = 100 * (float(found) / float(goal) - 1) if goal else (0.0 if not found else np.inf)
            self.rows.append((margin, group, float(goal), float(found), gap, source, kind))

    def areas(
        self, margin: str, labels: Sequence[str], target: Numbers, built: Numbers, source: str, kind: str
    ) -> None:
        """Rows for every area × label from tables of PUMA × label; targets are scaled to the population's size."""
        groups = [f"{area}, {label}" if label else area for area in self.names for label in labels]
        self.add(margin, groups, (self.over @ target * self.factor).ravel(), (self.over @ built).ravel(), source, kind)

    def count(self, codes: NDArray[np.integer], labels: int, where: NDArray[np.bool_] | None = None) -> Numbers:
        """People by PUMA and code, (P, labels)."""
        puma = self.data["puma"]
        if where is not None:
            codes, puma = codes[where], puma[where]
        cells = len(self.tables.pumas) * labels
        return np.bincount(puma.astype(np.int64) * labels + codes, minlength=cells).reshape(-1, labels).astype(float)


def margins(dataset: xr.Dataset, tables: Tables | None = None) -> pd.DataFrame:
    """A row for every margin and group: margin, group, target, built, difference_percent, source, kind.

    `kind` says where the target comes from: "tabulated" (a published table), "typed in" (a published figure), or
    "modelled" (assumed, with the reason in `source`). Targets are scaled to the size of the population.
    `tables` are those it was built with, by default the package's. Raises InputError if the population was built with
    others or isn't New York's.
    """
    tables = shipped() if tables is None else tables
    origin = provenance(dataset)
    if "tables_sha256" not in origin or "puma" not in dataset:
        raise InputError("margins are known only for a population that `lpmppl population nyc` built")
    if origin["tables_sha256"] != tables.checksum:
        raise InputError(f"this population was built with other tables: pass those ('{origin.get('tables')}')")
    m = _Margins(dataset, tables)
    _people(m)
    _homes(m)
    _work(m)
    _places(m)
    return pd.DataFrame(m.rows, columns=_COLUMNS)


def _people(m: _Margins) -> None:
    acs, people = m.tables.acs, persons(m.tables)
    age, sex = m.data["age"], m.data["sex"]
    m.areas("residents", [""], acs[["Pop1"]].to_numpy(), m.count(np.zeros_like(age), 1), m.tables.source, "tabulated")
    group = np.searchsorted([16, 65], np.arange(256), side="right")[age]
    m.areas(
        "age group",
        list(AGE_GROUPS.values()),
        acs[list(AGE_GROUPS)].to_numpy(),
        m.count(group, 3),
        m.tables.source,
        "tabulated",
    )
    county = "county age and sex table, raked to the three age groups of " + m.tables.source
    m.areas("sex", ["female", "male"], people.sum(axis=1), m.count(sex, 2), county, "tabulated")
    bands = np.stack([people[:, low : low + 10 if low < 80 else None].sum(axis=1) for low in range(0, 90, 10)], axis=1)
    labels = [f"{band}, {name}" for band in AGE_BANDS for name in ("female", "male")]
    built = m.count(m.data["age_band"].astype(np.int64) * 2 + sex, 18)
    # The decades of one PUMA are no one's table: they are those of its borough.
    boroughs = slice(0, 1 + len(BOROUGHS))
    m.add(
        "age band and sex",
        [f"{area}, {label}" for area in m.names[boroughs] for label in labels],
        (m.over[boroughs] @ bands.reshape(len(bands), -1) * m.factor).ravel(),
        (m.over[boroughs] @ built).ravel(),
        county,
        "tabulated",
    )
    role = m.data["household_kind"][m.data["household"]]
    city, source = m.tables.origin("quarters", "city")
    target = quarters(m.tables, people).sum(axis=(1, 2))[:, None]
    m.add("group quarters", ["city"], [target.sum() * m.factor], [role.sum()], source, city)
    built = m.count(role, 2)[:, 1:]
    within = slice(1, 1 + len(BOROUGHS))
    kind, source = m.tables.origin("quarters", "Bronx")
    m.add(
        "group quarters",
        m.names[within],
        (m.over[within] @ target * m.factor)[:, 0],
        (m.over[within] @ built)[:, 0],
        source,
        kind,
    )


def _homes(m: _Margins) -> None:
    acs = m.tables.acs
    is_home = m.data["household_kind"] == 0
    first = np.flatnonzero(np.diff(m.data["household"], prepend=-1))
    puma = m.data["puma"][first][is_home].astype(np.int64)
    homes = np.bincount(puma, minlength=len(acs)).astype(float)[:, None]
    m.areas("households", [""], acs[["HHlds3"]].to_numpy(), homes, m.tables.source, "tabulated")
    band = m.data["income_band"][is_home].astype(np.int64) - 1
    built = np.bincount(puma * len(BANDS) + band, minlength=len(acs) * len(BANDS)).reshape(len(acs), -1).astype(float)
    m.areas("household income", list(BANDS.values()), acs[list(BANDS)].to_numpy(), built, m.tables.source, "tabulated")
    size = m.data["household_size"][is_home]
    people = persons(m.tables)
    mean = float((people.sum() - quarters(m.tables, people).sum()) / acs["HHlds3"].sum())
    m.add(
        "mean household size",
        ["city"],
        [mean],
        [size.mean()],
        f"residents less group quarters, over households: {m.tables.source}",
        "tabulated",
    )
    shares = size_shares(m.tables)
    built_shares = np.bincount(np.minimum(size, 7), minlength=8)[1:] / size.size
    for number, (target, found) in enumerate(zip(shares, built_shares, strict=True), start=1):
        kind, source = m.tables.origin("household_size", str(number))
        m.add("household size", [f"{number}{'+' * (number == 7)} of all households"], [target], [found], source, kind)
    m.add(
        "median household income",
        ["city, dollars"],
        [m.tables.city["MdHInc"]],
        [np.median(m.data["income"][is_home])],
        m.tables.source + "; dollars within a band are modelled",
        "tabulated",
    )


def _work(m: _Margins) -> None:
    acs, age, status = m.tables.acs, m.data["age"], m.data["employment"]
    working_age = (age >= 16) & (age < 65)
    at_work = working_age & (status == EMPLOYED)
    in_force = m.count(np.zeros_like(age), 1, working_age & (status != OUTSIDE))
    m.areas("labour force, 16–64", [""], acs[["LF"]].to_numpy(), in_force, m.tables.source, "tabulated")
    m.areas(
        "employed, 16–64",
        [""],
        acs[["CvEm1"]].to_numpy(),
        m.count(np.zeros_like(age), 1, at_work),
        m.tables.source,
        "tabulated",
    )
    for margin, variable, names in (
        ("occupation, 16–64", "occupation", OCCUPATIONS),
        ("industry, 16–64", "industry", INDUSTRIES),
    ):
        built = m.count(m.data[variable], len(names) + 1, at_work)[:, 1:]
        m.areas(margin, list(names.values()), acs[list(names)].to_numpy(), built, m.tables.source, "tabulated")
    kind, source = m.tables.origin("employment_senior", "65+")
    old = age >= 65
    rate = float((status[old] == EMPLOYED).mean())
    m.add("employed, 65+", ["share of 65+"], [m.tables.value("employment_senior", "65+", "rate")], [rate], source, kind)


def _places(m: _Margins) -> None:
    names, tables = list(BOROUGHS), m.tables
    kind_of, size = m.data["workplace_kind"], m.data["workplace_size"]
    at_school = kind_of[m.data["workplace"]] == _SCHOOL
    pupil = at_school & (m.data["age"] < 18)
    workers = np.flatnonzero((m.data["industry"] > 0) & ~pupil)
    home = m.data["borough"][workers].astype(np.int64)
    place = m.data["workplace"][workers]
    to = np.where(place > 0, m.data["workplace_borough"][place], len(names)).astype(np.int64)
    flow = np.bincount(home * 6 + to, minlength=30).reshape(5, 6).astype(float)
    flow /= np.maximum(flow.sum(axis=1, keepdims=True), 1)
    sheet = tables.sheet("commuting")
    at_home = float(sheet.loc["city", "home"])
    typed = tables.typed[tables.typed["table"] == "commuting"].set_index(["row", "column"])
    for b, name in enumerate(names):
        row = sheet.loc[name, [*names, "outside"]].fillna(0.0).to_numpy(np.float64)
        goal = row / row.sum() * (1 - at_home)
        goal[-1] += at_home
        for target, built, column in zip(goal, flow[b], [*names, "outside"], strict=True):
            entry = typed.loc[(name, column)] if (name, column) in typed.index else None
            label = "at home or outside the city" if column == "outside" else column
            source, kind = (entry["source"], entry["kind"]) if entry is not None else (_NO_TABLE, "modelled")
            m.add("place of work", [f"{name} to {label}, share of workers"], [target], [built], str(source), str(kind))
    exponent = tables.value("workplaces", "size", "exponent")
    kind, source = tables.origin("workplaces", "size")
    firms = size[kind_of == _WORKPLACE]
    for least in (2, 10, 100):
        share = float((firms >= least).mean()) if firms.size else 0.0
        m.add("workplace size", [f"share with {least} or more"], [float(least) ** -exponent], [share], source, kind)
    schools = int((kind_of == _SCHOOL).sum())
    kind, source = tables.origin("schools", "size")
    m.add(
        "school size",
        ["pupils, mean"],
        [tables.value("schools", "size", "pupils")],
        [pupil.sum() / max(schools, 1)],
        source,
        kind,
    )
    staff = int(at_school.sum() - pupil.sum())
    kind, source = tables.origin("schools", "staff")
    goal = tables.value("schools", "staff", "pupils per staff")
    m.add("school staff", ["pupils per member of staff"], [goal], [pupil.sum() / max(staff, 1)], source, kind)
    hoods = m.data["neighbourhood_puma"].size
    kind, source = tables.origin("neighbourhoods", "size")
    m.add(
        "neighbourhood size",
        ["people, mean"],
        [tables.value("neighbourhoods", "size", "people")],
        [pupil.size / hoods],
        source,
        kind,
    )
