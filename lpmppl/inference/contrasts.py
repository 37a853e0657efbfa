"""What policies do: differences between worlds that share everybody's chance, with what is uncertain about them."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence

import numpy as np
import xarray as xr

from lpmppl.errors import InputError, nearest
from lpmppl.inference.policies import FACTUAL, WORLD
from lpmppl.inference.results import in_all

__all__ = ["PRICE", "amounts", "check_compared", "contrast", "cost_per", "fates", "with_effects"]

SAMPLES = ("chain", "draw")
PRICE = "payments"
"""The tally of what policies cost."""

ESTIMATES = ("mean", "low", "high", "sd", "sd_chance", "sd_parameters")


def amounts(tree: xr.DataTree, by: str | Sequence[str] = (), daily: bool = False) -> xr.Dataset:
    """What every tally comes to, in every draw and world.

    Args:
        tree: what `counterfactual` gave.
        by: strata to keep; tallies without one of them are left out.
        daily: whether to keep days; otherwise a flow is summed over them, and a stock is taken on the last day, with
            its greatest day as `peak_<name>`.
    Returns:
        dims (chain, draw, policy, strata of `by`…), with day where it is kept; in the units of the tally.
    Raises:
        InputError: for a result without policies, or a stratum that no tally has.
    """
    check_compared(tree)
    tallies = tree["prior_predictive"].to_dataset()
    wanted = kept_by(by)
    strata = [str(d) for d in tallies.dims if d not in (*SAMPLES, WORLD, "day")]
    for stratum in wanted:
        if stratum not in strata:
            raise InputError(nearest("stratum", str(stratum), strata))
    found: dict[Hashable, xr.DataArray] = {}
    for name, tally in tallies.data_vars.items():
        if not set(wanted) <= set(map(str, tally.dims)):
            continue
        whole = tally.sum([d for d in tally.dims if d in strata and d not in wanted])
        whole.attrs = tally.attrs
        if daily:
            found[name] = whole
            continue
        if tally.attrs.get("kind") == "stock":
            found[f"peak_{name}"] = whole.max("day").assign_attrs(units=str(tally.attrs.get("units", "people")))
        found[name] = in_all(whole)
    if not found:
        raise InputError(f"no tally is counted by {' and '.join(wanted)} at once; leave one of them out")
    return xr.Dataset(found)


def check_compared(tree: object) -> None:
    """Refuse what is no result with worlds to compare."""
    if not isinstance(tree, xr.DataTree):
        raise InputError(f"{type(tree).__name__} was given in place of a result; make it with lpm.counterfactual")
    dims = tree["prior_predictive"].dims if "prior_predictive" in tree.children else ()
    if WORLD not in dims or not {*SAMPLES} <= {*dims}:
        raise InputError("this result has no policies to compare, or no draws; give that of lpm.counterfactual whole")


def kept_by(by: object) -> list[str]:
    """The strata that are kept, by name."""
    if isinstance(by, str):
        return [by]
    if not isinstance(by, Sequence) or not all(isinstance(name, str) for name in by):
        raise InputError(f"by={by!r} was given; give names of strata, such as ['age']")
    return list(by)


def contrast(
    tree: xr.DataTree,
    by: str | Sequence[str] = (),
    daily: bool = False,
    ratio: bool = False,
    level: float = 0.9,
) -> xr.Dataset:
    r"""The effect of every policy on every tally: with it less without it, or their ratio.

    Args:
        tree: what `counterfactual` gave.
        by: strata to keep.
        daily: whether to keep days.
        ratio: the quotient of the two worlds instead of their difference; NaN where there is nothing to compare with.
        level: the share of draws between `low` and `high`.
    Returns:
        dims (policy, estimate, …) with the estimates mean, low, high and sd over draws, and of the latter
        `sd_chance` and `sd_parameters`: with draws i of the parameters and R draws of chance in each,
        :math:`\sigma_c^2 = \overline{s_i^2}` and :math:`\sigma_p^2 = s^2(\bar x_i) - \sigma_c^2 / R`, NaN where they
        can't be told apart.
    Raises:
        InputError: for a result without policies, a stratum that no tally has or a level outside (0, 1).

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> tree = lpm.counterfactual(model, {"transmission": 0.0}, at=2, days=8, set={"initial_infected": 0.05})
    >>> effect = contrast(tree, by="age")["infections"].sel(policy="transmission=0@2")
    >>> effect.dims, bool(effect.sel(estimate="mean").sum() < 0)
    (('estimate', 'age'), True)
    """
    _checked(level)
    factual, others = _apart_from_factual(amounts(tree, by, daily))
    each = others / factual.where(factual != 0) if ratio else others - factual
    estimated = each.map(lambda x: _estimate(x, level))
    for name, x in others.items():
        estimated[name].attrs = {"units": "ratio" if ratio else str(x.attrs.get("units", ""))}
    return estimated


def _checked(level: float) -> None:
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0.0 < level < 1.0:
        raise InputError(f"level={level} was given; give a share between 0 and 1, such as 0.9")


def _apart_from_factual(found: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """The world in which nothing is done, and the others."""
    worlds = [str(w) for w in found[WORLD].values]
    if worlds.count(FACTUAL) != 1:
        raise InputError(f"this result has the worlds {', '.join(worlds)}; keep '{FACTUAL}', with which to compare")
    place = worlds.index(FACTUAL)
    return found.isel({WORLD: place}, drop=True), found.isel({WORLD: [k for k in range(len(worlds)) if k != place]})


def with_effects(tree: xr.DataTree) -> xr.DataTree:
    """Put into a result what its policies do: `effects`, `effects_daily`, `effects_by_<stratum>` and `costs`."""
    tree["effects"] = xr.DataTree(contrast(tree))
    tree["effects_daily"] = xr.DataTree(contrast(tree, daily=True))
    strata = tree["constant_data"].dims if "constant_data" in tree.children else ()
    for stratum in strata:
        tree[f"effects_by_{stratum}"] = xr.DataTree(contrast(tree, by=str(stratum)))
    if PRICE in tree["effects"].data_vars:
        counted = tree["prior_predictive"].to_dataset().data_vars
        averted = [str(n) for n, x in counted.items() if x.attrs.get("units") == "people per day"]
        found = amounts(tree)
        prices = xr.concat([_price(found, n, PRICE) for n in averted], xr.DataArray(averted, dims="outcome"))
        paid = prices.where(prices.sel(estimate="mean") > 0)
        tree["costs"] = xr.DataTree(paid.dropna("outcome", how="all").assign_attrs(prices.attrs))
    return tree


def _estimate(x: xr.DataArray, level: float) -> xr.DataArray:
    """The estimates over draws; what is undefined in a draw is left out."""
    if "weight" in x.coords:
        return _weighted(x, level)
    dims = [d for d in x.dims if d not in SAMPLES]
    draws = x.transpose(*SAMPLES, *dims).to_numpy().astype(float)
    draws = draws.reshape(-1, *draws.shape[2:])
    nothing = np.full(draws.shape[1:], np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what is undefined in every draw is so in all
        low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        sd = np.nanstd(draws, axis=0, ddof=1) if len(draws) > 1 else nothing
        chance, parameters = _apart(draws, x.coords["parameters"].values) if len(draws) > 1 else (nothing, nothing)
        found = np.stack([np.nanmean(draws, axis=0), low, high, sd, chance, parameters])
    coords = {name: c for name, c in x.coords.items() if not {*SAMPLES} & {*c.dims, name}}
    labelled = xr.DataArray(found, dims=("estimate", *dims), coords={**coords, "estimate": list(ESTIMATES)})
    return labelled.transpose(WORLD, "estimate", ...)


def _weighted(x: xr.DataArray, level: float) -> xr.DataArray:
    """Estimates from draws that count for more or less; what is undefined in a draw is left out with its weight."""
    weighted = x.weighted(x.coords["weight"].where(x.coords["weight"] > 0, 0.0))
    ends = ((1 - level) / 2, (1 + level) / 2)
    low, high = (weighted.quantile(q, dim=SAMPLES).drop_vars("quantile") for q in ends)
    nothing = xr.full_like(low, np.nan)
    estimates = [weighted.mean(SAMPLES), low, high, weighted.std(SAMPLES), nothing, nothing]
    parts = xr.concat(estimates, "estimate", coords="minimal", compat="override")
    return parts.assign_coords(estimate=list(ESTIMATES)).transpose(WORLD, "estimate", ...)


def _apart(draws: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The standard deviations by chance and by parameters, of draws on the first dimension."""
    groups = [draws[of == k] for k in np.unique(of)]
    nothing = np.full(draws.shape[1:], np.nan)
    replicates = min(len(g) for g in groups)
    if replicates < 2:
        return nothing, nothing
    within = np.nanmean([np.nanvar(g, axis=0, ddof=1) for g in groups], axis=0)
    if len(groups) < 2:
        return within**0.5, nothing
    between = np.nanvar([np.nanmean(g, axis=0) for g in groups], axis=0, ddof=1)
    return within**0.5, np.clip(between - within / replicates, 0.0, None) ** 0.5


def fates(tree: xr.DataTree, outcome: str, by: str | Sequence[str] = (), level: float = 0.9) -> xr.Dataset:
    r"""What a policy would have changed for whom: the probabilities of individual outcomes in two worlds at once.

    Args:
        tree: what `counterfactual` gave.
        outcome: an individual outcome, such as `infected`.
        by: strata to keep.
        level: the share of draws between `low` and `high`.
    Returns:
        dims (policy, estimate, strata…) of: `necessity`, of those who had the outcome, the share who wouldn't have
        under the policy (that it wasn't done was necessary: Pearl's probability of necessity); `sufficiency`, of those
        who hadn't, the share who would have; `averted` and `caused`, how many people those are; and
        `needed_to_treat`, people per outcome averted on balance, with NaN where none is.
    Raises:
        InputError: for an outcome or a stratum that the result hasn't.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> tree = lpm.counterfactual(model, {"transmission": 0.0}, at=2, days=10, set={"initial_infected": 0.05})
    >>> found = fates(tree, "infected", by="age").sel(policy="transmission=0@2", estimate="mean")
    >>> bool((found["averted"] >= 0).all()), float(found["caused"].sum())  # with no contacts nobody is infected instead
    (True, 0.0)
    """
    _checked(level)
    check_compared(tree)
    if "flows" not in tree.children:
        raise InputError("this result has no individual outcomes; make it with lpm.counterfactual")
    flows = tree["flows"].to_dataset()
    if outcome not in flows:
        raise InputError(nearest("outcome", str(outcome), [str(n) for n in flows.data_vars]))
    counts, wanted = flows[outcome], kept_by(by)
    strata = [str(d) for d in counts.dims if d not in (*SAMPLES, WORLD, "was", "would")]
    for name in wanted:
        if name not in strata:
            raise InputError(nearest("stratum", name, strata))
    counts = counts.sum([d for d in strata if d not in wanted])
    averted, caused = counts.sel(was="yes", would="no", drop=True), counts.sel(was="no", would="yes", drop=True)
    had = counts.sel(was="yes", drop=True).sum("would")
    hadnt = counts.sel(was="no", drop=True).sum("would")
    balance = averted - caused
    found = xr.Dataset(
        {
            "necessity": averted / had.where(had > 0),
            "sufficiency": caused / hadnt.where(hadnt > 0),
            "averted": averted,
            "caused": caused,
            "needed_to_treat": (had + hadnt) / balance.where(balance > 0),
        }
    )
    estimated = found.map(lambda x: _estimate(x.astype(float), level))
    who = str(tree.attrs.get("agents_are", "people"))
    units = {"necessity": "probability", "sufficiency": "probability", "needed_to_treat": f"{who} per outcome averted"}
    for what, x in estimated.items():
        x.attrs = {"units": units.get(str(what), who)}
    return estimated


def cost_per(
    tree: xr.DataTree, outcome: str, cost: str = PRICE, level: float = 0.9, resamples: int = 2000, seed: int = 0
) -> xr.Dataset:
    r"""What one averted outcome costs: :math:`-\overline{\Delta C} / \overline{\Delta Y}` over draws.

    Args:
        tree: what `counterfactual` gave.
        outcome: the tally to avert, such as `infections`.
        cost: the tally of what is spent, such as `payments`, in dollars.
        level: the share of bootstrap resamples of the draws between `low` and `high`.
        resamples: how many of them.
        seed: the seed of the resampling.
    Returns:
        `cost`, dims (policy, estimate) with mean, low and high, in units of cost per averted outcome; NaN where the
        policy averts nothing.
    Raises:
        InputError: for a tally that the result hasn't.

    >>> dims = ("chain", "draw", "policy", "day")
    >>> new, paid = [[[[30.0], [20.0]], [[40.0], [20.0]]]], [[[[0.0], [90.0]]] * 2]
    >>> tallies = {"infections": (dims, new), "payments": (dims, paid)}
    >>> counted = xr.Dataset(tallies, {"policy": ["as it was", "cheque"]})
    >>> tree = xr.DataTree.from_dict({"prior_predictive": counted})
    >>> float(cost_per(tree, "infections")["cost"].sel(policy="cheque", estimate="mean"))  # 90 dollars, 15 averted
    6.0
    """
    _checked(level)
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        raise InputError(f"resamples={resamples} was given; give a whole number, 1 or more")
    found = amounts(tree)
    for tally in (outcome, cost):
        if tally not in found:
            raise InputError(nearest("tally", str(tally), [str(n) for n in found.data_vars]))
    return _price(found, outcome, cost, level, resamples, seed)


def _price(
    found: xr.Dataset, outcome: str, cost: str, level: float = 0.9, resamples: int = 2000, seed: int = 0
) -> xr.Dataset:
    """What one averted outcome costs, from the amounts of every draw and world."""
    factual, others = _apart_from_factual(found[[cost, outcome]])
    difference = others - factual
    dollars, averted = (
        difference[name].transpose(WORLD, *SAMPLES).to_numpy().reshape(difference.sizes[WORLD], -1) * sign
        for name, sign in ((cost, 1), (outcome, -1))
    )
    rng = np.random.default_rng(seed)
    draws = dollars.shape[1]
    share = found.coords["weight"].to_numpy() if "weight" in found.coords else np.full(draws, 1 / draws)
    picks = rng.choice(draws, (resamples, draws), p=share)
    spent, fewer = dollars[:, picks].mean(-1), averted[:, picks].mean(-1)
    ratios = np.divide(spent, fewer, out=np.full_like(spent, np.inf), where=fewer > 0)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2], axis=-1, method="inverted_cdf")
    whole = averted @ share
    mean = np.divide(dollars @ share, whole, out=np.full(len(whole), np.nan), where=whole > 0)
    values = np.stack([mean, np.where(whole > 0, low, np.nan), np.where(whole > 0, high, np.nan)], -1)
    coords = {WORLD: difference[WORLD].values, "estimate": ["mean", "low", "high"]}
    units = f"{found[cost].attrs.get('units', '')} per averted: {outcome}"
    return xr.Dataset({"cost": ((WORLD, "estimate"), values, {"units": units})}, coords)
