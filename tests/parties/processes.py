"""Real processes of a session for tests: forked from one that has imported everything, ended whatever happens."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import grpc

from lpmppl.parties import aggregator, certificates, coordinator
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.client import Rounds
from lpmppl.parties.session import COORDINATOR, Session, helper_name

context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["tests.parties.processes"])

PATIENCE = 60.0


def eventually(what: str, found: Callable[[], Any]) -> Any:
    """Poll for what other processes bring about."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        value = found()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {PATIENCE:g} s")


def _begin(log: Path) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(fd, 2)


def _aggregator(folder: Path, index: int, port: int, options: dict[str, Any]) -> None:
    name = helper_name(index)
    _begin(folder / f"{name}.log")
    session, credentials = Session.open(folder / "session.json"), Credentials(folder / "certificates", name)
    asyncio.run(aggregator.serve(session, index, port, credentials, folder / name, **options))


def _coordinator(folder: Path, port: int, helpers: list[str], options: dict[str, Any]) -> None:
    _begin(folder / "coordinator.log")
    session, credentials = Session.open(folder / "session.json"), Credentials(folder / "certificates", COORDINATOR)
    asyncio.run(coordinator.serve(session, port, credentials, helpers, folder / COORDINATOR, **options))


class Party:
    """A party's process, which can be killed and started again on its port."""

    def __init__(self, target: Callable[..., None], folder: Path, name: str, *args: Any) -> None:
        self._target, self._args, self.folder, self.name = target, args, folder, name
        self.port, self._process = 0, None
        self.options: dict[str, Any] = {}

    _process: BaseProcess | None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        before = len(self.events("listening"))
        extra = [self.folder, *self._args]
        place = 2 if self._target is _aggregator else 1
        extra.insert(place, self.port)
        self._process = context.Process(target=self._target, args=(*extra, self.options), daemon=True)
        self._process.start()
        said = eventually(f"{self.name} listens", lambda: self.events("listening")[before:] or self._ended())
        self.port = said[0]["port"]

    def _ended(self) -> list[dict[str, Any]]:
        assert self._process is not None
        if not self._process.is_alive():
            raise AssertionError(f"{self.name} ended: {self.log}")
        return []

    @property
    def log(self) -> str:
        path = self.folder / f"{self.name}.log"
        return path.read_text() if path.exists() else ""

    def events(self, event: str) -> list[dict[str, Any]]:
        """What the log says so far of an event."""
        lines = self.log.split("\n")[:-1]
        said = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in said if line["event"] == event]

    def kill(self, number: int = signal.SIGKILL) -> int | None:
        if self._process is None:
            return None
        if self._process.pid is not None and self._process.is_alive():
            os.kill(self._process.pid, number)
        self._process.join(PATIENCE)
        code = self._process.exitcode
        self._process.close()
        self._process = None
        return code


class Town:
    """A session's helpers and coordinator as processes."""

    def __init__(self, folder: Path, session: Session) -> None:
        self.folder, self.session = folder, session
        session.save(folder / "session.json")
        certificates.issue(folder / "certificates", session.parties)
        self.helpers = [Party(_aggregator, folder, helper_name(k), k) for k in range(session.helpers)]
        self.coordinator = Party(_coordinator, folder, COORDINATOR, [])

    def start(self) -> None:
        for helper in self.helpers:
            helper.start()
        self.coordinator._args = ([helper.address for helper in self.helpers],)
        self.coordinator.start()

    def end(self) -> None:
        for party in (*self.helpers, self.coordinator):
            party.kill()

    @property
    def addresses(self) -> list[str]:
        return [helper.address for helper in self.helpers]

    def credentials(self, name: str) -> Credentials:
        return Credentials(self.folder / "certificates", name)

    def client(self, name: str, **options: Any) -> Rounds:
        options = {"patience": PATIENCE, **options}
        return Rounds(self.session, name, self.credentials(name), self.addresses, self.coordinator.address, **options)


@contextmanager
def town(folder: Path, session: Session, **options: Any) -> Iterator[Town]:
    """A town that is up within the block."""
    made = Town(folder, session)
    try:
        for helper in made.helpers:
            helper.options = dict(options)
        made.coordinator.options = {"metrics": options.get("metrics")}
        made.start()
        yield made
    finally:
        made.end()


@contextmanager
def two(folder: Path, session: Session) -> Iterator[tuple[Town, Rounds, Rounds, ThreadPoolExecutor]]:
    """A town that is up with its clients bronx and queens, and threads in which they may wait."""
    with (
        town(folder, session) as made,
        made.client("bronx") as bronx,
        made.client("queens") as queens,
        ThreadPoolExecutor(2) as pool,
    ):
        yield made, bronx, queens, pool


def call(of: Town, sender: str, recipient: Party, method: str, message: bytes, folder: str = "certificates") -> bytes:
    """Send bytes as they are, with a party's certificate; raises gRPC's error where they are refused."""
    credentials = trusted(of.folder / folder, sender)
    options = [("grpc.ssl_target_name_override", recipient.name)]
    with grpc.secure_channel(recipient.address, credentials.channel(), options) as channel:
        return channel.unary_unary(f"/lpmppl.parties/{method}")(message, timeout=PATIENCE)


def trusted(folder: Path, name: str) -> Credentials:
    """Credentials that their owner doesn't check, as a cheat's."""
    made = object.__new__(Credentials)
    made.folder, made.name = folder, name
    made.paths = folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key"
    return made


def together(*calls: Callable[[], Any]) -> list[Any]:
    """What calls return that run at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [running.result(PATIENCE) for running in [pool.submit(each) for each in calls]]
