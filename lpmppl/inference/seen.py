"""Events that were seen by stratum of a model, as guided runs take them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from lpmppl.effects.handlers.guided import Observations
from lpmppl.effects.handlers.stratified import Stratified, each
from lpmppl.errors import InputError, nearest
from lpmppl.models.model import Model

__all__ = ["by_stratum", "dataset"]


def by_stratum(model: Model, observed: Observations) -> Observations:
    """What was observed, with each DataArray over days and strata of the model as one series for each stratum.

    Args:
        model: the society.
        observed: series by hazard site; a DataArray has the dimension `day`, from the first day on, and those of the
            model's strata by which it is, with their labels; a label that it lacks wasn't seen.
    Raises:
        InputError: for dimensions or labels that the model doesn't have.
    """
    if not isinstance(observed, Mapping) or not observed:
        return observed
    for site, x in observed.items():
        known = x.values if isinstance(x, xr.DataArray) else x
        if isinstance(known, list | tuple | np.ndarray) and len(known) and all(_nothing(count) for count in known):
            raise InputError(f"nothing was seen of '{site}': all its counts are NaN; give numbers, or leave it out")
    return {site: _of(model, site, x) if isinstance(x, xr.DataArray) else x for site, x in observed.items()}


def _nothing(count: Any) -> bool:
    """Whether a day's count, or those of all strata, are NaN."""
    x = np.asarray(count)
    return x.dtype.kind == "f" and bool(np.isnan(x).all())


def dataset(observed: Observations, series: Observations, days: int) -> xr.Dataset:
    """What was observed as variables over `day`, and strata where it was given so, NaN where it wasn't seen.

    Args:
        observed: as it was given.
        series: as guided runs take it.
        days: how many days.
    """
    found: dict[str, Any] = {}
    for site, name, counts in each(series):
        given = observed[site]
        if isinstance(given, xr.DataArray):
            x = given.astype(float).reset_coords(drop=True).assign_coords(day=np.arange(given.sizes["day"]))
            found[site] = x.reindex(day=np.arange(days)).transpose("day", ...)
        else:
            found[name] = ("day", [*counts, *[math.nan] * (days - len(counts))])
    return xr.Dataset(found, {"day": np.arange(days)})


def _of(model: Model, site: str, x: xr.DataArray) -> Any:
    strata = {} if model.by is None else model.by.dims
    if x.dtype.kind not in "biuf":
        raise InputError(f"what was observed of '{site}' can't be read, of {x.dtype}: give numbers")
    x = x.astype(float)
    if not x.size:
        raise InputError(f"what was observed of '{site}' has no counts, of {dict(x.sizes)}: give one for each day")
    if "day" not in x.dims:
        raise InputError(f"what was observed of '{site}' is over {list(x.dims)}; give it the dimension 'day'")
    days = x["day"].values
    if days.dtype.kind in "iu" and (days != np.arange(len(days))).any():
        raise InputError(f"the days of '{site}' are {days.tolist()[:4]}, …: give all from 0 on in order, NaN if unseen")
    if days.dtype.kind == "M" and (np.diff(days) != np.timedelta64(1, "D")).any():
        raise InputError(
            f"the dates of '{site}' aren't one day apart, from {days[0]}: give all in order, NaN if unseen"
        )
    kept = [dim for dim in strata if dim in x.dims]
    for dim in x.dims:
        if dim != "day" and dim not in strata:
            raise InputError(nearest(f"stratum of '{site}'", str(dim), strata))
    for dim in kept:
        if dim not in x.coords:
            raise InputError(f"what was observed of '{site}' has no labels of '{dim}'; give them as its coordinate")
        labels = [str(label) for label in x[dim].values]
        if strange := [label for label in labels if label not in strata[dim]]:
            raise InputError(nearest(f"{dim} of '{site}'", strange[0], strata[dim]))
        if len(set(labels)) < len(labels):
            raise InputError(f"what was observed of '{site}' has the same {dim} twice; give each once")
        x = x.assign_coords({dim: labels})
    x = x.transpose("day", *kept)
    if not kept:
        return x.values
    assert model.by is not None
    sizes = [len(labels) for labels in strata.values()]
    places = np.unravel_index(np.arange(math.prod(sizes)), sizes)
    mine = [places[k] for k, dim in enumerate(strata) if dim in kept]
    code = torch.from_numpy(np.ravel_multi_index(mine, [len(strata[dim]) for dim in kept]))
    index = model.by.index
    x = x.reindex({dim: list(strata[dim]) for dim in kept})
    cells = itertools.product(*(strata[dim] for dim in kept))
    columns = x.values.reshape(x.sizes["day"], -1).T.tolist()
    series = {", ".join(cell): column for cell, column in zip(cells, columns, strict=True)}
    return Stratified(series, code.to(index.device)[index.long()])
