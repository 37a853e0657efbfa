"""What a run adds up to: totals, peaks, and the same by stratum."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator

import numpy as np
import pandas as pd
import xarray as xr

from lpmppl.report.axes import number

__all__ = [
    "BAND",
    "HELD",
    "agents",
    "agents_are",
    "city",
    "daily",
    "held",
    "label",
    "levels",
    "mean",
    "names",
    "of_people",
    "over",
    "people",
    "strata",
    "summary",
    "tallies",
    "totals",
    "unit",
    "worlds",
]

BAND = (0.05, 0.5, 0.95)
"""Quantiles of a 90 % band and its median, over chains and draws."""

SAMPLES = ("chain", "draw")
WEIGHT = "weight"
"""The coordinate of draws that says what each counts for, where they don't count the same."""

UNSTRATIFIED = (*SAMPLES, "world", "day")

HELD = ("prior_predictive", "predictions")
"""The groups that may hold a result's tallies: those of a run, and those of a calibration's runs of its posterior."""


def held(tree: xr.DataTree) -> str:
    """Name the group of a result that holds its tallies; empty where it has none."""
    return next((group for group in HELD if group in tree.children), "")


def tallies(tree: xr.DataTree) -> dict[str, xr.DataArray]:
    """Give the day-by-day tallies of a result by name, in the order in which the model declares them.

    Dims (chain, draw, world, day, strata...); the dimensions of worlds, which lie before the day, become one, and where
    there are no worlds there is none.
    """
    predictive = tree[held(tree)].to_dataset()
    return {name: one_world_dim(predictive[name]) for name in names(tree)}


def names(tree: xr.DataTree) -> list[str]:
    """Name the day-by-day tallies of a result, in the order in which the model declares them."""
    predictive = tree[held(tree)].to_dataset()
    return [str(n) for n, x in predictive.data_vars.items() if "day" in x.dims]


def one_world_dim(tally: xr.DataArray) -> xr.DataArray:
    """Bring the dimensions of worlds, whatever their names, into one called `world`, labelled in words.

    >>> twice = xr.DataArray([[[1.0], [2.0]]] * 2, dims=("masks", "school", "day"), coords={"school": ["open", "shut"]})
    >>> one_world_dim(twice)["world"].values.tolist()
    ['open', 'shut', 'masks, open', 'masks, shut']
    """
    before = [str(d) for d in tally.dims[: tally.dims.index("day")] if d not in SAMPLES]
    if not before:
        return tally
    names = [
        [str(v) for v in tally[d].values] if d in tally.coords else alternatives(d, tally.sizes[d]) for d in before
    ]
    labels = [", ".join(filter(None, words)) or "factual" for words in itertools.product(*names)]
    if len(before) == 1:
        joined = tally.drop_vars(before, errors="ignore").rename({before[0]: "world"}).assign_coords(world=labels)
        return joined.transpose(*(d for d in tally.dims if d in SAMPLES), "world", ...)
    flat = tally.drop_vars([d for d in before if d in tally.coords]).rename({d: f"{d} " for d in before})
    joined = flat.stack(world=[f"{d} " for d in before], create_index=False).assign_coords(world=labels)
    return joined.transpose(*(d for d in tally.dims if d in SAMPLES), "world", ...)


def alternatives(policy: str, count: int) -> list[str]:
    """Name the worlds that one policy parts: nothing for the first, in which it isn't there, then the policy.

    >>> alternatives("masks", 2), alternatives("masks", 3)
    (['', 'masks'], ['', 'masks (1)', 'masks (2)'])
    """
    return ["", policy] if count == 2 else ["", *(f"{policy} ({i})" for i in range(1, count))]


def agents_are(tree: xr.DataTree) -> str:
    """Say what the agents of a result are: people, where it doesn't say."""
    return str(tree.attrs.get("agents_are", "people"))


def agents(tree: xr.DataTree) -> str:
    """Say how many agents a result is of, and what they are."""
    return f"{number(int(tree.attrs['agents']))} {agents_are(tree)}"


def of_people(tally: xr.DataArray) -> bool:
    """Say whether a tally counts people, rather than dollars or reports."""
    return str(tally.attrs.get("units", "people")).startswith("people")


def unit(tally: xr.DataArray) -> str:
    """Name what a tally counts, over whatever time: people, dollars, reports."""
    return str(tally.attrs.get("units", "people")).removesuffix(" per day")


def strata(tally: xr.DataArray) -> list[str]:
    """Name the dimensions by which a tally is broken down: all but chain, draw, world and day."""
    return [str(d) for d in tally.dims if d not in UNSTRATIFIED]


def label(tally: xr.DataArray) -> str:
    """Name a tally for readers: its `long_name`, or its own name with spaces."""
    text = str(tally.attrs.get("long_name") or str(tally.name).replace("_", " "))
    return text[:1].upper() + text[1:]


def levels(tally: xr.DataArray, stratum: str) -> list[str]:
    """Name the groups of a stratum."""
    return [str(v) for v in tally[stratum].values]


def worlds(tally: xr.DataArray) -> list[str]:
    """Name the worlds of a tally; one empty name where it has none."""
    return [str(v) for v in tally["world"].values] if "world" in tally.dims else [""]


def city(tally: xr.DataArray, world: int = 0, keep: str | None = None) -> xr.DataArray:
    """Add a tally up over its strata, but for `keep`, in one world: dims (chain, draw, day[, keep])."""
    one = tally.isel(world=world) if "world" in tally.dims else tally
    return one.sum([d for d in strata(tally) if d != keep])


def over(values: xr.DataArray) -> np.ndarray:
    """Reduce chains and draws, which may be weighted, to the quantiles of `BAND`: shape (3, ...)."""
    samples = [d for d in SAMPLES if d in values.dims]
    if samples and WEIGHT in values.coords:
        return values.weighted(values.coords[WEIGHT]).quantile(BAND, dim=samples).transpose("quantile", ...).to_numpy()
    return values.quantile(BAND, dim=samples).to_numpy() if samples else np.stack([values.to_numpy()] * len(BAND))


def mean(values: xr.DataArray) -> np.ndarray:
    """Reduce chains and draws, which may be weighted, to their mean; what is NaN is left out."""
    samples = [d for d in SAMPLES if d in values.dims]
    counted = values.weighted(values.coords[WEIGHT]) if WEIGHT in values.coords else values
    return np.asarray(counted.mean(samples))


def daily(tally: xr.DataArray, world: int = 0, keep: str | None = None) -> np.ndarray:
    """Give the quantiles of a tally's daily series in people: shape (3, days) or (3, days, groups of `keep`)."""
    values = city(tally, world, keep)
    return over(values.transpose(..., "day", *([keep] if keep else [])))


def amount(values: xr.DataArray, kind: str) -> xr.DataArray:
    """Reduce days to one amount: the sum of a flow, the peak of a stock."""
    return values.max("day") if kind == "stock" else values.sum("day")


def people(tree: xr.DataTree, stratum: str | None = None) -> dict[str, float]:
    """Count residents by group of a stratum, or everyone under "everyone"; empty where the result doesn't say."""
    constant = tree["constant_data"].to_dataset() if "constant_data" in tree.children else xr.Dataset()
    counts = constant.get("people")
    if stratum is None:
        return {"everyone": float(tree.attrs["agents"])}
    if counts is None or stratum not in counts.dims:
        return {}
    by_group = counts.sum([d for d in counts.dims if d != stratum])
    return {str(k): float(v) for k, v in zip(by_group[stratum].values, by_group.to_numpy(), strict=True)}


def totals(tree: xr.DataTree) -> dict[str, float | int]:
    """Give one number per tally: a flow's sum over days and strata, and a stock's on the last day.

    A stock's largest daily total is there too, as `peak_<name>`. Several draws give their median; several worlds give
    one number each, under `<name>[<world>]`.
    """
    numbers: dict[str, float | int] = {}
    for name, tally in tallies(tree).items():
        kind = tally.attrs.get("kind", "flow")
        for i, world in enumerate(worlds(tally)):
            whole = city(tally, i)
            found = {name: whole.isel(day=-1) if kind == "stock" else amount(whole, kind)}
            if kind == "stock":
                found = {f"peak_{name}": amount(whole, kind), **found}
            for key, values in found.items():
                middle = float(over(values)[1])
                numbers[key + (f"[{world}]" if world else "")] = int(middle) if middle.is_integer() else middle
    return numbers


def summary(tree: xr.DataTree) -> pd.DataFrame:
    """Tabulate every tally for everyone and for every group of every stratum.

    One row per (stratum, group, world, tally), with the columns `kind`, `people` (residents, NaN where unknown),
    `value` (a flow's sum or a stock's peak, in people; the median over draws), `low` and `high` (its 90 % band), and
    `per_100000` (`value` per 100,000 residents).
    """
    return pd.DataFrame(
        rows(tree),
        columns=["stratum", "group", "world", "tally", "kind", "people", "value", "low", "high", "per_100000"],
    )


def rows(tree: xr.DataTree) -> Iterator[tuple[Hashable, ...]]:
    """Give the rows of `summary`: everyone first, then stratum by stratum."""
    named = tallies(tree)
    known = list(dict.fromkeys(d for tally in named.values() for d in strata(tally)))
    for stratum in ("", *known):
        counts = people(tree, stratum or None)
        for name, tally in named.items():
            if stratum and stratum not in tally.dims:
                continue
            kind = str(tally.attrs.get("kind", "flow"))
            groups = levels(tally, stratum) if stratum else ["everyone"]
            for i, world in enumerate(worlds(tally)):
                low, middle, high = over(amount(city(tally, i, stratum or None), kind)).reshape(3, -1)
                for g, group in enumerate(groups):
                    residents = counts.get(group, np.nan) if of_people(tally) else np.nan
                    rate = 1e5 * middle[g] / residents if residents > 0 else np.nan
                    yield stratum, group, world, name, kind, residents, middle[g], low[g], high[g], rate
