"""The processes that share a population: what each knows of the others, in integers alone."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lpmppl.errors import InputError, LpmError

__all__ = ["Ranks"]

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
        return self._reduced(x, dist.ReduceOp.SUM)

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
        low = torch.full((len(places),), -(2**31), dtype=torch.int64)
        high, wanted = torch.full_like(low, 2**31 - 1), torch.tensor(list(places))
        while bool((low < high).any()):
            middle = (low + high).div(2, rounding_mode="floor")
            enough = self.sum(torch.searchsorted(keys, middle, right=True)) > wanted
            low, high = torch.where(enough, low, middle + 1), torch.where(enough, middle, high)
        return torch.where(low >= 0, low, -(2**31) - low - 1).int().view(torch.float32)

    def gathered(self, x: Tensor) -> list[Tensor]:
        """The integers of every rank, shape (n, …), of which each may have another number n.

        They are taken in turn from rank 0 on, padded to the longest.
        """
        counts = self.rows(torch.tensor([x.shape[0]]))[:, 0].tolist()
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
        told = self.rows(torch.tensor([each, zlib.crc32(what.encode()), size], dtype=torch.int64))
        other = (told[:, 1:] != told[0, 1:]).any(-1).nonzero()
        if len(other):
            rank = int(other[0])
            how = f"{told[rank, 2]} of it, and rank 0 {told[0, 2]}" if told[rank, 1] == told[0, 1] else "something else"
            raise LpmError(
                f"{what}: rank {rank} does {how}; run the same program with the same people, model and release on all "
                "ranks"
            )
        found: list[int] = told[:, 0].tolist()
        return found

    def _reduced(self, x: Tensor, how: Any) -> Tensor:
        self._check(x)
        out = x.clone(memory_format=torch.contiguous_format)
        self._told(lambda: dist.all_reduce(out, how, group=self._group))
        # A ring sends each number twice, in parts of which each rank keeps one.
        self.sent += 2 * (self.count - 1) * x.numel() * x.element_size() // self.count
        return out

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
