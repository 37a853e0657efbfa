"""What parties say to one another when something is wrong: refusals by name, certificates, ports, and their ends."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from lpmppl.errors import InputError, LpmError
from lpmppl.parties import aggregator, coordinator
from lpmppl.parties.certificates import issue
from lpmppl.parties.client import Rounds
from lpmppl.parties.refusals import Reason
from lpmppl.parties.session import COORDINATOR, Session
from lpmppl.parties.wire import Kind, packed
from tests.parties.parts import changed, messages, numbers, session
from tests.parties.processes import PATIENCE, Party, Town, call, eventually, town, trusted
from tests.parties.test_certificates import ago


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with town(tmp_path_factory.mktemp("town"), session({"bronx": 6, "queens": 5}, deadline=5.0), metrics=0) as up:
        yield up


def page(party: Party, path: str) -> str:
    port = party.events("listening")[0]["metrics"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def refusals(made: Town, reason: Reason) -> int:
    label = f'lpmppl_party_refused_total{{party="helper-0",reason="{reason.value}"}} '
    return sum(
        int(line.removeprefix(label))
        for line in page(made.helpers[0], "/metrics").splitlines()
        if line.startswith(label)
    )


def status(made: Town, sender: str, method: str, message: bytes) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(made, sender, made.helpers[0], method, message)
    return caught.value.code(), caught.value.details()


def test_refusals_come_with_their_name_and_are_counted_and_the_round_goes_on(tmp_path: Path) -> None:
    with town(tmp_path, session({"bronx": 6, "queens": 5}), metrics=0) as made:
        of, x = made.session, numbers(0, 6, 3)
        good = messages(of, "bronx", x)[0]
        other = Session(**{**of._fields(), "id": of.id, "model": "sir-2"})
        code = grpc.StatusCode
        close, total = (packed(of, kind, "bronx", "helper-0", 0) for kind in (Kind.CLOSE, Kind.SUM))
        wrong = [
            ("bronx", "PARTS", good[:-1], Reason.TRUNCATED, code.INVALID_ARGUMENT),
            ("bronx", "PARTS", bytes(of.largest + 1), Reason.OVERSIZED, code.INVALID_ARGUMENT),
            ("bronx", "PARTS", changed(good, 4, "<H", 9), Reason.VERSION, code.FAILED_PRECONDITION),
            ("bronx", "PARTS", messages(session(), "bronx", x)[0], Reason.SESSION, code.FAILED_PRECONDITION),
            ("bronx", "PARTS", messages(other, "bronx", x)[0], Reason.MODEL, code.FAILED_PRECONDITION),
            ("bronx", "PARTS", messages(of, "bronx", x, round=7)[0], Reason.EARLY, code.FAILED_PRECONDITION),
            ("queens", "PARTS", good, Reason.SENDER, code.PERMISSION_DENIED),
            ("coordinator", "PARTS", good, Reason.ROLE, code.PERMISSION_DENIED),
            ("bronx", "CLOSE", close, Reason.ROLE, code.PERMISSION_DENIED),
            ("bronx", "SUM", total, Reason.ROLE, code.PERMISSION_DENIED),
        ]
        for sender, method, message, reason, expected in wrong:
            before = refusals(made, reason)
            found, details = status(made, sender, method, message)
            assert (found, details.partition(": ")[0]) == (expected, reason.value)
            assert refusals(made, reason) == before + 1
        with made.client("bronx") as bronx, made.client("queens") as queens, ThreadPoolExecutor(1) as pool:
            pending = pool.submit(queens.sum, numbers(1, 5, 3))
            assert bronx.sum(x).included == 11
            assert pending.result(PATIENCE).included == 11
        said = page(made.coordinator, "/metrics")
        assert 'lpmppl_party_rounds_total{party="coordinator",outcome="opened"} 1\n' in said
        assert 'lpmppl_party_agents_included_total{party="coordinator"} 11\n' in said
        assert json.loads(page(made.coordinator, "/health"))["round"] == 1
        assert status(made, "bronx", "PARTS", good)[1].startswith("late: round 0 is closed at helper-0")


def test_someone_elses_name_says_whose_certificate_it_is(made: Town) -> None:
    message = messages(made.session, "bronx", numbers(0, 6, 3), round=1)[0]
    says = "sender: the message says that it is from 'bronx', the certificate is of 'queens'"
    assert status(made, "queens", "PARTS", message)[1] == says


def test_metrics_and_health(made: Town) -> None:
    status(made, "bronx", "PARTS", b"")
    text = page(made.helpers[0], "/metrics")
    assert "# TYPE lpmppl_party_received_bytes_total counter\n" in text
    assert 'lpmppl_party_held_bytes{party="helper-0"} ' in text
    health = json.loads(page(made.helpers[0], "/health"))
    assert (health["party"], health["session"]) == ("helper-0", made.session.id.hex())
    assert health["round"] == int(text.partition('lpmppl_party_open_round{party="helper-0"} ')[2].splitlines()[0])
    with pytest.raises(urllib.error.HTTPError, match="404"):
        page(made.helpers[0], "/parts")


def cheat(made: Town, tmp_path: Path, kind: str) -> Path:
    """A folder with a certificate of bronx that shouldn't be taken."""
    folder = tmp_path / "certificates"
    if kind == "foreign":
        issue(folder, ["bronx"])
        shutil.copy(made.folder / "certificates" / "ca.pem", folder / "ca.pem")
    else:
        shutil.copytree(made.folder / "certificates", folder)
        issue(folder, ["bronx"], days=1, since=ago(3))
    return folder


@pytest.mark.parametrize(("kind", "says"), [("foreign", "isn't of its authority"), ("expired", r"expired on \d")])
def test_servers_refuse_other_certificates_and_the_client_says_why(
    made: Town, tmp_path: Path, kind: str, says: str
) -> None:
    credentials = trusted(cheat(made, tmp_path, kind), "bronx")
    rounds = Rounds(made.session, "bronx", credentials, made.addresses, made.coordinator.address)
    with rounds, pytest.raises(LpmError, match=f"coordinator refuses the certificate of 'bronx', .*{says}"):
        rounds.sum(numbers(0, 6, 3))


def test_clients_refuse_a_server_of_another_authority(made: Town, tmp_path: Path) -> None:
    issue(tmp_path, ["bronx"])
    rounds = Rounds(made.session, "bronx", trusted(tmp_path, "bronx"), made.addresses, made.coordinator.address)
    with rounds, pytest.raises(LpmError, match="the certificate of 'coordinator' can't be trusted"):
        rounds.sum(numbers(0, 6, 3))


def test_a_helper_in_the_place_of_another_is_found_out_by_its_name(made: Town) -> None:
    addresses = [made.addresses[1], made.addresses[0], made.addresses[2]]
    with Rounds(made.session, "bronx", made.credentials("bronx"), addresses, made.coordinator.address) as rounds:
        rounds.round = made.coordinator.events("opened")[-1]["round"] + 1 if made.coordinator.events("opened") else 0
        with pytest.raises(LpmError, match=r"certificate of 'helper-\d' can't be trusted, .*mismatch"):
            rounds.sum(numbers(0, 6, 3))


def test_a_client_of_another_model_is_told_so(made: Town) -> None:
    other = Session(**{**made.session._fields(), "id": made.session.id, "model": "sir-2"})
    rounds = Rounds(other, "bronx", made.credentials("bronx"), made.addresses, made.coordinator.address)
    says = "round 0: client 'bronx' was refused, model: coordinator runs another model"
    with rounds, pytest.raises(LpmError, match=says):
        rounds.sum(numbers(0, 6, 3))


def run(server: Coroutine[Any, Any, None]) -> None:
    """Run a server that shouldn't stay up."""
    asyncio.run(asyncio.wait_for(server, PATIENCE))


def test_ports_in_use_are_named(made: Town, tmp_path: Path) -> None:
    port = made.helpers[0].port
    with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 can't be used"):
        run(aggregator.serve(made.session, 1, port, made.credentials("helper-1"), tmp_path / "state"))
    metrics = made.helpers[0].events("listening")[0]["metrics"]
    with pytest.raises(InputError, match=f"metrics port {metrics} can't be used"):
        run(aggregator.serve(made.session, 1, 0, made.credentials("helper-1"), tmp_path / "state", metrics))


def test_servers_refuse_bad_input(made: Town, tmp_path: Path) -> None:
    def helper(*args: object, **options: object) -> None:
        run(aggregator.serve(made.session, *args, **options))  # type: ignore[arg-type]

    mine = made.credentials("helper-1")
    with pytest.raises(InputError, match="there is no helper 3"):
        helper(3, 0, mine, tmp_path)
    with pytest.raises(InputError, match="helper 0 needs the certificate of 'helper-0', not 'helper-1's"):
        helper(0, 0, mine, tmp_path)
    with pytest.raises(InputError, match="belongs to another session or party"):
        helper(1, 0, mine, made.folder / "helper-0")
    with pytest.raises(InputError, match="port=70000"):
        helper(1, 70000, mine, tmp_path / "state")
    with pytest.raises(InputError, match="most=0"):
        helper(1, 0, mine, tmp_path / "state", most=0)
    chief = made.credentials(COORDINATOR)
    for helpers, says in ((["127.0.0.1:1"], "each of the session's 3"), (["x"] * 3, "give host:port")):
        with pytest.raises(InputError, match=says):
            run(coordinator.serve(made.session, 0, chief, helpers, tmp_path / "chief"))
    with pytest.raises(InputError, match="needs the certificate of 'coordinator'"):
        run(coordinator.serve(made.session, 0, mine, made.addresses, tmp_path / "chief"))


def test_clients_refuse_bad_input(made: Town) -> None:
    with pytest.raises(InputError, match="did you mean 'bronx'"):
        Rounds(made.session, "bronks", made.credentials("bronx"), made.addresses, made.coordinator.address)
    with pytest.raises(InputError, match="needs its own certificate"):
        Rounds(made.session, "bronx", made.credentials("queens"), made.addresses, made.coordinator.address)
    with pytest.raises(InputError, match="give host:port"):
        Rounds(made.session, "bronx", made.credentials("bronx"), made.addresses, "nowhere")
    with pytest.raises(LpmError, match="isn't connected"):
        made.client("bronx").sum(numbers(0, 6, 3))
    with made.client("bronx") as rounds:
        for values, says in (
            (numbers(0, 6, 3).double(), "float64"),
            (numbers(0, 6, 3)[0], r"shape \(3,\)"),
            (numbers(0, 5, 3), "has 6 agents with 1 to 64 numbers"),
            (numbers(0, 6, 65), "has 6 agents with 1 to 64 numbers"),
            ([[1]], "list"),
        ):
            with pytest.raises(InputError, match=says):
                rounds.sum(values)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"bool of shape \(6,\)"):
            rounds.sum(numbers(0, 6, 3), torch.zeros(5, dtype=torch.bool))


def test_nobody_there_is_said_by_name(made: Town, tmp_path: Path) -> None:
    with made.client("bronx", patience=0.5) as rounds:
        pass
    nobody = Rounds(made.session, "bronx", made.credentials("bronx"), made.addresses, "127.0.0.1:1", patience=0.5)
    with (
        nobody as rounds,
        pytest.raises(LpmError, match=r"round 0 wasn't opened within 0.5 s: coordinator at 127.0.0.1:1"),
    ):
        rounds.sum(numbers(0, 6, 3))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_they_end_cleanly(tmp_path: Path, number: int) -> None:
    with town(tmp_path, session()) as up:
        for party in (*up.helpers, up.coordinator):
            assert party.kill(number) == 0
            assert party.events("ended")
            assert "Traceback" not in party.log


def test_a_coordinator_without_its_state_says_so(tmp_path: Path) -> None:
    with town(tmp_path, session({"bronx": 6})) as up, up.client("bronx") as bronx:
        bronx.sum(numbers(0, 6, 3))
        up.coordinator.kill()
        shutil.rmtree(tmp_path / COORDINATOR)
        up.coordinator.start()
        rounds = Rounds(
            up.session, "bronx", up.credentials("bronx"), up.addresses, up.coordinator.address, patience=1.0
        )
        with rounds, pytest.raises(LpmError):
            rounds.sum(numbers(0, 6, 3))
        eventually("it ends", lambda: "the coordinator has lost its state" in up.coordinator.log)


class StoppedError(Exception):
    pass


def test_a_client_that_is_interrupted_leaves_no_threads(tmp_path: Path) -> None:
    def stop(number: int, frame: object) -> None:
        raise StoppedError

    before, old = set(threading.enumerate()), signal.signal(signal.SIGUSR1, stop)
    try:
        with town(tmp_path, session({"bronx": 6, "queens": 5})) as up:

            def interrupt() -> None:
                eventually("bronx is done", lambda: up.coordinator.events("done"))
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

            other = threading.Thread(target=interrupt)
            other.start()
            with pytest.raises(StoppedError), up.client("bronx") as bronx:
                bronx.sum(numbers(0, 6, 3))
            other.join(PATIENCE)
            with up.client("bronx") as bronx, up.client("queens") as queens, ThreadPoolExecutor(1) as pool:
                pending = pool.submit(queens.sum, numbers(1, 5, 3))
                assert bronx.sum(numbers(0, 6, 3)).included == 11
                pending.result(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, old)
    eventually("all threads have ended", lambda: set(threading.enumerate()) <= before)
