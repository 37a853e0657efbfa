"""Flows: how many people have an outcome in one world and not in another, by who they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.ops import ring_sum
from lpmppl.models.networks import Groups
from lpmppl.typing import State

__all__ = ["Flows"]

HAD = ("no", "yes")


class Flows(Messenger):
    """Count, at the end of every simulation under it, who has an outcome in which of the worlds of one index.

    Args:
        outcomes: the last state to a Boolean of shape (…, N), by name.
        strata: the kinds of people to count by.
        index: the state key that numbers the worlds from 0, shape (W, 1, 1) once they have parted.
        worlds: the labels of the worlds; the others are compared with the first.
    """

    def __init__(
        self, outcomes: Mapping[str, Callable[[State], Tensor]], strata: Groups, index: str, worlds: list[str]
    ) -> None:
        super().__init__()
        self.outcomes, self.strata, self.index, self.worlds = outcomes, strata, index, worlds
        self.counts: dict[str, list[np.ndarray]] = {name: [] for name in outcomes}

    def _pyro_post_simulate(self, msg: Message) -> None:
        state = msg["value"]
        if self.index not in state:  # an ODE inside a step
            return
        for name, outcome in self.outcomes.items():
            had = outcome(state)
            if had.dtype != torch.bool or had.shape[-1] != self.strata.agents:
                warnings.warn(
                    f"the outcome '{name}' gave {had.dtype} of shape {tuple(had.shape)}, not a Boolean of every agent; "
                    "it isn't counted",
                    stacklevel=2,
                )
                continue
            if had.dim() > 1:
                had = had.reshape(-1, had.shape[-1])
            had = had.expand(len(self.worlds), had.shape[-1])
            self.counts[name].append(np.stack([self._count(had[0], had[k]) for k in range(1, len(self.worlds))]))

    def _count(self, was: Tensor, would: Tensor) -> np.ndarray:
        def count(of: Tensor) -> Tensor:
            return ring_sum(Cohort.of(of).carrying(1), self.strata)

        # Fewer have an outcome than have not, most often: those are counted as who is left.
        had, have, both = count(was), count(would), count(was & would)
        neither = self.strata.size - had - have + both
        table = torch.stack([neither, have - both, had - both, both], -1)
        shape = [len(labels) for labels in self.strata.dims.values()]
        return table.cpu().numpy().reshape(*shape, 2, 2)

    def dataset(self) -> xr.Dataset:
        """People by outcome as it was and as it would have been: dims (chain, draw, policy, strata…, was, would)."""
        dims = ("chain", "draw", self.index, *self.strata.dims, "was", "would")
        attrs = {"units": "people"}
        found = {
            name: xr.DataArray(np.stack(counts)[None], dims=dims, attrs=attrs)
            for name, counts in self.counts.items()
            if counts
        }
        draws = max((len(counts) for counts in self.counts.values()), default=0)
        coords: dict[str, Any] = {**self.strata.dims, self.index: self.worlds[1:], "was": list(HAD), "would": list(HAD)}
        return xr.Dataset(found, {**coords, "chain": [0], "draw": np.arange(draws)})
