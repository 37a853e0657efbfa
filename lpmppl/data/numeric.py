"""Cells of tables as numbers."""

from __future__ import annotations

import math

import pandas as pd

__all__ = ["numeric"]


def numeric(cells: pd.Series) -> pd.Series:
    """Cells as float64, NaN where they are no numbers or are too large for one.

    >>> numeric(pd.Series(["3", "", "many", 10**400])).tolist()
    [3.0, nan, nan, nan]
    """
    try:
        return pd.to_numeric(cells, errors="coerce").astype(float)
    except OverflowError:
        return cells.map(_number).astype(float)


def _number(cell: object) -> float:
    try:
        found = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return found if math.isfinite(found) else math.nan
