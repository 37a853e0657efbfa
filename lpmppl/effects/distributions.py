"""The distributions of a society's events: hazard-driven exposures, and the part of a step that is left after one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from scipy.special import betainc, nbdtrik, pdtr, pdtrik
from torch import Tensor

from lpmppl.effects.adjoints import exposed
from lpmppl.effects.cohorts import dense
from lpmppl.effects.fields import Field, shape_of
from lpmppl.effects.hazards import accumulate
from lpmppl.effects.internals.segments import broadcast, differentiated, empty
from lpmppl.effects.tape import on_tape, plain
from lpmppl.errors import InputError

__all__ = ["MOST", "Counted", "Exposure", "Left"]

MOST = 2.0**53
"""The greatest count: beyond it float64 has gaps."""


class Exposure(dist.TorchDistribution):
    r"""Whether an event driven by a hazard happens to an agent in this step.

    The cumulative hazard is in the state and accrues only while at risk: :math:`\Lambda' = \Lambda + \mathbb
    1_{risk}\, h\, \Delta t`. The event has probability :math:`1 - e^{-(\Lambda' - \Lambda)}`: eq. 8 of *Large
    Population Models* with :math:`h = \beta S_i n_i^{-1} \sum_j I_j`. Under `ExogenousNoise` it happens in the step in
    which the agent's one Exp(1) resistance R falls in :math:`(\Lambda, \Lambda']` (Sellke, J. Appl. Probab. 20, 1983).

    Args:
        before: cumulative hazard so far, shape (…, N); in float64 it doesn't lose the small days of a large city.
        hazard: hazard per unit of time, a field, a number or a tensor broadcastable to (…, N).
        at_risk: Boolean, shape (…, N).
        episode: which of the agent's episodes at risk this is, a number or integers of shape (…, N); an event that can
            happen again zeroes `before` and advances `episode` when the agent returns to risk.
        dt: the length of the step, in the unit of time of the hazard.
    Raises:
        InputError: where `at_risk` isn't Boolean, or the shapes don't broadcast.

    >>> at_risk = torch.tensor([True, True, False])
    >>> infection = Exposure(torch.zeros(3, dtype=torch.float64), torch.tensor([0.5, 1.0, 1.0]), at_risk)
    >>> infection.after.tolist()
    [0.5, 1.0, 0.0]
    >>> infection.log_prob(torch.tensor([True, False, False])).exp()
    tensor([0.3935, 0.3679, 1.0000], dtype=torch.float64)
    """

    arg_constraints = {"before": constraints.real, "after": constraints.real}
    support = constraints.boolean

    def __init__(
        self,
        before: Tensor,
        hazard: Tensor | Field | float,
        at_risk: Tensor,
        episode: Tensor | int = 0,
        dt: Tensor | float = 1.0,
        *,
        _shape: torch.Size | None = None,
    ) -> None:
        if at_risk.dtype != torch.bool:
            raise InputError(
                f"an Exposure's at_risk must be Boolean, but {at_risk.dtype} of shape {tuple(at_risk.shape)} was given"
            )
        self.before, self.hazard, self.at_risk, self.episode, self.dt = before, hazard, at_risk, episode, dt
        self._memo: dict[str, Tensor] = {}
        try:
            shape = broadcast(before.shape, shape_of(hazard), at_risk.shape)
        except ValueError as e:
            raise InputError(
                f"an Exposure's before {tuple(before.shape)}, hazard {tuple(shape_of(hazard))} and at_risk "
                f"{tuple(at_risk.shape)} don't "
                "broadcast; agents are on the last dimension of each"
            ) from e
        super().__init__(shape if _shape is None else _shape, validate_args=False)

    def check(self, name: str) -> None:
        """Refuse a hazard that is negative or no finite number, or added up in integers, by the name of its site."""
        hazard, dt, before = self.hazard, self.dt, self.before
        if isinstance(before, Tensor) and before.dtype not in (torch.float32, torch.float64):
            raise InputError(
                f"site '{name}': its cumulative hazard is {before.dtype}, which can't hold parts of one; start it from "
                "torch.zeros(…, dtype=torch.float64)"
            )
        parts = hazard.scales if isinstance(hazard, Field) else [hazard]
        for part in (*parts, dt):
            x = torch.as_tensor(part).detach()
            if not bool(((x >= 0) & (x < torch.inf)).all()):
                span = f"{float(x.min()):g} … {float(x.max()):g}"
                raise InputError(f"site '{name}': a hazard of {span} was given; it must be finite and 0 or more")

    @property
    def after(self) -> Tensor:
        """The cumulative hazard at the end of the step, shape (…, N); computed once."""
        if "after" not in self._memo:
            self._memo["after"] = self._accrue()
        return self._memo["after"]

    @property
    def met(self) -> Tensor:
        """The hazard of the step alone, whoever is at risk, with its derivative: float64 of shape (…, N)."""
        hazard = self.hazard.precise().dense() if isinstance(self.hazard, Field) else self.hazard
        return (torch.as_tensor(hazard).double() * torch.as_tensor(self.dt).double()).expand(self.batch_shape)

    def held(self, at_risk: Tensor) -> Exposure:
        """The same exposure of the agents at risk given, without a derivative: nor has this one's `after` any then."""
        hazard = self.hazard.detach() if isinstance(self.hazard, Field | Tensor) else self.hazard
        dt = self.dt.detach() if isinstance(self.dt, Tensor) else self.dt
        new = Exposure(self.before.detach(), hazard, at_risk, self.episode, dt, _shape=torch.Size(self.batch_shape))
        new._memo = self._memo
        with torch.no_grad():
            _ = new.after
        return new

    @property
    def _differentiated(self) -> bool:
        hazard = self.hazard
        if isinstance(hazard, Tensor) and differentiated(hazard):
            return True
        return (isinstance(hazard, Field) and hazard.differentiated) or differentiated(self.before)

    def _accrue(self, level: Tensor | None = None, crossed: Tensor | None = None) -> Tensor:
        """The cumulative hazard at the end of the step, on the tape where there is one and it carries a derivative."""
        hazard = self.hazard
        if not self._differentiated:
            return accumulate(self.before, hazard, self.at_risk, self.dt, level, crossed)
        if on_tape():
            return exposed(self.before, hazard, self.at_risk, self.dt, level, crossed)
        return accumulate(self.before, dense(hazard), self.at_risk, self.dt)

    def meet(self, resistance: Tensor) -> Tensor:
        """Say to whom the event happens in this step, where `resistance` lies in (before, after]; shape (…, N).

        Where the hazard is a field, the cumulative hazard is computed in the same pass.
        """
        one_pass = isinstance(self.hazard, Field) and (on_tape() or not self._differentiated)
        if "after" in self._memo or not one_pass:
            return (plain(self.after) > resistance) & (plain(self.before) <= resistance) & self.at_risk
        event = empty(broadcast(self.batch_shape, resistance.shape), torch.bool, self.before.device)
        self._memo["after"] = self._accrue(resistance, event)
        return event

    def expand(self, batch_shape: Any, _instance: Any = None) -> Exposure:
        new = Exposure(self.before, self.hazard, self.at_risk, self.episode, self.dt, _shape=torch.Size(batch_shape))
        # A plate expands the site's distribution; the model's own and the site's are one exposure, accumulated once.
        new._memo = self._memo
        return new

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        p = -torch.expm1((self.before - self.after).detach())
        # In the hazard's own precision: a coarser grid would make of every small probability a greater one.
        return self.at_risk & (torch.rand(shape, dtype=p.dtype, device=self.before.device) < p)

    def log_prob(self, value: Tensor) -> Tensor:
        h = self.after - self.before
        happened = value > 0
        possible = happened & (h > 0)
        safe = torch.where(possible, h, torch.ones_like(h))
        out = torch.where(happened, torch.log(-torch.expm1(-safe)), -h)
        impossible = happened & ~(self.at_risk & (h > 0))
        out = torch.where(impossible, torch.full_like(out, -torch.inf), out)
        return out.expand(self.batch_shape)


class Left(dist.TorchDistribution):
    r"""The fraction of the step left after an event, zero where nothing happened: 1 minus a truncated exponential.

    With :math:`h = \Lambda' - \Lambda` the density on (0, 1) is :math:`h e^{-h(1 - x)} / (1 - e^{-h})`; under
    `ExogenousNoise` the value is :math:`1 - (R - \Lambda)/(\Lambda' - \Lambda)`.

    Args:
        exposure: the exposure that the event comes from.
        event: Boolean, shape (…, N).
    """

    arg_constraints = {"before": constraints.real, "after": constraints.real}
    support = constraints.unit_interval

    def __init__(self, exposure: Exposure, event: Tensor, *, _shape: torch.Size | None = None) -> None:
        self.exposure, self.event = exposure, event
        shape = broadcast(exposure.batch_shape, event.shape)
        super().__init__(shape if _shape is None else _shape, validate_args=False)

    @property
    def before(self) -> Tensor:
        return self.exposure.before

    @property
    def after(self) -> Tensor:
        return self.exposure.after

    def expand(self, batch_shape: Any, _instance: Any = None) -> Left:
        return Left(self.exposure, self.event, _shape=torch.Size(batch_shape))

    @staticmethod
    def quantile(h: Tensor, u: Tensor) -> Tensor:
        """The inverse CDF at `u` for a step's hazard `h`, both of one shape."""
        h = h.clamp(min=1e-30)
        return (1 + torch.log1p(u * torch.expm1(-h)) / h).clamp(0.0, 1.0)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        h = (self.after - self.before).detach()
        x = self.quantile(h, torch.rand(shape, device=h.device, dtype=h.dtype))
        return torch.where(self.event, x, 0.0).float()

    def log_prob(self, value: Tensor) -> Tensor:
        h = (self.after - self.before).clamp(min=1e-30)
        density = torch.log(h) - h * (1 - dense(value)) - torch.log(-torch.expm1(-h))
        return torch.where(self.event, density, torch.zeros_like(density)).expand(self.batch_shape)


class Counted(dist.TorchDistribution):
    r"""A count with more variance than a Poisson's: negative binomial of a mean, with variance :math:`m + m^2 / k`.

    Args:
        mean: the expected count m, 0 or more, shape (…, G).
        size: k, above 0, a number or a tensor that broadcasts with the mean.

    >>> Counted(torch.tensor([0.0, 100.0]), 10.0).variance
    tensor([   0., 1100.])
    """

    arg_constraints = {"mean_count": constraints.nonnegative, "size": constraints.positive}
    support = constraints.nonnegative_integer

    def __init__(self, mean: Tensor, size: Tensor | float, *, _shape: torch.Size | None = None) -> None:
        self.mean_count, self.size = torch.broadcast_tensors(mean, torch.as_tensor(size, dtype=mean.dtype))
        super().__init__(self.mean_count.shape if _shape is None else _shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.mean_count

    @property
    def variance(self) -> Tensor:
        return self.mean_count + self.mean_count**2 / self.size

    def expand(self, batch_shape: Any, _instance: Any = None) -> Counted:
        shape = torch.Size(batch_shape)
        return Counted(self.mean_count.expand(shape), self.size.expand(shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        mean, size = (x.detach().double().expand(shape) for x in (self.mean_count, self.size))
        return torch.poisson(torch._standard_gamma(size) * (mean / size)).to(self.mean_count.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        m, k, some = self.mean_count, self.size, self.mean_count > 0
        # Where nothing is expected a derivative would be 0 / 0.
        m = torch.where(some, m, 1.0)
        out = torch.lgamma(value + k) - torch.lgamma(k) - torch.lgamma(value + 1)
        out = out - k * torch.log1p(m / k) + torch.xlogy(value, m / (m + k))
        return torch.where(some, out, torch.where(value > 0, -torch.inf, 0.0).to(out.dtype))

    def icdf(self, value: Tensor) -> Tensor:
        """The smallest count whose cumulative probability reaches `value`; it carries no derivative."""
        mean, size = (x.detach().double().cpu().numpy() for x in (self.mean_count, self.size))
        mean, size, u = np.broadcast_arrays(mean, size, value.detach().double().cpu().numpy())
        found = np.zeros(mean.shape)
        some = (mean > 0) & ~(u <= np.exp(-size * np.log1p(mean / size)))
        found[some] = _count_at(mean[some], size[some], u[some])
        return torch.as_tensor(found, dtype=self.mean_count.dtype, device=value.device)


def _count_at(mean: np.ndarray, size: np.ndarray, u: np.ndarray) -> np.ndarray:
    """The smallest count whose cumulative probability reaches u, where that is above the probability of none."""
    p = size / (size + mean)
    # Beyond the reach of the one function the count is a Poisson's.
    poisson = p > 1 - 1e-12
    found = np.where(poisson, pdtrik(u, mean), nbdtrik(u, size, p)) if poisson.any() else nbdtrik(u, size, p)
    # The inverse is of a continuous extension of the distribution function: one off where that is rounded.
    count = np.ceil(np.clip(np.nan_to_num(found), 0, MOST))
    below = np.maximum(count - 1, 0)
    reached = np.where(poisson, pdtr(below, mean), betainc(size, below + 1, p))
    return np.where(reached >= u, below, count)
