"""Answers of language models, kept in a file, so that a run can be had again without a model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lpmppl.errors import InputError, LpmError

__all__ = ["Answers"]

_MARK, _VERSION = 0x6C706D61, 1
"""What tells such a file from other SQLite files, and the version of its tables."""

_SOON = 0.1
"""Seconds for which what is written may wait for more."""

_PATIENCE = 30.0
"""Seconds for which another process may write."""

_ROUNDED = 1e-3
"""By how much probabilities may miss 1."""

_MEND = "it is damaged; put back a copy of it, or give another file and ask again"

_TABLES = (
    "CREATE TABLE questions (id INTEGER PRIMARY KEY, digest TEXT UNIQUE NOT NULL, model TEXT, prompt TEXT, "
    "options TEXT)",
    "CREATE TABLE answers (question INTEGER, ordinal INTEGER, answer INTEGER, PRIMARY KEY (question, ordinal)) "
    "WITHOUT ROWID",
    "CREATE TABLE chances (question INTEGER PRIMARY KEY, chances TEXT NOT NULL)",
)
_COLUMNS = {
    "questions": "id, digest, model, prompt, options",
    "answers": "question, ordinal, answer",
    "chances": "question, chances",
}


class Answers:
    """A file of answers by model, prompt and options; in memory where no path is given.

    An answer is on the disk as soon as it is kept, or a tenth of a second later where others come before. Threads may
    share one; processes may too, one after the other.

    Args:
        path: the file; made where there is none.
    Raises:
        InputError: for a file that is none of these, or of another version.

    >>> with Answers() as answers:
    ...     answers.keep("model", "Do you go out?", ("yes", "no"), 0, 1)
    ...     answers.known("model", "Do you go out?", ("yes", "no"))
    {0: 1}
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str, tuple[str, ...]], int] = {}
        self._read: dict[int, dict[int, int | None]] = {}
        self._read_chances: dict[int, list[float]] = {}
        self._seen = -1
        self._written = -math.inf
        if self.path is not None and not self.path.parent.is_dir():
            raise InputError(f"there is no folder {self.path.parent} for the answers; make it first")
        self._timer: threading.Timer | None = None
        self._failed: LpmError | None = None
        where = "file::memory:" if self.path is None else self.path.absolute().as_uri()
        writable = self.path is None or not self.path.exists() or os.access(self.path, os.W_OK)
        if not writable:
            where += "?mode=ro&immutable=1"
        try:
            self._file = sqlite3.connect(where, _PATIENCE, isolation_level=None, check_same_thread=False, uri=True)
            if self.path is not None and writable:
                self._file.execute("PRAGMA journal_mode=WAL")
                self._file.execute("PRAGMA synchronous=NORMAL")
            # Of several processes one makes the tables.
            self._file.execute("BEGIN IMMEDIATE" if writable else "BEGIN")
            if writable and self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in (*_TABLES, f"PRAGMA application_id={_MARK}", f"PRAGMA user_version={_VERSION}"):
                    self._file.execute(statement)
            mark, version = (self._number(name) for name in ("application_id", "user_version"))
            self._file.execute("COMMIT")
            if mark != _MARK:
                raise InputError(f"{path} is a database of something else than answers; give another file")
            if version != _VERSION:
                raise InputError(
                    f"{path} has answers in version {version} of the tables, and this is {_VERSION}; give another file"
                )
            for table, columns in _COLUMNS.items():
                self._file.execute(f"SELECT {columns} FROM {table} LIMIT 1")
        except (sqlite3.Error, UnicodeDecodeError) as e:
            raise InputError(f"{path} can't be used for answers ({e}); give another file") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file, with everything on the disk."""
        try:
            self.flush()
        finally:
            self._file.close()

    def model(self, begins: str = "") -> str:
        """The only model of which there are answers, of those whose name begins so.

        Raises:
            InputError: where there are none, or several.
        """
        found = self.models()
        ways = (begins, f"{begins}@", f"{begins} ", begins)
        fits = ([n for n in found if n == begins], *([n for n in found if n.startswith(way)] for way in ways[1:]))
        fit: list[str] = next((names for names in fits if names), [])
        if len(fit) != 1:
            which = f"of these models: {', '.join(found)}; name one" if found else "of no model; ask one first"
            raise InputError(f"{self.path or 'memory'} has answers {which}")
        return str(fit[0])

    def models(self) -> list[str]:
        """The models of which there are answers."""
        return [name for (name,) in self._do("SELECT DISTINCT model FROM questions ORDER BY model")]

    def exact(self, model: str) -> bool:
        """Whether probabilities of this model were kept, rather than answers."""
        rows = self._do("SELECT count(*) FROM chances JOIN questions ON question = id WHERE model = ?", (model,))
        return bool(rows[0][0])

    def known(self, model: str, prompt: str, options: Sequence[str]) -> dict[int, int | None]:
        """The answers that were kept, by the number of the sample: that of an option, None for an unreadable one."""
        return self.known_each(model, [prompt], options)[0]

    def known_each(self, model: str, prompts: Sequence[str], options: Sequence[str]) -> list[dict[int, int | None]]:
        """The answers that were kept, by prompt, as `known` gives them."""
        with self._lock:
            self._look()
            return [dict(self._answers(self._id(model, prompt, options), len(options))) for prompt in prompts]

    def keep(self, model: str, prompt: str, options: Sequence[str], ordinal: int, answer: int | None) -> None:
        """Keep one answer."""
        with self._lock:
            of = self._id(model, prompt, options, new=True)
            self._write("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (of, ordinal, answer))
            if of in self._read:
                self._read[of][ordinal] = answer

    def chances(self, model: str, prompt: str, options: Sequence[str]) -> list[float] | None:
        """The probabilities that were kept, if there are any."""
        with self._lock:
            self._look()
            of = self._id(model, prompt, options)
            if of not in self._read_chances:
                rows = self._do("SELECT chances FROM chances WHERE question = ?", (of,))
                if not rows:
                    return None
                self._read_chances[of] = self._chances(rows[0][0], len(options))
            return list(self._read_chances[of])

    def keep_chances(self, model: str, prompt: str, options: Sequence[str], chances: Sequence[float]) -> None:
        """Keep the probabilities of options."""
        with self._lock:
            of = self._id(model, prompt, options, new=True)
            self._write("INSERT OR REPLACE INTO chances VALUES (?, ?)", (of, json.dumps(list(chances))))
            self._read_chances.pop(of, None)

    def flush(self) -> None:
        """Have everything on the disk.

        Raises:
            LpmError: where that can't be, such as on a full disk.
        """
        with self._lock:
            self._commit()
            if self._failed is not None:
                failed, self._failed = self._failed, None
                raise failed

    def _look(self) -> None:
        """Forget what was read where another process has written since."""
        version = int(self._do("PRAGMA data_version")[0][0])
        if version != self._seen:
            self._seen = version
            self._read.clear()
            self._read_chances.clear()

    def _answers(self, of: int, options: int) -> dict[int, int | None]:
        if of not in self._read:
            rows = self._do("SELECT ordinal, answer FROM answers WHERE question = ?", (of,))
            if not rows:
                return {}
            for ordinal, answer in rows:
                if type(ordinal) is not int or (answer is not None and answer not in range(options)):
                    raise InputError(
                        f"{self.path} has {answer!r} as the answer to a question of {options} options: {_MEND}"
                    )
            self._read[of] = dict(rows)
        return self._read[of]

    def _chances(self, text: Any, options: int) -> list[float]:
        """Probabilities that were kept, one of each option."""
        try:
            found = [float(chance) for chance in json.loads(text)]
        except (TypeError, ValueError):
            found = []
        if len(found) != options or not all(0 <= chance <= 1 for chance in found) or abs(sum(found) - 1) > _ROUNDED:
            raise InputError(f"{self.path} has probabilities of {options} options that are none: {_MEND}")
        return found

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        """Write at once, or soon where much is written: a language model's answers are further apart."""
        self._begin()
        self._do(statement, values)
        if (now := time.monotonic()) > self._written + _SOON:
            self._written = now
            self._commit()
        elif self._timer is None:
            self._timer = threading.Timer(_SOON, self._later)
            self._timer.daemon = True
            self._timer.start()

    def _later(self) -> None:
        with self._lock:
            # What was waited for may have come about.
            if self._timer is not threading.current_thread():
                return
            try:
                self._commit()
            except LpmError as e:
                # Told by the next flush, in the thread that keeps answers.
                self._failed = e

    def _begin(self) -> None:
        if not self._file.in_transaction:
            self._do("BEGIN IMMEDIATE")

    def _commit(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._file.in_transaction:
            self._do("COMMIT")

    def _do(self, statement: str, values: tuple[object, ...] = ()) -> list[Any]:
        """Carry out a statement; what fails takes back what isn't on the disk yet."""
        try:
            return self._file.execute(statement, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as e:
            # The numbers of questions that were taken back may be given to others.
            self._ids.clear()
            self._read.clear()
            self._read_chances.clear()
            with contextlib.suppress(sqlite3.Error):
                self._file.rollback()
            raise LpmError(
                f"answers can't be read from or written to {self.path or 'memory'} ({e}); those that were kept before "
                "are there: make room or give another file, and go on"
            ) from e

    def _number(self, pragma: str) -> int:
        return int(self._file.execute(f"PRAGMA {pragma}").fetchone()[0])

    def _id(self, model: str, prompt: str, options: Sequence[str], new: bool = False) -> int:
        """The number of a question; -1 where it was never asked, unless it is to have one."""
        key = (model, prompt, tuple(options))
        if key in self._ids:
            return self._ids[key]
        asked = (model, prompt, json.dumps(list(options), ensure_ascii=False))
        digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        if new:
            # Written with its answer.
            self._begin()
            self._do(
                "INSERT OR IGNORE INTO questions (digest, model, prompt, options) VALUES (?, ?, ?, ?)",
                (digest, *asked),
            )
        rows = self._do("SELECT id FROM questions WHERE digest = ?", (digest,))
        if not rows:
            return -1
        self._ids[key] = int(rows[0][0])
        return self._ids[key]
