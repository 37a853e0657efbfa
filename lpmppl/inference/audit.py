"""The audit: an estimate of derivatives, held against differences of other draws of everybody's chance."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from lpmppl.errors import InputError
from lpmppl.inference.differences import Way, chances, differences, either_side, either_value, slope
from lpmppl.inference.flipping import Question
from lpmppl.models.model import Model

__all__ = ["AUDITED", "Audit", "are_apart", "audit"]

AUDITED = 200_000
"""The most agents with whom an estimate is audited."""

_LARGEST, _DIRECTIONS = 5, 3
"""How many of the largest derivatives are audited, and along how many random directions."""

_OFF, _ERRORS = 0.1, 3.0
"""By what share of the one, and by how many standard errors, the two must be apart for a warning."""


def audit(
    model: Model, of: str, wrt: str | Collection[str] = "all", days: int = 90, seed: int = 0, **options: Any
) -> xr.Dataset:
    """An estimate of derivatives beside central differences of other draws of everybody's chance, over half the step.

    Args:
        model: the society, of 200,000 agents or fewer.
        of: the tally.
        wrt: parameters by name, or "all"; the five with the largest derivatives are audited.
        days: how many days.
        seed: the seed of the agents' chance.
        options: what else `lpmppl.sensitivity` takes, such as `estimator`.
    Returns:
        over the audited `parameter`: `value`, `se`, `difference`, `difference_se` and their `ratio`, with its standard
        error `ratio_se`; over three random `direction`s `along`, `along_se`, `along_difference` and
        `along_difference_se`; with days and strata where they are kept.
    Raises:
        InputError: as `lpmppl.sensitivity` does, and for more than 200,000 agents.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> audit(model, "infections", "beta", 10, draws=2, set={"initial_infected": 0.05})["ratio"].dims
    ('parameter',)
    """
    from lpmppl.inference.sensitivity import sensitivity

    if model.population.everybody > AUDITED:
        raise InputError(
            f"{model.population.everybody:,} agents are too many for an audit; take the model of {AUDITED:,} or fewer"
        )
    found = sensitivity(model, of, wrt, days, seed, **{**options, "audit": True})
    kept = found.sel(parameter=found.attrs["audited"]).drop_vars(("low", "high", "elasticity", "elasticity_se", "at"))
    kept["ratio"] = kept["value"] / kept["difference"]
    relative = (kept["se"] / kept["value"]) ** 2 + (kept["difference_se"] / kept["difference"]) ** 2
    kept["ratio_se"] = abs(kept["ratio"]) * relative**0.5
    return kept


def are_apart(value: Any, against: Any, error: Any, draws: int) -> np.ndarray:
    """Whether derivatives are further from those they are held against than a tenth and than chance explains.

    Args:
        value: derivatives, a number or an array.
        against: what they are held against.
        error: the standard error of the difference.
        draws: how many draws that is from.
    """
    # What is as rare with so few draws as three standard errors are with many.
    far = float(stats.t.ppf(stats.norm.cdf(_ERRORS), draws - 1))
    return np.abs(value - against) > np.maximum(_OFF * np.abs(against), far * error)


@dataclass(frozen=True)
class Audit:
    """An estimate, held against differences of other draws.

    Args:
        question: what was asked.
        each: derivatives of every draw, shape (D, M, P), over all parameters of the question.
        step: the step of differences.
        draws: how many draws differences have.
        shape: what M unfolds to.
        scale: what derivatives are multiplied by, those of the estimate and those that it is held against.
    """

    question: Question
    each: np.ndarray
    step: float
    draws: int
    shape: tuple[int, ...]
    scale: float = 1.0

    def of(self, result: xr.Dataset, wanted: bool) -> xr.Dataset:
        """Put the audit beside the result; not a number where there is none."""
        nothing = np.full(result["value"].shape, np.nan)
        found = result.assign(
            difference=(result["value"].dims, nothing.copy()), difference_se=(result["value"].dims, nothing.copy())
        )
        for name in ("difference", "difference_se"):
            found[name].attrs["units"] = result["value"].attrs["units"]
        if not wanted:
            return found.assign_attrs(audited=[])
        began = time.perf_counter()
        model, centre, names, mine = self.question.model, self.question.theta, self.question.names, self.each
        slopes = np.array([slope(model, centre, n) for n in names])
        size = np.abs(mine.mean(0).sum(0) * slopes)
        order = np.argsort(-size)[:_LARGEST]
        chosen = [names[k] for k in order if size[k] > 0]
        signs = np.random.default_rng(self.question.seed).choice([-1.0, 1.0], (_DIRECTIONS, len(names)))
        directions = signs / math.sqrt(len(names))
        ways: list[Way] = [either_value(model, centre, n, self.step) for n in chosen]
        ways += [either_side(model, centre, dict(zip(names, d.tolist(), strict=True)), self.step) for d in directions]
        others = self.scale * differences(self.question, list(chances(self.draws, apart=1)), ways)[0]
        value, se = others.mean(0), others.std(0, ddof=1) / math.sqrt(self.draws)
        for k, name in enumerate(chosen):
            found["difference"].loc[{"parameter": name}] = value[k].reshape(self.shape)
            found["difference_se"].loc[{"parameter": name}] = se[k].reshape(self.shape)
        along = self.scale * np.einsum("dmp,kp->dkm", mine, directions * slopes)
        rest = slice(len(chosen), None)
        kept = tuple(d for d in result["value"].dims if d != "parameter")
        unfolded = (_DIRECTIONS, *self.shape)
        measures = {
            "along": along.mean(0),
            "along_se": along.std(0, ddof=1) / math.sqrt(len(along)),
            "along_difference": value[rest],
            "along_difference_se": se[rest],
        }
        found = found.assign({n: (("direction", *kept), x.reshape(unfolded)) for n, x in measures.items()})
        self._warn(found, chosen)
        return found.assign_attrs(audited=chosen, audit_seconds=time.perf_counter() - began)

    def _warn(self, found: xr.Dataset, chosen: Sequence[str]) -> None:
        """Say where the two are apart, in what they come to over days and strata."""
        pairs = [(f"with respect to {n}", found.sel(parameter=n), "value", "difference") for n in chosen]
        pairs += [
            ("along a random direction", found.isel(direction=k), "along", "along_difference")
            for k in range(_DIRECTIONS)
        ]
        for which, here, mine, other in pairs:
            value, against = float(here[mine].sum()), float(here[other].sum())
            errors = here["se" if mine == "value" else "along_se"], here[f"{other}_se"]
            error = math.sqrt(sum(float((e**2).sum()) for e in errors))
            if are_apart(value, against, error, self.draws):
                errors_apart = abs(value - against) / error if error else math.inf
                warnings.warn(
                    f"the derivative {which} is {value:.4g}, but {against:.4g} by differences of other draws over half "
                    f"the step, {errors_apart:.1f} standard errors apart; take more draws, a smaller step or "
                    "estimator='differences'",
                    stacklevel=4,
                )
