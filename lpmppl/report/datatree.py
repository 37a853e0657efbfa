"""A result on disk: one NetCDF file, written whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import xarray as xr

from lpmppl.errors import InputError
from lpmppl.report import tables
from lpmppl.report.atomic import replacing

__all__ = ["load", "save"]

ROOT = ("agents", "days", "seed", "model")


def save(tree: xr.DataTree, path: str | Path) -> Path:
    """Write a result to NetCDF (HDF5) at `path`, replacing what was there only once the new file is whole.

    Raises InputError where the folder can't be written.
    """
    target = Path(path)
    # HDF5 can crash the process where a disk is full, so that the file is made in memory.
    content = io.BytesIO()
    tree.to_netcdf(content, engine="h5netcdf")
    with replacing(target) as part:
        part.write_bytes(content.getbuffer())
    return target


def load(path: str | Path) -> xr.DataTree:
    """Read a result back from NetCDF, into memory.

    Raises InputError where there is no such file, it is damaged, or it is no result of this package.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"no result at {source}: make one with --out {source.parent}, as of `lpmppl simulate`")
    try:
        with xr.open_datatree(source, engine="h5netcdf") as tree:
            result = tree.load().copy(deep=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{source} can't be read as NetCDF, it is damaged or of another format: make it anew"
        ) from error
    missing = [name for name in ROOT if name not in result.attrs]
    if missing or not tables.held(result):
        raise InputError(f"{source} is no result of lpmppl (it has no {(missing or tables.HELD)[0]}): make it anew")
    return result
