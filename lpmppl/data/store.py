"""Populations on disk: Zarr with checksums, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from lpmppl.errors import InputError

__all__ = ["FORMAT", "load", "save"]

FORMAT = 2
"""Version of the layout on disk."""

_KIND = "lpmppl population"
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
    except OSError as error:
        raise InputError(f"'{path}' can't be written ({error.strerror or error}); choose another path") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


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
    if not path.exists():
        raise InputError(f"no population at '{path}'; build one with `lpmppl population nyc --out {path}`")
    if not _is_zarr(path):
        raise InputError(f"'{path}' is not a Zarr folder (no zarr.json); build a population with `lpmppl population`")
    rebuild = "it is truncated or damaged; build it again with `lpmppl population`"
    try:
        attrs = dict(zarr.open_group(path, mode="r").attrs)
    except (OSError, ValueError, KeyError, TypeError, zarr.errors.BaseZarrError) as error:
        raise InputError(f"'{path}' can't be read as Zarr ({_line(error)}): {rebuild}") from error
    if attrs.get("kind") != _KIND:
        raise InputError(f"'{path}' is Zarr, but not a population of lpmppl; build one with `lpmppl population`")
    if attrs.get("format") != FORMAT:
        raise InputError(f"'{path}' has format {attrs.get('format')}, this version reads {FORMAT}; build it again")
    try:
        sums = json.loads(str(attrs["checksums"]))
        checksums, whole = dict(sums["variables"]), str(sums["attrs"])
        dataset = xr.open_zarr(path, consolidated=False, chunks=None, mask_and_scale=False, decode_times=False).load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, zarr.errors.BaseZarrError) as error:
        raise InputError(f"'{path}' can't be read ({_line(error)}): {rebuild}") from error
    for name, checksum in checksums.items():
        if name not in dataset.variables:
            raise InputError(f"'{path}' has lost its variable '{name}': {rebuild}")
        if _checksum(dataset[name].variable) != checksum:
            raise InputError(f"'{path}': variable '{name}' does not match its checksum: {rebuild}")
    dataset = dataset[list(checksums)].drop_encoding()
    for variable in dataset.variables.values():
        variable.attrs.pop("_FillValue", None)
    dataset.attrs = {
        name: value for name, value in dataset.attrs.items() if name not in ("format", "kind", "checksums")
    }
    if _checksum_of_attrs(dataset) != whole:
        raise InputError(f"'{path}': its attributes do not match their checksum: {rebuild}")
    return dataset


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and (path / "zarr.json").is_file()


def _checksum(variable: xr.Variable) -> str:
    """Sum up the values of a variable and what they mean: dimensions, type, labels and other attributes."""
    values = variable.values
    about = [variable.dims, variable.shape, values.dtype.str[1:], _plain(variable.attrs)]
    total = hashlib.sha256(np.ascontiguousarray(values).view(np.uint8).data)
    total.update(_text(about))
    return total.hexdigest()


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
