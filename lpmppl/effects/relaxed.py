"""Yes-or-no values that carry a derivative: a mask with the chance of each of its answers beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lpmppl.errors import InputError

__all__ = ["Relaxed", "opened"]


class Relaxed(torch.Tensor):
    """A mask over agents, or zeros and ones, that derives as if its answers were fractions.

    Logic, choices and products of it do what they do to the answers, and derive what the same does to fractions: those
    at risk of an event without those it happens to are the difference, two relaxed masks that are joined exclude each
    other, and all others are independent. Anything else that would look at the answers is refused by the name of the
    site they come from: its derivative would vanish without a word.

    Attributes:
        plain: the answers, without a derivative.
        chance: the same in float64 with the derivative, or in fact fractions.
        site: the sample site they come from.
        fraction: whether they are fractions.
        part_of: the mask of those at risk of the event, where it is one.
        without: the mask that this one says no to.
    """

    plain: Tensor
    chance: Tensor
    site: str
    fraction: bool
    part_of: Tensor | None
    without: Relaxed | None

    @staticmethod
    def of(plain: Tensor, chance: Tensor, site: str, fraction: bool = False, part_of: Tensor | None = None) -> Relaxed:
        out: Relaxed = torch.Tensor._make_subclass(Relaxed, plain)
        out.plain, out.chance, out.site, out.fraction = plain, chance, site, fraction
        out.part_of, out.without = part_of, None
        return out

    def like(self, plain: Tensor, chance: Tensor) -> Relaxed:
        """Other answers of the same kind; of fractions, those that are possible."""
        possible = (chance.detach() > 0).to(plain.dtype)
        return Relaxed.of(possible if self.fraction else plain, chance, self.site, self.fraction)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if func in _PROPERTIES or name in _AS_IT_IS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        known = None if name == "__bool__" else _MEANINGS.get(name.strip("_"))
        mine = next(x for x in args if isinstance(x, Relaxed)) if any(isinstance(x, Relaxed) for x in args) else None
        if known is None or mine is None:
            site = "" if mine is None else f"site '{mine.site}': "
            raise InputError(
                f"{site}what the model does with the event, {name}, has no derivative by a relaxation; ask for "
                "estimator='differences', or write it with logic, torch.where and products"
            )
        return known(mine, func, args, dict(kwargs or {}))


def opened(x: Any) -> Any:
    """The fractions of a relaxed value as a tensor of autograd's; anything else as it is."""
    return x.chance if isinstance(x, Relaxed) else x


def _plain(x: Any) -> Any:
    return x.plain if isinstance(x, Relaxed) else x


def _fractions(x: Any) -> Tensor:
    return x.chance if isinstance(x, Relaxed) else torch.as_tensor(x).double()


def _both(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], _: dict[str, Any]) -> Relaxed:
    a, b = args
    if _rest(b, a):
        a, b = b, a
    chance = opened(a) - b.without.chance if _rest(a, b) else _fractions(a) * _fractions(b)
    return mine.like(_plain(a) & _plain(b), chance)


def _rest(whole: Any, rest: Any) -> bool:
    """Whether one mask is of those at risk of an event and the other of those to whom it doesn't happen."""
    event = getattr(rest, "without", None)
    return event is not None and event.part_of is whole and isinstance(whole, Relaxed)


def _either(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], _: dict[str, Any]) -> Relaxed:
    a, b = (_fractions(x) for x in args)
    apart = all(isinstance(x, Relaxed) for x in args)
    return mine.like(_plain(args[0]) | _plain(args[1]), (a + b).clamp(max=1) if apart else a + b - a * b)


def _neither(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], _: dict[str, Any]) -> Relaxed:
    out = mine.like(~mine.plain, 1 - mine.chance)
    out.without = mine
    return out


def _where(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], _: dict[str, Any]) -> Any:
    mask, yes, no = args
    if not isinstance(mask, Relaxed):
        if any(isinstance(x, Tensor) and x.dtype != torch.bool and not isinstance(x, Relaxed) for x in (yes, no)):
            return torch.where(mask, opened(yes), opened(no))
        return mine.like(torch.where(mask, _plain(yes), _plain(no)), torch.where(mask, _fractions(yes), _fractions(no)))
    a, b = (torch.as_tensor(opened(x)) for x in (yes, no))
    if mask.fraction:
        return mask.chance * a + (1 - mask.chance) * b
    # Zero in value: the answer itself is that of the mask.
    moved = (mask.chance - mask.chance.detach()) * torch.nan_to_num(a.detach() - b.detach(), 0.0, 0.0, 0.0)
    return torch.where(mask.plain, a, b) + moved


def _arithmetic(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*(opened(x) for x in args), **kwargs)


def _shaped(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Relaxed:
    return mine.like(func(mine.plain, *args[1:], **kwargs), func(mine.chance, *args[1:], **kwargs))


def _as_mask(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], _: dict[str, Any]) -> Relaxed:
    return mine.like(mine.plain.bool(), mine.chance)


def _as_numbers(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    kind = next((x for x in (*args[1:], *kwargs.values()) if isinstance(x, torch.dtype)), torch.float32)
    return mine if kind == torch.bool else mine.chance.to(kind if kind.is_floating_point else torch.float64)


def _detached(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], _: dict[str, Any]) -> Tensor:
    return mine.plain


_AS_IT_IS = frozenset(
    (
        *("size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "element_size", "nelement"),
        *("is_inference", "ndimension", "__len__"),
    )
)
_PROPERTIES = frozenset(
    getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "layout", "ndim", "_version", "is_sparse")
)
_MEANINGS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("and", "rand", "bitwise_and", "logical_and"), _both),
    **dict.fromkeys(("or", "ror", "bitwise_or", "logical_or"), _either),
    **dict.fromkeys(("invert", "bitwise_not", "logical_not"), _neither),
    "where": _where,
    **dict.fromkeys(("mul", "rmul", "add", "radd", "sub", "rsub", "neg", "sum", "mean", "truediv"), _arithmetic),
    **dict.fromkeys(("expand", "reshape", "clone", "unsqueeze", "squeeze", "getitem", "contiguous"), _shaped),
    "bool": _as_mask,
    **dict.fromkeys(("to", "type", "float", "double"), _as_numbers),
    "detach": _detached,
    "repr": lambda mine, *_: f"Relaxed({mine.plain!r}, site={mine.site!r})",
}
