"""The people: an xarray dataset over agents, read as tensors, with their plate, networks and strata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.plates import AgentPlate
from lpmppl.errors import InputError, nearest
from lpmppl.models.networks import Groups

__all__ = ["Population", "named"]

T = TypeVar("T")


def named(by: object, default: Mapping[str, str]) -> Mapping[str, str]:
    """Variables by the name of their dimension: those given, or where None is, the default.

    Raises:
        InputError: for anything else, such as the name of a variable alone.
    """
    if by is not None and not isinstance(by, Mapping):
        raise InputError(f"by={by!r} was given; give variables by the name of their dimension, such as {dict(default)}")
    return default if by is None else by


_TAKEN = {
    *("chain", "draw", "policy", "day", "layer", "was", "would", "estimate", "outcome", "people", "weight"),
    *("parameters", "trigger"),
}
"""Names that results have besides strata."""


class Population:
    """A population of agents.

    Args:
        dataset: variables over the dimension `agent` (and over groups, such as `household`), codes with their `labels`
            in attrs, provenance in the dataset's attrs; a coordinate `agent` holds global ids where they aren't 0 … N
            − 1.
        device: where its tensors live.
    Raises:
        InputError: for a dataset without agents, or with ids that repeat or lie outside 0 … 2³² − 1.

    >>> people = Population(xr.Dataset({"household": ("agent", np.array([0, 0, 1], dtype="int32"))}))
    >>> people.size, people["household"].tolist(), people.network("household").size.tolist()
    (3, [0, 0, 1], [2, 1])
    """

    def __init__(self, dataset: xr.Dataset, device: str | torch.device = "cpu") -> None:
        if dataset.sizes.get("agent", 0) < 1:
            raise InputError(
                f"a population needs a dimension 'agent' of one or more, but the dataset has {dict(dataset.sizes)}"
            )
        self.dataset = dataset
        try:
            self.device = torch.device(device)
        except RuntimeError as e:
            raise InputError(f"device '{device}' is none that torch knows; say cpu or cuda") from e
        self._tensors: dict[str, Tensor] = {}
        self._groups: dict[tuple[object, ...], Groups] = {}
        self._derived: dict[str, object] = {}
        self.ids = self._ids()
        """Global ids of the agents, shape (N,): noise is keyed by them."""

    @classmethod
    def of(cls, variables: Mapping[str, object], **attrs: str) -> Population:
        """Make a population of per-agent arrays by name."""
        return cls(xr.Dataset({k: ("agent", np.asarray(v)) for k, v in variables.items()}, attrs=attrs))

    @classmethod
    def open(cls, path: str | Path, device: str | torch.device = "cpu") -> Population:
        """Read a population that `save` wrote; InputError for one that is truncated or foreign."""
        from lpmppl.data import store

        return cls(store.load(Path(path)), device)

    def save(self, path: str | Path) -> None:
        """Write the population to a Zarr folder that isn't there yet, whole or not at all."""
        from lpmppl.data import store

        store.save(self.dataset, Path(path))

    def to(self, device: str | torch.device) -> Population:
        """The same people with their tensors on a device."""
        return self if torch.device(device) == self.device else Population(self.dataset, device)

    @property
    def name(self) -> str:
        return str(self.dataset.attrs.get("title", "population"))

    @property
    def size(self) -> int:
        """The number N of agents."""
        return int(self.dataset.sizes["agent"])

    def _ids(self) -> Tensor:
        if "agent" not in self.dataset.coords:
            return torch.arange(self.size, dtype=torch.int32 if self.size < 2**31 else torch.int64, device=self.device)
        ids = torch.from_numpy(self.dataset["agent"].to_numpy().astype(np.int64))
        if int(ids.min()) < 0 or int(ids.max()) >= 2**32 or ids.unique().shape != ids.shape:
            raise InputError("agents' ids must be distinct and lie in 0 … 2³² − 1")
        return ids.to(self.device)

    def __getitem__(self, name: str) -> Tensor:
        """A variable as a tensor, shape (N,) or that of its group dimension."""
        if name not in self._tensors:
            if name not in self.dataset:
                raise InputError(nearest("variable of the population", name, [str(v) for v in self.dataset.variables]))
            values = self.dataset[name].to_numpy()
            if values.dtype.kind not in "biuf":
                raise InputError(
                    f"variable '{name}' of the population holds {values.dtype}; give it number codes and labels"
                )
            writable = values if values.flags.writeable and values.flags.c_contiguous else values.copy()
            self._tensors[name] = torch.from_numpy(writable).to(self.device)
        return self._tensors[name]

    def derived(self, name: str, make: Callable[[], T]) -> T:
        """What follows from the people alone, made when it is first asked for under its name and then kept."""
        if name not in self._derived:
            self._derived[name] = make()
        return cast(T, self._derived[name])

    def labels(self, name: str) -> list[str]:
        """The labels of a coded variable; its distinct codes where it has none."""
        codes = self[name]
        labels = self.dataset[name].attrs.get("labels")
        if labels is None:
            return [str(c) for c in range(int(codes.max()) + 1)]
        return [str(label) for label in labels]

    def plate(self, *, episode: Tensor | int | None = None) -> AgentPlate:
        """The agents' plate: sample sites in it have shape (…, N).

        With `episode` an agent's chance belongs to that episode of its life, whatever day it is drawn on; without, to
        the step.
        """
        return AgentPlate("agents", self.ids, episode)

    def cohort(self, x: Tensor, *, above: float | None = None, below: float | None = None) -> Cohort:
        """The agents at whom a Boolean mask of shape (…, N) is true, or whose value is above or below a level, or both.

        >>> people = Population.of({"age": [40, 8, 70]})
        >>> people.cohort(people["age"], above=17).agent.tolist()
        [0, 2]
        """
        return Cohort.of(x, self.ids, above, below)

    def due(self, clock: Tensor, t: Tensor | float, dt: Tensor | float = 1.0) -> Cohort:
        """The agents whose clock runs out before the end of a step, at a time of shape (…, N) in days.

        Unlike those of `cohort(clock, below=…)`, who they are is an event in time: a small change of the clock doesn't
        change the step but how much of it is left, which carries the derivative.
        """
        return Cohort.due(clock, t, dt, self.ids)

    def network(self, name: str, nowhere: int | None = None) -> Groups:
        """The membership network of a variable such as "household"; members of the group `nowhere` meet nobody.

        Where only some of the members are in this population, `NAME_members` over its groups says how many there are.
        """
        key = (name, nowhere)
        if key not in self._groups:
            index = self[name]
            members = self._members(name)
            many = int(index.max()) + 1 if members is None else members.shape[0]
            count = int(self.dataset.sizes.get(name, many))
            self._groups[key] = Groups(name, index, count, nowhere, members=members)
        return self._groups[key]

    def everyone(self) -> Groups:
        """The network in which every agent reaches every agent: one group, well mixed."""
        if ("everyone",) not in self._groups:
            self._groups["everyone",] = Groups(
                "everyone", torch.zeros(self.size, dtype=torch.int32, device=self.device), 1
            )
        return self._groups["everyone",]

    def strata(self, **dims: str) -> Groups:
        """The strata of a tally: the product of coded variables, each under the name of its dimension in results.

        A variable of households or other groups stands for their members. What isn't known, a code below 0, is a kind
        of its own.

        Raises:
            InputError: for a variable that there isn't, that holds no codes, or that is of no group of agents; for a
                name that results use themselves.

        >>> people = Population.of({"borough": [0, 1, 1], "age_band": [2, 0, 2]})
        >>> people.strata(borough="borough", age="age_band").count
        6
        """
        key = ("strata", *dims.items())
        if key not in self._groups:
            code = torch.zeros(self.size, dtype=torch.int32, device=self.device)
            labels: dict[str, list[str]] = {}
            for dim, variable in dims.items():
                if dim in _TAKEN or dim.startswith("from_") or "/" in dim:
                    raise InputError(f"a stratum can't be called '{dim}': results use such names; give it another one")
                labels[dim], values = self._of_agents(variable)
                code.mul_(len(labels[dim])).add_(values)
            count = int(np.prod([len(v) for v in labels.values()]))
            members = self._members(next(iter(dims.values()))) if len(dims) == 1 else None
            members = members if members is not None and len(members) == count else None
            self._groups[key] = Groups(" × ".join(dims), code, count, dims=labels, members=members)
        return self._groups[key]

    def _members(self, name: str) -> Tensor | None:
        return self[f"{name}_members"].long() if f"{name}_members" in self.dataset else None

    def _of_agents(self, variable: str) -> tuple[list[str], Tensor]:
        """The labels of a variable, and each agent's code among them."""
        labels, codes = self.coded(variable)
        (of,) = self.dataset[variable].dims
        if of == "agent":
            return labels, codes
        if of not in self.dataset or self.dataset[of].dims != ("agent",):
            raise InputError(f"variable '{variable}' is of each {of}, and agents don't belong to such groups")
        return labels, codes[self[str(of)].long()]

    def coded(self, variable: str) -> tuple[list[str], Tensor]:
        """The labels of a variable and the codes among them, with a label for what isn't known, a code below 0.

        Where it has no labels they are its codes, and where these lie far apart its distinct codes.

        Raises:
            InputError: for a variable that there isn't, that holds no codes, or one without a label.

        >>> labels, codes = Population.of({"flat": [0, -1, 1]}).coded("flat")
        >>> labels, codes.tolist()
        (['unknown', '0', '1'], [1, 0, 2])
        """
        codes, of = self[str(variable)], self.dataset[variable].dims
        if codes.is_floating_point() or len(of) != 1:
            raise InputError(f"variable '{variable}' holds {codes.dtype} over {of}; give one of coded groups")
        if codes.dtype not in (torch.uint8, torch.bool):
            codes = codes.clamp(min=-1)
        most = int(codes.max())
        if "labels" not in self.dataset[variable].attrs and most >= max(1000, 2 * self.size):
            found = codes.unique()
            return ["unknown" if c < 0 else str(c) for c in found.tolist()], torch.searchsorted(found, codes).int()
        labels = self.labels(variable)
        if most >= len(labels):
            raise InputError(f"variable '{variable}' has the code {most}, but {len(labels)} labels")
        return (["unknown", *labels], codes + 1) if int(codes.min()) < 0 else (labels, codes)
