"""A trial of everything on this machine: helpers, a coordinator and clients, each a process, with losses on the way."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lpmppl.errors import InputError, LpmError
from lpmppl.models.population import Population
from lpmppl.parties import certificates
from lpmppl.parties.session import COORDINATOR, Session, helper_name
from lpmppl.parties.society import Known, central, fingerprint, parted, sums_a_day, tallies_of

__all__ = ["Processes", "Trial"]

PARAMETERS: Mapping[str, float] = {"initial_infected": 0.02}
"""An epidemic that begins with one in fifty, so that small societies have one."""

_PATIENCE = 120.0
"""Seconds until a party must answer."""


@dataclass(frozen=True)
class Trial:
    """A trial on loopback.

    Args:
        people: everybody.
        folder: an empty folder for what the parties keep.
        days: for how many days.
        helpers: m.
        clients: how many processes the people are parted among, whole households each.
        dropout: the share of people who die in mid-upload each day, to come back the next.
        kill: whether one helper is killed half way, and begun again.
        seed: of the chance.
        deadline: seconds that a round may take.
        proofs: whether everybody proves that its numbers are in range.
        tell: told how many sums are opened, and of how many.
    Raises:
        InputError: for numbers that are out of range.
    """

    people: Population
    folder: Path
    days: int
    helpers: int = 3
    clients: int = 2
    dropout: float = 0.0
    kill: bool = True
    seed: int = 0
    deadline: float = 30.0
    proofs: bool = True
    tell: Callable[[int, int], None] = field(default=lambda *_: None)

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout={self.dropout}: give a share of people from 0 to below 1")
        if self.days < 1:
            raise InputError(f"days={self.days}: give 1 or more")
        if self.folder.exists() and any(self.folder.iterdir()):
            raise InputError(f"the folder {self.folder} isn't empty; give another, or none")

    def run(self) -> dict[str, Any]:
        """Let the society live, and hold it against the same society in one place.

        Returns:
            `agents_included`, how many were in all of a day's sums, added up over days; `equal_to_central`, whether
            every tally of every client is that of the central run without whom each sum lacked; `bytes_per_agent`, for
            each sum; `sums`; `seconds` that the parties took; and `totals` of the tallies.
        Raises:
            LpmError: where a party ends or doesn't answer, with the last that it said.
        """
        parts = parted(self.people, self.clients)
        names = [f"pool-{k}" for k in range(self.clients)]
        a_day = sums_a_day(self.people)
        session = Session.new(
            model=fingerprint(self.days, self.seed, PARAMETERS),
            helpers=self.helpers,
            clients={name: part.size for name, part in zip(names, parts, strict=True)},
            deadline=self.deadline,
            proofs=self.proofs,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        session.save(self.folder / "session.json")
        certificates.issue(self.folder / "certificates", session.parties)
        for name, part in zip(names, parts, strict=True):
            part.save(self.folder / f"{name}.zarr")
        begun = time.perf_counter()
        with Processes(self.folder) as processes:
            ports = [processes.begin(helper_name(k), *self._helper(k, 0)) for k in range(self.helpers)]
            addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
            at = processes.begin(COORDINATOR, "coordinator", "--port", "0", "--helpers", addresses)
            for k, name in enumerate(names):
                processes.start(name, *self._client(k, name, addresses, at, a_day))
            killed = not (self.kill and self.days > 1)
            while not processes.ended(names):
                opened = processes.count(COORDINATOR, "opened")
                self.tell(opened, a_day * self.days)
                if not killed and opened >= a_day * self.days // 2:
                    processes.kill(helper_name(0))
                    processes.begin(helper_name(0), *self._helper(0, ports[0]))
                    killed = True
                time.sleep(0.05)
            seconds = time.perf_counter() - begun
        known = [Known.open(self.folder / f"{name}.lived") for name in names]
        return {**self._compared(known, parts, a_day), "seconds": round(seconds, 3)}

    def _helper(self, k: int, port: int) -> tuple[str, ...]:
        return "aggregator", "--index", str(k), "--port", str(port)

    def _client(self, k: int, name: str, helpers: str, coordinator: int, a_day: int) -> tuple[str, ...]:
        where = ("--helpers", helpers, "--coordinator", f"127.0.0.1:{coordinator}")
        lost = ("--dropout", str(self.dropout), "--dropout-seed", str(1000 * self.seed + k), "--sums", str(a_day))
        what = ("--people", f"{name}.zarr", "--days", str(self.days), "--seed", str(self.seed))
        given = (part for name, x in PARAMETERS.items() for part in ("--set", f"{name}={x}"))
        return "client", "--name", name, *where, *what, *given, *lost, "--out", f"{name}.lived"

    def _compared(self, known: list[Known], parts: list[Population], a_day: int) -> dict[str, Any]:
        sums = len(known[0].included)
        included = torch.zeros((sums, self.people.size), dtype=torch.bool)
        for mine, part in zip(known, parts, strict=True):
            included[:, part.ids.long()] = mine.included
        alone = tallies_of(central(self.people, self.days, self.seed, included, PARAMETERS))
        equal = all(
            torch.equal(alone[name], mine.tallies[name].to(alone[name].dtype)) for mine in known for name in alone
        )
        told = all(torch.equal(mine.everybody, included.sum(-1)) for mine in known)
        return {
            "agents_included": int(included.reshape(self.days, a_day, -1).all(1).sum()),
            "equal_to_central": equal and told,
            "bytes_per_agent": round(sum(mine.bytes_sent for mine in known) / (sums * self.people.size), 1),
            "sums": sums,
            "totals": {name: int(x.sum()) for name, x in alone.items()},
        }


class Processes:
    """The parties as processes, with a log of each; none of them outlives the block.

    Args:
        folder: with `session.json` and `certificates`; what a party prints is in NAME.json, and its log in NAME.log.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._ending: set[str] = set()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait()

    def start(self, name: str, command: str, *options: str) -> None:
        """Start a party."""
        common = ("--session", "session.json", "--certificates", "certificates")
        serves = command in ("aggregator", "coordinator")
        state = ("--state", f"{name}.state") if serves else ("--json",)
        self._ending |= set() if serves else {name}
        with (self.folder / f"{name}.log").open("ab") as log, (self.folder / f"{name}.json").open("wb") as out:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "lpmppl", "party", command, *common, *state, *options],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                # Many processes on few cores: threads of one would wait for those of others.
                env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
                stdout=out,
                stderr=log,
            )

    def begin(self, name: str, command: str, *options: str) -> int:
        """Start a party and give the port on which it answers."""
        before = self.count(name, "listening")
        self.start(name, command, *options)
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            lines = [line for line in self._lines(name) if line.get("event") == "listening"]
            if len(lines) > before:
                return int(lines[-1]["port"])
            self._check(name)
            time.sleep(0.02)
        raise LpmError(f"'{name}' hasn't answered for {_PATIENCE:g} seconds; its log is {self.folder / name}.log")

    def kill(self, name: str) -> None:
        """End a party at once, in the midst of whatever it does."""
        self.running[name].kill()
        self.running[name].wait()

    def ended(self, names: list[str]) -> bool:
        """Whether these have all ended well; LpmError where any party has ended badly."""
        for name in self.running:
            self._check(name)
        return all(self.running[name].poll() == 0 for name in names)

    def count(self, name: str, event: str) -> int:
        """How often a party has logged an event."""
        return sum(line.get("event") == event for line in self._lines(name))

    def _check(self, name: str) -> None:
        code = self.running[name].poll()
        if code is not None and not (code == 0 and name in self._ending):
            said = (self.folder / f"{name}.log").read_text(errors="replace").strip().splitlines()
            raise LpmError(f"'{name}' has ended with exit code {code}: {said[-1] if said else 'it said nothing'}")

    def _lines(self, name: str) -> Iterator[dict[str, Any]]:
        path = self.folder / f"{name}.log"
        if path.exists():
            for line in path.read_text(errors="replace").splitlines():
                with contextlib.suppress(json.JSONDecodeError):
                    said = json.loads(line)
                    if isinstance(said, dict):
                        yield said
