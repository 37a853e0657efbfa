"""Who comes first: agents compared with each other, which sums can't."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lpmppl.effects.clear import in_clear
from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.internals.segments import broadcast

__all__ = ["foremost"]


def foremost(cohort: Cohort, place: Tensor, number: Tensor, places: int) -> Cohort:
    """The first so many of a cohort by their place in a queue, in each world and draw; of one place, the first agents.

    Args:
        cohort: who wants to be.
        place: everybody's place, integers from 0 of shape (…, N).
        number: how many there may be, shape (…, 1).
        places: how many places there are.
    Returns:
        the members whose turn it is.
    """
    lead = broadcast(cohort.shape[:-1], number.shape[:-1])
    cohort = cohort.expand(lead)
    if not len(cohort) or not bool((number > 0).any()):
        return cohort.select(cohort.where[:0])
    in_clear(f"whose turn it is among {len(cohort)} agents who queue", "leave them out, or have nothing to queue for")
    rows = max(1, math.prod(lead))
    row = cohort.row if lead else torch.zeros_like(cohort.where)
    order = torch.argsort(row * places + cohort.read(place).long(), stable=True)
    size = torch.bincount(row, minlength=rows)
    ahead = torch.arange(len(cohort), device=order.device) - (size.cumsum(0) - size)[row[order]]
    limit = number.expand(*lead, 1).reshape(rows)[row[order]]
    return cohort.select(order[ahead < limit].sort().values)
