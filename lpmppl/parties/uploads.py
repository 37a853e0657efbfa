"""How a client's parts get to the helpers: in batches, again where need be, until the round is closed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
from numpy.typing import NDArray

from lpmppl.errors import LpmError
from lpmppl.parties.arithmetic import split
from lpmppl.parties.peers import Away, Peer
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import Session
from lpmppl.parties.splitting import Parted
from lpmppl.parties.terms import PLAIN, Terms
from lpmppl.parties.wire import Kind, Parts, entries_of, packed

__all__ = ["Upload"]

_BATCH = 2**20
"""Bytes of numbers that are split at a time; each helper gets about a part of 1/m in one message."""
_AHEAD = 3
_WAIT_FOR = frozenset({Reason.FULL, Reason.EARLY})


class Upload:
    """A client's uploads, round after round.

    Args:
        session: the session.
        name: the client's.
        helpers: all of them, in order.
        seed: for which helpers miss the parts of agents that are lost on purpose.
    Attributes:
        anew: the helpers may have parts of a splitting that this object doesn't go on with, as of an earlier process.
        sent: bytes of messages to helpers, to be set to 0 by who counts.
    """

    def __init__(self, session: Session, name: str, helpers: Sequence[Peer], seed: int) -> None:
        self._session, self._name, self._seed, self._agents = session, name, seed, session.clients[name]
        self.helpers, self.anew, self.sent = list(helpers), True, 0
        self._sharing = b""
        self._gone: set[str] = set()
        self._lately: set[str] = set()

    async def run(self, round: int, values: NDArray[np.int64], lost: NDArray[np.bool_], terms: Terms = PLAIN) -> None:
        """Send parts until all are taken, the round is closed, or it is over its deadline."""
        wanted, self._lately, self._gone = np.ones(self._agents, bool), self._gone, set()
        reach = self._reach(round, lost)
        d = values.shape[1]
        size = max(1, _BATCH // (8 * terms.words(d) + 32))
        # Each run splits anew, and what of it reaches some helpers doesn't go with what an earlier one left at others.
        ahead, self._sharing = asyncio.Semaphore(_AHEAD), secrets.token_bytes(16)
        try:
            async with asyncio.timeout(self._session.deadline):
                if self.anew:
                    wanted = ~np.logical_or.reduce(await asyncio.gather(*(self._held(k, round) for k in self.helpers)))
                    self.anew = False
                slots = np.flatnonzero(wanted).astype(np.uint32)
                async with _first_of_errors(), asyncio.TaskGroup() as group:
                    for first in range(0, len(slots), size):
                        await ahead.acquire()
                        some = slots[first : first + size]
                        parts = await asyncio.to_thread(split, self._session, values[some], some, terms)
                        task = group.create_task(self._spread(round, d, terms, parts, reach[some]))
                        task.add_done_callback(lambda _: ahead.release())
        except (TimeoutError, _Closed):
            # The round is closed without whom it doesn't have by now.
            return

    def _reach(self, round: int, lost: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which helpers an agent's parts are sent to: all, or any strict subset for who is lost."""
        m = self._session.helpers
        reach = np.ones((self._agents, m), bool)
        random = np.random.default_rng((self._seed, round, self._session.places[self._name]))
        subsets = random.integers(0, 2**m - 1, int(lost.sum()))
        reach[lost] = (subsets[:, None] >> np.arange(m)) & 1
        return reach

    async def _held(self, helper: Peer, round: int) -> NDArray[np.bool_]:
        message = packed(self._session, Kind.HOLDING, self._name, helper.name, round)
        try:
            body = await self._told(helper, Kind.HOLDING, Kind.HELD, round, message)
        except Refused as e:
            if e.reason is not Reason.LATE:
                raise
            return np.ones(self._agents, bool)
        return np.logical_or.reduce([np.zeros(self._agents, bool), *(e.slots for e in entries_of(self._session, body))])

    async def _told(self, helper: Peer, kind: Kind, answer: Kind, round: int, message: bytes) -> memoryview:
        """Insist on an answer, or do without it where a helper is away that isn't needed."""
        spare = self._session.helpers - self._session.needed
        grace = self._session.grace / (8 if helper.name in self._lately else 1)
        while helper.name not in self._gone:
            try:
                give_up = grace if len(self._gone) < spare else None
                return (await helper.insist(kind, answer, round, message, wait_for=_WAIT_FOR, give_up=give_up))[1]
            except Away:
                if len(self._gone) < spare:
                    self._gone.add(helper.name)
        return memoryview(b"")

    async def _spread(self, round: int, d: int, terms: Terms, parts: Parted, reach: NDArray[np.bool_]) -> None:
        bodies = {
            k: Parts.body(self._sharing, *parts.of(k, rows), terms) for k, rows in enumerate(reach.T) if rows.any()
        }
        await asyncio.gather(*(self._delivered(round, k, d, body) for k, body in bodies.items()))

    async def _delivered(self, round: int, k: int, d: int, body: bytes) -> None:
        helper = self.helpers[k]
        message = packed(self._session, Kind.PARTS, self._name, helper.name, round, d, body)
        self.sent += len(message)
        try:
            await self._told(helper, Kind.PARTS, Kind.TAKEN, round, message)
        except Refused as e:
            if e.reason is Reason.LATE:
                raise _Closed from e
            # What an earlier life of this client sent stays, and its agents are left out of the sum.
            if e.reason is not Reason.CONFLICT:
                raise


@asynccontextmanager
async def _first_of_errors() -> AsyncIterator[None]:
    """Of the errors of tasks that ended together, raise one."""
    try:
        yield
    except BaseExceptionGroup as e:
        raise e.exceptions[0] from None


class _Closed(LpmError):  # noqa: N818
    """The round is closed: what isn't sent by now comes too late."""
