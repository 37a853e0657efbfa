"""Populations built once and kept under the user's cache folder."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path

import platformdirs
import xarray as xr

from lpmppl.data import nyc, store
from lpmppl.data.acs import shipped
from lpmppl.errors import InputError

__all__ = ["folder", "forget", "path_of", "population"]


def folder() -> Path:
    """The cache folder: the environment's LPMPPL_CACHE, or the user's cache folder of the platform."""
    return Path(os.environ.get("LPMPPL_CACHE") or platformdirs.user_cache_dir("lpmppl"))


def path_of(agents: int, seed: int) -> Path:
    """Where the population of these arguments is kept, by tables, builder and format too."""
    return folder() / f"nyc-{agents}-{seed}-{shipped().checksum[:12]}-{nyc.BUILDER}-{store.FORMAT}.zarr"


def population(agents: int, seed: int = 0) -> xr.Dataset:
    """The population of New York with `agents` people, from the cache or built and kept there.

    An entry that is damaged or no population is built again, with a warning; a cache that can't be written costs a
    warning and the time to build again. Raises InputError as `nyc.build` does.
    """
    nyc.check_agents(agents)
    path = path_of(agents, seed)
    damaged = False
    if os.path.lexists(path):
        try:
            return store.load(path)
        except (InputError, OSError) as error:
            damaged = True
            warnings.warn(f"{error} (building it again now)", stacklevel=2)
    dataset = nyc.build(agents, seed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if damaged and not os.access(path / "zarr.json", os.R_OK):
            # `store.save` replaces a Zarr folder, and nothing else.
            forget(path)
        store.save(dataset, path, overwrite=damaged)
    except (InputError, OSError) as error:
        # Another process may have finished the same population first; that one is as good.
        if damaged or not os.path.lexists(path):
            warnings.warn(
                f"the population is not kept in the cache: {error}; set LPMPPL_CACHE to another folder", stacklevel=2
            )
    return dataset


def forget(path: Path) -> None:
    """Take away an entry, whatever it is; no error where that can't be done."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.old")
    try:
        path.rename(aside)
    except OSError:
        return
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()
