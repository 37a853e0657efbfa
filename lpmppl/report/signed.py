"""Figures of differences: curves and bars that go below zero."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from lpmppl.report.axes import day_ticks, signed, signed_ticks, text_width, tick
from lpmppl.report.figures import SIZE, Bar, Box, Curve, Frame, Mark, curve, mark_lines, mark_rows, plot_data, svg, text

__all__ = ["bars", "lines"]


def minus(value: float) -> str:
    """Write a tick that may be negative.

    >>> minus(-1500000), minus(250)
    ('−1.5M', '250')
    """
    return tick(value).replace("-", "−")


def lines(curves: Sequence[Curve], frame: Frame, marks: Sequence[Mark], unit: str, describe: str) -> str:
    """Draw daily differences over the days of a run, about a line at zero.

    `unit` is written above the axis of values, `describe` is what a screen reader says.
    """
    lowest = min(float(np.nanmin(c.low, initial=0.0)) for c in curves)
    ticks = signed_ticks(lowest, max(c.top for c in curves))
    left = max(text_width(minus(t)) for t in ticks) + 10
    head = 26 + 13 * mark_rows(marks, left, frame)
    box = Box(left, head, frame.width - 10, frame.height - 24, frame.days, ticks[-1], ticks[0])
    body = (
        text(2, 12, unit, "unit")
        + zero_axis(box, ticks)
        + "".join(curve(box, c, filled=len(curves) == 1) for c in curves)
        + days_below(box, frame)
        + mark_lines(box, marks)
    )
    plot = {**plot_data(box, curves), "least": box.least, "signed": True}
    return svg(frame.width, frame.height, body, describe, [plot], frame.start)


def zero_axis(box: Box, ticks: Sequence[float]) -> str:
    """Draw grid lines with their values to the left of a plot, that of zero as the axis."""
    parts = []
    for value in ticks:
        y, kind = box.y(value), "grid" if value else "axis"
        parts.append(f'<line class="{kind}" x1="{box.left:.1f}" x2="{box.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(box.left - 6, y + 4, minus(value), "tick", "end"))
    return "".join(parts)


def days_below(box: Box, frame: Frame) -> str:
    """Name the days under a plot."""
    parts = []
    for day, name in day_ticks(frame.days, box.right - box.left, frame.start):
        x = box.x(day)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{box.bottom:.1f}" y2="{box.bottom + 4:.1f}"/>')
        parts.append(text(x, box.bottom + 16, name, "tick", "middle"))
    return "".join(parts)


def bars(rows: Sequence[Bar], width: float, unit: str, describe: str, write: Callable[[float], str] = signed) -> str:
    """Draw horizontal bars to both sides of zero, each with its value, as `write` puts it, at its end.

    Bars of one group that follow one another share its name; a band wider than zero is drawn as a whisker.
    """
    groups = [[b for b in rows if b.group == name] for name in dict.fromkeys(b.group for b in rows)]
    named = [short(g[0].group) for g in groups]
    rooms = [
        max([text_width(write(b.value)) + 8 for b in rows if (b.value < 0) == below] + [8.0]) for below in (True, False)
    ]
    left = max(text_width(g) for g in named) + 10
    low, high = min(0.0, *(b.low for b in rows)), max(0.0, *(b.high for b in rows))
    scale = (width - left - sum(rooms) - 4) / ((high - low) or 1.0)
    zero = left + rooms[0] - low * scale
    thick = 14.0 if all(len(g) == 1 for g in groups) else 12.0
    parts, y = [text(left, 12, unit, "unit")], 22.0
    for name, group in zip(named, groups, strict=True):
        parts.append(text(left - 8, y + (len(group) * (thick + 1) - 1) / 2 + 4, name, "label", "end"))
        for bar in group:
            parts.append(_bar(bar, zero, scale, y, thick, write))
            y += thick + 1
        y += 8 if len(group) > 1 else 3
    parts.append(f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="18" y2="{y:.1f}"/>')
    return svg(width, y + 4, "".join(parts), describe)


def _bar(bar: Bar, zero: float, scale: float, y: float, thick: float, write: Callable[[float], str]) -> str:
    at, ends = y + thick / 2, [zero + scale * v for v in (bar.low, bar.value, bar.high)]
    start, long = min(zero, ends[1]), abs(ends[1] - zero)
    drawn = (
        f'<rect x="{start:.1f}" y="{y:.1f}" width="{max(long, 0.5):.1f}" height="{thick:g}" rx="1.5"'
        f' style="fill:{bar.colour}"/>'
    )
    if bar.high > bar.low:
        drawn += f'<path class="whisker" d="M{ends[0]:.1f},{at - 3:.1f}v6m0,-3H{ends[2]:.1f}m0,-3v6"/>'
    below = bar.value < 0
    beside = min(ends[0], start) - 6 if below else max(ends[2], start + long) + 6
    return drawn + text(beside, at + SIZE / 2 - 1.5, write(bar.value), "value", "end" if below else "start")


def short(name: str, room: float = 118.0) -> str:
    """Cut a name to the room that it has, in pixels.

    >>> short("Bronx"), short("81–120 % of the median income")
    ('Bronx', '81–120 % of the…')
    """
    return name if text_width(name) <= room else f"{name[: math.floor(room / text_width('x')) - 2]}…"
