"""The coordinator with helpers that are made up: what it asks for once is what it asks for after a crash."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpmppl.parties import certificates, coordinator
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.coordinator import ASK
from lpmppl.parties.peers import Away
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.results import NOT_OPENED, PENDING, Result
from lpmppl.parties.session import COORDINATOR, Session
from lpmppl.parties.terms import Rule, Terms
from lpmppl.parties.wire import Entry, Header, Kind, entries_of, pack_entries, packed
from tests.parties.parts import SHARING, session

Answer = Callable[[str, Kind, bytes], bytes]


class Made:
    """A coordinator's state and helpers that answer as a test says."""

    def __init__(self, folder: Path, of: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.session, self.asked = folder, of, list[tuple[str, Kind, bytes]]()
        self.answer: Answer = lambda name, kind, body: b""
        certificates.issue(folder / "certificates", [COORDINATOR])
        made = self

        class Helper:
            trouble = ""

            def __init__(self, session: Session, credentials: object, name: str, *rest: object, **more: object) -> None:
                self.name, self.address = name, "nowhere:1"

            async def insist(
                self, kind: Kind, answer: Kind, round: int, message: bytes, *_: object
            ) -> tuple[Header, memoryview]:
                made.asked.append((self.name, kind, message[72:]))
                try:
                    drawn = bytes(32) if kind is Kind.CLOSE else b""
                    body = drawn + made.answer(self.name, kind, message[72:])
                except Away:
                    await asyncio.Event().wait()
                d = int.from_bytes(message[68:72], "little")
                return Header(answer, round, self.name, d), memoryview(body)

            async def close(self) -> None:
                pass

        class Seen(coordinator._Coordinator):
            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                made.party = self

        monkeypatch.setattr(coordinator, "Peer", Helper)
        monkeypatch.setattr(coordinator, "_Coordinator", Seen)

    party: coordinator._Coordinator

    def run(self, until: Callable[[], bool], clients: bool = True) -> Result | None:
        """Be the coordinator until something is so, or clients that are done with round 0 are told its result."""

        async def go() -> Result | None:
            ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            mine, helpers = Credentials(self.folder / "certificates", COORDINATOR), ["h:1", "h:2", "h:3"]
            serving = asyncio.ensure_future(
                coordinator.serve(
                    self.session, 0, mine, helpers, self.folder / "state", log=io.StringIO(), ready=ready.set_result
                )
            )
            await ready
            told = None
            while not until() and (told is None or told.status == PENDING):
                await asyncio.sleep(0.001)
                for client in self.session.clients if clients else ():
                    message = packed(self.session, Kind.ASK, client, COORDINATOR, 0, 0, ASK.pack(1, 10))
                    reply = await self.party.asked(message, client)
                    told = Result.of(self.session, int.from_bytes(reply[68:72], "little"), reply[72:])
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            return told

        return asyncio.run(asyncio.wait_for(go(), 60))

    def sets(self) -> list[bytes]:
        return [body for _, kind, body in self.asked if kind is Kind.SUM]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    return Made(tmp_path, session({"bronx": 6, "queens": 5}), monkeypatch)


def have(of: Session, *slots: int) -> bytes:
    return pack_entries(of, [Entry("bronx", 2, SHARING, np.isin(np.arange(6), slots))])


def test_a_set_that_was_asked_for_is_asked_for_again_after_a_crash(made: Made) -> None:
    """Though helpers would now say that they have others: sums over two sets would tell the difference."""

    def first(name: str, kind: Kind, body: bytes) -> bytes:
        if kind is Kind.SUM and name != "helper-0":
            raise Away("dead")
        return have(made.session, 0, 1, 2) if kind is Kind.CLOSE else bytes(16)

    def second(name: str, kind: Kind, body: bytes) -> bytes:
        return have(made.session, 0, 1, 2, 3) if kind is Kind.CLOSE else np.array([1, 2], "<i8").tobytes()

    made.answer = first
    made.run(lambda: len(made.sets()) == 3)
    asked = made.sets()
    assert len(set(asked)) == 1
    made.answer, made.asked = second, []
    result = made.run(lambda: False)
    assert {kind for _, kind, _ in made.asked} == {Kind.SUM}
    assert set(made.sets()) == set(asked)
    assert result is not None
    assert (result.total.tolist(), result.included) == ([3, 6], 3)


def test_a_round_that_was_being_closed_waits_for_no_one_after_a_crash(made: Made) -> None:
    def away(name: str, kind: Kind, body: bytes) -> bytes:
        raise Away("dead")

    made.answer = away
    made.run(lambda: len(made.asked) == 3)
    assert [kind for _, kind, _ in made.asked] == [Kind.CLOSE] * 3
    made.asked, made.answer = [], lambda name, kind, body: have(made.session, 0, 1) if kind is Kind.CLOSE else bytes(16)
    made.run(lambda: len(made.sets()) == 3, clients=False)
    assert [kind for _, kind, _ in made.asked] == [Kind.CLOSE] * 3 + [Kind.SUM] * 3


def test_a_round_is_dropped_where_a_helper_lost_parts_and_stays_so(made: Made) -> None:
    def lost(name: str, kind: Kind, body: bytes) -> bytes:
        if kind is Kind.SUM and name == "helper-1":
            raise Refused(Reason.NOT_HELD, "gone")
        if kind is Kind.DROP:
            raise Away("dead")
        return have(made.session, 0, 1, 2) if kind is Kind.CLOSE else bytes(16)

    def kinds() -> list[Kind]:
        return [kind for _, kind, _ in made.asked]

    made.answer = lost
    made.run(lambda: kinds().count(Kind.DROP) == 3)
    made.asked, made.answer = [], lambda name, kind, body: b"" if kind is Kind.DROP else bytes(16)
    result = made.run(lambda: False)
    assert set(kinds()) == {Kind.DROP}
    assert result is not None
    assert result.status == NOT_OPENED
    assert "not-held: gone" in result.why


def test_nothing_is_said_to_be_over_before_all_helpers_have_dropped_it(made: Made) -> None:
    """A client that went on would be early at a helper that is still in the round before."""

    def few(name: str, kind: Kind, body: bytes) -> bytes:
        if kind is Kind.DROP and name == "helper-2":
            raise Away("dead")
        return have(made.session, 0) if kind is Kind.CLOSE else b""

    made.answer = few
    result = made.run(lambda: [kind for _, kind, _ in made.asked].count(Kind.DROP) == 3)
    assert result is not None
    assert result.status == PENDING


def test_helpers_are_asked_for_the_same_set(made: Made) -> None:
    slots = {"helper-0": (0, 1, 2, 5), "helper-1": (0, 1, 3, 5), "helper-2": (1, 2, 3, 5, 0)}
    made.answer = lambda name, kind, body: have(made.session, *slots[name]) if kind is Kind.CLOSE else bytes(16)
    result = made.run(lambda: False)
    (one,) = set(made.sets())
    (entry,) = entries_of(made.session, one)
    assert np.flatnonzero(entry.slots).tolist() == [0, 1, 5]
    assert result is not None
    assert result.included == 3


def test_a_round_whose_proofs_can_not_be_checked_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A helper that lost its state has drawn anew, and the others have a part in one challenge only."""
    of = session({"bronx": 6, "queens": 5}, proofs=True)
    made, terms = Made(tmp_path, of, monkeypatch), Terms(rule=Rule.AT_MOST_ONE)
    held = pack_entries(of, [Entry("bronx", 2, SHARING, np.isin(np.arange(6), (0, 1, 4)), terms)])

    def answer(name: str, kind: Kind, body: bytes) -> bytes:
        if kind is Kind.CHECK and name == "helper-1":
            raise Refused(Reason.OTHER_CHALLENGE, "not mine")
        return held if kind is Kind.CLOSE else bytes(3 * 2 * 8)

    made.answer = answer
    result = made.run(lambda: False)
    assert result is not None
    assert result.status == NOT_OPENED
    assert "helpers can't check that numbers are valid: other-challenge: not mine" in result.why
    assert {body for _, kind, body in made.asked if kind is Kind.CHECK} == {bytes(96) + held}
    assert not made.sets()


def test_a_round_with_too_few_valid_agents_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verifiers of zeros are those of valid numbers; of ones they aren't."""
    of = session({"bronx": 6, "queens": 5}, proofs=True)
    made, terms = Made(tmp_path, of, monkeypatch), Terms(rule=Rule.AT_MOST_ONE)
    held = pack_entries(of, [Entry("bronx", 2, SHARING, np.isin(np.arange(6), (0, 1, 4)), terms)])
    wrong = np.array([[0, 0], [0, 1], [0, 1]], "<i8").tobytes()
    made.answer = lambda name, kind, body: held if kind is Kind.CLOSE else wrong if name == "helper-0" else bytes(48)
    result = made.run(lambda: False)
    assert result is not None
    assert result.why == "the numbers of 1 agents are proved to be valid, fewer than 2"
    assert not made.sets()
