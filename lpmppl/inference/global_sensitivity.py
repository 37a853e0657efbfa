"""Global sensitivity: which parameters matter over the whole of their priors, by derivatives of independent draws."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.inference.checks import alone, checked, whole
from lpmppl.inference.differences import differences, either_side
from lpmppl.inference.flipping import Question
from lpmppl.inference.readings import reading_of
from lpmppl.inference.run import drawn
from lpmppl.inference.sensitivity import numbers_of
from lpmppl.models.model import Model

__all__ = ["global_sensitivity"]


def global_sensitivity(
    model: Model,
    of: str,
    wrt: str | Collection[str] = "all",
    days: int = 90,
    seed: int = 0,
    *,
    points: int = 32,
    step: float = 0.25,
    set: Mapping[str, float] | None = None,
    interventions: Sequence[tuple[str, float | str, int]] = (),
) -> xr.Dataset:
    r"""How much each parameter matters over the whole of its prior: the derivative-based global measure.

    .. math:: \nu_k = \mathbb E_\theta \left(\frac{\partial\, \mathbb E X}{\partial z_k}\right)^2, \qquad
        S_k^{tot} \le \frac{\nu_k}{\operatorname{Var}_\theta \mathbb E X}

    with z_k the parameter on the scale on which it is unbounded, in standard deviations of its prior. The square of an
    estimate would be too great by its variance: ν is the mean product of two estimates with independent chance, and
    the variance likewise the covariance of two runs. The bound on the total Sobol index holds where z is normal, as for
    log-normal priors (Sobol' and Kucherenko, Mathematics and Computers in Simulation 79, 2009, 3009).

    Args:
        model: the society.
        of: the tally, summed over days, or on the last day where it counts who is in a state.
        wrt: parameters by name, or "all"; they are drawn from their priors, the others stay at their defaults.
        days: how many days.
        seed: the seed of the parameters' draws and of the agents' chance.
        points: how many draws of the parameters, 2 or more.
        step: how far differences go to either side, in standard deviations of the prior.
        set: values of parameters that aren't in `wrt`.
        interventions: `(name, value, day)`: what is done in every run.
    Returns:
        over `parameter`: `measure` and its standard error `se`, in the tally's units squared; `bound` and `bound_se`,
        the measure over the variance. The attr `variance` is that of the tally's expectation over the priors.
    Raises:
        InputError: for a tally, parameter or number that can't be used, or a parameter both set and asked for.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> found = global_sensitivity(model, "infections", ["beta"], days=10, points=2, set={"initial_infected": 0.05})
    >>> found["measure"].dims
    ('parameter',)
    """
    alone("global_sensitivity")
    fixed, acts = checked(model, days, seed, set or {}, interventions, None, "")
    days, seed, points = int(days), int(seed), whole("points", points, 2)
    if not 0.0 < step < math.inf:
        raise InputError(f"step={step} was given; give a step above 0")
    names = numbers_of(model, wrt)
    if twice := [n for n in names if n in fixed]:
        raise InputError(f"parameter {twice[0]} is set and asked for; leave it out of set or of wrt")
    (centre,) = drawn(model, fixed, None, seed)
    thetas = [{**centre, **{n: theta[n] for n in names}} for theta in drawn(model, fixed, points, seed)]
    reading = reading_of(model, of, centre, days)
    slopes, levels = np.zeros((points, 2, len(names))), np.zeros((points, 2))
    for k, theta in enumerate(thetas):
        question = Question(model, theta, names, of, reading, days, seed, acts)
        ways = [either_side(model, theta, {n: 1.0}, step) for n in names]
        found, middle = differences(question, [2 * k, 2 * k + 1], ways)
        slopes[k], levels[k] = found[:, :, 0], middle[:, 0]
    products = slopes[:, 0] * slopes[:, 1]
    measure, se = products.mean(0), products.std(0, ddof=1) / math.sqrt(points)
    variance = float(np.cov(levels[:, 0], levels[:, 1])[0, 1])
    over = 1.0 / variance if variance > 0 else math.nan
    result = xr.Dataset(
        {
            "measure": ("parameter", measure),
            "se": ("parameter", se),
            "bound": ("parameter", measure * over),
            "bound_se": ("parameter", se * over),
        },
        {"parameter": names},
    )
    for name in ("measure", "se"):
        result[name].attrs["units"] = f"({reading.units})²"
    return result.assign_attrs(of=of, days=days, seed=seed, points=points, step=step, variance=variance)
