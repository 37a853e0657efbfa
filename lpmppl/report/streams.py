"""The figure of people between outcomes: who had one in one world, and has it in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lpmppl.report.axes import amount, text_width
from lpmppl.report.figures import svg, text
from lpmppl.report.signed import short

__all__ = ["Stream", "streams"]

TALL, GAP, NODE = 58.0, 12.0, 5.0


@dataclass(frozen=True)
class Stream:
    """People with an outcome in either of two worlds: in both, in the first alone, and in the second alone."""

    name: str
    both: float
    averted: float
    caused: float
    colour: str = "var(--c1)"


def streams(rows: Sequence[Stream], width: float, was: str, describe: str) -> str:
    """Draw, for each policy, the people with an outcome as bands from one world to the other, by number."""
    labels = [f"{amount(v)} yes" for s in rows for v in (s.both + s.averted, s.both + s.caused)]
    side = max(map(text_width, labels)) + 8
    box = (side, width - side)
    parts, y = [], 12.0
    for row in rows:
        parts.append(text(side + NODE, y, was, "unit", "end"))
        parts.append(text(width, y, short(row.name, width - side - 80), "panel", "end"))
        parts.append(_stream(row, box, y + 8))
        y += 8 + TALL + GAP + 24
    return svg(width, y - 16, "".join(parts), describe)


def _stream(row: Stream, box: tuple[float, float], top: float) -> str:
    """Draw one policy's bands: those who have the outcome above, those who haven't below."""
    left, right = box
    each = TALL / max(row.both + row.averted + row.caused, 1e-12)
    both, averted, caused = (v * each for v in (row.both, row.averted, row.caused))
    bands = [
        _band(left, right, top, top, both, "var(--axis)", "both"),
        _band(left, right, top + both, top + both + caused + GAP, averted, row.colour, "averted"),
        _band(left, right, top + both + averted + GAP, top + both, caused, row.colour, "caused"),
    ]
    nodes = [
        _node(left - NODE, top, both + averted, row.both + row.averted, "yes", "end"),
        _node(left - NODE, top + both + averted + GAP, caused, row.caused, "no", "end"),
        _node(right, top, both + caused, row.both + row.caused, "yes", "start"),
        _node(right, top + both + caused + GAP, averted, row.averted, "no", "start"),
    ]
    return "".join(bands + nodes)


def _band(left: float, right: float, start: float, end: float, thick: float, colour: str, kind: str) -> str:
    if thick <= 0:
        return ""
    middle, thick = (left + right) / 2, max(thick, 0.75)
    return (
        f'<path class="stream {kind}" style="fill:{colour}" d="M{left:.1f},{start:.1f}'
        f"C{middle:.1f},{start:.1f} {middle:.1f},{end:.1f} {right:.1f},{end:.1f}v{thick:.2f}"
        f'C{middle:.1f},{end + thick:.1f} {middle:.1f},{start + thick:.1f} {left:.1f},{start + thick:.1f}Z"/>'
    )


def _node(x: float, y: float, tall: float, people: float, word: str, anchor: str) -> str:
    if tall <= 0:
        return ""
    beside = x - 5 if anchor == "end" else x + NODE + 5
    return f'<rect class="node" x="{x:.1f}" y="{y:.1f}" width="{NODE:g}" height="{max(tall, 0.75):.2f}"/>' + text(
        beside, y + tall / 2 + 4, f"{amount(people)} {word}", "value", anchor
    )
