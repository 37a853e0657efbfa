"""How many people of each kind a city of N agents has: the tables, scaled to N and made whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from lpmppl.data.acs import BANDS, BOROUGHS, INDUSTRIES, OCCUPATIONS, Tables
from lpmppl.data.ipf import rake
from lpmppl.data.rounding import apportion, cascade

__all__ = ["AGES", "Targets", "by_age", "persons", "quarters", "scale", "size_shares"]

AGES = 100
"""Single years of age, 0 to 99 and over."""

_GROUP = np.repeat([0, 1, 2], [16, 49, AGES - 65])
Array = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """Whole numbers for P PUMAs, in the order of the tables.

    `borough` (P,) codes; `persons` and `quarters` (P, AGES, 2: female, male) residents and those in group quarters;
    `households` (P,); `sizes` (7,) the city's shares of households of 1 … 7+ people; `bands` (P, 6) households by
    income; `labour_force`, `employed`, `employed_seniors` (P,); `jobs` (P, occupations, industries) of the
    employed of 16–64.
    """

    borough: Whole
    persons: Whole
    quarters: Whole
    households: Whole
    sizes: Array
    bands: Whole
    labour_force: Whole
    employed: Whole
    employed_seniors: Whole
    jobs: Whole


def by_age(sheet: pd.DataFrame, column: str) -> Array:
    """A step function of age from a table of first ages; shape (AGES,)."""
    starts = sheet.index.astype(int).to_numpy()
    return sheet[column].to_numpy(np.float64)[np.searchsorted(starts, np.arange(AGES), side="right") - 1]


def _county_shape(tables: Tables, borough: str) -> Array:
    """Residents of a borough by single year of age and sex, raked to the county's decades and sexes; (AGES, 2)."""
    row = tables.county.loc[borough]
    decades = row.iloc[3:].to_numpy(np.float64)
    edges = np.append(np.arange(0, 90, 10), AGES)
    # Within 80+ numbers fall by about 12 % a year; the nine decades fix everything else.
    curve = PchipInterpolator(edges, np.concatenate([[0.0], np.cumsum(decades)]))(np.arange(AGES + 1))
    single = np.diff(curve)
    single[80:] = 0.88 ** np.arange(AGES - 80)
    ratio = tables.sheet("sex_ratio")["men per woman"]
    men = np.interp(np.arange(AGES), ratio.index.astype(float), ratio.to_numpy())
    seed = single[:, None] * np.stack([1 / (1 + men), men / (1 + men)], axis=1)
    age, sex = np.indices(seed.shape)
    people = decades.sum()
    sexes = row[["female", "male"]].to_numpy(np.float64)
    return rake(seed, [(sex, sexes * (people / sexes.sum())), (np.minimum(age // 10, 8), decades)])


def persons(tables: Tables) -> Array:
    """Residents of the base by PUMA, year of age and sex (female, male); (P, AGES, 2).

    The county's shape is raked to each PUMA's three age groups and to the borough's sex shares.
    """
    acs = tables.acs
    table = np.zeros((len(acs), AGES, 2))
    for code, borough in enumerate(BOROUGHS):
        rows = np.flatnonzero(np.equal(tables.boroughs, code))
        shape = _county_shape(tables, borough)
        groups = acs.iloc[rows][["PU16", "P16t64", "P65pl"]].to_numpy(np.float64)
        seed = np.broadcast_to(shape, (rows.size, AGES, 2))
        puma, age, sex = np.indices(seed.shape)
        women = tables.county.loc[borough, "female"] / tables.county.loc[borough, ["female", "male"]].sum()
        margins = [
            (sex, groups.sum() * np.array([women, 1 - women])),
            (puma * 3 + _GROUP[age], groups.ravel()),
        ]
        table[rows] = rake(seed, margins)
    return table


def quarters(tables: Tables, people: Array) -> Array:
    """Residents of group quarters by PUMA, age and sex; shape and unit of `people`."""
    ages = tables.sheet("quarters_age")
    weight = people * np.stack([by_age(ages, "female"), by_age(ages, "male")], axis=1)
    sheet = tables.sheet("quarters")
    rate = sheet.loc[list(BOROUGHS), "weight"].to_numpy(np.float64)[tables.boroughs]
    each = rate * people.sum(axis=(1, 2))
    each *= sheet.loc["city", "share"] * people.sum() / each.sum()
    return weight * (each / weight.sum(axis=(1, 2)))[:, None, None]


def size_shares(tables: Tables) -> Array:
    """Shares of households with 1 … 6, 7 or more people whose mean is the base's; (7,).

    The share that lives alone is kept; the others are tilted, `share_s exp(λ s)`, to the mean household size.
    """
    people = persons(tables)
    mean = (people.sum() - quarters(tables, people).sum()) / tables.acs["HHlds3"].sum()
    share = tables.sheet("household_size")["share"].to_numpy(np.float64)
    alone, rest = share[0], share[1:]
    # 7.41: the mean of the households of 7 and more that the catalogue of types settles on.
    size = np.array([2, 3, 4, 5, 6, 7.41])
    low, high = -3.0, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        tilted = rest * np.exp(middle * size)
        found = alone + (1 - alone) * float(tilted @ size) / float(tilted.sum())
        low, high = (middle, high) if found < mean else (low, middle)
    return np.append(alone, (1 - alone) * tilted / tilted.sum())


def _jobs(tables: Tables) -> Array:
    """Employed people of 16–64 by PUMA, occupation and industry, raked to both margins of every PUMA."""
    odds = tables.sheet("occupation").loc[list(INDUSTRIES), list(OCCUPATIONS)].to_numpy(np.float64).T
    occupations = tables.acs[list(OCCUPATIONS)].to_numpy(np.float64)
    industries = tables.acs[list(INDUSTRIES)].to_numpy(np.float64)
    industries = industries * (occupations.sum(axis=1) / industries.sum(axis=1))[:, None]
    seed = odds / odds.sum(axis=0) * industries[:, None, :]
    puma, occupation, industry = np.indices(seed.shape)
    return rake(
        seed,
        [
            (puma * len(OCCUPATIONS) + occupation, occupations.ravel()),
            (puma * len(INDUSTRIES) + industry, industries.ravel()),
        ],
        tolerance=1e-7,
    )


def scale(tables: Tables, agents: int) -> Targets:
    """The whole numbers of a city of `agents` people, each total apportioned by largest remainder."""
    people = persons(tables)
    factor = agents / people.sum()
    population = apportion(people.sum(axis=(1, 2)), agents)
    # PUMA by PUMA in one running sum: every PUMA's total is exact and the city's ages drift by less than one person.
    exact = people * (population / people.sum(axis=(1, 2)))[:, None, None]
    residents = cascade(exact.transpose(0, 2, 1)).transpose(0, 2, 1)
    institutional = np.minimum(cascade(quarters(tables, people) * factor), residents)
    acs = tables.acs
    adults = (residents - institutional)[:, 18:].sum(axis=(1, 2))
    households = apportion(acs["HHlds3"].to_numpy(), round(acs["HHlds3"].sum() * factor))
    households = np.clip(households, 1, adults)
    bands = np.stack([apportion(row, n) for row, n in zip(acs[list(BANDS)].to_numpy(), households, strict=True)])
    working_age = residents[:, 16:65].sum(axis=(1, 2))
    labour_force = np.minimum(apportion(acs["LF"].to_numpy(), round(acs["LF"].sum() * factor)), working_age)
    employed = np.minimum(apportion(acs["CvEm1"].to_numpy(), round(acs["CvEm1"].sum() * factor)), labour_force)
    seniors = residents[:, 65:].sum(axis=(1, 2))
    rate = tables.value("employment_senior", "65+", "rate")
    jobs = _jobs(tables)
    share = np.divide(employed, jobs.sum(axis=(1, 2)), where=employed > 0, out=np.zeros(len(acs)))
    return Targets(
        borough=np.array(tables.boroughs),
        persons=residents,
        quarters=institutional,
        households=households,
        sizes=size_shares(tables),
        bands=bands,
        labour_force=labour_force,
        employed=employed,
        employed_seniors=np.minimum(apportion(seniors, round(rate * seniors.sum())), seniors),
        jobs=cascade(jobs * share[:, None, None]),
    )
