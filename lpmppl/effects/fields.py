"""What reaches agents: fields of values that stay on their groups until someone reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort, Lazy, Sparse, at, dense
from lpmppl.effects.internals.segments import broadcast, choose, differentiated, pick, reader, scaled
from lpmppl.errors import InputError

__all__ = ["Choice", "Field", "Leaf", "Network", "Rooms", "Shape", "row_of", "shape_of", "summed"]

Shape = tuple[int, ...]


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

    def share(self, reduce: str, weight: Tensor | None = None) -> Tensor:
        """Give the factor of each place that makes the reduction of a sum, in units of messages, times a weight."""
        ...

    def field(self, values: Tensor, share: Tensor | None = None) -> Field:
        """Turn values on the network's places, times a share of each, into a field that agents can read."""
        ...


@dataclass(frozen=True, eq=False)
class Leaf:
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

    def scaled(self, factor: Tensor | float) -> Leaf:
        return replace(self, scale=self.scale * factor)

    def dense(self) -> Tensor:
        values = self.values if self.index is None else pick(self.values, self.index)
        return values if isinstance(self.scale, float) and self.scale == 1.0 else values * self.scale

    def read(self, cohort: Cohort) -> Tensor:
        scale = cohort.read(self.scale) if isinstance(self.scale, Tensor) else self.scale
        if self.index is None:
            return cohort.read(self.values) * scale
        group = cohort.group(self.index).long()
        shape = torch.Size((*cohort.shape[:-1], self.base.shape[-1]))
        values = at(self.base, shape, group + cohort.row * shape[-1])
        return (values if self.share is None else values * self.share[group]) * scale

    def at(self, lead: Shape, row: Shape) -> Leaf:
        """The leaf in one row of the leading dimensions, with everything worked out on the groups.

        Agents then only add: a sum has the same bits wherever in a block an agent lies, unlike a fused multiply-add.
        """
        scale = _number(self.scale, lead, row)
        return Leaf(scaled(self.base[row_of(lead, self.base, row)], self.share, scale), self.index)

    @property
    def differentiated(self) -> bool:
        return any(isinstance(x, Tensor) and differentiated(x) for x in (self.base, self.share, self.scale))

    def detach(self) -> Leaf:
        share = None if self.share is None else self.share.detach()
        return replace(self, base=self.base.detach(), share=share, scale=_detached(self.scale))

    def precise(self) -> Leaf:
        """The leaf in float64."""
        share = None if self.share is None else self.share.double()
        scale = self.scale.double() if isinstance(self.scale, Tensor) else self.scale
        return Leaf(self.base.double(), self.index, share, scale)

    @property
    def scales(self) -> list[Tensor | float]:
        """The numbers that everything in it is multiplied by."""
        return [self.scale]

    @cached_property
    def _read(self) -> Callable[..., object]:
        assert self.index is not None
        return reader(self.base, self.index)

    def fill(self, agents: slice, out: Tensor, add: bool, _: Rooms) -> None:
        """Write the values of some agents into `out`, or add them to it, once they are worked out on the groups."""
        if self.index is not None:
            self._read(agents, out, add)
        elif add:
            out.add_(self.base[agents])
        else:
            out.copy_(self.base[agents])


@dataclass(frozen=True, eq=False)
class Choice(Lazy):
    """One of two numbers for each agent, by a mask, such as what reaches those who wear a mask and those who don't.

    It reads as `torch.where(mask, yes, no)`, and as a factor of a field costs no tensor over all agents.

    Args:
        mask: Boolean, shape (…, N).
        yes: the value where the mask is true, a number or a tensor whose last dimension is 1.
        no: the value elsewhere.
    Raises:
        InputError: where the mask isn't Boolean, or a value is one per agent.

    >>> Choice(torch.tensor([True, False]), 0.5, 1.0) * torch.tensor([2.0, 2.0])
    tensor([1., 2.])
    """

    mask: Tensor
    yes: Tensor | float
    no: Tensor | float

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool:
            raise InputError(f"a choice needs a Boolean mask, but {self.mask.dtype} was given")
        for value in (self.yes, self.no):
            if isinstance(value, Tensor) and value.dim() and value.shape[-1] != 1:
                raise InputError(
                    f"a choice is between two numbers, but one of shape {tuple(value.shape)} was given; "
                    "use torch.where for values of each agent"
                )

    @property
    def shape(self) -> torch.Size:
        return broadcast(self.mask.shape, shape_of(self.yes), shape_of(self.no))

    @property
    def differentiated(self) -> bool:
        return any(isinstance(x, Tensor) and differentiated(x) for x in (self.yes, self.no))

    def detach(self) -> Choice:
        """The same choice without a derivative."""
        return Choice(self.mask, _detached(self.yes), _detached(self.no))

    def dense(self) -> Tensor:
        dtype = torch.get_default_dtype()
        yes, no = (torch.as_tensor(x, dtype=dtype, device=self.mask.device) for x in (self.yes, self.no))
        return torch.where(self.mask, yes, no)

    def read(self, cohort: Cohort) -> Tensor:
        yes, no = (cohort.read(torch.as_tensor(x, dtype=torch.float32)) for x in (self.yes, self.no))
        return torch.where(cohort.read(self.mask), yes, no)

    def at(self, lead: Shape, row: Shape) -> Choice:
        """The choice in one row of the leading dimensions, between two plain numbers."""
        yes, no = (_number(x, lead, row) for x in (self.yes, self.no))
        return Choice(self.mask[row_of(lead, self.mask, row)], yes, no)

    def apply(self, agents: slice, out: Tensor) -> None:
        """Multiply some agents' values by it, in place."""
        choose(out, self.mask[agents], float(self.yes), float(self.no))


def _detached(x: Tensor | float) -> Tensor | float:
    return x.detach() if isinstance(x, Tensor) else x


def _number(x: Tensor | float, lead: Shape, row: Shape) -> float:
    if not isinstance(x, Tensor):
        return x
    return float(x[row_of(lead, x, row)] if x.dim() else x)


class Rooms:
    """Buffers for one thread's blocks, one for each depth at which sums lie within products."""

    def __init__(self, length: int, device: torch.device) -> None:
        self.length, self.device = length, device
        self.free: list[Tensor] = []

    @contextlib.contextmanager
    def room(self, size: int) -> Iterator[Tensor]:
        buffer = self.free.pop() if self.free else torch.empty(self.length, device=self.device)
        yield buffer[:size]
        self.free.append(buffer)


@dataclass(frozen=True, eq=False)
class Field(Lazy):
    """What reaches each agent, kept on the groups it comes from until someone asks for the per-agent tensor.

    A field is a sum, of leaves on groups and of other fields, times a product of factors, per agent or fields too. It
    reads as a tensor of shape (…, N): any torch function, and arithmetic with anything but scalars, per-agent factors
    and fields, makes it one.
    """

    leaves: tuple[Leaf | Field, ...]
    factors: tuple[Tensor | Choice | Field, ...] = ()
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
        return cls((Leaf(values, index, share),))

    @classmethod
    def even(cls, value: Tensor | float, agents: int) -> Field:
        """Make a field of a number for all agents, of shape (…, 1), or of values of each."""
        x = torch.as_tensor(value, dtype=torch.get_default_dtype())
        if x.dim() and x.shape[-1] == agents > 1:
            return cls.on(x)
        return cls.on(
            x.reshape(*(x.shape[:-1] or ()), 1), torch.zeros(1, dtype=torch.int16, device=x.device).expand(agents)
        )

    @property
    def shape(self) -> torch.Size:
        return broadcast(*(leaf.shape for leaf in self.leaves), *(f.shape for f in self.factors))

    @property
    def differentiated(self) -> bool:
        factors = (differentiated(f) if isinstance(f, Tensor) else f.differentiated for f in self.factors)
        return any(leaf.differentiated for leaf in self.leaves) or any(factors)

    @property
    def scales(self) -> list[Tensor | float]:
        """The numbers that everything in it is multiplied by."""
        parts = (*self.leaves, *(f for f in self.factors if isinstance(f, Field)))
        return [scale for part in parts for scale in part.scales]

    def detach(self) -> Field:
        """The same field without a derivative."""
        return Field(tuple(x.detach() for x in self.leaves), tuple(f.detach() for f in self.factors), self.total)

    def precise(self) -> Field:
        """The field in float64, so that sums of derivatives over many agents lose nothing."""
        factors = (
            f.double() if isinstance(f, Tensor) else f if isinstance(f, Choice) else f.precise() for f in self.factors
        )
        return Field(tuple(leaf.precise() for leaf in self.leaves), tuple(factors))

    def scaled(self, factor: Tensor | float) -> Field:
        """The field times one number for all agents."""
        return Field(tuple(leaf.scaled(factor) for leaf in self.leaves), self.factors)

    def dense(self) -> Tensor:
        """Read the field back to agents: shape (…, N)."""
        first, *rest = self.leaves
        out = first.dense()
        for leaf in rest:
            out = out + leaf.dense()
        for factor in self.factors:
            out = out * dense(factor)
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
        factors = (f[row_of(lead, f, row)] if isinstance(f, Tensor) else f.at(lead, row) for f in self.factors)
        return Field(tuple(leaf.at(lead, row) for leaf in self.leaves), tuple(factors))

    @property
    def flat(self) -> tuple[list[tuple[Tensor, Tensor | None]], list[Tensor]] | None:
        """Values and memberships, and factors, of a field of one row that has no other fields in it; else None."""
        leaves = [(leaf.base, leaf.index) for leaf in self.leaves if isinstance(leaf, Leaf)]
        factors = [f for f in self.factors if isinstance(f, Tensor)]
        return (leaves, factors) if len(leaves) + len(factors) == len(self.leaves) + len(self.factors) else None

    def fill(self, agents: slice, out: Tensor, add: bool, rooms: Rooms) -> None:
        """Write some agents' values of a field without leading dimensions into `out`, or add them to it."""
        if add and self.factors:
            with rooms.room(out.shape[0]) as inner:
                self.fill(agents, inner, False, rooms)
                out.add_(inner)
            return
        for k, leaf in enumerate(self.leaves):
            leaf.fill(agents, out, add or k > 0, rooms)
        for factor in self.factors:
            if isinstance(factor, Choice):
                factor.apply(agents, out)
            elif isinstance(factor, Field):
                with rooms.room(out.shape[0]) as inner:
                    factor.fill(agents, inner, False, rooms)
                    out.mul_(inner)
            else:
                out.mul_(factor[agents])

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Field):
            if other.shape[-1] == self.shape[-1]:
                return Field(self.leaves, (*self.factors, other))
        elif isinstance(other, Sparse):
            return self.dense() * other.dense()
        elif isinstance(other, Choice):
            if other.shape[-1] == self.shape[-1]:
                return Field(self.leaves, (*self.factors, other))
        elif not isinstance(other, Tensor):
            return self.scaled(other if isinstance(other, int | float) else torch.as_tensor(other))
        elif other.dim() == 0 or other.shape[-1] == 1:
            return self.scaled(other)
        elif other.shape[-1] == self.shape[-1]:
            return Field(self.leaves, (*self.factors, other))
        raise InputError(
            f"a field over {self.shape[-1]} agents can't be multiplied by a tensor of shape {tuple(other.shape)}; "
            "the last dimension must be 1 or the agents"
        )

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self * (1.0 / dense(other))

    def __neg__(self) -> Any:
        return self * -1.0

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Field):
            mine, theirs = (f.leaves if not f.factors else (f,) for f in (self, other))
            return Field(mine + theirs)
        return self.dense() + dense(other)

    def __radd__(self, other: Any) -> Any:
        return self if isinstance(other, int | float) and other == 0 else dense(other) + self.dense()

    def __sub__(self, other: Any) -> Any:
        return self + (-other if isinstance(other, Field) else -dense(other))

    def __rsub__(self, other: Any) -> Any:
        return dense(other) - self.dense()

    def with_total(self, total: Tensor) -> Field:
        return replace(self, total=total)


def summed(x: Tensor | Sparse, network: Network | None, onto: Tensor | None = None) -> Tensor:
    """Messages of shape (…, N) added up over a network, or the whole population, shape (…, G), onto a total if any."""
    if network is not None:
        return network.total(x, onto)
    if isinstance(x, Sparse):
        cohort = x.cohort
        total = x.value.new_zeros(cohort.shape[:-1].numel()).index_add_(0, cohort.row, x.value)
        total = total.reshape(*cohort.shape[:-1], 1)
    else:
        total = x.sum(-1, keepdim=True, dtype=x.dtype)
    return total if onto is None else onto + total


def shape_of(x: Tensor | Field | Sparse | float) -> torch.Size:
    """The shape of anything that reads as a tensor."""
    return torch.Size() if isinstance(x, int | float) else x.shape


def row_of(lead: Shape, x: Tensor, row: Shape) -> Shape:
    """The leading index, into a tensor that broadcasts to `(*lead, N)`, of the row `row` of `lead`."""
    mine = tuple(x.shape[:-1])
    return tuple(r if m > 1 else 0 for m, r in zip(mine, row[len(lead) - len(mine) :], strict=True))
