"""Parameters on the scale on which they are unbounded and their priors have a spread of about one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import biject_to

from lpmppl.errors import InputError, nearest
from lpmppl.inference.differences import inside, spread
from lpmppl.models.model import Model

__all__ = ["Scale"]


class Scale:
    r"""The map :math:`u_k = (g_k(\theta_k) - g_k(\theta_k^0)) / s_k` of some of a model's parameters.

    g unbounds a parameter by the support of its prior, as torch's `biject_to` does, θ⁰ is its default or what it is set
    to, and s the standard deviation of the prior on that scale.

    Args:
        model: the society.
        names: the parameters.
        centre: values that are 0 on the scale; the defaults by default.
    Raises:
        InputError: for a parameter that there isn't, or one that has no room about its default.
    """

    def __init__(self, model: Model, names: Sequence[str], centre: Mapping[str, float] | None = None) -> None:
        self.names = list(names)
        for name in self.names:
            if name not in model.parameters:
                raise InputError(nearest("parameter", name, model.parameters))
        self.priors = [model.parameters[name].prior for name in self.names]
        self._bounded = [biject_to(prior.support) for prior in self.priors]
        self._spread = [spread(model, name) for name in self.names]
        at = {name: model.parameters[name].default for name in self.names} | dict(centre or {})
        self._centre = []
        for name, bounded in zip(self.names, self._bounded, strict=True):
            if not inside(model, name, at[name]):
                raise InputError(
                    f"parameter {name}={at[name]:g} lies at the edge of its prior; leave it out of the fit"
                )
            self._centre.append(float(bounded.inv(torch.tensor(at[name], dtype=torch.float64))))

    def __len__(self) -> int:
        return len(self.names)

    def at(self, name: str) -> float:
        """The value of a parameter that is 0 on the scale."""
        k = self.names.index(name)
        return float(self._bounded[k](torch.tensor(self._centre[k], dtype=torch.float64)))

    def columns(self, u: Tensor) -> list[Tensor]:
        """The parameters of points u, shape (…, P): for each one a tensor of shape (…), float64."""
        raw = zip(self._bounded, self._centre, self._spread, u.unbind(-1), strict=True)
        return [bounded(centre + width * x) for bounded, centre, width, x in raw]

    def values(self, u: Tensor) -> list[dict[str, float]]:
        """The parameters of points u, shape (n, P), by name, in single precision, in which a run has them."""
        columns = [column.float().tolist() for column in self.columns(u)]
        return [{n: column[k] for n, column in zip(self.names, columns, strict=True)} for k in range(len(u))]

    def points(self, values: Mapping[str, Tensor]) -> Tensor:
        """The points of values by name, each of shape (n,): shape (n, P), float64."""
        raw = zip(self.names, self._bounded, self._centre, self._spread, strict=True)
        return torch.stack([(b.inv(values[n].double()) - centre) / width for n, b, centre, width in raw], -1)

    def unbounded(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A point, with whatever comes after its parameters, on the scales on which its sites are unbounded.

        Args:
            x: shape (P + K,).
        Returns:
            the point there and how much wider each of these scales is, both of shape (P + K,).
        """
        width, centre = torch.ones_like(x), torch.zeros_like(x)
        width[: len(self)] = torch.tensor(self._spread, dtype=x.dtype)
        centre[: len(self)] = torch.tensor(self._centre, dtype=x.dtype)
        return centre + width * x, width

    def log_prior(self, u: Tensor) -> Tensor:
        """The log-density of the priors at points u, shape (…, P), on this scale: shape (…), with its derivative."""
        total = u.new_zeros(u.shape[:-1])
        raw = zip(self.priors, self._bounded, self._centre, self._spread, u.unbind(-1), strict=True)
        for prior, bounded, centre, width, x in raw:
            free = centre + width * x
            theta = bounded(free)
            total = total + prior.log_prob(theta) + bounded.log_abs_det_jacobian(free, theta) + np.log(width)
        return total

    def drawn(self, count: int, seed: int) -> Tensor:
        """Points of draws from the priors, shape (n, P); the global random state is as it was afterwards."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            samples = {n: prior.sample((count,)).double() for n, prior in zip(self.names, self.priors, strict=True)}
        return self.points(samples).clamp(-8.0, 8.0) if samples else torch.zeros(count, 0, dtype=torch.float64)
