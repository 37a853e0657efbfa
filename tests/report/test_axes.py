"""Axes that cover their data, with labels that have room."""

import math
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from lpmppl.report import axes


@given(st.floats(1e-3, 1e9), st.integers(2, 6))
def test_value_ticks_start_at_zero_rise_evenly_and_cover_the_data(top: float, count: int) -> None:
    ticks = axes.value_ticks(top, count, whole=False)
    steps = [b - a for a, b in pairwise(ticks)]
    assert ticks[0] == 0
    assert ticks[-1] >= top * 0.999
    assert len(ticks) <= count + 2
    assert all(math.isclose(s, steps[0], rel_tol=1e-6) for s in steps)


@given(st.floats(0.5, 1e9))
def test_ticks_of_counts_are_whole(top: float) -> None:
    assert all(float(t).is_integer() for t in axes.value_ticks(top))


@given(st.integers(1, 3000), st.floats(60, 900), st.sampled_from(["", "2020-03-01"]))
def test_day_labels_never_touch(days: int, room: float, start: str) -> None:
    ticks = axes.day_ticks(days, room, start)
    assert ticks[0][0] == 0
    assert all(0 <= d < days for d, _ in ticks)
    places = [room * d / max(1, days - 1) for d, _ in ticks]
    widest = max(axes.text_width(label, 10) for _, label in ticks)
    assert all(b - a > widest * 0.75 for a, b in pairwise(places))


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_number_can_be_written(value: float) -> None:
    assert axes.number(value)
    assert axes.whole(value)
    assert axes.rate(value)


@given(st.floats(-1e9, 0), st.floats(0, 1e9), st.integers(2, 6))
def test_signed_ticks_rise_evenly_through_zero_and_cover_the_data(low: float, high: float, count: int) -> None:
    assume(high - low == 0 or high - low > 1e-3)
    ticks = axes.signed_ticks(low, high, count)
    steps = [b - a for a, b in pairwise(ticks)]
    slack = 1e-3 * (high - low)
    assert 0 in ticks
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= count + 3
    assert all(s > 0 and math.isclose(s, steps[0], rel_tol=1e-6) for s in steps)


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_difference_can_be_written_with_its_sign(value: float) -> None:
    text = axes.signed(value)
    assert text[0] in "+−0–"
    assert axes.percent(value)
