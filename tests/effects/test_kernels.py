"""The compiled loops, against the same in whole-array NumPy, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpmppl.effects.internals import kernels, segments, streams

quick = settings(max_examples=40, deadline=None)
lengths = st.integers(0, 67)


@quick
@given(lengths, st.integers(0, 2**31), st.sampled_from([np.uint32, np.uint64]))
def test_reading_and_writing_at_places(n, seed, kind):
    rng = np.random.default_rng(seed)
    values = rng.random(50).astype(np.float32)
    index = rng.integers(0, 50, n).astype(kind)
    out = np.full(n, 0.25, np.float32)
    kernels.gather_add(out, values, index)
    assert (out == np.float32(0.25) + values[index]).all()
    kernels.gather(out, values, index)
    assert (out == values[index]).all()
    places, many = rng.permutation(50)[: min(n, 50)].astype(kind), rng.random(min(n, 50)).astype(np.float32)
    written, expected = values.copy(), values.copy()
    if many.shape[0] != 1:
        kernels.scatter(written, places, many)
        expected[places] = many
    kernels.scatter(written, places[::2].copy(), np.float32([7.0]))
    expected[places[::2]] = 7.0
    assert (written == expected).all()
    kernels.carry_over(written, index, values)
    expected[index] = values[index]
    assert (written == expected).all()


@quick
@given(lengths, st.integers(0, 2**31), st.sampled_from([torch.int16, torch.int32, torch.int64]))
def test_adding_at_places_that_repeat(n, seed, kind):
    rng = np.random.default_rng(seed)
    index = torch.from_numpy(rng.integers(0, 9, n)).to(kind)
    for values in (torch.from_numpy(rng.integers(-5, 5, n)), torch.from_numpy(rng.random(n)), torch.ones(()).expand(n)):
        total = torch.arange(9).to(values.dtype)
        expected, version = total.index_add(0, index.long(), values), total._version
        segments.add(total, index, values)
        assert (total == expected).all()
        assert total._version > version


@quick
@given(lengths, st.integers(0, 2**31), st.sampled_from([np.float32, np.float64]))
def test_hazards_accrue_and_meet_levels(n, seed, kind):
    rng = np.random.default_rng(seed)
    step, before = rng.random(n).astype(np.float32), rng.random(n).astype(kind)
    risk, level = rng.random(n) < 0.7, (rng.random(n) * 2).astype(np.float32)
    level[::5] = before[::5]
    after, event = np.empty(n, kind), np.empty(n, bool)
    kernels.meet(step, risk, before, after, level, event)
    expected = np.where(risk, before + step, before)
    assert (after == expected).all()
    assert (event == (risk & (expected > level) & (before <= level))).all()
    kernels.accrue(step, risk, before, after)
    assert (after == expected).all()


@quick
@given(lengths, st.integers(0, 2**31), st.floats(0, 1))
def test_searches(n, seed, level):
    rng = np.random.default_rng(seed)
    x, out = rng.random(n).astype(np.float32), np.empty(n, np.int64)
    level = np.float32(level)
    assert (out[: kernels.above(x, level, 3, out)] == np.flatnonzero(x > level) + 3).all()
    assert (out[: kernels.below(x, level, 3, out)] == np.flatnonzero(x < level) + 3).all()
    assert (out[: kernels.true((x < level).view(np.uint8), 3, out)] == np.flatnonzero(x < level) + 3).all()
    # A slice of a mask needn't begin at a multiple of eight bytes.
    assert segments.positions(torch.from_numpy(x < level)[3:]).tolist() == np.flatnonzero((x < level)[3:]).tolist()


def test_values_at_the_edge_are_neither_above_nor_below():
    x = torch.tensor([1.0, 2.0, 3.0, torch.nan])
    assert segments.positions(x, above=2.0).tolist() == [2]
    assert segments.positions(x, below=2.0).tolist() == [0]


@pytest.mark.parametrize("key", [0, 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_the_compiled_stream_is_the_one_in_torch(key, dtype):
    ids = torch.tensor([0, 1, 2, 12_345, 2**31 - 1], dtype=dtype)
    counter = ids.to(torch.int64) * streams._signed(streams._GOLDEN) + streams._signed(key)
    assert torch.equal(streams.uniform(ids, key), streams._fraction(counter))
