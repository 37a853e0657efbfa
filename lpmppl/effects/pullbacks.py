"""What an adjoint of agents' hazards comes to on all that the hazards were made of: totals, shares, factors."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lpmppl.effects.fields import Choice, Field, Leaf, Shape, row_of
from lpmppl.effects.internals.segments import (
    blocked,
    by_blocks,
    differentiated,
    pick,
    positions,
    scaled,
    send_back,
    take,
)

__all__ = ["Bits", "Found", "Met", "Path", "Sink", "inputs_of"]

Path = tuple[str | int, ...]
"""Where in a field something stands."""

_FULL, _DENSE = 0.9, 1 / 32
"""The share of values other than zero from which all are kept, and from which their places are kept a bit for each
value rather than an integer for each place."""


def inputs_of(field: Field, path: Path) -> Iterator[tuple[Path, Tensor]]:
    """What in a field carries a derivative, with where it stands."""
    for k, leaf in enumerate(field.leaves):
        if isinstance(leaf, Field):
            yield from inputs_of(leaf, (*path, k))
            continue
        for name in ("base", "share", "scale"):
            x = getattr(leaf, name)
            if isinstance(x, Tensor) and differentiated(x):
                yield (*path, k, name), x
    for k, factor in enumerate(field.factors):
        if isinstance(factor, Field):
            yield from inputs_of(factor, (*path, "factor", k))
        elif isinstance(factor, Choice):
            for name in ("yes", "no"):
                x = getattr(factor, name)
                if isinstance(x, Tensor) and differentiated(x):
                    yield (*path, "factor", k, name), x
        elif differentiated(factor):
            yield (*path, "factor", k), factor


@dataclass(frozen=True)
class Bits:
    """A mask over agents, on the CPU a bit each."""

    kept: Tensor
    shape: Shape

    @classmethod
    def of(cls, mask: Tensor) -> Bits:
        if mask.device.type != "cpu":
            return cls(mask, tuple(mask.shape))
        rows, n = mask.contiguous().view(torch.uint8).reshape(-1, mask.shape[-1]).numpy(), mask.shape[-1]
        packed = np.empty((len(rows), -(-n // 8)), np.uint8)

        def pack(agents: slice) -> None:
            packed[:, agents.start // 8 : -(-agents.stop // 8)] = np.packbits(rows[:, agents], axis=-1)

        blocked(n, lambda: pack)
        return cls(torch.from_numpy(packed).reshape(*mask.shape[:-1], -1), tuple(mask.shape))

    def at(self, lead: Shape, row: Shape) -> Bits:
        return Bits(self.kept[row_of(lead, self.kept, row)], self.shape[-1:])

    def read(self, agents: slice) -> Tensor:
        """Say it of a block that begins at a whole byte, in zeros and ones."""
        if self.kept.device.type != "cpu":
            return self.kept[agents]
        part = self.kept[agents.start // 8 : -(-agents.stop // 8)].numpy()
        return torch.from_numpy(np.unpackbits(part, count=agents.stop - agents.start))


@dataclass(frozen=True)
class _Few:
    """Values on groups, kept without the zeros where most of them are."""

    values: Tensor
    where: Tensor | Bits | None
    shape: torch.Size

    @classmethod
    def of(cls, x: Tensor) -> _Few:
        flat = x.reshape(-1)
        there = by_blocks(flat.shape[0], lambda some: flat[some] != 0)
        where = positions(there)
        if where.shape[0] > _FULL * x.numel():
            return cls(x, None, x.shape)
        values = take(flat, where)
        if where.shape[0] > _DENSE * x.numel():
            return cls(values, Bits.of(there), x.shape)
        return cls(values, where.int() if x.numel() < 2**31 else where, x.shape)

    def _places(self) -> Tensor | None:
        """Where the values stand; None for all."""
        if isinstance(self.where, Bits):
            return positions(self.where.read(slice(0, self.shape.numel())).bool())
        return self.where

    def whole(self, lead: Shape, row: Shape) -> Tensor:
        """All of them, in one row of the leading dimensions, float32."""
        x, where = self.values, self._places()
        if where is not None:
            x = x.new_zeros(self.shape.numel()).index_put_((where.long(),), x).reshape(self.shape)
        return x[row_of(lead, x, row)].float()

    def dot(self, lead: Shape, row: Shape, x: Tensor) -> Tensor:
        """The product of them, in one row of the leading dimensions, with weights of shape (G,)."""
        where = None if len(self.shape) > 1 else self._places()
        if where is None:
            return torch.dot(self.whole(lead, row).to(x.dtype), x)
        return torch.dot(self.values.to(x.dtype), take(x, where))


Sink = dict[Path, Tensor]


@dataclass(frozen=True)
class _OnGroups:
    """A leaf of a field as a step has met it: values on groups, times a share of each and a number."""

    path: Path
    wanted: Collection[str]
    groups: int
    index: Tensor | None
    share: Tensor | None
    scale: Tensor | float
    base: _Few | None
    read_back: bool
    """Whether agents' values are needed, to derive by factors of them."""
    values: Tensor | None = None

    @classmethod
    def of(cls, leaf: Leaf, path: Path, wanted: Collection[Path], read_back: bool) -> _OnGroups:
        mine = {str(w[-1]) for w in wanted if w[:-1] == path}
        base = _Few.of(leaf.base) if read_back or mine - {"base"} else None
        return cls(path, mine, leaf.base.shape[-1], leaf.index, leaf.share, leaf.scale, base, read_back)

    def at(self, lead: Shape, row: Shape) -> _OnGroups:
        scale = float(self.scale[row_of(lead, self.scale, row)]) if isinstance(self.scale, Tensor) else self.scale
        values = None
        if self.read_back and self.base is not None:
            values = scaled(self.base.whole(lead, row), self.share, scale)
        return replace(self, scale=scale, values=values)

    def read(self, agents: slice) -> Tensor:
        assert self.values is not None
        return self.values[agents] if self.index is None else pick(self.values, self.index[agents])

    def pull(self, adjoint: Tensor, agents: slice, sink: Sink) -> None:
        if self.wanted:
            into = _room(sink, self.path, self.groups, adjoint)
            if self.index is None:
                into[agents] += adjoint
            else:
                send_back(into, self.index[agents], adjoint)

    def collect(self, sinks: Sequence[Sink], lead: Shape, row: Shape, found: Found) -> None:
        came = _together(sinks, self.path)
        if came is not None:
            self.give(came, lead, row, found)

    def give(self, came: Tensor, lead: Shape, row: Shape, found: Found) -> None:
        """Take what agents' adjoints come to on its groups, shape (G,), to what it is made of."""
        share, scale = self.share, float(self.scale)
        if "share" in self.wanted and self.base is not None:
            found.add((*self.path, "share"), lead, row, came * self.base.whole(lead, row) * scale)
        if share is None:
            weighed = came.clone()
        else:
            weighed = by_blocks(self.groups, lambda some: came[some] * share[some])
        if "scale" in self.wanted and self.base is not None:
            found.add((*self.path, "scale"), lead, row, self.base.dot(lead, row, weighed))
        if "base" in self.wanted:
            found.add((*self.path, "base"), lead, row, _times(weighed, scale))


@dataclass(frozen=True)
class _Factor:
    """A factor of a field: a value of each agent, or one of two by a mask."""

    path: Path
    wanted: Collection[str]
    value: Tensor | Bits
    yes: Tensor | float = 1.0
    no: Tensor | float = 0.0

    @classmethod
    def of(cls, factor: Tensor | Choice, path: Path, wanted: Collection[Path]) -> _Factor:
        if isinstance(factor, Choice):
            mine = {str(w[-1]) for w in wanted if w[:-1] == path}
            return cls(path, mine, Bits.of(factor.mask), factor.yes, factor.no)
        return cls(path, {"value"} if path in wanted else (), factor)

    def at(self, lead: Shape, row: Shape) -> _Factor:
        if isinstance(self.value, Tensor):
            return replace(self, value=self.value[row_of(lead, self.value, row)])
        yes, no = (float(x[row_of(lead, x, row)]) if isinstance(x, Tensor) else x for x in (self.yes, self.no))
        return replace(self, value=self.value.at(lead, row), yes=yes, no=no)

    def read(self, agents: slice) -> Tensor:
        if isinstance(self.value, Tensor):
            return self.value[agents]
        return self.value.read(agents).float() * (self.yes - self.no) + self.no

    def pull(self, adjoint: Tensor, agents: slice, sink: Sink) -> None:
        if isinstance(self.value, Tensor):
            if self.wanted:
                _room(sink, self.path, self.value.shape[-1], adjoint)[agents] += adjoint
            return
        if self.wanted:
            yes = torch.dot(adjoint, self.value.read(agents).float())
            for name, part in (("yes", yes), ("no", adjoint.sum() - yes)):
                if name in self.wanted:
                    _room(sink, (*self.path, name), 1, adjoint)[0] += part

    def collect(self, sinks: Sequence[Sink], lead: Shape, row: Shape, found: Found) -> None:
        for path in (self.path, (*self.path, "yes"), (*self.path, "no")):
            if (came := _together(sinks, path)) is not None:
                found.add(path, lead, row, came)


@dataclass(frozen=True)
class Met:
    """A field as a step has met it: a sum times a product."""

    leaves: tuple[_OnGroups | Met, ...]
    factors: tuple[_Factor | Met, ...]
    by_agent: bool
    """Whether a factor's derivative is wanted, or that of something in it."""

    @classmethod
    def of(cls, field: Field, path: Path, wanted: Collection[Path], whole: bool = False) -> Met:
        by_agent = any(w[: len(path) + 1] == (*path, "factor") for w in wanted)
        whole = whole or by_agent
        leaves = tuple(
            cls.of(x, (*path, k), wanted, whole) if isinstance(x, Field) else _OnGroups.of(x, (*path, k), wanted, whole)
            for k, x in enumerate(field.leaves)
        )
        factors = tuple(
            cls.of(f, (*path, "factor", k), wanted, True)
            if isinstance(f, Field)
            else _Factor.of(f, (*path, "factor", k), wanted)
            for k, f in enumerate(field.factors)
        )
        return cls(leaves, factors, by_agent)

    @property
    def flat(self) -> bool:
        """Whether it is a sum on groups, times factors that are no fields."""
        return not any(isinstance(part, Met) for part in (*self.leaves, *self.factors))

    @property
    def plain_leaves(self) -> list[_OnGroups]:
        return [leaf for leaf in self.leaves if isinstance(leaf, _OnGroups)]

    @property
    def plain_factors(self) -> list[_Factor]:
        return [factor for factor in self.factors if isinstance(factor, _Factor)]

    def at(self, lead: Shape, row: Shape) -> Met:
        """The same in one row of the leading dimensions."""
        leaves = tuple(leaf.at(lead, row) for leaf in self.leaves)
        return replace(self, leaves=leaves, factors=tuple(f.at(lead, row) for f in self.factors))

    def read(self, agents: slice) -> Tensor:
        return math.prod((f.read(agents) for f in self.factors), start=self._sum(agents))

    def _sum(self, agents: slice) -> Tensor:
        first, *rest = (leaf.read(agents) for leaf in self.leaves)
        return sum(rest, start=first)

    def pull(self, adjoint: Tensor, agents: slice, sink: Sink) -> None:
        """Take the adjoint of some agents' values of it, float32, to what it is made of."""
        factors = [f.read(agents) for f in self.factors]
        if self.by_agent:
            weighed = adjoint * self._sum(agents)
            for k, factor in enumerate(self.factors):
                others = (f for j, f in enumerate(factors) if j != k)
                factor.pull(math.prod(others, start=weighed), agents, sink)
        below = math.prod(factors, start=adjoint)
        for leaf in self.leaves:
            leaf.pull(below, agents, sink)

    def collect(self, sinks: Sequence[Sink], lead: Shape, row: Shape, found: Found) -> None:
        """Add what has come together in all threads to the adjoints of the inputs."""
        for part in (*self.leaves, *self.factors):
            part.collect(sinks, lead, row, found)


class Found:
    """Adjoints of a step's inputs, float64, each of its shape."""

    def __init__(self, shapes: Mapping[Path, torch.Size], device: torch.device) -> None:
        self.shapes, self.device = shapes, device
        self.of: dict[Path, Tensor] = {}

    def __getitem__(self, path: Path) -> Tensor:
        if path not in self.of:
            self.of[path] = torch.zeros(self.shapes[path], dtype=torch.float64, device=self.device)
        return self.of[path]

    def add(self, path: Path, lead: Shape, row: Shape, x: Tensor) -> None:
        """Add what one row of the leading dimensions comes to."""
        if path not in self.of and x.numel() == self.shapes[path].numel():
            self.of[path] = x.reshape(self.shapes[path])
            return
        into = self[path]
        if not into.dim():
            into += x.reshape(())
        else:
            into[row_of(lead, into, row)] += x.reshape(into.shape[-1:])


def _times(x: Tensor, factor: float) -> Tensor:
    """A flat tensor of one's own times a number, in place."""
    if factor != 1.0:

        def part(block: slice) -> None:
            x[block].mul_(factor)

        blocked(x.shape[0], lambda: part, device=x.device)
    return x


def _together(sinks: Sequence[Sink], path: Path) -> Tensor | None:
    parts = [sink[path] for sink in sinks if path in sink]
    for other in parts[1:]:
        parts[0] += other
    return parts[0] if parts else None


def _room(sink: Sink, path: Path, size: int, like: Tensor) -> Tensor:
    if path not in sink:
        sink[path] = torch.zeros(size, dtype=torch.float64, device=like.device)
    return sink[path]
