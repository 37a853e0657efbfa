"""The figures of a report, as inline SVG that takes its colours from the page."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from lpmppl.report.axes import day_label, day_ticks, number, text_width, tick, value_ticks

__all__ = ["Bar", "Curve", "Frame", "Mark", "bars", "lines", "multiples"]

SIZE = 11
DASHES = ("", "6 3", "2 3", "8 3 2 3")


@dataclass(frozen=True)
class Curve:
    """A daily series in one colour: its median and, with several draws, a 90 % band; each of shape (days,)."""

    name: str
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    colour: str = "var(--c0)"
    dash: str = ""

    @property
    def top(self) -> float:
        """The largest value that has to fit on the axis."""
        return float(np.nanmax(self.high, initial=0.0))

    @property
    def banded(self) -> bool:
        """Whether the band is wider than the line."""
        return bool(np.any(self.high > self.low))


@dataclass(frozen=True)
class Mark:
    """A day on which something was changed, and what the figure calls it."""

    day: int
    text: str


@dataclass(frozen=True)
class Frame:
    """The size of a figure in pixels, and the days on its axis."""

    width: float
    height: float
    days: int
    start: str = ""


@dataclass(frozen=True)
class Bar:
    """One bar of a group: its value, its 90 % band, and a note at the right."""

    group: str
    value: float
    low: float
    high: float
    note: str = ""
    colour: str = "var(--c0)"


@dataclass(frozen=True)
class Box:
    """Where data go: the pixels of a plot, its days, and the values at its top and its bottom."""

    left: float
    top: float
    right: float
    bottom: float
    days: int
    most: float
    least: float = 0.0

    def x(self, day: float) -> float:
        """Place a day: the middle of the box where there is only one."""
        return self.left + (self.right - self.left) * (day / (self.days - 1) if self.days > 1 else 0.5)

    def y(self, value: float) -> float:
        """Place a value."""
        return self.bottom - (self.bottom - self.top) * (value - self.least) / (self.most - self.least)

    def path(self, values: np.ndarray) -> str:
        """Draw a series as path data; a single day is a short stroke."""
        if len(values) == 1:
            return f"M{self.x(0) - 6:.1f},{self.y(values[0]):.1f}h12"
        return "M" + "L".join(f"{self.x(d):.1f},{self.y(v):.1f}" for d, v in enumerate(values))

    def area(self, low: np.ndarray, high: np.ndarray) -> str:
        """Draw the area between two series as path data."""
        back = "L".join(f"{self.x(d):.1f},{self.y(low[d]):.1f}" for d in range(len(low) - 1, -1, -1))
        return f"{self.path(high)}L{back}Z"


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    """Set a line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def svg(
    width: float, height: float, body: str, describe: str, plots: Sequence[dict[str, object]] = (), start: str = ""
) -> str:
    """Wrap a drawing; `plots` are what the page's script reads values from."""
    data, cursor = "", ""
    if plots:
        values = escape(json.dumps(plots, ensure_ascii=False, separators=(",", ":")), quote=False).replace("'", "&#39;")
        data, cursor = f" data-start=\"{start}\" data-plots='{values}'", '<g class="cursor"></g>'
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(describe)}"{data}>{body}{cursor}</svg>'
    )


def plot_data(box: Box, curves: Sequence[Curve], heading: str = "") -> dict[str, object]:
    """Give the script of the page what it needs to read values off a plot."""
    return {
        "box": [round(v, 1) for v in (box.left, box.top, box.right, box.bottom)],
        "most": box.most,
        "heading": heading,
        "series": [{"name": c.name, "colour": c.colour, "values": [compact(v) for v in c.middle]} for c in curves],
    }


def compact(value: float) -> float | int:
    """Keep the digits that a reader is shown."""
    return int(value) if float(value).is_integer() else round(float(value), 2)


def curve(box: Box, series: Curve, filled: bool) -> str:
    """Draw one series: its band or, alone and certain, the area under it, then its line."""
    shade = ""
    if series.banded:
        shade = f'<path class="band" d="{box.area(series.low, series.high)}" style="fill:{series.colour}"/>'
    elif filled and box.days > 1:
        area = box.area(np.zeros_like(series.middle), series.middle)
        shade = f'<path class="area" d="{area}" style="fill:{series.colour}"/>'
    dash = f' stroke-dasharray="{series.dash}"' if series.dash else ""
    return f'{shade}<path class="line" d="{box.path(series.middle)}" style="stroke:{series.colour}"{dash}/>'


def day_axis(box: Box, frame: Frame) -> str:
    """Draw the axis of days under a plot."""
    parts = [
        f'<line class="axis" x1="{box.left:.1f}" x2="{box.right:.1f}" y1="{box.bottom:.1f}" y2="{box.bottom:.1f}"/>'
    ]
    for day, name in day_ticks(frame.days, box.right - box.left, frame.start):
        x = box.x(day)
        parts.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{box.bottom:.1f}" y2="{box.bottom + 4:.1f}"/>')
        parts.append(text(x, box.bottom + 16, name, "tick", "middle"))
    return "".join(parts)


def value_axis(box: Box, ticks: Sequence[float]) -> str:
    """Draw grid lines with their values to the left of a plot."""
    parts = []
    for value in ticks:
        y = box.y(value)
        if value:
            parts.append(f'<line class="grid" x1="{box.left:.1f}" x2="{box.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(box.left - 6, y + 4, tick(value), "tick", "end"))
    return "".join(parts)


def mark_places(box: Box, marks: Sequence[Mark]) -> list[tuple[Mark, float, int]]:
    """Place the text of marks above a plot: where its middle is, and in which row, so that none collide."""
    places = []
    rows: list[float] = []
    for mark in sorted(marks, key=lambda m: m.day):
        half = text_width(mark.text, SIZE) / 2
        middle = min(max(box.x(mark.day), box.left + half), box.right - half)
        row = next((r for r, end in enumerate(rows) if middle - half > end + 6), len(rows))
        rows[row : row + 1] = [middle + half]
        places.append((mark, middle, row))
    return places


def mark_lines(box: Box, marks: Sequence[Mark]) -> str:
    """Draw a dashed line on the day of each mark, its text above the plot."""
    parts, texts = [], []
    for mark, middle, row in mark_places(box, marks):
        x, y = box.x(mark.day), box.top - 8 - 13 * row
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y + 4:.1f}" y2="{box.bottom:.1f}"/>')
        texts.append(text(middle, y, mark.text, "marktext", "middle"))
    return "".join(parts + texts)


def mark_rows(marks: Sequence[Mark], left: float, frame: Frame) -> int:
    """Count the rows of text that marks take above a plot that begins at `left`, with some room between them."""
    box = Box(left, 0.0, frame.width - 10, 0.0, frame.days, 1.0)
    loosely = 1 + int(sum(text_width(m.text) + 6 for m in marks) // max(frame.width - left, 1))
    return max(min(len(marks), loosely), *(1 + row for _, _, row in mark_places(box, marks)), 0)


def peak_note(box: Box, series: Curve, frame: Frame, marks: Sequence[Mark]) -> str:
    """Name the highest day of a lone curve over its dot, clear of the lines of marks where there is room."""
    day = int(np.argmax(series.middle))
    value = float(series.middle[day])
    if value <= 0:
        return ""
    words = f"peak {number(value)}, {day_label(day, frame.start)}"
    half = text_width(words) / 2
    x = min(max(box.x(day), box.left + half + 4), max(box.right - half, box.left + half + 4))
    for at in (box.x(m.day) for m in marks):
        sides = (1, -1) if at <= box.x(day) else (-1, 1)
        beside = [at + s * (half + 5) for s in sides if box.left + half < at + s * (half + 5) < box.right - half]
        if abs(x - at) < half + 4 and beside:
            x = beside[0]
    return (
        f'<circle class="dot" cx="{box.x(day):.1f}" cy="{box.y(value):.1f}" r="3.5" style="fill:{series.colour}"/>'
        + text(x, box.y(max(value, float(series.high[day]))) - 9, words, "note", "middle")
    )


def lines(curves: Sequence[Curve], frame: Frame, marks: Sequence[Mark], unit: str, describe: str) -> str:
    """Draw daily series over the days of a run.

    `unit` is written above the axis of values, `describe` is what a screen reader says. A single curve has its peak
    named.
    """
    highest = max(c.top for c in curves)
    ticks = value_ticks(highest * (1.14 if len(curves) == 1 else 1.0), count=4)
    left = max(text_width(tick(t)) for t in ticks) + 10
    head = 26 + 13 * mark_rows(marks, left, frame)
    box = Box(left, head, frame.width - 10, frame.height - 24, frame.days, ticks[-1])
    lone = len(curves) == 1
    body = (
        text(2, 12, unit, "unit")
        + value_axis(box, ticks)
        + "".join(curve(box, c, filled=lone) for c in curves)
        + day_axis(box, frame)
        + mark_lines(box, marks)
        + (peak_note(box, curves[0], frame, marks) if lone else "")
    )
    return svg(frame.width, frame.height, body, describe, [plot_data(box, curves)], frame.start)


def multiples(
    panels: Sequence[tuple[str, Sequence[Curve]]],
    reference: Curve | None,
    frame: Frame,
    marks: Sequence[Mark],
    unit: str,
    describe: str,
) -> str:
    """Draw one small plot per group on a common scale, with a grey reference curve behind each.

    `panels` are (group, its curves); `frame.height` is the height of one row of panels.
    """
    shown = [c for _, curves in panels for c in curves] + ([reference] if reference else [])
    ticks = value_ticks(max(c.top for c in shown), count=3, whole=False)
    columns = 3 if all(text_width(name) < (frame.width - 70) / 3 for name, _ in panels) else 2
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    left, gap, head = max(text_width(tick(t)) for t in ticks) + 10, 12.0, 22.0
    width = (frame.width - 6 - left - gap * (columns - 1)) / columns
    parts, plots = [text(2, 12, unit, "unit")], []
    for i, (name, curves) in enumerate(panels):
        row, column = divmod(i, columns)
        x, y = left + column * (width + gap), head + row * frame.height
        box = Box(x, y + 20, x + width, y + frame.height - 8, frame.days, ticks[-1])
        last = i + columns >= len(panels)
        parts.append(text(x, y + 13, name, "panel"))
        for value in ticks:
            at = box.y(value)
            kind = "grid" if value else "axis"
            parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{box.right:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>')
            if column == 0:
                parts.append(text(x - 6, at + 4, tick(value), "tick", "end"))
        for mark in marks:
            at = box.x(mark.day)
            parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{box.top:.1f}" y2="{box.bottom:.1f}"/>')
        if reference:
            parts.append(f'<path class="reference" d="{box.path(reference.middle)}"/>')
        parts.extend(curve(box, c, filled=len(curves) == 1) for c in curves)
        if last:
            ends = day_ticks(frame.days, 72, frame.start)
            for day, label in ends:
                over = box.x(day) + text_width(label) / 2 > box.right + 6
                anchor = "start" if day == 0 else "end" if over else "middle"
                parts.append(text(box.right if over else box.x(day), box.bottom + 14, label, "tick", anchor))
        plots.append(plot_data(box, [*curves, *([reference] if reference else [])], name))
    return svg(frame.width, head + rows * frame.height + 10, "".join(parts), describe, plots, frame.start)


def bars(
    rows: Sequence[Bar], width: float, unit: str, note: str, describe: str, write: Callable[[float], str] = number
) -> str:
    """Draw horizontal bars from zero, each with its value, as `write` puts it, at its end and a note at the right.

    Bars of one group that follow one another share its name; a band wider than zero is drawn as a whisker.
    """
    groups = [b.group for i, b in enumerate(rows) if i == 0 or rows[i - 1].group != b.group]
    named = [g if text_width(g) <= 118 else f"{g[:15]}…" for g in groups]
    left = max(text_width(g) for g in named) + 10
    right = max([text_width(b.note) for b in rows] + [text_width(note)]) if note else 0.0
    room = max(text_width(write(b.value)) for b in rows) + 10
    scale = max(max(b.high for b in rows), 1e-12)
    span = width - left - room - right - 6
    thick = 14.0 if len(groups) == len(rows) else 12.0
    parts = [text(left, 12, unit, "unit"), text(width, 12, note, "unit", "end")]
    y, seen = 22.0, -1
    for i, bar in enumerate(rows):
        if i == 0 or rows[i - 1].group != bar.group:
            seen += 1
            y += 8 if i else 0
            together = sum(1 for b in rows[i:] if b.group == bar.group) if len(groups) != len(rows) else 1
            parts.append(text(left - 8, y + (together * (thick + 1) - 1) / 2 + 4, named[seen], "label", "end"))
        long = span * bar.value / scale
        parts.append(
            f'<rect x="{left:.1f}" y="{y:.1f}" width="{max(long, 0.5):.1f}" height="{thick:g}" rx="1.5"'
            f' style="fill:{bar.colour}"/>'
        )
        end = long
        if bar.high > bar.low:
            lo, end = span * bar.low / scale, span * bar.high / scale
            at = y + thick / 2
            parts.append(f'<path class="whisker" d="M{left + lo:.1f},{at - 3:.1f}v6m0,-3H{left + end:.1f}m0,-3v6"/>')
        parts.append(text(left + end + 6, y + thick / 2 + 4, write(bar.value), "value"))
        parts.append(text(width, y + thick / 2 + 4, bar.note, "aside", "end"))
        y += thick + 1
    parts.append(f'<line class="axis" x1="{left:.1f}" x2="{left:.1f}" y1="18" y2="{y + 3:.1f}"/>')
    return svg(width, y + 6, "".join(parts), describe)
