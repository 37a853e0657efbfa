"""What a calibrating network answers, as a DataTree that ArviZ reads, with what is known of how right it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lpmppl.inference.ensemble import Ensemble
from lpmppl.inference.head import Posterior
from lpmppl.inference.observed import Observed
from lpmppl.inference.posterior import far_from_priors, parameters_of
from lpmppl.inference.predicted import Predicted
from lpmppl.inference.reader import Task
from lpmppl.inference.run import provenance

__all__ = ["Answer", "held_in_runs"]

_APART = 2**20
"""From which draw on everybody's chance is that of runs that nothing was learnt from."""

_SURELY, _COVERED = 0.01, 0.85
"""The p-value below which ranks in runs aren't uniform, and the least coverage of 90 % intervals there."""


@dataclass(frozen=True)
class Answer:
    """A network's posterior of a society's parameters.

    Args:
        of: the society.
        found: the posterior, batch shape (1,).
        seen: what was observed, None where that isn't the network's to see.
        days: how many days it reads.
        ranks: where the parameters of its last runs were in their posteriors; None for a society that it never met.
        losses: the loss of each step.
    """

    of: Task
    found: Posterior
    seen: Observed | None
    days: int
    ranks: xr.Dataset | None
    losses: Sequence[float]

    def tree(self, draws: int, simulations: int, ahead: int, seed: int) -> xr.DataTree:
        """The whole result.

        Args:
            draws: how many draws.
            simulations: how many runs of the society are made at draws, or 0.
            ahead: how many days these go on.
            seed: the seed of the draws, and of the runs' chance.
        """
        of = self.of
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            u = self.found.sample((draws,))[:, 0]
        groups = {
            "posterior": parameters_of(of.model, of.scale, u[None]),
            "prior": parameters_of(of.model, of.scale, of.scale.drawn(1000, seed)[None]),
            "fit": self._fit(),
        }
        said, figures = self._verdict(u)
        observed = of.ensemble.observed if self.seen is None else self.seen
        if simulations:
            predicted = self._predicted(observed, u, simulations, ahead, seed)
            groups |= predicted.groups(seed)
            if self.seen is not None:
                held, covered = predicted.held(groups["posterior_predictive"])
                said, figures = [*said, held], figures | covered
        groups.pop("observed_data", None)
        if self.seen is not None:
            parts = zip(self.seen.streams, self.seen.split(self.seen.counts), strict=True)
            groups["observed_data"] = xr.Dataset({s.name: s.array(x) for s, x in parts}, {"day": np.arange(self.days)})
        attrs = {
            **provenance(of.model),
            "days": self.days + ahead,
            "fitted_days": self.days,
            "start": observed.start,
            "guide": "calibnn",
            "seed": seed,
            "interventions": json.dumps([list(act) for act in of.ensemble.acts]),
            "set": json.dumps({n: x for n, x in of.rest.items() if n not in of.scale.names}),
            **figures,
            "verdict": json.dumps(said, ensure_ascii=False),
        }
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **groups})

    def _predicted(self, observed: Observed, u: Tensor, simulations: int, ahead: int, seed: int) -> Predicted:
        """Runs of the society at draws of its posterior, shape (draws, P)."""
        of = self.of
        picked = u[torch.linspace(0, len(u) - 1, simulations).long()]
        thetas = [{**of.rest, **values} for values in of.scale.values(picked)]
        city = Ensemble(of.model, observed, seed, of.ensemble.acts, self.days + ahead)
        return Predicted.of(city, thetas, _APART)

    def _fit(self) -> xr.Dataset:
        losses = xr.DataArray([list(self.losses)], dims=("chain", "step"))
        losses.attrs["long_name"] = "the mean of −log q at the parameters of runs"
        return xr.Dataset({"loss": losses}, {"chain": [0], "step": np.arange(len(self.losses))})

    def _verdict(self, u: Tensor) -> tuple[list[str], dict[str, float]]:
        """What is known of how right the network is, in words and figures."""
        said, figures = ["how right this is isn't known: the network met no run of this society"], {}
        if self.ranks is not None:
            held, said[0] = held_in_runs(self.ranks)
            figures["runs_coverage"] = held
            if held < _COVERED:
                said = [f"too confident: {said[0]}; learn from more"]
            p = self.ranks["p_value"].to_numpy()
            if p.min() * len(p) < _SURELY:
                name = str(self.ranks["parameter"].values[p.argmin()])
                said.append(f"in these runs {name} isn't where its posterior says (p = {p.min():.1g}): learn from more")
        if far := far_from_priors(self.of.scale, u):
            said.append(f"far from what their priors say: {', '.join(far)}")
        return said, figures


def held_in_runs(ranks: xr.Dataset, of: str = "") -> tuple[float, str]:
    """How often intervals held parameters in runs before these were learnt from, as a share and in words."""
    held, runs = float(ranks["coverage"].mean()), f"{ranks.attrs['runs']} runs{of}"
    return held, f"in the last {runs}, before they were learnt from, 90 % intervals held {held:.0%}"
