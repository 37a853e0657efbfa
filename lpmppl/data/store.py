"""Populations on disk: Zarr with checksums, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from lpmppl.errors import InputError

__all__ = ["FORMAT", "Whole", "load", "part", "save"]

FORMAT = 2
"""Version of the layout on disk."""

_KIND = "lpmppl population"
_REBUILD = "it is truncated or damaged; build it again with `lpmppl population`"
_WRONG = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, MemoryError)
"""What Zarr and xarray raise for what is damaged, besides Zarr's own."""

_PATIENCE = 5.0
"""Seconds in which a folder that is half written must stay away once it was removed."""

_CHUNK = 1 << 22  # elements: a few megabytes a chunk load in parallel, and 8.4 million agents take a handful of files


def save(dataset: xr.Dataset, path: str | Path, overwrite: bool = False) -> Path:
    """Write a population as Zarr at `path`, with checksums of every variable and of all attributes; returns the path.

    The folder appears under its name only when it is complete. Raises InputError if `path` exists (unless `overwrite`,
    which replaces a population and nothing else) or can't be written.
    """
    path = Path(path)
    if path.exists():
        if not overwrite:
            raise InputError(f"'{path}' exists; choose another path, or ask to overwrite it")
        if not _is_zarr(path):
            raise InputError(f"'{path}' exists and is no Zarr folder, so it is not overwritten; choose another path")
    if not path.parent.is_dir():
        raise InputError(f"'{path}' can't be written: folder '{path.parent}' does not exist; create it first")
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    described = dataset.assign_attrs(
        format=FORMAT,
        kind=_KIND,
        checksums=json.dumps(
            {
                "variables": {str(name): _checksum(v) for name, v in dataset.variables.items()},
                "attrs": _checksum_of_attrs(dataset),
            }
        ),
    )
    codec = BloscCodec(cname="lz4", clevel=4, shuffle="shuffle")
    encoding = {
        str(name): {"compressors": (codec,), "chunks": tuple(max(1, min(n, _CHUNK)) for n in v.shape)}
        for name, v in dataset.variables.items()
    }
    try:
        described.drop_encoding().to_zarr(partial, mode="w-", zarr_format=3, consolidated=False, encoding=encoding)
        _put(partial, path, overwrite)
    except BaseException as error:
        _drop(partial)
        if isinstance(error, OSError):
            raise InputError(f"'{path}' can't be written ({error.strerror or error}); choose another path") from error
        raise
    return path


def _drop(partial: Path) -> None:
    """Remove what is half written, until it stays away: after Ctrl-C Zarr's threads go on writing for a moment."""
    gone, last = 0, time.monotonic() + _PATIENCE
    while gone < 3 and time.monotonic() < last:
        gone = 0 if partial.exists() else gone + 1
        shutil.rmtree(partial, ignore_errors=True)
        time.sleep(0.03)


def _put(partial: Path, path: Path, overwrite: bool) -> None:
    """Rename into place; a folder can't be replaced in one step, so the old one steps aside first."""
    if overwrite and path.exists():
        aside = partial.with_suffix(".old")
        path.rename(aside)
        partial.rename(path)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        partial.rename(path)


def load(path: str | Path) -> xr.Dataset:
    """Read a population that `save` wrote, into memory, and check it against its checksums.

    Raises InputError if there is none at `path`, if it is not a population of this format, or if it is damaged.
    """
    path = Path(path)
    with _lazily(path) as (dataset, checksums):
        dataset = dataset.load()
        for name, checksum in checksums.items():
            if _checksum(dataset[name].variable) != checksum:
                raise InputError(f"'{path}': variable '{name}' does not match its checksum: {_REBUILD}")
    return dataset


class Whole(NamedTuple):
    """What there is in all of a population that was read in part: CRC-32 of all values, and how many groups."""

    crc: int
    groups: int


def part(
    path: str | Path, choose: Callable[[Callable[[str], NDArray[Any] | None]], NDArray[np.int64]], group: str
) -> tuple[xr.Dataset, NDArray[np.int64], Whole]:
    """Read some of the agents of a population that `save` wrote, and their groups, and check all of it.

    One variable is read at a time, in pieces, so that nobody ever holds the whole.

    Args:
        path: the population.
        choose: given what reads a variable of all agents, None for one that isn't there, says which agents, in order.
        group: the variable of groups that are only read where the agents are of them, such as "household".
    Returns:
        the population of these agents with their ids, whose groups still have their numbers among all; which groups
        they are of, in order, as are variables over them; and what there is in all.
    Raises:
        InputError: as `load` does.
    """
    path = Path(path)
    with _lazily(path) as (dataset, checksums):
        mine = choose(lambda name: dataset[name].to_numpy() if name in dataset.variables else None)
        of = dataset[group].to_numpy()
        at = {"agent": mine, group: np.unique(of[mine]).astype(np.int64)}
        groups = int(dataset.sizes.get(group, int(of.max()) + 1))
        del of
        variables, coords, crc = {}, [], 0
        for name in sorted(checksums):
            variable = dataset[name].variable
            rows, total, crc = _read(variable, at.get(str(variable.dims[0])) if variable.dims else None, crc)
            if total != checksums[name]:
                raise InputError(f"'{path}': variable '{name}' does not match its checksum: {_REBUILD}")
            variables[name] = xr.Variable(variable.dims, rows, variable.attrs)
            coords += [name] if name in dataset.coords else []
    found = xr.Dataset(variables, attrs=dataset.attrs).set_coords(coords)[list(checksums)]
    if "agent" not in found.coords:
        found = found.assign_coords(agent=("agent", mine))
    return found, at[group], Whole(crc, groups)


def _read(variable: xr.Variable, rows: NDArray[np.int64] | None, crc: int) -> tuple[NDArray[Any], str, int]:
    """Some rows of a variable, read in pieces, with the checksum of all of it and its CRC-32 after another."""
    pieces, total = [], hashlib.sha256()
    for first in range(0, max(1, len(variable)) if variable.dims else 1, _CHUNK):
        values = np.ascontiguousarray(variable[first : first + _CHUNK].values if variable.dims else variable.values)
        total.update(values.view(np.uint8).data)
        crc = zlib.crc32(values.data, crc)
        if rows is None:
            pieces.append(values)
            continue
        here = rows[np.searchsorted(rows, first) : np.searchsorted(rows, first + _CHUNK)]
        pieces.append(values[here - first])
    total.update(_text(_about(variable)))
    return np.concatenate(pieces) if variable.dims else pieces[0], total.hexdigest(), crc


@contextmanager
def _lazily(path: Path) -> Iterator[tuple[xr.Dataset, dict[str, str]]]:
    """A population whose values are read where they are asked for, and the checksums of its variables.

    Raises InputError if there is none at `path`, or if it, or what is read of it within, is damaged.
    """
    if not path.exists():
        raise InputError(f"no population at '{path}'; build one with `lpmppl population nyc --out {path}`")
    if not _is_zarr(path):
        raise InputError(f"'{path}' is not a Zarr folder (no zarr.json); build a population with `lpmppl population`")
    try:
        attrs = dict(zarr.open_group(path, mode="r").attrs)
    except (*_WRONG, zarr.errors.BaseZarrError) as error:
        raise InputError(f"'{path}' can't be read as Zarr ({_line(error)}): {_REBUILD}") from error
    if attrs.get("kind") != _KIND:
        raise InputError(f"'{path}' is Zarr, but not a population of lpmppl; build one with `lpmppl population`")
    if attrs.get("format") != FORMAT:
        raise InputError(f"'{path}' has format {attrs.get('format')}, this version reads {FORMAT}; build it again")
    try:
        sums = json.loads(str(attrs["checksums"]))
        checksums, whole = dict(sums["variables"]), str(sums["attrs"])
        dataset = xr.open_zarr(path, consolidated=False, chunks=None, mask_and_scale=False, decode_times=False)
        for name in checksums:
            if name not in dataset.variables:
                raise InputError(f"'{path}' has lost its variable '{name}': {_REBUILD}")
        dataset = dataset[list(checksums)].drop_encoding()
        for variable in dataset.variables.values():
            variable.attrs.pop("_FillValue", None)
        dataset.attrs = {
            name: value for name, value in dataset.attrs.items() if name not in ("format", "kind", "checksums")
        }
        if _checksum_of_attrs(dataset) != whole:
            raise InputError(f"'{path}': its attributes do not match their checksum: {_REBUILD}")
        yield dataset, checksums
    except InputError:
        raise
    except (*_WRONG, zarr.errors.BaseZarrError) as error:
        raise InputError(f"'{path}' can't be read ({_line(error)}): {_REBUILD}") from error


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and (path / "zarr.json").is_file()


def _checksum(variable: xr.Variable) -> str:
    """Sum up the values of a variable and what they mean: dimensions, type, labels and other attributes."""
    total = hashlib.sha256(np.ascontiguousarray(variable.values).view(np.uint8).data)
    total.update(_text(_about(variable)))
    return total.hexdigest()


def _about(variable: xr.Variable) -> list[object]:
    return [variable.dims, variable.shape, variable.dtype.str[1:], _plain(variable.attrs)]


def _checksum_of_attrs(dataset: xr.Dataset) -> str:
    about = [_plain(dataset.attrs), sorted(str(name) for name in dataset.coords)]
    return hashlib.sha256(_text(about)).hexdigest()


def _plain(attrs: Mapping[Hashable, Any]) -> dict[str, Any]:
    """The attributes that come back as they were given: Zarr adds its fill value."""
    return {
        str(name): value for name, value in attrs.items() if name not in ("_FillValue", "format", "kind", "checksums")
    }


def _text(value: object) -> bytes:
    """One spelling of a value for as long as Zarr's JSON keeps it the same."""
    return json.dumps(value, sort_keys=True, default=lambda array: array.tolist()).encode()


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
