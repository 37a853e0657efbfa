"""The law of a round: what is opened is the exact sum over exactly the agents who are said to be in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lpmppl.parties.helper import Helper
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.results import Decision, Memory, Result, chosen
from lpmppl.parties.session import Session
from lpmppl.parties.wire import Entry, pack_entries
from tests.parties.parts import SHARING, messages, no_waiting_for_disks, numbers, session, whole

__all__ = ["no_waiting_for_disks"]
CLIENTS = {"bronx": 6, "queens": 5, "kings": 9}


class Rounds:
    """Helpers without a network, each of which may be started anew at any moment."""

    def __init__(self, folder: Path, of: Session) -> None:
        self.folder, self.session = folder, of
        self.helpers = [Helper(of, k, folder / str(k), most=10**6) for k in range(of.helpers)]

    def restart(self, k: int) -> None:
        self.helpers[k].end()
        self.helpers[k] = Helper(self.session, k, self.folder / str(k), most=10**6)

    def end(self) -> None:
        for helper in self.helpers:
            helper.end()


@pytest.fixture
def rounds(tmp_path: Path) -> Iterator[Rounds]:
    made = Rounds(tmp_path, session(CLIENTS))
    yield made
    made.end()


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_the_sum_is_exact_over_exactly_who_is_included_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Lost, doubled and reordered messages, clients and helpers that start anew, over three rounds."""
    of = session(CLIENTS, helpers=data.draw(st.integers(2, 4), "helpers"))
    rounds = Rounds(tmp_path_factory.mktemp("rounds"), of)
    random = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    for round in range(3):
        sent: dict[str, dict[tuple[int, bytes], Tensor]] = {}
        reached: dict[tuple[str, int, bytes], set[int]] = {}
        events: list[tuple[str, int, bytes, list[int], bytes]] = []
        for client, agents in CLIENTS.items():
            sent[client] = {}
            # A client's lives: each splits numbers of its own anew, of any of its slots.
            for _ in range(data.draw(st.integers(0, 2), f"lives of {client}")):
                sharing, values = random.bytes(16), numbers(int(random.integers(2**32)), agents, 2)
                for slots in np.array_split(np.sort(random.permutation(agents)[: random.integers(1, agents + 1)]), 2):
                    if not len(slots):
                        continue
                    at = slots.tolist()
                    sent[client].update({(slot, sharing): values[slot] for slot in at})
                    for k, message in enumerate(messages(of, client, values, round, at, sharing)):
                        copies = int(random.choice(3, p=[0.1, 0.6, 0.3]))
                        events += [(client, k, message, at, sharing)] * copies
        for i in random.permutation(len(events)):
            client, k, message, at, sharing = events[i]
            if random.random() < 0.1:
                rounds.restart(k)
            try:
                rounds.helpers[k].submit(message, client)
            except Refused as e:
                assert e.reason is Reason.CONFLICT
                continue
            for slot in at:
                reached.setdefault((client, slot, sharing), set()).add(k)
        expected = {key for key, helpers in reached.items() if len(helpers) == of.helpers}
        decision = chosen(of, closed(rounds, round))
        if len(expected) < of.least:
            assert decision.d == 0
            assert f"the parts of {len(expected)} agents reached every helper" in decision.why
            for helper in rounds.helpers:
                helper.drop(round)
            continue
        rounds.restart(int(random.integers(of.helpers)))
        result = summed(rounds, round, chosen(of, closed(rounds, round)))
        assert result.included == len(expected)
        assert result.total.tolist() == whole(torch.stack([sent[c][slot, sharing] for c, slot, sharing in expected]))
        for client in CLIENTS:
            assert set(np.flatnonzero(result.slots[client])) == {slot for c, slot, _ in expected if c == client}
    rounds.end()


def closed(rounds: Rounds, round: int) -> dict[int, list[Entry]]:
    return {k: helper.close(round) for k, helper in enumerate(rounds.helpers)}


def summed(rounds: Rounds, round: int, decision: Decision) -> Result:
    body = pack_entries(rounds.session, decision.entries)
    totals = {k: rounds.helpers[k].total(round, decision.d, body) for k in decision.helpers}
    return Result.summed(rounds.session, decision, totals)


def submit(
    rounds: Rounds, client: str, values: Tensor, helpers: Sequence[int], slots: list[int], sharing: bytes = SHARING
) -> None:
    sent = messages(rounds.session, client, values, slots=slots, sharing=sharing)
    for k in helpers:
        rounds.helpers[k].submit(sent[k], client)


def test_parts_of_two_lives_of_a_client_are_never_added_up(rounds: Rounds) -> None:
    """Slot 0 is with helper 0 from the first life, with 1 and 2 from the second: with all three, and left out."""
    one, two = numbers(1, 6, 2), numbers(2, 6, 2)
    submit(rounds, "bronx", one, [0], [0])
    submit(rounds, "bronx", one, [0, 1, 2], [4])
    submit(rounds, "bronx", two, [1, 2], [0], sharing=bytes(16))
    submit(rounds, "bronx", two, [0, 1, 2], [3], sharing=bytes(16))
    result = summed(rounds, 0, chosen(rounds.session, closed(rounds, 0)))
    assert np.flatnonzero(result.slots["bronx"]).tolist() == [3, 4]
    assert result.total.tolist() == whole(torch.stack([one[4], two[3]]))


def test_one_client_with_another_length_does_not_spoil_the_round(rounds: Rounds) -> None:
    for client, d in (("bronx", 7), ("queens", 2), ("kings", 2)):
        submit(rounds, client, numbers(0, CLIENTS[client], d), [0, 1, 2], list(range(CLIENTS[client])))
    result = summed(rounds, 0, chosen(rounds.session, closed(rounds, 0)))
    assert (result.d, result.included, int(result.slots["bronx"].sum())) == (2, 14, 0)


def test_a_helper_that_lost_its_state_comes_to_the_open_round(rounds: Rounds, tmp_path: Path) -> None:
    values = numbers(3, 6, 2)
    for helper in rounds.helpers:
        helper.drop(0)
        helper.drop(1)
    new = Helper(rounds.session, 1, tmp_path / "new", most=10**6)
    assert new.close(2) == []
    new.drop(2)
    assert new.submit(messages(rounds.session, "bronx", values, round=3)[1], "bronx") == 6
    new.end()


def test_only_whom_all_helpers_have_are_chosen(rounds: Rounds) -> None:
    values = numbers(4, 9, 2)
    for slots, helpers in (([0, 1], [0]), ([2, 3], [0, 1, 2]), ([4, 5], [1, 2])):
        submit(rounds, "kings", values, helpers, slots)
    decision = chosen(rounds.session, closed(rounds, 0))
    assert [np.flatnonzero(entry.slots).tolist() for entry in decision.entries] == [[2, 3]]


def test_what_was_decided_and_found_is_on_disk(rounds: Rounds, tmp_path: Path) -> None:
    values = numbers(5, 6, 2)
    submit(rounds, "bronx", values, [0, 1, 2], [1, 3, 5])
    decision = chosen(rounds.session, closed(rounds, 0))
    memory = Memory(rounds.session, tmp_path / "memory")
    assert memory.decided(0) is None
    memory.decide(0, decision)
    again = Memory(rounds.session, tmp_path / "memory").decided(0)
    assert again is not None
    assert pack_entries(rounds.session, again.entries) == pack_entries(rounds.session, decision.entries)
    memory.keep(summed(rounds, 0, again))
    later = Memory(rounds.session, tmp_path / "memory")
    assert later.rounds == 1
    assert later.decided(0) is None
    found = Result.of(rounds.session, *later.result(0))
    assert found.total.tolist() == whole(values[[1, 3, 5]])
    assert np.flatnonzero(found.slots["bronx"]).tolist() == [1, 3, 5]
