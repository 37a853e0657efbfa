"""The processes that share a population: what each knows of the others, in integers alone."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from zlib import crc32

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from lpmppl.effects.internals.messages import (
    FRAME,
    HEAD,
    MANY,
    Answer,
    Question,
    framed,
    heard,
    loads,
    loads_of,
    room_for,
    sizes_of,
)
from lpmppl.errors import InputError, LpmError

__all__ = ["FEW", "ROOM", "Ranks"]

FEW = 4096
"""So many groups all ranks have the totals of, wherever their members are: telling all is as cheap."""

ROOM = (FRAME - HEAD) // 8
"""Integers that go with any question: a message takes as long whether it has 8 bytes or a thousand."""

_BEFORE = 4
"""Messages by which it is foreseen how large the next one is; sums over the same strata often follow each other."""

_SHORT = 1 << 17
"""Bytes of all ranks' messages up to which telling all takes less time than a sum, which is told in two rounds."""

_WAYS = 31

_PATIENCE = 120.0


class Ranks:
    """The ranks of a process group of `torch.distributed`, one process each.

    Everything they tell each other is integers, whose sums don't depend on the order in which they arrive, so that all
    ranks have the same bits.

    Args:
        group: the process group; the whole world by default, which must have been begun.
        draws: on a mesh, the process group of those who have the same people as this one, and other draws.
    Attributes:
        rank: which one this is, from 0.
        count: how many there are.
        draws: on a mesh, those who have the same people and other draws; else None.
        sent: bytes that this rank has sent so far.
    Raises:
        LpmError: where there is no process group.

    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> Ranks().sum(torch.tensor([1, 2])).tolist()
    [1, 2]
    >>> dist.destroy_process_group()
    """

    def __init__(self, group: Any = None, draws: Any = None) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise LpmError(
                "there is no process group of torch.distributed: start with torchrun, or Ranks.begin() in each process"
            )
        self._group = group
        self.rank: int = dist.get_rank(group)
        self.count: int = dist.get_world_size(group)
        self.draws = None if draws is None else Ranks(draws)
        self.sent = 0
        self._last: tuple[int, ...] = (0,) * _BEFORE
        self._rooms: dict[tuple[int, ...], int] = {}
        self._asked: list[Question] = []

    @classmethod
    def begin(cls, patience: float = _PATIENCE, draws: int = 1) -> Ranks:
        """Join the ranks that torchrun has started.

        Args:
            patience: seconds after which a rank that doesn't answer is taken for dead, and all others end.
            draws: in how many rows of a mesh: the ranks of one row share the people, and rows share the draws.
        Raises:
            LpmError: in a process that torchrun hasn't started, where others can't be reached or have another release.
            InputError: for ranks that can't be in so many rows.
        """
        if missing := [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
            raise LpmError(
                f"{', '.join(missing)} isn't set: start with torchrun, such as `torchrun --nproc-per-node 2`"
            )
        if not dist.is_initialized():
            try:
                _meet(timedelta(seconds=patience))
            except (RuntimeError, ValueError) as e:
                raise LpmError(f"rank {os.environ['RANK']} can't reach the others: {_first_line(e)}") from e
        everybody, count = cls(), dist.get_world_size()
        everybody.agree(f"lpmppl {_release()} on torch {torch.__version__}")
        if draws == 1:
            return everybody
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1 or count % draws:
            raise InputError(f"draws={draws!r}: {count} ranks can't be in so many rows of as many each")
        return cls.of(init_device_mesh("cpu", (draws, count // draws), mesh_dim_names=("draws", "agents")))

    @classmethod
    def of(cls, mesh: DeviceMesh) -> Ranks:
        """The ranks that share this one's people on a mesh: its dimension "agents", after "draws" where it has that.

        Raises:
            InputError: for a mesh of other dimensions.
        """
        if mesh.mesh_dim_names not in (("agents",), ("draws", "agents")):
            raise InputError(
                f"a mesh with dimensions {mesh.mesh_dim_names}: make it with mesh_dim_names=('agents',) or "
                "('draws', 'agents')"
            )
        return cls(mesh.get_group("agents"), mesh.get_group("draws") if mesh.ndim == 2 else None)

    def end(self) -> None:
        """Leave the group."""
        if dist.is_initialized():
            dist.destroy_process_group(None if self.draws is not None else self._group)

    def sum(self, x: Tensor) -> Tensor:
        """The sum over ranks of integers of one shape."""
        self._check(x)
        out = x.clone(memory_format=torch.contiguous_format)
        self._told(lambda: dist.all_reduce(out, group=self._group))
        # A ring sends each number twice, in parts of which each rank keeps one.
        self.sent += 2 * (self.count - 1) * x.numel() * x.element_size() // self.count
        return out

    def total(self, what: str, x: Tensor) -> Tensor:
        """The sum over ranks of integers, once they agree on what it is; few of them go with the question."""
        if not self.short(x):
            self.agree(what, x.numel())
            return self.sum(x)
        first, *others = self.said(what, x.reshape(-1), x.numel())
        return sum(others, first).reshape(x.shape)

    def short(self, x: Tensor) -> bool:
        """Whether telling all what all ranks have of integers of one shape takes less time than to add them up."""
        return self.count * x.nbytes <= _SHORT

    def added(self, what: str, x: Tensor | None, shape: Sequence[int]) -> Tensor | None:
        """The sum over ranks of numbers, once they agree on what it is, in the order of ranks: all have the same bits.

        Args:
            what: what it is, in words that are the same on all ranks.
            x: this rank's, float64; None where it has none.
            shape: their shape, the same on all ranks.
        Returns:
            float64 of that shape, None where no rank has any.
        """
        bits = torch.empty(0, dtype=torch.int64) if x is None else x.contiguous().view(torch.int64).reshape(-1)
        total = torch.zeros(math.prod(shape), dtype=torch.float64)
        told = self.said(what, bits, total.numel())
        if not any(len(part) for part in told):
            return None
        for part in told:
            if len(part):
                total += part.view(torch.float64)
        return total.reshape(tuple(shape))

    def cut(self, upto: Callable[[Tensor], Tensor], low: int, high: int, wanted: Tensor) -> Tensor:
        """The least place of each row up to which there are more than are wanted, on all ranks together.

        Args:
            upto: given places, int64 of shape (R, K), says how many of each row there are here up to each of them.
            low: the least place there can be.
            high: the greatest; what a row has where there aren't more than are wanted.
            wanted: int64 of shape (R,).
        Returns:
            int64 of shape (R,).
        """
        rows = len(wanted)
        first, last = torch.full((rows,), low), torch.full((rows,), high)
        ways = torch.arange(1, max(1, min(_WAYS, ROOM // max(1, rows))) + 1)
        while bool((first < last).any()):
            # So many places at a time as go in one message: what takes long is to answer, not to count.
            places = first[:, None] + (last - first)[:, None] * ways // (len(ways) + 1)
            enough = self.total("a queue", upto(places)) > wanted[:, None]
            short = (~enough).sum(1)
            at = short.clamp(max=len(ways) - 1)[:, None]
            last = torch.where(short < len(ways), places.gather(1, at)[:, 0], last)
            before = (short - 1).clamp(min=0)[:, None]
            first = torch.where(short > 0, places.gather(1, before)[:, 0] + 1, first)
        return first

    def ordered(self, values: Tensor, places: Sequence[int]) -> Tensor:
        """What stands at some places, from 0, of all ranks' values in increasing order.

        Args:
            values: this rank's, float32 of shape (n,).
            places: below how many values there are in all.
        Returns:
            float32 of shape (P,).
        """
        bits = values.float().cpu().contiguous().view(torch.int32).long()
        # As integers that are ordered as the numbers are.
        keys = torch.where(bits >= 0, bits, -(2**31) - bits - 1).sort().values
        wanted = torch.tensor(list(places), dtype=torch.int64)
        found = self.cut(lambda at: torch.searchsorted(keys, at, right=True), -(2**31), 2**31 - 1, wanted)
        return torch.where(found >= 0, found, -(2**31) - found - 1).int().view(torch.float32)

    def gathered(self, x: Tensor) -> list[Tensor]:
        """The integers of every rank, shape (n, …), of which each may have another number n."""
        return self.said("a list", x)

    def rows(self, x: Tensor) -> Tensor:
        """The integers of every rank, of one shape, stacked by rank."""
        self._check(x)
        found, x = x.new_empty((self.count, *x.shape)), x.contiguous()
        # What torch.distributed does around it takes longer than a short message.
        group: Any = dist.group.WORLD if self._group is None else self._group
        self._told(lambda: group.allgather([list(found)], [x]).wait())
        self.sent += (self.count - 1) * x.numel() * x.element_size()
        return found

    def objects(self, what: str, x: Any) -> list[Any]:
        """What every rank has, anything that can be pickled, once they agree on what it is."""
        self.agree(what)
        found: list[Any] = [None] * self.count
        self._told(lambda: dist.all_gather_object(found, x, group=self._group))
        return found

    def agree(self, what: str, size: int = 0, each: int = 0) -> list[int]:
        """Refuse to go on where ranks differ in what they are about to do: the first that differs is named.

        Whoever does something else than the others would wait for ever, or be sent what it can't read.

        Args:
            what: what it is, in words that are the same on all ranks.
            size: how much of it, the same on all ranks.
            each: a number that each has for itself.
        Returns:
            that of every rank.
        Raises:
            LpmError: on all ranks.
        """
        return self._answered(Question(what, size, each)).counts

    def said(self, what: str, x: Tensor, size: int = 0) -> list[Tensor]:
        """Do as `agree`, and hear what every rank says.

        There is room for some hundred integers in the same message, or for as much as was said when the same four
        messages had come before, and half as much again where ranks differed in it: all ranks know how much that was,
        whatever they are about to do, so that all of them send as much.

        Args:
            what: what it is, in words that are the same on all ranks but for numbers.
            x: this rank's integers, shape (n, …), of which each may have another number n.
            size: how much of it, the same on all ranks.
        Returns:
            the integers of every rank, shape (n, …).
        """
        return self._parts(x, self._answered(self._question(what, x, size)))

    def later(self, what: str, x: Tensor, take: Callable[[list[Tensor] | None], object], **more: Any) -> Any:
        """Say with the next message what `said` says at once.

        Args:
            what: what it is, in words that are the same on all ranks but for numbers.
            x: this rank's integers, shape (n, …), which stay as they are until then.
            take: called then with the integers of every other rank, None from `most` on.
            more: `size`, and `most`: from how many, on any rank, they aren't told.
        Returns:
            what `settle` takes.
        """
        question = self._question(what, x, **more)

        def hear(answer: Answer) -> None:
            parts = None if answer.parts is None else self._parts(x, answer)
            take(None if parts is None else parts[: self.rank] + parts[self.rank + 1 :])

        question.take = hear
        self._asked.append(question)
        if len(self._asked) >= MANY:
            self.settle()
        return question

    def settle(self, question: Question | None = None) -> None:
        """Say what was to be said later, up to one question or all of it, and take what others say."""
        while self._asked and (question is None or question.answer is None):
            self._ask()

    def _question(self, what: str, x: Tensor, size: int = 0, most: int | None = None) -> Question:
        self._check(x)
        load = x.detach().contiguous().numpy()
        return Question(what, size, len(load), load.reshape(-1), load.itemsize * math.prod(load.shape[1:]), most)

    def _parts(self, x: Tensor, answer: Answer) -> list[Tensor]:
        assert answer.parts is not None
        shapes = [(n, *x.shape[1:]) for n in answer.counts]
        return [torch.from_numpy(part.reshape(shape)) for part, shape in zip(answer.parts, shapes, strict=True)]

    def _answered(self, question: Question) -> Answer:
        """Ask at once, with what was to be said later before it."""
        self._asked.append(question)
        self.settle(question)
        assert question.answer is not None
        return question.answer

    def _ask(self) -> None:
        """Send one message with what is to be said, and hear as much of it as all ranks have come to."""
        asked, before = self._asked[:MANY], self._last
        frames = self.rows(torch.from_numpy(framed(asked, self._rooms.get(before, FRAME)))).numpy()
        try:
            counts, starts = heard(asked, frames)
        except LpmError:
            self._asked.clear()
            raise
        asked = asked[: counts.shape[1]]
        if starts is None:
            room = max(sizes_of(asked, counts))
            mine = torch.from_numpy(loads(asked, room))
            frames, starts = (self.rows(mine) if room else mine.new_empty(self.count, 0)).numpy(), [0] * self.count
        words = "".join(one.what for one in asked).translate(_NO_NUMBERS)
        self._last = *before[1:], crc32(words.encode())
        self._rooms[before] = room_for(asked, counts)
        del self._asked[: len(asked)]
        for question, answer in zip(asked, loads_of(asked, counts, frames, starts), strict=True):
            question.answer = answer
            if question.take is not None:
                question.take(answer)

    def _check(self, x: Tensor) -> None:
        if x.is_floating_point():
            raise InputError(f"ranks were to add up {x.dtype}, whose sum depends on the order; give integers")

    def _told(self, call: Any) -> None:
        try:
            call()
        except RuntimeError as e:
            raise LpmError(
                f"rank {self.rank} of {self.count} lost another: {_first_line(e)}; start again, or go on with --resume"
            ) from e

    def __str__(self) -> str:
        return f"{self.count} ranks"


_NO_NUMBERS = str.maketrans("", "", "0123456789")
"""What is left of the words for a sum is the same whenever it comes round."""


def _meet(patience: timedelta) -> None:
    """Begin the process group of the ranks that torchrun has started.

    They tell each other where they are in a store that outlives a restart, after which they must do so under other
    names: under the usual ones others would be found where they were before.
    """
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store, rank, count = next(rendezvous("env://", timeout=patience))
    if restart != "0":
        store = PrefixStore(f"restart {restart}", store)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=patience)


def _release() -> str:
    try:
        return version("lpmppl")
    except PackageNotFoundError:
        return "unreleased"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
