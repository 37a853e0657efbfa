"""The versions of the stack: which are installed, and which are known to work together."""

from __future__ import annotations

import platform
from importlib import metadata

from packaging.requirements import Requirement

__all__ = ["KNOWN_TO_WORK", "installed", "required"]

KNOWN_TO_WORK = {
    "torch": "2.13.0",
    "pyro-ppl": "1.9.2",
    "chirho": "0.3.0",
    "torchdiffeq": "0.2.5",
    "arviz": "0.23.4",
    "xarray": "2026.9.0",
    "zarr": "3.1.6",
    "h5netcdf": "1.8.2",
    "numpy": "2.4.6",
    "pandas": "3.1.1",
    "scipy": "1.17.1",
}
"""One set of versions that pass the tests together."""


def installed() -> dict[str, str]:
    """Give the installed version of Python, of lpmppl and of each package it stands on; "" for a missing one."""
    found = {"python": platform.python_version()}
    for name in ("lpmppl", *KNOWN_TO_WORK):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def required() -> dict[str, Requirement]:
    """Give what the installed lpmppl requires, extras apart, by package; nothing where it runs from its source."""
    try:
        lines = metadata.requires("lpmppl") or []
    except metadata.PackageNotFoundError:
        return {}
    needs = [Requirement(line) for line in lines]
    return {need.name: need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})}
