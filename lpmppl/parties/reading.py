"""An institution of split learning as a process: it answers the server's questions, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from lpmppl.errors import InputError
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.encoding import LENGTH, Encoding
from lpmppl.parties.floats import content
from lpmppl.parties.logs import Log
from lpmppl.parties.metrics import Metrics
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.serving import serving
from lpmppl.parties.session import COORDINATOR
from lpmppl.parties.wire import Kind, packed, unpacked

__all__ = ["LEARNING", "PLAIN", "serve"]

PLAIN, LEARNING = bytes(4), bytes([1, 0, 0, 0])
"""What series to read begin with: whether derivatives of what is read will follow."""

_STEPS = 100


async def serve(
    encoding: Encoding,
    port: int,
    credentials: Credentials,
    metrics: int | None = None,
    *,
    host: str = "127.0.0.1",
    log: TextIO | None = None,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Be an institution until SIGTERM, SIGINT or cancellation.

    Its data and the weights of its encoder stay in its process and its folder. The server gets what it reads in series
    that it is sent, and once what it reads in its data. A step is in the folder before it is acknowledged, so that the
    process may end at any moment and be started again on the same port.

    Args:
        encoding: what it learns and reads by.
        port: to answer on; 0 takes a free one, which the log says.
        credentials: of this institution.
        metrics: the port for /metrics and /health on this machine, if any; 0 takes a free one.
        host: the address to answer on.
        log: where log lines go, standard error if it isn't given.
        ready: called with the port when the institution answers.
    Raises:
        InputError: for a port in use, or a certificate of another party.
    """
    if credentials.name != encoding.name:
        raise InputError(f"'{encoding.name}' needs its own certificate, not '{credentials.name}'s")
    party = _Reading(encoding, Log(encoding.name, encoding.session, log))
    answers = {Kind.READ: party.read, Kind.LEARN: party.learn, Kind.STEP: party.step, Kind.OWN: party.own}
    terms = (encoding.session, credentials, host, port, answers, party.log, party.metrics, metrics, party.health)
    async with serving(*terms) as (bound, stop):
        party.told("resumed" if encoding.step_number else "begun")
        if ready is not None:
            ready(bound)
        await stop.wait()


class _Reading:
    """The answers, each worked out before the next is begun: there is one server, who waits for it."""

    def __init__(self, encoding: Encoding, log: Log) -> None:
        self.encoding, self.log, self.metrics = encoding, log, Metrics(encoding.name)

    def health(self) -> dict[str, object]:
        mine = self.encoding
        return {"party": mine.name, "session": mine.session.id.hex(), "round": mine.step_number, "ok": True}

    def told(self, event: str, **fields: str) -> None:
        """Say where the institution is, in the log and in the counts."""
        self.metrics.set("open_round", self.encoding.step_number)
        self.log.say(event, round=self.encoding.step_number, **fields)

    async def read(self, message: bytes, by: str) -> bytes:
        step, body = self._asked(Kind.READ, message, by)
        flag, series = bytes(body[:4]), body[4:]
        if flag not in (PLAIN, LEARNING):
            raise Refused(Reason.MALFORMED, f"series to read begin with 1 or 0 in 4 bytes, not with {flag.hex()}")
        found = self.encoding.read(step, flag == LEARNING, bytes(series))
        return self._answer(Kind.READING, step, content(found))

    async def learn(self, message: bytes, by: str) -> bytes:
        step, body = self._asked(Kind.LEARN, message, by)
        return self._answer(Kind.LENGTH, step, LENGTH.pack(self.encoding.learn(step, bytes(body))))

    async def step(self, message: bytes, by: str) -> bytes:
        step, body = self._asked(Kind.STEP, message, by)
        before = self.encoding.step_number
        self.encoding.step(step, bytes(body))
        if self.encoding.step_number > before:
            self.metrics.count("rounds_total", outcome="stepped")
            self.metrics.set("open_round", self.encoding.step_number)
            if self.encoding.step_number % _STEPS == 0:
                self.told("stepped")
        return self._answer(Kind.STEPPED, step)

    async def own(self, message: bytes, by: str) -> bytes:
        step, body = self._asked(Kind.OWN, message, by)
        before = self.encoding.done
        found, warned = self.encoding.own(step, bytes(body))
        if not before:
            self.told("read-own", **({"warning": warned} if warned else {}))
        return self._answer(Kind.READING, step, found)

    def _asked(self, kind: Kind, message: bytes, by: str) -> tuple[int, memoryview]:
        """The step and body of a request, which only the server may make."""
        session, name = self.encoding.session, self.encoding.name
        if by != COORDINATOR:
            raise Refused(Reason.ROLE, f"only the server, '{COORDINATOR}', may send {kind.name}, and this is '{by}'")
        if len(message) > session.largest:
            raise Refused(Reason.OVERSIZED, f"{len(message)} bytes are more than {session.largest} a message")
        header, body = unpacked(session, message, kind, by, name)
        return header.round, body

    def _answer(self, kind: Kind, step: int, body: bytes = b"") -> bytes:
        d = len(body) // 4 if kind is Kind.READING else 0
        return packed(self.encoding.session, kind, self.encoding.name, COORDINATOR, step, d, body)
