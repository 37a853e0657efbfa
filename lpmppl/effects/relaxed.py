"""Yes-or-no values that carry a derivative: a mask with the chance of each of its answers beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
        known = None if name in ("__bool__", "__get__") else _MEANINGS.get(name.strip("_"))
        in_place = name.endswith("_") and not name.endswith("__")
        if in_place and (isinstance(args[0], Relaxed) or known is not _arithmetic):
            known = None
        if known is not None and "out" not in (kwargs or {}):
            mine = next((x for x in args if isinstance(x, Relaxed)), None)
            found = NotImplemented if mine is None else known(mine, func, args, dict(kwargs or {}))
            if found is not NotImplemented:
                return found
        site = next(_sites((args, kwargs or {})), "")
        raise InputError(
            f"site '{site}': what the model does with the event, {name}, has no derivative by a relaxation; ask for "
            "estimator='differences', or write it with logic, torch.where and products"
        )


def _sites(x: Any) -> Iterator[str]:
    """The sites of whatever relaxed masks there are in arguments."""
    if isinstance(x, Relaxed):
        yield x.site
    elif isinstance(x, list | tuple | dict):
        for y in x.values() if isinstance(x, dict) else x:
            yield from _sites(y)


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


def _where(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if len(args) != 3 or kwargs:
        return NotImplemented
    mask, yes, no = (args[1], args[0], args[2]) if func is Tensor.where else args
    answers = (mask.plain if isinstance(mask, Relaxed) else mask), _plain(yes), _plain(no)
    if all(isinstance(x, bool) or (isinstance(x, Tensor) and x.dtype == torch.bool) for x in answers[1:]):
        m = _fractions(mask)
        return mine.like(torch.where(*answers), m * _fractions(yes) + (1 - m) * _fractions(no))
    if not isinstance(mask, Relaxed):
        return torch.where(mask, opened(yes), opened(no))
    a, b = (torch.as_tensor(opened(x)) for x in (yes, no))
    if mask.fraction:
        share = mask.chance.detach()
        return torch.where(share > 0, mask.chance * a, 0.0) + torch.where(share < 1, (1 - mask.chance) * b, 0.0)
    # Zero in value: the answer itself is that of the mask.
    a, b = (x.double() if x.dtype == torch.bool else x for x in (a, b))
    moved = (mask.chance - mask.chance.detach()) * torch.nan_to_num(a.detach() - b.detach(), 0.0, 0.0, 0.0)
    return torch.where(mask.plain, a, b) + moved


def _arithmetic(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if kwargs.get("dtype", torch.float64).is_floating_point:
        return func(*(opened(x) for x in args), **kwargs)
    return NotImplemented


def _shaped(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if args[0] is not mine or any(_sites((args[1:], kwargs))):
        return NotImplemented
    return mine.like(func(mine.plain, *args[1:], **kwargs), func(mine.chance, *args[1:], **kwargs))


def _as_mask(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], _: dict[str, Any]) -> Relaxed:
    return mine.like(mine.plain.bool(), mine.chance)


def _as_numbers(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = (*args[1:], *kwargs.values())
    kinds = [x if isinstance(x, torch.dtype) else x.dtype for x in given if isinstance(x, torch.dtype | Tensor)]
    if func in (Tensor.float, Tensor.double):
        kinds = [torch.float32 if func is Tensor.float else torch.float64]
    if not kinds:
        places = [x for x in given if isinstance(x, str | torch.device)]
        if func is not Tensor.to or not places:
            return NotImplemented
        return mine.like(mine.plain.to(places[0]), mine.chance.to(places[0]))
    if kinds[0] == torch.bool:
        return _as_mask(mine, func, args, kwargs)
    return mine.chance.to(kinds[0]) if kinds[0].is_floating_point else NotImplemented


def _detached(mine: Relaxed, func: Callable[..., Any], args: tuple[Any, ...], _: dict[str, Any]) -> Tensor:
    return mine.plain


_AS_IT_IS = frozenset(
    (
        *("size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "element_size", "nelement"),
        *("is_inference", "ndimension", "__len__"),
    )
)
_PROPERTIES = frozenset(
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "layout", "ndim", "_version", "is_sparse", "requires_grad", "is_cuda")
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
