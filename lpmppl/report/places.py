"""Where the areas of a result lie on its map: New York's community districts and boroughs, or those of other places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lpmppl.data.acs import BOROUGHS
from lpmppl.data.areas import PUMAS
from lpmppl.errors import InputError
from lpmppl.report import hexagons

__all__ = ["MOST", "Places", "known", "places"]

MOST = 500
"""The most areas that are placed by where they are: the time that takes grows with their square, to seconds here."""

_FAR = 1e100
"""Farther than any place is, in whatever unit."""

_KILOMETRES = 111.2
"""Of a degree of latitude."""

_LETTER, _LINE, _MARGIN = 0.38, 0.75, 0.25
"""How wide a letter and how high a line of a label is, and how far it stands off, in widths of a hexagon."""


@dataclass(frozen=True)
class Places:
    """A map's hexagons and what they stand for.

    Args:
        names: what each area is called, in the order of the result's labels.
        area: the number of each hexagon's area, shape (hexagons,).
        cells: where the hexagons are, shape (hexagons, 2).
        groups: the group of each hexagon, such as its borough; empty where there are none.
        note: what a reader has to know of how the map is drawn.
        title: what areas are, such as "community district".
    """

    names: Sequence[str]
    area: NDArray[np.int64]
    cells: NDArray[np.int64]
    groups: Sequence[str]
    note: str
    title: str

    def outlines(self) -> list[dict[str, object]]:
        """The groups with the path around each and the place of its label, in widths of a hexagon."""
        taken: list[tuple[float, float, float, float]] = []
        found: list[dict[str, object]] = []
        whole = hexagons.centres(self.cells)
        for name in sorted(set(self.groups)):
            mine = np.array([g == name for g in self.groups])
            sides = hexagons.outline(self.cells[mine])
            path = "".join(f"M{a[0]:.3f} {a[1]:.3f}L{b[0]:.3f} {b[1]:.3f}" for a, b in sides)
            x, y, box = _label(name, whole[mine], whole, taken)
            taken.append(box)
            found.append({"name": name, "path": path, "label": [round(x, 3), round(y, 3)]})
        return found


def _label(
    text: str,
    mine: NDArray[np.float64],
    whole: NDArray[np.float64],
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, tuple[float, float, float, float]]:
    """The middle of a label beside its group, over as few hexagons and labels as can be, and its box."""
    wide, high = _LETTER * len(text) / 2.0, _LINE / 2.0
    best: tuple[float, float, float, tuple[float, float, float, float]] | None = None
    middle, low, top = mine.mean(0), whole.min(0), whole.max(0)
    for x, y in mine.tolist():
        for dx, dy in ((-wide - 0.5 - _MARGIN, 0.0), (wide + 0.5 + _MARGIN, 0.0), (0.0, -1.0), (0.0, 1.0)):
            cx, cy = x + dx, y + dy
            box = (cx - wide, cy - high, cx + wide, cy + high)
            inside = (np.abs(whole[:, 0] - cx) < wide + 0.5) & (np.abs(whole[:, 1] - cy) < high + 0.45)
            over = 10.0 * int(inside.sum())
            over += sum(20.0 for b in taken if box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3])
            beyond = max(0.0, low[0] - 0.5 - box[0]) + max(0.0, box[2] - top[0] - 0.5)
            beyond += max(0.0, low[1] - 0.6 - box[1]) + max(0.0, box[3] - top[1] - 0.6)
            cost = over + 3.0 * beyond + math.hypot(cx - middle[0], cy - middle[1])
            if best is None or cost < best[0] - 1e-9:
                best = (cost, cx, cy, box)
    assert best is not None
    return best[1], best[2], best[3]


def _point(label: str, place: object) -> tuple[float, float]:
    """Where an area is on a map, x to the right and y downwards."""
    try:
        x, y = (float(z) for z in place)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        x = y = math.nan
    if not (abs(x) < _FAR and abs(y) < _FAR):
        raise InputError(f"the place of the area '{label}' is {place!r}; give x and y, finite numbers")
    return x, -y


@lru_cache(maxsize=1)
def _city() -> NDArray[np.int64]:
    """The cells of New York's community districts, in the order of `PUMAS`."""
    areas = list(PUMAS.values())
    east = np.array([a.longitude for a in areas]) * math.cos(math.radians(40.7)) * _KILOMETRES
    south = -np.array([a.latitude for a in areas]) * _KILOMETRES
    points = np.stack([east, south], -1)
    return hexagons.cartogram(points - points.mean(0), [a.borough for a in areas])


_DRAWN = (
    "Each hexagon is one community district (a census area, PUMA) of some 100,000 to 250,000 residents, placed so that "
    "neighbours stay neighbours. Where a district lies is rough, and for drawing only."
)


def known(labels: Sequence[str]) -> str:
    """What areas of New York labels are: "puma", "borough", or nothing where they are none.

    >>> known(["4103", "4501"]), known(["Queens", "Bronx"]), known(["north", "south"])
    ('puma', 'borough', '')
    """
    if labels and set(labels) <= set(PUMAS):
        return "puma"
    return "borough" if labels and set(labels) <= set(BOROUGHS) else ""


def places(labels: Sequence[str], where: Mapping[str, tuple[float, float]] | None = None, dim: str = "area") -> Places:
    """Lay out the areas of a result.

    Args:
        labels: the areas, as the result's dimension has them.
        where: x to the right and y upwards of each area by its label, in one unit; without, New York's areas are known,
            and others are laid in a spiral.
        dim: the name of the dimension.
    Raises:
        InputError: where two areas have one label, or `where` lacks one, gives a place that is no number, or has more
            than 500.
    """
    if not isinstance(labels, Sequence) or not labels or not all(isinstance(x, str) for x in labels):
        raise InputError(f"the areas of '{dim}' are {labels!r}; give one label or more, in words")
    if len(set(labels)) < len(labels):
        twice = next(x for x in labels if list(labels).count(x) > 1)
        raise InputError(f"two areas of '{dim}' are called '{twice}': a map needs a label for each")
    own = np.arange(len(labels))
    what, word = known(labels), dim.replace("_", " ")
    if where is not None:
        if len(labels) > MOST:
            raise InputError(
                f"{len(labels):,} areas of '{dim}' are too many to be made room for: gather positions in hexagons by "
                f"create(…, by={{'area': 'positions'}}), or give at most {MOST} areas"
            )
        if not isinstance(where, Mapping):
            raise InputError(f"where={where!r} was given; give x and y of each area by its label")
        if lacking := next((x for x in labels if x not in where), None):
            raise InputError(f"the map knows no place of the area '{lacking}'; give x and y of each")
        points = np.array([_point(x, where[x]) for x in labels])
        note = "A hexagon for each area, placed by the mean position of its households so that neighbours stay so."
        return Places(list(labels), own, hexagons.cartogram(points), [], note, word)
    if what == "puma":
        order = {code: k for k, code in enumerate(PUMAS)}
        cells = _city()[[order[x] for x in labels]]
        groups = [PUMAS[x].borough for x in labels]
        return Places([PUMAS[x].name for x in labels], own, cells, groups, _DRAWN, "community district")
    if what == "borough":
        shown = [k for k, a in enumerate(PUMAS.values()) if a.borough in labels]
        groups = [list(PUMAS.values())[k].borough for k in shown]
        area = np.array([list(labels).index(g) for g in groups])
        note = "The result is by borough: all districts of a borough have its colour, that of the whole borough."
        return Places(list(labels), area, _city()[shown], groups, note, "borough")
    note = "Nobody said where these areas are: they lie side by side in their order, from the middle outwards."
    return Places(list(labels), own, hexagons.spiral(len(labels)), [], note, word)
