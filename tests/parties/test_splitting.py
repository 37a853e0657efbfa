"""Agents' parts: each agent's add up to its numbers, and a helper's sum is the sum of its parts."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lpmppl.effects.internals.shares import keystream, opened
from lpmppl.parties.splitting import Additive, total
from tests.oracles import RATE
from tests.parties.parts import numbers, whole


def expanded(parts: Additive, helper: int, rows: np.ndarray) -> dict[int, torch.Tensor]:
    """A helper's part of each slot as words."""
    slots, seeds, vectors = parts.of(helper, rows)
    left, right = iter(seeds), iter(vectors)
    d = vectors.shape[1]
    return {
        int(slot): torch.from_numpy(next(right).copy())
        if slot % parts.helpers == helper
        else keystream(next(left).tobytes(), d)
        for slot in slots
    }


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 9), st.integers(2, 5))
def test_every_agents_parts_open_to_its_numbers(seed: int, agents: int, d: int, helpers: int) -> None:
    random = np.random.default_rng(seed)
    slots = np.sort(random.choice(1000, agents, replace=False)).astype(np.uint32)
    values, rows = numbers(seed, agents, d), random.random(agents) < 0.7
    parts = Additive(values.numpy(), slots, helpers)
    by_helper = [expanded(parts, k, rows) for k in range(helpers)]
    for slot, own in zip(slots[rows], values[rows], strict=True):
        assert torch.equal(opened(mine[int(slot)] for mine in by_helper), own)
    assert all(set(mine) == set(slots[rows].tolist()) for mine in by_helper)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 30), st.integers(1, 5))
def test_helpers_totals_open_to_the_sum_over_any_set(seed: int, agents: int, helpers: int) -> None:
    helpers, values = helpers + 1, numbers(seed, agents, 3)
    rows = np.random.default_rng(seed).random(agents) < 0.5
    parts = Additive(values.numpy(), np.arange(agents, dtype=np.uint32), helpers)
    totals = [torch.from_numpy(total(*parts.of(k, rows)[1:], 3)) for k in range(helpers)]
    expected = whole(values[torch.from_numpy(rows)]) if rows.any() else [0, 0, 0]
    assert opened(totals).tolist() == expected


def test_no_two_agents_share_a_seed() -> None:
    parts = Additive(np.zeros((3000, 1), np.int64), np.arange(3000, dtype=np.uint32), 4)
    assert len({seed.tobytes() for seed in parts.seeds.reshape(-1, 32)}) == 9000


def test_all_helpers_have_as_many_vectors() -> None:
    parts, rows = Additive(np.zeros((3000, 2), np.int64), np.arange(3000, dtype=np.uint32), 3), np.ones(3000, bool)
    assert [len(parts.of(k, rows)[2]) for k in range(3)] == [1000] * 3


def test_a_vector_says_nothing_of_the_numbers() -> None:
    """Bytes of the vectors of 20,000 agents with the same number are uniform; failure rate as declared."""
    parts = Additive(np.full((20_000, 2), 7, np.int64), np.arange(20_000, dtype=np.uint32), 2)
    counts = np.bincount(parts.vectors.view(np.uint8).reshape(-1), minlength=256)
    assert stats.chisquare(counts).pvalue > RATE
