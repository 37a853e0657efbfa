"""From recorded tallies to a DataTree that ArviZ reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from lpmppl._compat import get_index_plates
from lpmppl.effects.handlers.record import Record, Series
from lpmppl.errors import LpmError
from lpmppl.models.model import Model

__all__ = ["day_by_day", "in_all", "tally_of", "tree_of"]


def in_all(tally: xr.DataArray) -> xr.DataArray:
    """What a tally comes to: one that counts who is in a state on the last day, any other summed over days."""
    units = str(tally.attrs.get("units", "people")).removesuffix(" per day")
    stock = tally.attrs.get("kind") == "stock"
    return (tally.isel(day=-1, drop=True) if stock else tally.sum("day")).assign_attrs(units=units)


def day_by_day(series: Series, days: int) -> np.ndarray:
    """A series on every day, shape (days, …, G): nothing happened on a day on which it wasn't counted."""
    x = series.values
    full = np.zeros((days, *x.shape[1:]), x.dtype)
    taken = np.array([int(day) for day in series.days])
    full[taken] = x
    if not series.stock:
        return full
    # Whoever is counted every few days is that many in between.
    return full[np.maximum.accumulate(np.where(np.isin(np.arange(days), taken), np.arange(days), 0))]


def tree_of(
    model: Model, thetas: Sequence[Mapping[str, float]], records: Sequence[Record], days: int, attrs: Mapping[str, Any]
) -> xr.DataTree:
    """Bring parameters and tallies of all draws into one tree.

    Args:
        model: the model that ran.
        thetas: the parameters of each draw.
        records: the tallies of each draw.
        days: the number of days.
        attrs: what the run was.
    Returns:
        groups `prior`, `prior_predictive` and, where the tallies have strata, `constant_data`.
    """
    prior = xr.Dataset()
    for name, parameter in model.parameters.items():
        values = np.array([[theta[name] for theta in thetas]])
        prior[name] = xr.DataArray(
            values,
            dims=("chain", "draw"),
            attrs={"units": parameter.units, "long_name": parameter.description, "source": parameter.source},
        )
    for name in model.tallies:
        if name not in records[0].series:
            counted = ", ".join(sorted(records[0].series)) or "nothing"
            raise LpmError(f"the model declares the tally '{name}', but counted {counted} in {days} days")
    words = {name: model.tallies.get(name, name) for name in (*model.tallies, *records[0].series)}
    outcomes = xr.Dataset(
        {
            n: tally_of(w, [record.series[n] for record in records], days, model.units.get(n, "people"))
            for n, w in words.items()
        }
    )
    outcomes = outcomes.assign_coords(chain=[0], draw=np.arange(len(records)), day=np.arange(days))
    groups = {
        "/": xr.Dataset(attrs=dict(attrs)),
        "prior": prior.assign_coords(chain=[0], draw=np.arange(len(records))),
        "prior_predictive": outcomes,
    }
    by = model.by
    if by is not None:
        shape = tuple(len(labels) for labels in by.dims.values())
        people = xr.DataArray(by.size.cpu().numpy().reshape(shape), dims=tuple(by.dims), coords=dict(by.dims))
        groups["constant_data"] = xr.Dataset({"people": people.assign_attrs(units="people", long_name="residents")})
    return xr.DataTree.from_dict(groups)


def tally_of(words: str, draws: Sequence[Series], days: int, unit: str) -> xr.DataArray:
    """One tally as (chain, draw, worlds, day, strata); worlds have the names of the interventions that parted them."""
    plates = sorted(get_index_plates().items(), key=lambda p: p[1].dim)
    first = draws[0]
    strata = {dim: list(labels) for dim, labels in first.dims.items()}
    sizes = tuple(len(labels) for labels in strata.values())
    worlds = tuple(frame.size for _, frame in plates)
    stacked = []
    for series in draws:
        full = day_by_day(series, days)
        lead = full.shape[1:-1]
        # Dimension −2 of agents' tensors is the last leading one here, −3 the one before it, and so on.
        wide = full.reshape(
            days, *((1,) * (max([1, *(-f.dim - 1 for _, f in plates)]) - len(lead))), *lead, full.shape[-1]
        )
        axes = [wide.ndim + frame.dim for _, frame in plates]
        ordered = np.moveaxis(wide, [*axes, 0], range(len(axes) + 1))
        cut = ordered.reshape(*ordered.shape[: len(axes) + 1], -1, full.shape[-1])[..., 0, :]
        stacked.append(np.broadcast_to(cut, (*worlds, days, full.shape[-1])).reshape(*worlds, days, *sizes))
    attrs = {
        "kind": "stock" if first.stock else "flow",
        "long_name": words,
        "units": unit if first.stock else f"{unit} per day",
    }
    dims = ("chain", "draw", *(name for name, _ in plates), "day", *strata)
    return xr.DataArray(np.stack(stacked)[None], dims=dims, coords=strata, attrs=attrs)
