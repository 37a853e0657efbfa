"""Populations built once and kept under the user's cache folder."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import platformdirs
import xarray as xr

from lpmppl.data import nyc, store
from lpmppl.data.acs import shipped
from lpmppl.errors import InputError

__all__ = ["folder", "path_of", "population"]


def folder() -> Path:
    """The cache folder: the environment's LPMPPL_CACHE, or the user's cache folder of the platform."""
    return Path(os.environ.get("LPMPPL_CACHE") or platformdirs.user_cache_dir("lpmppl"))


def path_of(agents: int, seed: int) -> Path:
    """Where the population of these arguments is kept, by tables and builder too."""
    return folder() / f"nyc-{agents}-{seed}-{shipped().checksum[:12]}-{nyc.BUILDER}.zarr"


def population(agents: int, seed: int = 0) -> xr.Dataset:
    """The population of New York with `agents` people, from the cache or built and kept there.

    A damaged entry is built again, with a warning; a cache that can't be written costs a warning and the time to build
    again. Raises InputError as `nyc.build` does.
    """
    nyc.check_agents(agents)
    path = path_of(agents, seed)
    damaged = False
    if path.exists():
        try:
            return store.load(path)
        except InputError as error:
            damaged = True
            warnings.warn(f"{error} (building it again now)", stacklevel=2)
    dataset = nyc.build(agents, seed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        store.save(dataset, path, overwrite=damaged)
    except (InputError, OSError) as error:
        # Another process may have finished the same population first; that one is as good.
        if damaged or not path.exists():
            warnings.warn(
                f"the population is not kept in the cache: {error}; set LPMPPL_CACHE to another folder", stacklevel=2
            )
    return dataset
