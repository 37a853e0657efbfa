"""Maps of hexagons: a hexagon for every area, so that each is seen as well as any other, or for places of equal size.

Hexagons stand on a corner and are one unit wide; a cell is (column, row), and the odd rows are half a unit to the
right. x grows to the right, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import Delaunay, QhullError

__all__ = ["ROW", "apart", "binned", "cartogram", "centres", "corners", "outline", "spiral"]

Cells = NDArray[np.int64]
Points = NDArray[np.float64]

ROW = math.sqrt(3.0) / 2.0
"""The distance of rows; a hexagon is `2 / √3` high."""

_AROUND = ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1))
"""The six neighbours in axial coordinates, clockwise from the right."""

_ROUNDS, _PUSH, _HOME, _WATER = 300, 0.25, 0.02, 1.3
"""How areas make room for each other: rounds, how far they give way in one and are drawn back, and how much farther
apart those of different groups are to be."""

_TOGETHER, _ACROSS, _CHOICES, _SWEEPS = 2.0, 0.3, 40, 30
"""How much it costs that neighbours of a group, or of two groups, come to lie a cell farther apart than side by side,
in squared units of distance; how many cells are tried for an area, and how often all areas are gone through."""

_SMALL = 60_000
"""The greatest number of areas times cells at which neighbours are looked after besides distances."""

_LOOSE = 0.86
"""The width of a cell, in the square root of the hull's area over the number of areas; that of most areas from their
nearest, where it is greater."""

MOST = 400
"""The most hexagons that points are gathered in."""


def centres(cells: Cells) -> Points:
    """The middle of each cell: shape (n, 2), from cells of shape (n, 2).

    >>> centres(np.array([[0, 0], [0, 1]])).round(3).tolist()
    [[0.0, 0.0], [0.5, 0.866]]
    """
    column, row = cells[..., 0], cells[..., 1]
    return np.stack([column + 0.5 * (row % 2), ROW * row], -1)


def corners(centre: Sequence[float]) -> Points:
    """The six corners of the hexagon around a middle, clockwise, corner k before the side to neighbour k: (6, 2)."""
    angle = np.radians(np.arange(-30.0, 330.0, 60.0))
    return np.asarray(centre) + np.stack([np.cos(angle), np.sin(angle)], -1) / math.sqrt(3.0)


def apart(a: Cells, b: Cells) -> NDArray[np.int64]:
    """How many steps from neighbour to neighbour there are between cells: shape (…), from shapes (…, 2).

    >>> int(apart(np.array([0, 0]), np.array([2, 3])))
    4
    """
    d = _axial(a) - _axial(b)
    return np.maximum(np.abs(d).max(-1), np.abs(d.sum(-1)))


def _axial(cells: Cells) -> Cells:
    return np.stack([cells[..., 0] - (cells[..., 1] - cells[..., 1] % 2) // 2, cells[..., 1]], -1)


def _offset(axial: Cells) -> Cells:
    return np.stack([axial[..., 0] + (axial[..., 1] - axial[..., 1] % 2) // 2, axial[..., 1]], -1)


def spiral(n: int) -> Cells:
    """The first n cells of rings around one: for areas of which nobody knows where they are.

    >>> spiral(3).tolist()
    [[0, 0], [-1, -1], [0, -1]]
    """
    found, ring = [(0, 0)], 1
    while len(found) < n:
        at = (0, -ring)
        for step in (1, 2, 3, 4, 5, 0):
            for _ in range(ring):
                found.append(at)
                move = _AROUND[(step - 1) % 6]
                at = (at[0] + move[0], at[1] + move[1])
        ring += 1
    return _offset(np.array(found[:n]).reshape(-1, 2))


def cartogram(points: Points, groups: Sequence[object] | None = None) -> Cells:
    """A cell for every area, such that neighbours stay neighbours, and groups of areas together.

    Areas first make room for each other until each has its hexagon's width; they are then assigned to cells so that the
    squared distances are least in sum; and change places for as long as that brings neighbours side by side.

    Args:
        points: where areas are, shape (n, 2), x to the right and y downwards, in one unit.
        groups: which group each belongs to, such as its borough; all to one by default.
    Returns:
        cells, integers of shape (n, 2), no two alike.
    """
    n = len(points)
    if n < 3:
        order = np.argsort(np.argsort(points[:, 0], kind="stable"))
        return np.stack([order, np.zeros(n, np.int64)], -1)
    group = np.unique([str(g) for g in groups] if groups is not None else ["all"] * n, return_inverse=True)[1]
    points = points + 1e-6 * np.ptp(points, axis=0).max() * centres(spiral(n))
    places = _room(points / _width(points), group)
    low, high = np.floor(places.min(0)) - 2, np.ceil(places.max(0)) + 2
    columns = np.arange(int(low[0]), int(high[0]) + 1)
    rows = np.arange(int(low[1] / ROW), int(high[1] / ROW) + 1)
    cells = np.stack(np.meshgrid(columns, rows), -1).reshape(-1, 2)
    cost = ((places[:, None] - centres(cells)[None]) ** 2).sum(-1)
    return _from_nought(cells[_settled(cost, cells, _ties(points, group))])


def _from_nought(cells: Cells) -> Cells:
    """Cells moved so that they begin in column 0 and row 0 or 1."""
    low = cells.min(0)
    return cells - np.array([low[0], low[1] - low[1] % 2])


def _width(points: Points) -> float:
    """The width of a cell in the unit of the points."""
    span = np.ptp(points, axis=0)
    try:
        a, b, c = (points[k] for k in Delaunay(points).simplices.T)
        u, v = b - a, c - a
        hull = float(np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum() / 2.0)
    except QhullError:
        hull = 0.0
    loose = _LOOSE * math.sqrt(max(hull, float(span.max()) ** 2 / 100.0, 1e-12) / len(points))
    near = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    np.fill_diagonal(near, np.inf)
    return max(loose, float(np.median(near.min(1))))


def _room(points: Points, group: NDArray[np.int64]) -> Points:
    """Points that have given way to each other until they are about a unit apart."""
    x, want = points.copy(), np.where(group[:, None] == group[None], 1.0, _WATER)
    for _ in range(_ROUNDS):
        d = x[:, None] - x[None]
        r = np.hypot(d[..., 0], d[..., 1])
        np.fill_diagonal(r, np.inf)
        push = np.clip(want - r, 0.0, None) / np.maximum(r, 1e-9)
        x = x + _PUSH * (d * push[..., None]).sum(1) + _HOME * (points - x)
    return x


def _ties(points: Points, group: NDArray[np.int64]) -> Points:
    """What it costs that areas are a cell farther apart than neighbours: (n, n), 0 for those that aren't neighbours."""
    ties = np.zeros((len(points),) * 2)
    try:
        triangles = Delaunay(points).simplices
    except QhullError:
        return ties
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [0, 2]]])
    length = np.hypot(*(points[sides[:, 0]] - points[sides[:, 1]]).T)
    # The long sides of the hull join what isn't near.
    for a, b in sides[length <= 2.0 * np.median(length)]:
        ties[a, b] = ties[b, a] = _TOGETHER if group[a] == group[b] else _TOGETHER * _ACROSS
    return ties


def _settled(cost: Points, cells: Cells, ties: Points) -> NDArray[np.int64]:
    """The cell of each area: the cheapest assignment, where areas are few bettered by moves until none helps."""
    at = linear_sum_assignment(cost)[1]
    n = len(at)
    if cost.size > _SMALL:
        return at
    gap = np.maximum(apart(cells[:, None], cells[None]) - 1, 0)
    choices = np.argsort(cost, axis=1, kind="stable")[:, :_CHOICES]

    def own(k: int, cell: int, others: NDArray[np.int64]) -> float:
        return float(cost[k, cell] + ties[k] @ gap[cell, others])

    for _ in range(_SWEEPS):
        moved = False
        for k in range(n):
            who = {int(cell): other for other, cell in enumerate(at)}
            for cell in choices[k]:
                new = at.copy()
                new[k] = cell
                touched = [k]
                if (other := who.get(int(cell), k)) != k:
                    new[other] = at[k]
                    touched.append(other)
                change = sum(own(j, new[j], new) - own(j, at[j], at) for j in touched)
                if change < -1e-9:
                    at, moved = new, True
                    who = {int(c): j for j, c in enumerate(at)}
        if not moved:
            break
    return at


def binned(points: Points, most: int = MOST) -> tuple[NDArray[np.int32], Cells]:
    """Gather points in hexagons of one size, the smallest of which no more than so many are needed.

    Args:
        points: shape (n, 2), x to the right and y upwards, as coordinates and longitudes with latitudes are; finite.
        most: the most hexagons.
    Returns:
        the hexagon of each point, shape (n,), and the cell of each hexagon, shape (hexagons, 2).
    """
    down = np.stack([points[:, 0], -points[:, 1]], -1)
    down -= down.min(0)
    span = max(float(down.max(initial=0.0)), 1e-9)
    width = span * math.sqrt(1.0 / (ROW * most))
    for _ in range(40):
        cells, code = np.unique(_nearest(down / width), axis=0, return_inverse=True)
        if len(cells) <= most:
            break
        width *= 1.1
    return code.reshape(-1).astype(np.int32), _from_nought(cells)


def _nearest(points: Points) -> Cells:
    """The cell in which each point lies."""
    row = np.rint(points[:, 1] / ROW).astype(np.int64)
    best, least = np.zeros((len(points), 2), np.int64), np.full(len(points), np.inf)
    for r in (row - 1, row, row + 1):
        cell = np.stack([np.rint(points[:, 0] - 0.5 * (r % 2)).astype(np.int64), r], -1)
        distance = ((centres(cell) - points) ** 2).sum(-1)
        closer = distance < least - 1e-12
        best[closer], least[closer] = cell[closer], distance[closer]
    return best


def outline(cells: Cells) -> list[Points]:
    """The sides of a set of cells that no two of them share: each two corners, shape (2, 2)."""
    inside = {(int(q), int(r)) for q, r in _axial(cells)}
    sides = []
    for (q, r), centre in zip(_axial(cells).tolist(), centres(cells), strict=True):
        corner = corners(centre)
        for k, (dq, dr) in enumerate(_AROUND):
            if (q + dq, r + dr) not in inside:
                sides.append(corner[[k, (k + 1) % 6]])
    return sides
