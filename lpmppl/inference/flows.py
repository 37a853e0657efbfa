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
from lpmppl.errors import InputError, nearest
from lpmppl.models.population import Population
from lpmppl.typing import State

__all__ = ["STRATA", "Flows", "Strata"]

STRATA = {"borough": "borough", "age": "age_band", "income": "income_band"}
"""By what outcomes are broken down, where the population has it: the dimension and the variable behind it."""

HAD = ("no", "yes")


class Strata:
    """Kinds of people: the product of coded variables of agents, or of their households.

    Args:
        people: the population.
        by: variables by the name of their dimension in results; those of `STRATA` that there are by default.
    Raises:
        InputError: for a variable that the population hasn't, or that is neither of agents nor of households.
    """

    def __init__(self, people: Population, by: Mapping[str, str] | None = None) -> None:
        known = [str(v) for v in people.dataset.variables]
        chosen = {d: v for d, v in STRATA.items() if v in known} if by is None else dict(by)
        self.dims: dict[str, list[str]] = {}
        self.code = torch.zeros(people.size, dtype=torch.int64, device=people.device)
        if taken := {*chosen} & {"chain", "draw", "policy", "was", "would"}:
            raise InputError(f"a stratum can't be called {min(taken)}; give by= another name for it")
        for dim, variable in chosen.items():
            if variable not in known:
                raise InputError(nearest("variable of the population", variable, known))
            (where,) = people.dataset[variable].dims
            if people.dataset[variable].dtype.kind not in "iu":
                raise InputError(
                    f"by={variable} holds {people.dataset[variable].dtype}; give a variable of coded groups"
                )
            if where not in ("agent", "household"):
                raise InputError(f"by={variable} is of each {where}; give a variable of agents or households")
            values = people[variable].long()
            values = values[people["household"].long()] if where == "household" else values
            self.dims[dim] = people.labels(variable)
            # What isn't known, such as an income in group quarters, is a kind of its own.
            if int(values.min()) < 0:
                self.dims[dim] = ["unknown", *self.dims[dim]]
                values = values.clamp(min=-1) + 1
            self.code = self.code * len(self.dims[dim]) + values

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(labels) for labels in self.dims.values())


class Flows(Messenger):
    """Count, at the end of every simulation under it, who has an outcome in which of the worlds of one index.

    Args:
        outcomes: the last state to a Boolean of shape (…, N), by name.
        strata: the kinds of people to count by.
        index: the state key that numbers the worlds from 0, shape (W, 1, 1) once they have parted.
        worlds: the labels of the worlds; the others are compared with the first.
    """

    def __init__(
        self, outcomes: Mapping[str, Callable[[State], Tensor]], strata: Strata, index: str, worlds: list[str]
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
            if had.dtype != torch.bool or had.shape[-1] != self.strata.code.shape[0]:
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
        code = (self.strata.code * 2 + was) * 2 + would
        size = 4 * int(np.prod(self.strata.shape))
        return torch.bincount(code, minlength=size).cpu().numpy().reshape(*self.strata.shape, 2, 2)

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
