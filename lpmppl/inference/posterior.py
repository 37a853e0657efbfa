"""A posterior as a DataTree that ArviZ reads, with what checks say of it in words."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import arviz as az
import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lpmppl.effects.distributions import Counted
from lpmppl.effects.handlers.record import Record, Series
from lpmppl.inference.objectives import Counts
from lpmppl.inference.observed import Observed
from lpmppl.inference.results import tree_of
from lpmppl.inference.rounds import Rounds
from lpmppl.inference.run import STACK, installed
from lpmppl.inference.scales import Scale
from lpmppl.inference.svi import Fit
from lpmppl.models.model import Model

__all__ = ["Chain", "Posterior", "parameters_of"]

_REPORTS = 25
"""How many times the reports of each run are drawn anew."""

_NO_SPREAD = 1e12
"""The dispersion of a count that has none of its own, but a Poisson's."""

_ENOUGH = 100
"""The fewest draws whose weights have a tail that says something."""

_BAND = (0.05, 0.95)
_KHAT, _RHAT, _COVERED, _OFF, _FAR = 0.7, 1.05, 0.8, 0.1, 3.0
"""Bounds of the checks.

They are of the guide, of restarts, of the days within the 90 % band, of the response's slope, and of how far a
parameter may be from its prior, in standard deviations.
"""


@dataclass(frozen=True)
class Chain:
    """The draws of one restart.

    Attributes:
        u: parameters on their scale, shape (draws, P).
        epsilon: what chance added, shape (draws, K).
        joint: the log-density of each draw with the counts, shape (draws,).
        weight: by how much that is above the guide's, shape (draws,).
        fit: the fit.
    """

    u: Tensor
    epsilon: Tensor
    joint: np.ndarray
    weight: np.ndarray
    fit: Fit


@dataclass
class Posterior:
    """What a calibration found.

    Args:
        model: the society.
        observed: what was observed.
        objective: the program of parameters and counts.
        chains: the restarts.
        unseen: the parameters that keep their priors, and their draws, shape (chains, draws, U).
        thetas: the parameters of the runs at draws of the posterior.
        means: what these expect of each count, shape (runs, D').
        sizes: the dispersion of each.
        records: their tallies, of batches of runs.
        gap: by how much the whole society's level departs from that of the rounds, in logarithms, shape (D,).
        before: an earlier posterior, if there was one.
        lacks: by how much the model is off in each of these runs' draws, in logarithms, shape (runs, D).
    """

    model: Model
    observed: Observed
    objective: Counts
    chains: Sequence[Chain]
    unseen: tuple[Scale, Tensor]
    thetas: Sequence[Mapping[str, float]]
    means: np.ndarray
    sizes: np.ndarray
    records: Sequence[Record]
    gap: np.ndarray
    before: xr.DataTree | None = None
    lacks: np.ndarray | None = None

    def tree(self, rounds: Rounds, attrs: Mapping[str, Any]) -> xr.DataTree:
        """The whole result."""
        scale, (still, loose) = self.objective.scale, self.unseen
        fitted = parameters_of(self.model, scale, torch.stack([c.u for c in self.chains]))
        posterior = fitted.merge(parameters_of(self.model, still, loose))
        days = self.observed.days + self._ahead()
        records = [alone for record in self.records for alone in _apart(record)]
        simulated = tree_of(self.model, self.thetas, records, days, {})
        reports = self._reports(int(attrs["seed"]))
        first = self.observed.days
        predictive = reports.isel(day=slice(first))
        seen = self._streams(self.observed.counts)
        prior = [parameters_of(self.model, s, s.drawn(1000, int(attrs["seed"]))[None]) for s in (scale, still)]
        verdict, figures = self._verdict(fitted, predictive, rounds)
        groups: dict[str, xr.Dataset] = {
            "posterior": posterior,
            "prior": xr.merge(prior),
            "posterior_predictive": predictive,
            "observed_data": seen,
            "log_likelihood": self._log_likelihood(),
            "sample_stats": self._stats(),
            "predictions": simulated["prior_predictive"].to_dataset(),
            "fit": self._fit(rounds),
        }
        if self._ahead():
            groups["forecast"] = reports.isel(day=slice(first, None))
        if "constant_data" in simulated.children:
            groups["constant_data"] = simulated["constant_data"].to_dataset()
        said = {
            "agents": self.model.population.size,
            "days": days,
            "fitted_days": self.observed.days,
            "model": self.model.name,
            "population": self.model.population.name,
            "population_provenance": str(self.model.population.dataset.attrs.get("provenance", "{}")),
            "start": self.observed.start,
            "device": str(self.model.population.device),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "lpmppl_version": installed("lpmppl"),
            "versions": json.dumps({name: installed(name) for name in STACK}),
            **figures,
            **attrs,
            "verdict": json.dumps(verdict, ensure_ascii=False),
        }
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=said), **groups})

    def _ahead(self) -> int:
        return self.means.shape[1] // (len(self.observed.counts) // self.observed.days) - self.observed.days

    def _streams(self, cells: np.ndarray, lead: Sequence[str] = ()) -> xr.Dataset:
        """Values of all counts, shape (…, D), by stream, day and stratum."""
        parts = zip(self.observed.streams, self.observed.split(cells), strict=True)
        found = xr.Dataset({s.name: s.array(part, lead) for s, part in parts})
        return _numbered(found.assign_coords(day=np.arange(found.sizes["day"])))

    def _reports(self, seed: int) -> xr.Dataset:
        """Counts as they would be reported of each run, drawn anew many times for each."""
        mean = np.nan_to_num(self.means)
        size = np.where(np.isfinite(self.sizes) & (self.sizes > 0), self.sizes, _NO_SPREAD)
        if self.lacks is not None:
            mean = mean * np.exp(self._lasting(self.lacks))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            drawn = Counted(torch.from_numpy(mean), torch.from_numpy(size)).sample((_REPORTS,))
        # One chain: the runs are of draws of all of them.
        cells = drawn.numpy().swapaxes(0, 1).reshape(1, -1, mean.shape[-1])
        return self._streams(cells, ("chain", "draw"))

    def _lasting(self, cells: np.ndarray) -> np.ndarray:
        """Values of the fitted days' counts, shape (runs, D), that stay on the days ahead as they were on the last."""
        ahead = ((0, 0), (0, self._ahead()), (0, 0))
        parts = [np.pad(part, ahead, mode="edge") for part in self.observed.split(cells)]
        return np.concatenate([part.reshape(len(cells), -1) for part in parts], -1)

    def _log_likelihood(self) -> xr.Dataset:
        each = [self.objective.log_likelihood(c.u, c.epsilon).numpy() for c in self.chains]
        missing = np.isnan(self.observed.counts)
        cells = np.stack(each)
        cells[..., missing] = np.nan
        return self._streams(cells, ("chain", "draw"))

    def _stats(self) -> xr.Dataset:
        found = {
            "lp": np.stack([c.joint for c in self.chains]),
            "log_weight": np.stack([c.weight for c in self.chains]),
        }
        return _numbered(xr.Dataset({n: (("chain", "draw"), x) for n, x in found.items()}))

    def _fit(self, rounds: Rounds) -> xr.Dataset:
        most = max(len(c.fit.losses) for c in self.chains)
        losses = np.full((len(self.chains), most), np.nan)
        for row, chain in zip(losses, self.chains, strict=True):
            row[: len(chain.fit.losses)] = chain.fit.losses
        centres = np.stack(rounds.centres)
        gap = self._streams(self.gap)
        return xr.Dataset(
            {
                "loss": (("chain", "step"), losses),
                "centre": (("round", "parameter"), centres),
                **{f"gap_{n}": x for n, x in gap.items()},
            },
            {
                "chain": np.arange(len(self.chains)),
                "step": np.arange(most),
                "round": np.arange(len(centres)),
                "parameter": rounds.scale.names,
                **gap.coords,
            },
        )

    def _verdict(
        self, posterior: xr.Dataset, predictive: xr.Dataset, rounds: Rounds
    ) -> tuple[list[str], dict[str, float]]:
        """What checks say, and their figures."""
        said: list[str] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            khat = float(az.psislw(np.concatenate([c.weight for c in self.chains]))[1])
            several = len(self.chains) > 1
            rhat = float(az.rhat(posterior).to_array().max()) if several else math.nan
        diverged = [k for k, c in enumerate(self.chains) if c.fit.diverged is not None]
        if diverged:
            said.append(
                f"restart {', '.join(map(str, diverged))} diverged and was kept at its best: give another guide"
            )
        elif not all(c.fit.converged for c in self.chains):
            said.append("the guide still improved when its steps ended: its posterior isn't its best")
        else:
            said.append("the guide converged")
        if sum(len(c.weight) for c in self.chains) < _ENOUGH:
            said.append(f"fewer than {_ENOUGH} draws are too few to judge the guide by: give more draws=")
        elif khat > _KHAT:
            said.append(f"the guide isn't the posterior of its program (Pareto k-hat {khat:.2f}): try guide='iaf'")
        else:
            said.append(f"the guide is near the posterior of its program (Pareto k-hat {khat:.2f})")
        if several and rhat > _RHAT:
            said.append(f"restarts disagree (R-hat {rhat:.2f}): there is more than one posterior mode, or no fit")
        elif several:
            said.append(f"restarts agree (R-hat {rhat:.2f})")
        figures = {"khat": khat, "rhat": rhat, "coverage": self.coverage(predictive)}
        held = f"the 90 % bands hold {figures['coverage']:.0%} of the fitted counts"
        if any(s.counts.shape[1] > 1 for s in self.observed.streams):
            figures["coverage_of_sums"] = self.coverage(predictive, summed=True)
            held += f" and {figures['coverage_of_sums']:.0%} of their sums over strata"
        if min(figures["coverage"], figures.get("coverage_of_sums", 1.0)) < _COVERED:
            said.append(f"too confident: {held}; the model lacks something that the data have")
        else:
            said.append(held)
        if rounds.agreement is not None:
            a = rounds.agreement
            figures |= {"slope": a.slope, "slope_se": a.se, "slope_correlation": a.correlation}
            off = abs(a.slope - 1) > max(_OFF, 3 * a.se)
            said.append(
                f"the response {'departs from' if off else 'agrees with'} runs that it hadn't seen (slope "
                f"{a.slope:.2f} ± {a.se:.2f})" + (": give more rounds= or rows=" if off else "")
            )
        far = [n for n, x in zip(rounds.scale.names, self._conflict(), strict=True) if x > _FAR]
        if far:
            said.append(f"far from what their priors say: {', '.join(far)}")
        if self.before is not None:
            moved = self._moved(posterior, self.before["posterior"].to_dataset())
            name, far_off = max(moved.items(), key=lambda m: abs(m[1]), default=("nothing", 0.0))
            figures["moved"] = abs(far_off)
            said.append(
                f"since the posterior before, {name} has moved most, by {far_off:+.1f} of its standard deviations"
            )
        if np.any(self.gap):
            figures["gap"] = float(np.abs(self.gap).mean())
            said.append(
                f"the whole society departs from the coarse one by {figures['gap']:.1%} a day, which is made up for"
            )
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

    def _moved(self, now: xr.Dataset, before: xr.Dataset) -> dict[str, float]:
        """How far each parameter's mean has moved, in standard deviations of what it was."""
        both = [str(n) for n in now if n in before and float(before[n].std()) > 0]
        return {n: float((now[n].mean() - before[n].mean()) / before[n].std()) for n in both}

    def _conflict(self) -> np.ndarray:
        """How far each parameter's mean is from its prior's, in standard deviations of the prior: shape (P,)."""
        before = self.objective.scale.drawn(1000, 0).numpy()
        mean = torch.cat([c.u for c in self.chains]).numpy().mean(0)
        return np.asarray(np.abs(mean - before.mean(0)) / before.std(0))


def parameters_of(model: Model, scale: Scale, u: Tensor) -> xr.Dataset:
    """Parameters of points of shape (chains, draws, P), by name, with their units and sources."""
    found = {
        n: xr.DataArray(
            x.numpy(),
            dims=("chain", "draw"),
            attrs={"units": of.units, "long_name": of.description, "source": of.source},
        )
        for n, x in zip(scale.names, scale.columns(u), strict=True)
        for of in (model.parameters[n],)
    }
    return _numbered(xr.Dataset(found))


def _numbered(found: xr.Dataset) -> xr.Dataset:
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
