"""From recorded tallies to a DataTree that ArviZ reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from lpmppl._compat import get_index_plates
from lpmppl.effects.handlers.record import Record, Series
from lpmppl.models.model import Model

__all__ = ["tree_of"]


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
    outcomes = xr.Dataset(
        {name: _tally(words, [record.series[name] for record in records]) for name, words in model.tallies.items()}
    )
    outcomes = outcomes.assign_coords(chain=[0], draw=np.arange(len(records)), day=np.arange(days))
    groups = {
        "/": xr.Dataset(attrs=dict(attrs)),
        "prior": prior.assign_coords(chain=[0], draw=np.arange(len(records))),
        "prior_predictive": outcomes,
    }
    by = getattr(model, "by", None)
    if by is not None:
        shape = tuple(len(labels) for labels in by.dims.values())
        people = xr.DataArray(by.size.cpu().numpy().reshape(shape), dims=tuple(by.dims), coords=dict(by.dims))
        groups["constant_data"] = xr.Dataset({"people": people.assign_attrs(units="people", long_name="residents")})
    return xr.DataTree.from_dict(groups)


def _tally(words: str, draws: Sequence[Series]) -> xr.DataArray:
    """One tally as (chain, draw, worlds, day, strata); worlds have the names of the interventions that parted them."""
    plates = sorted(get_index_plates().items(), key=lambda p: p[1].dim)
    first = draws[0]
    strata = tuple(first.dims)
    sizes = tuple(len(labels) for labels in first.dims.values()) or ()
    worlds = tuple(f.size for _, f in plates)
    stacked = []
    for series in draws:
        x = series.values
        lead = x.shape[1:-1]
        # Worlds lie from −3 leftward and draws at −2 of the agents' axis; a tally that didn't part has them all alike.
        lead = lead[:-1] if len(lead) > 1 and lead[-1] == 1 else lead
        full = np.broadcast_to(
            x.reshape(x.shape[0], *((1,) * (len(worlds) - len(lead))), *lead, -1), (x.shape[0], *worlds, x.shape[-1])
        )
        stacked.append(np.moveaxis(full, 0, len(worlds)).reshape(*worlds, x.shape[0], *(sizes or ())))
    dims = ("chain", "draw", *(n for n, _ in plates), "day", *strata)
    attrs = {
        "kind": "stock" if first.stock else "flow",
        "long_name": words,
        "units": "people" if first.stock else "people per day",
    }
    return xr.DataArray(
        np.stack(stacked)[None], dims=dims, coords={d: list(labels) for d, labels in first.dims.items()}, attrs=attrs
    )
