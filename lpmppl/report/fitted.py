"""What must hold of the groups of a calibration for others to read them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from lpmppl.report.tables import SAMPLES

__all__ = ["fault"]

_DIMS: Mapping[str, tuple[str, ...]] = {
    "prior": SAMPLES,
    "posterior": SAMPLES,
    "posterior_predictive": (*SAMPLES, "day"),
    "forecast": (*SAMPLES, "day"),
    "observed_data": ("day",),
    "log_likelihood": SAMPLES,
    "fit": (),
}
"""The dimensions that every variable of a group has."""

_FIT = {"loss": ("chain", "step"), "centre": ("round", "parameter")}
"""The dimensions of what the fit went through."""


def fault(tree: xr.DataTree) -> str:
    """Say what in the groups of a calibration can't be; empty where nothing is found, or it is none."""
    if not {"posterior", "posterior_predictive"} <= set(tree.children):
        return ""
    for group, dims in _DIMS.items():
        for name, x in _held(tree, group).items():
            wanted = _FIT.get(str(name), dims) if group == "fit" else dims
            if x.dtype.kind not in "biuf" or not x.size:
                return f"{group}/{name} has {'no numbers' if x.size else 'nothing in it'}"
            if not set(wanted) <= set(x.dims):
                return f"{group}/{name} has the dimensions {', '.join(map(str, x.dims)) or 'of none'}"
            if not np.isfinite(x.values).any():
                return f"{group}/{name} has no finite number"
    return _days(tree) or _alike(tree)


def _held(tree: xr.DataTree, group: str) -> Mapping[str, xr.DataArray]:
    return {str(n): x for n, x in tree[group].to_dataset().data_vars.items()} if group in tree.children else {}


def _days(tree: xr.DataTree) -> str:
    fitted, days = float(tree.attrs.get("fitted_days", 1)), float(tree.attrs["days"])
    return "" if 1 <= fitted <= days else f"its fitted_days is {fitted:g} of {days:g}"


def _alike(tree: xr.DataTree) -> str:
    """Whether every stream that was seen is predicted too, on the same days and by the same strata."""
    for name, seen in _held(tree, "observed_data").items():
        for group in (g for g in ("posterior_predictive", "forecast") if g in tree.children):
            made = _held(tree, group).get(name)
            if made is None:
                return f"{group} lacks {name}"
            days = seen.sizes["day"] if group == "posterior_predictive" else made.sizes["day"]
            shape = {**{str(d): n for d, n in made.sizes.items() if d not in SAMPLES}, "day": days}
            if shape != {**seen.sizes, "day": days} or made.sizes["day"] != days:
                return f"{group}/{name} has another shape than what was seen"
            for dim in (d for d in seen.dims if d != "day" and d in seen.coords and d in made.coords):
                if seen[dim].values.tolist() != made[dim].values.tolist():
                    return f"{group}/{name} has other labels of {dim} than what was seen"
    return ""
