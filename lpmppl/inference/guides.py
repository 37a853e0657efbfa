"""Guides by name: the families in which a posterior is looked for, each begun from a normal about its mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from pyro.infer.autoguide import AutoContinuous, AutoGuide, AutoMultivariateNormal, AutoNormal
from torch import Tensor, nn

from lpmppl.errors import InputError, nearest

__all__ = ["GUIDES", "REACH", "begin_near_identity", "guide_of"]

GUIDES = ("multivariate-normal", "normal", "iaf", "spline")
"""A normal with all correlations; one with none, which is too narrow where there are such; an inverse autoregressive
flow, and an autoregressive flow of neural splines, either one onto the normal with all correlations."""

REACH = 5.0
"""Standard deviations within which splines bend."""

_SMALL = 0.1
"""By how much a flow's first weights are made smaller, so that it begins near the normal."""


def guide_of(name: str, program: Callable[[], Any], mode: Tensor, covariance: Tensor, seed: int = 0) -> AutoGuide:
    """A guide of a program in double precision, which begins as a normal; the global random state stays as it was.

    Args:
        name: one of `GUIDES`.
        program: the Pyro program.
        mode: the normal's mean on the scales on which the program's sites are unbounded, in their order, shape (L,).
        covariance: its covariance, shape (L, L).
        seed: the seed of a flow's first weights.
    Raises:
        InputError: for a guide that there isn't.
    """
    if name not in GUIDES:
        raise InputError(nearest("guide", str(name), GUIDES))
    with torch.random.fork_rng(devices=[]), pyro.get_param_store().scope():
        torch.manual_seed(seed)
        return _begun(name, program, mode, covariance)


def _begun(name: str, program: Callable[[], Any], mode: Tensor, covariance: Tensor) -> AutoGuide:
    root = torch.linalg.cholesky(covariance)
    if name in ("iaf", "spline"):
        return _Flow(program, name, mode, root).to(torch.float64)
    if name == "normal":
        apart = AutoNormal(program)
        apart()
        apart.to(torch.float64)
        _begin_apart(apart, mode, torch.linalg.inv(covariance).diagonal() ** -0.5)
        return apart
    guide = AutoMultivariateNormal(program)
    guide()
    guide.to(torch.float64)
    guide.loc.data = mode.clone()
    guide.scale = root.diagonal().clone()
    guide.scale_tril = root / root.diagonal().unsqueeze(-1)
    return guide


def _begin_apart(guide: AutoNormal, mode: Tensor, spread: Tensor) -> None:
    """Put each site's normal where its part of the whole is."""
    first = 0
    trace: Any = guide.prototype_trace
    for site in trace.stochastic_nodes:
        loc = getattr(guide.locs, site)
        size = max(1, loc.numel())
        loc.data = mode[first : first + size].reshape(loc.shape).clone()
        setattr(guide.scales, site, spread[first : first + size].reshape(loc.shape).clone())
        first += size


def begin_near_identity(flow: nn.Module) -> None:
    """Make a flow's first weights smaller, in place."""
    for layer in flow.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data *= _SMALL


class _Flow(AutoContinuous):
    """A flow onto a fixed normal: from about the normal it bends to what isn't one."""

    def __init__(self, program: Callable[[], Any], name: str, mode: Tensor, root: Tensor) -> None:
        super().__init__(program)
        kind = (
            transforms.affine_autoregressive
            if name == "iaf"
            else partial(transforms.spline_autoregressive, bound=REACH)
        )
        self.flow = kind(len(mode))
        begin_near_identity(self.flow)
        self.register_buffer("mode", mode)
        self.register_buffer("root", root)

    def get_posterior(self) -> dist.TransformedDistribution:
        base = dist.Normal(torch.zeros_like(self.mode), 1.0).to_event(1)
        # Both remember what they made, so that nothing is ever inverted.
        onto = transforms.LowerCholeskyAffine(self.mode, self.root, cache_size=1)
        return dist.TransformedDistribution(base, [self.flow, onto])
