"""Rounds that any t of m helpers open: exact over who is included, with helpers lost for good."""

from __future__ import annotations

import itertools
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lpmppl.effects.internals import threshold as of_one
from lpmppl.effects.internals.threshold import PRIME
from lpmppl.errors import InputError, LpmError
from lpmppl.parties import arithmetic
from lpmppl.parties.helper import Helper
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.results import Memory, Result, chosen
from lpmppl.parties.thresholds import Shamir
from lpmppl.parties.wire import Entry, pack_entries
from tests.parties.parts import SHARING, changed, messages, no_waiting_for_disks, numbers, session, whole
from tests.parties.processes import PATIENCE, eventually, together, town
from tests.parties.test_rounds import check

__all__ = ["no_waiting_for_disks"]


def small(seed: int, agents: int, d: int) -> torch.Tensor:
    """Numbers of either sign whose sums over thousands of agents are below 2⁶⁰ in size."""
    return numbers(seed, agents, d) >> 17


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 4), st.sampled_from([(2, 3), (3, 3), (3, 5), (4, 5)]))
def test_an_agents_parts_are_those_of_one_secret(seed: int, agents: int, d: int, of: tuple[int, int]) -> None:
    threshold, helpers = of
    values, rows = small(seed, agents, d), np.ones(agents, bool)
    parts = Shamir(values.numpy(), np.arange(agents, dtype=np.uint32), helpers, threshold)
    for i in range(agents):
        one = of_one.shared(values[i], helpers, threshold, [s.tobytes() for s in parts.seeds[i]])
        for k in range(helpers):
            _, seeds, vectors = parts.of(k, rows)
            if k < threshold - 1:
                assert seeds[i].tobytes() == one.seeds[k]
            else:
                assert vectors[i].tolist() == one.of(k).tolist()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3000), st.sampled_from([(2, 3), (3, 3), (3, 5), (4, 5)]))
def test_any_helpers_as_many_as_needed_open_the_exact_sum(seed: int, agents: int, of: tuple[int, int]) -> None:
    threshold, helpers = of
    terms = session({"bronx": max(2, agents)}, helpers=helpers, threshold=threshold)
    values, rows = small(seed, agents, 2), np.random.default_rng(seed).random(agents) < 0.8
    parts = arithmetic.split(terms, values.numpy(), np.arange(agents, dtype=np.uint32))
    totals = {k: arithmetic.total(terms, *parts.of(k, rows)[1:], 2) for k in range(helpers)}
    expected = whole(values[torch.from_numpy(rows)]) if rows.any() else [0, 0]
    for some in itertools.combinations(range(helpers), threshold):
        assert arithmetic.opened(terms, {k: totals[k] for k in some}).tolist() == expected
    assert arithmetic.opened(terms, totals).tolist() == expected


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_the_law_of_a_round_with_helpers_lost(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    threshold, helpers = data.draw(st.sampled_from([(2, 3), (3, 4), (3, 5)]))
    of = session({"bronx": 12, "queens": 9}, helpers=helpers, threshold=threshold)
    random, folder = np.random.default_rng(data.draw(st.integers(0, 2**32))), tmp_path_factory.mktemp("helpers")
    made = [Helper(of, k, folder / str(k), 10**6) for k in range(helpers)]
    values = {client: small(int(random.integers(2**32)), n, 2) for client, n in of.clients.items()}
    for client, n in of.clients.items():
        for slot in range(n):
            for k, message in enumerate(messages(of, client, values[client], 0, [slot])):
                if random.random() < 0.9:
                    made[k].submit(message, client)
    there = sorted(random.choice(helpers, int(random.integers(threshold, helpers + 1)), replace=False).tolist())
    decision = chosen(of, {k: made[k].close(0) for k in there})
    memory = Memory(of, folder / "memory")
    memory.decide(0, decision)
    decision = memory.decided(0) or decision
    if decision.d:
        assert threshold <= len(decision.helpers)
        assert set(decision.helpers) <= set(there)
        body = pack_entries(of, decision.entries)
        some = random.permutation(decision.helpers)[: int(random.integers(threshold, len(decision.helpers) + 1))]
        result = Result.summed(of, decision, {int(k): made[k].total(0, 2, body) for k in some})
        rows = torch.cat([values[client][torch.from_numpy(slots)] for client, slots in result.slots.items()])
        assert len(rows) == result.included >= of.least
        assert result.total.tolist() == whole(rows)
    for helper in made:
        helper.end()


def test_the_most_agents_are_chosen_then_the_most_helpers() -> None:
    of = session({"bronx": 12}, helpers=3, threshold=2)

    def entry(*slots: int) -> list[Entry]:
        return [Entry("bronx", 2, SHARING, np.isin(np.arange(12), slots))]

    assert chosen(of, {0: entry(1, 2, 3), 1: entry(1, 2, 3), 2: entry(1, 2, 3)}).helpers == [0, 1, 2]
    assert chosen(of, {0: entry(1, 2, 3), 1: entry(), 2: entry(1, 2, 3)}).helpers == [0, 2]
    few = chosen(of, {0: entry(1), 1: entry(1), 2: entry(1)})
    assert (few.d, few.helpers) == (0, ())


@pytest.mark.parametrize(("helpers", "threshold"), [(4, 2), (3, 1), (3, 4), (256, 200)])
def test_a_threshold_that_cannot_be_is_refused(helpers: int, threshold: int) -> None:
    """At half or below, two groups of helpers could open sums over two sets that differ by one agent."""
    with pytest.raises(InputError, match="threshold"):
        session(helpers=helpers, threshold=threshold)


def test_numbers_that_may_overflow_are_refused() -> None:
    of = session({"bronx": 1000}, threshold=2)
    arithmetic.check_size(of, np.array([[2**60 // 1000], [-(2**60 // 1000)]]))
    for x in (2**60 // 1000 + 1, -(2**60) // 1000 - 1, -(2**63)):
        with pytest.raises(InputError, match=r"encode with bits=60"):
            arithmetic.check_size(of, np.array([[x]]))


@pytest.mark.parametrize("x", [-1, PRIME, 2**63 - 1])
def test_a_part_out_of_range_is_refused(tmp_path: Path, x: int) -> None:
    of = session(threshold=2)
    helper = Helper(of, 2, tmp_path, 10_000)
    message = messages(of, "bronx", small(0, 6, 3))[2]
    with pytest.raises(Refused) as caught:
        helper.submit(changed(message, 72 + 40, "<q", x), "bronx")
    assert caught.value.reason is Reason.RANGE
    assert helper.submit(message, "bronx") == 6
    helper.end()


def test_totals_that_contradict_one_another_open_nothing() -> None:
    of = session(threshold=2)
    with pytest.raises(LpmError, match="contradict one another"):
        arithmetic.opened(of, {0: np.array([1]), 1: np.array([1]), 2: np.array([2])})


def test_a_helper_is_lost_for_good_and_another_comes_back(tmp_path: Path) -> None:
    of = session({"bronx": 60, "queens": 40}, helpers=3, threshold=2, deadline=10.0)
    x, y = small(1, 60, 4), small(2, 40, 4)
    with town(tmp_path, of) as made, made.client("bronx") as bronx, made.client("queens") as queens:
        check(together(lambda: bronx.sum(x), lambda: queens.sum(y)), [x, y])
        made.helpers[0].kill(signal.SIGKILL)
        for _ in range(2):
            opened = together(lambda: bronx.sum(x), lambda: queens.sum(y))
            check(opened, [x, y])
            assert opened[0].included == 100
        made.helpers[0].start()
        eventually("it goes on to the open round", lambda: made.helpers[0].events("dropped"))

        def with_all() -> bool:
            opened = together(lambda: bronx.sum(x), lambda: queens.sum(y))
            check(opened, [x, y])
            assert opened[0].included == 100
            return bool(made.coordinator.events("decided")[-1]["helpers"] == 3)

        # Not at once where the machine is busy: who was away is waited for only shortly.
        eventually("it is one of the three again", with_all)
        made.helpers[2].kill(signal.SIGKILL)
        opened = together(lambda: bronx.sum(x, torch.arange(60) < 7), lambda: queens.sum(y))
        check(opened, [x, y])


def test_with_fewer_helpers_than_needed_the_round_waits(tmp_path: Path) -> None:
    of = session({"bronx": 60}, helpers=3, threshold=2, deadline=30.0)
    x = small(1, 60, 4)
    with town(tmp_path, of) as made, made.client("bronx") as bronx, ThreadPoolExecutor(1) as pool:
        bronx.sum(x)
        for k in (0, 1):
            made.helpers[k].kill(signal.SIGKILL)
        pending = pool.submit(bronx.sum, x)
        eventually("helper 2 has the parts", lambda: (tmp_path / "helper-2" / "parts-00000001").exists())
        assert not pending.done()
        made.helpers[1].start()
        opened = pending.result(PATIENCE)
        check([opened], [x])
        assert opened.included == 60
