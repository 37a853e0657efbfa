"""Two institutions for tests of split learning, on threads or in processes, of which each has seen something."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from lpmppl.models.population import Population
from lpmppl.parties import certificates
from lpmppl.parties.agreement import SplitAgreement
from lpmppl.parties.certificates import Credentials
from lpmppl.parties.encoding import Encoding
from lpmppl.parties.reading import serve
from lpmppl.parties.session import Session
from lpmppl.parties.society import society
from tests.parties.processes import PATIENCE, context

context.set_forkserver_preload(["tests.parties.processes", "tests.parties.offices"])

DAYS, RUNS = 8, 70
AGREED = SplitAgreement({"hospitals": "infections", "registry": "recoveries"}, DAYS, RUNS, seed=4)
NAMES = list(AGREED.streams)
FORM = society(Population.of({"household": [0, 0], "borough": [0, 0]}))
DATA = {
    "hospitals": {"infections": [9.0, 4.0, 11.0, float("nan"), 19.0, 31.0, 27.0, 40.0]},
    "registry": {"recoveries": [0.0, 2.0, 1.0, 3.0, 6.0, 5.0, 9.0, 13.0]},
}


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Path]:
    made, folder = AGREED.session(FORM, deadline=1.0), tmp_path_factory.mktemp("session")
    certificates.issue(folder / "keys", made.parties)
    made.save(folder / "session.json")
    return made, folder / "keys"


def encoding(of: Session, name: str, folder: Path, **options: Any) -> Encoding:
    return Encoding(of, AGREED, name, FORM, DATA[name], folder / name, **options)


class Office:
    """An institution that answers on a thread, and may be closed and opened again on its port."""

    def __init__(self, session: Session, keys: Path, name: str, folder: Path) -> None:
        self.session, self.keys, self.name, self.folder = session, keys, name, folder
        self.port, self.log = 0, io.StringIO()

    def open(self) -> None:
        self.encoding, ready = encoding(self.session, self.name, self.folder), threading.Event()

        def begun(port: int) -> None:
            self.port = port
            ready.set()

        async def live() -> None:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            own = Credentials(self.keys, self.name)
            await serve(self.encoding, self.port, own, log=self.log, ready=begun)

        def work() -> None:
            with suppress(asyncio.CancelledError):
                asyncio.run(live())

        self._thread = threading.Thread(target=work)
        self._thread.start()
        assert ready.wait(PATIENCE)

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


def institution(folder: Path, port: int, name: str, options: dict[str, Any]) -> None:
    """Be one in a process of its own."""
    fd = os.open(folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(fd, 2)
    torch.set_num_threads(1)
    of, own = Session.open(folder / "session.json"), Credentials(folder / "keys", name)
    asyncio.run(serve(encoding(of, name, folder), port, own, **options))


def bits(part: Any) -> list[bytes]:
    return [x.numpy().tobytes() for of in (part.network, part.averaged) for x in of.state_dict().values()]
