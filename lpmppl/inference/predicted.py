"""Runs at draws of a posterior: what they say would be reported, of what was observed and of the days after it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from lpmppl.effects.distributions import Counted
from lpmppl.effects.handlers.record import Record, Series
from lpmppl.inference.ensemble import Ensemble
from lpmppl.inference.observed import Observed
from lpmppl.inference.results import tree_of
from lpmppl.models.model import Model

__all__ = ["Predicted", "as_of_more", "numbered"]

_REPORTS = 25
"""How many times the reports of each run are drawn anew."""

_NO_SPREAD = 1e12
"""The dispersion of a count that has none of its own, but a Poisson's."""

_FEW = 5
"""The runs from which a spread is told at least."""

_BAND = (0.05, 0.95)
_COVERED = 0.8
"""The least share of observed counts within the 90 % band."""


@dataclass
class Predicted:
    """Runs of a society at draws of a posterior.

    Args:
        model: the society.
        observed: what was observed.
        thetas: the parameters of the runs.
        means: what these expect of each count, shape (runs, D').
        sizes: the dispersion of each.
        records: their tallies, of batches of runs.
        lacks: by how much the model is off in each run's draw, in logarithms, shape (runs, D).
    """

    model: Model
    observed: Observed
    thetas: Sequence[Mapping[str, float]]
    means: np.ndarray
    sizes: np.ndarray
    records: Sequence[Record]
    lacks: np.ndarray | None = None

    @classmethod
    def of(
        cls, city: Ensemble, thetas: Sequence[Mapping[str, float]], first: int, lacks: np.ndarray | None = None
    ) -> Predicted:
        """Run a society with each of these parameters, by draws of everybody's chance from `first` on."""
        means, sizes, records = city(thetas, range(first, first + len(thetas)))
        return cls(city.model, city.observed, thetas, means, sizes, records, lacks)

    @property
    def ahead(self) -> int:
        """How many days the runs go on after the last one observed."""
        return self.means.shape[1] // (len(self.observed.counts) // self.observed.days) - self.observed.days

    @property
    def days(self) -> int:
        return self.observed.days + self.ahead

    def groups(self, seed: int) -> dict[str, xr.Dataset]:
        """What there is to be seen: `posterior_predictive`, `observed_data`, `predictions`, `forecast` of days ahead.

        Args:
            seed: the seed of what is reported of each run.
        """
        reports, first = self._reports(seed), self.observed.days
        records = [alone for record in self.records for alone in _apart(record)]
        simulated = tree_of(self.model, self.thetas, records, self.days, {})
        found = {
            "posterior_predictive": reports.isel(day=slice(first)),
            "observed_data": self.streams(self.observed.counts),
            "predictions": simulated["prior_predictive"].to_dataset(),
        }
        if self.ahead:
            found["forecast"] = reports.isel(day=slice(first, None))
        if "constant_data" in simulated.children:
            found["constant_data"] = simulated["constant_data"].to_dataset()
        return found

    def streams(self, cells: np.ndarray, lead: Sequence[str] = ()) -> xr.Dataset:
        """Values of all counts, shape (…, D), by stream, day and stratum."""
        parts = zip(self.observed.streams, self.observed.split(cells), strict=True)
        found = xr.Dataset({s.name: s.array(part, lead) for s, part in parts})
        return numbered(found.assign_coords(day=np.arange(found.sizes["day"])))

    def held(self, predictive: xr.Dataset) -> tuple[str, dict[str, float]]:
        """How many of the observed counts the bands hold: in words, and as figures."""
        figures = {"coverage": self.coverage(predictive)}
        said = f"the 90 % bands hold {figures['coverage']:.0%} of the fitted counts"
        if any(s.counts.shape[1] > 1 for s in self.observed.streams):
            figures["coverage_of_sums"] = self.coverage(predictive, summed=True)
            said += f" and {figures['coverage_of_sums']:.0%} of their sums over strata"
        if min(figures["coverage"], figures.get("coverage_of_sums", 1.0)) < _COVERED:
            said = f"too confident: {said}; the model lacks something that the data have"
        return said, figures

    def coverage(self, predictive: xr.Dataset, *, summed: bool = False) -> float:
        """The share of observed counts, or of their sums over strata, within the runs' 90 % bands."""
        held = []
        for stream in self.observed.streams:
            runs = predictive[stream.name].to_numpy()
            y = stream.counts.reshape(runs.shape[2:])
            if summed:
                runs, y = (x.reshape(*x.shape[:k], -1).sum(-1) for x, k in ((runs, 3), (y, 1)))
            low, high = np.quantile(runs, _BAND, (0, 1))
            held.append(((y >= low) & (y <= high))[~np.isnan(y)])
        return float(np.concatenate(held).mean())

    def _reports(self, seed: int) -> xr.Dataset:
        """Counts as they would be reported of each run, drawn anew many times for each."""
        mean = np.nan_to_num(self.means)
        size = np.where(np.isfinite(self.sizes) & (self.sizes > 0), self.sizes, _NO_SPREAD)
        if self.lacks is not None:
            mean = mean * np.exp(self._lasting(self.lacks))
        mean = as_of_more(mean)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            drawn = Counted(torch.from_numpy(mean), torch.from_numpy(size)).sample((_REPORTS,))
        # One chain: the runs are of draws of all of them.
        cells = drawn.numpy().swapaxes(0, 1).reshape(1, -1, mean.shape[-1])
        return self.streams(cells, ("chain", "draw"))

    def _lasting(self, cells: np.ndarray) -> np.ndarray:
        """Values of the fitted days' counts, shape (runs, D), that stay on the days ahead as they were on the last."""
        ahead = ((0, 0), (0, self.ahead), (0, 0))
        parts = [np.pad(part, ahead, mode="edge") for part in self.observed.split(cells)]
        return np.concatenate([part.reshape(len(cells), -1) for part in parts], -1)


def as_of_more(mean: np.ndarray) -> np.ndarray:
    r"""Spread what few runs expect about their middle, as far as a further run may be from them.

    In logarithms m draws of a normal law have 1/m less than its variance, and the next one is about their mean, by
    Student's law of m - 1 degrees of freedom, with :math:`(m + 1)/(m - 3)` times theirs. Without that the bands of 8
    runs, made to hold 90 %, hold 78 %.

    Args:
        mean: what each run expects of each count, shape (runs, D).
    Returns:
        the same with their deviations, in logarithms, times :math:`\sqrt{(m + 1)/(m - 3)}`, that of 5 runs at most.
    """
    runs = max(len(mean), _FEW)
    known = (mean > 0).all(0)
    logs = np.log(np.where(known, mean, 1.0))
    middle = logs.mean(0)
    return np.where(known, np.exp(middle + math.sqrt((runs + 1) / (runs - 3)) * (logs - middle)), mean)


def numbered(found: xr.Dataset) -> xr.Dataset:
    """Give chains and draws their numbers."""
    return found.assign_coords({d: np.arange(found.sizes[d]) for d in ("chain", "draw") if d in found.dims})


def _apart(record: Record) -> list[Record]:
    """The record of a batch of runs as one for each."""
    rows = max((e.shape[0] if e.dim() > 1 else 1 for s in record.series.values() for e in s.entries), default=1)
    out = []
    for row in range(rows):
        mine = Record()
        for name, series in record.series.items():
            one: Series = copy(series)
            one.entries = [e[min(row, e.shape[0] - 1)] if e.dim() > 1 else e for e in series.entries]
            mine.series[name] = one
        out.append(mine)
    return out
