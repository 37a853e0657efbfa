"""The coordinator: it closes rounds, has the helpers sum over whom all of them have, and keeps what is opened."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from lpmppl.errors import InputError, LpmError
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.logs import Log
from lpmppl.parties.metrics import Metrics
from lpmppl.parties.peers import Peer, checked_address
from lpmppl.parties.proofs import NONCE, valid
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.results import NOT_OPENED, PENDING, Decision, Memory, Result, chosen, enough
from lpmppl.parties.serving import serving
from lpmppl.parties.session import COORDINATOR, Session, helper_name
from lpmppl.parties.sets import batches, invalid, kept, merged
from lpmppl.parties.wire import Entry, Kind, entries_of, pack_entries, packed, unpacked

__all__ = ["ASK", "serve"]

T = TypeVar("T")
ASK = struct.Struct("<H2xI")
"""Whether the client is done with the round, and milliseconds to wait."""

_SUMMING = 120.0
_VERIFIERS = 2**18
"""How many words of a helper's verifiers are in one message."""

_LONGEST_WAIT = 60.0


async def serve(
    session: Session,
    port: int,
    credentials: Credentials,
    helpers: Sequence[str],
    state: str | Path,
    metrics: int | None = None,
    *,
    host: str = "127.0.0.1",
    log: TextIO | None = None,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Be the coordinator until SIGTERM, SIGINT or cancellation.

    It never sees an agent's part: of a round it gets who is with which helper, and one total of each helper. What it
    decides is in its state folder before it acts, so that the process may end at any moment and be started again.

    Args:
        session: the session.
        port: to answer on; 0 takes a free one, which the log says.
        credentials: of the coordinator.
        helpers: host:port of each, in order.
        state: a folder of its own.
        metrics: the port for /metrics and /health on this machine, if any; 0 takes a free one.
        host: the address to answer on.
        log: where log lines go, standard error if it isn't given.
        ready: called with the port when the coordinator answers.
    Raises:
        InputError: for a port in use, another number of helpers, or a folder or certificate of another party.
        LpmError: where the helpers are ahead of the state folder, or don't accept the coordinator's certificate.
    """
    if credentials.name != COORDINATOR:
        raise InputError(f"the coordinator needs the certificate of '{COORDINATOR}', not '{credentials.name}'s")
    if isinstance(helpers, str) or len(helpers) != session.helpers:
        raise InputError(f"helpers={helpers!r}: give the address of each of the session's {session.helpers}")
    for address in helpers:
        checked_address(address)
    party = _Coordinator(session, credentials, Memory(session, state), Log(COORDINATOR, session, log))
    answers = {Kind.ASK: party.asked}
    async with serving(session, credentials, host, port, answers, party.log, party.metrics, metrics, party.health) as (
        bound,
        stop,
    ):
        party.log.say("resumed" if party.memory.rounds else "begun", round=party.memory.rounds)
        if ready is not None:
            ready(bound)
        working, stopped = asyncio.ensure_future(party.work(helpers)), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                await working
        except OSError as e:
            raise LpmError(f"state folder {state} can't be written: {e}; make room, then start again") from e
        finally:
            working.cancel()
            stopped.cancel()
            await asyncio.gather(working, stopped, return_exceptions=True)


class _Coordinator:
    def __init__(self, session: Session, credentials: Credentials, memory: Memory, log: Log) -> None:
        self.session, self.credentials, self.memory, self.log = session, credentials, memory, log
        self.metrics = Metrics(COORDINATOR)
        self._peers: list[Peer] = []
        self._behind: dict[int, asyncio.Task[None]] = {}
        self._begin()

    def _begin(self) -> None:
        """Wait for the next round's clients."""
        self.metrics.set("open_round", self.memory.rounds)
        self._begun, self._all_done, self._past = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._done: set[str] = set()
        self._closing = False

    def health(self) -> dict[str, object]:
        return {"party": COORDINATOR, "session": self.session.id.hex(), "round": self.memory.rounds, "ok": True}

    async def asked(self, message: bytes, by: str) -> bytes:
        """Answer with the result of a round, waiting a while for one that is open."""
        header, body = unpacked(self.session, message, Kind.ASK, by, COORDINATOR)
        if len(body) != ASK.size:
            raise Refused(Reason.TRUNCATED, f"a question has {ASK.size} bytes, not {len(body)}")
        done, wait = ASK.unpack(body)
        if header.round > self.memory.rounds:
            raise Refused(Reason.EARLY, f"round {header.round} isn't open yet, but round {self.memory.rounds} is")
        if header.round == self.memory.rounds:
            self._heard(by, bool(done))
            past = self._past
            try:
                await asyncio.wait_for(past.wait(), min(wait / 1000, _LONGEST_WAIT))
            except TimeoutError:
                waiting = Result(PENDING, 0, why=self._waiting())
                return packed(self.session, Kind.RESULT, COORDINATOR, by, header.round, 0, waiting.packed())
        d, content = self.memory.result(header.round)
        return packed(self.session, Kind.RESULT, COORDINATOR, by, header.round, d, content)

    def _heard(self, client: str, done: bool) -> None:
        if client in self.session.clients:
            self._begun.set()
            if done and client not in self._done:
                self._done.add(client)
                self.log.say("done", round=self.memory.rounds, client=client, clients=len(self._done))
            if len(self._done) == len(self.session.clients):
                self._all_done.set()

    def _waiting(self) -> str:
        trouble = "; ".join(peer.trouble for peer in self._peers if peer.trouble)
        if self._closing:
            return trouble or "the helpers are summing"
        away = [name for name in self.session.clients if name not in self._done]
        return f"the round waits for {', '.join(away[:3])}{' and others' if len(away) > 3 else ''}, or its deadline"

    async def work(self, helpers: Sequence[str]) -> None:
        """Round after round: wait for clients, decide, sum, keep."""
        self._peers = [
            Peer(self.session, self.credentials, helper_name(k), address, self._away, patient=True)
            for k, address in enumerate(helpers)
        ]
        everyone = range(self.session.helpers)
        try:
            while True:
                round = self.memory.rounds
                decision = self.memory.decided(round)
                if decision is None:
                    if not self.memory.closing(round):
                        await self._begun.wait()
                        await self._gathered()
                        self.memory.close(round)
                    self._closing = True
                    closed = await self._of(everyone, self._closed, round)
                    decision = chosen(self.session, {k: entries for k, (_, entries) in closed.items()})
                    if decision.terms.rule:
                        decision = await self._proved(round, decision, [closed[k][0] for k in everyone])
                    self.memory.decide(round, decision)
                    self.log.say(
                        "decided",
                        round=round,
                        agents=decision.agents,
                        numbers=decision.d,
                        helpers=len(decision.helpers),
                    )
                self._closing = True
                self._past_is(round, await self._summed(round, decision))
        finally:
            for task in self._behind.values():
                task.cancel()
            await asyncio.gather(*self._behind.values(), return_exceptions=True)
            await asyncio.gather(*(peer.close() for peer in self._peers))

    def _away(self, helper: str) -> None:
        self.log.say("away", round=self.memory.rounds, helper=helper)

    async def _gathered(self) -> None:
        try:
            await asyncio.wait_for(self._all_done.wait(), self.session.deadline)
        except TimeoutError:
            self.log.say("deadline", round=self.memory.rounds, clients=len(self._done))

    async def _summed(self, round: int, decision: Decision) -> Result:
        totals: dict[int, NDArray[np.int64]] = {}
        result, why = None, decision.why
        if decision.d:
            try:
                totals = await self._of(decision.helpers, self._total, round, decision)
                result = Result.summed(self.session, decision, totals)
            except LpmError as e:
                # Helpers came back without their parts, or contradict one another: the round can't be opened, over
                # this set or another.
                why = f"helpers can't give the sum: {e}"
                self.memory.decide(round, Decision(0, (), (), why))
        told = set(totals)
        if result is None:
            told |= set(await self._of(range(self.session.helpers), self._dropped, round))
            result = Result(NOT_OPENED, 0, why=why)
        for k in set(range(self.session.helpers)) - told:
            # Who isn't needed, and may be away, goes on to the next round as soon as it can.
            self._let_go(k, asyncio.ensure_future(self._dropped(self._peers[k], round)))
        return result

    def _let_go(self, k: int, task: asyncio.Task[None]) -> None:
        if k in self._behind:
            self._behind[k].cancel()
        self._behind[k] = task

    def _past_is(self, round: int, result: Result) -> None:
        self.memory.keep(result)
        outcome = "not-opened" if result.status == NOT_OPENED else "opened"
        self.metrics.count("rounds_total", outcome=outcome)
        self.metrics.count("agents_included_total", result.included)
        self.log.say(outcome, round=round, agents=result.included, **({"why": result.why} if result.why else {}))
        past = self._past
        self._begin()
        past.set()

    async def _of(
        self, helpers: Iterable[int], call: Callable[..., Coroutine[Any, Any, T]], *args: object
    ) -> dict[int, T]:
        """Ask helpers at once: what as many say as are needed, and others who are there; or the first failure."""
        running = {asyncio.ensure_future(call(self._peers[k], *args)): k for k in helpers}
        needed, found = min(self.session.needed, len(running)), dict[int, T]()
        waiting, away = set(running), {k for k, task in self._behind.items() if not task.done()}
        begun = asyncio.get_running_loop().time()
        try:
            while waiting:
                grace = self.session.grace / (8 if {running[task] for task in waiting} <= away else 1)
                left = begun + grace - asyncio.get_running_loop().time()
                if len(found) >= needed and left <= 0:
                    break
                timeout = left if len(found) >= needed else None
                done, waiting = await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                failed = [task for task in done if task.exception() is not None]
                found.update({running[task]: task.result() for task in done if task.exception() is None})
                if failed and len(found) + len(waiting) < needed:
                    failed[0].result()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return found

    async def _closed(self, peer: Peer, round: int) -> tuple[bytes, list[Entry]]:
        message = packed(self.session, Kind.CLOSE, COORDINATOR, peer.name, round)
        try:
            _, body = await peer.insist(Kind.CLOSE, Kind.CLOSED, round, message, _SUMMING)
        except Refused as e:
            raise LpmError(f"{peer.name} at {peer.address} can't close round {round}: {e}") from e
        return bytes(body[:NONCE]), entries_of(self.session, body[NONCE:])

    async def _proved(self, round: int, decision: Decision, nonces: Sequence[bytes]) -> Decision:
        """A decision without the agents whose numbers aren't proved to be valid."""
        circuit = decision.terms.circuit(decision.d)
        assert circuit is not None
        left: list[Entry] = []
        try:
            for some in batches(decision.entries, max(1, _VERIFIERS // circuit.opened_words)):
                found = await self._of(decision.helpers, self._verifiers, round, nonces, some, circuit.opened_words)
                left += kept(some, valid(circuit, found))
        except LpmError as e:
            return Decision(0, (), (), f"helpers can't check that numbers are valid: {e}")
        for client, agents in invalid(decision.entries, left).items():
            self.log.say("invalid", round=round, client=client, agents=agents)
            self.metrics.count("agents_invalid_total", agents)
        return enough(self.session, decision._replace(entries=merged(left)))

    async def _verifiers(
        self, peer: Peer, round: int, nonces: Sequence[bytes], entries: Sequence[Entry], width: int
    ) -> NDArray[np.int64]:
        content = b"".join(nonces) + pack_entries(self.session, entries)
        message = packed(self.session, Kind.CHECK, COORDINATOR, peer.name, round, 0, content)
        _, body = await peer.insist(Kind.CHECK, Kind.VERIFIED, round, message, _SUMMING)
        agents = sum(int(entry.slots.sum()) for entry in entries)
        if len(body) != 8 * width * agents:
            raise LpmError(f"{peer.name} at {peer.address} gives verifiers of {len(body)} bytes for {agents} agents")
        return np.frombuffer(body, "<i8").astype(np.int64).reshape(agents, width)

    async def _total(self, peer: Peer, round: int, decision: Decision) -> NDArray[np.int64]:
        content = pack_entries(self.session, decision.entries)
        message = packed(self.session, Kind.SUM, COORDINATOR, peer.name, round, decision.d, content)
        header, body = await peer.insist(Kind.SUM, Kind.TOTAL, round, message, _SUMMING)
        if header.d != decision.d or len(body) != 8 * header.d:
            raise LpmError(f"{peer.name} at {peer.address} gives a sum of another length than {decision.d}")
        return np.frombuffer(body, "<i8").astype(np.int64)

    async def _dropped(self, peer: Peer, round: int) -> None:
        message = packed(self.session, Kind.DROP, COORDINATOR, peer.name, round)
        await peer.insist(Kind.DROP, Kind.TAKEN, round, message, _SUMMING)
