"""Sensitivity: how a tally moves with each parameter, how sure that is, and how right."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from scipy import stats

from lpmppl.errors import InputError, LpmError, nearest
from lpmppl.inference.audit import AUDITED, Audit
from lpmppl.inference.checks import alone, checked, whole
from lpmppl.inference.differences import inside
from lpmppl.inference.estimation import ESTIMATORS, Estimation
from lpmppl.inference.flipping import Question
from lpmppl.inference.readings import Reading, reading_of
from lpmppl.inference.run import drawn
from lpmppl.inference.smaller import against_whole
from lpmppl.models.model import Model

__all__ = ["numbers_of", "sensitivity"]


def sensitivity(
    model: Model,
    of: str,
    wrt: str | Collection[str] = "all",
    days: int = 90,
    seed: int = 0,
    *,
    estimator: str = "auto",
    draws: int = 8,
    flips: int = 64,
    precision: float | None = None,
    tau: float = 1.0,
    step: float = 0.25,
    by: str | Sequence[str] = (),
    daily: bool = False,
    set: Mapping[str, float] | None = None,
    interventions: Sequence[tuple[str, float | str, int]] = (),
    level: float = 0.9,
    audit: bool | Model = True,
    within: Model | None = None,
) -> xr.Dataset:
    r"""The derivative of a tally's expectation with respect to parameters, with its standard error and its audit.

    Two estimators are right on any network. *Flips*, the measure-valued derivative, ask what becomes of the tally if
    one agent's chance comes out otherwise, and take all parameters from one set of them (`lpmppl.effects.handlers.
    flips`). *Differences* run the society on either side of each parameter with the same chance for everybody:

    .. math:: \frac{\partial\, \mathbb E X}{\partial \theta_k} \approx \frac1D \sum_{d=1}^D
        \frac{X_d(\theta_k^+) - X_d(\theta_k^-)}{\theta_k^+ - \theta_k^-}

    A third, *pathwise*, is right where hazards never vanish, as in a city with contacts across it: how the times of
    events move, for all parameters in one run and a pass backwards (`lpmppl.effects.handlers.pathwise`).

    By default differences are taken, but for two cases. With parameters times agents from five million, pathwise is, if
    the model is `timed` and hazards don't vanish, except for parameters that it doesn't see, such as one that a chance
    depends on. And with more than five parameters and more than one for every ten agents flips are, except for
    parameters that enter a decision of the program other than a chance, such as the length of an isolation.
    `estimator` in the result says which was taken.

    Args:
        model: the society.
        of: the tally, summed over days, or on the last day where it counts who is in a state.
        wrt: parameters by name, or "all" but those that are at an edge of their prior by default, as a share of 0.
        days: how many days.
        seed: the seed of the agents' chance.
        estimator: "auto", "differences", "pathwise", "flips"; or, for comparison, "score" for score functions, and
            "straight-through", "gumbel-softmax" and "mean-field", which are biased (`lpmppl.effects.handlers.
            relaxations`).
        draws: how many times their chance is drawn, 2 or more; the standard errors are from their spread.
        flips: how many worlds with a flip each draw has.
        precision: draw on, to 8 draws or more, until the standard error of every derivative is at most this share of
            the largest, in what they come to over days and strata, each by a standard deviation of its parameter's
            prior; a warning says where a thousand draws aren't enough.
        tau: the temperature of "gumbel-softmax".
        step: how far differences go to either side, in standard deviations of the parameter's prior, on the scale on
            which it is unbounded.
        by: strata of the tally to keep.
        daily: whether to keep days.
        set: values of parameters at which derivatives are taken; the others are at their defaults.
        interventions: `(name, value, day)`: what is done in every run.
        level: the probability that `low` to `high` holds the derivative, by Student's t over draws.
        audit: hold the five largest derivatives, and those in three random directions, against differences of other
            draws over half the step; warns where they are apart by more than a tenth and three standard errors. Above
            200,000 agents that is done where a smaller society of the same model is given here.
        within: a smaller society of the same model, of 200,000 agents or fewer, in which derivatives are taken and
            audited instead: elasticities are taken over, and multiplied by what makes them the whole one's along the
            direction in which they are steepest, where it is run on either side; errors grow by how far that is from 1.
    Returns:
        over `parameter`, with day and strata where they are kept: `value` and its standard error `se`, in units of the
        tally per unit of the parameter, `low` and `high`; `elasticity` and `elasticity_se`, the change in percent per
        percent of the parameter, NaN where there is nothing to compare with; `at`, the parameter's value; `estimator`;
        `difference` and `difference_se`, NaN where not audited. Over `direction`, likewise `along`, `along_se`,
        `along_difference` and `along_difference_se`. The attr `without_effect` names the parameters that move the tally
        in no run (by differences, alone in the first draw and with all such together in others), `cuts` where they
        enter what the estimator doesn't see, `audit_seconds` is how long the audit took. Along paths, `plateau` is the
        share of time at risk without hazard, over hazard `site`. Where the audit is of a smaller society, of
        `audited_agents`, `audited_value` and `audited_se` are the derivatives there, and they and all of the audit are
        times how many more agents there are here. Where derivatives are taken in a smaller society, of `within_agents`,
        `ratio_to_whole` is the whole one's elasticity along the steepest direction over that of the smaller one, with
        its standard error `ratio_to_whole_se`; derivatives are NaN on days and in strata of which nothing is counted
        there and something in the whole one, `unseen_cells` in number.
    Raises:
        InputError: for a tally, parameter, stratum, estimator or number that can't be used; for a parameter of whole
            numbers; for a smaller society that hasn't the same; where an estimator is asked for with a parameter that
            it doesn't see.
        LpmError: where a derivative isn't finite, or the tally has none along paths.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> found = sensitivity(model, "infections", ["beta"], days=20, draws=2, set={"initial_infected": 0.05})
    >>> bool(found["value"].sel(parameter="beta") > 0)
    True
    """
    alone("sensitivity")
    fixed, acts = checked(model, days, seed, set or {}, interventions, None, "")
    days, seed, draws, flips = int(days), int(seed), whole("draws", draws, 2), whole("flips", flips, 1)
    if not 0.0 < step < math.inf or not 0.0 < level < 1.0:
        raise InputError(f"step={step} and level={level} were given; give a step above 0 and a level between 0 and 1")
    if estimator not in ESTIMATORS:
        raise InputError(nearest("estimator", estimator, ESTIMATORS))
    if precision is not None and not (isinstance(precision, int | float) and 0.0 < precision < 1.0):
        raise InputError(f"precision={precision} was given; give a share above 0 and below 1")
    names = numbers_of(model, wrt)
    (centre,) = drawn(model, fixed, None, seed)
    # What a tally has of strata and units is read off a day, which is quicker in the smaller society.
    first = within if isinstance(within, Model) else model
    reading = reading_of(first, of, centre, days, [by] if isinstance(by, str) else list(by), daily)
    if within is not None and model.population.ranks is not None:
        raise InputError("within= was given, but ranks share the people: take it on one rank, or leave within= out")
    if within is not None and isinstance(audit, Model):
        raise InputError(
            "within= and audit= were both given a society; leave audit= out: the audit is within the first"
        )
    if within is not None and (
        not isinstance(within, Model) or within.population.everybody >= model.population.everybody
    ):
        shown = f"{within.population.everybody:,} agents" if isinstance(within, Model) else repr(within)
        raise InputError(f"within={shown} was given; give a society of fewer than {model.population.everybody:,}")
    for given, what in ((within, "within"), (audit, "audit")):
        if isinstance(given, Model):
            _check_smaller(given, what, model, reading)
    question = Question(within or model, centre, names, of, reading, days, seed, acts)
    estimation = Estimation(question, estimator, step, flips, tau)
    estimation.extend(draws)
    if precision is not None:
        estimation.sharpen(precision)
    each, typical, scale, gap = estimation.each, estimation.typical, 1.0, 0.0
    if not np.isfinite(each).all():
        bad = names[int(np.nonzero(~np.isfinite(each).all((0, 1)))[0][0])]
        raise LpmError(f"the derivative of {of} with respect to {bad} isn't finite; take it at another value")
    attrs: dict[str, object] = {}
    known = each
    if within is not None:
        whole_society = against_whole(replace(question, model=model), each, typical, within.population.everybody, step)
        unseen = ~typical.any(0) & (whole_society.base > 0)
        # What doesn't happen in the smaller society says nothing of what happens in the whole one.
        known = np.where(unseen[:, None] & each.any((0, 1)), np.nan, each)
        scale, gap, typical = whole_society.factor, whole_society.gap, whole_society.base[None]
        attrs = {
            "unseen_cells": int(unseen.sum()),
            "within_agents": within.population.everybody,
            "ratio_to_whole": whole_society.ratio,
            "ratio_to_whole_se": whole_society.ratio_se,
        }
    result = _dataset(reading, names, scale * known, typical, centre, level, gap)
    result["estimator"] = ("parameter", [estimation.estimator_of(n) for n in names])
    if plateau := estimation.plateau:
        result = result.assign_coords(site=list(plateau)).assign(plateau=("site", list(plateau.values())))
    result.attrs |= {
        "of": of,
        "days": days,
        "seed": seed,
        "draws": len(each),
        "flips": flips if estimation.by_chance == "flips" else 0,
        "step": step,
        "without_effect": [n for k, n in enumerate(names) if not each[:, :, k].any()],
        "cuts": [f"{n} at {where}" for n, where in estimation.cuts.items()],
        **attrs,
    }
    if not isinstance(audit, Model):
        checks = Audit(question, each, step / 2, draws, reading.shape, scale)
        return checks.of(result, bool(audit) and question.model.population.everybody <= AUDITED)
    began = time.perf_counter()
    smaller, size = estimation.elsewhere(audit, draws), model.population.everybody / audit.population.everybody
    there = _dataset(reading, names, size * smaller.each, smaller.typical, centre, level)
    there = Audit(smaller.question, smaller.each, step / 2, draws, reading.shape, size).of(there, True)
    kept = {n: there[n] for n in there if "difference" in str(n) or "along" in str(n)}
    here = {"audited_value": there["value"], "audited_se": there["se"]}
    return result.assign(kept | here).assign_attrs(
        audited=there.attrs["audited"],
        audited_agents=audit.population.everybody,
        audit_seconds=time.perf_counter() - began,
    )


def _check_smaller(smaller: Model, given_as: str, model: Model, reading: Reading) -> None:
    """Refuse a smaller society that is too large, or hasn't the parameters and tallies of the model."""
    if smaller.population.everybody > AUDITED:
        raise InputError(
            f"{given_as}= was given a society of {smaller.population.everybody:,} agents; give one of {AUDITED:,} or "
            "fewer"
        )
    mine, its = ({} if m.by is None else {n: list(labels) for n, labels in m.by.dims.items()} for m in (model, smaller))
    read = {n: [str(x) for x in reading.tally[n].values] for n in reading.strata}
    if set(smaller.parameters) != set(model.parameters) or not mine == its == read:
        raise InputError(
            f"{given_as}= was given the model {smaller.name} with other parameters or strata than {model.name}; give a "
            "smaller society of the same model"
        )


def _dataset(
    reading: Reading,
    names: Sequence[str],
    each: np.ndarray,
    typical: np.ndarray,
    centre: Mapping[str, float],
    level: float,
    gap: float = 0.0,
) -> xr.Dataset:
    """The derivatives of all draws, shape (D, M, P), with their spread, and a share by which they may be off."""
    draws = len(each)
    value = each.mean(0)
    se = np.hypot(each.std(0, ddof=1) / math.sqrt(draws), gap * value)
    reach = stats.t.ppf((1 + level) / 2, draws - 1) * se
    base = typical.mean(0)[:, None]
    at = np.array([centre[name] for name in names])
    scale = np.divide(at, base, out=np.full((len(base), len(at)), np.nan), where=base != 0)
    measures = {
        "value": value,
        "se": se,
        "low": value - reach,
        "high": value + reach,
        "elasticity": value * scale,
        "elasticity_se": se * np.abs(scale),
    }
    coords = {"parameter": list(names), **reading.coords}
    result = xr.Dataset(
        {name: (tuple(coords), x.T.reshape(len(names), *reading.shape)) for name, x in measures.items()}, coords
    )
    result["at"] = ("parameter", at)
    for name in ("value", "se", "low", "high"):
        result[name].attrs["units"] = f"{reading.units} per unit of the parameter"
    return result


def numbers_of(model: Model, wrt: str | Collection[str]) -> list[str]:
    """The parameters that are asked for; for "all" those that have a derivative and aren't at an edge by default.

    Raises:
        InputError: for one that there isn't, or that is a whole number.
    """
    every = isinstance(wrt, str) and wrt == "all"
    names = list(model.parameters) if every else wrt
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if every:
        names = [n for n in names if not model.parameters[n].prior.support.is_discrete and inside(model, n)]
    if not names:
        raise InputError("wrt names no parameter; give one or more, or 'all'")
    for name in names:
        if name not in model.parameters:
            raise InputError(nearest("parameter", name, model.parameters))
        if model.parameters[name].prior.support.is_discrete:
            raise InputError(f"parameter {name} is a whole number, and has no derivative; leave it out of wrt")
    return names
