"""What reaches agents: cohorts to whom something happens, and fields of values that stay on their groups."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lpmppl.effects.internals.segments import BLOCK, blocked, broadcast, copy, empty, positions, put, scaled, take
from lpmppl.effects.plates import AgentPlate
from lpmppl.errors import InputError

__all__ = ["Cohort", "Field", "Network", "Sparse", "accumulate", "dense", "shape_of"]

Shape = tuple[int, ...]


def _at(x: Tensor, shape: torch.Size, where: Tensor) -> Tensor:
    """Read `x`, broadcast to `shape`, at flat positions, without materialising the broadcast."""
    if x.numel() == 1:
        return x.reshape(1).expand(where.shape[0])
    if x.shape == shape:
        return take(x.reshape(-1), where)
    if x.numel() == shape[-1] and x.shape[-1] == shape[-1]:
        return take(x.reshape(-1), where if len(shape) == 1 else where % shape[-1])
    return x.expand(shape)[torch.unravel_index(where, shape)]


@dataclass(frozen=True, eq=False)
class Cohort:
    """The agents to whom something happens in one step, in every world and draw at once.

    Args:
        where: flat positions in `shape`, int64 of shape (k,).
        shape: the shape (…, N) of the mask they were found in, agents last.
        ids: global ids of the population's agents, shape (N,), where sites are to be sampled for the members.
    """

    where: Tensor
    shape: torch.Size
    ids: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, ids: Tensor | None = None, holds: Callable[[Tensor], Tensor] | None = None) -> Cohort:
        """Gather the agents at whom a Boolean mask of shape (…, N) is true, or at whom a predicate holds of `x`.

        Raises:
            InputError: where the mask isn't Boolean, or not over the agents that the ids name.
        """
        if (holds is None and x.dtype != torch.bool) or (ids is not None and x.shape[-1] != ids.shape[0]):
            agents = "the" if ids is None else f"the {ids.shape[0]}"
            raise InputError(
                f"a cohort needs a Boolean mask over {agents} agents on its last dimension, "
                f"but {x.dtype} of shape {tuple(x.shape)} was given"
            )
        return cls(positions(x, holds), x.shape, ids)

    def __len__(self) -> int:
        return self.where.shape[0]

    @cached_property
    def agent(self) -> Tensor:
        """The index of each member among the agents, shape (k,)."""
        return self.where if len(self.shape) == 1 else self.where % self.shape[-1]

    @cached_property
    def row(self) -> Tensor:
        """The flat index of each member's world and draw, shape (k,)."""
        return self.where // self.shape[-1]

    def group(self, index: Tensor) -> Tensor:
        """The members' groups of a membership of shape (N,), read once however often they are asked for: shape (k,)."""
        if id(index) not in self._groups:
            self._groups[id(index)] = index, take(index, self.agent)
        return self._groups[id(index)][1]

    @cached_property
    def _groups(self) -> dict[int, tuple[Tensor, Tensor]]:
        return {}

    def expand(self, lead: Sequence[int]) -> Cohort:
        """Repeat the members for every entry of the leading dimensions `lead` that the cohort doesn't have yet."""
        shape = torch.Size((*lead, self.shape[-1]))
        if shape == self.shape:
            return self
        source = torch.arange(self.shape[:-1].numel(), device=self.where.device)
        source = source.reshape(self.shape[:-1] or (1,)).expand(lead or (1,)).reshape(-1)
        parts = [self.agent[self.row == old] + new * shape[-1] for new, old in enumerate(source.tolist())]
        return Cohort(torch.cat(parts), shape, self.ids)

    def select(self, keep: Tensor) -> Cohort:
        """Keep some members: a Boolean of shape (k,), or their increasing positions among the members."""
        return Cohort(self.where[keep], self.shape, self.ids)

    def read(self, x: Tensor | Sparse | Field) -> Tensor:
        """Read a per-agent value, broadcastable to the cohort's shape, at its members: shape (k,)."""
        if isinstance(x, Sparse):
            return x.read(self)
        if isinstance(x, Field):
            return x.read(self)
        return _at(x, self.shape, self.where)

    def write(self, x: Tensor, value: Tensor | float) -> Tensor:
        """Give `x` with `value` (a scalar or shape (k,)) at the members, as a tensor of its own."""
        lead = broadcast(x.shape[:-1], self.shape[:-1])
        cohort = self.expand(lead)
        if cohort is not self and isinstance(value, Tensor) and value.dim():
            value = _at(Sparse(self, value).dense(), cohort.shape, cohort.where)
        new = torch.as_tensor(value, dtype=x.dtype, device=x.device)
        if new.requires_grad or x.requires_grad:
            flat = x.expand(cohort.shape).reshape(-1)
            return flat.index_put((cohort.where,), new).reshape(cohort.shape)
        out = copy(x, cohort.shape)
        put(out.view(-1), cohort.where, new)
        return out

    def overwrite(self, x: Tensor, value: Tensor | float) -> Tensor:
        """Like `write`, for a tensor that is the caller's own: it is changed in place where that can be."""
        new = torch.as_tensor(value, dtype=x.dtype, device=x.device)
        if x.shape != self.shape or not x.is_contiguous() or x.requires_grad or new.requires_grad:
            return self.write(x, value)
        put(x.view(-1), self.where, new)
        return x

    def carrying(self, value: Tensor | float) -> Sparse:
        """Make the per-agent value that is `value` (a scalar or shape (k,)) at the members and zero elsewhere."""
        v = torch.as_tensor(value, device=self.where.device)
        return Sparse(self, v.expand(len(self)) if v.dim() == 0 else v)

    def plate(self, *, episode: Tensor | int | None = None) -> AgentPlate:
        """Open the members' plate: sites in it have shape (k,).

        With `episode` a member's chance belongs to that episode of its life, whatever day it is drawn on and in
        whatever world; without, to the step.
        """
        if self.ids is None:
            raise InputError(
                "this cohort doesn't know its agents' ids, so it has no plate; make it with population.cohort(mask)"
            )
        return AgentPlate("cohort", take(self.ids, self.agent), episode)


@dataclass(frozen=True, eq=False)
class Sparse:
    """A per-agent value that is zero except at a cohort's members; any torch function sees the dense tensor."""

    cohort: Cohort
    value: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.cohort.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.value.dtype

    def read(self, cohort: Cohort) -> Tensor:
        """The value at the members of another cohort, zero where they are no members of this one: shape (k,)."""
        mine, asked = self.cohort.where, cohort.where
        if self.shape != cohort.shape:
            return _at(self.dense(), cohort.shape, asked)
        if torch.equal(mine, asked) or not mine.shape[0]:
            return self.value if mine.shape[0] else self.value.new_zeros(asked.shape)
        place = torch.searchsorted(mine, asked).clamp(max=mine.shape[0] - 1)
        return torch.where(mine[place] == asked, self.value[place], torch.zeros_like(self.value[:1]))

    def dense(self) -> Tensor:
        """Spread the values over all agents: shape (…, N)."""
        out = self.value.new_zeros(self.shape.numel())
        return out.index_put((self.cohort.where,), self.value).reshape(self.shape)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _densely(func, args, kwargs)


@runtime_checkable
class Network(Protocol):
    """Who reaches whom, behind `aggregate`: group membership or an edge list.

    `quantum` is the fixed-point unit of a message, `bound` the largest absolute message, `reach` the most messages one
    sum can hold: from these follows the width of the integers.
    """

    @property
    def name(self) -> str: ...

    @property
    def agents(self) -> int: ...

    @property
    def quantum(self) -> float: ...

    @property
    def bound(self) -> float: ...

    @property
    def reach(self) -> int: ...

    def total(self, integers: Tensor | Sparse, onto: Tensor | None = None) -> Tensor:
        """Add integer messages of shape (…, N) up, onto a running total where one is given."""
        ...

    def largest(self, integers: Tensor) -> Tensor:
        """Give the largest of the integer messages that reach each place."""
        ...

    def share(self, reduce: str) -> Tensor:
        """Give the factor of each place that makes the reduction of a sum, in units of messages."""
        ...

    def field(self, values: Tensor, share: Tensor | None = None) -> Field:
        """Turn values on the network's places, times a share of each, into a field that agents can read."""
        ...


@dataclass(frozen=True, eq=False)
class _Leaf:
    """Values on groups with the membership that reads them back, or per-agent values without one, times a scalar.

    Where a share is given, the values are the base times it, which is left undone until someone reads them.
    """

    base: Tensor
    index: Tensor | None
    share: Tensor | None = None
    scale: Tensor | float = 1.0

    @property
    def shape(self) -> Shape:
        lead = broadcast(self.base.shape[:-1], shape_of(self.scale)[:-1])
        return (*lead, self.base.shape[-1] if self.index is None else self.index.shape[0])

    @property
    def values(self) -> Tensor:
        """The values on the groups, before the scalar: shape (…, G)."""
        return self.base if self.share is None else self.base * self.share

    def scaled(self, factor: Tensor | float) -> _Leaf:
        return replace(self, scale=self.scale * factor)

    def agents(self) -> Tensor:
        values = self.values if self.index is None else self.values.index_select(-1, self.index)
        return values if isinstance(self.scale, float) and self.scale == 1.0 else values * self.scale

    def read(self, cohort: Cohort) -> Tensor:
        scale = cohort.read(self.scale) if isinstance(self.scale, Tensor) else self.scale
        if self.index is None:
            return cohort.read(self.values) * scale
        group = cohort.group(self.index).long()
        shape = torch.Size((*cohort.shape[:-1], self.base.shape[-1]))
        values = _at(self.base, shape, group + cohort.row * shape[-1])
        return (values if self.share is None else values * self.share[group]) * scale

    def at(self, lead: Shape, row: Shape) -> _Leaf:
        """The leaf in one row of the leading dimensions, its values worked out and its scalar a number."""
        scale = self.scale
        if isinstance(scale, Tensor):
            scale = float(scale[row_of(lead, scale, row)] if scale.dim() else scale)
        base = self.base[row_of(lead, self.base, row)]
        return _Leaf(base if self.share is None else scaled(base, self.share), self.index, None, scale)

    def block(self, agents: slice, out: Tensor) -> Tensor:
        """The values before the scalar, of some agents; `out` is for working in."""
        return (
            self.base[agents] if self.index is None else torch.index_select(self.base, 0, self.index[agents], out=out)
        )


@dataclass(frozen=True, eq=False)
class Field:
    """What reaches each agent, kept on the groups it comes from until someone asks for the per-agent tensor.

    A field is a sum of leaves on groups times a product of per-agent factors. It reads as a tensor of shape (…, N):
    any torch function, and arithmetic with anything but scalars, per-agent factors and fields, makes it one.
    """

    leaves: tuple[_Leaf, ...]
    factors: tuple[Tensor, ...] = ()
    total: Tensor | None = None
    """The integer total behind a field that `aggregate` made: what a running total in the state goes on from."""

    @classmethod
    def on(cls, values: Tensor, index: Tensor | None = None, share: Tensor | None = None) -> Field:
        """Make a field of values on groups.

        Args:
            values: shape (…, G), or per-agent values of shape (…, N) where there is no index.
            index: the group of each agent, shape (N,).
            share: a factor of each group, shape (G,), applied when the field is read.
        """
        return cls((_Leaf(values, index, share),))

    @property
    def shape(self) -> torch.Size:
        return broadcast(*(leaf.shape for leaf in self.leaves), *(f.shape for f in self.factors))

    @property
    def needs_gradient(self) -> bool:
        parts = (
            *(leaf.base for leaf in self.leaves),
            *(leaf.scale for leaf in self.leaves if isinstance(leaf.scale, Tensor)),
            *self.factors,
        )
        return any(p.requires_grad or torch.autograd.forward_ad.unpack_dual(p).tangent is not None for p in parts)

    def agents(self) -> Tensor:
        """Read the field back to agents: shape (…, N)."""
        first, *rest = self.leaves
        out = first.agents()
        for leaf in rest:
            out = out + leaf.agents()
        for factor in self.factors:
            out = out * factor
        return out

    def read(self, cohort: Cohort) -> Tensor:
        """Read the field at the members of a cohort: shape (k,)."""
        out = self.leaves[0].read(cohort)
        for leaf in self.leaves[1:]:
            out = out + leaf.read(cohort)
        for factor in self.factors:
            out = out * cohort.read(factor)
        return out

    def at(self, lead: Shape, row: Shape) -> Field:
        """The field in one row of the leading dimensions."""
        return Field(
            tuple(leaf.at(lead, row) for leaf in self.leaves), tuple(f[row_of(lead, f, row)] for f in self.factors)
        )

    def fill(self, agents: slice, out: Tensor, spare: Tensor) -> Tensor:
        """Evaluate some agents of a field without leading dimensions into `out`; `spare` is for working in."""
        first, *rest = self.leaves
        torch.mul(first.block(agents, out), first.scale, out=out)
        for leaf in rest:
            out.add_(leaf.block(agents, spare), alpha=leaf.scale)  # type: ignore[arg-type]
        for factor in self.factors:
            out.mul_(factor[agents])
        return out

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Field):
            if len(self.leaves) == 1 == len(other.leaves):
                return Field(self.leaves, (*self.factors, other.agents()))
            return self.agents() * other.agents()
        if isinstance(other, Sparse):
            return self.agents() * other.dense()
        if not isinstance(other, Tensor):
            return Field(tuple(leaf.scaled(other) for leaf in self.leaves), self.factors)
        if other.dim() == 0 or other.shape[-1] == 1:
            return Field(tuple(leaf.scaled(other) for leaf in self.leaves), self.factors)
        if other.shape[-1] == self.shape[-1]:
            return Field(self.leaves, (*self.factors, other))
        raise InputError(
            f"a field over {self.shape[-1]} agents can't be multiplied by a tensor of shape {tuple(other.shape)}; "
            "the last dimension must be 1 or the agents"
        )

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self * (1.0 / other)

    def __neg__(self) -> Any:
        return self * -1.0

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Field) and not self.factors and not other.factors:
            return Field(self.leaves + other.leaves)
        return self.agents() + dense(other)

    def __radd__(self, other: Any) -> Any:
        return self if isinstance(other, int | float) and other == 0 else dense(other) + self.agents()

    def __sub__(self, other: Any) -> Any:
        return self + (-other if isinstance(other, Field) else -dense(other))

    def __rsub__(self, other: Any) -> Any:
        return dense(other) - self.agents()

    def __lt__(self, other: Any) -> Tensor:
        return self.agents() < dense(other)

    def __le__(self, other: Any) -> Tensor:
        return self.agents() <= dense(other)

    def __gt__(self, other: Any) -> Tensor:
        return self.agents() > dense(other)

    def __ge__(self, other: Any) -> Tensor:
        return self.agents() >= dense(other)

    def __getitem__(self, index: Any) -> Tensor:
        return self.agents()[index]

    def with_total(self, total: Tensor) -> Field:
        return replace(self, total=total)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _densely(func, args, kwargs)


def dense(x: Any) -> Any:
    """Turn a field or a sparse value into its per-agent tensor; leave anything else as it is."""
    if isinstance(x, Field):
        return x.agents()
    return x.dense() if isinstance(x, Sparse) else x


def _densely(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] | None) -> Any:
    plain = [[dense(b) for b in a] if isinstance(a, list | tuple) else dense(a) for a in args]
    return func(*plain, **{k: dense(v) for k, v in (kwargs or {}).items()})


def shape_of(x: Tensor | Field | Sparse | float) -> torch.Size:
    """The shape of anything that reads as a tensor."""
    return torch.Size() if isinstance(x, int | float) else x.shape


Look = Callable[[slice, Tensor, Tensor], None]
"""Called for each block of a pass with the slice of agents, and their cumulative hazard before and after."""


def accumulate(
    before: Tensor,
    hazard: Tensor | Field | float,
    at_risk: Tensor,
    dt: Tensor | float,
    visit: Callable[[Shape], Look] | None = None,
) -> Tensor:
    """Add a step's hazard to the cumulative hazard of the agents at risk, in one blocked pass where it is a field.

    Args:
        before: cumulative hazard, shape (…, N).
        hazard: hazard per unit of time, a field, a number or a tensor broadcastable to (…, N).
        at_risk: Boolean, shape (…, N).
        dt: the length of the step, a number or a tensor whose last dimension is 1.
        visit: makes, for a row of the leading dimensions, what is to be done with each of its blocks while it is in
            cache.
    Returns:
        `before + at_risk · hazard · dt`, in the dtype of `before`, shape broadcast of all.
    """
    if not isinstance(hazard, Field):
        return before + (at_risk * (hazard * dt)).to(before.dtype)
    step: Field = hazard * dt
    shape = broadcast(before.shape, step.shape, at_risk.shape)
    lead, n = tuple(shape[:-1]), shape[-1]
    out = empty(shape, before.dtype, before.device)
    for row in rows(lead):
        was, risk = before[row_of(lead, before, row)], at_risk[row_of(lead, at_risk, row)]
        look = None if visit is None else visit(row)
        blocked(n, functools.partial(_pass, step.at(lead, row), was, risk, out[row], look), device=before.device)
    return out


def _pass(hazard: Field, before: Tensor, risk: Tensor, after: Tensor, look: Look | None) -> Callable[[slice], None]:
    longest = BLOCK if before.device.type == "cpu" else before.shape[-1]
    spare = torch.empty((2, longest), device=before.device)

    def do(block: slice) -> None:
        size = block.stop - block.start
        step = hazard.fill(block, spare[0, :size], spare[1, :size])
        step.mul_(risk[block])
        was, now = before[block], after[block]
        torch.add(was, step, out=now)
        if look is not None:
            look(block, was, now)

    return do


def row_of(lead: Shape, x: Tensor, row: Shape) -> Shape:
    """The leading index, into a tensor that broadcasts to `(*lead, N)`, of the row `row` of `lead`."""
    mine = tuple(x.shape[:-1])
    return tuple(r if m > 1 else 0 for m, r in zip(mine, row[len(lead) - len(mine) :], strict=True))


def rows(lead: Shape) -> list[Shape]:
    """Every index of the leading dimensions."""
    return list(itertools.product(*(range(n) for n in lead)))
