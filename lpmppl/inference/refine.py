"""Policy search by gradient: the amounts of one plan, bettered as long as the slope is audited."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from scipy import stats

from lpmppl.errors import InputError, nearest
from lpmppl.inference.audit import are_apart
from lpmppl.inference.checks import checked, setting, whole
from lpmppl.inference.policies import WORLD, Policy, policies
from lpmppl.inference.search import Objective, Trial, check_aim, search
from lpmppl.models.model import Model

__all__ = ["refine"]

_LENGTHS = (0.4, 0.2, 0.1, 0.05)
"""How far along the slope plans are tried, in shares of the amounts' ranges."""

_LEVEL = 0.9
"""How sure it must be that a slope isn't level."""


def refine(
    model: Model,
    plan: Any,
    objective: Objective,
    within: Mapping[str, tuple[float, float]],
    at: int | None = None,
    days: int = 90,
    seed: int = 0,
    *,
    budget: float | None = None,
    cost: str = "payments",
    draws: int = 8,
    rounds: int = 6,
    step: float = 0.1,
    set: Mapping[str, float] | None = None,
    interventions: Sequence[tuple[str, float | str, int]] = (),
) -> xr.Dataset:
    r"""Better the amounts of a plan step by step down the slope of an outcome, within a budget, as far as that is sure.

    The slope by an amount :math:`a_k` is that of differences among the same people with the same chance,
    :math:`(Y(a + h e_k) - Y(a - h e_k)) / 2h`, averaged over draws. Every round holds it against differences over half
    the step with chance of its own, and ends where the two are further apart than a tenth and three standard errors, or
    where no amount has a slope that is clear of zero. Else plans at four lengths down the slope, projected on the
    ranges and on the budget, whose slope is found alike, are tried with the same chance, and the best of them is the
    next, if it is better. Last, all of these, with the first plan and doing nothing, are compared by
    `search` with chance that none of them was chosen by.

    Args:
        model: the society.
        plan: one policy, as `counterfactual` takes it, of acts with amounts, such as `{"transmission": 0.5}` or
            `[("stimulus", 500.0, 30), …]`.
        objective: the tally whose sum over days is to be least, or a function as `search` takes it.
        within: the least and the greatest amount, by what the acts set.
        at: the day of amounts that come without.
        days: how many days.
        seed: the seed of all chance.
        budget: the most that a plan may cost on average, in units of the tally `cost`; None for any.
        cost: the tally of what is spent, over doing nothing.
        draws: draws of chance for each slope, and again for its audit, 2 or more.
        rounds: the most rounds, 1 or more.
        step: how far differences go to either side, as a share of an amount's range, above 0 and at most 0.5.
        set: values of parameters, by name.
        interventions: `(name, value, day)`: what is done whatever the plan.
    Returns:
        what `search` returns, with every plan's amount in `amount` over `policy` and `act`, and over `act` the `slope`
        where it ended, in the objective per unit, `slope_se`, and the audit's `audit_slope` and `audit_slope_se`. The
        attr `ended` says why it did, `rounds` after how many.
    Raises:
        InputError: for a plan without amounts or of several policies, a range that isn't one or lacks, or a number that
            can't be used.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> at = {"initial_infected": 0.05}
    >>> found = refine(model, {"transmission": 0.6}, "infections", {"transmission": (0.2, 1.0)}, 3, 15, draws=3, set=at)
    >>> found.attrs["best"]
    'transmission=0.2@3'
    """
    policy = _one(plan, at)
    fixed, acts = checked(model, days, seed, set or {}, interventions, 1, "")
    draws, rounds = whole("draws", draws, 2), whole("rounds", rounds, 1)
    if not (isinstance(step, int | float) and 0.0 < step <= 0.5):
        raise InputError(f"step={step!r} was given; give a share of the ranges above 0 and at most 0.5")
    if not isinstance(within, Mapping):
        raise InputError(f"within={within!r} was given; give the least and the greatest amount by what the acts set")
    check_aim(model, objective, budget, cost)
    low, high = _ranges(model, policy, within)
    trial = Trial(model, fixed, acts, int(days), int(seed), objective, cost)
    down = _Slopes(trial, policy, low, high, draws)
    here, tried = down.amounts, [down.amounts]
    while True:
        slope, error, price = down.slope(here, step, range(draws))
        audit, audit_error, _ = down.slope(here, step / 2, range(draws, 2 * draws))
        if ended := _unsure(slope, error, audit, audit_error, draws):
            break
        if len(tried) > rounds:
            ended = "as many rounds as were asked for"
            break
        following = down.further(here, slope, price, budget)
        if following is None:
            ended = "no plan down the slope is better"
            break
        here = following
        tried.append(here)
    candidates = {p.name: p for p in (down.plan(z) for z in tried)}
    options: dict[str, Any] = {"budget": budget, "cost": cost, "set": fixed, "interventions": acts}
    found = search(model, list(candidates.values()), objective, None, days, seed + 1, first=draws, **options)
    amounts = np.full((found.sizes[WORLD], len(policy.acts)), np.nan)
    for k, name in enumerate(found[WORLD].values):
        if name in candidates:
            amounts[k] = [a.value for a in candidates[name].acts]
    slopes = {"slope": slope, "slope_se": error, "audit_slope": audit, "audit_slope_se": audit_error}
    found = found.assign_coords(act=[f"{a.name}@{str(a).partition('@')[2]}" for a in policy.acts])
    found = found.assign(
        {"amount": ((WORLD, "act"), amounts)} | {n: ("act", x / (high - low)) for n, x in slopes.items()}
    )
    return found.assign_attrs(ended=ended, rounds=len(tried) - 1)


@dataclass
class _Slopes:
    """The plan's amounts in shares of their ranges, and how what it comes to moves with them."""

    trial: Trial
    policy: Policy
    low: np.ndarray
    high: np.ndarray
    draws: int

    @property
    def amounts(self) -> np.ndarray:
        return (np.array([float(a.value) for a in self.policy.acts]) - self.low) / (self.high - self.low)  # type: ignore[arg-type]

    def plan(self, z: np.ndarray) -> Policy:
        values = self.low + z * (self.high - self.low)
        acts = tuple(replace(a, value=float(f"{x:.6g}")) for a, x in zip(self.policy.acts, values, strict=True))
        return Policy(", ".join(map(str, acts)), acts)

    def slope(self, z: np.ndarray, step: float, chances: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The slopes of the objective with their standard errors, and those of the cost, each of shape (K,)."""
        sides = [np.clip(z + sign * step * np.eye(len(z))[k], 0.0, 1.0) for k in range(len(z)) for sign in (1, -1)]
        found, paid = self.trial([replace(self.plan(side), name=f"side {k}") for k, side in enumerate(sides)], chances)
        width = np.array([(sides[2 * k] - sides[2 * k + 1])[k] for k in range(len(z))])
        each = (found[::2] - found[1::2]) / width[:, None]
        price = ((paid[::2] - paid[1::2]) / width[:, None]).mean(1)
        return each.mean(1), each.std(1, ddof=1) / math.sqrt(len(chances)), price

    def further(self, z: np.ndarray, slope: np.ndarray, price: np.ndarray, budget: float | None) -> np.ndarray | None:
        """The best plan down the slope, with the chance that the slope was found by; None where none is better."""
        (here,), (paid,) = self.trial([replace(self.plan(z), name="here")], range(self.draws))
        room = None if budget is None else budget - paid.mean()
        unit = slope / np.linalg.norm(slope)
        tried = [_projected(z - length * unit, z, price, room) for length in _LENGTHS]
        values, costs = self.trial(
            [replace(self.plan(x), name=f"trial {k}") for k, x in enumerate(tried)], range(self.draws)
        )
        affordable = np.ones(len(tried), bool) if budget is None else costs.mean(1) <= budget
        start = here.mean() if room is None or room >= 0 else math.inf
        best = min(np.flatnonzero(affordable), key=lambda k: values[k].mean(), default=None)
        if best is None or not values[best].mean() < start or np.array_equal(tried[best], z):
            return None
        return tried[best]


def _projected(z: np.ndarray, at: np.ndarray, price: np.ndarray, room: float | None) -> np.ndarray:
    """The nearest amounts within their ranges that cost at most so much more than those at `at`, by their slope."""
    inside: np.ndarray = np.clip(z, 0.0, 1.0)
    if room is None or price @ (inside - at) <= room or not price.any():
        return inside
    less, more = 0.0, 1.0
    while price @ (np.clip(z - more * price, 0.0, 1.0) - at) > room and more < 1e12:
        more *= 2
    for _ in range(100):
        middle = (less + more) / 2
        less, more = (less, middle) if price @ (np.clip(z - middle * price, 0.0, 1.0) - at) <= room else (middle, more)
    return np.clip(z - more * price, 0.0, 1.0)


def _unsure(slope: np.ndarray, error: np.ndarray, audit: np.ndarray, audit_error: np.ndarray, draws: int) -> str:
    """Why one can't go on along a slope; nothing where one can."""
    if are_apart(slope, audit, np.hypot(error, audit_error), draws).any():
        return "the slope isn't that of other draws over half the step"
    clear = float(stats.t.ppf((1 + _LEVEL) / 2, draws - 1))
    return "" if (np.abs(slope) > clear * error).any() else "no amount has a slope that is clear of zero"


def _one(plan: Any, at: int | None) -> Policy:
    found = policies(plan, at)
    if len(found) != 1:
        raise InputError(f"refine betters one plan, but {len(found)} were given; search compares several")
    for act in found[0].acts:
        if isinstance(act.value, bool | str) or not isinstance(act.value, int | float):
            raise InputError(f"{act} has no amount that could be more or less; search compares such plans")
    return found[0]


def _ranges(model: Model, policy: Policy, within: Mapping[str, tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest amount of each act."""
    low, high = [], []
    for act in policy.acts:
        if act.name not in model.environment:
            raise InputError(nearest("part of the environment", act.name, model.environment))
        if act.name in model.options:
            raise InputError(f"{act} has no amount that could be more or less; search compares such plans")
        if act.name not in within:
            raise InputError(f"within= says nothing of {act.name}; give its least and greatest amount")
        try:
            least, most = (float(x) for x in within[act.name])
        except (TypeError, ValueError) as e:
            raise InputError(f"within= gives {within[act.name]!r} for {act.name}; give a least and a greatest") from e
        if not (-math.inf < least < most < math.inf and least <= float(act.value) <= most):  # type: ignore[arg-type]
            raise InputError(f"{act} lies outside {least:g} to {most:g}, or that is no range; give another")
        for end in (least, most):
            setting(model, act.name, end)
        low.append(least)
        high.append(most)
    return np.array(low), np.array(high)
