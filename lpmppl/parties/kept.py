"""Files that survive the end of their process at any moment: replaced whole, or appended record by record."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lpmppl.errors import InputError

__all__ = ["Journal", "folder_of", "replace"]

_RECORD = struct.Struct("<II")


def replace(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with _opened(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode) as fd:
            _write(fd, content)
            os.fsync(fd)
        new.replace(path)
    finally:
        with suppress(OSError):
            new.unlink()
    _sync(path.parent)


def folder_of(state: str | Path, owner: bytes) -> Path:
    """A party's folder of state, made for it alone, or refused where it is another's.

    Args:
        state: the folder.
        owner: what tells the party and its session from all others.
    Raises:
        InputError: for a folder of another session or party, or one that can't be written.
    """
    folder = Path(state)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for unfinished in folder.glob(".*.new"):
            unfinished.unlink()
        mine = folder / "owner"
        if not mine.exists():
            if any(folder.iterdir()):
                raise InputError(f"state folder {folder} has files of something else; give an empty or a new folder")
            replace(mine, owner)
        elif mine.read_bytes() != owner:
            raise InputError(f"state folder {folder} belongs to another session or party; give this one its own")
    except OSError as e:
        raise InputError(f"state folder {folder} can't be used: {e}; give one that can be written") from e
    return folder


class Journal:
    """Messages that were accepted, in order, each on disk before it is acknowledged.

    A record is its length and CRC-32, 4 bytes each, and its bytes. A last record that was cut off, as by the end of
    the process in mid-write, was never acknowledged: it is dropped at opening.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = None

    def __iter__(self) -> Iterator[bytes]:
        """The records that are whole; what follows them is cut off."""
        if not self.path.exists():
            return
        content, first = memoryview(self.path.read_bytes()), 0
        while first + _RECORD.size <= len(content):
            length, crc = _RECORD.unpack_from(content, first)
            record = bytes(content[first + _RECORD.size : first + _RECORD.size + length])
            if len(record) < length or zlib.crc32(record) != crc:
                break
            first += _RECORD.size + length
            yield record
        if first < len(content):
            os.truncate(self.path, first)

    def append(self, record: bytes) -> None:
        """Write one record through to the disk, or leave the file as it was."""
        if self._fd is None:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            _sync(self.path.parent)
        before = os.fstat(self._fd).st_size
        try:
            _write(self._fd, _RECORD.pack(len(record), zlib.crc32(record)) + record)
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, before)
            raise

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _sync(folder: Path) -> None:
    with _opened(folder, os.O_RDONLY) as fd:
        os.fsync(fd)


def _write(fd: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


class _opened:
    def __init__(self, path: Path, flags: int, mode: int = 0o600) -> None:
        self._fd = os.open(path, flags, mode)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
