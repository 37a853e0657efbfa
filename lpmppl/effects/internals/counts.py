"""How many of independent events happen, and who they happen to given how many: exact, whatever their chances."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["chosen", "log_probability"]

_REACH = 14.0
"""Standard deviations of a tilted count beyond which nothing is left in double precision."""

_NEAR = 1e-9
"""How near to the count a tilted mean comes, in events: any tilt is exact, and a near one loses no digits."""

_STEPS = 100


def log_probability(p: Tensor, count: int | Tensor) -> Tensor:
    r"""The log-probability that so many of independent events happen, of the Poisson binomial distribution.

    Where all that are possible have the same chance it is the binomial distribution,

    .. math:: \log \binom nk + k \log p + (n - k) \log(1 - p).

    Else the law is tilted, :math:`q_i \propto p_i e^\theta`, so that the count is its mean, and read off the tilted
    law's characteristic function over :math:`\pm 14` standard deviations (Fernández & Williams, IEEE Trans. Aerosp.
    Electron. Syst. 46, 2010, 803); agents with the same chance are worked out together.

    Args:
        p: probabilities, float64 of shape (n,) or (R, n), with a derivative or not.
        count: how many happen in each row, a number, or integers of shape (R,).
    Returns:
        float64 of shape () or (R,), minus infinity where it can't be.

    >>> round(float(log_probability(torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64), 2).exp()), 6)
    0.375
    """
    rows = p.reshape(-1, p.shape[-1])
    these = _Possible.of(rows.detach(), count)
    out = torch.where(these.can, _binomial(rows, these), -math.inf)
    for row in (these.can & ~these.alike).nonzero().reshape(-1).tolist():
        one = _poisson_binomial(rows[row][these.possible[row]], int(these.left[row]))
        out = out.index_put((torch.tensor([row], device=p.device),), one)
    return out.reshape(p.shape[:-1])


def chosen(p: Tensor, count: int | Tensor, uniforms: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Choose to whom so many of independent events happen.

    Where all that are possible have the same chance, it happens to those of the smallest uniforms; else tilted chances
    are drawn until they come to the count. What is chosen in a row doesn't depend on the others.

    Args:
        p: probabilities, float64 of shape (n,) or (R, n), without a derivative.
        count: how many happen in each row, a number that can be, or integers of shape (R,).
        uniforms: given the numbers of r rows and that of an attempt, uniforms on (0, 1), float64 of shape (r, n).
    Returns:
        Boolean of the shape of p.
    """
    rows = p.reshape(-1, p.shape[-1])
    these = _Possible.of(rows, count)
    every, out = torch.arange(len(rows), device=p.device), rows >= 1
    easy = these.alike | (these.left == 0) | (these.left == these.n)
    first = every[easy & (these.left > 0)]
    if len(first):
        left = these.left[first]
        u = torch.where(these.possible[first], uniforms(first, 0), 2.0)
        place = u.topk(int(left.max()), -1, largest=False).indices
        within = torch.arange(place.shape[-1], device=p.device) < left[:, None]
        out[first] |= torch.zeros_like(u, dtype=torch.bool).scatter(-1, place, within)
    rest = every[~easy]
    log_odds, possible, left = torch.logit(rows[rest]), these.possible[rest], these.left[rest]
    q = torch.where(possible, torch.sigmoid(log_odds + _tilt(log_odds, possible, left)[:, None]), 0.0)
    attempt = 0
    while len(rest):
        found = uniforms(rest, attempt) < q
        done = found.sum(-1) == left
        out[rest[done]] |= found[done]
        rest, left, q = rest[~done], left[~done], q[~done]
        attempt += 1
    return out.reshape(p.shape)


class _Possible(NamedTuple):
    """To whom it is possible but not sure, Boolean (R, n); by row, how many, whether alike and to how many it falls."""

    possible: Tensor
    n: Tensor
    alike: Tensor
    left: Tensor
    most: Tensor

    @property
    def can(self) -> Tensor:
        return (self.left >= 0) & (self.left <= self.n)

    @classmethod
    def of(cls, known: Tensor, count: int | Tensor) -> _Possible:
        sure = known >= 1
        possible = (known > 0) & ~sure
        most = torch.where(possible, known, 0.0).amax(-1)
        alike = torch.where(possible, known, 1.0).amin(-1) >= most
        return cls(possible, possible.sum(-1), alike, count - sure.sum(-1), most)


def _binomial(rows: Tensor, these: _Possible) -> Tensor:
    """The log-probability of each row's count, shape (R,), if all that are possible had the chance of the likeliest."""
    n, k = these.n.to(rows.dtype), these.left.clamp(min=0).minimum(these.n).to(rows.dtype)
    p = torch.where(these.n > 0, these.most, 0.5)
    if rows.requires_grad:
        # By symmetry everybody's chance has the same derivative, which is that of their mean.
        mean = torch.where(these.possible, rows, 0.0).sum(-1) / n.clamp(min=1)
        p = p + (mean - mean.detach())
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return ways + torch.xlogy(k, p) + (n - k) * torch.log1p(-p)


def _poisson_binomial(p: Tensor, left: int) -> Tensor:
    """The log-probability of a count that can be, shape (1,), of events that are all possible, p of shape (n,)."""
    if left == 0:
        return torch.log1p(-p).sum(-1, keepdim=True)
    if left == len(p):
        return p.log().sum(-1, keepdim=True)
    values, group, many = p.detach().unique(return_inverse=True, return_counts=True)
    weight = many.to(p.dtype)
    if p.requires_grad:
        mean = torch.zeros_like(values).index_add(0, group, p) / weight
        values = values + (mean - mean.detach())
    tilt = _tilt(torch.logit(values.detach())[None], weight[None], torch.tensor([left], device=p.device))
    log_odds = torch.logit(values) + tilt
    total = (weight * (torch.log1p(-values) + torch.nn.functional.softplus(log_odds))).sum()
    q = torch.sigmoid(log_odds)
    deviation = float((weight * q * (1 - q)).sum().detach().sqrt())
    half = max(32, math.ceil(_REACH * deviation) + 1)
    # Of an odd number of points half are enough, the others being their conjugates, and none is the pole at -1.
    angle = 2 * math.pi * torch.arange(half + 1, dtype=p.dtype, device=p.device) / (2 * half + 1)
    twice = torch.where(angle > 0, 2.0, 1.0)
    size, turn = _polar(q, weight, angle)
    density = (twice * size.exp() * torch.cos(turn - angle * left)).sum() / (2 * half + 1)
    return total - left * tilt + torch.log(density)


def _tilt(log_odds: Tensor, weight: Tensor, count: Tensor) -> Tensor:
    """By how much each row's log-odds (R, m), of so many agents each, move for the count (R,) to be the mean: (R,)."""
    n = weight.sum(-1).to(log_odds.dtype)
    aim = torch.logit(count / n)
    low, high = torch.full_like(aim, -800.0), torch.full_like(aim, 800.0)
    tilt = torch.zeros_like(aim)
    log_odds = torch.where(weight > 0, log_odds, 0.0)
    for _ in range(_STEPS):
        q = torch.sigmoid(log_odds + tilt[:, None])
        mean, variance = (weight * q).sum(-1), (weight * q * (1 - q)).sum(-1)
        near = (mean - count).abs() < _NEAR
        if bool(near.all()):
            break
        low, high = torch.where(mean < count, tilt, low), torch.where(mean < count, high, tilt)
        # Newton's step for the mean's log-odds, which are nearly linear, or half the way where that leads outside.
        step = tilt + (aim - torch.logit(mean / n)) * mean * (1 - mean / n) / variance
        inside = (step > low) & (step < high)
        tilt = torch.where(near, tilt, torch.where(inside, step, (low + high) / 2))
    return tilt


def _polar(q: Tensor, weight: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """The log of the count's characteristic function, its real and imaginary parts, a block of chances at a time."""
    size, turn = torch.zeros_like(angle), torch.zeros_like(angle)
    lost, sine = 2 * torch.sin(angle / 2).square(), torch.sin(angle)
    block = max(1, 2**22 // len(angle))
    for k in range(0, len(q), block):
        x, w = q[k : k + block, None], weight[k : k + block, None]
        size = size + (w * torch.log1p(-2 * x * (1 - x) * lost)).sum(0) / 2
        turn = turn + (w * torch.atan2(x * sine, 1 - x * lost)).sum(0)
    return size, turn
