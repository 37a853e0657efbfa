"""A helper as a process: it takes clients' parts, and gives the coordinator one sum a round."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, TypeVar

from lpmppl.errors import InputError
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.helper import Helper
from lpmppl.parties.logs import Log
from lpmppl.parties.metrics import Metrics
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.serving import serving
from lpmppl.parties.session import COORDINATOR, Session, helper_name
from lpmppl.parties.wire import Kind, pack_entries

__all__ = ["serve"]

T = TypeVar("T")


async def serve(
    session: Session,
    index: int,
    port: int,
    credentials: Credentials,
    state: str | Path,
    metrics: int | None = None,
    *,
    host: str = "127.0.0.1",
    most: int = 2**30,
    log: TextIO | None = None,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Be a helper until SIGTERM, SIGINT or cancellation.

    It never sees a number: its parts of an agent's are uniform without those of all other helpers. Each message is in
    the state folder before it is acknowledged, so that the process may end at any moment and be started again on the
    same port.

    Args:
        session: the session.
        index: which helper this is, from 0.
        port: to answer on; 0 takes a free one, which the log says.
        credentials: of this helper.
        state: a folder of its own.
        metrics: the port for /metrics and /health on this machine, if any; 0 takes a free one.
        host: the address to answer on.
        most: bytes of parts that are held at once; clients wait beyond.
        log: where log lines go, standard error if it isn't given.
        ready: called with the port when the helper answers.
    Raises:
        InputError: for a port in use, a folder or certificate of another party, or an index that no helper has.
    """
    if not isinstance(index, int) or not 0 <= index < session.helpers:
        raise InputError(f"there is no helper {index}: the session's are numbered from 0 to {session.helpers - 1}")
    if credentials.name != helper_name(index):
        raise InputError(f"helper {index} needs the certificate of '{helper_name(index)}', not '{credentials.name}'s")
    if not isinstance(most, int) or most < 1:
        raise InputError(f"most={most}: give the bytes of parts to hold at once, such as 2**30")
    party = _Aggregator(Helper(session, index, state, most), Log(helper_name(index), session, log))
    try:
        answers = {
            Kind.PARTS: party.parts,
            Kind.HOLDING: party.holding,
            Kind.CLOSE: party.close,
            Kind.CHECK: party.check,
            Kind.SUM: party.sum,
            Kind.DROP: party.drop,
        }
        terms = (session, credentials, host, port, answers, party.log, party.metrics, metrics, party.health)
        async with serving(*terms) as (bound, stop):
            party.told("resumed" if party.helper.round or party.helper.slots else "begun")
            if ready is not None:
                ready(bound)
            await stop.wait()
    finally:
        party.helper.end()


class _Aggregator:
    def __init__(self, helper: Helper, log: Log) -> None:
        self.helper, self.log, self.metrics = helper, log, Metrics(helper.name)
        # One at a time, and not on the event loop: expanding seeds and writing to disk take a while.
        self._one = asyncio.Lock()
        self._waiting = 0

    def health(self) -> dict[str, object]:
        helper = self.helper
        return {"party": helper.name, "session": helper.session.id.hex(), "round": helper.round, "ok": True}

    def told(self, event: str) -> None:
        """Say where the helper is, in the log and in the counts."""
        helper = self.helper
        self.metrics.set("held_bytes", helper.nbytes)
        self.metrics.set("open_round", helper.round)
        self.log.say(event, round=helper.round, agents=helper.slots, bytes=helper.nbytes)

    async def parts(self, message: bytes, by: str) -> bytes:
        helper = self.helper
        if helper.nbytes + self._waiting + len(message) > helper.most and self._waiting:
            raise Refused(Reason.FULL, f"{helper.name} has {self._waiting} bytes before these; wait, then send again")
        self._waiting += len(message)
        try:
            async with self._one:
                await _to_the_end(helper.submit, message, by)
        finally:
            self._waiting -= len(message)
        self.metrics.set("held_bytes", helper.nbytes)
        return helper.answer(Kind.TAKEN, by, int.from_bytes(message[12:16], "little"))

    async def holding(self, message: bytes, by: str) -> bytes:
        round, _, _ = self.helper.asked(Kind.HOLDING, message, by)
        async with self._one:
            entries = self.helper.held(round, by)
        return self.helper.answer(Kind.HELD, by, round, 0, pack_entries(self.helper.session, entries))

    async def close(self, message: bytes, by: str) -> bytes:
        round, _, _ = self.helper.asked(Kind.CLOSE, message, by)
        async with self._one:
            entries = await _to_the_end(self.helper.close, round)
        self.told("closed")
        body = self.helper.nonce + pack_entries(self.helper.session, entries)
        return self.helper.answer(Kind.CLOSED, COORDINATOR, round, 0, body)

    async def check(self, message: bytes, by: str) -> bytes:
        round, _, body = self.helper.asked(Kind.CHECK, message, by)
        async with self._one:
            found = await _to_the_end(self.helper.verify, round, bytes(body))
        return self.helper.answer(Kind.VERIFIED, COORDINATOR, round, 0, found.astype("<i8").tobytes())

    async def sum(self, message: bytes, by: str) -> bytes:
        round, d, body = self.helper.asked(Kind.SUM, message, by)
        async with self._one:
            before = self.helper.round
            found = await _to_the_end(self.helper.total, round, d, bytes(body))
        if self.helper.round > before:
            self.metrics.count("rounds_total", outcome="summed")
            self.told("summed")
        return self.helper.answer(Kind.TOTAL, COORDINATOR, round, d, found.astype("<i8").tobytes())

    async def drop(self, message: bytes, by: str) -> bytes:
        round, _, _ = self.helper.asked(Kind.DROP, message, by)
        async with self._one:
            before = self.helper.round
            await _to_the_end(self.helper.drop, round)
        if self.helper.round > before:
            self.metrics.count("rounds_total", outcome="dropped")
            self.told("dropped")
        return self.helper.answer(Kind.TAKEN, COORDINATOR, round)


async def _to_the_end(call: Callable[..., T], *args: object) -> T:
    """Run on a thread and wait for it even where the caller has gone: what it has begun isn't left half done."""
    running = asyncio.ensure_future(asyncio.to_thread(call, *args))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
