"""Split learning between processes: the update of one place, and nothing over the line but what may be."""

from __future__ import annotations

import json
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch

from lpmppl.errors import InputError, LpmError
from lpmppl.inference import calibnn
from lpmppl.inference.split import SplitCalibNN
from lpmppl.parties import certificates
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.encoding import LENGTH, PEOPLE
from lpmppl.parties.line import Line
from lpmppl.parties.reading import LEARNING, PLAIN
from lpmppl.parties.refusals import Reason
from lpmppl.parties.session import COORDINATOR, Session
from lpmppl.parties.split import Server
from lpmppl.parties.wire import HEADER, Kind, packed
from tests.inference.test_calibnn import society
from tests.parties.offices import AGREED, DATA, DAYS, NAMES, RUNS, Office, bits, institution, session
from tests.parties.parts import changed, no_waiting_for_disks
from tests.parties.processes import PATIENCE, Party, eventually, trusted

__all__ = ["no_waiting_for_disks", "session"]

REPLAY = 8
MODEL = society(300, by=True)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(calibnn, "_REPLAY", REPLAY)
    yield
    torch.set_num_threads(threads)


class Watched(Line):
    """A line that notes all that goes over it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[tuple[str, Kind, bytes, bytes]] = []

    def ask(self, name: str, kind: Kind, answer: Kind, step: int, body: bytes = b"", d: int = 0) -> bytes:
        found = super().ask(name, kind, answer, step, body, d)
        self.seen.append((name, kind, body, found))
        return found


@contextmanager
def offices(session: tuple[Session, Path], folder: Path) -> Iterator[dict[str, Office]]:
    made = {name: Office(*session, name, folder) for name in NAMES}
    try:
        for office in made.values():
            office.open()
        yield made
    finally:
        for office in made.values():
            office.close()


def line(session: tuple[Session, Path], at: Mapping[str, Any], kind: type[Any] = Watched, **options: Any) -> Any:
    addresses = {name: each.address for name, each in at.items()}
    options = {"patience": PATIENCE, **options}
    return kind(session[0], Credentials(session[1], COORDINATOR), addresses, **options)


@pytest.fixture(scope="module")
def one_place() -> tuple[SplitCalibNN, dict[str, float], Any]:
    """What all of it is in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibnn, "_REPLAY", REPLAY)
        torch.set_num_threads(1)
        network = SplitCalibNN(MODEL, {"hospitals": "infections", "registry": "recoveries"}, DAYS, seed=4)
        losses = network.learn(RUNS)
    return network, losses, network.posterior(DATA, draws=40)


def same(server: Server, losses: dict[str, float], tree: Any, one_place: Any) -> None:
    """Equal bit for bit to one place."""
    network, expected, alone = one_place
    assert server.losses == network.losses
    assert len(server.losses) == 2 * REPLAY
    assert losses == expected
    assert bits(server._trained) == bits(network._trained)
    for name in ("beta", "gamma", "initial_infected"):
        assert tree["posterior"][name].values.tobytes() == alone["posterior"][name].values.tobytes()
    assert server.calibration().equals(network.calibration())


def test_learning_between_parties_is_that_of_one_place_and_nothing_else_is_sent(session, tmp_path, one_place):
    with offices(session, tmp_path) as at, line(session, at) as wire:
        server = Server(MODEL, AGREED, wire, tmp_path / "server")
        losses = server.learn()
        tree = server.posterior(server.institutions, draws=40)
        same(server, losses, tree, one_place)
        for name, office in at.items():
            assert bits(office.encoding.part) == bits(one_place[0].institutions[name].part)
    # All that was said, by kind and size: of an institution's own there is one reading, and lengths of gradients.
    steps = 2 * REPLAY
    for name in NAMES:
        mine = [(kind, body, found) for who, kind, body, found in wire.seen if who == name]
        sizes = {kind: [len(found) for k, _, found in mine if k is kind] for kind in Kind}
        assert sizes[Kind.READ] == [4 * 64 * 128] * (1 + REPLAY) + [4 * 6 * 128] + [4 * 64 * 128] * REPLAY
        assert sizes[Kind.LEARN] == [8] * steps
        assert sizes[Kind.STEP] == [0] * steps
        assert sizes[Kind.OWN] == [4 * 128]
        assert sum(map(len, sizes.values())) == 2 + 3 * steps + 1
        sent = b"".join(found for _, _, found in mine)
        counts = np.array(next(iter(DATA[name].values())))
        for form in ("<f4", "<f8", "<i4", "<i8"):
            assert counts[-4:].astype(form).tobytes() not in sent
        for weights in bits(at[name].encoding.part):
            assert weights[:32] not in sent or len(weights) < 32
    assert server.traffic == one_place[0].traffic
    heads = HEADER.size * (2 + steps) * len(NAMES)
    assert wire.traffic["READ"] == heads + 4 * (2 + steps) * len(NAMES) + 6 * 4 * DAYS * (RUNS + 64 * steps) * len(
        NAMES
    )
    assert set(wire.traffic) == {kind.name for kind in Kind if kind >= Kind.READ}


def taken(folder: Path, name: str) -> int:
    """The steps that an institution has taken."""
    return max((int(path.name.split("-")[1]) for path in (folder / name).glob("step-*")), default=0)


def test_an_institution_killed_in_mid_learning_goes_on(session, tmp_path, one_place):
    shutil.copytree(session[1].parent, tmp_path, dirs_exist_ok=True)
    hospitals, registry = Party(institution, tmp_path, "hospitals", "hospitals"), Office(*session, "registry", tmp_path)

    def misfortune() -> int:
        eventually("hospitals take steps", lambda: taken(tmp_path, "hospitals") >= 3)
        hospitals.kill()
        then = taken(tmp_path, "hospitals")
        hospitals.start()
        return then

    registry.open()
    try:
        hospitals.start()
        at = {"hospitals": hospitals, "registry": registry}
        with line(session, at) as wire, ThreadPoolExecutor(1) as pool:
            server = Server(MODEL, AGREED, wire, tmp_path / "server")
            step = server._step

            def slowly() -> None:
                step()
                time.sleep(0.1)

            server._step = slowly  # type: ignore[method-assign]
            running = pool.submit(misfortune)
            losses = server.learn()
            then = running.result(PATIENCE)
            same(server, losses, server.posterior(NAMES, draws=40), one_place)
        assert [each["round"] for each in hospitals.events("resumed")] == [then]
        assert 3 <= then < 2 * REPLAY
    finally:
        registry.close()
        hospitals.kill()


class Ending(Watched):
    """A line on which Ctrl-C comes once, after so many questions."""

    left = 0

    def ask(self, *args: Any, **options: Any) -> bytes:
        self.left -= 1
        if self.left == -1:
            raise KeyboardInterrupt
        return super().ask(*args, **options)


@pytest.mark.parametrize("calls", [1, 4, 25, 49, 51, 57, 71])
def test_a_server_that_ends_at_any_question_goes_on(session, tmp_path, one_place, calls):
    with offices(session, tmp_path) as at:
        with line(session, at, Ending) as wire, pytest.raises(KeyboardInterrupt):
            wire.left = calls
            Server(MODEL, AGREED, wire, tmp_path / "server").learn()
        with line(session, at) as wire:
            server = Server(MODEL, AGREED, wire, tmp_path / "server")
            assert abs(len(server.losses) - max(at["hospitals"].encoding.step_number, 0)) <= 1
            losses = server.learn()
            same(server, losses, server.posterior(NAMES, draws=40), one_place)
            # As often as it is asked.
            again = Server(MODEL, AGREED, wire, tmp_path / "server")
            same(again, again.learn(), again.posterior(again.institutions, draws=40), one_place)


@pytest.mark.parametrize("calls", [25, 51])
def test_a_server_that_is_asked_again_after_ctrl_c_goes_on(session, tmp_path, one_place, calls):
    with offices(session, tmp_path) as at, line(session, at, Ending) as wire:
        wire.left, server = calls, Server(MODEL, AGREED, wire, tmp_path / "server")
        with pytest.raises(KeyboardInterrupt):
            server.learn()
        same(server, server.learn(), server.posterior(NAMES, draws=40), one_place)


def test_an_institution_that_ends_in_mid_step_begins_it_again(session, tmp_path, one_place):
    ends = {(Kind.READ, 2), (Kind.LEARN, 3), (Kind.STEP, 4), (Kind.LEARN, REPLAY + 1), (Kind.OWN, 2 * REPLAY)}

    class Restarting(Watched):
        def ask(self, name: str, kind: Kind, answer: Kind, step: int, body: bytes = b"", d: int = 0) -> bytes:
            if name == "registry" and (kind, step) in ends:
                ends.discard((kind, step))
                at[name].close()
                at[name].open()
            return super().ask(name, kind, answer, step, body, d)

    with offices(session, tmp_path) as at:
        with line(session, at, Restarting) as wire:
            server = Server(MODEL, AGREED, wire, tmp_path / "server")
            same(server, server.learn(), server.posterior(NAMES, draws=40), one_place)
        assert not ends
        assert bits(at["registry"].encoding.part) == bits(one_place[0].institutions["registry"].part)


def test_an_institution_that_stays_away_is_named_and_nothing_is_lost(session, tmp_path, one_place):
    with offices(session, tmp_path) as at, line(session, at, patience=1.5) as wire:
        server = Server(MODEL, AGREED, wire, tmp_path / "server")
        step, left = server._step, [5]

        def broken() -> None:
            left[0] -= 1
            if left[0] == 0:
                at["registry"].close()
            step()

        server._step = broken  # type: ignore[method-assign]
        with pytest.raises(LpmError, match=r"institution 'registry' has been away for 1\.5 s in step 4: registry at"):
            server.learn()
        assert len(server.losses) == 4
        at["registry"].open()
        losses = server.learn()
        same(server, losses, server.posterior(NAMES, draws=40), one_place)


# --- what is refused


def test_what_cannot_be_is_refused_by_name_and_the_institution_goes_on(session, tmp_path, one_place):
    of, keys = session
    other = Session(**{**of._fields(), "id": of.id, "model": "split-2"})
    stranger = AGREED.session(MODEL)
    series = np.zeros((2, 1, DAYS, 6), "<f4")

    def message(kind: Kind = Kind.READ, body: bytes = LEARNING + series.tobytes(), step: int = 0, session=of, by="c"):
        by = COORDINATOR if by == "c" else by
        return packed(session, kind, by, "hospitals", step, min(len(body) // 4, of.longest), body)

    broken = series.copy()
    broken[0, 0, 3, 1] = np.nan
    huge = np.full((2, 1, DAYS, 6), 3e38, "<f4")
    derivative = np.zeros((2, 1, 128), "<f4")
    good = message()
    c, code = COORDINATOR, grpc.StatusCode
    wrong = [
        (c, "READ", good[:-1], Reason.TRUNCATED, code.INVALID_ARGUMENT),
        (c, "READ", b"", Reason.TRUNCATED, code.INVALID_ARGUMENT),
        (c, "READ", bytes(of.largest + 1), Reason.OVERSIZED, code.INVALID_ARGUMENT),
        (c, "READ", changed(good, 0, "<4s", b"LPMX"), Reason.MALFORMED, code.INVALID_ARGUMENT),
        (c, "READ", changed(good, HEADER.size, "<H", 7), Reason.MALFORMED, code.INVALID_ARGUMENT),
        (c, "READ", message(session=stranger), Reason.SESSION, code.FAILED_PRECONDITION),
        (c, "READ", message(session=other), Reason.MODEL, code.FAILED_PRECONDITION),
        (c, "READ", message(by="registry"), Reason.SENDER, code.PERMISSION_DENIED),
        ("registry", "READ", message(by="registry"), Reason.ROLE, code.PERMISSION_DENIED),
        ("helper-0", "OWN", message(Kind.OWN, by="helper-0"), Reason.ROLE, code.PERMISSION_DENIED),
        (c, "READ", message(step=1), Reason.EARLY, code.FAILED_PRECONDITION),
        (c, "READ", message(body=LEARNING), Reason.LENGTH, code.INVALID_ARGUMENT),
        (c, "READ", message(body=LEARNING + series.tobytes()[:-4]), Reason.LENGTH, code.INVALID_ARGUMENT),
        (c, "READ", message(body=LEARNING + broken.tobytes()), Reason.RANGE, code.INVALID_ARGUMENT),
        (c, "LEARN", message(Kind.LEARN, derivative.tobytes()), Reason.NOT_HELD, code.FAILED_PRECONDITION),
        (c, "STEP", message(Kind.STEP, LENGTH.pack(1.0)), Reason.NOT_HELD, code.FAILED_PRECONDITION),
        (c, "STEP", message(Kind.STEP, LENGTH.pack(float("inf"))), Reason.RANGE, code.INVALID_ARGUMENT),
        (c, "STEP", message(Kind.STEP, LENGTH.pack(-1.0)), Reason.RANGE, code.INVALID_ARGUMENT),
        (c, "STEP", message(Kind.STEP, b""), Reason.LENGTH, code.INVALID_ARGUMENT),
        (c, "OWN", message(Kind.OWN, PEOPLE.pack(300)), Reason.EARLY, code.FAILED_PRECONDITION),
    ]
    with offices(session, tmp_path) as at:
        office = at["hospitals"]
        first = bits(office.encoding.part)

        def told(sender: str, method: str, content: bytes) -> tuple[grpc.StatusCode, str]:
            options = [("grpc.ssl_target_name_override", "hospitals"), ("grpc.max_send_message_length", 2**28)]
            with grpc.secure_channel(office.address, Credentials(keys, sender).channel(), options) as channel:
                call = channel.unary_unary(f"/lpmppl.parties/{method}")
                with pytest.raises(grpc.RpcError) as caught:
                    call(content, timeout=PATIENCE)
            return caught.value.code(), caught.value.details()

        for sender, method, content, reason, expected in wrong:
            found, details = told(sender, method, content)
            assert (found, details.partition(": ")[0]) == (expected, reason.value), (method, details)
        assert bits(office.encoding.part) == first
        # What was read is to be differentiated by what has its shape, and by numbers.
        with line(session, at) as wire:
            wire.ask("hospitals", Kind.READ, Kind.READING, 0, LEARNING + huge.tobytes())
            for body, reason in (
                (derivative.tobytes()[4:], Reason.LENGTH),
                (np.full((2, 1, 128), np.inf, "<f4").tobytes(), Reason.RANGE),
            ):
                assert told(c, "LEARN", message(Kind.LEARN, body))[1].startswith(reason.value)
            server = Server(MODEL, AGREED, wire, tmp_path / "server")
            same(server, server.learn(), server.posterior(NAMES, draws=40), one_place)
        said = [json.loads(each) for each in office.log.getvalue().splitlines()]
        assert [each["reason"] for each in said if each["event"] == "refused"][: len(wrong)] == [
            w[3].value for w in wrong
        ]


@pytest.mark.parametrize("whose", ["the server's", "an institution's"])
def test_certificates_of_another_authority_are_refused_by_name(session, tmp_path, whose):
    certificates.issue(tmp_path / "foreign", session[0].parties)
    with offices(session, tmp_path) as at:
        addresses = {name: each.address for name, each in at.items()}
        keys = tmp_path / "foreign"
        says = "'coordinator' don't accept each other: the certificate of 'hospitals' can't be trusted"
        if whose == "the server's":
            shutil.copy(session[1] / "ca.pem", keys / "ca.pem")
            says = "hospitals refuses the certificate of 'coordinator'"
        with Line(session[0], trusted(keys, COORDINATOR), addresses) as wire, pytest.raises(LpmError, match=says):
            wire.ask("hospitals", Kind.READ, Kind.READING, 0, PLAIN)


def test_an_answer_of_no_numbers_is_refused_by_name(session, tmp_path):
    with offices(session, tmp_path) as at, line(session, at) as wire:
        with torch.no_grad():
            for p in at["registry"].encoding.part.averaged.parameters():
                p.fill_(float("nan"))
        server = Server(MODEL, AGREED, wire, tmp_path / "server")
        with pytest.raises(
            LpmError, match=r"institution 'registry' gives what can't be used in step 0: range: reading"
        ):
            server.learn()


def test_a_server_reads_no_data_and_none_before_all_is_learnt(session, tmp_path, one_place):
    with offices(session, tmp_path) as at, line(session, at) as wire:
        server = Server(MODEL, AGREED, wire, tmp_path / "server")
        left = [5]
        step = server._step

        def broken() -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            step()

        server._step = broken  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            server.learn()
        with pytest.raises(InputError, match=r"when all is learnt: call \.learn"):
            server.posterior(NAMES)
        server._step = step  # type: ignore[method-assign]
        server.learn()
        with pytest.raises(InputError, match="data stay with their institutions"):
            server.posterior(DATA)
        with pytest.raises(InputError, match="unknown institution 'hospital'"):
            server.posterior("hospital")
        with pytest.raises(InputError, match="is of another society"):
            Server(society(301, by=True), AGREED, wire, tmp_path / "server")
        # Whoever isn't asked for data is heard as one who saw nothing.
        half = server.posterior("hospitals", draws=40)
        alone = one_place[0].posterior({"hospitals": DATA["hospitals"]}, draws=40)
        assert half["posterior"]["beta"].values.tobytes() == alone["posterior"]["beta"].values.tobytes()
        assert [who for who, kind, *_ in wire.seen if kind is Kind.OWN] == ["hospitals"]
        assert struct.unpack_from("<Q", next(body for _, kind, body, _ in wire.seen if kind is Kind.OWN)) == (300,)
