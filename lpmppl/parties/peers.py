"""Questions to another party, with a deadline on each, asked again while the party is away."""

from __future__ import annotations

import asyncio
import math
import random
import socket
import ssl
import time
from collections.abc import Callable

import grpc

from lpmppl.errors import InputError, LpmError
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.refusals import Reason, Refused
from lpmppl.parties.session import Session
from lpmppl.parties.wire import Header, Kind, unpacked

__all__ = ["SERVICE", "Away", "Peer", "channel_options"]

SERVICE = "lpmppl.parties"
_PAUSES = 0.05, 1.0
_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}


class Away(LpmError):  # noqa: N818
    """A party that doesn't answer now and may later."""


class Peer:
    """Another party as this one reaches it. Made and used on one event loop.

    Args:
        session: of both.
        credentials: of this party.
        name: of the other, which its certificate must have.
        address: host:port.
        tell: called with the other's name when it begins to be away.
        patient: wait where the certificates don't go together too, for others to be issued.
    Raises:
        InputError: for what isn't an address.
    """

    def __init__(
        self,
        session: Session,
        credentials: Credentials,
        name: str,
        address: str,
        tell: Callable[[str], None] = lambda _: None,
        *,
        patient: bool = False,
    ) -> None:
        self.session, self.name, self.address = session, name, checked_address(address)
        self._credentials, self._random, self._tell = credentials, random.Random(), tell
        self.trouble, self._patient = "", patient
        options = [*channel_options(session.largest), ("grpc.ssl_target_name_override", name)]
        self._channel = grpc.aio.secure_channel(address, credentials.channel(), options)

    async def send(
        self, kind: Kind, answer: Kind, round: int, message: bytes, timeout: float = 10.0
    ) -> tuple[Header, memoryview]:
        """Send a message once and return the answer's header and body.

        Raises:
            Refused: where the other party refuses it.
            Away: where there is no answer in time, or one that isn't to this message.
            LpmError: where a certificate is in the way.
        """
        try:
            reply = await self._channel.unary_unary(f"/{SERVICE}/{kind.name}")(message, timeout=timeout)
        except grpc.aio.AioRpcError as e:
            raise await self._said(e) from e
        try:
            header, rest = unpacked(self.session, reply, answer, self.name, self._credentials.name)
        except Refused as e:
            raise Away(f"{self.name} at {self.address} gives an answer that can't be used: {e}") from e
        if header.round != round:
            raise Away(f"{self.name} at {self.address} answers for round {header.round} instead of {round}")
        return header, rest

    async def insist(
        self,
        kind: Kind,
        answer: Kind,
        round: int,
        message: bytes,
        timeout: float = 10.0,
        wait_for: frozenset[Reason] = frozenset({Reason.FULL}),
        give_up: float | None = None,
    ) -> tuple[Header, memoryview]:
        """Send a message until it is answered, with pauses that grow to a second.

        Args:
            kind: of the message.
            answer: the kind that its answer must have.
            round: its round.
            message: its bytes.
            timeout: seconds for each time.
            wait_for: refusals after which it is sent again.
            give_up: seconds from the first failure on, if it isn't for ever; `asyncio.timeout` bounds all of it.
        Raises:
            Refused: where the other party refuses it.
            Away: where the other party has been away for long enough to give up.
            LpmError: where a certificate is in the way.
        """
        pause, until = _PAUSES[0], math.inf
        while True:
            try:
                found = await self.send(kind, answer, round, message, timeout)
                self.trouble = ""
                return found
            except Away as e:
                self._wait(str(e))
            except Refused as e:
                if e.reason not in wait_for:
                    raise
                self._wait(f"{self.name} at {self.address}: {e}")
            now = asyncio.get_running_loop().time()
            until = min(until, now + (math.inf if give_up is None else give_up))
            if now >= until:
                raise Away(self.trouble)
            # Not in step with the others who wait for the same party.
            await asyncio.sleep(pause * self._random.uniform(0.5, 1.0))
            pause = min(2 * pause, _PAUSES[1])

    def _wait(self, trouble: str) -> None:
        if not self.trouble:
            self._tell(self.name)
        self.trouble = trouble

    async def close(self) -> None:
        await self._channel.close()

    async def _said(self, error: grpc.aio.AioRpcError) -> LpmError:
        refused = Refused.of(error)
        if refused is not None:
            return refused
        where = f"{self.name} at {self.address}"
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            # gRPC says that the connection failed and seldom why; the handshake by itself does.
            why = await asyncio.to_thread(_distrust, self.address, self.name, self._credentials)
            if why:
                kind = Away if self._patient else LpmError
                return kind(f"{where} and '{self._credentials.name}' don't accept each other: {why}")
        if error.code() in _AWAY:
            return Away(f"{where} doesn't answer ({error.code().name}: {error.details()})")
        return LpmError(f"{where} failed: {error.code().name}: {error.details()}")


def channel_options(largest: int) -> list[tuple[str, int]]:
    """GRPC options of both sides: room for a message that is too large to be refused by name, and quick reconnects."""
    room = min(2**31 - 1, max(2**28, 4 * largest))
    return [
        ("grpc.max_send_message_length", room),
        ("grpc.max_receive_message_length", room),
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.enable_http_proxy", 0),
    ]


def checked_address(address: str) -> str:
    """An address of host and port, or refused."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(f"address {address!r}: give host:port, such as 127.0.0.1:5001")
    return address


def _distrust(address: str, name: str, credentials: Credentials) -> str:
    """Why the two sides' certificates don't go together; empty where they do or the other side isn't there."""
    for _ in range(2):
        try:
            if _handshake(address, name, credentials):
                return ""
        except ssl.SSLCertVerificationError as e:
            return f"the certificate of '{name}' can't be trusted, {e.verify_message}; issue it again"
        except OSError:
            return ""
        # A server that ends at this moment closes the connection too, and isn't there any more after a while.
        time.sleep(0.2)
    try:
        credentials.check()
    except InputError as e:
        return f"{name} refuses the certificate of '{credentials.name}', {e}"
    return (
        f"{name} refuses the certificate of '{credentials.name}', which isn't of the authority that {name} trusts; "
        "give all parties certificates of one authority"
    )


def _handshake(address: str, name: str, credentials: Credentials) -> bool:
    """Whether the other side goes on after the handshake: gRPC closes in silence on a certificate that it refuses."""
    ca, mine, key = credentials.paths
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(mine, key)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host.strip("[]"), int(port)), timeout=2.0) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        return secure.recv(1) != b""
