"""What is read of a tally: its days and strata, or what it comes to in all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from lpmppl.errors import InputError, nearest
from lpmppl.inference.results import in_all
from lpmppl.inference.run import simulated
from lpmppl.models.model import Model

__all__ = ["Reading", "reading_of"]


@dataclass(frozen=True)
class Reading:
    """A linear reading of a tally's series.

    Args:
        tally: the tally in a run of any length.
        by: strata to keep.
        daily: whether to keep days.
        days: how many days.
    Raises:
        InputError: for a stratum that there isn't.
    """

    tally: xr.DataArray
    by: Sequence[str]
    daily: bool
    days: int

    def __post_init__(self) -> None:
        for stratum in self.by:
            if stratum not in self.strata:
                raise InputError(nearest(f"stratum of {self.tally.name}", stratum, self.strata))

    @property
    def strata(self) -> list[str]:
        return [str(d) for d in self.tally.dims if d not in ("chain", "draw", "day")]

    @property
    def coords(self) -> dict[str, Sequence[object]]:
        """The dimensions that are kept, with their labels."""
        days: dict[str, Sequence[object]] = {"day": range(self.days)} if self.daily else {}
        return days | {d: list(self.tally[d].values) for d in self.strata if d in self.by}

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(labels) for labels in self.coords.values())

    @property
    def units(self) -> str:
        return str((self.tally if self.daily else in_all(self.tally)).attrs["units"])

    def counted(self, values: np.ndarray) -> float:
        """How many were counted in all, of what was read; on a day, where a tally counts who is in a state."""
        stock = self.tally.attrs["kind"] == "stock"
        return float(values.sum()) / (self.days if self.daily and stock else 1)

    def __call__(self, series: np.ndarray) -> np.ndarray:
        """Read a series of shape (T, strata): shape (M,), which `shape` unfolds."""
        sizes = [self.tally.sizes[d] for d in self.strata]
        full = series.reshape(series.shape[0], *sizes)
        full = full.sum(tuple(1 + k for k, d in enumerate(self.strata) if d not in self.by))
        if not self.daily:
            full = full[-1] if self.tally.attrs["kind"] == "stock" else full.sum(0)
        return np.asarray(full).reshape(-1)


def reading_of(
    model: Model, of: str, theta: Mapping[str, float], days: int, by: Sequence[str] = (), daily: bool = False
) -> Reading:
    """The reading of a model's tally, whose strata one day shows.

    Raises:
        InputError: for a tally or stratum that there isn't.
    """
    if of not in model.tallies:
        raise InputError(nearest("tally", of, model.tallies))
    return Reading(simulated(model, [theta], [0], 1, 0)["prior_predictive"].to_dataset()[of], by, daily, days)
