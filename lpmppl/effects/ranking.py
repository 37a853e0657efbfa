"""Who comes first: agents compared with each other, which sums can't."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lpmppl._compat import effectful
from lpmppl.effects.clear import in_clear
from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.internals.segments import broadcast
from lpmppl.effects.ranks import Ranks

__all__ = ["foremost", "foremost_of_all"]


@effectful(type="foremost")
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


def foremost_of_all(ranks: Ranks, cohort: Cohort, place: Tensor, number: Tensor, places: int) -> Cohort:
    """Who of a rank's cohort are among the foremost of all ranks' together; of one place, the first by their ids.

    Args:
        ranks: those that share the population.
        cohort: who of this rank's agents wants to be.
        place: everybody's place, as for `foremost`.
        number: how many there may be in all, shape (…, 1), alike on all ranks.
        places: how many places there are.
    """
    lead = broadcast(cohort.shape[:-1], number.shape[:-1])
    cohort = cohort.expand(lead)
    rows = max(1, math.prod(lead))
    row = cohort.row if lead else torch.zeros_like(cohort.where)
    at = cohort.read(place).long()
    limit = number.expand(*lead, 1).reshape(rows).ceil().long().clamp(min=0)

    span = places + 1
    keys = (row * span + at).sort().values
    starts = torch.arange(rows)[:, None] * span

    def upto(last: Tensor) -> Tensor:
        """How many of each row there are here whose place isn't after each of its last ones."""
        return torch.searchsorted(keys, starts + last, right=True) - torch.searchsorted(keys, starts)

    # The first place up to which there are more than there may be; all others' turn it is before it.
    first = ranks.cut(upto, 0, places, limit)
    turn = at < first[row]
    left = limit - ranks.total("a queue", upto((first - 1)[:, None]))[:, 0]
    assert cohort.ids is not None
    ids = cohort.ids[cohort.agent].long()
    tied = (at == first[row]).nonzero().squeeze(-1)
    everyone = torch.cat(ranks.gathered(torch.stack((row[tied], ids[tied]), -1)))
    order = torch.argsort(everyone[:, 0] * 2**32 + everyone[:, 1])
    size = torch.bincount(everyone[:, 0], minlength=rows)
    of = everyone[order, 0]
    ahead = torch.arange(len(everyone)) - (size.cumsum(0) - size)[of]
    chosen = everyone[order][ahead < left[of]]
    mine = torch.isin(row[tied] * 2**32 + ids[tied], chosen[:, 0] * 2**32 + chosen[:, 1])
    turn[tied[mine]] = True
    return cohort.select(turn.nonzero().squeeze(-1))
