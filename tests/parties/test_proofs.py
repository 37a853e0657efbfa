"""Numbers that are proved to be in their range: who cheats is left out, and the round goes on for all others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from lpmppl.errors import InputError
from lpmppl.parties import uploads
from lpmppl.parties.helper import Helper
from lpmppl.parties.proofs import challenge, valid
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.results import Decision, Result, chosen
from lpmppl.parties.session import Session, helper_name
from lpmppl.parties.sets import batches, invalid, kept, merged
from lpmppl.parties.splitting import Parted
from lpmppl.parties.terms import PLAIN, Rule, Terms
from lpmppl.parties.wire import Entry, Kind, Parts, pack_entries, packed
from tests.parties.parts import SHARING, changed, messages, no_waiting_for_disks, numbers, session
from tests.parties.processes import together, town

__all__ = ["no_waiting_for_disks"]

ONE = Terms(rule=Rule.AT_MOST_ONE)
COUNTED = Terms(rule=Rule.AT_MOST_ONE_BOUNDED, bits=4)
TERMS = [
    ONE,
    COUNTED,
    Terms(rule=Rule.BOOLEANS),
    Terms(rule=Rule.BOUNDED, bits=3),
    Terms(rule=Rule.AT_MOST_ONE, rows=2),
]
SESSION = session(proofs=True, longest=512)


def ones(agents: int, d: int = 4) -> Tensor:
    """Numbers that keep all rules: one in each row of two."""
    return torch.eye(d, dtype=torch.int64)[torch.arange(agents) % d]


class Helpers:
    """All helpers of a session without a network, and what the coordinator does with them."""

    def __init__(self, folder: Path, of: Session = SESSION) -> None:
        self.session, self.folder = of, folder
        self.all = [Helper(of, k, folder / str(k), most=10**7) for k in range(of.helpers)]

    def restart(self, k: int) -> None:
        self.all[k].end()
        self.all[k] = Helper(self.session, k, self.folder / str(k), most=10**7)

    def submit(self, client: str, sent: list[bytes]) -> None:
        for helper, message in zip(self.all, sent, strict=True):
            helper.submit(message, client)

    def closed(self, round: int = 0) -> Decision:
        return chosen(self.session, {k: helper.close(round) for k, helper in enumerate(self.all)})

    @property
    def nonces(self) -> bytes:
        return b"".join(helper.nonce for helper in self.all)

    def verified(self, entries: list[Entry], round: int = 0) -> NDArray[np.bool_]:
        body = self.nonces + pack_entries(self.session, entries)
        circuit = entries[0].terms.circuit(entries[0].d)
        assert circuit is not None
        return valid(circuit, {k: helper.verify(round, body) for k, helper in enumerate(self.all)})

    def summed(self, decision: Decision, round: int = 0) -> Result:
        body = pack_entries(self.session, decision.entries)
        totals = {k: helper.total(round, decision.d, body) for k, helper in enumerate(self.all)}
        return Result.summed(self.session, decision, totals)

    def end(self) -> None:
        for helper in self.all:
            helper.end()


@pytest.fixture
def helpers(tmp_path: Path) -> Iterator[Helpers]:
    made = Helpers(tmp_path)
    yield made
    made.end()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(TERMS), st.integers(2, 4), st.sets(st.integers(0, 5), max_size=6), st.data())
def test_whose_numbers_are_wrong_is_left_out_whatever_was_changed(
    tmp_path_factory: pytest.TempPathFactory, terms: Terms, m: int, cheats: set[int], data: st.DataObject
) -> None:
    """Any word of a message, be it of the number, its mask or its proof, changed by anything."""
    made = Helpers(tmp_path_factory.mktemp("proofs"), session(helpers=m, proofs=True, longest=512))
    values = ones(6)

    def cheat(parts: Parted) -> None:
        assert hasattr(parts, "vectors")
        for i in cheats:
            word = data.draw(st.integers(0, parts.vectors.shape[1] - 1), "word")
            parts.vectors[i, word] = (parts.vectors[i, word] + data.draw(st.integers(1, 2**61 - 2), "by")) % (2**61 - 1)

    made.submit("bronx", messages(made.session, "bronx", values, terms=terms, cheat=cheat))
    made.submit("queens", messages(made.session, "queens", values[:5], terms=terms))
    decision = made.closed()
    assert decision.terms == terms
    made.restart(data.draw(st.integers(0, m - 1), "restarted"))
    left = [e for some in batches(decision.entries, 4) for e in kept(some, made.verified(some))]
    honest = [i for i in range(6) if i not in cheats]
    assert invalid(decision.entries, left) == ({"bronx": len(cheats)} if cheats else {})
    result = made.summed(decision._replace(entries=merged(left)))
    assert np.flatnonzero(result.slots["bronx"]).tolist() == honest
    assert result.total.tolist() == (values[honest].sum(0) + values[:5].sum(0)).tolist()
    made.end()


def test_the_round_goes_on_among_processes_without_who_cheats(tmp_path: Path) -> None:
    """And the sum of the next is over everybody."""
    cheating = [1, 4]
    honest = uploads.split

    def split(of: Session, values: NDArray[np.int64], slots: NDArray[np.uint32], terms: Terms) -> Parted:
        parts = honest(of, values, slots, terms)
        if of.agents("queens") == len(slots):
            parts.vectors[cheating, 0] += 1  # type: ignore[attr-defined]
        return parts

    with town(tmp_path, SESSION) as up, up.client("bronx") as bronx, up.client("queens") as queens:
        with patch.object(uploads, "split", split):
            here, there = together(lambda: bronx.sum(ones(6), terms=ONE), lambda: queens.sum(ones(5), terms=ONE))
        assert here.included == there.included == 9
        assert there.mine.tolist() == [i not in cheating for i in range(5)]
        assert here.total.tolist() == (ones(6).sum(0) + ones(5)[[0, 2, 3]].sum(0)).tolist()
        (said,) = up.coordinator.events("invalid")
        assert (said["client"], said["agents"], said["round"]) == ("queens", 2, 0)
        here, _ = together(lambda: bronx.sum(ones(6), terms=ONE), lambda: queens.sum(ones(5), terms=ONE))
        assert (here.included, here.total.tolist()) == (11, (ones(6).sum(0) + ones(5).sum(0)).tolist())
        with pytest.raises(InputError, match="numbers that are proved to be valid, and these aren't"):
            bronx.sum(ones(6))
        with pytest.raises(InputError, match="AtMostOne\\(4\\): agent 2 has 7 as number 2; give 0 to 1"):
            bronx.sum(torch.where(torch.arange(6)[:, None] == 2, 7, 1) * ones(6), terms=ONE)


def refused(reason: Reason, helper: Helper, round: int, body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        helper.verify(round, body)
    assert caught.value.reason is reason


def test_one_challenge_is_answered_a_round_and_again_after_a_restart(helpers: Helpers) -> None:
    """X at two points would tell of the numbers."""
    helpers.submit("bronx", messages(SESSION, "bronx", ones(6), terms=ONE))
    helper = helpers.all[0]
    entries = pack_entries(SESSION, helper.held(0, "bronx"))
    refused(Reason.NOT_CLOSED, helper, 0, bytes(96) + entries)
    decision = helpers.closed()
    nonces = helpers.nonces
    assert len({nonces[i : i + 32] for i in (0, 32, 64)}) == 3
    first = helper.verify(0, nonces + entries)
    others = [nonces[:32] + bytes(64), nonces[:64] + nonces[32:64], bytes(32) + nonces[32:]]
    for _ in range(2):
        for other in others:
            refused(Reason.OTHER_CHALLENGE, helpers.all[0], 0, other + entries)
        helpers.closed()
        assert helpers.nonces == nonces
        assert np.array_equal(helpers.all[0].verify(0, nonces + entries), first)
        helpers.restart(0)
    some = [decision.entries[0]._replace(slots=np.arange(6) == 3)]
    assert np.array_equal(helpers.all[0].verify(0, nonces + pack_entries(SESSION, some)), first[3:4])
    helpers.summed(decision)
    assert not [path for path in (helpers.folder / "0").iterdir() if path.name.split("-")[0] in ("closed", "checked")]
    helpers.submit("bronx", messages(SESSION, "bronx", ones(6), round=1, terms=ONE))
    helpers.closed(1)
    assert not {helpers.nonces[i : i + 32] for i in (0, 32, 64)} & {nonces[i : i + 32] for i in (0, 32, 64)}


def test_the_challenge_is_of_all_helpers_of_the_round_and_the_session() -> None:
    base = bytes(16), 3, [bytes(32), bytes([1] * 32)]
    found = {
        challenge(*base),
        challenge(bytes([1] * 16), *base[1:]),
        challenge(base[0], 4, base[2]),
        challenge(*base[:2], base[2][::-1]),
        challenge(*base[:2], [base[2][0], bytes([2] * 32)]),
    }
    assert len(found) == 5


def test_what_can_not_be_checked_is_refused(helpers: Helpers) -> None:
    helpers.submit("bronx", messages(SESSION, "bronx", ones(6), terms=ONE, slots=[0, 1]))
    (entry,) = helpers.closed().entries
    for wrong in (
        [entry._replace(slots=np.ones(6, bool))],
        [entry._replace(terms=COUNTED)],
        [entry._replace(terms=PLAIN)],
        [entry._replace(sharing=bytes(16))],
        [],
    ):
        refused(Reason.NOT_HELD, helpers.all[1], 0, helpers.nonces + pack_entries(SESSION, wrong))
    refused(Reason.OTHER_CHALLENGE, helpers.all[1], 0, b"")


@pytest.mark.parametrize(
    ("offset", "form", "value", "reason"),
    [
        (28, "<d", float("nan"), Reason.NOISE),
        (28, "<d", -1.0, Reason.NOISE),
        (28, "<d", 1e300, Reason.NOISE),
        (36, "<B", 9, Reason.PROOF),
        (36, "<B", 0, Reason.PROOF),
        (36, "<B", 3, Reason.PROOF),
        (36, "<B", 1, Reason.PARTS),
        (38, "<H", 3, Reason.PROOF),
        (38, "<H", 0, Reason.PROOF),
        (38, "<H", 2, Reason.PARTS),
    ],
)
def test_terms_that_can_not_be_are_refused_by_name(
    helpers: Helpers, offset: int, form: str, value: float, reason: Reason
) -> None:
    message = messages(SESSION, "bronx", ones(6), terms=ONE)[0]
    with pytest.raises(Refused) as caught:
        helpers.all[0].submit(changed(message, 72 + offset, form, value), "bronx")  # type: ignore[arg-type]
    assert caught.value.reason is reason
    assert helpers.all[0].submit(message, "bronx") == 6


def test_a_threshold_has_neither_proofs_nor_noise(tmp_path: Path) -> None:
    of = session(threshold=2)
    helper = Helper(of, 0, tmp_path, 10**6)
    slots, seeds = np.arange(2, dtype=np.uint32), np.ones((2, 32), np.uint8)
    for terms in (Terms(sigma=1.0), ONE):
        body = Parts.body(SHARING, slots, seeds, np.empty((0, 4), np.int64), terms)
        with pytest.raises(Refused, match="neither proofs nor noise"):
            helper.submit(packed(of, Kind.PARTS, "bronx", helper_name(0), 0, 4, body), "bronx")
    helper.end()


def test_one_client_with_other_terms_does_not_spoil_the_round(helpers: Helpers) -> None:
    helpers.submit("bronx", messages(SESSION, "bronx", ones(6), terms=ONE))
    helpers.submit("queens", messages(SESSION, "queens", ones(5), terms=COUNTED))
    decision = helpers.closed()
    assert (decision.terms, decision.agents, [e.client for e in decision.entries]) == (ONE, 6, ["bronx"])


@pytest.mark.parametrize("terms", [PLAIN, ONE])
def test_every_helper_adds_its_noise_once(tmp_path: Path, terms: Terms) -> None:
    """Of variance mσ²; a fixed seed isn't possible where noise is secret: this fails once in 10⁹ runs."""
    m, sigma, rounds, d = 3, 5.0, 40, 64
    of = session({"bronx": 6}, longest=2048, proofs=bool(terms.rule))
    made, terms, found = Helpers(tmp_path, of), terms._replace(sigma=sigma), []
    for round in range(rounds):
        made.submit("bronx", messages(of, "bronx", ones(6, d), round=round, terms=terms))
        decision = made.closed(round)
        assert decision.terms.sigma == sigma
        if not round:
            quiet = [e._replace(terms=e.terms._replace(sigma=0.0)) for e in decision.entries]
            with pytest.raises(Refused, match="not-held"):
                made.all[0].total(round, d, pack_entries(of, quiet))
        result = made.summed(decision, round)
        made.restart(1)
        assert np.array_equal(made.summed(decision, round).total, result.total)
        found.append(result.total - ones(6, d).sum(0).numpy())
    noise = np.concatenate(found)
    from scipy import stats

    ratio = (noise.astype(float) ** 2).sum() / (m * sigma**2)
    assert 5e-10 < stats.chi2.cdf(ratio, noise.size) < 1 - 5e-10
    assert abs(stats.norm.cdf(noise.mean() / np.sqrt(m * sigma**2 / noise.size)) - 0.5) < 0.5 - 5e-10
    made.end()


def test_any_numbers_are_summed_where_nothing_is_proved(tmp_path: Path) -> None:
    """And with noise they are still words of 64 bits."""
    made = Helpers(tmp_path, session())
    values = numbers(0, 6, 3)
    made.submit("bronx", messages(made.session, "bronx", values, terms=Terms(sigma=1.0)))
    found = made.summed(made.closed())
    off = found.total - values.sum(0).numpy()
    assert np.abs(off).max() < 30
    made.end()


def test_sets_in_batches_are_the_set() -> None:
    entries = [Entry("bronx", 4, SHARING, np.array([True, False, True, True, True, True]), ONE)]
    entries.append(Entry("queens", 4, SHARING, np.zeros(5, bool), ONE))
    entries.append(Entry("queens", 4, bytes(16), np.array([False, True, True, False, True]), ONE))
    for size in range(1, 10):
        some = list(batches(entries, size))
        assert all(sum(int(e.slots.sum()) for e in batch) == size for batch in some[:-1])
        again = merged([e for batch in some for e in batch])
        assert pack_entries(SESSION, again) == pack_entries(SESSION, [entries[0], entries[2]])
