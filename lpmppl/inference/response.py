"""How expected counts follow parameters about where one is: a log-linear response, smooth in time, learnt from runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import BSpline
from scipy.linalg import block_diag
from torch import Tensor

from lpmppl.inference.observed import Observed

__all__ = ["Response", "basis"]

_DAYS_A_BEND, _ORDER = 10, 3
"""Days between the knots of what is smooth in time, and the order of its splines."""

_STEP_SPREAD, _APART, _SHIFT_SPREAD = 1.0, 0.4, 2.0
"""Standard deviations, before any run, of coefficients in logarithms.

They are of those by a parameter, in all and of a stratum's about it, and of those of the level.
"""

_PASSES, _NEAR, _FACTORS = 12, 1e-3, 6
_MOST = 30.0


def basis(days: int) -> np.ndarray:
    """Cubic B-splines over days, shape (T, B), which add up to 1; fewer and lower ones where days are few."""
    if days < 2:
        return np.ones((days, 1))
    order = min(_ORDER, days - 1)
    inner = np.linspace(0, days - 1, max(2, round(days / _DAYS_A_BEND) + 1))
    knots = np.concatenate([[0.0] * order, inner, [days - 1.0] * order])
    return np.asarray(BSpline.design_matrix(np.arange(days, dtype=float), knots, order).toarray())


@dataclass(frozen=True)
class Response:
    r"""Expected counts as a function of parameters.

    .. math:: \log m_c(u) = o_c + \alpha_c + \gamma_c^\top (u - \bar u) + F_c \epsilon + H_c \eta, \qquad
        \epsilon, \eta \sim N(0, 1)

    o is the logarithm of the runs' mean; α and γ are smooth in time. F is what chance adds to all days and strata
    together, and φ what it adds to each count by itself, whose variance it is for a mean of one. H is how far the model
    itself may be off, smooth in time and alike in all strata of a stream.

    Args:
        middle: ū, shape (P,).
        level: o + α, shape (D,).
        slopes: γ, shape (D, P).
        factors: F of one run, shape (D, K).
        sizes: the logarithm of the counts' dispersion at ū, shape (D,); infinite where they have none.
        size_slopes: how it follows u, shape (D, P).
        own: φ of one run, shape (D,).
        agents: how many agents a run had.
        rows: how many runs there were.
        misfit: H, shape (D, M).
    """

    middle: np.ndarray
    level: np.ndarray
    slopes: np.ndarray
    factors: np.ndarray
    sizes: np.ndarray
    size_slopes: np.ndarray
    own: np.ndarray
    agents: int
    rows: int
    misfit: np.ndarray

    @property
    def latent(self) -> int:
        """How many numbers there are besides the parameters: K of chance and M of what the model lacks."""
        return int(self.factors.shape[1] + self.misfit.shape[1])

    @classmethod
    def learnt(
        cls,
        observed: Observed,
        u: np.ndarray,
        means: np.ndarray,
        sizes: np.ndarray,
        agents: int,
        misfit: float = 0.0,
    ) -> Response:
        """Learn it from runs, by a quasi-Poisson regression for each stream and stratum, all days at once.

        Args:
            observed: the streams.
            u: the parameters of each run, shape (n, P).
            means: expected counts of each run, shape (n, D), NaN on days without a count.
            sizes: the dispersion of each, shape (n, D).
            agents: how many agents a run had.
            misfit: the standard deviation of how far the model may be off, in logarithms.
        """
        middle = u.mean(0)
        v = np.concatenate([np.ones((len(u), 1)), u - middle], 1)
        splines = basis(observed.days)
        level, slopes, own, left = [], [], [], []
        for stream in observed.split(means):
            levels, gammas, owns = [], [], []
            # Strata are alike: what each does by itself is learnt from how it departs from all of them.
            common, *_ = _regressed(v, stream.sum(-1), splines, np.zeros((v.shape[1], splines.shape[1])), _STEP_SPREAD)
            for k in range(stream.shape[-1]):
                coefficients, o, phi, residual = _regressed(v, stream[..., k], splines, common, _APART)
                curve = splines @ coefficients.T
                a, c = curve[:, 0], curve[:, 1:]
                levels.append(o + a)
                gammas.append(c)
                owns.append(phi)
                left.append(residual)
            level.append(np.stack(levels, 1).reshape(-1))
            slopes.append(np.stack(gammas, 1).reshape(-1, u.shape[1]))
            own.append(np.tile(owns, (observed.days, 1)).reshape(-1))
        dispersed, by = _dispersion(v, sizes)
        return cls(
            middle, np.concatenate(level), np.concatenate(slopes), _factors(observed, np.stack(left), splines),
            dispersed, by, np.concatenate(own), agents, len(u),
            _lacks(observed, splines, misfit),
        )  # fmt: skip

    def chance(self, agents: int) -> float:
        """The share of a run's chance that there is in a society of so many agents, with what the runs leave open."""
        # Two runs on either side have one chance between them.
        return self.agents / agents + 2.0 / self.rows

    def spread(self, agents: int) -> float:
        """The largest standard deviation that chance gives the logarithms of counts, of a society of so many agents."""
        return float(np.sqrt((self.factors**2).sum(1) * self.chance(agents)).max(initial=0.0))

    def at(self, u: Tensor, epsilon: Tensor, agents: int) -> tuple[Tensor, Tensor]:
        """Expected counts and their dispersion.

        Args:
            u: parameters, shape (…, P).
            epsilon: ε, what chance adds to all counts, and η, what the model lacks, shape (…, K + M).
            agents: of how many agents the society is.
        Returns:
            means and sizes, float64 of shape (…, D).
        """
        apart = u - torch.from_numpy(self.middle)
        log = torch.from_numpy(self.level) + apart @ torch.from_numpy(self.slopes).T
        common = np.concatenate([self.factors * np.sqrt(self.chance(agents)), self.misfit], 1)
        log = log + epsilon @ torch.from_numpy(common).T
        mean = torch.exp(log.clamp(-_MOST, _MOST))
        spread = torch.exp(-torch.from_numpy(self.sizes) - apart @ torch.from_numpy(self.size_slopes).T)
        # A negative binomial has a Poisson's variance already, which is that of counts that nobody reports.
        share = torch.from_numpy(self.own * self.chance(agents) - np.isinf(self.sizes)).clamp(min=1e-6)
        return mean, mean / (mean * spread + share)

    def departure(self, observed: Observed, u: np.ndarray, means: np.ndarray, agents: int) -> np.ndarray:
        """By how much other runs' level departs from this, smooth in time: shape (D,).

        Args:
            observed: the streams.
            u: the parameters of those runs, shape (n, P).
            means: what they expect, shape (n, D), NaN on days without a count.
            agents: how many agents they have.
        """
        nothing = torch.zeros(self.latent, dtype=torch.float64)
        foreseen = self.at(torch.from_numpy(u), nothing, agents)[0].numpy()
        splines, shifts = basis(observed.days), []
        for seen, mu, own in zip(*(observed.split(x) for x in (means, foreseen, self.own)), strict=True):
            each = []
            for k in range(seen.shape[-1]):
                phi = max(float(own[0, k]) * self.agents / agents, 1.0)
                each.append(splines @ _departed(seen[..., k], mu[..., k], splines, phi))
            shifts.append(np.stack(each, 1).reshape(-1))
        return np.concatenate(shifts)

    def lacking(self, epsilon: Tensor) -> np.ndarray:
        """By how much the model is off, in logarithms, by η in what `at` takes, shape (…, K + M): shape (…, D)."""
        return np.asarray(epsilon[..., self.factors.shape[1] :].numpy() @ self.misfit.T)

    def moved(self, shift: np.ndarray) -> Response:
        """The same with another level, shape (D,)."""
        return Response(**{**self.__dict__, "level": self.level + shift})


def _regressed(
    v: np.ndarray, means: np.ndarray, splines: np.ndarray, before: np.ndarray, spread: float
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """One stratum's coefficients (1 + P, B), offset (T,), dispersion and what each run leaves, (n, B)."""
    seen = ~np.isnan(means).any(0)
    m, b = means[:, seen], splines[seen]
    total = m.mean(0)
    floor = 0.5 * (total[total > 0].min() if (total > 0).any() else 1.0)
    offset = np.log(np.maximum(total, floor))
    width, many = v.shape[1], b.shape[1]
    prior = np.full((width, many), spread**-2)
    prior[0] = _SHIFT_SPREAD**-2
    coefficients, phi = before.copy(), 1.0
    mu = np.exp(np.clip(offset + v @ coefficients @ b.T, -_MOST, _MOST))
    pairs = (b[:, :, None] * b[:, None]).reshape(len(b), -1)
    for _ in range(_PASSES):
        weight = mu / phi
        inner = (v.T * weight.T[:, None]) @ v
        matrix = (inner.reshape(len(b), -1).T @ pairs).reshape(width, width, many, many)
        matrix = matrix.swapaxes(1, 2).reshape(width * many, -1)
        right = v.T @ ((m - mu) / phi) @ b - prior * (coefficients - before)
        step = np.linalg.solve(matrix + np.diag(prior.reshape(-1)), right.reshape(-1)).reshape(width, many)
        coefficients = coefficients + step / max(1.0, np.abs(v @ step @ b.T).max() / 2.0)
        mu = np.exp(np.clip(offset + v @ coefficients @ b.T, -_MOST, _MOST))
        free = max(1.0, m.size - coefficients.size)
        phi = float(np.clip(((m - mu) ** 2 / np.maximum(mu, floor)).sum() / free, 1e-3, None))
        if np.abs(step).max() < _NEAR:
            break
    each = np.einsum("t,ta,tb->ab", mu.mean(0) / phi, b, b) + np.eye(many)
    residual = np.linalg.solve(each, ((m - mu) / phi @ b).T).T
    whole = np.full(len(seen), np.log(floor))
    whole[seen] = offset
    return coefficients, whole, phi, residual


def _departed(means: np.ndarray, foreseen: np.ndarray, splines: np.ndarray, phi: float) -> np.ndarray:
    """The coefficients of a level that departs from what was foreseen, shape (B,), by a quasi-Poisson regression."""
    seen = ~np.isnan(means).any(0)
    m, mu, b = means[:, seen].sum(0), foreseen[:, seen].sum(0), splines[seen]
    shift = np.zeros(b.shape[1])
    for _ in range(_PASSES):
        now = mu * np.exp(b @ shift)
        bend = np.einsum("t,ta,tb->ab", now / phi, b, b) + np.eye(len(shift)) / _APART**2
        step = np.linalg.solve(bend, ((m - now) / phi) @ b - shift / _APART**2)
        shift = shift + step / max(1.0, np.abs(step).max())
    return shift


def _factors(observed: Observed, left: np.ndarray, splines: np.ndarray) -> np.ndarray:
    """What runs have left in common over days, strata and streams: the leading factors, shape (D, K)."""
    strata, n, many = left.shape
    wide = left.transpose(1, 0, 2).reshape(n, -1)
    _, size, direction = np.linalg.svd((wide - wide.mean(0)) / np.sqrt(max(1, n - 1)), full_matrices=False)
    lead = (direction[:_FACTORS] * size[:_FACTORS, None]).reshape(-1, strata, many)
    found, first = [], 0
    for stream in observed.streams:
        own = lead[:, first : first + stream.counts.shape[1]]
        found.append(np.einsum("fka,ta->tkf", own, splines).reshape(-1, len(lead)))
        first += stream.counts.shape[1]
    return np.concatenate(found)


def _lacks(observed: Observed, splines: np.ndarray, spread: float) -> np.ndarray:
    """How far the model may be off: for each stream a smooth course of its own, shape (D, M), of one spread."""
    if not spread:
        return np.zeros((len(observed.counts), 0))
    course = spread * splines / np.sqrt((splines**2).sum(1, keepdims=True))
    each = [np.repeat(course, s.counts.shape[1], 0) for s in observed.streams]
    return np.asarray(block_diag(*each))


def _dispersion(v: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The logarithm of the counts' dispersion and how it follows parameters."""
    usable = np.isfinite(sizes).all(0) & (sizes > 0).all(0)
    level, slopes = np.full(sizes.shape[1], np.inf), np.zeros((sizes.shape[1], v.shape[1] - 1))
    blank = np.isnan(sizes).any(0)
    level[blank] = 0.0
    if usable.any():
        log = np.log(sizes[:, usable])
        level[usable] = log.mean(0)
        # How one dispersion of all follows parameters is the same for every count.
        common = np.linalg.lstsq(v, (log - log.mean(0)).mean(1), rcond=None)[0][1:]
        slopes[usable] = common
    return level, slopes
