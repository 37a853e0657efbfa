"""Parties that are all in this process: each has its shares, and adds these up."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import torch
from torch import Tensor

from lpmppl.effects.fields import Network, summed
from lpmppl.effects.internals.discrete_gaussian import discrete_gaussian
from lpmppl.effects.internals.segments import blocked, send_back
from lpmppl.effects.internals.shares import SEED, Keystream, opened, shares_of
from lpmppl.errors import InputError

__all__ = ["InProcess", "noised"]

_BLOCK = 1 << 17
"""Agents whose shares are made and added up at a time."""

_FEW = 1 << 15
"""The most groups of which every thread keeps sums of its own."""


_MOST = 1_000
"""Parties of which each has sums of its own here."""


class InProcess:
    """Parties in one process.

    Args:
        count: how many, m.
    Raises:
        InputError: for fewer than two, or more than 1,000.
    """

    def __init__(self, count: int) -> None:
        if isinstance(count, bool) or count < 2:
            raise InputError(f"parties={count}: what one party has whole isn't secret; give 2 or more")
        if count > _MOST:
            raise InputError(f"parties={count}: give {_MOST:,} at most; each has sums of its own in this process")
        self.count = int(count)

    @property
    def agents(self) -> int | None:
        """All agents are here."""
        return None

    def total(self, secret: Tensor, network: Network | None, most: int, sigma: float) -> Tensor:
        """Share integers of shape (…, N) among the parties, let each add up, and open their sums, shape (…, G)."""
        index = None if network is None else getattr(network, "index", None)
        groups = 1 if network is None else int(network.share("sum").shape[-1])
        if secret.device.type == "cpu" and (network is None or index is not None) and groups <= _FEW:
            sums = self._in_blocks(secret, index, groups)
        else:
            sums = torch.stack([summed(share, network) for share in shares_of(secret, self.count)])
        return opened([noised(each, sigma) for each in sums])

    def _in_blocks(self, secret: Tensor, index: Tensor | None, groups: int) -> Tensor:
        """The sum of each party's shares, shape (m, …, G), a block of agents at a time with seeds of its own."""
        rows = secret.reshape(secret.shape[:-1].numel(), secret.shape[-1])
        sums = torch.zeros((self.count, len(rows), groups), dtype=torch.int64)
        for k, row in enumerate(rows):
            by_thread: list[Tensor] = []

            def work(row: Tensor = row, by_thread: list[Tensor] = by_thread) -> Callable[[slice], None]:
                mine = torch.zeros((self.count, groups), dtype=torch.int64)
                by_thread.append(mine)
                buffers = torch.empty((2, _BLOCK), dtype=torch.int64)

                def part(agents: slice) -> None:
                    n = agents.stop - agents.start
                    share, rest = buffers[0, :n], buffers[1, :n]
                    rest.copy_(row[agents])
                    for party in range(self.count):
                        if party < self.count - 1:
                            Keystream(secrets.token_bytes(SEED)).fill(share.numpy())
                            rest -= share
                        has = share if party < self.count - 1 else rest
                        if index is None:
                            mine[party] += has.sum()
                        else:
                            send_back(mine[party], index[agents], has)

                return part

            blocked(row.shape[0], work, _BLOCK)
            if by_thread:
                sums[:, k] = torch.stack(by_thread).sum(0)
        return sums.reshape(self.count, *secret.shape[:-1], groups)

    def __str__(self) -> str:
        return f"{self.count} parties in this process"


def noised(total: Tensor, sigma: float) -> Tensor:
    """A party's sum with discrete Gaussian noise of this standard deviation, or as it is for 0."""
    return total + discrete_gaussian(sigma, tuple(total.shape)).to(total.device) if sigma else total
