"""A posterior as a DataTree that ArviZ reads, with what checks say of it in words."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import arviz as az
import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lpmppl.inference.objectives import Counts
from lpmppl.inference.predicted import Predicted, numbered
from lpmppl.inference.rounds import CalibrationRounds
from lpmppl.inference.run import provenance
from lpmppl.inference.scales import Scale
from lpmppl.inference.svi import Fit
from lpmppl.models.model import Model

__all__ = ["Chain", "Posterior", "far_from_priors", "parameters_of"]

_ENOUGH = 100
"""The fewest draws whose weights have a tail that says something."""

_KHAT, _RHAT, _OFF, _FAR, _LUCK = 0.7, 1.05, 0.1, 3.0, 0.9
"""Bounds of the checks.

They are of the guide, of restarts, of the response's slope, of how far a parameter may be from its prior, in standard
deviations, and of those of the counts' logarithms that are the society's own chance: of 180 data sets of an outbreak
that two or three begin, the 90 % intervals of how many did held 59 % in the quarter beyond, and 84 % in the others.
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
        objective: the program of parameters and counts.
        chains: the restarts.
        unseen: the parameters that keep their priors, and their draws, shape (chains, draws, U).
        predicted: runs at draws of it.
        gap: by how much the whole society's level departs from that of the rounds, in logarithms, shape (D,).
        before: an earlier posterior, if there was one.
    """

    objective: Counts
    chains: Sequence[Chain]
    unseen: tuple[Scale, Tensor]
    predicted: Predicted
    gap: np.ndarray
    before: xr.DataTree | None = None

    def tree(self, rounds: CalibrationRounds, attrs: Mapping[str, Any]) -> xr.DataTree:
        """The whole result."""
        scale, (still, loose), seed = self.objective.scale, self.unseen, int(attrs["seed"])
        model, observed = self.predicted.model, self.predicted.observed
        fitted = parameters_of(model, scale, torch.stack([c.u for c in self.chains]))
        prior = [parameters_of(model, s, s.drawn(1000, seed)[None]) for s in (scale, still)]
        seen = self.predicted.groups(seed)
        verdict, figures = self._verdict(fitted, seen["posterior_predictive"], rounds)
        groups: dict[str, xr.Dataset] = {
            "posterior": fitted.merge(parameters_of(model, still, loose)),
            "prior": xr.merge(prior),
            "log_likelihood": self._log_likelihood(),
            "sample_stats": self._stats(),
            "fit": self._fit(rounds),
            **seen,
        }
        said = {
            **provenance(model),
            "days": self.predicted.days,
            "fitted_days": observed.days,
            "start": observed.start,
            **figures,
            **attrs,
            "verdict": json.dumps(verdict, ensure_ascii=False),
        }
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=said), **groups})

    def _log_likelihood(self) -> xr.Dataset:
        each = [self.objective.log_likelihood(c.u, c.epsilon).numpy() for c in self.chains]
        missing = np.isnan(self.predicted.observed.counts)
        cells = np.stack(each)
        cells[..., missing] = np.nan
        return self.predicted.streams(cells, ("chain", "draw"))

    def _stats(self) -> xr.Dataset:
        found = {
            "lp": np.stack([c.joint for c in self.chains]),
            "log_weight": np.stack([c.weight for c in self.chains]),
        }
        return numbered(xr.Dataset({n: (("chain", "draw"), x) for n, x in found.items()}))

    def _fit(self, rounds: CalibrationRounds) -> xr.Dataset:
        most = max(len(c.fit.losses) for c in self.chains)
        losses = np.full((len(self.chains), most), np.nan)
        for row, chain in zip(losses, self.chains, strict=True):
            row[: len(chain.fit.losses)] = chain.fit.losses
        centres = np.stack(rounds.centres)
        gap = self.predicted.streams(self.gap)
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
        self, posterior: xr.Dataset, predictive: xr.Dataset, rounds: CalibrationRounds
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
        held, covered = self.predicted.held(predictive)
        figures = {"khat": khat, "rhat": rhat, **covered}
        said.append(held)
        if rounds.agreement is not None:
            a = rounds.agreement
            figures |= {"slope": a.slope, "slope_se": a.se, "slope_correlation": a.correlation}
            off = abs(a.slope - 1) > max(_OFF, 3 * a.se)
            said.append(
                f"the response {'departs from' if off else 'agrees with'} runs that it hadn't seen (slope "
                f"{a.slope:.2f} ± {a.se:.2f})" + (": give more rounds= or rows=" if off else "")
            )
        figures["chance"] = self.objective.response.spread(self.objective.agents)
        if figures["chance"] > _LUCK:
            said.append(
                f"too confident: chance alone moves counts by a factor of {math.exp(figures['chance']):.1f}, as where "
                "few begin something, and no log-normal factor describes it: ask lpm.calibrate_exactly"
            )
        if far := self._conflict():
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

    def _moved(self, now: xr.Dataset, before: xr.Dataset) -> dict[str, float]:
        """How far each parameter's mean has moved, in standard deviations of what it was."""
        both = [str(n) for n in now if n in before and float(before[n].std()) > 0]
        return {n: float((now[n].mean() - before[n].mean()) / before[n].std()) for n in both}

    def _conflict(self) -> list[str]:
        """The parameters that are far from their priors."""
        return far_from_priors(self.objective.scale, torch.cat([c.u for c in self.chains]))


def far_from_priors(scale: Scale, u: Tensor) -> list[str]:
    """The parameters whose mean over draws, shape (draws, P), is three deviations of the prior or more from its own."""
    before, mean = scale.drawn(1000, 0).numpy(), u.numpy().mean(0)
    away = np.abs(mean - before.mean(0)) / before.std(0)
    return [n for n, x in zip(scale.names, away, strict=True) if x > _FAR]


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
    return numbered(xr.Dataset(found))
