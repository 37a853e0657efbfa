"""Numbers and axes as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, timedelta

__all__ = [
    "amount",
    "day_label",
    "day_ticks",
    "number",
    "percent",
    "rate",
    "share",
    "signed",
    "signed_ticks",
    "text_width",
    "tick",
    "value_ticks",
    "whole",
]

DAY_STEPS = (1, 2, 5, 10, 15, 30, 60, 90, 180, 365, 730)
LONG = 182
"""From this many days between labels on, dates are written as months of a year."""

WEEK_STEPS = (1, 2, 7, 14, 28, 56, 91, 182, 364, 728)


def number(value: float) -> str:
    """Write a number with thousands separators and no more digits than a reader uses.

    >>> [number(v) for v in (1234567, 12.34, 3.21, 0.0421, 0)]
    ['1,234,567', '12.3', '3.2', '0.042', '0']
    """
    if not math.isfinite(value):
        return "–"
    if value == int(value) or abs(value) >= 100:
        return f"{round(value):,}"
    if abs(value) >= 1:
        return f"{value:,.1f}"
    return f"{value:.2g}" if abs(value) >= 1e-4 else f"{value:.1e}"


def whole(value: float) -> str:
    """Write a count of people, rounded, with thousands separators.

    >>> whole(1234.5), whole(float("nan"))
    ('1,234', '–')
    """
    return f"{round(value):,}" if math.isfinite(value) else "–"


def rate(value: float) -> str:
    """Write a rate per 100,000 so that a column of them lines up: one decimal below 100.

    >>> rate(1234.5), rate(2), rate(float("nan"))
    ('1,234', '2.0', '–')
    """
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def amount(value: float) -> str:
    """Write the size of a difference: whole from ten on, and with two digits below.

    >>> amount(59.83), amount(3.17), amount(0.25), amount(1845)
    ('60', '3.2', '0.25', '1,845')
    """
    return f"{round(value):,}" if math.isfinite(value) and abs(value) >= 10 else number(value)


def signed(value: float) -> str:
    """Write a difference with its sign.

    >>> signed(-1845), signed(0.25), signed(0)
    ('−1,845', '+0.25', '0')
    """
    words = amount(abs(value))
    return words if words in ("0", "–") else f"{'−' if value < 0 else '+'}{words}"


def percent(value: float) -> str:
    """Write a share as a percentage of three digits at most.

    >>> percent(0.2047), percent(0.0312), percent(0.00004), percent(1)
    ('20 %', '3.1 %', '0.004 %', '100 %')
    """
    return f"{amount(100 * value)} %"


def share(value: float, people: float) -> str:
    """Write `value` of `people` as a percentage, or per 100,000 where a percentage would be small.

    >>> share(250, 1000), share(3, 10000)
    ('25.0 % of people', '30.0 per 100,000 people')
    """
    if people <= 0:
        return ""
    if value / people >= 0.01:
        return f"{100 * value / people:.1f} % of people"
    return f"{rate(1e5 * value / people)} per 100,000 people"


def tick(value: float) -> str:
    """Write an axis tick: full figures, millions abbreviated.

    >>> [tick(v) for v in (0, 250000, 1500000, 2000000, 0.5)]
    ['0', '250,000', '1.5M', '2M', '0.5']
    """
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return number(value)


def value_ticks(top: float, count: int = 4, whole: bool = True) -> list[float]:
    """Choose round ticks from 0 to the first one at or above `top`; `whole` keeps to whole numbers.

    >>> value_ticks(87), value_ticks(2, whole=True), value_ticks(0)
    ([0, 25, 50, 75, 100], [0, 1, 2], [0, 1])
    """
    if not math.isfinite(top) or top <= 0:
        return [0, 1]
    step = round_step(top / count)
    if whole:
        step = max(1, math.ceil(step)) if step < 10 else step
    ticks = [i * step for i in range(math.ceil(top / step - 1e-9) + 1)]
    return [int(t) if t == int(t) else round(t, 10) for t in ticks]


def signed_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Choose round ticks, zero among them, from the last one at or below `low` to the first at or above `high`.

    >>> signed_ticks(-87, 30), signed_ticks(0, 3), signed_ticks(0, 0)
    ([-100, -50, 0, 50], [0, 1, 2, 3], [-1, 0, 1])
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if not 1e-6 < high - low < math.inf:
        return [-1, 0, 1]
    step = round_step((high - low) / count)
    ticks = [i * step for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]
    return [int(t) if t == int(t) else round(t, 10) for t in ticks]


def round_step(rough: float) -> float:
    """Give the least of 1, 2, 2.5 and 5 times a power of ten that reaches `rough`, or all but."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)


def day_label(day: int, start: str = "") -> str:
    """Name a day of the run: its number, or its date where the run has a first date (ISO).

    >>> day_label(12), day_label(12, "2020-03-01")
    ('day 12', '13 Mar 2020')
    """
    if not start:
        return f"day {day}"
    when = date.fromisoformat(start) + timedelta(days=day)
    return f"{when.day} {when:%b %Y}"


def day_ticks(days: int, room: float, start: str = "") -> list[tuple[int, str]]:
    """Choose the days to mark on an axis of `room` pixels, with their labels.

    >>> day_ticks(90, 280)
    [(0, '0'), (15, '15'), (30, '30'), (45, '45'), (60, '60'), (75, '75')]
    >>> day_ticks(90, 280, "2020-03-01")[:2]
    [(0, '1 Mar'), (28, '29 Mar')]
    """
    steps: Sequence[int] = WEEK_STEPS if start else DAY_STEPS
    each = room / max(1, days - 1)
    step = next((s for s in steps if s * each >= label_room(s, start)), math.ceil(60 / each))
    if not start:
        return [(d, str(d)) for d in range(0, days, step)]
    first = date.fromisoformat(start)
    when = [first + timedelta(days=d) for d in range(0, days, step)]
    return [((w - first).days, f"{w:%b %Y}" if step >= LONG else f"{w.day} {w:%b}") for w in when]


def label_room(step: int, start: str) -> float:
    """Give the pixels that a label needs on an axis with this many days between labels."""
    if not start:
        return 36
    return 45 if step < LONG else 62


def text_width(text: str, size: float = 11) -> float:
    """Estimate, on the safe side, the width in pixels of a text set in a sans-serif face.

    >>> text_width("Queens") < text_width("Staten Island")
    True
    """
    return 0.63 * size * len(text)
