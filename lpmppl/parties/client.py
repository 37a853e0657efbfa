"""A client: it splits its agents' numbers among the helpers, and learns the sum over everyone's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpmppl.errors import InputError, LpmError
from lpmppl.parties.arithmetic import check_size
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.connection import Connection
from lpmppl.parties.coordinator import ASK
from lpmppl.parties.logs import Log
from lpmppl.parties.peers import Peer, checked_address
from lpmppl.parties.refusals import Refused
from lpmppl.parties.results import NOT_OPENED, PENDING, Result
from lpmppl.parties.session import COORDINATOR, Session, helper_name
from lpmppl.parties.terms import PLAIN, Terms
from lpmppl.parties.uploads import Upload
from lpmppl.parties.wire import Kind, packed

__all__ = ["Opened", "Rounds"]

_POLL = 10.0


@dataclass(frozen=True, eq=False)
class Opened:
    """A round's sum.

    Args:
        total: over all agents who are included, int64 of shape (d,), modulo 2⁶⁴.
        included: how many they are, of all clients.
        mine: who of one's own is included, bool of shape (n_agents,).
        round: its number, from 0.
        bytes_sent: in messages by this client to all helpers in this round.
    """

    total: Tensor
    included: int
    mine: Tensor
    round: int
    bytes_sent: int


class Rounds(Connection):
    """A client's rounds, one after the other, as a context manager.

    Args:
        session: the session.
        name: the client's.
        credentials: the client's.
        helpers: host:port of each, in order.
        coordinator: its host:port.
        patience: seconds that a round may take in all; 20 deadlines if it isn't given.
        seed: for which helpers miss the parts of agents that are lost on purpose.
        log: where log lines go, if anywhere.
    Raises:
        InputError: for an unknown name, another's certificate, or wrong addresses.
    """

    def __init__(
        self,
        session: Session,
        name: str,
        credentials: Credentials,
        helpers: Sequence[str],
        coordinator: str,
        *,
        patience: float | None = None,
        seed: int = 0,
        log: TextIO | None = None,
    ) -> None:
        self.session, self.name, self.agents = session, name, session.agents(name)
        if credentials.name != name:
            raise InputError(f"client '{name}' needs its own certificate, not '{credentials.name}'s")
        if isinstance(helpers, str) or len(helpers) != session.helpers:
            raise InputError(f"helpers={helpers!r}: give the address of each of the session's {session.helpers}")
        self._addresses = [checked_address(address) for address in (*helpers, coordinator)]
        self._credentials, self._seed = credentials, seed
        self._patience = 20 * session.deadline if patience is None else patience
        self._log = None if log is None else Log(name, session, log)
        self.round, self._one = 0, threading.Lock()

    def sum(self, values: Tensor, lost: Tensor | None = None, terms: Terms = PLAIN) -> Opened:
        """The sum of everyone's numbers in the next round, once it is opened.

        A round that is past, as for a client that comes back, is returned without contributing to it.

        Args:
            values: of each agent, int64 of shape (n_agents, d), with the same d for all clients.
            lost: who dies in mid-upload, for trials, bool of shape (n_agents,): their parts don't reach every helper.
            terms: with what noise, and what is proved of each agent's numbers; the same for all clients.
        Raises:
            InputError: for another shape or type, or numbers that aren't what is to be proved.
            LpmError: where too few agents are left to open the sum, certificates are refused, a party is of another
                session, model or version, or nobody answers for too long.
        """
        x, gone = self._checked(values, lost, terms)
        if self._loop is None:
            raise LpmError("the client isn't connected; write `with Rounds(…) as rounds:` around its sums")
        if not self._one.acquire(blocking=False):
            raise LpmError(f"client '{self.name}' is in a sum already: rounds are one after the other; wait for it")
        running = asyncio.run_coroutine_threadsafe(self._sum(x, gone, terms), self._loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            self._upload.anew = True
            raise
        finally:
            self._one.release()

    def _checked(
        self, values: Tensor, lost: Tensor | None, terms: Terms
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        if not isinstance(values, Tensor) or values.dtype != torch.int64 or values.ndim != 2:
            kind = f"{values.dtype} of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values)
            raise InputError(f"values are {kind}; give int64 of shape (n_agents, d), as encoded(…) makes of numbers")
        if len(values) != self.agents or not 1 <= values.shape[1] <= self.session.longest:
            raise InputError(
                f"values have shape {tuple(values.shape)}, but client '{self.name}' has {self.agents} agents with 1 to "
                f"{self.session.longest} numbers"
            )
        if lost is None:
            lost = torch.zeros(self.agents, dtype=torch.bool)
        if not isinstance(lost, Tensor) or lost.dtype != torch.bool or lost.shape != (self.agents,):
            raise InputError(f"lost: give bool of shape ({self.agents},), who dies in mid-upload")
        x = values.detach().cpu().numpy()
        check_size(self.session, x, terms)
        try:
            terms.check(self.session, x.shape[1])
        except Refused as e:
            raise InputError(str(e)) from e
        circuit = terms.circuit(x.shape[1])
        if circuit is not None:
            circuit.check(torch.from_numpy(x))
        return x, lost.cpu().numpy()

    def _peers_made(self) -> list[Peer]:
        names = [*(helper_name(k) for k in range(self.session.helpers)), COORDINATOR]
        peers = [
            Peer(self.session, self._credentials, name, address)
            for name, address in zip(names, self._addresses, strict=True)
        ]
        *helpers, self._coordinator = peers
        self._upload = Upload(self.session, self.name, helpers, self._seed)
        return peers

    def _peers_gone(self) -> None:
        del self._coordinator
        self._upload.helpers.clear()

    async def _sum(self, values: NDArray[np.int64], lost: NDArray[np.bool_], terms: Terms) -> Opened:
        round, self._upload.sent, self._why = self.round, 0, ""
        try:
            async with asyncio.timeout(self._patience):
                result = await self._asked(round, done=False, wait=0.0)
                if result.status == PENDING:
                    self._say("begun", round, agents=self.agents)
                    await self._upload.run(round, values, lost, terms)
                    while result.status == PENDING:
                        self._why = result.why
                        result = await self._asked(round, done=True, wait=_POLL)
        except TimeoutError:
            why = "; ".join(filter(None, (self._why, *(p.trouble for p in (*self._upload.helpers, self._coordinator)))))
            raise LpmError(
                f"round {round} wasn't opened within {self._patience:g} s: {why or 'nobody said why'}; start who is "
                "away again and ask once more, or give more patience"
            ) from None
        except Refused as e:
            raise LpmError(f"round {round}: client '{self.name}' was refused, {e}") from e
        self.round += 1
        self._say("not-opened" if result.status == NOT_OPENED else "opened", round, agents=result.included)
        if result.status == NOT_OPENED:
            raise LpmError(f"round {round} wasn't opened: {result.why}; go on with the next round, with more agents")
        if result.d != values.shape[1]:
            raise LpmError(
                f"round {round} was opened with {result.d} numbers an agent, and client '{self.name}' gave "
                f"{values.shape[1]}; run the same model everywhere"
            )
        mine = torch.from_numpy(result.slots[self.name])
        return Opened(torch.from_numpy(result.total), result.included, mine, round, self._upload.sent)

    def _say(self, event: str, round: int, **counts: int) -> None:
        if self._log is not None:
            self._log.say(event, round=round, **counts)

    async def _asked(self, round: int, done: bool, wait: float) -> Result:
        body = ASK.pack(done, int(wait * 1000))
        message = packed(self.session, Kind.ASK, self.name, COORDINATOR, round, 0, body)
        header, rest = await self._coordinator.insist(Kind.ASK, Kind.RESULT, round, message, wait + 10.0)
        return Result.of(self.session, header.d, rest)
