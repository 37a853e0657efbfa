"""A model's day as a drawing: its substeps from morning to evening, and who reads what another wrote."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

from lpmppl.models.substep import CLOCK, Substep

__all__ = ["COLOURS", "FLAG", "OWN", "Flow", "diagram", "flows"]

COLOURS = ("#2f7ec2", "#d55e00", "#0e9670", "#a8629c", "#a97a00", "#5f73c9", "#c2566b", "#5c8a2e", "#7f8790", "#98704c")
"""Told apart by who is colour-blind, and of a contrast of 3 or more with white and with the black of dark notebooks."""

BOX, LABEL, LANE, ROW, GAP, PAD = 196, 186, 11, 19, 16, 10
"""Widths of a box, of the words beside it and of a lane; heights of a row and of what lies between boxes; a margin."""

FLAG, OWN = "⚑", "↻"
"""What policies may change, and what is a substep's own."""

WORDS = 33
"""How many letters fit beside a box."""


@dataclass(frozen=True)
class Flow:
    """State keys that one substep writes and another reads.

    Args:
        writer: the place in the day of who writes them.
        reader: the place in the day of who reads them.
        keys: the keys.
    """

    writer: int
    reader: int
    keys: tuple[str, ...]

    @property
    def yesterday(self) -> bool:
        """Whether they are read before they are written, and so are the day before's."""
        return self.reader < self.writer


def flows(substeps: Sequence[Substep]) -> list[Flow]:
    """Which keys go from which substep to which other, in order of reader and writer.

    >>> a = Substep("work", reads=["ill"], writes=["income"], policy=dict, transition=lambda s, _: s)
    >>> b = Substep("health", reads=["income", "ill"], writes=["ill"], policy=dict, transition=lambda s, _: s)
    >>> for flow in flows([a, b]):
    ...     print(flow.writer, flow.reader, flow.keys, flow.yesterday)
    1 0 ('ill',) True
    0 1 ('income',) False
    """
    found = []
    for reader, by in enumerate(substeps):
        for writer, of in enumerate(substeps):
            keys = tuple(sorted({*by.reads} & {*of.writes}))
            if keys and reader != writer:
                found.append(Flow(writer, reader, keys))
    return found


@dataclass(frozen=True)
class _Side:
    """One side of the boxes: on the right what is read of today, on the left what is read of yesterday."""

    flows: Sequence[Flow]
    left: bool

    def rows(self, k: int) -> list[Flow | None]:
        """What stands beside a box from top to bottom: what comes in, and None for what goes out."""
        coming: list[Flow | None] = [flow for flow in self.flows if flow.reader == k]
        going = any(flow.writer == k for flow in self.flows)
        # Beneath what comes in where lanes go down, above it where they go up: then a lane can end where one begins.
        return coming if not going else [None, *coming] if self.left else [*coming, None]

    @cached_property
    def lanes(self) -> dict[int, int]:
        """The lane of each writer, so that two in one never meet; short ways lie nearest to the boxes."""
        ends: dict[int, list[int]] = {}
        for flow in self.flows:
            ends.setdefault(flow.writer, [flow.writer]).append(flow.reader)
        taken: list[list[tuple[int, int]]] = []
        lanes = {}
        for writer, places in sorted(ends.items(), key=lambda item: (max(item[1]) - min(item[1]), item[0])):
            low, high = min(places), max(places)
            free = (n for n, spans in enumerate(taken) if all(high <= a or b <= low for a, b in spans))
            lanes[writer] = next(free, len(taken))
            if lanes[writer] == len(taken):
                taken.append([])
            taken[lanes[writer]].append((low, high))
        return lanes

    @property
    def width(self) -> int:
        return LABEL + LANE * (2 + max(self.lanes.values())) if self.lanes else 0

    def places(self, tops: Sequence[float], heights: Sequence[float]) -> dict[tuple[int, int], float]:
        """The heights of what comes in, by its writer and reader, and of what goes out, by its writer twice."""
        at = {}
        for k, top in enumerate(tops):
            rows = self.rows(k)
            for n, flow in enumerate(rows):
                # What goes down leaves at the foot of a box.
                above = heights[k] - len(rows) * ROW - 3 if flow is None and not self.left else 3
                at[(k, k) if flow is None else (flow.writer, k)] = top + above + ROW * (n + 0.72)
        return at


def _text(x: float, y: float, words: str, size: float = 10.5, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' {more}>{escape(words)}</text>"


def _fitting(keys: Sequence[str], room: int = WORDS) -> str:
    """As many keys as fit, and how many more there are; what they all begin with is said once."""
    head = f"{keys[0].partition('/')[0]}/"
    shared = len(keys) > 1 and all(key.startswith(head) for key in keys)
    tails = [key.removeprefix(head) for key in keys] if shared else keys
    for many in range(len(keys), 0, -1):
        more = f" +{len(keys) - many}" if many < len(keys) else ""
        line = f"{head}{{{', '.join(tails[:many])}}}" if shared and many > 1 else ", ".join(keys[:many])
        if len(line + more) <= room:
            return line + more
    return _cut(keys[0], room - len(more)) + more


def _cut(words: str, room: int) -> str:
    return words if len(words) <= room else words[: room - 1] + "…"


def _wrapped(words: Sequence[str], room: int) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 2 + len(word) <= room:
            lines[-1] += f", {word}"
        else:
            lines[-1:] = [f"{lines[-1]},"] if lines else []
            lines.append(_cut(word, room))
    return lines


def _turns(part: Substep) -> str:
    return f"{'every day' if part.every == 1 else f'every {part.every} days'} · {part.scale}"


def _listed(what: str, keys: Collection[str]) -> list[str]:
    return [f"{what}: {', '.join(sorted(keys))}"] if keys else []


def diagram(name: str, substeps: Sequence[Substep], environment: Collection[str] = ()) -> str:
    """Draw a day as SVG: substeps in order, on the right what each reads of today, on the left, dashed, of yesterday.

    Args:
        name: the model's name.
        substeps: the parts of the day, in order; none where it is of one piece.
        environment: what policies may change.
    """
    between = flows(substeps)
    right, left = (_Side([flow for flow in between if flow.yesterday == earlier], earlier) for earlier in (False, True))
    x0 = PAD + left.width
    width = x0 + BOX + right.width + PAD

    names = [part.name for part in substeps] or [name]
    written = {key for part in substeps for key in part.writes}
    policies = [_wrapped(sorted({*part.reads} & {*environment}), 30) for part in substeps]
    policies = policies or [_wrapped(sorted(environment), 30)]
    tops, heights, y = [], [], PAD + 34.0
    for k, lines in enumerate(policies):
        beside = max(len(left.rows(k)), len(right.rows(k)))
        tops.append(y)
        heights.append(max(42 + 13 * len(lines) + 4 * bool(lines), beside * ROW + 6))
        y += heights[k] + GAP
    height = y + 14

    body = [*_heads(x0, height, bool(left.flows), bool(right.flows))]
    for side in (left, right):
        at = side.places(tops, heights)
        body += [_lane(side, writer, lane, at, x0, names) for writer, lane in side.lanes.items()]
    for k, lines in enumerate(policies):
        part = substeps[k] if substeps else None
        body.append(_box(x0, tops[k], heights[k], names[k], part, lines, written | {*environment}))
        if k:
            middle = x0 + BOX / 2
            body.append(_arrow(middle, tops[k] - GAP + 1, middle, tops[k] - 1, "currentColor", "stroke-opacity='.45'"))
    what = "; ".join(
        f"{names[flow.reader]} reads {', '.join(flow.keys)} of {'yesterday' if flow.yesterday else 'today'} "
        f"from {names[flow.writer]}"
        for flow in between
    )
    story = f"In order: {', '.join(names)}. {what}"
    return (
        f"<svg role='img' viewBox='0 0 {width:.0f} {height:.0f}' "
        f"width='{width:.0f}' height='{height:.0f}' style='max-width:100%;height:auto;display:block;margin:6px 0' "
        "font-family='system-ui, sans-serif' fill='currentColor' class='lpm-day'>"
        f"<title>{escape(f'A day of the model {name}')}</title><desc>{escape(story)}</desc>"
        "<style>.lpm-day g.lane:hover path{stroke-width:3.2}.lpm-day g.lane text{pointer-events:auto}</style>"
        f"{''.join(body)}</svg>"
    )


def _heads(x0: float, height: float, left: bool, right: bool) -> Iterator[str]:
    """What the columns and the two kinds of lines are."""
    grey = "fill-opacity='.72'"
    if left:
        yield _text(x0 - 8, PAD + 8, "read as it was yesterday", 11, f"text-anchor='end' font-weight='600' {grey}")
        yield _stroke(f"M{x0 - 50} {PAD + 18}H{x0 - 8}", "currentColor", True, "stroke-opacity='.72'")
    middle = x0 + BOX / 2
    yield _text(middle, PAD + 8, "a day begins", 11, f"text-anchor='middle' {grey}")
    yield _arrow(middle, PAD + 14, middle, PAD + 32, "currentColor", "stroke-opacity='.45'")
    if right:
        yield _text(x0 + BOX + 8, PAD + 8, "read as it is today", 11, f"font-weight='600' {grey}")
        yield _stroke(f"M{x0 + BOX + 8} {PAD + 18}h42", "currentColor", False, "stroke-opacity='.72'")
    yield _text(middle, height - 6, "and ends", 11, f"text-anchor='middle' {grey}")


def _stroke(path: str, colour: str, dashed: bool, more: str = "") -> str:
    dash = "stroke-dasharray='4 3' " if dashed else ""
    return f"<path d='{path}' fill='none' stroke='{colour}' stroke-width='1.6' {dash}{more}/>"


def _arrow(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "", dashed: bool = False) -> str:
    """A line along one axis, with a head at its end."""
    along = 1 if (x2 - x1) + (y2 - y1) > 0 else -1
    head = (
        f"M{x2 - 6 * along} {y2 - 3.5}L{x2} {y2}L{x2 - 6 * along} {y2 + 3.5}"
        if y1 == y2
        else f"M{x2 - 3.5} {y2 - 6 * along}L{x2} {y2}L{x2 + 3.5} {y2 - 6 * along}"
    )
    return _stroke(f"M{x1} {y1}L{x2} {y2}", colour, dashed, more) + _stroke(head, colour, False, more)


def _lane(
    side: _Side, writer: int, lane: int, at: dict[tuple[int, int], float], x0: float, names: Sequence[str]
) -> str:
    """What one substep writes, from its box along its lane into the boxes of who reads it."""
    colour, out = COLOURS[writer % len(COLOURS)], -1 if side.left else 1
    edge = x0 if side.left else x0 + BOX
    x = edge + out * (LABEL + LANE * (lane + 1))
    mine = [flow for flow in side.flows if flow.writer == writer]
    start = at[writer, writer]
    far = (min if side.left else max)(at[writer, flow.reader] for flow in mine)
    when = "yesterday" if side.left else "today"
    parts = [_stroke(f"M{edge} {start:.1f}H{x}V{far:.1f}", colour, side.left)]
    parts.append(f"<circle cx='{edge}' cy='{start:.1f}' r='3' fill='{colour}'/>")
    for flow in mine:
        y = at[writer, flow.reader]
        title = f"<title>{escape(f'{names[writer]} → {names[flow.reader]}, {when}: ' + ', '.join(flow.keys))}</title>"
        words = _text(
            edge + out * 9, y - 4, _fitting(flow.keys), 10.5, f"text-anchor='{'end' if side.left else 'start'}'"
        )
        parts.append(f"<g>{title}{_arrow(x, y, edge + out, y, colour, dashed=side.left)}{words}</g>")
    every = sorted({key for flow in mine for key in flow.keys})
    title = f"<title>{escape(f'{names[writer]} writes, read {when}: ' + ', '.join(every))}</title>"
    return f"<g class='lane'>{title}{''.join(parts)}</g>"


def _box(
    x: float, y: float, height: float, name: str, part: Substep | None, policies: Sequence[str], known: Collection[str]
) -> str:
    """A substep: its name, when and on what it acts, and what of it policies may change."""
    told, own = [name], []
    if part is not None:
        own = sorted({*part.reads} & {*part.writes})
        told += [_turns(part), *_listed("reads", part.reads), *_listed("writes", part.writes)]
        told += _listed("its own, from its last turn", own)
        told += _listed("as they were at the start", {*part.reads} - {*known} - {*CLOCK})
    parts = [
        f"<title>{escape(chr(10).join(told))}</title>",
        f"<rect x='{x}' y='{y:.1f}' width='{BOX}' height='{height:.1f}' rx='6' fill='currentColor' fill-opacity='.06' "
        "stroke='currentColor' stroke-opacity='.55'/>",
        _text(x + 10, y + 17, _cut(name, 19), 13, "font-weight='600'"),
        _text(x + 10, y + 32, _turns(part) if part else "of one piece", 10.5, "fill-opacity='.72'"),
    ]
    if own:
        parts.append(_text(x + BOX - 10, y + 17, f"{OWN} {len(own)}", 10.5, "text-anchor='end' fill-opacity='.72'"))
    parts += [
        _text(x + 10, y + 49 + 13 * n, f"{f'{FLAG} ' if n == 0 else ' ' * 4}{line}", 10.5)
        for n, line in enumerate(policies)
    ]
    return f"<g>{''.join(parts)}</g>"
