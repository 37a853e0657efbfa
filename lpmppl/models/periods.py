"""Periods of a disease's course, and priors: log-normals by what is said of them."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort

__all__ = ["around", "each", "lognormal"]


def lognormal(mean: Tensor, spread: Tensor | float) -> dist.LogNormal:
    """The log-normal of a mean and a standard deviation, both in days and of one shape.

    >>> d = lognormal(torch.tensor(4.5), 1.5)
    >>> round(float(d.mean), 4), round(float(d.stddev), 4)
    (4.5, 1.5)
    """
    # In double precision no ratio of two float32 numbers overflows or vanishes when squared.
    variance = torch.log1p((torch.as_tensor(spread).double() / mean.double()) ** 2)
    return dist.LogNormal(torch.log(mean.double()) - variance / 2, torch.sqrt(variance))


def each(cohort: Cohort, parameter: Tensor) -> Tensor:
    """A parameter for each member of a cohort, or the one that all have."""
    return parameter.reshape(()) if parameter.numel() == 1 else cohort.read(parameter)


def around(default: float, spread: float = 0.2) -> dist.LogNormal:
    """The log-normal prior whose median is a parameter's default."""
    return dist.LogNormal(math.log(default), spread)
