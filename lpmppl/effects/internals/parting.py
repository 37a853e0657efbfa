"""How many of independent events fall to each of parts, given how many happen in all: exact, by halves."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lpmppl.effects.internals.characteristic import Characteristic

__all__ = ["parted"]

_REACH = 10.0
"""Standard deviations of a half's count beyond which nothing is left in double precision."""

_NOTHING = 1e-15
"""The part of a law's greatest probability that rounding may leave where there is none."""


def parted(q: Tensor, count: int, uniforms: Tensor) -> Tensor:
    r"""Draw how many events happen in each part, given that so many happen in all.

    Of a union of parts the count of one half has, given that of both,

    .. math:: P(a \mid k) \propto P_1(a)\, P_2(k - a)

    which is read off the halves' characteristic functions, and so on down to single parts.

    Args:
        q: chances, float64 of shape (n, L), those of each of L parts in a column, L a power of two; 0 where there is
            nobody. The nearer their sum is to the count, the fewer digits are lost.
        count: how many happen, a number that can be.
        uniforms: on (0, 1), shape (L,): a half's chance is that of its neighbour's first part.
    Returns:
        int64 of shape (L,), which add up to the count.
    """
    parts = q.shape[-1]
    law, mean, variance = Characteristic(q), q.sum(0), (q * (1 - q)).sum(0)
    able, sure = (q > 0).sum(0), (q >= 1).sum(0)
    counts = torch.tensor([count], device=q.device)
    unions = 1
    while unions < parts:
        unions *= 2
        first, pmf = _laws(law, mean.view(unions, -1).sum(-1), variance.view(unions, -1).sum(-1))
        least, most = (x.view(unions, -1).sum(-1) for x in (sure, able))
        # Of the left half each count that its law has, and of the right one what is then left.
        a = first[::2, None] + torch.arange(pmf.shape[-1], device=q.device)
        b = counts[:, None] - a
        place = b - first[1::2, None]
        there = (place >= 0) & (place < pmf.shape[-1])
        there &= (a >= least[::2, None]) & (a <= most[::2, None]) & (b >= least[1::2, None]) & (b <= most[1::2, None])
        other = pmf[1::2].gather(-1, place.clamp(0, pmf.shape[-1] - 1))
        weight = torch.where(there, pmf[::2] * other, 0.0).cumsum(-1)
        u = uniforms[parts // unions :: 2 * (parts // unions)]
        at = torch.searchsorted(weight, (u * weight[:, -1])[:, None])
        left = a.gather(-1, at.clamp(max=pmf.shape[-1] - 1)).squeeze(-1)
        counts = torch.stack((left, counts - left), -1).reshape(-1)
    return counts


def _laws(law: Characteristic, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """The first count of each union's law, shape (U,), and the probabilities of the counts from it on, (U, M)."""
    span = 2 ** math.ceil(math.log2(2 * _REACH * math.sqrt(float(variance.max())) + 64))
    first = mean.round().long() - span // 2
    angle = 2 * math.pi * torch.arange(span // 2 + 1, dtype=mean.dtype, device=mean.device) / span
    size, turn = law.log(angle, len(mean))
    turned = torch.polar(size.exp(), turn - angle * first[:, None])
    pmf = torch.fft.irfft(turned.conj(), span)
    return first, torch.where(pmf > _NOTHING * pmf.amax(-1, keepdim=True), pmf, 0.0)
