"""The figures of what policies changed: every tally's difference over time, and by group."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import xarray as xr

from lpmppl.report import charts, tables
from lpmppl.report.acts import drawn as drawn_from
from lpmppl.report.acts import policies, several
from lpmppl.report.axes import amount, rate, signed
from lpmppl.report.blocks import join
from lpmppl.report.effects import Effect, differs, effects, main, moved
from lpmppl.report.figures import Bar, Curve
from lpmppl.report.signed import bars, lines

__all__ = ["grouped", "over_time"]

UNFOLDED = 3
"""How many figures of a stratum a page shows unfolded."""


def over_time(tree: xr.DataTree) -> str:
    """Draw the daily effects on the main tallies that any policy moves, and folded away those on the others."""
    everything = tables.tallies(tree)
    differ, first = moved(tree, "effects_daily"), main(tree)
    drawn = [n for n in everything if n in differ]
    still = [charts.said(everything[n]) for n in everything if n not in drawn]
    unfolded = sum(n in first for n in drawn)
    figures = [daily(tree, everything[n], i == 0) for i, n in enumerate(drawn)]
    none = f"<p>No effect on any day, exactly: {escape(join(still))}.</p>" if still else ""
    return charts.figures(figures, unfolded, what=" of daily effects") + none


def daily(tree: xr.DataTree, tally: xr.DataArray, first: bool) -> str:
    """Draw the daily effect of every policy on a tally."""
    x, names = tree["effects_daily"].to_dataset()[tally.name], policies(tree)
    curves, drawn = [], np.flatnonzero(differs(x)).tolist()
    for k in drawn:
        low, mean, high = (x.isel(policy=k).sel(estimate=e).to_numpy() for e in ("low", "mean", "high"))
        curves.append(Curve(names[k], mean, low, high, charts.colour(k + 1), charts.dash(k + 1)))
    days, draws = tally.sizes["day"], several(tree)
    marks, unit = charts.marks(tree), str(tally.attrs.get("units", "people"))
    largest = max(curves, key=lambda c: float(abs(c.middle).max())).middle
    day = int(abs(largest).argmax())
    most = f"{signed(float(largest[day]))} on day {day}"
    described = f"Difference in {charts.said(tally)} over {days} days, largest {most}"
    spread = f" Line: mean of {drawn_from(tree)}; band: 90 % of them." if draws > 1 else ""
    caption = f"With a policy, less without it.{spread}{left_out(names, drawn)}{charts.dashed(tree)}"
    drawings = [
        lines(curves, charts.framed(tree, tally, width, height), marks, unit, described)
        for width, height in ((charts.WIDE, 290) if first else (charts.HALF, 215), (charts.NARROW, 210))
    ]
    drawing = f'<div class="wide">{drawings[0]}</div><div class="narrow">{drawings[1]}</div>'
    title = f"{tables.label(tally)}: difference each day"
    return charts.figure(title, drawing, caption, key_of_policies(names, drawn), "span" if first else "")


def key_of_policies(names: Sequence[str], drawn: Sequence[int]) -> str:
    """Explain the colours of the policies that are drawn, where there are several."""
    return charts.key({k + 1: names[k] for k in drawn}) if len(names) > 1 else ""


def left_out(names: Sequence[str], drawn: Sequence[int]) -> str:
    """Name the policies that aren't drawn, because they change nothing."""
    still = [name for k, name in enumerate(names) if k not in drawn]
    return f" No effect, exactly: {join(still)}." if still else ""


def grouped(tree: xr.DataTree, stratum: str) -> str:
    """Draw the effects by group of a stratum, the first few tallies unfolded."""
    found = {n: e for n, e in effects(tree, stratum).items() if e[0][0].kind != "last"}
    differ = moved(tree, f"effects_by_{stratum}")
    drawn = [in_groups(tree, stratum, titled(tree, e[0][0]), e) for n, e in found.items() if n in differ]
    still = [titled(tree, e[0][0]) for n, e in found.items() if n not in differ]
    none = f"<p>No effect in any group, exactly: {escape(join(still))}.</p>" if still else ""
    return charts.figures(drawn, UNFOLDED, "figures three", f" of effects by {stratum.replace('_', ' ')}") + none


def titled(tree: xr.DataTree, effect: Effect) -> str:
    """Name what an effect on a group is on, within a sentence."""
    tally = tree["prior_predictive"].to_dataset()[effect.tally]
    return charts.said(tally) + (" at the peak" if effect.kind == "peak" else "")


def in_groups(tree: xr.DataTree, stratum: str, what: str, found: list[list[Effect]]) -> str:
    """Draw the effects on a tally by group, per 100,000 residents where they are known."""
    residents, names = tables.people(tree, stratum), policies(tree)
    groups, unit = [e.title for e in found[0]], found[0][0].units
    rated = unit == "people" and all(residents.get(g, 0) > 0 for g in groups)
    kept = charts.keep_largest([max(abs(f[g].mean) for f in found) for g in range(len(groups))], charts.MOST_BARS)
    drawn = [k for k, of_policy in enumerate(found) if not all(e.none for e in of_policy)]
    rows = []
    for g in kept:
        scale = 1e5 / residents[groups[g]] if rated else 1.0
        for k in drawn:
            e = found[k][g]
            rows.append(Bar(groups[g], e.mean * scale, e.low * scale, e.high * scale, "", charts.colour(k + 1)))
    title = f"{what} by {stratum.replace('_', ' ')}"
    title = title[:1].upper() + title[1:]
    caption = "Difference per 100,000 residents of the group." if rated else f"Difference in {unit}."
    if len(kept) < len(groups):
        caption = f"The {len(kept)} largest of {len(groups)} groups. {caption}"
    caption += " Whiskers: 90 % of draws." if any(b.high > b.low for b in rows) else ""
    caption += left_out(names, drawn)

    def write(value: float) -> str:
        words = rate(abs(value)) if rated and value else amount(abs(value))
        return words if value == 0 else f"{'−' if value < 0 else '+'}{words}"

    drawing = bars(rows, charts.NARROW, "per 100,000" if rated else unit, f"Effect on {title}", write)
    return charts.figure(title, drawing, caption, key_of_policies(names, drawn))
