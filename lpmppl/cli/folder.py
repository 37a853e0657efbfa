"""The folder of a run: what was asked, how far it got, and what came out."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lpmppl.cli.interrupted import Interrupted
from lpmppl.errors import InputError
from lpmppl.report.atomic import PART, replacing

__all__ = ["RunFolder", "whole_or_nothing"]

_ONCE = {"policies": "a counterfactual", "sensitivity": "a sensitivity"}
"""What can't be taken up again, by what its record has and a simulation's hasn't."""

_AGAIN = {"calibration": "of lpmppl calibrate", "": "of lpmppl simulate"}
"""What can be taken up again, by what its record has, and of which command it is."""


class RunFolder:
    """A folder with `run.json` from the start, `checkpoint.npz` meanwhile, `results.nc` and `report.html` at the end.

    Every file appears whole or not at all, and `run.json` says "done" only once the others are there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: dict[str, Any] = {}
        self._made: list[Path] = []
        self._lock: int | None = None

    @property
    def checkpoint(self) -> Path:
        """Where the last checkpoint lies while the run isn't done."""
        return self.path / "checkpoint.npz"

    @property
    def results(self) -> Path:
        """Where the result goes."""
        return self.path / "results.nc"

    @property
    def page(self) -> Path:
        """Where the report goes."""
        return self.path / "report.html"

    @classmethod
    def claim(cls, path: Path, record: Mapping[str, Any]) -> RunFolder:
        """Make `path` the folder of a new run.

        What a killed process left that can't be taken up again is begun anew: it has nothing worth keeping.

        Raises InputError where it isn't an empty or new folder, or can't be written.
        """
        folder = cls(path)
        if path.is_file():
            raise InputError(f"--out {path} is a file: choose a new folder")
        new = [p for p in (path, *path.parents) if not p.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"--out {path} can't be made ({error.strerror}): choose another folder") from error
        folder.lock()
        if not (folder._empty() or folder._lost()):
            folder.unlock()
            resumable = (path / "run.json").is_file() and not _ONCE.keys() & record.keys()
            on = f", or go on with --resume {path}" if resumable else ""
            raise InputError(f"--out {path} exists and isn't empty: choose a new folder{on}")
        folder._made = new
        try:
            folder.write(record)
        except BaseException:
            folder.abandon()
            raise
        return folder

    def _empty(self, besides: str = "") -> bool:
        """Whether nothing is here, but for a file of that name and what was still being written."""
        return all(entry.name.endswith(PART) or entry.name == besides for entry in self.path.iterdir())

    def _lost(self) -> bool:
        """Whether a process was killed here that keeps nothing until it is done."""
        if not self._empty("run.json"):
            return False
        try:
            record = self.seen(self.path).record
        except InputError:
            return False
        return record["status"] == "running" and bool(_ONCE.keys() & record.keys())

    @classmethod
    def again(cls, path: Path, record: Mapping[str, Any]) -> RunFolder:
        """Take up the folder of a run whose processes have all been started again, or make it if nothing was kept.

        Raises InputError where `claim` or `reopen` would.
        """
        folder = cls(path)
        if (path / "run.json").is_file():
            return cls.reopen(path)
        if path.is_dir():
            folder.sweep()
            if not folder.checkpoint.exists():
                # Ranks ended while they wrote the first.
                folder.drop_checkpoint()
        return cls.claim(path, record)

    @classmethod
    def reopen(cls, path: Path, kind: str = "") -> RunFolder:
        """Take up the folder of a run that was interrupted, of a simulation or of another kind.

        Raises InputError where there is no such run, it is done, or another process is at it.
        """
        folder = cls.seen(path)
        status = folder.record["status"]
        for key in _ONCE.keys() & folder.record.keys():
            raise InputError(f"--resume {path}: {_ONCE[key]} can't be taken up again: start it anew with --out")
        made = next((k for k in _AGAIN if k in folder.record), "")
        if made != kind:
            raise InputError(f"--resume {path}: this is a run {_AGAIN[made]}; go on with that command")
        if status == "done":
            folder.drop_checkpoint()
            raise InputError(f"--resume {path}: this run is done, {folder.remains()}")
        folder.lock()
        folder.sweep()
        return folder

    @classmethod
    def seen(cls, path: Path) -> RunFolder:
        """The folder of a run that is only read, as by ranks other than the first, which takes it up.

        Raises InputError where there is no run.
        """
        folder = cls(path)
        source = path / "run.json"
        if not source.is_file():
            raise InputError(f"--resume {path}: there is no run to go on with (no run.json there)")
        try:
            folder.record = json.loads(source.read_text(encoding="utf-8"))
            folder.record["status"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(
                f"--resume {path}: run.json there is damaged or not of lpmppl: start anew with --out"
            ) from None
        return folder

    def drop_checkpoint(self) -> None:
        """Delete the checkpoint, of one process or of ranks."""
        for entry in (self.checkpoint, *self.path.glob(f"{self.checkpoint.name}.*-of-*")):
            entry.unlink(missing_ok=True)

    def remains(self) -> str:
        """Say where the report of a run that is done lies, or how to get it back."""
        if self.page.is_file():
            return f"its report is {self.page}"
        if self.results.is_file():
            return f"its report is gone: make it again with lpmppl report {shlex.quote(str(self.path))}"
        return f"but {self.results} is gone: start anew with --out"

    def sweep(self) -> None:
        """Remove files that a killed process was still writing."""
        for entry in self.path.iterdir():
            if entry.name.endswith(PART) or entry.name.startswith(f".{self.checkpoint.name}."):
                entry.unlink(missing_ok=True)

    def lock(self) -> None:
        """Keep other processes from this folder while this one lives; a killed process leaves no lock behind."""
        try:
            import fcntl
        except ImportError:
            return
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.unlock()
            raise InputError(
                f"{self.path} is in use by another lpmppl that is still running: wait for it or stop it"
            ) from None

    def unlock(self) -> None:
        """Let other processes at this folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write(self, record: Mapping[str, Any]) -> None:
        """Add to what `run.json` says.

        Raises InputError where that is no text, as of a folder whose name isn't UTF-8, or can't be written.
        """
        record = {**self.record, **record}
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        try:
            content = text.encode()
        except UnicodeEncodeError as error:
            wrong = ascii(text[max(0, error.start - 40) : error.end])
            raise InputError(f"a path in {wrong} isn't valid UTF-8 and can't be kept: choose another name") from None
        with replacing(self.path / "run.json") as part:
            part.write_bytes(content)
        self.record = record

    def abandon(self) -> None:
        """Undo `claim` after a refusal, unless there is a checkpoint worth keeping."""
        self.unlock()
        if self.checkpoint.exists():
            return
        for name in ("run.json", "results.nc", "report.html"):
            with suppress(OSError):
                (self.path / name).unlink()
        for made in self._made:
            with suppress(OSError):
                made.rmdir()


@contextmanager
def whole_or_nothing(folder: RunFolder | None, what: str) -> Iterator[None]:
    """Abandon the folder of what is interrupted or fails, since it can't be taken up again."""
    try:
        yield
    except KeyboardInterrupt:
        if folder:
            folder.abandon()
        raise Interrupted(f"interrupted; {what} keeps nothing until it is done") from None
    except Exception:
        if folder:
            folder.abandon()
        raise
    finally:
        if folder:
            folder.unlock()
