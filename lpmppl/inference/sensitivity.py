"""Sensitivity: how a tally moves with each parameter, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from pyro.distributions.torch_distribution import TorchDistributionMixin
from scipy import stats
from torch.distributions import biject_to

from lpmppl.errors import InputError, nearest
from lpmppl.inference.results import in_all
from lpmppl.inference.run import checked, drawn, simulated, whole
from lpmppl.models.model import Model

__all__ = ["sensitivity"]

_PRIOR_DRAWS = 2000


def sensitivity(
    model: Model,
    of: str,
    wrt: str | Collection[str] = "all",
    days: int = 90,
    seed: int = 0,
    *,
    draws: int = 8,
    step: float = 0.25,
    by: str | Sequence[str] = (),
    daily: bool = False,
    set: Mapping[str, float] | None = None,
    interventions: Sequence[tuple[str, float | str, int]] = (),
    level: float = 0.9,
    progress: bool = False,
) -> xr.Dataset:
    r"""The derivative of a tally's expectation with respect to parameters, by differences among the same chance.

    .. math:: \frac{\partial\, \mathbb E X}{\partial \theta_k} \approx \frac1D \sum_{d=1}^D
        \frac{X_d(\theta_k^+) - X_d(\theta_k^-)}{\theta_k^+ - \theta_k^-}

    Every person has the same chance d on either side, so that most of what a single run owes to luck cancels. It is
    right on any network and for any kind of site, up to a bias of the order of the step squared. It costs 2 · draws
    runs for each parameter, and so is for a few parameters, or for small societies.

    Args:
        model: the society.
        of: the tally, summed over days, or on the last day where it counts who is in a state.
        wrt: parameters by name, or "all".
        days: how many days.
        seed: the seed of the agents' chance.
        draws: how many times their chance is drawn, 2 or more.
        step: how far to either side, in standard deviations of the parameter's prior, on the scale on which it is
            unbounded.
        by: strata of the tally to keep.
        daily: whether to keep days.
        set: values of parameters at which derivatives are taken; the others are at their defaults.
        interventions: `(name, value, day)`: what is done in every run.
        level: the probability that `low` to `high` holds the derivative, by Student's t over draws.
        progress: show a progress bar on stderr.
    Returns:
        over `parameter`, with day and strata where they are kept: `value` and its standard error `se`, in units of the
        tally per unit of the parameter, `low` and `high`; `elasticity` and `elasticity_se`, the change in percent per
        percent of the parameter, NaN where there is nothing to compare with; and `at`, the parameter's value. The attr
        `without_effect` names the parameters that move the tally in no run.
    Raises:
        InputError: for a tally, parameter, stratum or number that can't be used; for a parameter of whole numbers.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> found = sensitivity(model, "infections", ["beta"], days=20, draws=2, set={"initial_infected": 0.05})
    >>> bool(found["value"].sel(parameter="beta") > 0)
    True
    """
    fixed, acts = checked(model, days, seed, set or {}, interventions, None, "")
    days, seed, draws = int(days), int(seed), whole("draws", draws, 2)
    if not 0.0 < step < math.inf or not 0.0 < level < 1.0:
        raise InputError(f"step={step} and level={level} were given; give a step above 0 and a level between 0 and 1")
    if of not in model.tallies:
        raise InputError(nearest("tally", of, model.tallies))
    names = _parameters(model, wrt)
    wanted = [by] if isinstance(by, str) else list(by)
    (centre,) = drawn(model, fixed, None, seed)
    if wanted:  # a stratum that there isn't is said before all the runs
        _strata(simulated(model, [centre], [0], 1, seed)["prior_predictive"].to_dataset()[of], wanted)
    sides = {name: _either_side(model.parameters[name].prior, name, centre[name], step) for name in names}
    thetas = [{**centre, name: x} for name in names for x in sides[name] for _ in range(draws)]
    chances = [d for _ in names for _ in range(2) for d in range(draws)]
    found = simulated(model, thetas, chances, days, seed, acts, progress=progress)["prior_predictive"].to_dataset()[of]
    strata = _strata(found, wanted)
    found = found if daily else in_all(found)
    kept = [d for d in ("day", *strata) if d in found.dims and (d == "day" or d in wanted)]
    amounts = found.sum([d for d in strata if d not in wanted]).transpose("chain", "draw", *kept).to_numpy()[0]
    amounts = amounts.reshape(len(names), 2, draws, *amounts.shape[1:]).astype(float)
    width = np.array([sides[name][0] - sides[name][1] for name in names]).reshape(-1, *(1,) * (amounts.ndim - 2))
    at = np.array([centre[name] for name in names]).reshape(-1, *(1,) * (amounts.ndim - 3))
    each = (amounts[:, 0] - amounts[:, 1]) / width
    value, se = each.mean(1), each.std(1, ddof=1) / math.sqrt(draws)
    reach = stats.t.ppf((1 + level) / 2, draws - 1) * se
    typical = amounts.mean((1, 2))
    scale = np.divide(at, typical, out=np.full(typical.shape, np.nan), where=typical != 0)
    measures = {
        "value": value,
        "se": se,
        "low": value - reach,
        "high": value + reach,
        "elasticity": value * scale,
        "elasticity_se": se * np.abs(scale),
    }
    coords = {"parameter": names, **{d: found[d].values for d in kept}}
    dims = ("parameter", *kept)
    result = xr.Dataset({name: (dims, x) for name, x in measures.items()}, coords)
    result["at"] = ("parameter", [centre[name] for name in names])
    for name in ("value", "se", "low", "high"):
        result[name].attrs["units"] = f"{found.attrs['units']} per unit of the parameter"
    silent = [name for name, x in zip(names, amounts, strict=True) if np.array_equal(x[0], x[1])]
    return result.assign_attrs(
        of=of, days=days, seed=seed, draws=draws, step=step, estimator="common-noise differences", without_effect=silent
    )


def _strata(tally: xr.DataArray, wanted: Sequence[str]) -> list[str]:
    """The strata of a tally, those that are wanted among them."""
    strata = [str(d) for d in tally.dims if d not in ("chain", "draw", "day")]
    for stratum in wanted:
        if stratum not in strata:
            raise InputError(nearest(f"stratum of {tally.name}", stratum, strata))
    return strata


def _parameters(model: Model, wrt: str | Collection[str]) -> list[str]:
    names = list(model.parameters) if isinstance(wrt, str) and wrt == "all" else wrt
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if not names:
        raise InputError("wrt names no parameter; give one or more, or 'all'")
    for name in names:
        if name not in model.parameters:
            raise InputError(nearest("parameter", name, model.parameters))
        if model.parameters[name].prior.support.is_discrete:
            raise InputError(f"parameter {name} is a whole number, and has no derivative; leave it out of wrt")
    return names


def _either_side(prior: TorchDistributionMixin, name: str, value: float, step: float) -> tuple[float, float]:
    """The values a step above and below, within the prior's support."""
    free = biject_to(prior.support).inv
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spread = free(prior.sample((_PRIOR_DRAWS,)).double())
    middle = free(torch.tensor(value, dtype=torch.float64))
    reach = step * float(spread[torch.isfinite(spread)].std())
    above, below = (float(free.inv(middle + sign * reach).float()) for sign in (1.0, -1.0))
    if not (math.isfinite(above) and math.isfinite(below) and above > below):
        raise InputError(
            f"parameter {name}={value:g} has no room for a step of {step:g} standard deviations to either side; set "
            "it to a value inside its prior's support, or give another step"
        )
    return above, below
