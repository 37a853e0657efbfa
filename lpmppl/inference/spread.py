"""Draws on a mesh of ranks: those of one row share the people, each row runs some of the draws, and all have all."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TypeVar

import xarray as xr
from torch import Tensor

from lpmppl.effects.ranks import Ranks
from lpmppl.errors import InputError
from lpmppl.models.population import Population

__all__ = ["Spread", "code"]

T = TypeVar("T")


def code(*terms: object) -> int:
    """A number by which ranks see whether they were asked the same."""
    return zlib.crc32(repr([x.tolist() if isinstance(x, Tensor) else x for x in terms]).encode())


class Spread:
    """Which of a run's draws are to be run here, and how the results of the others come.

    Args:
        people: the people of the run, of one rank or of all.
        draws: how many draws there are in all rows together.
        asked: what all rows are to be asked alike.
    Raises:
        InputError: for fewer draws than the mesh has rows.
        LpmError: where rows are asked for something else.
    """

    def __init__(self, people: Population, draws: int, *asked: object) -> None:
        self.rows: Ranks | None = None if people.ranks is None else people.ranks.draws
        self.draws = draws
        if self.rows is not None:
            self.rows.agree("the run of all draws", code(draws, people.everybody, *asked))
            if draws < self.rows.count:
                raise InputError(
                    f"a run of {draws} draws on a mesh with {self.rows.count} rows of draws: give "
                    f"draws={self.rows.count} or more, or a mesh of fewer rows"
                )

    @property
    def mine(self) -> list[int]:
        """The draws that this rank takes part in, in increasing order."""
        return (
            list(range(self.draws)) if self.rows is None else list(range(self.rows.rank, self.draws, self.rows.count))
        )

    def of(self, each: Sequence[T]) -> list[T]:
        """What is given for every draw, for these alone."""
        return [each[k] for k in self.mine]

    def whole(self, tree: xr.DataTree) -> xr.DataTree:
        """The results of all draws, in order, from those of these alone; all rows have to ask."""
        if self.rows is None:
            return tree
        mine = {name: node.to_dataset(inherit=False) for name, node in ((n.path, n) for n in tree.subtree)}
        rows = self.rows.objects("the results", mine)
        order = [k for row in range(self.rows.count) for k in range(row, self.draws, self.rows.count)]
        place = sorted(range(self.draws), key=order.__getitem__)

        def joined(parts: list[xr.Dataset]) -> xr.Dataset:
            if "draw" not in parts[0].dims:
                return parts[0]
            found = xr.concat(parts, "draw", data_vars="minimal", coords="minimal", compat="override", join="override")
            found = found.isel(draw=place)
            # Numbered as in one row, where the draws have numbers.
            return found.assign_coords(draw=range(self.draws)) if "draw" in found.coords else found

        return xr.DataTree.from_dict({path: joined([row[path] for row in rows]) for path in mine})
