"""The discrete Gaussian distribution, drawn exactly from the operating system's randomness."""

from __future__ import annotations

import secrets
from fractions import Fraction

import torch
from torch import Tensor

from lpmppl.errors import InputError

__all__ = ["discrete_gaussian"]


def discrete_gaussian(sigma: float, shape: tuple[int, ...]) -> Tensor:
    r"""Draw integers with :math:`P(x) \propto e^{-x^2 / 2 \sigma^2}`.

    By rejection in whole numbers, without any rounding that would show through: what floating point leaves out of a
    Gaussian can undo the privacy it is to give.

    Args:
        sigma: σ, above 0.
        shape: how many.
    Returns:
        int64 of this shape.
    Raises:
        InputError: for a σ that isn't a number above 0.
    Source: Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020, algorithms 1–3.

    >>> discrete_gaussian(1e-9, (3,)).tolist()
    [0, 0, 0]
    """
    try:
        variance = Fraction(sigma) ** 2
    except (TypeError, ValueError, OverflowError) as e:
        raise InputError(f"sigma={sigma!r}: give a number above 0") from e
    if not sigma > 0:
        raise InputError(f"sigma={sigma!r}: give a number above 0")
    many = torch.Size(shape).numel()
    return torch.tensor([_gaussian(variance, int(sigma) + 1) for _ in range(many)], dtype=torch.int64).reshape(shape)


def _gaussian(variance: Fraction, scale: int) -> int:
    """One draw, by proposals of the discrete Laplace distribution."""
    while True:
        x = _laplace(scale)
        if _happens_exp((abs(x) - variance / scale) ** 2 / (2 * variance)):
            return x


def _laplace(scale: int) -> int:
    """One draw with :math:`P(x) ∝ e^{-|x| / scale}`."""
    while True:
        rest = secrets.randbelow(scale)
        if not _happens_exp(Fraction(rest, scale)):
            continue
        whole = 0
        while _happens_exp(Fraction(1)):
            whole += 1
        size, negative = rest + scale * whole, bool(secrets.randbits(1))
        if not (negative and size == 0):
            return -size if negative else size


def _happens_exp(x: Fraction) -> bool:
    """Whether an event of probability e⁻ˣ happens, x ≥ 0."""
    while x > 1:
        if not _happens_exp(Fraction(1)):
            return False
        x -= 1
    k = 1
    while _happens(x / k):
        k += 1
    return k % 2 == 1


def _happens(p: Fraction) -> bool:
    return secrets.randbelow(p.denominator) < p.numerator
