"""The processes that share a population: what each knows of the others, in integers alone."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lpmppl.errors import InputError, LpmError

__all__ = ["ROOM", "Ranks"]

ROOM = 61
"""Integers that go with a question: one message for all small sums, since each takes as long as one of 512 bytes."""

_WAYS = 31

_PATIENCE = 120.0


class Ranks:
    """The ranks of a process group of `torch.distributed`, one process each.

    Everything they tell each other is integers, whose sums don't depend on the order in which they arrive, so that all
    ranks have the same bits.

    Args:
        group: the process group; the whole world by default, which must have been begun.
    Attributes:
        rank: which one this is, from 0.
        count: how many there are.
        sent: bytes that this rank has sent so far.
    Raises:
        LpmError: where there is no process group.

    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> Ranks().sum(torch.tensor([1, 2])).tolist()
    [1, 2]
    >>> dist.destroy_process_group()
    """

    def __init__(self, group: Any = None) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise LpmError(
                "there is no process group of torch.distributed: start with torchrun, or Ranks.begin() in each process"
            )
        self._group = group
        self.rank: int = dist.get_rank(group)
        self.count: int = dist.get_world_size(group)
        self.sent = 0

    @classmethod
    def begin(cls, patience: float = _PATIENCE) -> Ranks:
        """Join the ranks that torchrun has started.

        Args:
            patience: seconds after which a rank that doesn't answer is taken for dead, and all others end.
        Raises:
            LpmError: in a process that torchrun hasn't started, or where others can't be reached.
        """
        if missing := [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
            raise LpmError(
                f"{', '.join(missing)} isn't set: start with torchrun, such as `torchrun --nproc-per-node 2`"
            )
        if not dist.is_initialized():
            try:
                dist.init_process_group("gloo", timeout=timedelta(seconds=patience))
            except (RuntimeError, ValueError) as e:
                raise LpmError(f"rank {os.environ['RANK']} can't reach the others: {_first_line(e)}") from e
        return cls()

    def end(self) -> None:
        """Leave the group."""
        if dist.is_initialized():
            dist.destroy_process_group(self._group)

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
        if x.numel() > ROOM:
            self.agree(what, x.numel())
            return self.sum(x)
        self._check(x)
        _, told = self.asked(what, x.numel(), more=x.reshape(-1))
        return told[:, : x.numel()].sum(0).to(x.dtype).reshape(x.shape)

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

    def gathered(self, x: Tensor, counts: Sequence[int] | None = None) -> list[Tensor]:
        """The integers of every rank, shape (n, …), of which each may have another number n; `counts`, where known.

        They are padded to the longest.
        """
        counts = self.agree("a list", each=len(x)) if counts is None else counts
        padded = x.new_zeros((max(counts), *x.shape[1:]))
        padded[: x.shape[0]] = x
        return [row[:n] for row, n in zip(self.rows(padded), counts, strict=True)]

    def rows(self, x: Tensor) -> Tensor:
        """The integers of every rank, of one shape, stacked by rank."""
        self._check(x)
        found = [torch.empty_like(x) for _ in range(self.count)]
        self._told(lambda: dist.all_gather(found, x.contiguous(), group=self._group))
        self.sent += (self.count - 1) * x.numel() * x.element_size()
        return torch.stack(found)

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
        return self.asked(what, size, each)[0]

    def asked(self, what: str, size: int = 0, each: int = 0, more: Tensor | None = None) -> tuple[list[int], Tensor]:
        """Do as `agree`, and send up to 61 integers with it: also what every rank has sent, int64 of shape (R, 61)."""
        frame = torch.zeros(3 + ROOM, dtype=torch.int64)
        frame[:3] = torch.tensor([each, zlib.crc32(what.encode()), size])
        if more is not None:
            frame[3 : 3 + more.numel()] = more
        told = self.rows(frame)
        other = (told[:, 1:3] != told[0, 1:3]).any(-1).nonzero()
        if len(other):
            rank = int(other[0])
            how = f"{told[rank, 2]} of it, and rank 0 {told[0, 2]}" if told[rank, 1] == told[0, 1] else "something else"
            raise LpmError(
                f"{what}: rank {rank} does {how}; run the same program with the same people, model and release on all "
                "ranks"
            )
        found: list[int] = told[:, 0].tolist()
        return found, told[:, 3:]

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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
