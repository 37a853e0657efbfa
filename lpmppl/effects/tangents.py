"""Derivatives of sums over ranks: tangents are added up where the sums are, adjoints on the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from lpmppl.effects.ranks import Ranks
from lpmppl.effects.tape import InPass, Taped, Version, plain, taped
from lpmppl.errors import InputError, LpmError

__all__ = ["Everywhere", "WayBack", "forward"]

_LOOKS = 3
"""How many sums over each network are looked at for what ranks don't know of."""


@dataclass(frozen=True)
class Everywhere:
    """How numbers on groups, float64 of shape (…, G), are added up over ranks.

    Args:
        ranks: those that share the population.
        what: the sum, in words.
        groups: the groups with members on several ranks, None for all; what is on others is a rank's own.
    """

    ranks: Ranks
    what: str
    groups: Tensor | None = None

    def added(self, x: Tensor | None, shape: torch.Size) -> Tensor | None:
        """The numbers of all ranks together, with the same bits on each.

        Args:
            x: this rank's; None where it has none.
            shape: their shape.
        Returns:
            None where no rank has any.
        """
        if self.groups is None:
            return self.ranks.added(self.what, x, shape)
        here = None if x is None else x[..., self.groups]
        total = self.ranks.added(self.what, here, (*shape[:-1], len(self.groups)))
        if total is None:
            return None
        out = torch.zeros(shape, dtype=torch.float64) if x is None else x.clone()
        out[..., self.groups] = total
        return out


def forward(everywhere: Everywhere, local: Tensor | None, shape: torch.Size) -> Tensor | None:
    """What is zero in value and carries the tangents of all ranks' sums, float64; None where no rank has any.

    Args:
        everywhere: how they are added up.
        local: this rank's, float64; None where it has none.
        shape: their shape.
    """
    mine = None if local is None else forward_ad.unpack_dual(local).tangent
    tangent = everywhere.added(mine, shape)
    return None if tangent is None else forward_ad.make_dual(torch.zeros_like(tangent), tangent)


class WayBack:
    r"""The order in which ranks meet on the way back, and the parameters at its end.

    A sum :math:`S = \sum_r s_r` that all ranks have is read on each, and its adjoint is what all of them leave there:

    .. math:: \bar s_r = \sum_q \bar S_q

    So each rank's part comes out for a loss that counts once for every rank that computes it, and the derivative is
    the mean of them. Every sum hangs on the one before it, so that all ranks come to all sums, in one order, whatever
    their people have been through.

    Args:
        ranks: those that share the population.
        theta: the parameters, of which those with `requires_grad` are taken.
    Attributes:
        theta: the parameters to compute with.
    Raises:
        InputError: where no parameter has `requires_grad`.
    """

    def __init__(self, ranks: Ranks, theta: Mapping[str, Tensor]) -> None:
        names = [name for name, x in theta.items() if x.requires_grad]
        if not names:
            raise InputError(f"none of the parameters {', '.join(theta)} has requires_grad: there is nothing to derive")
        *found, self._link = _Begin.apply(ranks, *(theta[name] for name in names))
        self.theta: dict[str, Tensor] = {**theta, **dict(zip(names, found, strict=True))}
        self._begin = self._link.grad_fn
        self._looks: dict[str, int] = {}

    def sum(self, everywhere: Everywhere, local: Tensor | None, shape: torch.Size) -> Tensor:
        """What is zero in value and has the derivative of all ranks' sums; see `forward`."""
        if local is not None:
            self._check(everywhere.what, local)
        found: Tensor
        found, self._link = _Sum.apply(self._link, local, everywhere, shape)
        return found

    def tied(self, everywhere: Everywhere, total: Tensor) -> Taped:
        """A total over all ranks on the tape, where any of them has its own part of it there."""
        token, before = taped(total)
        if token is not None:
            self._check(everywhere.what, token)
        version = _Shared.after(before, plain(total))
        version.everywhere, version.shape = everywhere, total.shape
        token, self._link = _Tie.apply(self._link, token, version)
        return Taped.of(plain(total), version, token)

    def _check(self, what: str, x: Tensor) -> None:
        """Refuse what else derives: of that each rank would have its own part alone."""
        name = what.rpartition(",")[2]
        self._looks[name] = self._looks.get(name, 0) + 1
        if self._looks[name] > _LOOKS:
            return
        seen, left = {self._begin}, [x.grad_fn]
        while left:
            node = left.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if (variable := getattr(node, "variable", None)) is not None:
                raise LpmError(
                    f"{what}: it depends on a tensor of shape {tuple(variable.shape)} with requires_grad that isn't "
                    "among the parameters of backwards(…): give it with them, and compute with what that gives"
                )
            left += [following for following, _ in node.next_functions]


class _Shared(Version):
    """The version of a total that readers on all ranks see: what they leave is added up over them."""

    everywhere: Everywhere
    shape: torch.Size

    def __init__(self, adjoint: Any, before: Version | None) -> None:
        super().__init__(adjoint, before)
        self._handed: InPass[list[Tensor]] = InPass(list)

    def take_over(self, flat: Tensor) -> None:
        # A later version's adjoint has been added up over ranks already.
        self._handed.value.append(flat)

    def settle(self) -> Tensor:
        own = torch.zeros(self.shape.numel(), dtype=torch.float64)
        for whole in self._whole.taken():
            own += whole.reshape(-1)
        for where, adjoint in self._few.taken():
            own.index_add_(0, where, adjoint.to(own.dtype))
        together = self.everywhere.added(own.view(self.shape), self.shape)
        assert together is not None
        return self.adjoint.flat([together.reshape(-1), *self._handed.taken()])


def _nothing() -> Tensor:
    return torch.zeros(1)


class _Begin(torch.autograd.Function):
    """Parameters, and what the first sum hangs on: on the way back, where all ranks come to in the end."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, *theta: Tensor) -> Any:
        ctx.ranks = ranks
        return *(x.clone() for x in theta), _nothing()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *adjoints: Tensor) -> Any:
        own = adjoints[:-1]
        flat = torch.cat([_nothing().double(), *(x.reshape(-1).double() for x in own)])
        whole = ctx.ranks.added("the derivatives by parameters", flat, flat.shape)
        parts = (whole[1:] / ctx.ranks.count).split([x.numel() for x in own])
        return None, *(part.reshape(x.shape).to(x.dtype) for part, x in zip(parts, own, strict=True))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, link: Tensor, local: Tensor | None, everywhere: Everywhere, shape: torch.Size) -> Any:
        ctx.everywhere, ctx.mine = everywhere, local is not None
        return torch.zeros(shape, dtype=torch.float64), _nothing()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adjoint: Tensor, link: Tensor) -> Any:
        whole = ctx.everywhere.added(adjoint, adjoint.shape)
        return link, whole if ctx.mine else None, None, None


class _Tie(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, link: Tensor, token: Tensor | None, version: _Shared) -> Any:
        ctx.version, ctx.mine = version, token is not None
        return _nothing(), _nothing()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, token: Tensor, link: Tensor) -> Any:
        ctx.version.done(ctx.version.settle())
        return link, token if ctx.mine else None, None
