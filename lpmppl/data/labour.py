"""Who works, and at what: employment, occupation and industry of the people of one PUMA."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lpmppl.data.acs import INDUSTRIES, Tables
from lpmppl.data.targets import by_age

__all__ = ["EMPLOYED", "EMPLOYMENT", "OUTSIDE", "UNEMPLOYED", "Propensity", "Work", "assign", "propensity"]

EMPLOYMENT = ("not in labour force", "unemployed", "employed")
OUTSIDE, UNEMPLOYED, EMPLOYED = range(3)
_INSTITUTION = 0.15  # odds of a resident of group quarters to be employed, relative to others (modelled)

Float = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Propensity:
    """`employed` (AGES, 2): weight of being employed by age and sex; `women` (industries,): share of women."""

    employed: Float
    women: Float


@dataclass
class Work:
    """By person: `employment` code, `occupation` and `industry`, 0 for none and from 1 in the order of the tables."""

    employment: Whole
    occupation: Whole
    industry: Whole


def propensity(tables: Tables) -> Propensity:
    """The typed weights, as arrays."""
    sheet = tables.sheet("employment")
    employed = np.stack([by_age(sheet, "female"), by_age(sheet, "male")], axis=1)
    employed[:16] = 0.0
    return Propensity(employed, tables.sheet("women").loc[list(INDUSTRIES), "share"].to_numpy(np.float64))


def _chosen(weight: Float, n: int, rng: np.random.Generator) -> Whole:
    """`n` indices without replacement, odds in proportion to `weight` (Efraimidis and Spirakis 2006)."""
    if n <= 0:
        return np.empty(0, np.int64)
    key = rng.exponential(1.0, weight.size) / np.maximum(weight, 1e-9)
    # Sorted, since the order within a partition differs from processor to processor.
    return np.sort(np.argpartition(key, n - 1)[:n])


def assign(
    age: Whole,
    sex: Whole,
    institution: NDArray[np.bool_],
    jobs: Whole,
    labour_force: int,
    seniors: int,
    odds: Propensity,
    rng: np.random.Generator,
) -> Work:
    """Give out `jobs` (occupations, industries) among people of 16–64, the same mixture among `seniors` of 65 and over.

    `labour_force` counts the employed and unemployed of 16–64. All three totals are met exactly.
    """
    employment = np.full(age.size, OUTSIDE)
    occupation, industry = np.zeros(age.size, np.int64), np.zeros(age.size, np.int64)
    weight = odds.employed[age, sex] * np.where(institution, _INSTITUTION, 1.0)
    kinds = np.repeat(np.arange(jobs.size), jobs.ravel())

    able = np.flatnonzero((age >= 16) & (age < 65))
    workers = able[_chosen(weight[able], kinds.size, rng)]
    employment[workers] = EMPLOYED
    idle = able[employment[able] == OUTSIDE]
    employment[idle[_chosen(weight[idle], labour_force - kinds.size, rng)]] = UNEMPLOYED
    old = np.flatnonzero(age >= 65)
    elders = old[_chosen(weight[old], seniors if kinds.size else 0, rng)]
    employment[elders] = EMPLOYED

    for people, work in ((workers, kinds), (elders, rng.choice(kinds, elders.size) if elders.size else kinds[:0])):
        # Jobs that wish for a woman meet women first; where the numbers differ the rest is given out at random.
        wished = rng.random(work.size) + (rng.random(work.size) >= odds.women[work % jobs.shape[1]])
        given = np.empty(work.size, np.int64)
        given[np.argsort(rng.random(people.size) + sex[people])] = work[np.argsort(wished)]
        occupation[people] = given // jobs.shape[1] + 1
        industry[people] = given % jobs.shape[1] + 1
    return Work(employment, occupation, industry)
