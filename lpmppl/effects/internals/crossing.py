"""The groups of a network with members on more than one rank, and what ranks tell each other of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lpmppl.effects.cohorts import Sparse
from lpmppl.effects.fields import Network
from lpmppl.effects.internals import kernels

__all__ = ["Crossing"]


class Crossing(NamedTuple):
    """The groups of a network with members on more than one rank."""

    network: Network
    groups: Tensor
    """Which they are, in increasing order, alike on all ranks: int64."""
    slot: Tensor
    """The place of every group among them, −1 for others: int32 of shape (G,)."""
    elsewhere: Tensor
    """Whether all of a group's members are on another rank, Boolean of shape (G,)."""
    nowhere: int | None
    """The group whose members meet nobody: what they send is of no use, and isn't told."""

    def clear(self, total: Tensor) -> None:
        """Leave nothing where nobody is reached, so that all ranks have the same there."""
        if self.nowhere is not None:
            total[..., self.nowhere] = 0

    def changes(self, message: Sparse, total: Tensor) -> Tensor:
        """What few agents add to these groups, a place among those of all rows with each number: shape (n, 2)."""
        lead, many = total.shape[:-1], len(self.groups)
        cohort = message.cohort.expand(lead)
        value = message.value if cohort is message.cohort else cohort.read(message)
        places = lead.numel() * many
        out = torch.empty((len(cohort), 2), dtype=total.dtype if places < 2**31 else torch.int64)
        group = cohort.group(self.network.index)  # type: ignore[attr-defined]
        row = (cohort.row if lead.numel() > 1 else cohort.where[:0]).numpy()
        n = kernels.crossing(self.slot.numpy(), group.numpy(), value.contiguous().numpy(), row, many, out.numpy())
        return out[:n]

    def add(self, total: Tensor, changes: Tensor) -> None:
        """Add what agents of another rank change to the total of these groups."""
        groups = self.groups.numpy()
        kernels.add_crossing(total.view(-1).numpy(), changes.numpy(), groups, total.shape[-1])

    def add_all(self, total: Tensor, others: Tensor) -> None:
        """Add sums of all these groups, in any shape of as many, to their total."""
        total[..., self.groups] += others.reshape(*total.shape[:-1], -1).to(total.dtype)

    def whole(self, changes: Tensor, total: Tensor) -> Tensor:
        """The sums of all these groups that changes make, flat."""
        out = torch.zeros(total.shape[:-1].numel() * len(self.groups), dtype=total.dtype)
        place, value = changes.unbind(-1)
        return out.index_add_(0, place, value.to(total.dtype))
