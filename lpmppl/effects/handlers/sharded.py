"""A population that is spread over ranks: the same program on each, and the same numbers as in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from lpmppl._compat import Message, Messenger, handler_stack
from lpmppl.effects.cohorts import Sparse
from lpmppl.effects.deferred import Deferred, arrived
from lpmppl.effects.fields import Network, summed
from lpmppl.effects.handlers.noise import ExogenousNoise
from lpmppl.effects.handlers.pathwise import Pathwise
from lpmppl.effects.handlers.readers import reader
from lpmppl.effects.handlers.sharing import FixedPoint
from lpmppl.effects.internals.crossing import Crossing
from lpmppl.effects.internals.segments import differentiated
from lpmppl.effects.ops import running
from lpmppl.effects.ranking import foremost_of_all
from lpmppl.effects.ranks import FEW as _FEW
from lpmppl.effects.ranks import Ranks
from lpmppl.effects.tangents import Everywhere, WayBack, forward
from lpmppl.effects.tape import on_tape, timing
from lpmppl.errors import LpmError

__all__ = ["Sharded"]


class Sharded(Messenger):
    """Add up over all ranks: each simulates its own agents, and has the totals of the groups that these belong to.

    Groups that are wholly on one rank are never told others; of those that cross ranks only the integers that changed
    are, or all of them, whichever is less. Sums of integers have no order and agents' chance is keyed by their ids, so
    that every agent fares as in one process, on any number of ranks.

    Args:
        ranks: those that share the population, as `Population.shard` has parted it, or the mesh that they are in (see
            `Ranks.of`); by default all that torchrun started.
    Attributes:
        sums: how many sums were asked for so far.
    Raises:
        LpmError: in a run, where ranks don't do the same, for derivatives backwards outside of `backwards`, for maxima
            over groups that cross ranks, for edge lists, and for what reads many agents one by one.

    >>> import lpmppl as lpm
    >>> people = lpm.nyc.population(1_000)
    >>> alone = lpm.run(lpm.nyc.sir(people), days=3)["prior_predictive"]["infections"]
    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # under torchrun: Ranks.begin()
    >>> with Sharded(Ranks()):
    ...     together = lpm.run(lpm.nyc.sir(people.shard(Ranks())), days=3)["prior_predictive"]["infections"]
    >>> bool((together == alone).all())
    True
    >>> dist.destroy_process_group()
    """

    def __init__(self, ranks: Ranks | DeviceMesh | None = None) -> None:
        super().__init__()
        ranks = Ranks.begin() if ranks is None else ranks
        self.ranks = ranks if isinstance(ranks, Ranks) else Ranks.of(ranks)
        self.sums = 0
        self._known: dict[int, Crossing] = {}
        self._back: WayBack | None = None
        self._looking = self._asked = False

    def _pyro_simulate(self, msg: Message) -> None:
        self._check()
        dynamics, state, *rest = msg["args"]
        msg["args"] = (dynamics, {k: arrived(x) for k, x in state.items()}, *rest)

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
        mine = summed(integers, network)
        if crossing is not None:
            crossing.clear(mine)
        total = mine if onto is None else onto + mine
        if crossing is None:
            return self._completed(name, mine, total, total.add_)
        if not len(crossing.groups):
            return total
        return self._completed(name, mine[..., crossing.groups], total, partial(crossing.add_all, total))

    def _completed(self, name: str, mine: Tensor, total: Tensor, add: Callable[[Tensor], object]) -> Tensor:
        """A total with other ranks' parts in it, once somebody looks, or at once where they are long."""
        what = self._next(name)
        if not self.ranks.short(mine):
            add(self.ranks.total(what, mine) - mine)
            return total

        def hear(others: Sequence[Tensor] | None) -> None:
            for part in others or ():
                add(part.reshape(mine.shape))

        return self._later(total, self.ranks.later(what, mine.reshape(-1), hear, size=mine.numel()))

    def _few(self, name: str, integers: Sparse, crossing: Crossing, onto: Tensor | None) -> Tensor:
        """The totals of messages of few agents, of which others are told what concerns them."""
        total = crossing.network.total(integers, onto)
        crossing.clear(total)
        changes, rows = crossing.changes(integers, total), total.shape[:-1].numel()

        def hear(others: Sequence[Tensor] | None) -> None:
            if others is None:
                own = crossing.whole(changes, total)
                crossing.add_all(total, self.ranks.sum(own) - own)
            for part in others or ():
                crossing.add(total, part)

        # From so many on telling all totals is less.
        most = -(-rows * len(crossing.groups) // self.ranks.count)
        return self._later(total, self.ranks.later(self._next(name), changes, hear, size=rows, most=most))

    def _later(self, total: Tensor, question: Any) -> Tensor:
        if timing():  # derivatives are told with their own sums, in the same order on all ranks
            self.ranks.settle(question)
            return total
        return Deferred.of(total, partial(self.ranks.settle, question))

    def _pyro_post_substep(self, msg: Message) -> None:
        """Have all there is in what goes on to other substeps; a tally that doesn't comes with a later message."""
        msg["value"] = {k: arrived(x) for k, x in msg["value"].items()}

    def _pyro_post_simulate(self, msg: Message) -> None:
        self.ranks.settle()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        if error is None:
            self.ranks.settle()

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

    @contextmanager
    def backwards(self, theta: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Take derivatives backwards in a run within, of numbers that all ranks compute alike from its tallies.

        Each rank calls `backward()` of the same number, as often as the others, and has its whole derivative, the same
        on all ranks. `Pathwise` is given no parameters to look for here.

        Args:
            theta: the parameters; derivatives are of those with `requires_grad`.
        Returns:
            the parameters to run with, whose derivatives are those of the ones given.
        Raises:
            InputError: where none has `requires_grad`.
            LpmError: within another `backwards`; in a run, where something else has `requires_grad`.
        """
        if self._back is not None:
            raise LpmError("backwards(…) within another: end the first, or give both's parameters to one")
        self._back = WayBack(self.ranks, theta)
        try:
            yield self._back.theta
        finally:
            self._back = None

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Tell others of no derivatives in a run within, which is made for what `Pathwise` finds to be unseen."""
        self._looking = True
        try:
            yield
        finally:
            self._looking = False

    def _pyro_ghost_sum(self, msg: Message) -> None:
        ghost, network = msg["args"]
        if not msg["done"] and self._derives(network):
            self._asked = timing()
            found = self._derivative(ghost, network, ghost.shape[:-1])
            msg["value"], msg["done"] = summed(ghost, network) if found is None else found, True

    def _derives(self, network: Network | None) -> bool:
        """Whether ranks tell each other of derivatives of sums over a network."""
        if self._looking or _is_here(network):
            return False
        return network is None or _is_whole(network) or len(self._crossing(network).groups) > 0

    def _pyro_tally(self, msg: Message) -> None:
        """Have all ranks take part in a derivative: on one, nothing may have happened yet that carries any."""
        _, integers, by, _, quantum, _ = msg["args"]
        if not timing() or not self._derives(by):
            return
        asked, self._asked = self._asked, False
        lead, kwargs = integers.shape[:-1], dict(msg["kwargs"])
        if not asked and (more := self._derivative(None, by, lead)) is not None:
            more = more / quantum
            kwargs["ghost"] = more if kwargs.get("ghost") is None else kwargs["ghost"] + more
        own = kwargs.get("crossing")
        if any(self.ranks.agree(f"{self._next(_name(by))}: times of events", each=int(own is not None))):
            kwargs["crossing"] = partial(self._crossed, own, by, lead, quantum)
        msg["kwargs"] = kwargs

    def _crossed(
        self, own: Callable[[], Tensor] | None, by: Network | None, lead: Sequence[int], quantum: float
    ) -> Tensor:
        """How a count on all ranks moves with the times of its events."""
        if own is not None:
            moved, self._asked = own(), False
            return moved
        found = self._derivative(None, by, lead)
        return torch.zeros(_shape(by, lead), dtype=torch.float64) if found is None else found / quantum

    def _pyro_post_aggregate(self, msg: Message) -> None:
        """Have all ranks take part in a derivative, as in that of a tally."""
        message, network, onto, reduce = msg["args"]
        asked, self._asked = self._asked, False
        # What is sent as integers or Booleans, and maxima, carry none on any rank.
        carries = message.dtype.is_floating_point and reduce in ("sum", "mean")
        if asked or not timing() or not carries or not self._derives(network):
            return
        total = msg["value"].total
        if on_tape() and isinstance(message, Sparse) and not (onto is not None and onto.is_floating_point()):
            if self._has_any(differentiated(message.value), network):
                assert self._back is not None
                msg["value"] = running(self._back.tied(self._everywhere(network), total), network, reduce)
        elif (more := self._derivative(None, network, message.shape[:-1])) is not None:
            msg["value"] = running(total + more / network.quantum, network, reduce)

    def _derivative(self, ghost: Tensor | Sparse | None, network: Network | None, lead: Sequence[int]) -> Tensor | None:
        """What is zero in value and carries the derivative of a sum over all ranks, None where none of them has any."""
        value = ghost.value if isinstance(ghost, Sparse) else ghost
        has = value is not None and differentiated(value)
        local = summed(ghost, network) if ghost is not None and has else None
        if on_tape() or (value is not None and value.requires_grad):
            if not self._has_any(has, network):
                return None
            assert self._back is not None
            return self._back.sum(self._everywhere(network), local, _shape(network, lead))
        return forward(self._everywhere(network), local, _shape(network, lead))

    def _has_any(self, has: bool, network: Network | None) -> bool:
        """Whether any rank has a derivative of a sum, to be taken backwards."""
        name = _name(network)
        if not any(self.ranks.agree(f"{self._next(name)}: whether it has a derivative", each=int(has))):
            return False
        if self._back is None:
            raise LpmError(
                f"'{name}': derivatives backwards would be of a rank's own people alone; run and derive within `with "
                "sharded.backwards(theta) as theta:` or in forward mode, or ask lpm.sensitivity for "
                "estimator='pathwise' or 'differences'"
            )
        if any(isinstance(handler, Pathwise) and handler.parameters for handler in handler_stack()):
            raise LpmError(
                f"'{name}': within backwards(…) sums hang on all parameters, so that Pathwise would find each of them "
                "wherever it looks; give it none here, and have it look in a run within `with sharded.looking():`"
            )
        return True

    def _everywhere(self, network: Network | None) -> Everywhere:
        """How derivatives of sums over a network are added up over ranks."""
        what = f"{self._next(_name(network))}: its derivative"
        whole = network is None or _is_whole(network)
        return Everywhere(self.ranks, what, None if network is None or whole else self._crossing(network).groups)

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

    def _crossing(self, network: Network) -> Crossing:
        if id(network) not in self._known:
            index = getattr(network, "index", None)
            if index is None:
                raise LpmError(f"network '{network.name}': an edge list isn't parted among ranks; use groups")
            count = int(network.share("sum").shape[-1])
            crosses, elsewhere = self._apart(network, index, count)
            if (nowhere := getattr(network, "nowhere", None)) is not None:
                crosses[nowhere] = False
            groups = crosses.nonzero().squeeze(-1)
            slot = torch.full((count,), -1, dtype=torch.int32, device=index.device)
            slot[groups] = torch.arange(len(groups), dtype=torch.int32, device=index.device)
            self._known[id(network)] = Crossing(network, groups, slot, elsewhere, nowhere)
        return self._known[id(network)]

    def _apart(self, network: Network, index: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Which groups have members on several ranks, and which have all of them on another one."""
        if getattr(network, "ids", None) is not None:
            # Groups that are here have members here, or on several other ranks.
            crosses = torch.bincount(index, minlength=count) != network.members  # type: ignore[attr-defined]
            self.ranks.agree(f"who has groups of '{network.name}'", int(crosses.sum()))
            return crosses, torch.zeros_like(crosses)
        self.ranks.agree(f"who has groups of '{network.name}'", count)
        here = torch.zeros(count, dtype=torch.int32, device=index.device)
        here[index.long()] = 1
        on = self.ranks.sum(here)
        return on > 1, (on == 1) & (here == 0)

    def __str__(self) -> str:
        return f"sharded over {self.ranks}"


def _shape(network: Network | None, lead: Sequence[int]) -> torch.Size:
    return torch.Size((*lead, 1 if network is None else network.share("sum").shape[-1]))


def _is_here(network: Network | None) -> bool:
    """Whether each rank has groups of its own, such as households, or all know what is summed."""
    return bool(getattr(network, "here", False) or getattr(network, "public", False))


def _is_whole(network: Network) -> bool:
    """Whether all ranks are to have all totals: strata that are shown, what is read together, and few groups."""
    read = getattr(network, "dims", None) or getattr(network, "together", False)
    if getattr(network, "ids", None) is not None:
        if read:
            raise LpmError(
                f"network '{network.name}' is read together, and has only some of its groups on a rank: ask for it as "
                f"people.network('{network.name}', together=True)"
            )
        return False
    return bool(read) or network.share("sum").shape[-1] <= _FEW


def _name(network: Network | None) -> str:
    return "everybody" if network is None else network.name
