"""How many of independent events happen, and who they happen to given how many: exact, whatever their chances."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["chosen", "log_probability"]

_REACH = 14.0
"""Standard deviations of a tilted count beyond which nothing is left in double precision."""

_HALVINGS = 40
"""Any tilt is exact; one that makes the count the mean, to 1e-9, loses no digits."""


def log_probability(p: Tensor, count: int) -> Tensor:
    r"""The log-probability that so many of independent events happen, of the Poisson binomial distribution.

    The law is tilted, :math:`q_i \propto p_i e^\theta`, so that the count is its mean, and read off the tilted law's
    characteristic function over :math:`\pm 14` standard deviations (Fernández & Williams, IEEE Trans. Aerosp. Electron.
    Syst. 46, 2010, 803); agents with the same chance are worked out together.

    Args:
        p: probabilities, float64 of shape (n,), with a derivative or not.
        count: how many happen.
    Returns:
        float64, minus infinity where it can't be.

    >>> round(float(log_probability(torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64), 2).exp()), 6)
    0.375
    """
    known = p.detach()
    sure, possible = int((known >= 1).sum()), (known > 0) & (known < 1)
    left, n = count - sure, int(possible.sum())
    if not 0 <= left <= n:
        return p.new_full((), -math.inf)
    p = p[possible]
    if left == 0:
        return torch.log1p(-p).sum()
    if left == n:
        return p.log().sum()
    tilt = _tilt(p.detach(), left)
    log_odds = torch.logit(p) + tilt
    total = torch.log1p(-p).sum() + torch.nn.functional.softplus(log_odds).sum()
    q = torch.sigmoid(log_odds)
    spread = float((q * (1 - q)).sum().detach().sqrt())
    points = max(64, math.ceil(2 * _REACH * spread) + 2)
    angle = 2 * math.pi * torch.arange(points, dtype=p.dtype, device=p.device) / points
    turn = torch.polar(torch.ones_like(angle), angle) - 1
    if p.requires_grad:
        log_phi = _log_phi(q, torch.ones_like(q), turn)
    else:
        values, many = q.unique(return_counts=True)
        log_phi = _log_phi(values, many.to(q.dtype), turn)
    density = torch.exp(log_phi - 1j * angle * left).real.mean()
    return total - left * tilt + torch.log(density)


def chosen(p: Tensor, count: int, uniforms: Iterator[Tensor]) -> Tensor:
    """Choose to whom so many of independent events happen: tilted chances, drawn until they come to the count.

    Args:
        p: probabilities, float64 of shape (n,).
        count: how many happen, a number that can be.
        uniforms: uniforms on (0, 1), float64 of shape (n,), as often as they are asked for.
    Returns:
        Boolean of shape (n,).
    """
    sure, possible = p >= 1, (p > 0) & (p < 1)
    left, n = count - int(sure.sum()), int(possible.sum())
    if left in (0, n):
        return sure | possible if left else sure
    q = torch.zeros_like(p)
    q[possible] = torch.sigmoid(torch.logit(p[possible]) + _tilt(p[possible], left))
    while True:
        found = next(uniforms) < q
        if int(found.sum()) == left:
            return found | sure


def _tilt(p: Tensor, count: int) -> float:
    """By how much log-odds move for the count to be the mean."""
    log_odds = torch.logit(p)
    low, high = -800.0, 800.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if float(torch.sigmoid(log_odds + middle).sum()) < count:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _log_phi(q: Tensor, many: Tensor, turn: Tensor) -> Tensor:
    """The log of the count's characteristic function, complex of shape (points,), a block of agents at a time."""
    out = torch.zeros_like(turn)
    block = max(1, 2**22 // len(turn))
    for k in range(0, len(q), block):
        out = out + (many[k : k + block, None] * torch.log1p(q[k : k + block, None] * turn)).sum(0)
    return out
