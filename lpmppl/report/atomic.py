"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lpmppl.errors import InputError

__all__ = ["PART", "replacing"]

PART = ".part"
"""How the name of a file that is still being written ends."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `path` when the block ends well.

    The part lies beside its target, so that taking its place is one rename; an interrupted block leaves the target as
    it was.
    Raises InputError where the folder can't be written, or what is at `path` is no file.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as part:
    ...     _ = part.write_text("whole")
    >>> [p.name for p in folder.iterdir()]
    ['a.txt']
    """
    target = Path(path)
    part = target.with_name(f".{target.name}{PART}")
    if os.path.lexists(target) and not target.is_file():
        # A device or a folder would be gone for good.
        raise InputError(f"can't write {target} (it is no file): choose another path")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise InputError(f"can't write {target} ({error.strerror or error}): free or choose another folder") from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise
