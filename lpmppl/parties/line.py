"""A server's line to institutions: questions that are asked from any thread, and again while an institution is away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self, TextIO, TypeVar

from lpmppl.errors import InputError, LpmError, nearest
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.connection import Connection
from lpmppl.parties.logs import Log
from lpmppl.parties.peers import Away, Peer, checked_address
from lpmppl.parties.session import COORDINATOR, Session
from lpmppl.parties.wire import HEADER, Kind, packed

__all__ = ["Line"]

T = TypeVar("T")
_A_TIME, _SHORT = 60.0, 0.05
"""Seconds that a question may take, and between one try to end others and the next."""


class Line(Connection):
    """A server's line to the institutions of a session, as a context manager.

    Args:
        session: the session, of which the server is the coordinator.
        credentials: the coordinator's.
        addresses: host:port of each institution, by its name.
        patience: seconds that an institution may be away; 20 deadlines if it isn't given.
        log: where log lines go, if anywhere.
    Raises:
        InputError: for another's certificate, wrong addresses, or an institution that has none.

    Attributes:
        traffic: bytes of messages and answers, with their headers, by kind.
    """

    def __init__(
        self,
        session: Session,
        credentials: Credentials,
        addresses: Mapping[str, str],
        *,
        patience: float | None = None,
        log: TextIO | None = None,
    ) -> None:
        if credentials.name != COORDINATOR:
            raise InputError(f"the server needs the certificate of '{COORDINATOR}', not '{credentials.name}'s")
        if strange := [name for name in addresses if name not in session.clients]:
            raise InputError(nearest("institution of the session", strange[0], session.clients))
        if missing := [name for name in session.clients if name not in addresses]:
            raise InputError(f"institution '{missing[0]}' has no address: give {missing[0]}=HOST:PORT")
        self.session, self.traffic = session, Counter[str]()
        self._addresses = {name: checked_address(address) for name, address in addresses.items()}
        self._credentials = credentials
        self._patience = 20 * session.deadline if patience is None else patience
        self._log = None if log is None else Log(COORDINATOR, session, log)
        self._running: set[Future[bytes]] = set()

    def __enter__(self) -> Self:
        super().__enter__()
        self._pool = ThreadPoolExecutor(len(self._addresses))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._pool.shutdown()

    def ask(self, name: str, kind: Kind, answer: Kind, step: int, body: bytes = b"", d: int = 0) -> bytes:
        """What an institution answers, waiting for one that is away.

        Args:
            name: the institution's.
            kind: of the message.
            answer: the kind that its answer must have.
            step: its number.
            body: what follows the header.
            d: how many numbers that is.
        Returns:
            the body of the answer.
        Raises:
            InputError: for more than the session has room for.
            Refused: where the institution refuses it.
            LpmError: where it stays away, or certificates are in the way.
        """
        if self._loop is None:
            raise LpmError("the server isn't connected; write `with Line(…) as line:` around what it does")
        message = packed(self.session, kind, COORDINATOR, name, step, d, body)
        if len(message) > self.session.largest or d > self.session.longest:
            raise InputError(
                f"{d} numbers for '{name}' are more than the session's longest={self.session.longest}: ask by fewer "
                "runs at once, or make the session with SplitAgreement.session(…)"
            )
        running = asyncio.run_coroutine_threadsafe(self._ask(name, kind, answer, step, message), self._loop)
        self._running.add(running)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise
        finally:
            self._running.discard(running)

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """What calls return that ask at the same time; where one fails, the others ask no more."""
        if self._loop is None:
            raise LpmError("the server isn't connected; write `with Line(…) as line:` around what it does")
        begun = [self._pool.submit(call) for call in calls]
        try:
            return [each.result() for each in begun]
        except BaseException:
            while not all(each.done() for each in begun):
                for running in list(self._running):
                    running.cancel()
                wait(begun, _SHORT)
            raise

    async def _ask(self, name: str, kind: Kind, answer: Kind, step: int, message: bytes) -> bytes:
        try:
            _, body = await self._peers[name].insist(kind, answer, step, message, _A_TIME, give_up=self._patience)
        except Away as e:
            raise LpmError(
                f"institution '{name}' has been away for {self._patience:g} s in step {step}: {e}; start it again with "
                "its own state folder, then go on, or give more patience"
            ) from e
        self.traffic[kind.name] += len(message)
        self.traffic[answer.name] += HEADER.size + len(body)
        return bytes(body)

    def _peers_made(self) -> list[Peer]:
        self._peers = {
            name: Peer(self.session, self._credentials, name, address, self._away)
            for name, address in self._addresses.items()
        }
        return [*self._peers.values()]

    def _peers_gone(self) -> None:
        self._peers.clear()

    def _away(self, name: str) -> None:
        if self._log is not None:
            self._log.say("away", institution=name)
