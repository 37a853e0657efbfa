"""What a fit is after, as a Pyro program: the counts that were observed, given parameters and everybody's chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.distributions import Counted
from lpmppl.errors import LpmError
from lpmppl.inference.observed import Observed
from lpmppl.inference.response import Response
from lpmppl.inference.scales import Scale

__all__ = ["CHANCE", "Counts", "Generalised", "Loss", "squared"]

Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""Expected and observed counts by stream to a loss."""

CHANCE = "chance"
"""The site of what chance adds to all counts of a run, and of what the model lacks."""

_EDGE = 12.0
"""How far a parameter may be from its centre, on its scale: beyond, numbers are no parameters any more."""

_STEPS, _NEAR, _FACTOR = 60, 1e-6, 4.0
"""Newton steps to a mode at most, when it is found, and by how much they shorten or lengthen."""


class Counts:
    r"""The program of parameters and of the counts that were observed.

    .. math:: \theta \sim \pi, \quad \epsilon \sim N(0, 1), \quad
        y_c \sim \mathrm{NegBin}\Big(m_c,\; m_c + \frac{m_c^2}{k_c} + \varphi_c m_c\Big), \quad m = m(\theta, \epsilon)

    Its sites are the parameters, `chance`, and one for each stream, named as in the data. What the society's own chance
    adds is in ε, for what days and strata have in common, and in φ, for what each has alone.

    Args:
        scale: the parameters.
        response: how expected counts follow them.
        observed: what was observed.
        agents: of how many agents the society is.
    """

    def __init__(self, scale: Scale, response: Response, observed: Observed, agents: int) -> None:
        self.scale, self.response, self.observed, self.agents = scale, response, observed, agents
        self._seen = [torch.from_numpy(~np.isnan(s.counts)).reshape(-1) for s in observed.streams]
        self._counts = [torch.from_numpy(np.nan_to_num(s.counts)).reshape(-1) for s in observed.streams]
        ends = np.cumsum([len(c) for c in self._counts])
        self._parts = [slice(end - len(c), end) for end, c in zip(ends, self._counts, strict=True)]
        self.factors = response.latent

    def __call__(self) -> None:
        """Sample the parameters and chance, and observe the counts."""
        mean, size = self.response.at(*self._latent(), self.agents)
        for stream, of, seen, y in zip(self.observed.streams, self._parts, self._seen, self._counts, strict=True):
            pyro.sample(stream.name, Counted(mean[..., of], size[..., of]).mask(seen).to_event(1), obs=y)

    def _latent(self) -> tuple[Tensor, Tensor]:
        """Sample the parameters, given on their scale, and chance."""
        values = {n: pyro.sample(n, prior) for n, prior in zip(self.scale.names, self.scale.priors, strict=True)}
        nothing = torch.zeros(self.factors, dtype=torch.float64)
        return self.scale.points(values), pyro.sample(CHANCE, dist.Normal(nothing, 1.0).to_event(1))

    def log_likelihood(self, u: Tensor, epsilon: Tensor) -> Tensor:
        """The log-probability of each count, zero where it wasn't seen.

        Args:
            u: parameters on their scale, shape (…, P).
            epsilon: what chance adds, shape (…, K).
        Returns:
            float64 of shape (…, D).
        """
        mean, size = self.response.at(u, epsilon, self.agents)
        found = Counted(mean, size).log_prob(torch.cat(self._counts))
        return torch.where(torch.cat(self._seen), found, 0.0)

    def log_joint(self, x: Tensor) -> Tensor:
        """The log-density of parameters on their scale and chance, shape (…, P + K), with all counts: shape (…)."""
        u, epsilon = x[..., : len(self.scale)], x[..., len(self.scale) :]
        return self.scale.log_prior(u) - 0.5 * (epsilon**2).sum(-1) + self.log_likelihood(u, epsilon).sum(-1)

    def mode(self, start: Tensor, trust: float | None = None) -> tuple[Tensor, Tensor]:
        """The most probable parameters and chance, by Newton's method, and the covariance of the normal about them.

        Args:
            start: where to begin, shape (P + K,).
            trust: keep near the start, as by a normal of this standard deviation about it.
        Raises:
            LpmError: where the density has no number at the start.
        """

        def loss(x: Tensor) -> Tensor:
            far = 0.0 if trust is None else 0.5 * (((x - start) / trust) ** 2).sum()
            return far - self.log_joint(x)

        at, damping = start.clone(), 1.0
        value = float(loss(at))
        if not np.isfinite(value):
            raise LpmError("what was observed has no probability where the fit begins; start it elsewhere with set=")
        eye = torch.eye(len(start), dtype=start.dtype)
        for _ in range(_STEPS):
            slope = torch.func.grad(loss)(at)
            bend = _positive(torch.func.hessian(loss)(at))
            while True:
                step = torch.linalg.solve(bend + damping * eye, slope)
                new = float(loss(at - step))
                if np.isfinite(new) and new <= value:
                    break
                damping *= _FACTOR
                if damping > 1e12:
                    step, new = torch.zeros_like(step), value
                    break
            at, gained, value, damping = at - step, value - new, new, damping / _FACTOR**2
            if gained < _NEAR:
                break
        for name, x in zip(self.scale.names, at.tolist(), strict=False):
            if abs(x) > _EDGE:
                raise LpmError(
                    f"what was observed drives {name} far beyond its prior, by {abs(x):.0f} of its standard "
                    "deviations; check the counts against the number of people, or widen the prior"
                )
        return at, torch.linalg.inv(_positive(torch.func.hessian(loss)(at)))


class Generalised(Counts):
    r"""A program after any loss between expected and observed counts, instead of their probability.

    Fitting a guide to it minimises :math:`\mathbb E_q\, \ell(x(\theta, \epsilon), y) + w\, \mathrm{KL}(q \| \pi)`, with
    π the prior of parameters and chance.

    Args:
        scale: the parameters.
        response: how expected counts follow them.
        observed: what was observed.
        agents: of how many agents the society is.
        loss: expected and observed counts by stream, of shapes (…, T, K) and (T, K), NaN where nothing was seen, to the
            loss, shape (…); it has a derivative.
        weight: w, above 0.
    """

    def __init__(
        self, scale: Scale, response: Response, observed: Observed, agents: int, loss: Loss, weight: float
    ) -> None:
        super().__init__(scale, response, observed, agents)
        self.loss, self.weight = loss, weight
        self._seen_counts = {s.name: torch.from_numpy(s.counts) for s in observed.streams}

    def __call__(self) -> None:
        u, epsilon = self._latent()
        pyro.factor("loss", -self._lost(u, epsilon))

    def log_joint(self, x: Tensor) -> Tensor:
        u, epsilon = x[..., : len(self.scale)], x[..., len(self.scale) :]
        return self.scale.log_prior(u) - 0.5 * (epsilon**2).sum(-1) - self._lost(u, epsilon)

    def _lost(self, u: Tensor, epsilon: Tensor) -> Tensor:
        mean, _ = self.response.at(u, epsilon, self.agents)
        parts = zip(self.observed.streams, self._parts, strict=True)
        found = {s.name: mean[..., of].unflatten(-1, s.counts.shape) for s, of in parts}
        lost = self.loss(found, self._seen_counts)
        if not isinstance(lost, Tensor) or lost.shape != mean.shape[:-1]:
            given = tuple(lost.shape) if isinstance(lost, Tensor) else type(lost).__name__
            raise LpmError(
                f"the loss gave {given} for {tuple(mean.shape[:-1])} runs: give a tensor with one loss for each"
            )
        return lost / self.weight


def squared(expected: Mapping[str, Tensor], observed: Mapping[str, Tensor]) -> Tensor:
    """The squared distance of expected and observed counts, in units of each stream's mean.

    >>> x, y = torch.tensor([[[2.0], [4.0]]]), torch.tensor([[2.0], [float("nan")]])
    >>> squared({"deaths": x}, {"deaths": y})
    tensor([0.])
    """
    total: Tensor | float = 0.0
    for name, y in observed.items():
        apart = torch.where(torch.isnan(y), 0.0, expected[name] - torch.nan_to_num(y))
        total = total + (apart**2).sum((-1, -2)) / y.nanmean().clamp(min=1.0)
    return torch.as_tensor(total)


def _positive(bend: Tensor) -> Tensor:
    """A symmetric matrix with its eigenvalues made positive."""
    values, vectors = torch.linalg.eigh((bend + bend.T) / 2)
    return vectors @ torch.diag(values.abs().clamp(min=1e-3)) @ vectors.T
