"""The figures of a result: every tally over time, and every stratum over time and in total."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

import numpy as np
import pandas as pd
import xarray as xr

from lpmppl.report import acts, tables
from lpmppl.report.axes import number, rate, whole
from lpmppl.report.blocks import fold
from lpmppl.report.figures import DASHES, Bar, Curve, Frame, Mark, bars, lines, mark_rows, multiples

__all__ = [
    "HALF",
    "MOST_BARS",
    "NARROW",
    "WIDE",
    "colour",
    "dash",
    "dashed",
    "figure",
    "figures",
    "frame",
    "framed",
    "interventions",
    "keep_largest",
    "key",
    "key_of_worlds",
    "marks",
    "over_time",
    "said",
    "stratum",
]

COLOURS = 8
MOST_PANELS = 12
MOST_BARS = 25
NARROW, HALF, WIDE = 344.0, 420.0, 820.0


def interventions(tree: xr.DataTree) -> list[tuple[str, float, int]]:
    """Give the interventions of a run: what was set, to what value, from which day on."""
    return [(str(n), float(v), int(d)) for n, v, d in json.loads(str(tree.attrs.get("interventions", "[]")))]


def marks(tree: xr.DataTree) -> list[Mark]:
    """Give the interventions, and the days on which policies act, as marks on an axis of days."""
    return [Mark(day, f"{name} = {value:g}") for name, value, day in interventions(tree)] + acts.marks(tree)


def dashed(tree: xr.DataTree) -> str:
    """Say what the dashed lines of a figure over time are."""
    policies = " Dashed: the day on which a policy acts." if acts.marks(tree) else ""
    return " Dashed: the day of an intervention." if interventions(tree) and not policies else policies


def said(tally: xr.DataArray) -> str:
    """Name a tally within a sentence."""
    return str(tally.attrs.get("long_name") or str(tally.name).replace("_", " "))


def colour(index: int) -> str:
    """Name the page's colour of a tally or a world."""
    return f"var(--c{index % COLOURS})"


def figure(title: str, drawings: str, caption: str, legend: str = "", kind: str = "") -> str:
    """Set drawings under a title, with a key and a caption."""
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f'<figure class="{kind}">{head}{legend}{drawings}<figcaption>{escape(caption)}</figcaption></figure>'


def key_of_worlds(names: Sequence[str]) -> str:
    """Explain the colours and dashes of several worlds."""
    return key(dict(enumerate(names))) if len(names) > 1 else ""


def key(names: Mapping[int, str]) -> str:
    """Explain colours and dashes, by the numbers of their worlds."""
    items = "".join(
        f'<li><svg viewBox="0 0 26 8" aria-hidden="true"><path d="M0,4h26" stroke-width="2.5"'
        f' stroke-dasharray="{dash(i)}" style="stroke:{colour(i)}"/></svg>{escape(name)}</li>'
        for i, name in names.items()
    )
    return f'<ul class="key">{items}</ul>'


def dash(world: int) -> str:
    """Give the dashes of a world's line, so that worlds differ without colour."""
    return DASHES[world % len(DASHES)]


def curves(
    tally: xr.DataArray, lone: str, keep: str | None = None, scale: np.ndarray | float = 1.0
) -> list[list[Curve]]:
    """Give a tally's curves, one per world, for the city or for each group of `keep`; `lone` colours a single world."""
    names = tables.worlds(tally)
    groups: list[list[Curve]] = [[] for _ in range(tally.sizes[keep] if keep else 1)]
    for i, world in enumerate(names):
        band = tables.daily(tally, i, keep).reshape(3, tally.sizes["day"], -1) * scale
        for g, group in enumerate(groups):
            low, middle, high = band[:, :, g]
            group.append(Curve(world, middle, low, high, colour(i) if len(names) > 1 else lone, dash(i)))
    return groups


def frame(tree: xr.DataTree, tally: xr.DataArray, width: float, height: float) -> Frame:
    """Size a figure for the days of a tally."""
    return Frame(width, height, tally.sizes["day"], str(tree.attrs.get("start", "")))


def framed(tree: xr.DataTree, tally: xr.DataArray, width: float, height: float) -> Frame:
    """Size a figure with marks above it, taller where the names of policies take several rows."""
    size = frame(tree, tally, width, height)
    return replace(size, height=height + 13 * max(0, mark_rows(acts.marks(tree), 60.0, size) - 1))


def spread(tally: xr.DataArray) -> str:
    """Say what the line and the band of a tally are, where there are several draws."""
    count = tally.sizes.get("chain", 1) * tally.sizes.get("draw", 1)
    weighted = ", weighted by what was observed" if tables.WEIGHT in tally.coords else ""
    return f" Line: median of {count} draws{weighted}; band: 90 % of them." if count > 1 else ""


def over_time(tree: xr.DataTree, most: int | None = None) -> str:
    """Draw every tally of the whole population over time, the first one large; those after `most` folded away."""
    drawn = []
    for i, tally in enumerate(tables.tallies(tree).values()):
        lines_of = curves(tally, colour(i))[0]
        title, unit = tables.label(tally), str(tally.attrs.get("units", "people"))
        peak = max(lines_of, key=lambda c: float(c.middle.max())).middle
        described = f"{title} over {len(peak)} days, largest {number(float(peak.max()))} on day {int(peak.argmax())}"
        kind = "Counted each day" if tally.attrs.get("kind", "flow") == "flow" else "Number at the end of each day"
        caption = f"{kind}.{spread(tally)}{dashed(tree)}"
        narrow = lines(lines_of, framed(tree, tally, NARROW, 210), marks(tree), unit, described)
        size = framed(tree, tally, HALF, 215) if i else framed(tree, tally, WIDE, 290)
        wide = lines(lines_of, size, marks(tree), unit, described)
        drawing = f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
        drawn.append(figure(title, drawing, caption, key_of_worlds(tables.worlds(tally)), "" if i else "span"))
    return figures(drawn, most)


def figures(drawn: Sequence[str], most: int | None = None, kind: str = "figures", what: str = "") -> str:
    """Set figures beside one another, those after `most` folded away; `what` says what they are."""
    shown, rest = drawn[:most], drawn[len(drawn[:most]) :]
    more = f'<div class="{kind}">{"".join(rest)}</div>' if rest else ""
    title = f"{len(rest)} more {'figure' if len(rest) == 1 else 'figures'}{what}"
    return (f'<div class="{kind}">{"".join(shown)}</div>' if shown else "") + fold(title, more)


def stratum(tree: xr.DataTree, name: str, summary: pd.DataFrame) -> str:
    """Draw a stratum: its first tally over time, one small plot per group, and bars of every flow by group."""
    broken_down = {k: v for k, v in tables.tallies(tree).items() if name in v.dims}
    order = list(tables.tallies(tree))
    first, tally = next(iter(broken_down.items()))
    drawn = [panels(tree, name, tally, colour(order.index(first)))]
    flows = [k for k, v in broken_down.items() if v.attrs.get("kind", "flow") == "flow"] or [first]
    drawn += [totals_by(name, broken_down[flow], colour(order.index(flow)), summary) for flow in flows]
    return figures(drawn, kind="figures three")


def panels(tree: xr.DataTree, name: str, tally: xr.DataArray, lone: str) -> str:
    """Draw a tally over time in one small plot per group, per 100,000 residents where they are known."""
    residents = tables.people(tree, name)
    groups = tables.levels(tally, name)
    rated = bool(residents) and all(residents.get(g, 0) > 0 for g in groups)
    scale = 1e5 / np.array([residents[g] for g in groups]) if rated else 1.0
    everyone = 1e5 / float(tree.attrs["agents"]) if rated else 1.0
    by_group = curves(tally, lone, name, scale)
    kept = keep_largest([max(float(c.middle.sum()) for c in g) for g in by_group], MOST_PANELS)
    whole = curves(tally, lone, None, everyone)[0][0]
    reference = Curve("Everyone", whole.middle, whole.middle, whole.middle, "var(--axis)")
    title, units = tables.label(tally), str(tally.attrs.get("units", "people"))
    unit = units.replace("people", "per 100,000", 1) if rated else units
    shown = rated and len(tables.worlds(tally)) == 1
    caption = f"One plot per group on one scale{'; grey: everyone' if shown else ''}.{spread(tally)}"
    if len(kept) < len(groups):
        caption = f"The {len(kept)} largest of {len(groups)} groups. {caption}"
    drawing = multiples(
        [(groups[g], by_group[g]) for g in kept],
        reference if shown else None,
        frame(tree, tally, NARROW, 92),
        marks(tree),
        unit,
        f"{title} over time by {name}, one plot per group",
    )
    return figure(f"{title} by {name.replace('_', ' ')}", drawing, caption, key_of_worlds(tables.worlds(tally)))


def totals_by(name: str, tally: xr.DataArray, lone: str, summary: pd.DataFrame) -> str:
    """Draw what a tally adds up to by group, per 100,000 residents where they are known, with the count beside it."""
    of_tally = summary[(summary["stratum"] == name) & (summary["tally"] == str(tally.name))]
    names = tables.worlds(tally)
    rated = bool(of_tally["per_100000"].notna().all())
    groups = tables.levels(tally, name)
    largest = of_tally.groupby("group", sort=False)["value"].max().reindex(groups).tolist()
    kept = keep_largest(largest, MOST_BARS)
    rows = []
    for g in kept:
        for row in of_tally[of_tally["group"] == groups[g]].itertuples():
            scale = 1e5 / float(row.people) if rated else 1.0
            paint = colour(names.index(row.world)) if len(names) > 1 else lone
            note = whole(row.value) if rated else ""
            rows.append(Bar(row.group, row.value * scale, row.low * scale, row.high * scale, note, paint))
    peak = tally.attrs.get("kind", "flow") == "stock"
    title = f"{tables.label(tally)}{' at its peak' if peak else ' in all'} by {name.replace('_', ' ')}"
    whisker = " Whiskers: 90 % of draws." if any(b.high > b.low for b in rows) else ""
    unit = tables.unit(tally)
    caption = "Bars: per 100,000 residents of the group; at the right: people." if rated else f"Bars: {unit}."
    if len(kept) < len(groups):
        caption = f"The {len(kept)} largest of {len(groups)} groups. {caption}"
    drawing = bars(
        rows, NARROW, "per 100,000" if rated else unit, "people" if rated else "", title, rate if rated else whole
    )
    return figure(title, drawing, caption + whisker, key_of_worlds(names))


def keep_largest(sizes: Sequence[float], most: int) -> list[int]:
    """Choose the `most` largest, in the order in which they came.

    >>> keep_largest([3, 1, 2], 2)
    [0, 2]
    """
    return sorted(sorted(range(len(sizes)), key=lambda i: -sizes[i])[:most])
