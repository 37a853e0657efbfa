"""A population that is spread over ranks: the same program on each, and the same numbers as in one process."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger, handler_stack
from lpmppl.effects.cohorts import Sparse
from lpmppl.effects.fields import Network, summed
from lpmppl.effects.handlers.noise import ExogenousNoise
from lpmppl.effects.handlers.readers import reader
from lpmppl.effects.handlers.sharing import FixedPoint
from lpmppl.effects.ranking import foremost_of_all
from lpmppl.effects.ranks import ROOM, Ranks
from lpmppl.errors import LpmError

__all__ = ["Sharded"]

_FEW = 4096
"""So many groups all ranks have the totals of, wherever their members are: telling all is as cheap."""


class _Crossing(NamedTuple):
    """The groups of a network with members on more than one rank."""

    network: Network
    groups: Tensor
    """Which they are, in increasing order, alike on all ranks."""
    slot: Tensor
    """The place of every group among them, −1 for others, shape (G,)."""
    elsewhere: Tensor
    """Whether all of a group's members are on another rank, Boolean of shape (G,)."""


class Sharded(Messenger):
    """Add up over all ranks: each simulates its own agents, and has the totals of the groups that these belong to.

    Groups that are wholly on one rank are never told others; of those that cross ranks only the integers that changed
    are, or all of them, whichever is less. Sums of integers have no order and agents' chance is keyed by their ids, so
    that every agent fares as in one process, on any number of ranks.

    Args:
        ranks: those that share the population, as `Population.shard` has parted it; by default all that torchrun
            started.
    Attributes:
        sums: how many sums were asked for so far.
    Raises:
        LpmError: in a run, where ranks don't do the same, for derivatives and maxima over groups that cross ranks, for
            edge lists, and for what reads many agents one by one.
    """

    def __init__(self, ranks: Ranks | None = None) -> None:
        super().__init__()
        self.ranks = Ranks.begin() if ranks is None else ranks
        self.sums = 0
        self._known: dict[int, _Crossing] = {}

    def _pyro_simulate(self, msg: Message) -> None:
        self._check()

    def _pyro_steps(self, msg: Message) -> None:
        # A solver inside has simulated before `simulate` comes to a handler outside, but not its steps.
        self._check()

    def _check(self) -> None:
        if name := reader():
            raise LpmError(f"{name} reads agents one by one, and has only some of them on a rank: run it on one rank")
        if not any(isinstance(handler, ExogenousNoise) for handler in handler_stack()):
            raise LpmError(
                "each rank would draw chance of its own: put ExogenousNoise(seed) around the run, or lpm.run"
            )
        if any(isinstance(handler, FixedPoint) for handler in handler_stack()):
            raise LpmError("ranks add up in the clear: share in secret on one rank, or among lpmppl.parties")

    def _pyro_ring_sum(self, msg: Message) -> None:
        if not msg["done"] and not _is_here(msg["args"][1]):
            msg["value"], msg["done"] = self._sum(*msg["args"], **msg["kwargs"]), True

    def _sum(
        self, integers: Tensor | Sparse, network: Network | None, onto: Tensor | None = None, most: int = 1
    ) -> Tensor:
        name = _name(network)
        crossing = None if network is None or _is_whole(network) else self._crossing(network)
        if crossing is not None and isinstance(integers, Sparse):
            return self._few(name, integers, crossing, onto)
        total = summed(integers, network)
        if crossing is None:
            total = self.ranks.total(self._next(name), total)
        elif len(crossing.groups):
            total[..., crossing.groups] = self.ranks.total(self._next(name), total[..., crossing.groups])
        return total if onto is None else onto + total

    def _few(self, name: str, integers: Sparse, crossing: _Crossing, onto: Tensor | None) -> Tensor:
        """The totals of messages of few agents, of which others are told what concerns them."""
        network, many = crossing.network, len(crossing.groups)
        total = network.total(integers, onto)
        rows, groups = total.shape[:-1].numel(), total.shape[-1]
        cohort = integers.cohort.expand(total.shape[:-1])
        value = integers.value if cohort is integers.cohort else cohort.read(integers)
        slot = crossing.slot[cohort.group(network.index).long()].long()  # type: ignore[attr-defined]
        mine = (slot >= 0).nonzero().squeeze(-1)
        pairs = torch.stack(((cohort.row * many + slot)[mine], value[mine].long()), -1)
        short = pairs.reshape(-1) if pairs.numel() <= ROOM else None
        counts, told = self.ranks.asked(self._next(name), rows, len(mine), short)
        if not any(counts):
            return total
        place, value = pairs[:, 0], pairs[:, 1].to(total.dtype)
        if max(counts) * self.ranks.count < rows * many:
            if 2 * max(counts) <= ROOM:
                parts = [row[: 2 * n].reshape(n, 2) for row, n in zip(told, counts, strict=True)]
            else:
                parts = self.ranks.gathered(pairs.to(_wide(rows * many, total.dtype)), counts)
            others = torch.cat([part for k, part in enumerate(parts) if k != self.ranks.rank])
            where, value = others[:, 0].long(), others[:, 1].to(total.dtype)
            row = where.div(many, rounding_mode="floor")
            total.view(-1).index_add_(0, row * groups + crossing.groups[where - row * many], value)
        else:
            own = torch.zeros(rows * many, dtype=total.dtype, device=total.device).index_add_(0, place, value)
            total.view(rows, groups)[:, crossing.groups] += (self.ranks.sum(own) - own).view(rows, many)
        return total

    def _pyro_own_sums(self, msg: Message) -> None:
        """Set sums to 0 that are kept up to date on another rank alone."""
        if msg["done"]:
            return
        (state,) = msg["args"]
        found: dict[str, Tensor] = dict(state)
        elsewhere: dict[int, list[Tensor]] = {}
        for each in self._known.values():
            elsewhere.setdefault(len(each.elsewhere), []).append(each.elsewhere)
        for name, x in state.items():
            masks = elsewhere.get(x.shape[-1] if x.dim() else 0, [])
            if any(not torch.equal(masks[0], mask) for mask in masks[1:]):
                raise LpmError(f"'{name}' may be sums over any of {len(masks)} networks of as many groups: keep none")
            if masks:
                found[name] = torch.where(masks[0], torch.zeros((), dtype=x.dtype), x)
        msg["value"], msg["done"] = found, True

    def _pyro_ghost_sum(self, msg: Message) -> None:
        raise LpmError(f"'{_name(msg['args'][1])}': derivatives aren't added up over ranks; ask for them on one rank")

    def _pyro_aggregate(self, msg: Message) -> None:
        _, network, _, reduce = msg["args"]
        if reduce == "max" and not _is_here(network) and (_is_whole(network) or len(self._crossing(network).groups)):
            raise LpmError(f"network '{network.name}': a maximum isn't taken over ranks; send with sum, mean or any")

    def _pyro_foremost(self, msg: Message) -> None:
        if not msg["done"]:
            cohort, place, number, places = msg["args"]
            self.ranks.agree(self._next("whose turn it is"), number.numel())
            msg["value"], msg["done"] = foremost_of_all(self.ranks, cohort, place, number, places), True

    def _pyro_in_clear(self, msg: Message) -> None:
        what, _ = msg["args"]
        raise LpmError(f"{what} is asked of agents on many ranks one by one: leave it out, or run on one rank")

    def _next(self, name: str) -> str:
        """The next sum, in words."""
        self.sums += 1
        return f"sum {self.sums}, over '{name}'"

    def _crossing(self, network: Network) -> _Crossing:
        if id(network) not in self._known:
            index = getattr(network, "index", None)
            if index is None:
                raise LpmError(f"network '{network.name}': an edge list isn't parted among ranks; use groups")
            count = int(network.share("sum").shape[-1])
            self.ranks.agree(f"who has groups of '{network.name}'", count)
            here = torch.zeros(count, dtype=torch.int32, device=index.device)
            here[index.long()] = 1
            on = self.ranks.sum(here)
            groups = (on > 1).nonzero().squeeze(-1)
            slot = torch.full((count,), -1, dtype=torch.int32, device=index.device)
            slot[groups] = torch.arange(len(groups), dtype=torch.int32, device=index.device)
            self._known[id(network)] = _Crossing(network, groups, slot, (on == 1) & (here == 0))
        return self._known[id(network)]

    def __str__(self) -> str:
        return f"sharded over {self.ranks}"


def _is_here(network: Network | None) -> bool:
    """Whether each rank has groups of its own, such as households, or all know what is summed."""
    return bool(getattr(network, "here", False) or getattr(network, "public", False))


def _is_whole(network: Network) -> bool:
    """Whether all ranks are to have all totals: strata that are shown, what is read together, and few groups."""
    read = getattr(network, "dims", None) or getattr(network, "together", False)
    return bool(read) or network.share("sum").shape[-1] <= _FEW


def _wide(places: int, dtype: torch.dtype) -> torch.dtype:
    """What holds both places and values."""
    return dtype if places < 2**31 else torch.int64


def _name(network: Network | None) -> str:
    return "everybody" if network is None else network.name
