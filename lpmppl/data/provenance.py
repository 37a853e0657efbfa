"""What a population says of its making."""

from __future__ import annotations

import json
from typing import Any

import xarray as xr

__all__ = ["provenance"]


def provenance(dataset: xr.Dataset) -> dict[str, Any]:
    """Read the JSON object of a population's `attrs["provenance"]`; nothing where it says none, or says it otherwise.

    >>> provenance(xr.Dataset(attrs={"provenance": '{"seed": 0}'}))
    {'seed': 0}
    >>> provenance(xr.Dataset(attrs={"provenance": "a survey of mine"}))
    {}
    """
    try:
        found = json.loads(str(dataset.attrs.get("provenance", "{}")))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
