"""A result on a map of hexagons that plays day by day: one self-contained page, without a network or a map server."""

from __future__ import annotations

import base64
import json
import os
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from lpmppl.errors import InputError, nearest
from lpmppl.report import hexagons, page, tables
from lpmppl.report.atomic import replacing
from lpmppl.report.axes import number, whole
from lpmppl.report.blocks import table
from lpmppl.report.places import Places, known, places

__all__ = ["SERIES", "Map", "Packed", "dimension", "embedded", "render", "write"]

_WEEK = 7
_DIGITS = 3


def _running(x: xr.DataArray) -> xr.DataArray:
    """The mean of a day and the six before it, of as many as there are."""
    total = x.cumsum("day", skipna=False)
    days = xr.DataArray(np.minimum(np.arange(x.sizes["day"]) + 1, _WEEK), dims="day")
    return (total - total.shift(day=_WEEK, fill_value=0)) / days


SERIES: Mapping[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "daily": lambda x: x,
    "week": _running,
    "sum": lambda x: x.cumsum("day", skipna=False),
}
"""What of a tally's series may be shown: each day's number, the mean of seven days up to it, and the sum so far."""


def write(
    tree: xr.DataTree, path: str | Path, geo: str | None = None, laid: Places | None = None, back: str = ""
) -> Path:
    """Write the map of a result to a file, or as map.html into a folder; gives the file's path.

    Args:
        tree: the result, whose tallies have a dimension of areas.
        path: the file, ending in `.html`, or a folder, made if need be; the file appears whole or not at all.
        geo: the dimension; by default the one whose labels are areas that are known.
        laid: where its areas are; by default as `lpmppl.report.places.places` lays them out.
        back: the address of the result's report, for a link to it; none by default.
    Raises:
        InputError: as `render` does, or where the file can't be written.
    """
    return Map(render(tree, geo, laid, back)).write(path)


@dataclass(frozen=True)
class Map:
    """A map as a page: shown where it is the last line of a notebook's cell, and written where it is asked to be."""

    html: str

    def write(self, path: str | Path) -> Path:
        """Write it to a file that ends in `.html`, or as map.html into a folder, whole or not at all."""
        if not isinstance(path, str | os.PathLike) or not str(path):
            raise InputError(f"path={path!r} was given; give a file that ends in .html, or a folder")
        target = Path(path)
        if target.suffix != ".html":
            _folder(target)
            target = target / "map.html"
        with replacing(target) as part:
            part.write_text(self.html, encoding="utf-8")
        return target

    def __repr__(self) -> str:
        return f"Map({len(self.html) // 1000:,} kB; .write(path) keeps it as a page of its own)"

    def _repr_html_(self) -> str:
        return (
            '<iframe title="Map" sandbox="allow-scripts" loading="lazy" style="width: 100%; height: 820px; border: 0" '
            f'srcdoc="{escape(self.html, quote=True)}"></iframe>'
        )


def _folder(target: Path) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {target} can't be made ({error.strerror}): choose another") from error


def render(tree: xr.DataTree, geo: str | None = None, laid: Places | None = None, back: str = "") -> str:
    """Give the map of a result as HTML; the arguments are those of `write`.

    Raises InputError where the result has no tallies, nothing in them, or none of them is by areas; or for arguments of
    other kinds.
    """
    if not isinstance(tree, xr.DataTree):
        raise InputError(f"nothing to map: {type(tree).__name__} is no result; give what lpmppl.run or execute() gave")
    for what, value, kind, such in (
        ("geo", geo, str | None, "the name of a dimension of the tallies, such as 'puma'"),
        ("laid", laid, Places | None, "what lpmppl.report.places.places lays out"),
        ("back", back, str, "an address"),
    ):
        if not isinstance(value, kind):
            raise InputError(f"{what}= is {type(value).__name__}; give {such}, or leave it out")
    if not tables.held(tree) or "agents" not in tree.attrs or not tables.tallies(tree):
        raise InputError("nothing to map: the result has no daily tallies; make one with lpmppl.run or lpmppl simulate")
    _check(tree)
    dim = dimension(tree, geo)
    mapped = {name: tally for name, tally in tables.tallies(tree).items() if dim in tally.dims}
    labels = tables.levels(next(iter(mapped.values())), dim)
    where = places(labels, dim=dim) if laid is None else laid
    if len(where.names) != len(labels):
        raise InputError(f"laid= has {len(where.names)} areas, but '{dim}' has {len(labels)}; give one for each")
    about, blob = embedded(tree, dim, mapped, where)
    heading = f"{page.place(tree) or 'The society'} by {where.title}"
    link = f'<p class="back"><a href="{escape(back, quote=True)}">The whole report</a></p>' if back else ""
    parts = {
        "title": escape(heading),
        "over": escape(page.overline(tree)),
        "lead": escape(_lead(tree, mapped)),
        "note": escape(where.note),
        "back": link,
        "table": _totals(tree, dim, mapped, where),
        "about": json.dumps(about, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c").replace("&", "\\u0026"),
        "blob": blob,
        "css": _template("css"),
        "js": _template("js"),
    }
    return re.sub(r"<!--(\w+)-->", lambda found: parts[found[1]], _template("html"))


def _check(tree: xr.DataTree) -> None:
    """Refuse a result that lacks what every one says of itself, or has nothing in it."""
    for name, kind in (("agents", int), ("days", int), ("model", str)):
        found = tree.attrs.get(name)
        if not isinstance(found, kind | np.integer if kind is int else kind) or isinstance(found, bool):
            given = "nothing" if found is None else repr(found)
            raise InputError(f"nothing to map: the result says {given} of its {name}; make it anew")
    for name, tally in tables.tallies(tree).items():
        if empty := next((d for d, size in tally.sizes.items() if not size), None):
            raise InputError(f"nothing to map: tally '{name}' has no {empty}; keep one or more of its dimension")


def _template(kind: str) -> str:
    return files("lpmppl.report").joinpath("templates", f"map.{kind}").read_text("utf-8")


def dimension(tree: xr.DataTree, geo: str | None = None) -> str:
    """The dimension of a result's tallies that holds areas: the one that is asked for, or that is known for one.

    Raises InputError where there is none, naming what to do.
    """
    strata: dict[str, list[str]] = {}
    for tally in tables.tallies(tree).values():
        strata |= {d: tables.levels(tally, d) for d in tables.strata(tally) if d in tally.coords}
    if geo is not None:
        if geo not in strata:
            raise InputError(
                f"{nearest('dimension of the tallies', geo, strata) if strata else 'the tallies have no strata'}; to "
                f'have it, run with by={{"{geo}": …}} or --by {geo}=VARIABLE'
            )
        return geo
    of = {known(labels): dim for dim, labels in reversed(strata.items())}
    for what in ("puma", "borough"):
        if what in of:
            return of[what]
    if "area" in strata:
        return "area"
    by = f"are by {', '.join(strata)}, which is no area that is known" if strata else "have no areas"
    raise InputError(
        f'nothing to map: the tallies {by}; run with by={{"puma": "puma"}}, or --by puma, or say which are areas'
    )


def _lead(tree: xr.DataTree, mapped: Mapping[str, xr.DataArray]) -> str:
    tally = next(iter(mapped.values()))
    count = int(np.prod([tally.sizes[d] for d in ("chain", "draw") if d in tally.sizes]))
    drawn = f" Means of {count} draws, with 90 % of them in brackets." if count > 1 else ""
    days = int(tally.sizes["day"])
    return f"{tables.agents(tree)}, {days} {'day' if days == 1 else 'days'}.{drawn}"


class Packed:
    """Arrays one behind the other, each in the fewest bytes that hold it: compressed, and as text.

    Whole numbers are kept as they are; others to the seven digits of single precision.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, values: NDArray[Any]) -> dict[str, object]:
        """Add an array, and give where it is: kind, offset in bytes, and number of values."""
        flat = np.asarray(values, dtype=np.float64).ravel()
        kind = "f4"
        if np.isfinite(flat).all() and (flat == np.rint(flat)).all() and (flat >= 0).all():
            most = flat.max(initial=0.0)
            kind = next((k for k, n in (("u1", 8), ("u2", 16), ("u4", 32)) if most < 2.0**n), "f8")
        raw = flat.astype(f"<{kind}").tobytes()
        at, self._length = self._length, self._length + len(raw)
        self._parts.append(raw)
        return {"kind": kind, "at": at, "count": int(flat.size)}

    def text(self) -> str:
        """All of them, deflated, in base 64."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), 9)).decode("ascii")


def embedded(
    tree: xr.DataTree, dim: str, mapped: Mapping[str, xr.DataArray], where: Places
) -> tuple[dict[str, Any], str]:
    """What the page holds: a description as JSON, and the numbers by area, packed as text.

    The numbers of a tally are means over draws of shape (world, day, area), and with several draws also the ends of
    their 90 % band, of each series and of its difference from the first world.
    """
    first = next(iter(mapped.values()))
    counts, packed = tables.people(tree, dim), Packed()
    names = [w or "as it was" for w in tables.worlds(first)]
    labels, centres = tables.levels(first, dim), hexagons.centres(where.cells)
    group_of = {int(a): g for a, g in zip(where.area, where.groups, strict=False)}
    about: dict[str, Any] = {
        "days": int(first.sizes["day"]),
        "start": str(tree.attrs.get("start", "")),
        "everybody": page.place(tree) or "Everybody",
        "areas": [
            {"label": label, "name": name, "group": "" if name == group_of.get(k) else group_of.get(k, "")}
            for k, (label, name) in enumerate(zip(labels, where.names, strict=True))
        ],
        # A result that doesn't say how many people there are gives no number per head.
        "people": [int(counts[label]) for label in labels] if counts and {*labels} <= {*counts} else None,
        "cells": [
            [round(x, _DIGITS), round(y, _DIGITS), int(a)]
            for (x, y), a in zip(centres.tolist(), where.area, strict=True)
        ],
        "groups": where.outlines(),
        "worlds": names,
        "tallies": [_numbers(name, tally, dim, packed) for name, tally in mapped.items()],
    }
    return about, packed.text()


def _numbers(name: str, tally: xr.DataArray, dim: str, packed: Packed) -> dict[str, Any]:
    """What the page says of one tally, with where its numbers are."""
    worlds = "world" in tally.dims
    values = tally.sum([d for d in tables.strata(tally) if d != dim], skipna=False)
    values = values if worlds else values.expand_dims(world=[""])
    values = values.transpose(..., "world", "day", dim)
    stock = tally.attrs.get("kind") == "stock"
    said: dict[str, Any] = {
        "name": name,
        "label": tables.label(tally),
        "unit": "" if tables.of_people(tally) else tables.unit(tally),
        "people": tables.of_people(tally),
        "stock": stock,
        "mean": packed.add(_mean(values)),
    }
    samples = [d for d in tables.SAMPLES if d in values.dims]
    if int(np.prod([values.sizes[d] for d in samples])) > 1:
        series = {k: f(values) for k, f in SERIES.items() if not (stock and k == "sum")}
        said["band"] = {k: _band(x, packed) for k, x in series.items()}
        if worlds and values.sizes["world"] > 1:
            beside = {k: x.isel(world=slice(1, None)) - x.isel(world=0, drop=True) for k, x in series.items()}
            said["gap"] = {k: _band(x.transpose(*values.dims), packed) for k, x in beside.items()}
    return said


def _mean(values: xr.DataArray) -> NDArray[np.float64]:
    samples = [d for d in tables.SAMPLES if d in values.dims]
    weighted = values.weighted(values.coords[tables.WEIGHT]) if tables.WEIGHT in values.coords else values
    return np.asarray(weighted.mean(samples, skipna=False) if samples else values, dtype=np.float64)


def _band(values: xr.DataArray, packed: Packed) -> list[dict[str, object]]:
    """Where the two ends of the 90 % band over draws are."""
    samples, ends = [d for d in tables.SAMPLES if d in values.dims], (tables.BAND[0], tables.BAND[-1])
    if tables.WEIGHT in values.coords:
        weighted = values.weighted(values.coords[tables.WEIGHT]).quantile(ends, dim=samples, skipna=False)
        found = weighted.transpose("quantile", ...).to_numpy()
    else:
        shape = [values.sizes[d] for d in values.dims if d not in samples]
        found = np.quantile(values.transpose(*samples, ...).to_numpy().reshape(-1, *shape), ends, axis=0)
    return [packed.add(end) for end in found]


def _totals(tree: xr.DataTree, dim: str, mapped: Mapping[str, xr.DataArray], where: Places) -> str:
    """The table of totals, for readers without a script, or without the map."""
    counts, first = tables.people(tree, dim), next(iter(mapped.values()))
    labels = tables.levels(first, dim)
    head = ["", "People"]
    columns: list[NDArray[np.float64]] = []
    for tally in mapped.values():
        stock = tally.attrs.get("kind") == "stock"
        title = tables.label(tally) + (", most on a day" if stock else "")
        for k, world in enumerate(tables.worlds(tally)):
            head.append(title + (f": {world}" if world else ""))
            one = tables.amount(tables.city(tally, k, dim), "stock" if stock else "flow")
            columns.append(_mean(one.transpose(..., dim)))
    body = [
        f'<tr><th scope="row">{escape(name)}</th><td>{whole(counts.get(label, np.nan))}</td>'
        + "".join(f"<td>{number(float(column[k]))}</td>" for column in columns)
        + "</tr>"
        for k, (label, name) in enumerate(zip(labels, where.names, strict=True))
    ]
    return table(head, body, f"Totals of {tree.attrs['days']} days; of people in a state, the most on any one day.")
