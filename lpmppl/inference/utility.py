"""Random utility fitted to choices by maximum likelihood."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lpmppl.effects.choices import Choices
from lpmppl.errors import InputError, LpmError, nearest

__all__ = ["FittedUtility", "fit_utility"]

_STEPS, _DONE = 100, 1e-13
"""How many steps of Newton's method there are at most, and the gain in nats a decision after which it is done."""

_SEPARATED = 25.0
"""Log-odds that no choices show: where utilities come to them, the likelihood has no maximum."""


@dataclass(frozen=True, eq=False)
class FittedUtility:
    """Coefficients of random utility, as the choices have it.

    Attributes:
        decision: the decision's name.
        coefficients: by option and feature: `Utility({decision: coefficients})` decides by them.
        standard_errors: theirs, by option and feature.
        log_likelihood: of all choices, nats.
        null: the same where every option had its share of all choices, whatever the features.
        divergence: how far the choices are from these probabilities, nats a decision: what the features don't tell.
    """

    decision: str
    coefficients: Mapping[str, Mapping[str, float]]
    standard_errors: Mapping[str, Mapping[str, float]]
    log_likelihood: float
    null: float
    divergence: float


def fit_utility(
    choices: Choices,
    features: Sequence[str] | Mapping[str, Sequence[str]],
    *,
    prior_sd: float = math.inf,
    answers: float | None = None,
) -> FittedUtility:
    r"""Fit the coefficients of `Utility` to choices by maximum likelihood.

    .. math:: \max_\beta \sum_r w_r \sum_a p_{ra} \log \frac{e^{V_{ra}}}{\sum_b e^{V_{rb}}} -
        \sum_{af} \frac{\beta_{af}^2}{2 s^2}, \qquad V_{ra} = \sum_f \beta_{af}\, x_{rf}

    The last option has V = 0. Standard errors are those of the information matrix: right for independent choices, such
    as respondents'; with a prior they are the posterior's standard deviations, in the same approximation.

    Args:
        choices: the choices.
        features: the features of every option but the last, as `Utility` names them; or by option.
        prior_sd: s, the standard deviation of a normal prior on every coefficient but intercepts; none by default.
        answers: how many independent choices all the weights together stand for; their sum by default.
    Raises:
        InputError: for features that aren't there or tell nothing apart, options that aren't, or numbers that can't be
            used.
        LpmError: where the likelihood has no maximum, as some choice is always or never made.
    Source: McFadden (1974), as `Utility`.

    >>> import pandas as pd
    >>> table = pd.DataFrame({"age": ["young", "old"], "mask": [30, 45], "no mask": [30, 5]})
    >>> survey = Choices.of("mask", ("mask", "no mask"), table, attributes=["age"])
    >>> found = fit_utility(survey, ["intercept", "age=old"])
    >>> round(found.coefficients["mask"]["age=old"], 3), round(found.standard_errors["mask"]["age=old"], 3)
    (2.197, 0.537)
    """
    if not prior_sd > 0:
        raise InputError(f"prior_sd={prior_sd!r}: give a number above 0, or math.inf for no prior")
    if answers is not None and not (math.isfinite(answers) and answers > 0):
        raise InputError(f"answers={answers!r}: give a number above 0")
    options = choices.options[:-1]
    if isinstance(features, str):
        raise InputError(f"features={features!r} was given; give a list of names, such as ['intercept']")
    of = dict(features) if isinstance(features, Mapping) else dict.fromkeys(options, features)
    for option in of:
        if option not in options:
            raise InputError(nearest(f"option of decision '{choices.decision}' with features", option, options))
    names = [(option, feature) for option in of for feature in of[option]]
    if not names or len(set(names)) < len(names):
        raise InputError(f"features={features!r}: give one or more for an option, each once")
    rows = choices.weight.shape[0]
    seen = choices.features
    x = torch.stack([seen[feature].expand(rows) for _, feature in names], dim=-1)
    at = torch.tensor([choices.options.index(option) for option, _ in names])
    weight = choices.weight * ((answers or float(choices.weight.sum())) / choices.weight.sum())
    _told_apart(names, x, at, weight)
    intercept = torch.tensor([feature == "intercept" for _, feature in names])
    tight = torch.where(intercept, 0.0, prior_sd**-2.0).double()

    def scores(beta: Tensor) -> Tensor:
        return torch.zeros_like(choices.chance).index_add(-1, at, x * beta)

    def likelihood(beta: Tensor) -> float:
        return float((weight * (choices.chance * scores(beta).log_softmax(-1)).sum(-1)).sum())

    def objective(beta: Tensor) -> float:
        return likelihood(beta) - 0.5 * float((tight * beta**2).sum())

    beta = torch.zeros(len(names), dtype=torch.float64)
    best, steps, gain = objective(beta), 0, math.inf
    information = torch.eye(len(names), dtype=torch.float64)
    while gain > _DONE * float(weight.sum()):
        steps += 1
        chance = scores(beta).softmax(-1)
        slope = (weight.unsqueeze(-1) * x * (choices.chance - chance)[:, at]).sum(0) - tight * beta
        information = _information(x, at, chance, weight) + torch.diag(tight)
        try:
            step = torch.linalg.solve(information, slope)
        except RuntimeError:
            step = torch.full_like(beta, math.inf)
        if steps > _STEPS or not float(scores(beta + step).abs().max()) < _SEPARATED:
            raise LpmError(_no_maximum(choices.decision, names, x * (beta + step)))
        size = 1.0
        while objective(beta + size * step) < best and size > 1e-6:
            size /= 2.0
        beta = beta + size * step
        now = objective(beta)
        gain, best = now - best, now
    spread = torch.linalg.inv(information).diagonal().sqrt()
    overall = (weight.unsqueeze(-1) * choices.chance).sum(0) / weight.sum()
    return FittedUtility(
        choices.decision,
        _by_option(names, beta),
        _by_option(names, spread),
        likelihood(beta),
        float((weight.sum() * torch.xlogy(overall, overall)).sum()),
        choices.divergence(scores(beta).softmax(-1)),
    )


def _no_maximum(decision: str, names: Sequence[tuple[str, str]], parts: Tensor) -> str:
    """What is to be said where a feature, or an option's share, tells choices with certainty."""
    swing = (parts.amax(0) - parts.amin(0)).nan_to_num(math.inf)
    intercepts = torch.tensor([feature == "intercept" for _, feature in names])
    if bool(intercepts.any()) and float(swing.max()) < _SEPARATED / 4:
        option, _ = names[int(torch.where(intercepts, parts.abs().amax(0), -1.0).argmax())]
        return (
            f"decision '{decision}': the likelihood has no maximum, as option '{option}' is always or never chosen; "
            "leave the option out"
        )
    option, feature = names[int(swing.argmax())]
    return (
        f"decision '{decision}': the likelihood has no maximum, as '{feature}' of option '{option}' tells choices "
        "apart with certainty; leave the feature out, or give a prior_sd=, such as 2.0"
    )


def _information(x: Tensor, at: Tensor, chance: Tensor, weight: Tensor) -> Tensor:
    """The information matrix of the coefficients, shape (F, F)."""
    here = chance[:, at]
    same = (at.unsqueeze(0) == at.unsqueeze(-1)).double()
    scaled = weight.unsqueeze(-1) * x
    return same * ((scaled * here).T @ x) - (scaled * here).T @ (x * here)


def _told_apart(names: Sequence[tuple[str, str]], x: Tensor, at: Tensor, weight: Tensor) -> None:
    """Refuse features that are sums of others, naming the first."""
    for option in dict.fromkeys(option for option, _ in names):
        mine = [k for k, (o, _) in enumerate(names) if o == option]
        columns = x[:, mine] * weight.sqrt().unsqueeze(-1)
        columns = columns / columns.norm(dim=0).clamp(min=1e-300)
        for k in range(len(mine)):
            if int(torch.linalg.matrix_rank(columns[:, : k + 1], rtol=1e-9)) <= k:
                raise InputError(
                    f"feature '{names[mine[k]][1]}' of option '{option}' tells nothing apart that the features before "
                    "it don't: leave it out"
                )


def _by_option(names: Sequence[tuple[str, str]], values: Tensor) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for (option, feature), value in zip(names, values.tolist(), strict=True):
        found.setdefault(option, {})[feature] = value
    return found
