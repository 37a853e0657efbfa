"""Policy search: the best of many plans within a budget, compared among the same people with the same chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from lpmppl.errors import InputError, nearest
from lpmppl.inference import policies as plans
from lpmppl.inference.checks import checked, whole
from lpmppl.inference.contrasts import PRICE, amounts
from lpmppl.inference.counterfactual import worlds_of
from lpmppl.inference.policies import FACTUAL, WORLD, Act, Policy
from lpmppl.inference.run import drawn
from lpmppl.models.model import Model

__all__ = ["Objective", "Trial", "check_aim", "search"]

Objective = str | Callable[[xr.Dataset], xr.DataArray]


def search(
    model: Model,
    candidates: Any,
    objective: Objective,
    at: int | Sequence[int] | None = None,
    days: int = 90,
    seed: int = 0,
    *,
    budget: float | None = None,
    cost: str = "payments",
    first: int = 2,
    keep: float = 0.5,
    parameters: bool = False,
    at_once: int = 8,
    set: Mapping[str, float] | None = None,
    interventions: Sequence[tuple[str, float | str, int]] = (),
) -> xr.Dataset:
    r"""Find the policy under which an outcome is least, by successive halving with common random numbers.

    Every round simulates the plans that are left in as many draws of chance again as they have had, and keeps the
    better part of them, until one is left (Karnin, Koren and Somekh, ICML 2013). Doing nothing is a candidate. All
    plans meet the same people with the same chance, and are compared draw by draw.

    Args:
        model: the society.
        candidates: the plans, as `counterfactual` takes policies.
        objective: the tally whose sum over days is to be least, or a function of what `contrasts.amounts` gives, dims
            (chain, draw, policy), to one number for each.
        at: the day or days of values in `candidates` that have none.
        days: how many days.
        seed: the seed of all chance.
        budget: the most that a plan may cost on average, in units of the tally `cost`; None for any.
        cost: the tally of what is spent, over doing nothing.
        first: draws in the first round, 2 or more.
        keep: the share of plans that a round keeps, in (0, 1).
        parameters: whether each draw also has parameters of its own, from their priors.
        at_once: how many worlds beside doing nothing are simulated together.
        set: values of parameters, by name.
        interventions: `(name, value, day)`: what is done whatever the plan.
    Returns:
        a Dataset over `policy`, best first: `objective` and its `sd` over draws, `behind` and `behind_se`, how much
        worse than the best in the draws that both had, `cost`, `draws`, and `affordable`; its attrs name `best` and
        `runner_up`, and give `regret`, the greatest over rivals k of :math:`\mathbb E\,(y_{best} - y_k)^+` were the
        mean differences normal with the errors found: what a wrong choice is expected to lose.
    Raises:
        InputError: for a policy, tally, budget, share or number that can't be used; if no plan is within the budget.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> plans = {"transmission": [0.9, 0.2]}
    >>> found = search(model, plans, "infections", at=2, days=10, set={"initial_infected": 0.05})
    >>> found.attrs["best"]
    'transmission=0.2@2'
    """
    chosen = (Policy(FACTUAL, ()), *plans.policies(candidates, at))
    fixed, acts = checked(model, days, seed, set or {}, interventions, 1, "")
    first, at_once = whole("first", first, 2), whole("at_once", at_once, 1)
    if not isinstance(keep, int | float) or not 0.0 < keep < 1.0:
        raise InputError(f"keep={keep!r} was given; give a share between 0 and 1, such as 0.5")
    check_aim(model, objective, budget, cost)
    trial = Trial(model, fixed, acts, int(days), int(seed), objective, cost, parameters, at_once)
    scores: dict[str, list[float]] = {policy.name: [] for policy in chosen}
    spent: dict[str, list[float]] = {policy.name: [] for policy in chosen}
    left = list(chosen)
    while True:
        begin = len(scores[left[0].name])
        # Doing nothing is simulated anyway, so that what is done is held against it in all draws.
        met = left if chosen[0] in left else [chosen[0], *left]
        values, dollars = trial(met, range(begin, max(first, 2 * begin)))
        for policy, value, paid in zip(met, values, dollars, strict=True):
            scores[policy.name] += value.tolist()
            spent[policy.name] += paid.tolist()
        affordable = [policy for policy in left if budget is None or np.mean(spent[policy.name]) <= budget]
        if not affordable:
            raise InputError(f"no plan costs {budget:g} or less; give a greater budget, or cheaper plans")
        affordable.sort(key=lambda policy: float(np.mean(scores[policy.name])))
        most = math.ceil(keep * len(left))
        left = affordable[: max(1, min(most, len(left) - 1))] if len(left) > 1 else affordable
        if len(left) == 1:
            return _ranked(chosen, left[0].name, scores, spent, budget)


def check_aim(model: Model, objective: Objective, budget: float | None, cost: str) -> None:
    """Refuse an objective or a budget that a model's plans can't be compared by."""
    if budget is not None and not (isinstance(budget, int | float | np.number) and budget >= 0):
        raise InputError(f"budget={budget!r} was given; give 0 or more")
    if not isinstance(objective, str) and not callable(objective):
        raise InputError(f"objective={objective!r} was given; give a tally, or a function of what there is of them")
    for name in [cost] * (budget is not None or cost != PRICE) + ([objective] if isinstance(objective, str) else []):
        if name not in model.tallies:
            raise InputError(nearest("tally", name, model.tallies))


@dataclass(frozen=True)
class Trial:
    """What plans come to and cost, among the same people with the same chance.

    Args:
        model: the society.
        fixed: values of parameters, by name.
        acts: what is done whatever the plan.
        days: how many days.
        seed: the seed of all chance.
        objective: the tally that is summed over days, or a function of `contrasts.amounts`.
        cost: the tally of what is spent, over doing nothing; none where the model has no such.
        parameters: whether each draw also has parameters of its own.
        at_once: how many worlds beside doing nothing are simulated together.
    """

    model: Model
    fixed: Mapping[str, float]
    acts: Sequence[Sequence[Any]]
    days: int
    seed: int
    objective: Objective
    cost: str
    parameters: bool = False
    at_once: int = 8

    def __call__(self, plans: Sequence[Policy], chances: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The objective and the cost of every plan in every draw, both of shape (plans, draws)."""
        others = [policy for policy in plans if policy.name != FACTUAL]
        found = [
            self._batch(others[k : k + self.at_once], chances) for k in range(0, max(len(others), 1), self.at_once)
        ]
        both = {name: rows for batch in found for name, rows in batch.items()}
        values, spent = zip(*(both[policy.name] for policy in plans), strict=True)
        return np.array(values), np.array(spent)

    def _batch(self, batch: Sequence[Policy], chances: Sequence[int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        always = [Act(str(n), v, int(d)) for n, v, d in self.acts]
        thetas = [self._theta(k if self.parameters else None) for k in chances]
        tree = worlds_of(self.model, batch, always, thetas, chances, list(chances), self.days, self.seed, {})
        found = amounts(tree)
        value = found[self.objective] if isinstance(self.objective, str) else self._asked(found)
        if not isinstance(value, xr.DataArray) or {*value.dims} != {"chain", "draw", WORLD}:
            raise InputError(
                "the objective must give one number for each chain, draw and policy; sum over anything else"
            )
        each = value.isel(chain=0).transpose("draw", WORLD).to_numpy().astype(float)
        for draw, world in np.argwhere(~np.isfinite(each))[:1]:
            name = value[WORLD].values[world]
            raise InputError(f"the objective of '{name}' is {each[draw, world]:g}: it must be finite for every plan")
        paid = found[self.cost] - found[self.cost].sel({WORLD: FACTUAL}, drop=True) if self.cost in found else None
        paid = xr.zeros_like(value) if paid is None else paid
        return {
            name: (
                value.isel(chain=0).sel({WORLD: name}).to_numpy().astype(float),
                paid.isel(chain=0).sel({WORLD: name}).to_numpy().astype(float),
            )
            for name in (FACTUAL, *(policy.name for policy in batch))
        }

    def _asked(self, found: xr.Dataset) -> Any:
        assert callable(self.objective)
        try:
            return self.objective(found)
        except Exception as e:
            raise InputError(f"the objective can't be evaluated: {type(e).__name__}: {e}") from e

    def _theta(self, draw: int | None) -> dict[str, float]:
        """The parameters of one draw."""
        if draw is None:
            return drawn(self.model, self.fixed, None, self.seed)[0]
        return drawn(self.model, self.fixed, draw + 1, self.seed)[draw]


def _ranked(
    chosen: Sequence[Policy],
    best: str,
    scores: Mapping[str, Sequence[float]],
    spent: Mapping[str, Sequence[float]],
    budget: float | None,
) -> xr.Dataset:
    """The plans, the best first, those that went further before others, and what a wrong choice may lose."""
    rows: dict[str, dict[str, Any]] = {}
    for policy in chosen:
        mine = np.array(scores[policy.name])
        behind = mine - np.array(scores[best])[: len(mine)]
        mean_cost = float(np.mean(spent[policy.name]))
        rows[policy.name] = {
            "objective": mine.mean(),
            "sd": mine.std(ddof=1),
            "behind": behind.mean(),
            "behind_se": behind.std(ddof=1) / len(behind) ** 0.5,
            "cost": mean_cost,
            "draws": len(mine),
            "affordable": budget is None or mean_cost <= budget,
        }
    order = sorted(rows, key=lambda n: (n != best, not rows[n]["affordable"], -rows[n]["draws"], rows[n]["behind"]))
    columns = {key: (WORLD, [rows[name][key] for name in order]) for key in next(iter(rows.values()))}
    rivals = [name for name in order[1:] if rows[name]["affordable"]]
    found = xr.Dataset(columns, {WORLD: order})
    regret = max((_expected_loss(rows[n]["behind"], rows[n]["behind_se"]) for n in rivals), default=0.0)
    return found.assign_attrs(best=best, runner_up=rivals[0] if rivals else "", regret=regret)


def _expected_loss(behind: float, error: float) -> float:
    """E max(0, −d) for a difference d ~ N(behind, error²): what is lost if the rival is better after all."""
    if error == 0:
        return max(0.0, -behind)
    z = behind / error
    return error * (math.exp(-z * z / 2) / math.sqrt(2 * math.pi) - z * math.erfc(z / math.sqrt(2)) / 2)
