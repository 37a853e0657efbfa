"""The characteristic function of how many of independent events happen, of millions as of a few."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

__all__ = ["ONE_BY_ONE", "Characteristic"]

ONE_BY_ONE = 0.25
"""Chances above this are worked out one by one."""

_CLASSES = (0.0, 0.02, ONE_BY_ONE)
"""Others are by the sums of their powers, of which the smallest ones need few."""

_PRECISION = 1e-17

_AT_ONCE = 2**22
"""How many pairs of a chance and an angle are worked out at once."""


class Characteristic:
    r"""The characteristic function of a Poisson binomial law, of each of some parts and of unions of these.

    With :math:`z = e^{i\omega} - 1` and chances q it is, to double precision, by as many sums of powers as that takes,

    .. math:: \log \varphi(\omega) = \sum_i \log(1 + q_i z) = \sum_{j \ge 1} \frac{(-1)^{j + 1} z^j}{j} \sum_i q_i^j

    Chances above ¼ are worked out one by one.

    Args:
        q: chances, float64 of shape (n, L), those of each of L parts in a column, with a derivative or not.
        weight: how many have each, of the same shape; one by default.
    """

    def __init__(self, q: Tensor, weight: Tensor | None = None) -> None:
        self.parts, known = q.shape[-1], q.detach()
        self._sums: list[Tensor] = []
        for low, high in itertools.pairwise(_CLASSES):
            within = (known > low) & (known <= high)
            if bool(within.any()):
                most = float(torch.where(within, known, 0.0).max())
                self._sums.append(self._powers(q, weight, within, math.ceil(math.log(_PRECISION) / math.log(2 * most))))
        where = (known > ONE_BY_ONE).reshape(-1).nonzero().squeeze(-1)
        self._part = where % self.parts
        self._large = q.reshape(-1)[where]
        self._many = torch.ones_like(self._large) if weight is None else weight.reshape(-1)[where]

    def _powers(self, q: Tensor, weight: Tensor | None, within: Tensor, terms: int) -> Tensor:
        """The sums of powers of chances of one class, from the first on, shape (J, L)."""
        if 8 * int(within.sum()) < q.numel():
            where = within.reshape(-1).nonzero().squeeze(-1)
            x, part = q.reshape(-1)[where], where % self.parts
            power, nothing = x if weight is None else x * weight.reshape(-1)[where], x.new_zeros(self.parts)
            sums = [nothing.index_add(0, part, power)]
            for _ in range(1, terms):
                power = power * x
                sums.append(nothing.index_add(0, part, power))
            return torch.stack(sums)
        x = torch.where(within, q, 0.0)
        power = x if weight is None else x * weight
        sums = [power.sum(0)]
        for _ in range(1, terms):
            power = power * x
            sums.append(power.sum(0))
        return torch.stack(sums)

    def log(self, angle: Tensor, unions: int = 1) -> tuple[Tensor, Tensor]:
        """The logarithm at angles of shape (M,), of unions of as many neighbouring parts each.

        Returns:
            its real and imaginary parts, each of shape (unions, M).
        """
        z = torch.polar(torch.ones_like(angle), angle) - 1
        size = torch.zeros(unions, len(angle), dtype=angle.dtype, device=angle.device)
        turn = torch.zeros_like(size)
        for sums in self._sums:
            order = torch.arange(1, len(sums) + 1, dtype=angle.dtype, device=angle.device)
            terms = -((-z[:, None]) ** order) / order
            each = sums.reshape(len(sums), unions, -1).sum(-1).T
            size, turn = size + each @ terms.real.T, turn + each @ terms.imag.T
        union = self._part // (self.parts // unions)
        block = max(1, _AT_ONCE // len(angle))
        for k in range(0, len(self._large), block):
            x, w = self._large[k : k + block, None], self._many[k : k + block, None]
            lost = 2 * torch.sin(angle / 2).square()
            here = union[k : k + block]
            size = size.index_add(0, here, w * torch.log1p(-2 * x * (1 - x) * lost) / 2)
            turn = turn.index_add(0, here, w * torch.atan2(x * torch.sin(angle), 1 - x * lost))
        return size, turn
