"""Calibrate a small society exactly: the posterior given each day's number of events, by runs that have just these."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping, Sequence

import xarray as xr

from lpmppl.effects.handlers.guided import Guided, Observations
from lpmppl.effects.handlers.stratified import told
from lpmppl.inference.calibrate import fitted_names
from lpmppl.inference.checks import alone, checked, whole
from lpmppl.inference.importance import conditioned
from lpmppl.inference.posterior import parameters_of
from lpmppl.inference.run import drawn
from lpmppl.inference.scales import Scale
from lpmppl.inference.seen import by_stratum, dataset
from lpmppl.models.model import Model

__all__ = ["calibrate_exactly"]

_KHAT, _FEW = 0.7, 50.0


def calibrate_exactly(
    model: Model,
    observed: Observations,
    evaluations: int = 1000,
    *,
    parameters: Collection[str] | str = "all",
    set: Mapping[str, float] | None = None,
    interventions: Sequence[tuple[str, float | str, int]] = (),
    draws: int = 1000,
    seed: int = 0,
) -> xr.DataTree:
    r"""The posterior of parameters given the number of events of each day, without any approximation of the society.

    Each of many runs has exactly the numbers that were seen, and a weight whose mean is their probability (handler
    `Guided`); weights of adaptively chosen parameters are those of their posterior:

    .. math:: p(\theta \mid k_1, \dots, k_T) \propto \pi(\theta)\, \mathbb E\big[w \mid \theta\big]

    It is for some thousands of agents, and is right where few begin an outbreak, which `calibrate` isn't.

    Args:
        model: the society.
        observed: by hazard site, such as "infection", the number of events on each day from the first on, NaN where it
            wasn't seen, or how many were `Reported`, of which the share may be a parameter's name; or those of each
            stratum, as an xarray DataArray over `day` and strata of the model.
        evaluations: how many runs.
        parameters: those that are fitted, or "all".
        set: values of parameters that aren't; the others are at their defaults.
        interventions: `(name, value, day)`: what was done.
        draws: how many draws of the posterior are made of the weights.
        seed: the seed of all chance.
    Returns:
        a DataTree with the groups `posterior` and `prior` (chain, draw), `observed_data` (day), and `sample_stats`, the
        weights of the points (evaluation). Its attrs have `effective`, the effective number of runs, `khat`, and the
        `verdict` in words.
    Raises:
        InputError: for a series, site, parameter or number that can't be used.
        LpmError: where no run could be as was seen.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> held = {"gamma": 0.125, "initial_infected": 0.02}
    >>> fit = calibrate_exactly(model, {"infection": [4, 6, 5]}, evaluations=100, set=held, draws=200)
    >>> list(fit["posterior"].data_vars), fit["posterior"].sizes["draw"]
    (['beta'], 200)
    """
    alone("a calibration")
    began = time.perf_counter()
    series = Guided(by_stratum(model, observed)).observations
    days = max(1, *(len(counts) for counts in series.values()))
    fixed, acts = checked(model, days, seed, set or {}, interventions, None, "")
    draws = whole("draws", draws, 1)
    scale = Scale(model, fitted_names(model, parameters, fixed))
    (rest,) = drawn(model, fixed, None, int(seed))
    found = conditioned(model, scale, rest, series, days, evaluations, int(seed), acts)
    groups = {
        "posterior": parameters_of(model, scale, found.drawn(draws, int(seed))[None]),
        "prior": parameters_of(model, scale, scale.drawn(1000, int(seed))[None]),
        "observed_data": dataset(observed, series, days),
        "sample_stats": xr.Dataset({"log_weight": ("evaluation", found.log_weights.numpy())}),
    }
    attrs = {
        "agents": model.population.everybody,
        "days": days,
        "model": model.name,
        "seed": int(seed),
        "interventions": json.dumps(acts),
        **told(series),
        "set": json.dumps({n: x for n, x in rest.items() if n not in scale.names}),
        "runs": len(found.log_weights),
        "effective": found.effective,
        "khat": found.khat,
        "seconds": time.perf_counter() - began,
        "verdict": json.dumps(_said(found.effective, found.khat), ensure_ascii=False),
    }
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs), **groups})


def _said(effective: float, khat: float) -> list[str]:
    """What the weights say of themselves."""
    said = []
    if effective < _FEW:
        said.append(f"the posterior rests on {effective:.0f} runs: give more evaluations=")
    else:
        said.append(f"the runs are worth {effective:.0f} independent ones of the posterior")
    if khat > _KHAT:
        said.append(f"too confident: few runs carry the weight (Pareto k-hat {khat:.2f}): give more evaluations=")
    else:
        said.append(f"the weights can be trusted (Pareto k-hat {khat:.2f})")
    return said
