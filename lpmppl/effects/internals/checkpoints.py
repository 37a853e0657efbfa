"""One file that a simulation can be taken up from, written so that it is whole or not there."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpmppl.errors import InputError

__all__ = ["load", "save"]

_FORMAT = "lpmppl checkpoint 1"

_OF_A_RUN = frozenset({"tag", "step", "dt", "applied", "splits", "plates"})
"""What the description of a simulation has."""


def save(path: Path, arrays: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write tensors and their description to `path`, through a neighbouring file that takes its name once complete."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            header = np.array(json.dumps({"format": _FORMAT, **meta}))
            np.savez(file, meta=header, **{f"t/{k}": v.detach().cpu().numpy() for k, v in arrays.items()})  # type: ignore[arg-type]
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
            meta = json.loads(str(file["meta"]))
            if meta.get("format") != _FORMAT or not set(needed) <= set(meta):
                raise InputError(
                    f"{path} is not a checkpoint of this version ({meta.get('format')!r}); run again without resuming"
                )
            arrays = {k[2:]: torch.from_numpy(file[k]) for k in file.files if k.startswith("t/")}
    except InputError:
        raise
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, RuntimeError, zipfile.BadZipFile) as e:
        raise InputError(
            f"{path} is damaged or not a checkpoint ({type(e).__name__}); delete it to start from day 0"
        ) from e
    return arrays, meta
