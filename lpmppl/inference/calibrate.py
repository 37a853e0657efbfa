"""Calibrate: which parameters agree with what was observed, and how sure is that?"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from lpmppl.errors import InputError, nearest
from lpmppl.inference.checks import alone, checked, whole
from lpmppl.inference.differences import inside
from lpmppl.inference.ensemble import Ensemble
from lpmppl.inference.guides import GUIDES, guide_of
from lpmppl.inference.objectives import CHANCE, Counts, Loss, squared
from lpmppl.inference.observed import Observed
from lpmppl.inference.posterior import Chain, Posterior
from lpmppl.inference.predicted import Predicted
from lpmppl.inference.response import Response
from lpmppl.inference.rounds import CalibrationRounds
from lpmppl.inference.run import drawn
from lpmppl.inference.scales import Scale
from lpmppl.inference.svi import fitted, weighed
from lpmppl.models.model import Model

__all__ = ["calibrate", "fitted_names"]

_APART = 2**20
"""From which draw on everybody's chance is that of runs that nothing was learnt from."""

_AGAINST = 4
"""By how many runs at most the whole society is held against the coarse one."""

_AWAY = 0.5
"""How far from each other restarts begin, in standard deviations of the priors."""


def calibrate(
    model: Model,
    data: Any,
    until: str | int | None = None,
    *,
    parameters: Collection[str] | str = "all",
    unseen: Collection[str] = (),
    set: Mapping[str, float] | None = None,
    interventions: Sequence[tuple[str, float | str, int]] = (),
    coarse: Model | None = None,
    rows: int | None = None,
    rounds: int = 5,
    guide: str = "multivariate-normal",
    loss: str | Loss | None = None,
    weight: float = 1.0,
    misfit: float = 0.0,
    before: xr.DataTree | None = None,
    steps: int = 200,
    restarts: int = 2,
    draws: int = 500,
    simulations: int = 8,
    ahead: int = 0,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> xr.DataTree:
    r"""The posterior of a model's parameters given counts that were observed, by variational inference on its runs.

    Runs about where one is, in pairs on either side with the same chance, teach how the expected counts follow the
    parameters there (`lpmppl.inference.response`), with what chance adds; a step goes to where the observed counts are
    more probable, and so on. About the last point a guide is fitted, by Pyro's SVI,

    .. math:: q = \arg\min_q \mathrm{KL}\big(q(\theta, \epsilon) \,\|\, p(\theta, \epsilon \mid y)\big), \qquad
        y_c \sim \mathrm{NegBin}(m_c(\theta, \epsilon))

    so that the society's own chance is in the likelihood, not in the distance to it: a squared distance between runs
    and data penalises what a run varies by, and has a posterior that is wrong (docs/calibration.md).

    Args:
        model: the society.
        data: counts by name, such as "deaths": an xarray Dataset over `day` and strata of the model, a pandas DataFrame
            with a row for each day, or a mapping of series from day 0 on; NaN where a day wasn't seen.
        until: the last day that is fitted, an ISO date or a number.
        parameters: those that are fitted, or "all" but those that are at an edge of their prior by default.
        unseen: those of which the data say nothing, such as what comes after them: they keep their priors.
        set: values of parameters that aren't fitted; the others are at their defaults.
        interventions: `(name, value, day)`: what was done.
        coarse: the same model of fewer agents, for the rounds; then how the whole society differs is measured, and made
            up for.
        rows: how many runs a round has; by default four for each parameter and 64 at least.
        rounds: how many rounds at most.
        guide: "multivariate-normal"; "normal", which is too narrow where parameters depend on each other; "iaf" or
            "spline", flows.
        loss: in place of the probability of the counts, a loss between expected and observed ones by stream, of shapes
            (…, T, K) and (T, K), so that :math:`\mathbb E_q\, \ell + w\, \mathrm{KL}(q \| \pi)` is minimised; or
            "squared", of which a warning says what it does.
        weight: w.
        misfit: how far the model itself may be off, smooth in time and alike in all strata, as a standard deviation in
            logarithms: 0.1 lets it be a tenth, and widens posterior and bands by what that can explain.
        before: an earlier posterior of the model, such as one of fewer weeks, from which to go on; the result says how
            far it has moved since.
        steps: how many gradient steps each fit has.
        restarts: how many fits there are, from different points, as chains.
        draws: how many draws of each.
        simulations: how many runs of the whole society are made at draws of the posterior.
        ahead: how many days these go on after the last that is fitted.
        seed: the seed of all chance.
        checkpoint: a file to keep every round in.
        resume: go on from there.
        progress: is told in words what is done next.
    Returns:
        a DataTree that ArviZ reads, with the groups `posterior`, `prior`, `posterior_predictive`, `observed_data`,
        `log_likelihood` and `sample_stats`; `predictions`, all tallies of the runs at draws of the posterior; `fit`,
        the losses and the rounds. What checks say of it in words is in its attrs as `verdict`.
    Raises:
        InputError: for data, a name or number that can't be used.
        LpmError: where the fit has no beginning, or diverges at once.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> quick = {"rounds": 1, "rows": 12, "steps": 20, "restarts": 1, "simulations": 2, "draws": 50}
    >>> data = {"infections": [9, 12, 14, 19]}
    >>> fit = calibrate(model, data, parameters=["beta"], set={"initial_infected": 0.03}, **quick)
    >>> dict(fit["posterior"]["beta"].sizes)
    {'chain': 1, 'draw': 50}
    """
    alone("a calibration")
    began = time.perf_counter()
    if guide not in GUIDES:
        raise InputError(nearest("guide", str(guide), GUIDES))
    if not isinstance(model, Model):
        raise InputError(f"a model is needed, but {type(model).__name__} was given")
    observed = Observed.of(model, data, until)
    fixed, acts = checked(model, observed.days + int(ahead), seed, set or {}, interventions, None, "")
    restarts, draws = whole("restarts", restarts, 1), whole("draws", draws, 10)
    steps = whole("steps", steps, 10)
    simulations, ahead = whole("simulations", simulations, 2), whole("ahead", ahead, 0)
    lost = _loss(loss, weight)
    if isinstance(misfit, bool) or not isinstance(misfit, int | float) or not 0 <= misfit < math.inf:
        raise InputError(f"misfit={misfit!r} was given; give a number, 0 or more, such as 0.1")
    still = Scale(model, fitted_names(model, unseen, fixed) if unseen else ())
    scale = Scale(model, [n for n in fitted_names(model, parameters, fixed) if n not in still.names])
    if not len(scale):
        raise InputError(f"unseen={list(unseen)} leaves no parameter to be fitted; name fewer")
    rows = max(64, 4 * len(scale)) if rows is None else whole("rows", rows, 2 * len(scale) + 2)
    small = model if coarse is None else _like(model, coarse)
    (rest,) = drawn(model, fixed, None, int(seed))
    tag = json.dumps(
        [model.name, small.population.everybody, acts, observed.days, np.nan_to_num(observed.counts, nan=-1.0).tolist()]
    )
    path = None if checkpoint is None else Path(checkpoint)
    ensemble = Ensemble(small, observed, int(seed), acts, people=model.population.everybody)
    looking = CalibrationRounds(
        ensemble,
        scale,
        rest,
        rows + rows % 2,
        int(seed),
        path,
        tag,
        resume,
        _start(before, model, scale),
        lost,
        float(misfit),
    )
    most = whole("rounds", rounds, 1)
    progress(f"round 1 of {most} at most, of {looking.rows} runs")
    response = looking.go(most, lambda k: progress(f"round {k + 1} of {most} at most") if k < most else None)
    seconds = {"rounds": time.perf_counter() - began}

    agents = model.population.everybody
    gap = np.zeros_like(response.level)
    city = Ensemble(model, observed, int(seed), acts)
    if coarse is not None:
        progress("how the whole society differs")
        objective = looking.aim(response, agents)
        response, gap = _against(
            response, city, objective, looking.centres[-1], rest, max(2, min(_AGAINST, simulations // 2))
        )
    seconds["whole"] = time.perf_counter() - began - sum(seconds.values())

    progress("fitting the guide")
    objective = looking.aim(response, agents)
    chains = [_chain(objective, guide, looking.centres[-1], (steps, draws), int(seed), k) for k in range(restarts)]
    seconds["guide"] = time.perf_counter() - began - sum(seconds.values())

    progress(f"{simulations} runs at draws of the posterior")
    further = Ensemble(model, observed, int(seed), acts, observed.days + ahead)
    loose = still.drawn(restarts * draws, int(seed) + 1).reshape(restarts, draws, -1)
    each = -(-simulations // restarts)
    picked = [(k % restarts, (k // restarts) * draws // each) for k in range(simulations)]
    thetas = [
        {**rest, **fit, **other}
        for fit, other in zip(
            scale.values(torch.stack([chains[c].u[d] for c, d in picked])),
            still.values(torch.stack([loose[c, d] for c, d in picked])),
            strict=True,
        )
    ]
    lacks = response.lacking(torch.stack([chains[c].epsilon[d] for c, d in picked]))
    predicted = Predicted.of(further, thetas, _APART * 2, lacks)
    seconds["simulations"] = time.perf_counter() - began - sum(seconds.values())
    return Posterior(objective, chains, (still, loose), predicted, gap, before).tree(
        looking,
        {
            "guide": guide,
            "misfit": float(misfit),
            "seed": int(seed),
            "interventions": json.dumps(acts),
            "runs": ensemble.runs,
            "coarse_agents": small.population.everybody,
            "seconds_by_part": json.dumps({k: round(v, 2) for k, v in seconds.items()}),
            "seconds": time.perf_counter() - began,
            "set": json.dumps({n: x for n, x in rest.items() if n not in (*scale.names, *still.names)}),
        },
    )


def _loss(loss: str | Loss | None, weight: float) -> tuple[Loss, float] | None:
    """The loss and its weight, with a word of warning where it is squared."""
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise InputError(f"weight={weight!r} was given; give a number above 0")
    if loss is None:
        return None
    if isinstance(loss, str):
        if loss != "squared":
            raise InputError(
                f"loss={loss!r} was given; give 'squared', a function of expected and observed counts, or none"
            )
        warnings.warn(
            "a squared loss doesn't have the parameters' posterior: it weighs days by the square of their counts, "
            "whatever these vary by, and penalises the society's own chance; leave loss= out for their probability",
            stacklevel=3,
        )
        return squared, float(weight)
    if not callable(loss):
        raise InputError(
            f"loss={loss!r} was given; give 'squared', a function of expected and observed counts, or none"
        )
    return loss, float(weight)


def _start(before: xr.DataTree | None, model: Model, scale: Scale) -> np.ndarray | None:
    """Where an earlier posterior has its mean, on the parameters' scale."""
    if before is None:
        return None
    if not isinstance(before, xr.DataTree) or "posterior" not in before.children:
        raise InputError("before= is no DataTree with a group 'posterior'; give what an earlier calibration gave")
    if (of := str(before.attrs.get("model", model.name))) != model.name:
        raise InputError(f"before= is a posterior of '{of}', and this is '{model.name}': give one of the same model")
    found = before["posterior"].to_dataset()
    values = {n: torch.tensor([scale.at(n) if n not in found else float(found[n].mean())]) for n in scale.names}
    start = scale.points(values)[0].numpy()
    if not np.isfinite(start).all():
        raise InputError("before= has parameters that can't be by the model's priors; give a posterior of this model")
    return np.asarray(start)


def fitted_names(model: Model, parameters: Collection[str] | str, fixed: Mapping[str, float]) -> list[str]:
    """The parameters that are fitted, in the model's order; for "all" but those that are at an edge by default."""
    names = (
        [name for name in model.parameters if inside(model, name)]
        if parameters == "all"
        else [parameters]
        if isinstance(parameters, str)
        else list(parameters)
    )
    for name in names:
        if name not in model.parameters:
            raise InputError(nearest("parameter", str(name), model.parameters))
        if name in fixed and parameters != "all":
            raise InputError(f"parameter {name} is to be fitted and is set to {fixed[name]:g}: leave one of them out")
    left = [name for name in model.parameters if name in names and name not in fixed]
    if not left:
        raise InputError("no parameter is left to be fitted; name one or set fewer")
    return left


def _like(model: Model, coarse: Model) -> Model:
    """The coarse model, if it is the same but for its people."""
    if not isinstance(coarse, Model) or list(coarse.parameters) != list(model.parameters) or coarse.name != model.name:
        raise InputError("coarse= isn't the same model of fewer people: make it in the same way as the model")
    mine, its = ({} if m.by is None else {d: list(x) for d, x in m.by.dims.items()} for m in (model, coarse))
    if mine != its:
        raise InputError(
            f"coarse= has the strata {list(its)}, the model {list(mine)}, or other labels: give it the same"
        )
    if getattr(coarse, "start", "") != getattr(model, "start", ""):
        raise InputError("coarse= starts on another day than the model: give it the same start")
    return coarse


def _chain(objective: Counts, guide: str, centre: np.ndarray, size: tuple[int, int], seed: int, number: int) -> Chain:
    """One restart: a fit from a point of its own, and draws from it."""
    steps, draws = size
    generator = torch.Generator().manual_seed((seed * 1000 + number) % 2**63)
    scale, here = objective.scale, torch.from_numpy(centre)
    away = torch.randn(len(scale), generator=generator, dtype=torch.float64) * (_AWAY if number else 0.0)
    at, covariance = objective.mode(torch.cat([here + away, here.new_zeros(objective.factors)]))
    mode, width = scale.unbounded(at)
    begun = guide_of(guide, objective, mode, covariance * width * width[:, None], seed + number)
    found = fitted(objective, begun, steps, seed + number)
    values, joint, weight = weighed(objective, found.guide, draws, seed + _APART + number)
    u = scale.points({n: values[n] for n in scale.names})
    return Chain(u, values[CHANCE], joint, weight, found)


def _against(
    response: Response, city: Ensemble, objective: Counts, centre: np.ndarray, rest: Mapping[str, float], runs: int
) -> tuple[Response, np.ndarray]:
    """The response of the whole society, by runs of it at draws of the posterior, and how its level differs."""
    here = torch.from_numpy(centre)
    at, covariance = objective.mode(torch.cat([here, here.new_zeros(objective.factors)]))
    generator = torch.Generator().manual_seed(city.seed)
    normal = torch.randn(runs, len(at), generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    u = (at + normal)[:, : len(here)]
    means, _, _ = city([{**rest, **x} for x in objective.scale.values(u)], [_APART + k for k in range(runs)])
    gap = response.departure(city.observed, u.numpy(), means, city.model.population.everybody)
    return response.moved(gap), gap
