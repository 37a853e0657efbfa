"""The effects of policies as a run's page tells them: sizes, intervals, and relative to the world as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from lpmppl.report import charts, tables
from lpmppl.report.acts import several
from lpmppl.report.axes import amount, percent, signed

__all__ = ["MAIN", "Effect", "differs", "effects", "idle", "main", "moved", "sentence", "span"]

MAIN = 8
"""How many tallies a page shows unfolded, the first that the model declares."""

ESTIMATES = ("mean", "low", "high", "sd", "sd_chance", "sd_parameters")
COUNTS = ("people", "reports")


@dataclass(frozen=True)
class Effect:
    """What a policy does to one tally: the mean over draws, what 90 % of them lie between, and the mean as it was.

    `tally` is its name and `kind` how its days make one amount: `sum`, `peak` or `last`. `exact` says that the effect
    is the same in every draw, `shifted` that single days differ; `chance` and `parameters` are the parts of its
    standard deviation, NaN where they can't be told apart.
    """

    title: str
    units: str
    mean: float
    low: float
    high: float
    was: float
    exact: bool
    draws: int
    tally: str = ""
    kind: str = "sum"
    shifted: bool = False
    chance: float = np.nan
    parameters: float = np.nan

    @property
    def none(self) -> bool:
        """Whether there is no effect at all, in any draw or on any day."""
        return self.exact and self.mean == 0 and not self.shifted

    @property
    def relative(self) -> str:
        """The effect as a share of the mean as it was; empty where either is nothing."""
        if not self.was or not self.mean:
            return ""
        return f"{'−' if self.mean < 0 else '+'}{percent(abs(self.mean / self.was))}"


def main(tree: xr.DataTree) -> list[str]:
    """Name the tallies that a page shows unfolded."""
    return tables.names(tree)[:MAIN]


def effects(tree: xr.DataTree, stratum: str | None = None) -> dict[str, list[list[Effect]]]:
    """Give the effects on every amount: by its name, policy and group of a stratum, or everyone as the one group."""
    tallies, draws = tables.tallies(tree), several(tree)
    days = tree["effects_daily"].to_dataset()
    found = {}
    for name, x in tree[f"effects_by_{stratum}" if stratum else "effects"].to_dataset().data_vars.items():
        tally, kind = behind(tallies, str(name))
        whom = [tables.levels(tally, stratum)] if stratum else []
        was = before(tally, kind, stratum)
        shifted = differs(days[str(tally.name)])
        title = charts.said(tally) + {"sum": "", "peak": " at the peak", "last": " on the last day"}[kind]
        values = x.transpose("policy", ..., "estimate").sel(estimate=list(ESTIMATES)).to_numpy()
        values = values.reshape(len(shifted), len(was), len(ESTIMATES))
        found[str(name)] = [
            [
                effect(
                    values[k, g],
                    title=whom[0][g] if whom else title,
                    units=str(x.attrs.get("units", "")),
                    was=float(was[g]),
                    draws=draws,
                    tally=str(tally.name),
                    kind=kind,
                    shifted=bool(shifted[k]) and not whom,
                )
                for g in range(len(was))
            ]
            for k in range(len(shifted))
        ]
    return found


def behind(tallies: Mapping[str, xr.DataArray], name: str) -> tuple[xr.DataArray, str]:
    """Find the tally behind an effect, and how its days are made one amount."""
    if name not in tallies:
        return tallies[name.removeprefix("peak_")], "peak"
    return tallies[name], "last" if tallies[name].attrs.get("kind", "flow") == "stock" else "sum"


def before(tally: xr.DataArray, kind: str, keep: str | None = None) -> np.ndarray:
    """Give the mean over draws of what a tally came to as it was: for everyone, or by group of `keep`."""
    values = tables.city(tally, 0, keep)
    whole = values.isel(day=-1) if kind == "last" else tables.amount(values, "stock" if kind == "peak" else "flow")
    return np.atleast_1d(tables.mean(whole))


def effect(estimates: np.ndarray, *, draws: int, **about: Any) -> Effect:
    """Make an effect of its estimates."""
    mean, low, high, sd, chance, parameters = (float(v) for v in estimates)
    # A mean of equal numbers is off by a rounding, but where they are nought.
    exact = draws == 1 or (np.allclose([low, high], mean, 1e-9, 0.0) and sd <= 1e-9 * abs(mean))
    return Effect(
        mean=mean, low=low, high=high, exact=exact, draws=draws, chance=chance, parameters=parameters, **about
    )


def differs(x: xr.DataArray) -> np.ndarray:
    """Say of each policy whether any estimate of its effect isn't nought."""
    found = np.nan_to_num(x.transpose("policy", "estimate", ...).sel(estimate=list(ESTIMATES[:4])).to_numpy())
    return np.any(found != 0, axis=tuple(range(1, found.ndim)))


def moved(tree: xr.DataTree, group: str) -> set[str]:
    """Name what any policy has an effect on at all, in a group of effects such as `effects_daily`."""
    return {str(name) for name, x in tree[group].to_dataset().data_vars.items() if differs(x).any()}


def idle(tree: xr.DataTree) -> list[bool]:
    """Say of each policy whether it has no effect on anything, on any day, in any group or on anybody."""
    busy = np.zeros(tree["effects"].sizes["policy"], bool)
    for name in tree.children:
        for x in tree[name].to_dataset().data_vars.values() if name.startswith("effects") else ():
            busy |= differs(x)
    for x in tree["flows"].to_dataset().data_vars.values() if "flows" in tree.children else ():
        for was, would in (("yes", "no"), ("no", "yes")):
            changed = x.sel(was=was, would=would).transpose("policy", ...).to_numpy()
            busy |= np.any(changed > 0, axis=tuple(range(1, changed.ndim)))
    return (~busy).tolist()


def sentence(effect: Effect) -> str:
    """Say an effect in words, with its interval and relative to the world as it was.

    >>> sentence(Effect("infections", "people", -120.0, -160.0, -80.0, 3870.0, False, 20))
    '120 fewer infections (90 % of draws: 80 to 160 fewer), −3.1 %'
    >>> sentence(Effect("deaths", "people", 0.0, 0.0, 0.0, 19.0, True, 20))
    'no effect, exactly, on deaths'
    """
    if effect.none:
        return f"no effect, exactly, on {effect.title}"
    if effect.exact and effect.mean == 0:
        return f"no difference in all in {effect.title}, though on single days"
    lower, upper = ("fewer" if effect.units in COUNTS else "less"), "more"
    unit = "" if effect.units in COUNTS else f" {effect.units}"
    if effect.mean == 0:
        said = f"on average no difference in {effect.title}"
    else:
        said = f"{amount(abs(effect.mean))}{unit} {lower if effect.mean < 0 else upper} {effect.title}"
    if effect.draws > 1:
        said += " (the same in every draw)" if effect.exact else f" (90 % of draws: {between(effect, lower, upper)})"
    return said + (f", {effect.relative}" if effect.relative and effect.mean else "")


def between(effect: Effect, lower: str, upper: str) -> str:
    """Say what 90 % of draws lie between."""
    low, high = effect.low, effect.high
    if low < 0 < high:
        return f"{amount(-low)} {lower} to {amount(high)} {upper}"
    small, large = sorted((abs(low), abs(high)))
    if large == 0:
        return "no difference"
    return f"{amount(small)} to {amount(large)} {lower if low < 0 else upper}"


def span(effect: Effect) -> str:
    """Write what 90 % of draws lie between, for a cell of a table."""
    return "" if effect.exact else f"{signed(effect.low)} to {signed(effect.high)}"
