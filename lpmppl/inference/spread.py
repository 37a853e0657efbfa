"""Draws on a mesh of ranks: those of one row share the people, each row runs some of the draws, and all have all.

Where there are more rows than draws, the rows that run a draw have some of its worlds each, and all of them the world
as it was.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import xarray as xr
from torch import Tensor

from lpmppl.effects.ranks import Ranks
from lpmppl.errors import InputError
from lpmppl.inference.policies import WORLD
from lpmppl.models.population import Population

__all__ = ["Spread", "code", "parts_of", "together"]

T = TypeVar("T")

Parts = dict[str, xr.Dataset]
"""The groups of a result, by their path."""


def code(*terms: object) -> int:
    """A number by which ranks see whether they were asked the same."""
    return zlib.crc32(repr([x.tolist() if isinstance(x, Tensor) else x for x in terms]).encode())


class Spread:
    """Which of a run's draws are to be run here, and how the results of the others come.

    Args:
        people: the people of the run, of one rank or of all.
        draws: how many draws there are in all rows together.
        asked: what all rows are to be asked alike.
        worlds: into how many a draw can be parted, besides the world as it was.
    Raises:
        InputError: for fewer draws, and worlds of each, than the mesh has rows.
        LpmError: where rows are asked for something else.
    """

    def __init__(self, people: Population, draws: int, *asked: object, worlds: int = 1) -> None:
        self.rows: Ranks | None = None if people.ranks is None else people.ranks.draws
        self.draws = draws
        if self.rows is not None:
            self.rows.agree("the run of all draws", code(draws, people.everybody, *asked))
            if draws * worlds < self.rows.count:
                each = f" of {worlds} policies" if worlds > 1 else ""
                raise InputError(
                    f"a run of {draws} draws{each} on a mesh with {self.rows.count} rows of draws: give "
                    f"draws={-(-self.rows.count // worlds)} or more, or a mesh of fewer rows"
                )

    @property
    def mine(self) -> list[int]:
        """The draws that this rank takes part in, in increasing order."""
        rank, rows = (0, 1) if self.rows is None else (self.rows.rank, self.rows.count)
        return list(range(rank % self.draws, self.draws, rows))

    def worlds_of(self, each: Sequence[T]) -> list[T]:
        """What is given for every world, for those that are run here."""
        if self.rows is None:
            return list(each)
        part, first = divmod(self.rows.rank, self.draws)
        return list(each[part :: len(range(first, self.rows.count, self.draws))])

    def whole(self, tree: xr.DataTree, worlds: Sequence[str] = ()) -> xr.DataTree:
        """The results of all draws, in order, from those of these alone; all rows have to ask.

        Args:
            tree: the results here.
            worlds: the names of all worlds in order, the one as it was first.
        """
        if self.rows is None:
            return tree
        rows: list[Parts] = self.rows.objects("the results", parts_of(tree))
        # As many rows as draws are left, or fewer, each with all worlds of its draws.
        rows = [_of_one_draw(rows[k :: self.draws], worlds) for k in range(min(self.draws, len(rows)))]
        order = [k for row in range(len(rows)) for k in range(row, self.draws, len(rows))]
        return together(rows, sorted(range(self.draws), key=order.__getitem__))


def parts_of(tree: xr.DataTree) -> Parts:
    """The groups of a tree, by their path."""
    return {node.path: node.to_dataset(inherit=False) for node in tree.subtree}


def together(parts: Sequence[Parts], place: Sequence[int]) -> xr.DataTree:
    """The results of several draws, of which each part has some.

    Args:
        parts: groups by path, of the same draws' in each.
        place: where each draw is among those of the parts, one after the other.
    """

    def joined(path: str) -> xr.Dataset:
        each = [part[path] for part in parts]
        if "draw" not in each[0].dims:
            return each[0]
        found = _along("draw", each).isel(draw=list(place))
        # Numbered as in one row, where the draws have numbers.
        return found.assign_coords(draw=range(len(place))) if "draw" in found.coords else found

    return xr.DataTree.from_dict({path: joined(path) for path in parts[0]})


def _of_one_draw(rows: Sequence[Parts], worlds: Sequence[str]) -> Parts:
    """The results of rows that have run different worlds of the same draws, in the order of worlds."""
    if len(rows) == 1:
        return rows[0]
    found = {}
    for path in dict.fromkeys(path for row in rows for path in row):
        first, *others = parts = [row[path] for row in rows if path in row]
        if WORLD in first.dims:
            known = {*first[WORLD].values.tolist()}
            more = [part.sel({WORLD: [w for w in part[WORLD].values.tolist() if w not in known]}) for part in others]
            whole = _along(WORLD, [first, *more])
            found[path] = whole.sel({WORLD: [w for w in worlds if w in {*whole[WORLD].values.tolist()}]})
        elif "trigger" in first.dims:
            whole = _along("trigger", parts)
            policies = whole["policy_of"].values.tolist()
            found[path] = whole.isel(trigger=sorted(range(len(policies)), key=lambda k: worlds.index(policies[k])))
        else:
            found[path] = first
    return found


def _along(dim: str, parts: Sequence[xr.Dataset]) -> xr.Dataset:
    return xr.concat(parts, dim, data_vars="minimal", coords="minimal", compat="override", join="override")
