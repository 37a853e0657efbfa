"""How many of independent events happen, and who they happen to given how many: exact, whatever their chances."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lpmppl.effects.internals.characteristic import ONE_BY_ONE, Characteristic
from lpmppl.effects.internals.parting import parted

__all__ = ["Uniforms", "chosen", "log_probability"]

_REACH = 14.0
"""Standard deviations of a tilted count beyond which nothing is left in double precision."""

_NEAR = 1e-9
"""How near to the count a tilted mean comes, in events: any tilt is exact, and a near one loses no digits."""

_STEPS = 100

_VARIANCE = 4.0
"""Up to which variance of a count it is waited for: some five attempts."""

_DEAR = 40
"""Waiting is cheaper again where more than one in so many chances has to be worked out by itself."""

_SAMPLE = 512
"""How many of very many chances tell whether they are worth sorting."""

Uniforms = Callable[[Tensor, int, Tensor | None], Tensor]


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


def chosen(p: Tensor, count: int | Tensor, uniforms: Uniforms) -> Tensor:
    """Choose to whom so many of independent events happen.

    Where all that are possible have the same chance, it happens to those of the smallest uniforms; else tilted chances
    are drawn until they come to the count, or, where that would take many attempts, how many are in each of some parts
    is drawn first. What is chosen in a row doesn't depend on the others.

    Args:
        p: probabilities, float64 of shape (n,) or (R, n), without a derivative.
        count: how many happen in each row, a number that can be, or integers of shape (R,).
        uniforms: given the numbers of r rows and that of an attempt, uniforms on (0, 1), float64 of shape (r, n); or
            of shape (r, m), those of so many agents, given their places.
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
        u = torch.where(these.possible[first], uniforms(first, 0, None), 2.0)
        place = u.topk(int(left.max()), -1, largest=False).indices
        within = torch.arange(place.shape[-1], device=p.device) < left[:, None]
        out[first] |= torch.zeros_like(u, dtype=torch.bool).scatter(-1, place, within)
    rest = every[~easy]
    q = _tilted(rows[rest], these.possible[rest], these.left[rest])
    parts = _parts(q)
    narrow = parts == 1
    out[rest[narrow]] |= _drawn(
        q[narrow], these.left[rest[narrow]], lambda here, attempt: uniforms(rest[narrow][here], attempt, None)
    )
    for k in (~narrow).nonzero().reshape(-1).tolist():
        row = rest[k]
        out[row] |= _of_many(q[k], int(these.left[row]), int(parts[k]), functools.partial(uniforms, row[None]))
    return out.reshape(p.shape)


def _tilted(rows: Tensor, possible: Tensor, left: Tensor) -> Tensor:
    """Chances under which the count is the mean, given which who it happens to has the same law: shape (R, n)."""
    n = possible.sum(-1)
    q, inside = (possible & (left == n)[:, None]).to(rows.dtype), (left > 0) & (left < n)
    log_odds = torch.where(possible[inside], rows[inside], 0.0).logit_()
    tilt = _tilt(log_odds, None, n[inside], left[inside])
    q[inside] = log_odds.add_(tilt[:, None]).sigmoid_()
    return q


def _parts(q: Tensor) -> Tensor:
    """In how many parts each row's events are chosen, so that few attempts come to each part's count: shape (R,)."""
    variance, dear = (q * (1 - q)).sum(-1), (q > ONE_BY_ONE).sum(-1)
    parts = 2 ** torch.log2(variance / _VARIANCE).ceil().clamp(min=0).long()
    return torch.where(dear * _DEAR > (q > 0).sum(-1), 1, parts)


def _drawn(q: Tensor, left: Tensor, uniforms: Callable[[Tensor, int], Tensor], attempt: int = 0) -> Tensor:
    """Draw each row's events until they come to its count, by uniforms of rows and an attempt: Boolean (R, n)."""
    out, rest = torch.zeros_like(q, dtype=torch.bool), torch.arange(len(q), device=q.device)
    while len(rest):
        found = uniforms(rest, attempt) < q[rest]
        done = found.sum(-1) == left[rest]
        out[rest[done]] = found[done]
        rest, attempt = rest[~done], attempt + 1
    return out


def _of_many(q: Tensor, left: int, parts: int, uniforms: Callable[[int, Tensor | None], Tensor]) -> Tensor:
    """Choose to whom of many it happens: how many in each part first, and then in each by itself, Boolean (n,).

    A part takes every so-manieth agent, so that neighbours, who are alike, are in different ones.
    """
    n = len(q)
    size = -(-n // parts)
    each = torch.nn.functional.pad(q, (0, size * parts - n)).view(size, parts)
    counts = parted(each, left, uniforms(0, torch.arange(parts, device=q.device)).reshape(-1))
    rows = each.T.contiguous()
    place = torch.arange(parts, device=q.device)[:, None] + parts * torch.arange(size, device=q.device)

    def of(here: Tensor, attempt: int) -> Tensor:
        return uniforms(attempt, place[here].clamp(max=n - 1).reshape(-1)).reshape(len(here), size)

    found = _drawn(_tilted(rows, rows > 0, counts), counts, of, attempt=1)
    return found.T.reshape(-1)[:n]


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
    values, weight = _grouped(p)
    n = torch.tensor([len(p)], device=p.device)
    tilt = _tilt(torch.logit(values.detach())[None], weight, n, torch.tensor([left], device=p.device))
    log_odds = torch.logit(values) + tilt
    total = (weight * (torch.log1p(-values) + torch.logaddexp(log_odds, torch.zeros_like(log_odds)))).sum()
    q = torch.sigmoid(log_odds)
    deviation = float((weight * q * (1 - q)).sum().detach().sqrt())
    half = max(32, math.ceil(_REACH * deviation) + 1)
    # Of an odd number of points half are enough, the others being their conjugates, and none is the pole at -1.
    angle = 2 * math.pi * torch.arange(half + 1, dtype=p.dtype, device=p.device) / (2 * half + 1)
    twice = torch.where(angle > 0, 2.0, 1.0)
    size, turn = Characteristic(q[:, None], weight[:, None]).log(angle)
    density = (twice * size.exp() * torch.cos(turn - angle * left)).sum() / (2 * half + 1)
    return total - left * tilt + torch.log(density)


def _grouped(p: Tensor) -> tuple[Tensor, Tensor]:
    """The chances that there are, and how many have each; as they are where hardly any two are alike."""
    few = p.detach()[:: max(1, len(p) // _SAMPLE)]
    if len(p) > 8 * _SAMPLE and 2 * len(few.unique()) > len(few):
        return p, torch.ones_like(p)
    values, group, many = p.detach().unique(return_inverse=True, return_counts=True)
    weight = many.to(p.dtype)
    if p.requires_grad:
        mean = torch.zeros_like(values).index_add(0, group, p) / weight
        values = values + (mean - mean.detach())
    return values, weight


def _tilt(log_odds: Tensor, weight: Tensor | None, n: Tensor, count: Tensor) -> Tensor:
    """By how much each row's log-odds (R, m), of n agents in all, move for the count (R,) to be the mean: (R,).

    Of agents with each log-odds there are so many as the weight says, (m,), or one; those of -inf can't.
    """
    aim = torch.logit(count / n.to(log_odds.dtype))
    low, high = torch.full_like(aim, -800.0), torch.full_like(aim, 800.0)
    tilt = torch.zeros_like(aim)
    for _ in range(_STEPS):
        q = (log_odds + tilt[:, None]).sigmoid_()
        weighed = q if weight is None else q * weight
        mean = weighed.sum(-1)
        near = (mean - count).abs() < _NEAR
        if bool(near.all()):
            break
        variance = mean - torch.linalg.vecdot(weighed, q)
        low, high = torch.where(mean < count, tilt, low), torch.where(mean < count, high, tilt)
        # Newton's step for the mean's log-odds, which are nearly linear, or half the way where that leads outside.
        step = tilt + (aim - torch.logit(mean / n)) * mean * (1 - mean / n) / variance
        inside = (step > low) & (step < high)
        tilt = torch.where(near, tilt, torch.where(inside, step, (low + high) / 2))
    return tilt
