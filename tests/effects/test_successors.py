"""Successors: whatever is changed, in whatever order and whoever still holds it, nothing else is."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.internals import successors as module
from lpmppl.effects.internals.segments import LARGE, at_work
from lpmppl.effects.internals.successors import successors
from lpmppl.models.networks import Groups

SIZE = LARGE // 4 + 5


def some(rng, share):
    return Cohort.of(torch.from_numpy(rng.random(SIZE) < share))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    steps=st.lists(
        st.tuples(st.sampled_from(["write", "overwrite", "add", "in place"]), st.sampled_from([0.0, 0.001, 0.02, 0.4])),
        min_size=1,
        max_size=8,
    ),
    kept=st.sets(st.integers(0, 8)),
)
def test_a_chain_of_changes_is_that_of_copies(seed, steps, kept):
    rng = np.random.default_rng(seed)
    network = Groups("own", torch.arange(SIZE), SIZE, quantum=1.0)
    x = torch.from_numpy(rng.integers(0, 9, SIZE).astype(np.int32))
    expected = x.clone()
    held, copies = [], []
    with at_work(), successors():
        for k, (what, share) in enumerate(steps):
            cohort = some(rng, share)
            value = torch.from_numpy(rng.integers(0, 9, len(cohort)).astype(np.int32))
            if what == "add":
                x = network.total(cohort.carrying(value), x)
                expected = expected.clone()
                expected[cohort.where] += value
            elif what == "overwrite":
                x = cohort.overwrite(x.clone(), value)
                expected = expected.index_put((cohort.where,), value)
            elif what == "in place":
                x = cohort.write(x, value)
                x[7] = k  # a model's own change, which nobody announces
                expected = expected.index_put((cohort.where,), value)
                expected[7] = k
            else:
                x = cohort.write(x, value)
                expected = expected.index_put((cohort.where,), value)
            assert torch.equal(x, expected)
            if k in kept:
                held.append(x)
                copies.append(expected.clone())
    assert all(torch.equal(a, b) for a, b in zip(held, copies, strict=True))


def test_a_tensor_overwritten_after_it_was_made_is_carried_over_whole():
    rng = np.random.default_rng(1)
    x = torch.zeros(SIZE)
    expected = x.clone()
    with at_work(), successors():
        for k in range(6):
            first, second = some(rng, 0.01), some(rng, 0.01)
            x = first.write(x, float(k))
            x = second.overwrite(x, float(-k))
            expected[first.where] = float(k)
            expected[second.where] = float(-k)
            assert torch.equal(x, expected), k


def test_two_buffers_serve_a_tensor_that_few_change():
    rng = np.random.default_rng(2)
    x = torch.zeros(SIZE)
    places = set()
    with at_work(), successors():
        for _ in range(10):
            x = some(rng, 0.001).write(x, 1.0)
            places.add(x.data_ptr())
    assert len(places) <= 3


@pytest.mark.parametrize("hold", ["tensor", "view", "array"])
def test_what_someone_holds_is_left_alone(hold):
    rng = np.random.default_rng(3)
    x = some(rng, 0.01).write(torch.zeros(SIZE), 1.0)
    with at_work(), successors():
        x = some(rng, 0.01).write(x, 2.0)
        held = {"tensor": x, "view": x[1:], "array": x.numpy()}[hold]
        before = held.copy() if hold == "array" else held.clone()
        for k in range(4):
            x = some(rng, 0.01).write(x, float(k))
        assert bool((held == before).all())


def test_nothing_is_remembered_afterwards():
    with at_work(), successors():
        x = some(np.random.default_rng(4), 0.01).write(torch.zeros(SIZE), 1.0)
        assert module._made
    gc.collect()
    assert module._made is None
    assert torch.equal(some(np.random.default_rng(5), 0.0).write(x, 1.0), x)
