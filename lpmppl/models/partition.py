"""What is which rank's: whole households, as many people each, neighbouring areas together, and groups with members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from lpmppl.effects.ranks import FEW as _FEW
from lpmppl.effects.ranks import Ranks
from lpmppl.errors import InputError

__all__ = ["parted", "with_own_groups"]

_AREA, _PLACE = "puma", "workplace"

Column = Callable[[str], NDArray[Any] | None]
"""What gives a variable of all agents by its name, shape (N,), or None where there is none."""


def parted(column: Column, parts: int) -> NDArray[np.int64]:
    """The part of each agent, from 0, int64 of shape (N,).

    Areas are put in a row by whose people work and learn together, the row is cut into parts of as many people, and no
    household is cut.

    Args:
        column: the people, with `household` and, where areas are to count, `puma` and `workplace`.
        parts: how many parts.
    Raises:
        InputError: for people without households, or more parts than households.

    >>> parted({"household": np.array([0, 0, 0, 1, 2, 2])}.get, 2).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    home = column("household")
    if home is None:
        raise InputError("the people lack 'household', by which they are parted; give a population with households")
    home = home.astype(np.int64)
    size = np.bincount(home)
    lived_in = np.flatnonzero(size)
    if not 1 <= parts <= len(lived_in):
        raise InputError(f"{parts} parts can't share {len(lived_in)} households; give from 1 to that many")
    order, of = lived_in, column(_AREA) if parts > 1 else None
    if of is not None:
        area = np.zeros(len(size), np.int64)
        area[home] = of
        order = lived_in[np.argsort(_row(of.astype(np.int64), column(_PLACE))[area[lived_in]], kind="stable")]
    before = np.cumsum(size[order]) - size[order]
    part = np.zeros(len(size), np.int64)
    # By the middle of each household, so that a part is off by half a household at most.
    part[order] = np.minimum((2 * before + size[order]) * parts // (2 * len(home)), parts - 1)
    return part[home]


def _row(area: NDArray[np.int64], place: NDArray[Any] | None) -> NDArray[np.int64]:
    """The place of each area in a row in which those whose people meet at work lie close together, shape (A,).

    That is the order of the second eigenvector of the Laplacian of how many pairs of people of two areas work together
    (Fiedler, Czechoslovak Mathematical Journal 25, 1975).
    """
    count = int(area.max()) + 1
    if count < 3 or place is None:
        return np.arange(count)
    at_work = place > 0
    cells, members = np.unique(place[at_work].astype(np.int64) * count + area[at_work], return_counts=True)
    where, of = np.divmod(cells, count)
    staff = np.bincount(where, weights=members)
    together = np.zeros((count, count))
    first = np.searchsorted(where, np.unique(where))
    for begin, end in zip(first, np.append(first[1:], len(where)), strict=True):
        if end - begin > 1:
            here, who = of[begin:end], members[begin:end]
            together[np.ix_(here, here)] += np.outer(who, who) / staff[where[begin]]
    np.fill_diagonal(together, 0.0)
    laplacian = np.diag(together.sum(1)) - together
    vector = np.linalg.eigh(laplacian)[1][:, 1]
    # An eigenvector is one up to its sign, which isn't to depend on the machine.
    vector *= np.sign(vector[np.abs(vector).argmax()])
    return np.argsort(np.argsort(vector, kind="stable"), kind="stable")


def with_own_groups(people: xr.Dataset, ranks: Ranks) -> xr.Dataset:
    """The people of a rank with those groups alone, of the many of a network, that matter to it.

    These are the groups of its own people, and those with members on several other ranks, whose sums all ranks keep.
    `NAME_ids` has the numbers that they have among all, and `NAME_members` how many members they have on all ranks.

    Args:
        people: the people of this rank, with all groups.
        ranks: those that share the population.
    """
    for name in sorted(str(dim) for dim in people.sizes if dim != "agent"):
        count = people.sizes[name]
        if count <= _FEW or name not in people or people[name].dims != ("agent",) or f"{name}_ids" in people:
            continue
        index = people[name].to_numpy()
        if index.dtype.kind not in "iu" or any(ranks.agree(f"groups of '{name}'", count, _outside(index, count))):
            continue
        here = torch.from_numpy(np.bincount(index, minlength=count))
        members, on = ranks.total(f"members of '{name}'", torch.stack((here, (here > 0).long()))).numpy()
        kept = np.flatnonzero((here.numpy() > 0) | (on > 1))
        people = people.isel({name: kept})
        people[name] = ("agent", np.searchsorted(kept, index).astype(np.int32), people[name].attrs)
        people[f"{name}_ids"] = (name, kept, {"groups": count})
        people[f"{name}_members"] = (name, members[kept])
    return people


def _outside(index: NDArray[Any], count: int) -> int:
    return int(index.min() < 0 or index.max() >= count)
