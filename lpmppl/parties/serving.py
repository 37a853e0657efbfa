"""A party that answers: a gRPC server over mutual TLS, with its log and counts."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc

from lpmppl.errors import InputError
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.logs import Log
from lpmppl.parties.metrics import Metrics
from lpmppl.parties.peers import SERVICE, channel_options
from lpmppl.parties.refusals import Refused
from lpmppl.parties.session import Session
from lpmppl.parties.wire import Kind

__all__ = ["Answer", "serving"]

Answer = Callable[[bytes, str], Awaitable[bytes]]
"""What is answered to a message, given the name in the sender's certificate."""

_MOST_CALLS = 4096


def _check_free(host: str, port: int) -> None:
    """Refuse a port that is in use, before gRPC says so in lines of its own."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trying:
        trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trying.bind((host, port))
        except OSError as e:
            raise InputError(f"port {port} of {host} can't be used ({e.strerror}): give another") from e


@asynccontextmanager
async def serving(
    session: Session,
    credentials: Credentials,
    host: str,
    port: int,
    answers: Mapping[Kind, Answer],
    log: Log,
    metrics: Metrics,
    metrics_port: int | None,
    health: Callable[[], dict[str, object]],
) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Serve within the block: the port, and an event that is set when the process is told to end.

    Raises:
        InputError: for a port that is in use.
    """
    if not isinstance(port, int) or not 0 <= port < 2**16:
        raise InputError(f"port={port}: give a number from 1 to 65535, or 0 for any free one")
    # Without so_reuseport=0 a second server would share the port in silence.
    options = [*channel_options(session.largest), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_MOST_CALLS + 4 * len(session.parties))
    handlers = {kind.name: _handler(kind, answer, log, metrics) for kind, answer in answers.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    _check_free(host, port)
    try:
        bound = server.add_secure_port(f"{host}:{port}", credentials.server())
    except RuntimeError as e:
        raise InputError(f"port {port} of {host} can't be used, it may be in use: give another") from e
    with metrics.served(metrics_port, health) as at, _signals() as stop:
        await server.start()
        log.say("listening", port=bound, **({} if at is None else {"metrics": at}))
        try:
            yield bound, stop
        finally:
            await server.stop(grace=None)
            log.say("ended")


def _handler(kind: Kind, answer: Answer, log: Log, metrics: Metrics) -> Any:
    async def handle(message: bytes, context: Any) -> bytes:
        by = context.auth_context().get("x509_common_name", [b""])[0].decode(errors="replace")
        metrics.count("received_bytes_total", len(message))
        try:
            reply = await answer(message, by)
        except Refused as e:
            metrics.count("refused_total", reason=e.reason.value)
            log.say("refused", kind=kind.name, by=by, reason=e.reason.value, bytes=len(message))
            await context.abort(e.reason.code, str(e))
        except OSError as e:
            log.say("failed", kind=kind.name, by=by, error=f"{type(e).__name__} {e.strerror}")
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the state folder can't be written: {e.strerror}")
        except Exception as e:  # noqa: BLE001  said without its text, which might have bytes of the message
            log.say("failed", kind=kind.name, by=by, error=type(e).__name__)
            await context.abort(
                grpc.StatusCode.INTERNAL, f"{type(e).__name__} in {kind.name}; the party's log has when"
            )
        metrics.count("messages_total", kind=kind.name.lower())
        return reply

    return grpc.unary_unary_rpc_method_handler(handle)


class _signals:
    """An event that SIGTERM and SIGINT set; on other threads than the main one nothing is caught."""

    def __enter__(self) -> asyncio.Event:
        self._loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._caught: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            with suppress(RuntimeError, ValueError, NotImplementedError):
                self._loop.add_signal_handler(number, stop.set)
                self._caught.append(number)
        return stop

    def __exit__(self, *_: object) -> None:
        for number in self._caught:
            self._loop.remove_signal_handler(number)
