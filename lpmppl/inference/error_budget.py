"""Error budget: how far chances by archetype, from so many sampled answers, lie from those of individuals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lpmppl.errors import InputError
from lpmppl.inference.checks import whole

__all__ = ["Budget", "error_budget", "surveyed_budget"]

Number = float | np.ndarray


def array(name: str, values: object, what: str, dtype: type | None = np.float64) -> np.ndarray:
    """An array of what is given, a tensor too, or InputError that says what to give."""
    try:
        return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=dtype)
    except (TypeError, ValueError) as e:
        raise InputError(f"{name}={values!r}: give {what}") from e


def probabilities(name: str, values: object, many: int | None = None) -> np.ndarray:
    """Numbers in [0, 1] as float64 of shape (…, R), or InputError for anything else."""
    found = array(name, values, "probabilities, numbers from 0 to 1")
    if not found.ndim or not found.shape[-1] or (many is not None and found.shape[-1] != many):
        raise InputError(
            f"{name} has shape {found.shape}; its last dimension must be {'one or more' if many is None else many} rows"
        )
    wrong = found[~((found >= 0) & (found <= 1))]
    if wrong.size:
        raise InputError(
            f"{name} has {wrong.size} values that are no probabilities, such as {wrong[0]}; leave them out"
        )
    return found


def weights(weight: object, many: int) -> np.ndarray:
    """What share of all each row is, shape (R,); alike where nothing is given."""
    if weight is None:
        return np.full(many, 1.0 / many)
    found = array("weight", weight, f"a number of each of {many} rows")
    if found.shape != (many,) or not np.isfinite(found).all() or (found < 0).any() or not found.sum() > 0:
        raise InputError(f"weight has shape {found.shape}; give {many} numbers from 0 on, not all of them 0")
    return found / found.sum()


def codes(archetypes: object, many: int) -> np.ndarray:
    """The archetype of each row, int64 of shape (R,), or InputError for anything else."""
    found = array("archetypes", archetypes, f"the code of each of {many} rows", None)
    if found.shape != (many,) or found.dtype.kind not in "iu" or found.min() < 0:
        raise InputError(
            f"archetypes has shape {found.shape} and {found.dtype}; give the code, 0 or more, of each of {many} rows"
        )
    return found.astype(np.int64)


def summed(values: np.ndarray, code: np.ndarray, many: int) -> np.ndarray:
    """Sums of values, shape (…, R), by the code of each row: shape (…, K)."""
    rows = values.reshape(-1, values.shape[-1])
    return np.stack([np.bincount(code, row, minlength=many) for row in rows]).reshape(*values.shape[:-1], many)


def within(chance: np.ndarray, noise: np.ndarray, weight: np.ndarray, code: np.ndarray) -> np.ndarray:
    r"""The variance of probabilities within archetypes, less what noise of known variance adds to it.

    .. math:: \sum_r w_r (p_r - \bar p_{k_r})^2 - \sum_r w_r \Big(1 - \frac{w_r}{W_{k_r}}\Big) v_r

    Args:
        chance: p, shape (…, R).
        noise: v, the variance of each p about its truth, shape (…, R); 0 where it is known.
        weight: w, shape (R,), which adds up to 1.
        code: the archetype of each row, shape (R,).
    Returns:
        shape (…), below 0 where there is less variance than noise makes on average.
    """
    _, mean, total = _means(chance, weight, code)
    own = np.divide(weight, total[code], out=np.zeros_like(weight), where=weight > 0)
    return ((chance - mean[..., code]) ** 2 * weight).sum(-1) - (weight * (1.0 - own) * noise).sum(-1)


def _means(chance: np.ndarray, weight: np.ndarray, code: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """The number K of archetypes, their mean probabilities, shape (…, K), and weights, (K,)."""
    many = int(code.max()) + 1
    total = np.bincount(code, weight, minlength=many)
    sums = summed(chance * weight, code, many)
    # Rounding would put some means just outside [0, 1].
    return many, np.divide(sums, total, out=np.zeros_like(sums), where=total > 0).clip(0.0, 1.0), total


@dataclass(frozen=True)
class Budget:
    r"""What the mean squared error of giving individuals their archetype's sampled share is made of.

    Attributes:
        between: the variance of probabilities between archetypes, which these do tell.
        within: the variance of probabilities within archetypes, which stays however many samples there are.
        spread: :math:`\sum_k W_k\, \bar p_k (1 - \bar p_k)`, the variance of one answer.
        sampling: what sampling adds; 0 where the archetypes' probabilities are exact.
        standard_error: of `within`, where it is estimated from a survey; 0 where probabilities are known.
    """

    between: Number
    within: Number
    spread: Number
    sampling: Number = 0.0
    standard_error: float = 0.0

    @property
    def total(self) -> Number:
        """The mean squared error."""
        return self.within + self.sampling

    @property
    def explained(self) -> Number:
        """The share of the variance between individuals that archetypes tell."""
        whole = np.asarray(self.between + self.within)
        return _number(np.divide(self.between, whole, out=np.full(whole.shape, math.nan), where=whole > 0))

    def enough(self, gain: float = 0.1) -> Number:
        r"""The fewest samples per archetype from which all further ones lower the total by no more than a share of it.

        .. math:: \frac{S / M}{W + S / M} \le g \iff M \ge \frac{S\,(1 - g)}{g\,W}

        with the spread S of an answer and the variance W within archetypes. Beyond it, more attributes help, and more
        samples don't. Infinite where nothing varies within archetypes.

        >>> Budget(between=0.01, within=0.02, spread=0.2).enough(0.1)
        90.0
        """
        if not 0 < gain < 1:
            raise InputError(f"gain={gain!r}: give a share between 0 and 1, such as 0.1")
        inside, spread = np.maximum(self.within, 0.0), np.asarray(self.spread)
        least = np.divide(spread * (1.0 - gain), gain * inside, out=np.full(spread.shape, math.inf), where=inside > 0)
        # A whole number that is missed by rounding alone is that number.
        return _number(np.where(spread > 0, np.maximum(np.ceil(least * (1.0 - 1e-12)), 1.0), 1.0))


def error_budget(
    chance: object,
    archetypes: object,
    samples: object = None,
    weight: object = None,
) -> Budget:
    r"""Predict the mean squared error of giving each individual the share of M answers to its archetype's prompt.

    With probabilities :math:`p_i` of individuals of weight :math:`w_i`, whose archetypes :math:`k_i` have the mean
    :math:`\bar p_k` and the weight :math:`W_k`, and :math:`M_k` independent answers to the prompt of k, each of which
    is the choice with probability :math:`\bar p_k`,

    .. math:: \mathrm E \sum_i w_i (\hat p_{k_i} - p_i)^2 = \sum_i w_i (p_i - \bar p_{k_i})^2
        + \sum_k W_k \frac{\bar p_k (1 - \bar p_k)}{M_k}

    which is exact. The variance of an answer is that of the archetype's mean, :math:`\bar p_k (1 - \bar p_k)`, since
    all answers are to one prompt; the individuals' mean of :math:`p_i (1 - p_i)` is less than it by the variance within
    k. Where :math:`M_k` is chosen by the first of the same answers, as `LanguageModel` does with half of them, the sum
    holds but for how the number and those answers go together. A prompt whose answers don't have its archetype's mean
    adds the mean of its squared bias.

    Args:
        chance: probabilities of the choice, of individuals or of cells as fine as are known, shape (…, R).
        archetypes: the archetype of each, integers of shape (R,).
        samples: M, one number, or one of each archetype, shape (…, K); None where the probabilities are exact.
        weight: how many people each row is, shape (R,); alike by default.
    Returns:
        the budget, its numbers of shape (…).
    Raises:
        InputError: for shapes that don't go together, and numbers that are no probabilities, codes or samples.

    >>> budget = error_budget([0.1, 0.3, 0.6, 0.8], [0, 0, 1, 1], samples=10)
    >>> round(budget.within, 6), round(budget.sampling, 6), round(budget.total, 6)
    (0.01, 0.0185, 0.0285)
    """
    p = probabilities("chance", chance)
    code, w = codes(archetypes, p.shape[-1]), weights(weight, p.shape[-1])
    return _budget(p, np.zeros(p.shape[-1]), w, code, samples)


def surveyed_budget(
    chosen: object,
    respondents: object,
    archetypes: object,
    samples: object = None,
    weight: object = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Budget:
    r"""Estimate the error budget from a survey's counts by cells that are finer than the archetypes.

    Shares :math:`\hat p_c = x_c / n_c` of cells scatter also by chance, by :math:`\hat v_c = \hat p_c (1 - \hat p_c) /
    (n_c - 1)`, which is taken off, as in an analysis of variance:

    .. math:: \widehat W = \sum_c w_c (\hat p_c - \hat{\bar p}_{k_c})^2
        - \sum_c w_c \Big(1 - \frac{w_c}{W_{k_c}}\Big) \hat v_c

    It and the spread are without bias; the first may be below 0. What varies within cells, which no survey of one
    answer each shows, isn't in it. The standard error is the bootstrap's, over respondents within cells, a little large
    where cells are small.

    Args:
        chosen: x, how many chose so in each cell, shape (C,).
        respondents: n, how many were asked, two or more, shape (C,).
        archetypes: the archetype of each cell, integers of shape (C,).
        samples: M, one number, or one of each archetype, shape (…, K); None where the probabilities are exact.
        weight: how many people each cell is, shape (C,); as many as were asked by default.
        resamples: of the bootstrap, two or more.
        seed: of the bootstrap.
    Raises:
        InputError: for shapes that don't go together, or counts that can't be.

    >>> budget = surveyed_budget([50, 90, 20, 40], [100, 100, 100, 100], [0, 0, 1, 1], samples=5)
    >>> round(budget.within, 4), round(budget.standard_error, 3)
    (0.0241, 0.007)
    """
    x, n = _counts("chosen", chosen), _counts("respondents", respondents)
    if x.shape != n.shape or not x.size or (n < 2).any() or (x > n).any() or (x % 1 + n % 1).any():
        raise InputError(
            f"chosen has shape {x.shape} and respondents {n.shape}, from {x.min(initial=0):g} and "
            f"{n.min(initial=0):g} on; give whole numbers, as many of both, two respondents or more in each cell, "
            "of whom no more chose"
        )
    resamples, seed = whole("resamples", resamples, 2), whole("seed", seed, 0)
    code, w = codes(archetypes, n.size), weights(n if weight is None else weight, n.size)
    again = np.random.default_rng(seed).binomial(n.astype(np.int64), x / n, (resamples, n.size)) / n
    error = float(within(again, again * (1.0 - again) / (n - 1.0), w, code).std(ddof=1))
    share = x / n
    return _budget(share, share * (1.0 - share) / (n - 1.0), w, code, samples, error)


def _budget(
    p: np.ndarray, noise: np.ndarray, w: np.ndarray, code: np.ndarray, samples: object, error: float = 0.0
) -> Budget:
    many, mean, total = _means(p, w, code)
    of_mean = np.bincount(code, w**2 * noise, minlength=many)
    of_mean = np.divide(of_mean, total**2, out=np.zeros(many), where=total > 0)
    spread = mean * (1.0 - mean) + of_mean
    overall = (mean * total).sum(-1, keepdims=True)
    between = ((mean - overall) ** 2 * total).sum(-1) - (total * (1.0 - total) * of_mean).sum(-1)
    sampling = 0.0 if samples is None else (total * spread / _samples(samples, many)[..., :many]).sum(-1)
    inside, one = within(p, noise, w, code), (total * spread).sum(-1)
    return Budget(_number(between), _number(inside), _number(one), _number(sampling), error)


def _number(value: Number) -> Number:
    return value if isinstance(value, np.ndarray) and value.ndim else float(value)


def _samples(samples: object, many: int) -> np.ndarray:
    found = _counts("samples", samples)
    if (found.ndim and found.shape[-1] < many) or (found < 1).any():
        raise InputError(
            f"samples has shape {found.shape}, from {found.min(initial=0):g} on; give 1 or more, one number or one for "
            f"each of {many} archetypes"
        )
    return found.reshape(found.shape or (1,)) * np.ones(many if not found.ndim else 1)


def _counts(name: str, values: object) -> np.ndarray:
    found = array(name, values, "numbers")
    if not np.isfinite(found).all() or (found < 0).any():
        raise InputError(f"{name} has numbers that are below 0 or not finite; give counts")
    return found
