"""A party that asks others, on a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from lpmppl.parties.peers import Peer

__all__ = ["Connection"]


class Connection(ABC):
    """What asks other parties, as a context manager: its event loop lives within the block, on a thread."""

    _loop: asyncio.AbstractEventLoop | None = None
    _failed: Exception | None = None

    @abstractmethod
    def _peers_made(self) -> list[Peer]:
        """The other parties, made on the event loop."""

    @abstractmethod
    def _peers_gone(self) -> None:
        """Let go of the other parties: the last of gRPC's objects takes its polling thread with it."""

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live(started)), daemon=True)
        self._thread.start()
        started.wait()
        if self._failed is not None:
            self._thread.join()
            raise self._failed
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._end.set)
            self._loop = None
        self._thread.join()

    async def _live(self, started: threading.Event) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        try:
            peers = self._peers_made()
        except Exception as e:  # noqa: BLE001  raised again on the caller's thread
            self._failed = e
            return
        finally:
            started.set()
        try:
            await self._end.wait()
        finally:
            others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.gather(*(peer.close() for peer in peers))
            peers.clear()
            self._peers_gone()
