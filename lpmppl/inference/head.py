"""What a calibrating network ends in: a posterior of a society's parameters, normal or bent by a flow."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from pyro.distributions import transforms
from pyro.nn import ConditionalAutoRegressiveNN
from torch import Size, Tensor, nn
from torch.distributions import Distribution, LowRankMultivariateNormal

from lpmppl.errors import InputError, nearest
from lpmppl.inference.guides import REACH, begin_near_identity

if TYPE_CHECKING:
    from lpmppl.inference.reader import Task

__all__ = ["GUIDES", "WIDTH", "Bent", "Head", "Posterior", "ranks"]

GUIDES = ("multivariate-normal", "spline")
"""A normal with correlations, and that bent by an autoregressive flow of neural splines."""

WIDTH = 64
"""How wide the network is."""

Posterior = Distribution

_LEAST_SPREAD = 1e-3
"""The least standard deviation of a posterior, on the parameters' scale."""

_BINS, _RANKED, _TOLD = 8, 400, 2000
"""The pieces of a spline, the draws among which a parameter is ranked, and those that tell moments."""


class Head(nn.Module):
    """From what was read to the posterior of a society's parameters.

    Outputs of a parameter are shared by its name; a flow, whose splines depend on all of them, belongs to the societies
    that have the same.

    Args:
        parameters: the names of the parameters of each society.
        context: how many numbers tell a society from others.
        rank: how many loadings each parameter has.
        guide: one of `GUIDES`.
    Raises:
        InputError: for a guide that there isn't.
    """

    def __init__(self, parameters: Collection[Sequence[str]], context: int, rank: int, guide: str) -> None:
        super().__init__()
        if guide not in GUIDES:
            raise InputError(nearest("guide", str(guide), GUIDES))
        self.trunk = nn.Sequential(nn.Linear(2 * WIDTH + context, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        every = sorted({n for names in parameters for n in names})
        self.outputs = nn.ModuleDict({f"of {n}": nn.Linear(WIDTH, 2 + rank) for n in every})
        bent = dict.fromkeys(map(tuple, parameters)) if guide == "spline" else {}
        self.flows = nn.ModuleDict({_key(names): _flow(len(names)) for names in bent})
        self.guide = guide

    def forward(self, task: Task, read: Tensor) -> Posterior:
        """The posterior given what was read of each series, shape (B, S, 2W)."""
        names = task.scale.names
        hidden = self.trunk(torch.cat([read.mean(1), task.context.expand(len(read), -1)], -1))
        out = torch.stack([self.outputs[f"of {n}"](hidden) for n in names], -2).double()
        spread = nn.functional.softplus(out[..., 1]) ** 2 + _LEAST_SPREAD**2
        normal = LowRankMultivariateNormal(out[..., 0], out[..., 2:], spread, validate_args=False)
        if self.guide != "spline":
            return normal
        if _key(names) not in self.flows:
            raise InputError(
                f"the network has no flow of the parameters {', '.join(names)} together: learn a society that has just "
                "these, or give guide='multivariate-normal'"
            )
        flow: Any = self.flows[_key(names)]
        return Bent(normal, flow.condition(hidden))


class Bent(Distribution):
    r"""A normal law bent by a flow T, where R is the root of its covariance.

    .. math:: u = \mu + R z, \qquad T(z) \sim N(0, 1), \qquad
        \log q(u) = \log N\big(T(z)\big) + \log |\partial T / \partial z| - \log |R|

    Args:
        normal: of batch shape (B,), over P numbers.
        flow: T, from and to P numbers, shape (…, B, P).
    """

    arg_constraints: dict[str, Any] = {}

    def __init__(self, normal: LowRankMultivariateNormal, flow: Any) -> None:
        super().__init__(normal.batch_shape, normal.event_shape, validate_args=False)
        self.normal, self.flow = normal, flow

    @cached_property
    def _root(self) -> Tensor:
        return torch.linalg.cholesky(self.normal.covariance_matrix)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density, shape (…, B)."""
        apart = (value - self.normal.mean).unsqueeze(-1)
        root = self._root.expand(*apart.shape[:-1], -1)
        z = torch.linalg.solve_triangular(root, apart, upper=False).squeeze(-1).float()
        noise = self.flow(z)
        bend = self.flow.log_abs_det_jacobian(z, noise).double()
        size = self._root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return torch.distributions.Normal(0.0, 1.0).log_prob(noise.double()).sum(-1) + bend - size

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of torch's random state, shape (…, B, P)."""
        with torch.no_grad():
            noise = torch.randn(self._extended_shape(Size(sample_shape)))
            z = self.flow.inv(noise).double()
            return self.normal.mean + (self._root @ z.unsqueeze(-1)).squeeze(-1)

    @cached_property
    def _some(self) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.sample((_TOLD,))

    @property
    def mean(self) -> Tensor:
        """Of 2,000 draws that are always the same, shape (B, P)."""
        return self._some.mean(0)

    @property
    def variance(self) -> Tensor:
        """Of these draws too, shape (B, P)."""
        return self._some.var(0)


def ranks(posterior: Posterior, u: Tensor, seed: int) -> Tensor:
    """Where numbers u, shape (B, P), are in a posterior, each by itself: shape (B, P), on (0, 1).

    Of a normal law that is known; of another it is told from draws, which the seed makes.
    """
    if isinstance(posterior, LowRankMultivariateNormal):
        return torch.special.ndtr((u - posterior.mean) / posterior.stddev)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        draws = posterior.sample(Size((_RANKED,)))
    return ((draws < u).sum(0) + 0.5) / (_RANKED + 1.0)


def _key(names: Sequence[str]) -> str:
    return "of " + ", ".join(names).replace(".", " ")


def _flow(size: int) -> nn.Module:
    """A flow of so many numbers given what was read, which begins near the identity."""
    widths = [_BINS, _BINS, _BINS - 1, _BINS]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "ConditionalAutoRegressiveNN input_dim = 1")
        network = ConditionalAutoRegressiveNN(size, WIDTH, [WIDTH], param_dims=widths, skip_connections=False)
    flow: nn.Module = transforms.ConditionalSplineAutoregressive(size, network, count_bins=_BINS, bound=REACH)
    begin_near_identity(flow)
    return flow
