"""The people: an xarray dataset over agents, read as tensors, with their plate, networks and strata."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.internals.parts import Part
from lpmppl.effects.plates import AgentPlate
from lpmppl.effects.ranks import Ranks
from lpmppl.errors import InputError, nearest
from lpmppl.models import display
from lpmppl.models.given import column, device_of, named, shown
from lpmppl.models.networks import Groups
from lpmppl.models.partition import parted, with_own_groups

__all__ = ["STRATA", "Population", "named"]

T = TypeVar("T")


STRATA = {"borough": "borough", "age": "age_band", "income": "income_band"}
"""By what outcomes are broken down, where people have it: the dimension and the variable behind it."""

HOME = "household"
"""What is never parted."""

_WHOLE = "whole"
"""The attribute of a part with the checksum of the whole and its number of households."""

_SPARSE = 1_000_000
"""How much larger than ten times the agents the number of a group may be: sums are kept of every group."""

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
        ranks: those that share the population, where the dataset is one rank's part of it: groups then have the
            members that they have on all ranks, and `everybody` counts them.
    Raises:
        InputError: for a dataset without agents, or with ids that repeat or lie outside 0 … 2³² − 1.

    >>> people = Population(xr.Dataset({"household": ("agent", np.array([0, 0, 1], dtype="int32"))}))
    >>> people.size, people["household"].tolist(), people.network("household").size.tolist()
    (3, [0, 0, 1], [2, 1])
    """

    def __init__(self, dataset: xr.Dataset, device: str | torch.device = "cpu", ranks: Ranks | None = None) -> None:
        if not isinstance(dataset, xr.Dataset):
            raise InputError(
                f"{type(dataset).__name__} was given for a population; give an xarray Dataset over 'agent', or "
                "Population.of({'variable': values})"
            )
        if dataset.sizes.get("agent", 0) < 1:
            raise InputError(
                f"a population needs a dimension 'agent' of one or more, but the dataset has {dict(dataset.sizes)}"
            )
        self.dataset, self.ranks = dataset, ranks
        self.device = device_of(device)
        self._tensors: dict[str, Tensor] = {}
        self._groups: dict[tuple[object, ...], Groups] = {}
        self._derived: dict[str, object] = {}
        self.ids = self._ids()
        """Global ids of the agents, shape (N,): noise is keyed by them."""
        self.everybody = int(self.together(torch.tensor([self.size])))
        """The number of agents in all, those on other ranks included."""

    def __repr__(self) -> str:
        return display.population_line(self)

    def _repr_html_(self) -> str:
        return display.population_html(self)

    @classmethod
    def of(cls, variables: Mapping[str, object], **attrs: str) -> Population:
        """Make a population of per-agent arrays by name.

        Args:
            variables: one value for each agent, numbers, codes or Booleans, of one length, by the variable's name.
            attrs: what the population says of itself, such as its `title`.
        Raises:
            InputError: for variables that aren't such.

        >>> Population.of({"household": [0, 0, 1], "age": [40, 8, 70]}).size
        3
        """
        if not isinstance(variables, Mapping) or not variables:
            raise InputError(f"{shown(variables)} was given; give values by name, such as {{'household': [0, 0, 1]}}")
        columns = {name: column(name, values) for name, values in variables.items()}
        sizes = {name: len(values) for name, values in columns.items()}
        if len({*sizes.values()}) > 1:
            said = ", ".join(f"'{name}' has {size:,}" for name, size in list(sizes.items())[:4])
            raise InputError(f"each variable needs a value for each agent, but {said}; give all of one length")
        return cls(xr.Dataset({name: ("agent", values) for name, values in columns.items()}, attrs=attrs))

    @classmethod
    def open(cls, path: str | Path, device: str | torch.device = "cpu", ranks: Ranks | None = None) -> Population:
        """Read a population that `save` wrote; InputError for one that is truncated or foreign.

        Where ranks share it, each reads its own part, one variable at a time, as `shard` would give it.
        """
        from lpmppl.data import store

        if not isinstance(path, str | os.PathLike):
            raise InputError(f"path={shown(path)} was given; give the folder that save wrote")
        if ranks is None:
            return cls(store.load(Path(path)), device)
        found, wrong = None, InputError(f"'{path}' can't be read by all ranks")
        try:
            found = store.part(path, lambda column: np.flatnonzero(parted(column, ranks.count) == ranks.rank), HOME)
        except InputError as error:
            wrong = error
        if not all(ranks.agree("reading the population", each=int(found is not None))) or found is None:
            raise wrong
        own, homes, whole = found
        return cls._of_rank(own, homes, ranks, whole.crc, whole.groups, device)

    def save(self, path: str | Path) -> None:
        """Write the population to a Zarr folder that isn't there yet, whole or not at all."""
        from lpmppl.data import store

        if not isinstance(path, str | os.PathLike):
            raise InputError(f"path={shown(path)} was given; give a folder that isn't there yet")
        store.save(self.dataset, Path(path))

    def to(self, device: str | torch.device) -> Population:
        """The same people with their tensors on a device."""
        return self if device_of(device) == self.device else Population(self.dataset, device, self.ranks)

    def shard(self, ranks: Ranks) -> Population:
        """The part of the people that is this rank's: whole households, and neighbouring areas together.

        Raises:
            InputError: for fewer households than ranks, or people who were parted before.
            LpmError: where ranks have different people.
        """
        if self.ranks is not None:
            raise InputError(f"these are the people of rank {self.ranks.rank} already: part the whole once")
        mine = np.flatnonzero(parted(self._column, ranks.count) == ranks.rank)
        own = self.dataset.isel(agent=mine).assign_coords(agent=("agent", self.ids.cpu().numpy()[mine]))
        homes = np.unique(own[HOME].to_numpy()).astype(np.int64)
        own = own.isel({HOME: homes}) if HOME in own.sizes else own
        return self._of_rank(own, homes, ranks, self.checksum, self.network(HOME).count, self.device)

    def _column(self, name: str) -> np.ndarray | None:
        return self.dataset[name].to_numpy() if name in self.dataset else None

    @classmethod
    def _of_rank(
        cls,
        own: xr.Dataset,
        homes: np.ndarray,
        ranks: Ranks,
        checksum: int,
        households: int,
        device: str | torch.device,
    ) -> Population:
        """The people of a rank, whose households still have their numbers among all."""
        ranks.agree("the people", checksum)
        place = np.searchsorted(homes, own[HOME].to_numpy()).astype(np.int32)
        own[HOME] = ("agent", place, own[HOME].attrs)
        own[f"{HOME}_ids"] = (HOME if HOME in own.sizes else f"{HOME}_group", homes)
        own = with_own_groups(own, ranks)
        return cls(own.assign_attrs({_WHOLE: [checksum, households]}), device, ranks)

    @property
    def part(self) -> Part | None:
        """What of the people is this rank's, where they were parted."""
        if self.ranks is None:
            return None
        groups = {name: (self.ids_of(name), self._groups_of_all(name)) for name in self._with_own_groups}
        households = self.dataset.attrs[_WHOLE][1]
        return Part(self.ranks, self.ids.long(), self.ids_of(HOME), self.everybody, households, groups)

    @cached_property
    def _with_own_groups(self) -> list[str]:
        """The variables of which a rank has only the groups that matter to it."""
        names = [str(dim) for dim in self.dataset.sizes]
        both = [n for n in names if f"{n}_ids" in self.dataset and f"{n}_members" in self.dataset]
        return [] if self.ranks is None else both

    def _groups_of_all(self, name: str) -> int:
        return int(self.dataset[f"{name}_ids"].attrs["groups"])

    @cached_property
    def checksum(self) -> int:
        """Of everybody, so that a checkpoint is resumed among the same people; a part has that of the whole."""
        if self.ranks is not None:
            return int(self.dataset.attrs[_WHOLE][0])
        value = 0
        for name in sorted(str(v) for v in self.dataset.variables):
            value = zlib.crc32(np.ascontiguousarray(self.dataset[name].to_numpy()).data, value)
        return value

    @property
    def name(self) -> str:
        return str(self.dataset.attrs.get("title", "population"))

    @property
    def size(self) -> int:
        """The number N of agents that are here."""
        return int(self.dataset.sizes["agent"])

    def _ids(self) -> Tensor:
        if "agent" not in self.dataset.coords:
            return torch.arange(self.size, dtype=torch.int32 if self.size < 2**31 else torch.int64, device=self.device)
        given = self.dataset["agent"].to_numpy()
        if given.dtype.kind not in "iu":
            raise InputError(f"agents' ids are {given.dtype}; give whole numbers, or leave 'agent' out")
        ids = torch.from_numpy(given.astype(np.int64))
        if int(ids.min()) < 0 or int(ids.max()) >= 2**32 or ids.unique().shape != ids.shape:
            raise InputError("agents' ids must be distinct and lie in 0 … 2³² − 1")
        return ids.to(self.device)

    def __getitem__(self, name: str) -> Tensor:
        """A variable as a tensor, shape (N,) or that of its group dimension."""
        if not isinstance(name, Hashable):
            raise InputError(f"{shown(name)} was given for a variable of the population; give its name")
        if name not in self._tensors:
            if name not in self.dataset:
                raise InputError(nearest("variable of the population", name, [str(v) for v in self.dataset.variables]))
            values = self.dataset[name].to_numpy()
            if values.dtype.kind not in "biuf":
                raise InputError(
                    f"variable '{name}' of the population holds {values.dtype}; give it number codes and labels"
                )
            if not values.ndim:
                raise InputError(f"variable '{name}' of the population is one number; give one for each agent or group")
            if values.dtype.kind == "u" and values.dtype.itemsize > 1:
                # torch has few operations for unsigned integers of several bytes.
                if values.size and int(values.max()) >= 2**63:
                    raise InputError(f"variable '{name}' of the population goes up to {int(values.max())}; give codes")
                values = values.astype(np.int32 if values.dtype.itemsize == 2 else np.int64)
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
        codes = self._codes(name)
        labels = self.dataset[name].attrs.get("labels")
        if labels is None:
            if codes.is_floating_point() and not bool(codes.isfinite().all()):
                raise InputError(f"variable '{name}' holds numbers that aren't finite; codes are whole, 0 or more")
            return [str(c) for c in range(self._counted(name, codes))]
        if not isinstance(labels, list | tuple | np.ndarray):
            raise InputError(f"the labels of variable '{name}' are {shown(labels)}; give a list of words")
        return [str(label) for label in labels]

    def _codes(self, name: str) -> Tensor:
        """A variable, whose groups have the numbers that they have among everybody's."""
        codes = self[name]
        return self[f"{name}_ids"][codes.long()] if f"{name}_ids" in self.dataset else codes

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
        if not isinstance(x, Tensor):
            raise InputError(f"a cohort of {shown(x)} was asked for; give a tensor with a value for each agent")
        return Cohort.of(x, self.ids, above, below)

    def due(self, clock: Tensor, t: Tensor | float, dt: Tensor | float = 1.0) -> Cohort:
        """The agents whose clock runs out before the end of a step, at a time of shape (…, N) in days.

        Unlike those of `cohort(clock, below=…)`, who they are is an event in time: a small change of the clock doesn't
        change the step but how much of it is left, which carries the derivative.
        """
        return Cohort.due(clock, t, dt, self.ids)

    def network(self, name: str, nowhere: int | None = None, together: bool = False) -> Groups:
        """The membership network of a variable such as "household"; members of the group `nowhere` meet nobody.

        Where only some of the members are in this population, `NAME_members` over its groups says how many there are.

        Args:
            name: the variable.
            nowhere: the number of the group whose members meet nobody.
            together: whether sums of all groups are read together, on every rank, instead of each by its own members.
        """
        if not isinstance(name, Hashable):
            raise InputError(f"{shown(name)} was given for a network; give the name of a variable, such as 'household'")
        key = (name, nowhere, together)
        if key not in self._groups and name in self._with_own_groups:
            self._groups[key] = self._own_network(name, nowhere, together)
        if key not in self._groups:
            index = self[name]
            members = self._members(name)
            here = f"{name}_ids" in self.dataset
            if here and together and self.ranks is not None:
                raise InputError(
                    f"network '{name}': each rank has groups of its own, whose sums can't be read together"
                )
            if index.is_floating_point() or index.dim() != 1:
                raise InputError(
                    f"network '{name}': the variable holds {index.dtype} of shape {tuple(index.shape)}; give the "
                    "number of each agent's group, whole numbers of shape (N,)"
                )
            if members is not None:
                many = members.shape[0]
            else:
                many = int(index.max()) + 1 if here else self._counted(name, index)
            count = int(self.dataset.sizes.get(name, many))
            members = self._everywhere(index, count) if members is None and not here else members
            shared = self.ranks is not None and not here
            self._groups[key] = Groups(
                name, index, count, nowhere, members=members, here=here, shared=shared, together=together
            )
        return self._groups[key]

    def _own_network(self, name: str, nowhere: int | None, together: bool) -> Groups:
        """A network of which this rank has only the groups that matter to it, or all where they are read together."""
        index, ids, count = self[name], self.ids_of(name), self._groups_of_all(name)
        if together:
            whole = ids[index.long()]
            members = self._everywhere(whole, count)
            return Groups(name, whole, count, nowhere, members=members, shared=True, together=True)
        if nowhere is not None and not 0 <= nowhere < count:
            raise InputError(f"network '{name}': nowhere={nowhere} is no group of 0 … {count - 1}")
        found = [] if nowhere is None else (ids == nowhere).nonzero()[:, 0].tolist()
        place = found[0] if found else None
        own = Groups(name, index, len(ids), place, members=self._members(name), shared=True, ids=ids)
        assert self.ranks is not None
        return replace(own, most=max(self.ranks.agree(f"the largest group of '{name}'", each=own.reach)))

    def ids_of(self, name: str) -> Tensor:
        """Global ids of the groups of a variable, such as "household": noise of groups is keyed by them."""
        if f"{name}_ids" in self.dataset:
            return self[f"{name}_ids"]
        return torch.arange(self.network(name).count, device=self.device)

    def together(self, integers: Tensor) -> Tensor:
        """Integers added up over all ranks that share the population; themselves where there is one."""
        if self.ranks is None:
            return integers
        return self.ranks.total("counting the people", integers)

    def _most(self, codes: Tensor) -> int:
        """The largest code of anybody."""
        most = int(codes.max())
        return most if self.ranks is None else max(self.ranks.agree("the largest code", each=most))

    def _counted(self, name: str, codes: Tensor) -> int:
        """How many groups or labels there are by the largest number of one, if these are as many as can be meant."""
        many = self._most(codes) + 1 if codes.numel() else 0
        if many > _SPARSE + 10 * self.everybody:
            raise InputError(
                f"variable '{name}' has numbers up to {many - 1:,} among {self.everybody:,} agents; number its groups "
                "0, 1, 2 …, as np.unique(values, return_inverse=True)[1] does"
            )
        return many

    def _least(self, codes: Tensor) -> int:
        """The smallest code of anybody."""
        least = int(codes.min())
        return least if self.ranks is None else min(self.ranks.agree("the smallest code", each=least))

    def _everywhere(self, index: Tensor, count: int) -> Tensor | None:
        """How many members each group has on all ranks; None where there is one."""
        return None if self.ranks is None else self.together(torch.bincount(index, minlength=count))

    def everyone(self) -> Groups:
        """The network in which every agent reaches every agent: one group, well mixed."""
        if ("everyone",) not in self._groups:
            everyone = torch.zeros(self.size, dtype=torch.int32, device=self.device)
            members, shared = self._everywhere(everyone, 1), self.ranks is not None
            self._groups["everyone",] = Groups("everyone", everyone, 1, members=members, shared=shared)
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
        key = ("strata", *((dim, shown(variable)) for dim, variable in dims.items()))
        if key not in self._groups:
            code = torch.zeros(self.size, dtype=torch.int32, device=self.device)
            labels: dict[str, list[str]] = {}
            for dim, variable in dims.items():
                if not isinstance(variable, str):
                    raise InputError(f"strata {dim}={shown(variable)} was given; give the name of a variable")
                if dim in _TAKEN or dim.startswith("from_") or "/" in dim:
                    raise InputError(f"a stratum can't be called '{dim}': results use such names; give it another one")
                labels[dim], values = self._of_agents(variable)
                code.mul_(len(labels[dim])).add_(values)
            count = int(np.prod([len(v) for v in labels.values()]))
            single = next(iter(dims.values())) if len(dims) == 1 else None
            members = None if single is None or single in self._with_own_groups else self._members(single)
            members = members if members is not None and len(members) == count else self._everywhere(code, count)
            shared = self.ranks is not None
            self._groups[key] = Groups(" × ".join(dims), code, count, dims=labels, members=members, shared=shared)
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
        codes, of = self._codes(str(variable)), self.dataset[variable].dims
        if codes.is_floating_point() or len(of) != 1:
            raise InputError(f"variable '{variable}' holds {codes.dtype} over {of}; give one of coded groups")
        if codes.dtype not in (torch.uint8, torch.bool):
            codes = codes.clamp(min=-1)
        most = self._most(codes)
        if "labels" not in self.dataset[variable].attrs and most >= max(1000, 2 * self.everybody):
            found = codes.unique()
            if self.ranks is not None:
                found = torch.cat(self.ranks.gathered(found)).unique()
            return ["unknown" if c < 0 else str(c) for c in found.tolist()], torch.searchsorted(found, codes).int()
        labels = self.labels(variable)
        if most >= len(labels):
            raise InputError(f"variable '{variable}' has the code {most}, but {len(labels)} labels")
        return (["unknown", *labels], codes + 1) if self._least(codes) < 0 else (labels, codes)
