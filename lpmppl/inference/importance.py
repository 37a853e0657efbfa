"""The posterior of parameters given each day's number of events, by adaptive importance sampling on guided runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import arviz as az
import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.handlers.guided import Guided, Observations
from lpmppl.effects.handlers.held import BEFORE, place_of
from lpmppl.effects.handlers.noise import base_of
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.errors import LpmError
from lpmppl.inference.checks import whole
from lpmppl.inference.likelihood import Guide
from lpmppl.inference.run import playing
from lpmppl.inference.scales import Scale
from lpmppl.models.model import Model

__all__ = ["Weighted", "conditioned"]

_LEAST = 100
"""The fewest evaluations: a proposal is learnt from some fifty."""

_ROUND, _GROWTH, _FOUND = 40, 4, 0.3
"""How many runs a round has, and as what part of all so far once the weights are taken to this power or above."""

_PRIOR_ROUNDS, _PATIENCE = 2, 4
"""How many rounds are drawn from the prior, and what part of all runs at most until one run can have been."""

_DEFENSIVE, _WIDE = 0.05, 0.3
"""The shares of later rounds that come from the prior, and from the one wide component of the proposal."""

_REACH = 8.0
"""How far on its scale a parameter is looked for; the prior beyond is negligible."""

_FREEDOM = 5.0
"""Degrees of freedom of the kernels: tails heavier than those of a posterior."""

_NEEDED = 25.0
"""How many points the tempered weights are to be worth."""

_INFLATION, _KERNEL = 1.5, 1.0
"""The wide component's covariance over that of the fit, and a kernel's over that of the points."""

_CENTRES = 40

_SHRINKAGE = 5.0
"""Of how many points' worth the belief is that the target is as narrow as the points."""

_NARROWER, _FARTHEST = 30.0, 2.0
"""By how much at most a fit is narrower than the points in variance, and how far off its peak is in deviations."""


@dataclass(frozen=True)
class Weighted:
    r"""Points of parameters with weights, which make up their posterior.

    Attributes:
        points: u on the parameters' scale, float64 of shape (n, P).
        log_weights: the log of the estimated target over the proposals' density, float64 of shape (n,); minus infinity
            where a run couldn't be as was seen.
        effective: :math:`(\sum w)^2 / \sum w^2`.
        khat: the tail index of the weights (Vehtari et al., JMLR 25, 2024); above 0.7 they aren't to be trusted.
    """

    points: Tensor
    log_weights: Tensor
    effective: float
    khat: float

    @classmethod
    def of(cls, points: Tensor, log_weights: Tensor) -> Weighted:
        """Weigh points, and say how far the weights can be trusted."""
        can = torch.isfinite(log_weights)
        weights = torch.softmax(log_weights, 0)
        khat = float(az.psislw(log_weights[can].numpy())[1]) if int(can.sum()) > 1 else math.inf
        return cls(points, log_weights, float(1 / weights.square().sum()), khat)

    @property
    def smoothed(self) -> Tensor:
        """The weights with the greatest as a Pareto distribution has them, which sum to 1: float64 of shape (n,)."""
        can = torch.isfinite(self.log_weights)
        if int(can.sum()) < 2:
            return torch.softmax(self.log_weights, 0)
        weights = torch.zeros_like(self.log_weights)
        weights[can] = torch.from_numpy(np.exp(az.psislw(self.log_weights[can].numpy())[0]))
        return weights / weights.sum()

    def drawn(self, count: int, seed: int = 0) -> Tensor:
        r"""Draw points from the posterior: resampled by smoothed weights, and spread by a kernel.

        .. math:: u = \bar u + \sqrt{1 - h^2}\,(u_j - \bar u) + h\, \varepsilon, \qquad \varepsilon \sim
            N(0, \hat\Sigma), \quad h = \min(0.95, 0.9\, n_{\mathrm{eff}}^{-1/(P + 4)})

        which leaves the mean and the covariance as the weights have them. One run's luck may be most of a weight, so
        that the greatest are smoothed as in Pareto-smoothed importance sampling; the log-weights stay as they are.

        Args:
            count: how many.
            seed: the seed of the draws.
        Returns:
            float64 of shape (count, P).
        """
        chance, size = np.random.default_rng(seed), self.points.shape[-1]
        weights = self.smoothed
        ends = weights.cumsum(0)
        places = torch.from_numpy((chance.permutation(count) + chance.random()) / count)
        chosen = self.points[torch.searchsorted(ends, places).clamp(max=len(ends) - 1)]
        mean, root = _moments(self.points, weights)
        effective = float(1 / weights.square().sum())
        width = min(0.95, 0.9 * max(5.0, effective) ** (-1 / (size + 4)))
        noise = torch.from_numpy(chance.standard_normal((count, size))) @ root.T
        return mean + math.sqrt(1 - width**2) * (chosen - mean) + width * noise


def conditioned(
    model: Model,
    scale: Scale,
    fixed: Mapping[str, float],
    series: Observations,
    days: int,
    evaluations: int = 1000,
    seed: int = 0,
    acts: Sequence[Sequence[Any]] = (),
) -> Weighted:
    r"""Weigh points of parameters by guided runs, drawn where earlier ones say that the posterior is.

    A point's weight has one guided run's in it (`lpmppl.effects.handlers.guided`), whose mean is the probability of
    what was seen, over the density of all rounds' proposals together (Cornuet et al., Scand. J. Stat. 39, 2012, 798),

    .. math:: w_j = \frac{\pi(u_j)\, \hat L_j}{\sum_r \frac{n_r}{n} q_r(u_j)}, \qquad
        \mathbb E\, \hat L_j = P(k_1, \dots, k_T \mid u_j)

    The first rounds come from the prior; the later ones from a Student's t distribution where a quadratic fit of the
    log-weights has its peak, from kernels on points drawn by tempered weights, and from the prior. To how many a
    yes-or-no site falls that stands before the first step, if its probability depends on the parameters, is a
    coordinate of its own among them, of which the weight has the exact probability.

    Args:
        model: the society.
        scale: the parameters that are asked for, on their scale.
        fixed: the other parameters' values; those that aren't named are at their defaults.
        series: by hazard site, the number of events on each day, NaN where it wasn't seen.
        days: how many days.
        evaluations: how many guided runs at most, 100 or more.
        seed: the seed of all chance.
        acts: interventions: name, value and day.
    Returns:
        the weighted points.
    Raises:
        InputError: for a series or site that can't be used, or too few evaluations.
        LpmError: where no run from the prior could be as was seen.
    """
    evaluations = whole("evaluations", evaluations, _LEAST)
    guide = Guide(model, Guided(series).observations, whole("days", days, 1), int(seed), acts)
    sampler = _Sampler(guide, scale, fixed)
    while (left := evaluations - sampler.runs) > 0:
        size = max(_ROUND, sampler.runs // _GROWTH) if sampler.power >= _FOUND else _ROUND
        sampler.round(min(left, size))
        if not sampler.possible and sampler.runs >= evaluations // _PATIENCE:
            raise LpmError(
                f"none of {sampler.runs} runs from the priors could have the events that were seen; check the counts "
                "and the number of people, widen the priors, or give more evaluations"
            )
    return Weighted.of(sampler.points[:, : len(scale)], sampler.log_weights())


@dataclass
class _Sampler:
    """The runs so far, and what they were drawn from.

    Points are of shape (n, P + S): the parameters u, and for each of S sites before the first step log(K + v), K being
    to how many it falls and v uniform on (0, 1).
    """

    guide: Guide
    scale: Scale
    fixed: Mapping[str, float]
    runs: int = 0
    from_prior: int = 0
    power: float = 0.0
    proposals: list[tuple[_Kernels, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = np.random.default_rng(self.guide.seed)
        self.rest = {n: self.fixed.get(n, p.default) for n, p in self.guide.model.parameters.items()}
        self.sites = _beginnings(self.guide.model, self.rest, self.scale)
        size = len(self.scale) + len(self.sites)
        self.points = torch.zeros(0, size, dtype=torch.float64)
        self.log_prior = torch.zeros(0, dtype=torch.float64)
        self.log_target = torch.zeros(0, dtype=torch.float64)
        self.kernels: list[_Kernels] = []

    @property
    def possible(self) -> bool:
        """Whether a run could be as was seen."""
        return bool(torch.isfinite(self.log_target).any())

    def round(self, count: int) -> None:
        """Propose points, and run each once."""
        if self.runs < _PRIOR_ROUNDS * _ROUND or not self.possible:
            points, prior = self._from_prior(count), count
        else:
            prior = max(1, int(_DEFENSIVE * count))
            parts = [self._from_prior(prior)]
            wide = int(_WIDE * count)
            for kernel, many in zip(self.kernels, (wide, count - prior - wide), strict=True):
                if many:
                    parts.append(kernel.drawn(many, self.chance))
                    self.proposals.append((kernel, many))
            points = torch.cat(parts)
        log_prior, log_target = self._evaluated(points)
        self.points = torch.cat([self.points, points])
        self.log_prior = torch.cat([self.log_prior, log_prior])
        self.log_target = torch.cat([self.log_target, log_target])
        self.runs, self.from_prior = self.runs + count, self.from_prior + prior
        if self.possible:
            self.kernels, self.power = _fitted(self.points, self.log_weights(), self.log_target, self.chance)

    def log_weights(self) -> Tensor:
        """The log-weights of all points by the density of all proposals, shape (n,)."""
        parts = [self.log_prior + math.log(self.from_prior)]
        parts += [kernel.log_density(self.points) + math.log(many) for kernel, many in self.proposals]
        density = torch.logsumexp(torch.stack(parts), 0) - math.log(self.runs)
        return torch.where(torch.isfinite(self.log_target), self.log_target - density, -math.inf)

    def _from_prior(self, count: int) -> Tensor:
        u = self.scale.drawn(count, int(self.chance.integers(2**62)))
        if not self.sites:
            return u
        numbers = _drawn_beginnings(self.guide, self._values(u), self._draws(count), self.sites)
        uniform = torch.from_numpy(self.chance.random((count, len(self.sites))))
        return torch.cat([u, torch.log(numbers + uniform)], -1)

    def _evaluated(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The log-densities of the prior and of the target, whose probability of what was seen is one run's."""
        size = len(self.scale)
        u, start = points[:, :size], points[:, size:]
        most = math.log(self.guide.model.population.size + 1)
        inside = (u.abs() <= _REACH).all(-1) & (start < most).all(-1)
        log_prior, log_target = (torch.full((len(points),), -math.inf, dtype=torch.float64) for _ in range(2))
        if not bool(inside.any()):
            return log_prior, log_target
        u, start = u[inside], start[inside]
        numbers = {site: x.exp().floor().long() for site, x in zip(self.sites, start.unbind(-1), strict=True)}
        began, log_weight = self.guide(self._values(u), self._draws(len(points))[: len(u)], numbers)
        density = self.scale.log_prior(u) + start.sum(-1)
        log_prior[inside], log_target[inside] = density + began, density + log_weight
        return log_prior, log_target

    def _values(self, u: Tensor) -> list[dict[str, float]]:
        return [{**self.rest, **one} for one in self.scale.values(u)]

    def _draws(self, count: int) -> range:
        """Draws of chance that no other run has."""
        return range(self.runs, self.runs + count)


class _Beginnings(Messenger):
    """Keep the yes-or-no sites of agents before the first step whose probability has a derivative, and their counts."""

    reads_sparse = True

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, Tensor] = {}
        self.differentiated: list[str] = []

    def _pyro_post_sample(self, msg: Message) -> None:
        law, infer = base_of(msg["fn"]), msg["infer"] or {}
        site, step = place_of(infer, msg["name"])
        if step == BEFORE and isinstance(law, dist.Bernoulli) and infer.get("agents") is not None:
            self.counts[site] = msg["value"].detach().sum(-1)
            if law.probs.requires_grad:
                self.differentiated.append(site)


def _beginnings(model: Model, rest: Mapping[str, float], scale: Scale) -> list[str]:
    """The sites before the first step to whose number of agents the parameters matter."""
    device, found = model.population.device, _Beginnings()
    with playing(model, 0, 0, (), DiscreteTime(), inside=[found]):
        model.initial(
            {n: torch.tensor(x, device=device, requires_grad=n in scale.names) for n, x in rest.items()},
        )
    return list(dict.fromkeys(found.differentiated))


def _drawn_beginnings(
    guide: Guide, values: Sequence[Mapping[str, float]], draws: Sequence[int], sites: Sequence[str]
) -> Tensor:
    """To how many each site falls by chance, with each of some settings: shape (R, S)."""
    device, out = guide.model.population.device, []
    for one, draw in zip(values, draws, strict=True):
        found = _Beginnings()
        with torch.no_grad(), playing(guide.model, guide.seed, draw, (), DiscreteTime(), inside=[found]):
            guide.model.initial({n: torch.tensor(x, device=device) for n, x in one.items()})
        out.append(torch.stack([found.counts[site].reshape(()).double() for site in sites]))
    return torch.stack(out).cpu()


def _moments(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted mean, and a root of the weighted covariance."""
    mean = weights @ points
    away = points - mean
    covariance = (weights[:, None] * away).T @ away
    floor = 1e-12 + 1e-9 * torch.diagonal(covariance).mean()
    return mean, torch.linalg.cholesky(covariance + floor * torch.eye(len(mean), dtype=points.dtype))


@dataclass(frozen=True)
class _Kernels:
    """A mixture, of equal shares, of Student's t distributions about some centres.

    Attributes:
        centres: shape (m, D).
        root: the lower root of the scale's covariance, shape (D, D).
    """

    centres: Tensor
    root: Tensor

    def drawn(self, count: int, chance: np.random.Generator) -> Tensor:
        """Points, shape (count, D)."""
        size = self.centres.shape[-1]
        normal = torch.from_numpy(chance.standard_normal((count, size))) @ self.root.T
        spread = torch.from_numpy(np.sqrt(_FREEDOM / chance.chisquare(_FREEDOM, (count, 1))))
        return self.centres[torch.from_numpy(chance.integers(len(self.centres), size=count))] + normal * spread

    def log_density(self, points: Tensor) -> Tensor:
        """The log-density at points of shape (n, D): shape (n,)."""
        size = points.shape[-1]
        here, there = (torch.linalg.solve_triangular(self.root, x.T, upper=False).T for x in (points, self.centres))
        # Not by the dot product, which loses the digits of what is near and far from 0.
        square = torch.cdist(here, there, compute_mode="donot_use_mm_for_euclid_dist").square()
        constant = (
            math.lgamma((_FREEDOM + size) / 2)
            - math.lgamma(_FREEDOM / 2)
            - size / 2 * math.log(_FREEDOM * math.pi)
            - float(self.root.diagonal().log().sum())
        )
        each = constant - (_FREEDOM + size) / 2 * torch.log1p(square / _FREEDOM)
        return each.logsumexp(-1) - math.log(len(self.centres))


def _tempered(log_weights: Tensor, needed: float) -> tuple[Tensor, float]:
    """Weights to the greatest power, 1 or less, at which they are worth so many points, shape (n,), and the power."""
    power = 1.0
    while True:
        weights = torch.softmax(log_weights * power, 0)
        if float(1 / weights.square().sum()) >= needed or power < 1e-4:
            return weights, power
        power *= 0.8


def _fitted(
    points: Tensor, log_weights: Tensor, log_target: Tensor, chance: np.random.Generator
) -> tuple[list[_Kernels], float]:
    r"""Proposals for a target that is known at points, up to the noise of one run each.

    The weights are tempered until they are worth some points. On the scale z on which these have mean 0 and covariance
    1, a ridge regression finds how the target differs from as narrow a normal one,

    .. math:: \log \pi(z) + \tfrac12 z^\top z \approx a + b^\top z + z^\top B z

    so that single runs' luck is averaged out; its peak and curvature place a wide component. Kernels about points that
    are drawn by the tempered weights follow what isn't normal.

    Args:
        points: shape (n, D).
        log_weights: their log-weights, shape (n,), minus infinity where the target is 0.
        log_target: the log of the target at them, shape (n,).
        chance: draws the centres.
    Returns:
        the wide component and the kernels, and the power to which the weights were taken.
    """
    can = torch.isfinite(log_weights)
    x, log_weights, log_target = points[can], log_weights[can], log_target[can]
    size, dtype = x.shape[-1], x.dtype
    weights, power = _tempered(log_weights, min(_NEEDED, len(x) / 2))
    mean = weights @ x
    away = x - mean
    covariance = (weights[:, None] * away).T @ away
    # Points that are few lie in a plane; what they don't say is as wide as the least of all scales.
    covariance = covariance + 1e-6 * torch.diag(torch.diagonal(covariance)) + 1e-8 * torch.eye(size, dtype=dtype)
    root = torch.linalg.cholesky(covariance)
    z = torch.linalg.solve_triangular(root, away.T, upper=False).T
    peak, narrowed = _quadratic(z, log_target + z.square().sum(-1) / 2, weights / weights.square().sum())
    wide = root @ narrowed @ root.T * _INFLATION
    centres = x[torch.from_numpy(chance.choice(len(x), _CENTRES, p=(weights / weights.sum()).numpy()))]
    kernels = [
        _Kernels((mean + root @ peak)[None], torch.linalg.cholesky((wide + wide.T) / 2)),
        _Kernels(centres, root * math.sqrt(_KERNEL)),
    ]
    return kernels, power


def _quadratic(z: Tensor, above: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The peak (D,) and covariance (D, D) of a target that is so much above the standard normal."""
    size = z.shape[-1]
    i, j = torch.triu_indices(size, size)
    design = torch.cat([torch.ones_like(z[:, :1]), z, z[:, i] * z[:, j]], -1)
    penalty = torch.full((design.shape[-1],), _SHRINKAGE, dtype=z.dtype)
    penalty[0] = 1e-6
    above = above - (weights @ above) / weights.sum()
    gram = design.T @ (weights[:, None] * design) + torch.diag(penalty)
    found = torch.linalg.solve(gram, design.T @ (weights * above))
    bend = torch.zeros(size, size, dtype=z.dtype)
    bend[i, j] = found[1 + size :]
    curvature, axes = torch.linalg.eigh(torch.eye(size, dtype=z.dtype) - bend - bend.T)
    curvature = curvature.clamp(1.0, _NARROWER)
    peak = axes @ ((axes.T @ found[1 : 1 + size]) / curvature)
    return peak * min(1.0, _FARTHEST / float(peak.norm() + 1e-12)), axes @ torch.diag(1 / curvature) @ axes.T
