"""Household income: the PUMA's income bands given out by who earns what, and dollars within the band."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lpmppl.data.acs import BANDS, INDUSTRIES, Tables

__all__ = ["EDGES", "area_median", "assign", "labels", "wages"]

EDGES = (0.03, 0.30, 0.50, 0.80, 1.20, 1.65)
"""Lower edges of the six bands, in area median incomes (AMI) of the household's size."""

_NOISE = 0.55  # spread of log income around what the members' jobs predict (modelled)
_WITHOUT_JOB = 9_000.0  # dollars a year of an adult without job (modelled)
_PENSION = 24_000.0  # dollars a year of a person of 65 and over without job (modelled after Social Security benefits)
_PARETO = 1.9  # tail exponent of incomes in the open band (modelled)

Float = NDArray[np.float64]
Whole = NDArray[np.int64]


def area_median(tables: Tables) -> Float:
    """Area median income by household size 1 … 8, dollars a year; index 0 is unused."""
    return np.concatenate([[np.nan], tables.sheet("ami")["dollars"].to_numpy(np.float64)])


def wages(tables: Tables) -> Float:
    """Median wage by industry code, dollars a year; index 0 (no job) is 0."""
    return np.concatenate([[0.0], tables.city[[f"MW{code}" for code in INDUSTRIES]].to_numpy(np.float64)])


def labels(median: float) -> list[str]:
    """The bands with their bounds in dollars; `median` is the area median for three people, dollars a year."""
    dollars = [f"${edge * median / 1000:.0f},000" for edge in EDGES]
    ranges = [
        f"up to {dollars[1]}",
        *(f"{low} to {high}" for low, high in pairwise(dollars[1:])),
        f"over {dollars[-1]}",
    ]
    bands = (f"{name} (three people: {bounds})" for name, bounds in zip(BANDS.values(), ranges, strict=True))
    return ["none (group quarters)", *bands]


def assign(
    household: Whole,
    age: Whole,
    industry: Whole,
    size: Whole,
    quarters: NDArray[np.bool_],
    bands: Whole,
    wage: Float,
    median: Float,
    rng: np.random.Generator,
) -> tuple[Whole, Float]:
    """Band code (1–6; 0 for group quarters) and dollars a year (nan for group quarters) of each household of one PUMA.

    `bands` (6,) households in each band, met exactly: households are ranked by the wages of their members with noise,
    relative to the area median of their size, and cut at the numbers.
    """
    means = np.where(
        industry > 0, wage[industry], np.where(age >= 65, _PENSION, np.where(age >= 18, _WITHOUT_JOB, 0.0))
    )
    earned = np.bincount(household, means, size.size)
    area = median[np.minimum(size, median.size - 1)]
    homes = np.flatnonzero(~quarters)
    score = np.log(np.maximum(earned[homes], 1.0) / area[homes]) + rng.normal(0.0, _NOISE, homes.size)
    order = homes[np.argsort(score)]
    band = np.zeros(size.size, np.int64)
    band[order] = np.repeat(np.arange(1, bands.size + 1), bands)
    # Within a band the ratio to the area median rises with the rank, evenly in its logarithm.
    starts = np.cumsum(bands) - bands
    place = (np.arange(homes.size) + 0.5 - np.repeat(starts, bands)) / np.repeat(np.maximum(bands, 1), bands)
    code = np.repeat(np.arange(bands.size), bands)
    low = np.asarray(EDGES)[code]
    high = np.append(EDGES[1:], EDGES[-1])[code]
    ratio = np.where(code < bands.size - 1, low * (high / low) ** place, low * (1 - place) ** (-1 / _PARETO))
    income = np.full(size.size, np.nan)
    income[order] = ratio * area[order]
    return band, income
