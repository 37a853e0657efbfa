"""A result on disk: one NetCDF file, written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from datetime import date
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.report import fitted, tables
from lpmppl.report.atomic import replacing

__all__ = ["load", "save"]

ROOT = ("agents", "days", "seed", "model")

_NUMBERS = ("agents", "days", "seed")
_PERHAPS = ("fitted_days", "coarse_agents", "runs")
"""Attributes that are whole numbers where they are there."""

_REAL = ("seconds", "effective_draws", "coverage", "khat")
"""Attributes that are numbers where they are there."""

_JSON = {
    "interventions": list,
    **dict.fromkeys(("policies", "set", "parameters", "observed", "seconds_by_part"), dict),
    **dict.fromkeys(("verdict", "knots"), list),
}
"""Attributes that hold JSON where they are there, and of what kind."""

_SEAL = b"lpmppl sha256 "
"""Stands at the end of a file, before the checksum of what comes before it: other readers of HDF5 end before it."""

_READ = ("prior", "posterior", *tables.HELD)
"""Groups whose variables are numbers."""


def save(tree: xr.DataTree, path: str | Path) -> Path:
    """Write a result to NetCDF (HDF5) at `path`, replacing what was there only once the new file is whole.

    Raises InputError where the folder can't be written.
    """
    target = Path(path)
    # HDF5 can crash the process where a disk is full, so that the file is made in memory.
    content = io.BytesIO()
    tree.to_netcdf(content, engine="h5netcdf")
    whole = content.getbuffer()
    with replacing(target) as part, part.open("wb") as file:
        file.write(whole)
        file.write(_SEAL + hashlib.sha256(whole).digest())
    return target


def load(path: str | Path) -> xr.DataTree:
    """Read a result back from NetCDF, into memory.

    Raises InputError where there is no such file, it is damaged, or it is no result of this package.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"no result at {source}: make one with --out {source.parent}, as of `lpmppl simulate`")
    try:
        _check(source)
        with h5py.File(source) as file:
            # Where attributes can't be read, h5netcdf fails half open and a traceback follows when it is collected.
            dict(file.attrs)
        with xr.open_datatree(source, engine="h5netcdf") as tree:
            result = tree.load().copy(deep=True)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, IndexError, AttributeError, struct.error) as error:
        raise InputError(
            f"{source} can't be read as NetCDF, it is damaged or of another format: make it anew"
        ) from error
    missing = [name for name in ROOT if name not in result.attrs]
    if missing or not tables.held(result):
        raise InputError(f"{source} is no result of lpmppl (it has no {(missing or tables.HELD)[0]}): make it anew")
    if fault := _fault(result):
        raise InputError(f"{source} is damaged, or no result of lpmppl ({fault}): make it anew")
    return result


def _check(source: Path) -> None:
    """Raise ValueError for a file that doesn't match its checksum, in which HDF5 might read for ever.

    One without a checksum, as others write them, is as it is.
    """
    length = len(_SEAL) + hashlib.sha256().digest_size
    total = hashlib.sha256()
    with source.open("rb") as file:
        left = source.stat().st_size - length
        if left < 0:
            return
        while left and (content := file.read(min(left, 1 << 20))):
            total.update(content)
            left -= len(content)
        seal = file.read()
    if seal.startswith(_SEAL) and seal != _SEAL + total.digest():
        raise ValueError("it doesn't match its checksum")


def _fault(tree: xr.DataTree) -> str:
    """Say what in a result can't be; empty where nothing is found."""
    for node in tree.subtree:
        held = [node.attrs, *(x.attrs for x in node.to_dataset(inherit=False).variables.values())]
        for name, value in (item for attrs in held for item in attrs.items()):
            if not _text(str(name)) or not _text(str(value)):
                return f"{name!a} in {node.path} is no text"
    about = tree.attrs
    for name in (*_NUMBERS, *_PERHAPS):
        least = 1 if name in ("agents", "days") else 0
        if name in about and not (_number(about[name]) and float(about[name]).is_integer() and about[name] >= least):
            return f"its {name} is {_shown(about[name])}"
    for name in _REAL:
        if name in about and not _number(about[name]):
            return f"its {name} is {_shown(about[name])}"
    if not _dated(about.get("start", "")):
        return f"its start is {_shown(about['start'])}"
    for name, kind in _JSON.items():
        if about.get(name, "") != "" and not isinstance(_json(about[name]), kind):
            return f"its {name} is {_shown(about[name])}"
    for act in _json(about.get("interventions", "[]")) or []:
        if not (isinstance(act, list) and len(act) == 3 and all(isinstance(x, int | float) for x in act[1:])):
            return f"its interventions have {_shown(act)}"
    for group in (name for name in _READ if name in tree.children):
        for name, x in tree[group].to_dataset().data_vars.items():
            if x.dtype.kind not in "biuf" or not x.size:
                return f"{group}/{name} has {'no numbers' if x.size else 'nothing in it'}"
            if not np.isfinite(x.values).any():
                return f"{group}/{name} has no finite number"
    return fitted.fault(tree) if tables.names(tree) else "it has no tallies by day"


def _text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _dated(value: Any) -> bool:
    try:
        return not value or bool(date.fromisoformat(value))
    except (TypeError, ValueError):
        return False


def _json(value: Any) -> Any:
    try:
        return json.loads(str(value) or "null")
    except (ValueError, RecursionError):
        return None


def _shown(value: Any) -> str:
    return repr(value)[:40]
