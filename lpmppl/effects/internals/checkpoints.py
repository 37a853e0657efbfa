"""One file that a simulation can be taken up from, written so that it is whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpmppl.errors import InputError

__all__ = ["load", "save"]

_FORMAT, _BEFORE = "lpmppl checkpoint 2", "lpmppl checkpoint 1"
"""What is written, and what an earlier release has written: it doesn't say which arrays there are."""

_ARRAYS = "arrays"
"""What of the description says which arrays there are, of what type and shape."""

_DAMAGED = (
    *(OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, RuntimeError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What reading a damaged archive raises."""

_OF_A_RUN = frozenset({"tag", "step", "dt", "applied", "splits", "plates"})
"""What the description of a simulation has."""


def save(path: Path, arrays: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and their description to `path`, through a neighbouring file that takes its name once complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            found = {k: v.detach().cpu().numpy() for k, v in arrays.items()}
            header = json.dumps({"format": _FORMAT, **meta, _ARRAYS: _forms(found)})
            described = {"meta": np.array(header), "sum": np.array(_sum(header))}
            np.savez(file, **described, **{f"t/{k}": x for k, x in found.items()})  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, needed: Collection[str] = _OF_A_RUN) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint back, whose description has what is needed.

    Raises:
        InputError: for a file that is damaged or isn't a checkpoint.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            header = str(file["meta"])
            meta = json.loads(header)
            if meta.get("format") not in (_FORMAT, _BEFORE) or not set(needed) <= set(meta):
                raise InputError(
                    f"{path} is not a checkpoint of this version ({meta.get('format')!r}); run again without resuming"
                )
            found = {k[2:]: file[k] for k in file.files if k.startswith("t/")}
            forms = meta.pop(_ARRAYS, None)
            if meta["format"] == _FORMAT and (str(file["sum"]) != _sum(header) or forms != _forms(found)):
                raise ValueError("its description doesn't fit")
            arrays = {k: torch.from_numpy(x) for k, x in found.items()}
    except InputError:
        raise
    except _DAMAGED as e:
        raise InputError(
            f"{path} is damaged or not a checkpoint ({type(e).__name__}); delete it to start from day 0"
        ) from e
    return arrays, meta


def _forms(arrays: Mapping[str, np.ndarray]) -> dict[str, list[object]]:
    return {name: [x.dtype.str, list(x.shape)] for name, x in arrays.items()}


def _sum(header: str) -> str:
    return hashlib.sha256(header.encode()).hexdigest()
