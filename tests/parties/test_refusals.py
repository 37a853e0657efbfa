"""Messages that a helper refuses, each by the name of what is wrong, and none of which it keeps."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpmppl.parties.helper import Helper
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import COORDINATOR, Session
from lpmppl.parties.wire import HEADER, Entry, Kind, Parts, entries_of, pack_entries, packed
from tests.parties.parts import SHARING, changed, messages, modes, no_waiting_for_disks, numbers, session

__all__ = ["no_waiting_for_disks"]
SESSION = session()
VALUES = numbers(0, 6, 3)
BODY = HEADER.size
COUNTS = BODY + 16


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[Helper]:
    made = Helper(SESSION, 0, tmp_path / "state", most=10_000)
    yield made
    made.end()


def refused(helper: Helper, message: bytes, client: str = "bronx") -> Reason:
    before = helper.slots, helper.nbytes, modes(helper.folder)
    with pytest.raises(Refused) as caught:
        helper.submit(message, client)
    assert str(caught.value).startswith(f"{caught.value.reason.value}: ")
    assert (helper.slots, helper.nbytes, modes(helper.folder)) == before
    return caught.value.reason


def altered(**terms: object) -> Session:
    return Session(**{**SESSION._fields(), "id": SESSION.id, **terms})


def good() -> bytes:
    return messages(SESSION, "bronx", VALUES)[0]


def test_a_good_message_is_taken_and_again(helper: Helper) -> None:
    message = good()
    assert helper.submit(message, "bronx") == 6
    before = helper.nbytes, (helper.folder / "parts-00000000").stat().st_size
    assert helper.submit(message, "bronx") == 0
    assert (helper.nbytes, (helper.folder / "parts-00000000").stat().st_size) == before


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", Reason.TRUNCATED),
        (good()[:50], Reason.TRUNCATED),
        (good()[:-1], Reason.TRUNCATED),
        (good() + b"x", Reason.TRUNCATED),
        (changed(good(), 0, "4s", b"HTTP"), Reason.MALFORMED),
        (changed(good(), 4, "<H", 1), Reason.VERSION),
        (changed(good(), 6, "<H", Kind.SUM), Reason.MALFORMED),
        (changed(good(), 12, "<I", 1), Reason.EARLY),
        (changed(good(), 64, "<H", 5), Reason.SENDER),
        (changed(good(), 64, "<H", 60_000), Reason.SENDER),
        (changed(good(), 66, "<H", 2), Reason.RECIPIENT),
        (changed(good(), 68, "<I", 65), Reason.LENGTH),
        (changed(good(), 68, "<I", 0), Reason.LENGTH),
        (changed(good(), 68, "<I", 4), Reason.PARTS),
        (changed(good(), COUNTS, "<I", 5), Reason.PARTS),
        (changed(good(), COUNTS, "<I", 2**32 - 1), Reason.PARTS),
        (changed(changed(good(), COUNTS + 4, "<I", 3), COUNTS + 8, "<I", 3), Reason.PARTS),
        (changed(good(), len(good()) - 4, "<I", 6), Reason.SLOTS),
        (changed(good(), len(good()) - 4, "<I", 4), Reason.SLOTS),
        (changed(good(), len(good()) - 4, "<I", 3), Reason.SLOTS),
        (messages(session(), "bronx", VALUES)[0], Reason.SESSION),
        (messages(altered(least=3), "bronx", VALUES)[0], Reason.SESSION),
        (messages(altered(model="sir-2"), "bronx", VALUES)[0], Reason.MODEL),
        (messages(SESSION, "bronx", VALUES)[1], Reason.RECIPIENT),
        (bytes(SESSION.largest + 1), Reason.OVERSIZED),
    ],
    # The messages themselves have random bytes, and can't name a test.
    ids=lambda x: x.value if isinstance(x, Reason) else "",
)
def test_each_fault_has_its_name(helper: Helper, message: bytes, reason: Reason) -> None:
    assert refused(helper, message) is reason
    assert helper.submit(good(), "bronx") == 6


def test_vectors_where_seeds_belong_are_the_wrong_parts(helper: Helper) -> None:
    slots = np.array([1, 2], np.uint32)
    body = Parts.body(SHARING, slots, np.zeros((1, 32), np.uint8), np.zeros((1, 3), np.int64))
    assert refused(helper, packed(SESSION, Kind.PARTS, "bronx", "helper-0", 0, 3, body)) is Reason.PARTS


def test_a_message_without_slots_is_the_wrong_parts(helper: Helper) -> None:
    body = Parts.body(SHARING, np.zeros(0, np.uint32), np.zeros((0, 32), np.uint8), np.zeros((0, 3), np.int64))
    assert refused(helper, packed(SESSION, Kind.PARTS, "bronx", "helper-0", 0, 3, body)) is Reason.PARTS


def test_a_client_cannot_submit_for_another(helper: Helper) -> None:
    assert refused(helper, good(), "queens") is Reason.SENDER


@pytest.mark.parametrize("name", [COORDINATOR, "helper-1", "albany", ""])
def test_only_clients_submit(helper: Helper, name: str) -> None:
    assert refused(helper, good(), name) is Reason.ROLE


def test_other_bytes_for_a_slot_are_refused(helper: Helper) -> None:
    helper.submit(good(), "bronx")
    assert refused(helper, good()) is Reason.CONFLICT
    at_first_seed = BODY + 32 + 2 * 3 * 8
    assert refused(helper, changed(good(), at_first_seed, "B", 1)) is Reason.CONFLICT


def test_the_same_bytes_in_other_messages_are_fine(helper: Helper, tmp_path: Path) -> None:
    """Resubmission in batches of another size: what is there stays, what isn't is taken."""
    values = numbers(1, 6, 3)
    message = messages(SESSION, "bronx", values)[0]
    helper.submit(message, "bronx")
    body = message[BODY:]
    parts = Parts.of(SESSION, memoryview(body), 3, "bronx", 0)
    rows = parts.slots < 3
    some = Parts.body(parts.sharing, parts.slots[rows], parts.seeds[rows[~parts.has_vector]], parts.vectors[:1])
    other = Helper(SESSION, 0, tmp_path / "other", most=10_000)
    assert other.submit(packed(SESSION, Kind.PARTS, "bronx", "helper-0", 0, 3, some), "bronx") == 3
    assert other.submit(message, "bronx") == 3
    assert other.submit(message, "bronx") == 0
    for each in (helper, other):
        each.close(0)
    body = pack_entries(SESSION, [Entry("bronx", 3, SHARING, np.ones(6, bool))])
    assert np.array_equal(helper.total(0, 3, body), other.total(0, 3, body))
    other.end()


def test_another_splitting_of_a_slot_is_a_conflict(helper: Helper) -> None:
    helper.submit(messages(SESSION, "bronx", VALUES, slots=[2])[0], "bronx")
    assert refused(helper, messages(SESSION, "bronx", VALUES, sharing=bytes(16))[0]) is Reason.CONFLICT
    assert helper.submit(messages(SESSION, "bronx", VALUES, slots=[0, 1], sharing=bytes(16))[0], "bronx") == 2


def test_a_client_has_one_length_a_round_and_others_their_own(helper: Helper) -> None:
    helper.submit(messages(SESSION, "bronx", VALUES, slots=[2])[0], "bronx")
    assert refused(helper, messages(SESSION, "bronx", numbers(0, 6, 4), slots=[3])[0]) is Reason.LENGTH
    assert helper.submit(messages(SESSION, "queens", numbers(0, 5, 4))[0], "queens") == 5


def test_a_full_helper_says_so_and_has_room_after_the_round(tmp_path: Path) -> None:
    helper = Helper(SESSION, 0, tmp_path / "state", most=len(good()) + 10)
    helper.submit(good(), "bronx")
    assert refused(helper, messages(SESSION, "queens", numbers(0, 5, 3))[0], "queens") is Reason.FULL
    helper.drop(0)
    assert helper.submit(messages(SESSION, "queens", numbers(0, 5, 3), round=1)[0], "queens") == 5
    helper.end()


def test_a_closed_round_takes_no_more(helper: Helper) -> None:
    helper.submit(messages(SESSION, "bronx", VALUES, slots=[0, 1])[0], "bronx")
    before = helper.close(0)
    assert refused(helper, messages(SESSION, "bronx", VALUES, slots=[3])[0]) is Reason.LATE
    after = helper.close(0)
    assert pack_entries(SESSION, before) == pack_entries(SESSION, after)
    helper.end()
    again = Helper(SESSION, 0, helper.folder, most=10_000)
    assert refused(again, messages(SESSION, "bronx", VALUES, slots=[3])[0]) is Reason.LATE
    assert pack_entries(SESSION, again.close(0)) == pack_entries(SESSION, before)
    again.end()
    helper.drop(0)
    assert refused(helper, good()) is Reason.LATE


def asked(helper: Helper, slots: list[int], d: int = 3, sharing: bytes = SHARING, round: int = 0) -> Reason:
    with pytest.raises(Refused) as caught:
        helper.total(round, d, entry(slots, d, sharing))
    return caught.value.reason


def entry(slots: list[int], d: int = 3, sharing: bytes = SHARING) -> bytes:
    return pack_entries(SESSION, [Entry("bronx", d, sharing, np.isin(np.arange(6), slots))])


def test_one_set_a_round_and_no_other(helper: Helper, tmp_path: Path) -> None:
    helper.submit(messages(SESSION, "bronx", VALUES, slots=[0, 1, 2, 4])[0], "bronx")
    assert asked(helper, [0, 1]) is Reason.NOT_CLOSED
    helper.close(0)
    assert asked(helper, [0, 3]) is Reason.NOT_HELD
    assert asked(helper, [0, 1], sharing=bytes(16)) is Reason.NOT_HELD
    assert asked(helper, [0, 1], d=2) is Reason.NOT_HELD
    assert asked(helper, [0]) is Reason.TOO_FEW
    assert asked(helper, []) is Reason.TOO_FEW
    assert asked(helper, [0, 1], round=1) is Reason.NOT_CLOSED
    first = helper.total(0, 3, entry([0, 1, 2]))
    assert not list(helper.folder.glob("parts-*"))
    for _ in range(2):
        assert np.array_equal(helper.total(0, 3, entry([0, 1, 2])), first)
        assert asked(helper, [0, 1, 2, 4]) is Reason.OTHER_SET
        assert asked(helper, [0, 1]) is Reason.OTHER_SET
        helper.end()
        helper = Helper(SESSION, 0, helper.folder, most=10_000)
    helper.drop(1)
    assert asked(helper, [0, 1, 2]) is Reason.LATE
    assert asked(helper, [0, 1, 2], round=1) is Reason.OTHER_SET
    helper.end()


def test_a_round_that_is_past_cannot_be_closed(helper: Helper) -> None:
    helper.drop(0)
    with pytest.raises(Refused, match=r"late: .*the coordinator has lost its state"):
        helper.close(0)


@pytest.mark.parametrize("kind", [Kind.CLOSE, Kind.SUM, Kind.DROP])
@pytest.mark.parametrize("by", ["bronx", "helper-1", "albany"])
def test_only_the_coordinator_closes_sums_and_drops(helper: Helper, kind: Kind, by: str) -> None:
    message = packed(SESSION, kind, COORDINATOR, "helper-0", 0)
    with pytest.raises(Refused) as caught:
        helper.asked(kind, message, by)
    assert caught.value.reason is Reason.ROLE


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 200))
def test_bytes_of_any_kind_are_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, offset: int
) -> None:
    """Noise after the header of a good message, or over a part of it, is refused or taken, and never a crash."""
    helper = Helper(SESSION, 0, tmp_path_factory.mktemp("state"), most=10_000)
    message = good()
    over = message[:offset] + noise + message[offset + len(noise) :]
    after = packed(SESSION, Kind.PARTS, "bronx", "helper-0", 0, 3, noise)
    for each in (noise, over[: len(message)], after):
        try:
            helper.submit(each, "bronx")
        except Refused as e:
            assert isinstance(e.reason, Reason)
    helper.end()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=120))
def test_noise_is_no_set(noise: bytes) -> None:
    try:
        entries = entries_of(SESSION, noise)
    except Refused as e:
        assert e.reason in {Reason.TRUNCATED, Reason.MALFORMED}
    else:
        assert len(pack_entries(SESSION, entries)) == len(noise)


def test_entries_come_in_order_and_once() -> None:
    one = Entry("bronx", 3, SHARING, np.ones(6, bool))
    two = Entry("queens", 3, SHARING, np.ones(5, bool))
    assert len(entries_of(SESSION, pack_entries(SESSION, [one, two]))) == 2
    for wrong in ([two, one], [one, one]):
        with pytest.raises(Refused, match="malformed"):
            entries_of(SESSION, pack_entries(SESSION, wrong))
    with pytest.raises(Refused, match="malformed"):
        entries_of(SESSION, struct.pack("<HxxI16s12x", 0, 3, SHARING) + b"\xff")
