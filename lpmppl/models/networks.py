"""Who meets whom: group membership and edge lists, both behind the same `aggregate`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lpmppl._compat import inside_transform
from lpmppl.effects.cohorts import Sparse
from lpmppl.effects.fields import Field
from lpmppl.effects.internals.segments import add, broadcast, copy, differentiated, empty, take, wide
from lpmppl.effects.internals.successors import changed
from lpmppl.effects.tape import added, kept, on_tape, plain
from lpmppl.errors import InputError
from lpmppl.models.given import number, shown, whole

__all__ = ["Edges", "Groups"]


def _members(name: str, index: Tensor, count: int, what: str) -> Tensor:
    """Check that an index holds whole numbers in 0 … count − 1, and give it in the integers that these need."""
    if not isinstance(index, Tensor) or index.dim() != 1 or index.is_floating_point() or index.dtype == torch.bool:
        given = f"{index.dtype} of shape {tuple(index.shape)}" if isinstance(index, Tensor) else type(index).__name__
        raise InputError(f"network '{name}': {what} must be a tensor of integers of shape (n,), but {given} was given")
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= count):
        span = f"{int(index.min())} … {int(index.max())}"
        raise InputError(f"network '{name}': {what} must lie in 0 … {count - 1}, but {span} was given")
    # Not in single bytes: torch would take an index of those for a mask.
    return index.to(torch.int16 if count <= 2**15 else torch.int32 if count <= 2**31 else torch.int64)


def _check_units(name: str, quantum: float, bound: float) -> None:
    if not isinstance(name, str):
        raise InputError(f"a network can't be called {shown(name)}; give it a name in words")
    given = [number(f"network '{name}': {what}", x) for what, x in (("quantum", quantum), ("bound", bound))]
    if min(given) <= 0:
        raise InputError(f"network '{name}': quantum {quantum:g} and bound {bound:g} were given; both must be above 0")


def _added(onto: Tensor | None, shape: torch.Size, place: Tensor, value: Tensor) -> Tensor:
    """Add values at flat positions that may repeat onto a total, or onto zeros, of a shape."""
    if onto is not None and onto.shape == shape and on_tape(value):
        return added(plain(onto), onto, wide(place), value)
    if differentiated(value):
        few = kept(wide(place), shape.numel())
        return torch.zeros(shape.numel(), dtype=value.dtype, device=value.device).index_add(0, few, value).view(shape)
    if onto is None:
        total = empty(shape, value.dtype, value.device).zero_()
    elif onto.shape == shape:
        return changed(onto, place, lambda flat: add(flat, place, value.to(flat.dtype)))
    else:
        total = copy(onto, shape)
    add(total.view(-1), place, value.to(total.dtype))
    return total


@dataclass(frozen=True, eq=False)
class Groups:
    """Membership: every member of a group reaches every member, itself included, so that n_i is the size of i's group.

    Args:
        name: the network's name, for errors and results.
        index: the group of each agent, integers of shape (N,); kept as int16 where the groups are few.
        count: the number G of groups.
        nowhere: a group whose members meet nobody (agents without a workplace), or None; many ranks keep no sum of it.
        quantum: the fixed-point unit of a message.
        bound: the largest absolute message.
        dims: where the groups are strata of a tally, the labels of each dimension (their product is G).
        members: how many members each group has, shape (G,), where some of them are elsewhere; counted by default.
        public: whether what is summed is known to all, such as counts of strata, rather than agents' own.
        here: whether no other rank has groups of it, where ranks share the population: each has its own households.
        shared: whether groups have members on other ranks, so that their sums have to be added up by `Sharded`.
        together: whether sums of all groups are read together, instead of each by its own members: then every rank is
            told all of them.
        ids: the numbers that its groups have among everybody's, increasing, shape (G,), where a rank has but some:
            those of its own members, and those with members on several other ranks.
        most: how many members the largest group of all has, where that may be on another rank.
    Raises:
        InputError: where the membership isn't integers in 0 … G − 1, or `members` isn't G whole numbers.

    >>> from lpmppl.effects.ops import aggregate
    >>> homes = Groups("household", torch.tensor([0, 0, 1]), 2)
    >>> aggregate(torch.tensor([True, False, True]), homes).dense().tolist()
    [0.5, 0.5, 1.0]
    """

    name: str
    index: Tensor
    count: int
    nowhere: int | None = None
    quantum: float = 2.0**-16
    bound: float = 1.0
    dims: Mapping[str, Sequence[str]] = field(default_factory=dict)
    members: Tensor | None = None
    public: bool = False
    here: bool = False
    shared: bool = False
    together: bool = False
    ids: Tensor | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        _check_units(self.name, self.quantum, self.bound)
        whole(f"network '{self.name}': count", self.count, 0)
        if not isinstance(self.public, bool):
            raise InputError(f"network '{self.name}': public={self.public!r}; say True or False")
        if self.members is not None and not isinstance(self.members, Tensor):
            raise InputError(f"network '{self.name}': members are {type(self.members).__name__}; give a tensor")
        if self.members is not None and (
            tuple(self.members.shape) != (self.count,)
            or self.members.is_floating_point()
            or bool((self.members < 0).any())
        ):
            raise InputError(
                f"network '{self.name}': members of shape {tuple(self.members.shape)}, {self.members.dtype}, were "
                f"given for {self.count} groups; give a whole number for each"
            )
        object.__setattr__(self, "index", _members(self.name, self.index, self.count, "group numbers"))
        if self.nowhere is not None and (isinstance(self.nowhere, bool) or self.nowhere not in range(self.count)):
            raise InputError(
                f"network '{self.name}': nowhere={shown(self.nowhere)} is no group of 0 … {self.count - 1}"
            )
        if self.dims and math.prod(len(labels) for labels in self.dims.values()) != self.count:
            raise InputError(f"network '{self.name}': the labels of {dict(self.dims)} don't make {self.count} groups")

    @property
    def agents(self) -> int:
        return self.index.shape[0]

    @cached_property
    def size(self) -> Tensor:
        """The number of members of each group, shape (G,), zero for the group `nowhere`."""
        size = torch.bincount(self.index, minlength=self.count) if self.members is None else self.members.clone()
        if self.nowhere is not None:
            size[self.nowhere] = 0
        return size

    @cached_property
    def reach(self) -> int:
        if self.most is not None:
            return self.most
        return int(self.size.max()) if self.count else 0

    def total(self, integers: Tensor | Sparse, onto: Tensor | None = None) -> Tensor:
        lead = integers.shape[:-1] if onto is None else broadcast(onto.shape[:-1], integers.shape[:-1])
        shape = torch.Size((*lead, self.count))
        if isinstance(integers, Sparse):
            cohort = integers.cohort.expand(lead)
            value = integers.value if cohort is integers.cohort else cohort.read(integers)
            group = cohort.group(self.index)
            place = group if len(shape) == 1 else group + cohort.row * self.count
            return _added(onto, shape, place, value)
        if onto is None:
            out = torch.zeros(shape, dtype=integers.dtype, device=self.index.device)
        else:
            out = copy(onto, shape)
        if math.prod(lead) == 1 and onto is None:
            out.view(-1).index_add_(0, self.index.int(), integers.reshape(-1))
        else:
            out.index_add_(-1, self.index.int(), integers.to(out.dtype).expand(*lead, self.agents))
        return out

    def largest(self, integers: Tensor) -> Tensor:
        shape = (*integers.shape[:-1], self.count)
        index = self.index.long().expand(integers.shape)
        out = torch.zeros(shape, dtype=integers.dtype, device=self.index.device)
        return out.scatter_reduce(-1, index, integers, "amax", include_self=False)

    @cached_property
    def _shares(self) -> dict[str, Tensor]:
        # They outlive a run in inference mode, and derivatives go through them afterwards.
        with torch.inference_mode(False):
            size = self.size.float()
            inside = torch.ones_like(size)
            if self.nowhere is not None:
                inside[self.nowhere] = 0.0
            return {"sum": inside, "mean": torch.where(size > 0, 1.0 / size.clamp(min=1.0), 0.0)}

    def share(self, reduce: str, weight: Tensor | None = None) -> Tensor:
        if weight is None:
            return self._shares[reduce]
        if differentiated(weight) or weight.is_inference() or inside_transform(weight):
            return self._shares[reduce] * weight
        last = self._weighed.get(reduce)
        # A layer's weights are the same every day, and a tape would keep a copy of each day's.
        if last is None or last[0] is not weight or last[1] != weight._version:
            with torch.inference_mode(False):
                last = self._weighed[reduce] = weight, weight._version, self._shares[reduce] * weight
        return last[2]

    @cached_property
    def _weighed(self) -> dict[str, tuple[Tensor, int, Tensor]]:
        return {}

    def field(self, values: Tensor, share: Tensor | None = None) -> Field:
        return Field.on(values, self.index, share)


@dataclass(frozen=True, eq=False)
class Edges:
    """An edge list: agent `source[e]` reaches agent `target[e]`, so that n_i is the number of edges into i.

    Args:
        name: the network's name, for errors and results.
        source: the agent that sends, integers of shape (E,).
        target: the agent that receives, integers of shape (E,).
        agents: the number N of agents.
        quantum: the fixed-point unit of a message.
        bound: the largest absolute message.
    Raises:
        InputError: where source and target aren't integers in 0 … N − 1 of one length.

    >>> from lpmppl.effects.ops import aggregate
    >>> friends = Edges("friends", torch.tensor([0, 1, 2]), torch.tensor([2, 2, 0]), agents=3)
    >>> aggregate(torch.tensor([True, False, True]), friends).dense().tolist()
    [1.0, 0.0, 0.5]
    """

    name: str
    source: Tensor
    target: Tensor
    agents: int
    quantum: float = 2.0**-16
    bound: float = 1.0

    def __post_init__(self) -> None:
        _check_units(self.name, self.quantum, self.bound)
        whole(f"network '{self.name}': agents", self.agents, 0)
        object.__setattr__(self, "source", _members(self.name, self.source, self.agents, "sources"))
        object.__setattr__(self, "target", _members(self.name, self.target, self.agents, "targets"))
        if self.source.shape != self.target.shape:
            raise InputError(
                f"network '{self.name}': {self.source.shape[0]} sources but {self.target.shape[0]} targets; give "
                "one of each per edge"
            )
        order = torch.sort(self.source, stable=True).indices
        object.__setattr__(self, "source", self.source[order].long())
        object.__setattr__(self, "target", self.target[order].long())

    @cached_property
    def _pointer(self) -> Tensor:
        degree = torch.bincount(self.source, minlength=self.agents)
        return torch.cat((degree.new_zeros(1), degree.cumsum(0)))

    @cached_property
    def degree(self) -> Tensor:
        """The number n_i of edges into each agent, shape (N,)."""
        return torch.bincount(self.target, minlength=self.agents)

    @cached_property
    def reach(self) -> int:
        return int(self.degree.max()) if self.agents else 0

    def total(self, integers: Tensor | Sparse, onto: Tensor | None = None) -> Tensor:
        lead = integers.shape[:-1] if onto is None else broadcast(onto.shape[:-1], integers.shape[:-1])
        shape = torch.Size((*lead, self.agents))
        if isinstance(integers, Sparse):
            cohort = integers.cohort.expand(lead)
            value = integers.value if cohort is integers.cohort else cohort.read(integers)
            first = take(self._pointer, cohort.agent)
            degree = self._pointer.index_select(0, cohort.agent + 1) - first
            start = torch.repeat_interleave(first - (degree.cumsum(0) - degree), degree)
            edge = start + torch.arange(start.shape[0], device=start.device)
            place = self.target.index_select(0, edge) + torch.repeat_interleave(cohort.row * self.agents, degree)
            return _added(onto, shape, place, torch.repeat_interleave(value, degree))
        out = torch.zeros(shape, dtype=integers.dtype, device=self.target.device) if onto is None else copy(onto, shape)
        sent = integers.to(out.dtype).index_select(-1, self.source)
        out.index_add_(-1, self.target, sent.expand(*lead, sent.shape[-1]))
        return out

    def largest(self, integers: Tensor) -> Tensor:
        sent = integers.index_select(-1, self.source)
        out = torch.zeros_like(integers)
        return out.scatter_reduce(-1, self.target.expand(sent.shape), sent, "amax", include_self=False)

    def share(self, reduce: str, weight: Tensor | None = None) -> Tensor:
        degree = self.degree.float()
        if reduce == "sum":
            share = torch.ones_like(degree)
        else:
            share = torch.where(degree > 0, 1.0 / degree.clamp(min=1.0), 0.0)
        return share if weight is None else share * weight

    def field(self, values: Tensor, share: Tensor | None = None) -> Field:
        return Field.on(values, None, share)
