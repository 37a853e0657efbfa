"""Few agents at a time: cohorts to whom something happens, and values that are zero for everyone else."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lpmppl.effects.internals.segments import alike, broadcast, copy, differentiated, empty, known, positions, put, take
from lpmppl.effects.internals.successors import changed, changed_in_place
from lpmppl.effects.plates import AgentPlate
from lpmppl.effects.relaxed import Relaxed
from lpmppl.effects.tape import Taped, noted_left, on_tape, timing, written
from lpmppl.errors import InputError

__all__ = ["Cohort", "Lazy", "Sparse", "at", "dense"]


def at(x: Tensor, shape: torch.Size, where: Tensor) -> Tensor:
    """Read `x`, broadcast to `shape`, at flat positions, without materialising the broadcast."""
    if isinstance(x, Taped):
        if x.shape == shape or (x.dim() == 1 and x.shape[0] == shape[-1]):
            place = where if x.shape == shape else where % shape[-1]
            return x.at(place, take(x.plain, place) if x.dim() == 1 else at(x.plain, shape, where))
        return at(x.whole(), shape, where)
    if x.numel() == 1:
        return x.reshape(1).to(where.device).expand(where.shape[0])
    if x.shape == shape and x.is_contiguous():
        return take(x.view(-1), where)
    # What is the same in all worlds so far is read in one of them.
    while x.dim() > 1 and (x.shape[0] == 1 or alike(x)):
        x = x[0]
    if x.dim() == 1 and x.shape[0] == shape[-1]:
        return take(x, where if len(shape) == 1 else where % shape[-1])
    return x.expand(shape)[torch.unravel_index(where, shape)]


class Lazy(ABC):
    """What reads as a per-agent tensor, and becomes one for any torch function, method or operator that asks for it."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The per-agent tensor, shape (…, N)."""

    @property
    @abstractmethod
    def shape(self) -> torch.Size: ...

    @abstractmethod
    def read(self, cohort: Cohort) -> Tensor:
        """The values at the members of a cohort, shape (k,)."""

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        plain = [[dense(b) for b in a] if isinstance(a, list | tuple) else dense(a) for a in args]
        return func(*plain, **{k: dense(v) for k, v in (kwargs or {}).items()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Tensor, name):
            raise AttributeError(f"neither {type(self).__name__} nor a tensor has '{name}'")
        return getattr(self.dense(), name)

    def __bool__(self) -> bool:
        return bool(self.dense())

    def __len__(self) -> int:
        return self.shape[0]

    __hash__ = object.__hash__


def _operator(name: str) -> Callable[..., Any]:
    def apply(self: Lazy, *others: Any) -> Any:
        return getattr(operator, name)(self.dense(), *(dense(o) for o in others))

    return apply


def _reflected(name: str) -> Callable[..., Any]:
    def apply(self: Lazy, other: Any) -> Any:
        return getattr(operator, name)(dense(other), self.dense())

    return apply


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Lazy, f"__{_name}__", _operator(_name))
    setattr(Lazy, f"__r{_name}__", _reflected(_name))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "abs", "and_", "or_", "invert", "getitem"):
    setattr(Lazy, f"__{_name.rstrip('_')}__", _operator(_name))


def dense(x: Any) -> Any:
    """Turn a field or a sparse value into its per-agent tensor; leave anything else as it is."""
    return x.dense() if isinstance(x, Lazy) else x


@dataclass(frozen=True, eq=False)
class Cohort:
    """The agents to whom something happens in one step, in every world and draw at once.

    Args:
        where: flat positions in `shape`, int64 of shape (k,).
        shape: the shape (…, N) of the mask they were found in, agents last.
        ids: global ids of the population's agents, shape (N,), where sites are to be sampled for the members.
        left: how much of the step is left after each member's event, shape (k,), where its derivative is asked for.
    """

    where: Tensor
    shape: torch.Size
    ids: Tensor | None = None
    left: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, ids: Tensor | None = None, above: float | None = None, below: float | None = None) -> Cohort:
        """Gather the agents at whom a mask of shape (…, N) is true, or whose value is above or below a level, or both.

        Raises:
            InputError: where the mask isn't Boolean, or not over the agents that the ids name.
        """
        if isinstance(x, Relaxed):
            raise InputError(
                f"site '{x.site}': its events are gathered into a cohort, through which a relaxation has no "
                "derivative; ask for estimator='differences', 'pathwise' or 'flips'"
            )
        mask = above is None and below is None
        if (mask and x.dtype != torch.bool) or (ids is not None and x.shape[-1] != ids.shape[0]):
            agents = "the" if ids is None else f"the {ids.shape[0]}"
            raise InputError(
                f"a cohort needs a Boolean mask over {agents} agents on its last dimension, "
                f"but {x.dtype} of shape {tuple(x.shape)} was given"
            )
        found = cls(positions(x, above, below), x.shape, ids)
        left = noted_left(x) if mask else None
        return found if left is None else replace(found, left=found.read(left))

    @classmethod
    def due(cls, clock: Tensor, t: Tensor | float, dt: Tensor | float = 1.0, ids: Tensor | None = None) -> Cohort:
        """Gather the agents whose clock, shape (…, N), runs out before `t + dt`."""
        end = float(t) + float(dt)
        found = cls.of(clock.plain if isinstance(clock, Taped) else clock, ids, below=end)
        if not (isinstance(clock, Taped) or (timing() and differentiated(clock))):
            return found
        return replace(found, left=((end - found.read(clock)) / float(dt)).clamp(0.0, 1.0))

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
        return Cohort(self.where[keep], self.shape, self.ids, None if self.left is None else self.left[keep])

    def read(self, x: Tensor | Lazy) -> Tensor:
        """Read a per-agent value, broadcastable to the cohort's shape, at its members: shape (k,)."""
        if isinstance(x, Lazy):
            return x.read(self)
        if not isinstance(x, Taped) and x.numel() > 1 and x.shape == (*self.shape[:-1], 1):
            return take(x.reshape(-1), self.row)  # a number for each world or draw
        return at(x, self.shape, self.where)

    def write(self, x: Tensor, value: Tensor | float) -> Tensor:
        """Give `x` with `value` (a scalar or shape (k,)) at the members, as a tensor of its own."""
        lead = broadcast(x.shape[:-1], self.shape[:-1])
        cohort = self.expand(lead)
        if cohort is not self and isinstance(value, Tensor) and value.dim():
            value = at(Sparse(self, value).dense(), cohort.shape, cohort.where)
        new = torch.as_tensor(value, dtype=x.dtype, device=x.device)
        if x.shape == cohort.shape and on_tape(x, new):
            return written(x, cohort.where, new, cohort._afresh)
        if differentiated(new) or differentiated(x):
            flat = x.expand(cohort.shape).reshape(-1)
            return flat.index_put((cohort.where,), new).reshape(cohort.shape)
        if x.shape != cohort.shape:
            x = copy(x, cohort.shape)
            put(x.view(-1), cohort.where, new)
            return x
        return cohort._afresh(x, new)

    def mask(self) -> Tensor:
        """Say of every agent whether it is a member: Boolean of the cohort's shape."""
        out = empty(self.shape, torch.bool, self.where.device).zero_()
        put(out.view(-1), self.where, torch.ones((), dtype=torch.bool, device=out.device))
        known(out, self.where)
        return out

    def overwrite(self, x: Tensor, value: Tensor | float) -> Tensor:
        """Like `write`, for a tensor that is the caller's own: it is changed in place where that can be."""
        new = torch.as_tensor(value, dtype=x.dtype, device=x.device)
        if isinstance(x, Taped) and x.shape == self.shape and x.is_contiguous():
            return written(x, self.where, new, self._in_place)
        if x.shape != self.shape or not x.is_contiguous() or differentiated(x) or differentiated(new):
            return self.write(x, value)
        return self._in_place(x, new)

    def _afresh(self, x: Tensor, new: Tensor) -> Tensor:
        return changed(x, self.where, lambda flat: put(flat, self.where, new))

    def _in_place(self, x: Tensor, new: Tensor) -> Tensor:
        changed_in_place(x, self.where, lambda flat: put(flat, self.where, new))
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
        return AgentPlate("cohort", take(self.ids, self.agent), episode, self.read)


@dataclass(frozen=True, eq=False)
class Sparse(Lazy):
    """A per-agent value that is zero except at a cohort's members; any torch function sees the dense tensor."""

    cohort: Cohort
    value: Tensor

    @cached_property
    def integers(self) -> dict[object, Sparse]:
        """The value in the integers of networks that it was sent over, by their fixed point."""
        return {}

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
            return at(self.dense(), cohort.shape, asked)
        if torch.equal(mine, asked) or not mine.shape[0]:
            return self.value if mine.shape[0] else self.value.new_zeros(asked.shape)
        place = torch.searchsorted(mine, asked).clamp(max=mine.shape[0] - 1)
        return torch.where(mine[place] == asked, self.value[place], torch.zeros_like(self.value[:1]))

    def dense(self) -> Tensor:
        """Spread the values over all agents: shape (…, N)."""
        out = self.value.new_zeros(self.shape.numel())
        return out.index_put((self.cohort.where,), self.value).reshape(self.shape)
