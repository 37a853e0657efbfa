"""Events of hazards that nobody has: whether a cumulative hazard passes a resistance is all that is ever opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lpmppl._compat import handler_stack
from lpmppl.effects.cohorts import dense
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.fields import Choice, Field, Leaf, Network, shape_of
from lpmppl.effects.handlers.checkpointed import Checkpointed
from lpmppl.effects.handlers.held import Held
from lpmppl.effects.handlers.pathwise import Pathwise
from lpmppl.effects.handlers.relaxations import Relaxing
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.hidden import Hidden
from lpmppl.effects.internals.segments import broadcast
from lpmppl.errors import LpmError

__all__ = ["FRACTION", "Arithmetic", "Comparing", "InClear", "Unseen"]

Numbers = NDArray[np.int64]

FRACTION = 50
"""Cumulative hazards and resistances are whole multiples of 2⁻⁵⁰."""

_ROOM = 128.0
"""What a step's hazard, the hazard before the run and a resistance are below, each: with 2⁵⁰, together below 2⁵⁹."""


class Arithmetic(Protocol):
    """What is calculated with: shares among parties, or the numbers themselves; k is how many hold a part."""

    def share(self, x: Numbers) -> Numbers:
        """What holders have of numbers that one agent each knows: (…) to (k, …)."""
        ...

    def public(self, x: Numbers) -> Numbers:
        """What holders have of numbers that all of them know."""
        ...

    def plus(self, x: Numbers, y: Numbers) -> Numbers: ...

    def added(self, x: Numbers, up: Callable[[Numbers], Numbers]) -> Numbers:
        """What holders have of sums, where `up` adds up integers exactly: (k, …, N) to (k, …, G)."""
        ...

    def inner(self, pairs: Iterable[tuple[Numbers, Numbers]]) -> Numbers:
        """What holders have of the sum of products."""
        ...

    def positive(self, x: Numbers) -> Numbers:
        """What holders have of 1 where a number is above 0, and of 0 elsewhere."""
        ...

    def revealed(self, x: Numbers) -> Numbers:
        """What each agent learns, to whom all holders tell theirs."""
        ...


class InClear:
    """The same in the clear, with one who has it all: what shares must equal bit for bit."""

    def share(self, x: Numbers) -> Numbers:
        return x[None]

    def public(self, x: Numbers) -> Numbers:
        return x[None]

    def plus(self, x: Numbers, y: Numbers) -> Numbers:
        return x + y

    def added(self, x: Numbers, up: Callable[[Numbers], Numbers]) -> Numbers:
        return up(x)

    def inner(self, pairs: Iterable[tuple[Numbers, Numbers]]) -> Numbers:
        return np.asarray(sum(x * y for x, y in pairs))

    def positive(self, x: Numbers) -> Numbers:
        return (x > 0).astype(np.int64)

    def revealed(self, x: Numbers) -> Numbers:
        return x[0]


class Unseen(Exposure):
    """An exposure of which only the outcome is ever known: its cumulative hazard stands still in the model's state.

    Args:
        exposure: the model's own, whose `after` is what it was before from here on.
        test: given resistances of shape (…, N), says to whom the event happens, Boolean of that shape.
    """

    def __init__(
        self, exposure: Exposure, test: Callable[[Tensor], Tensor], *, _shape: torch.Size | None = None
    ) -> None:
        own = exposure.before, exposure.hazard, exposure.at_risk, exposure.episode, exposure.dt
        super().__init__(*own, _shape=torch.Size(exposure.batch_shape) if _shape is None else _shape)
        self.exposure, self.test = exposure, test
        exposure._memo["after"] = exposure.before
        self._memo = exposure._memo

    def meet(self, resistance: Tensor) -> Tensor:
        return self.test(resistance)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Unseen:
        return Unseen(self.exposure, self.test, _shape=torch.Size(batch_shape))

    @property
    def met(self) -> Tensor:
        self._refuse()

    def held(self, at_risk: Tensor) -> Exposure:
        self._refuse()

    def sample(self, sample_shape: Any = ()) -> Tensor:
        self._refuse()

    def log_prob(self, value: Tensor) -> Tensor:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise LpmError(
            "a hazard that nobody has can only be compared with agents' resistances: run under ExogenousNoise, as "
            "lpm.run does, and leave out what asks for chances or derivatives; or open its sums, by Custodian(…)"
        )


@dataclass
class _Site:
    """What there is of the cumulative hazards of a site.

    Attributes:
        hidden: what came of sums that nobody has, held in parts, (k, …, N).
        own: what came of hazards that each agent knows, int64 of shape (…, N).
        passed: to whom it was told that it has passed its resistance in this episode.
        episode: which of the agent's episodes this is.
    """

    hidden: Numbers
    own: Numbers
    passed: NDArray[np.bool_]
    episode: Numbers


class Comparing:
    r"""Keep sums that nobody has, and test cumulative hazards of them against agents' resistances.

    .. math:: \Lambda' = \Lambda + \sum_l c_l S_l + k, \qquad \text{opened to the agent: } [\Lambda' > R]

    with S the hidden sums and c, k and R the agent's own, all in multiples of 2⁻⁵⁰. It holds Λ from step to step, until
    another run begins.

    Args:
        among: the arithmetic.
    Attributes:
        tests: how many outcomes were opened, each to its agent.
    """

    def __init__(self, among: Arithmetic) -> None:
        self.among, self.tests = among, 0
        self._sites: dict[str, _Site] = {}
        self._reached: int | None = None

    def begin(self) -> None:
        """Begin another run.

        Raises:
            LpmError: for a handler that needs what nobody has, or a checkpoint, which would have to hold it.
        """
        for handler in handler_stack():
            if isinstance(handler, Checkpointed | Held | Pathwise | Relaxing):
                raise LpmError(
                    f"{type(handler).__name__} takes derivatives, and hazards that nobody has give none: leave it out, "
                    "or open sums, by Custodian(…)"
                )
            if isinstance(handler, DiscreteTime) and handler.checkpoint is not None:
                raise LpmError(
                    f"the checkpoint {handler.checkpoint} can't hold sums that nobody has: leave it out, or open them, "
                    "by Custodian(…)"
                )
        self._sites, self._reached = {}, None

    def steps(self, first: int) -> None:
        """Begin another run, unless the steps to come go on where the last ones ended."""
        if first != self._reached:
            self.begin()
        # Steps that break off are gone on from by none.
        self._reached = None

    def stepped(self, last: int) -> None:
        """Note that all steps before number `last` are done."""
        self._reached = last

    def total(
        self, secret: Tensor, network: Network, onto: Tensor | None, most: int, sizes: Tensor, dtype: torch.dtype
    ) -> Hidden:
        """Add messages up where nobody has the sum.

        Args:
            secret: what agents send, int64 of shape (…, N).
            network: where they add up.
            onto: a running total to add to.
            most: the largest absolute message there can be.
            sizes: how many messages each sum can hold, int64 of shape (G,).
            dtype: the integers of the total.
        Raises:
            LpmError: for a larger message.
        """
        messages = secret.cpu().numpy()
        if messages.size and int(np.abs(messages).max()) > most:
            raise LpmError(
                f"network '{network.name}': a message of {int(np.abs(messages).max())} was given where one is of "
                f"{most} or less; declare its bound"
            )

        def up(x: Numbers) -> Numbers:
            return network.total(torch.from_numpy(np.ascontiguousarray(x)).to(secret.device)).cpu().numpy()

        found = self.among.added(self.among.share(messages), up)
        if onto is not None:
            before = onto.payload.numpy() if isinstance(onto, Hidden) else self.among.public(onto.long().cpu().numpy())
            lead = broadcast(found.shape[1:], before.shape[1:])
            found = self.among.plus(_wide(found, lead), _wide(before, lead))
        return Hidden.of(torch.from_numpy(found), network.name, most * sizes.cpu(), dtype, secret.device)

    def tested(self, name: str, exposure: Exposure) -> Exposure:
        """The exposure to sample in the place of one: itself, where its hazard is known.

        Raises:
            LpmError: by the site's name, for a hazard that isn't linear in hidden sums, has a derivative or is too
                large.
        """
        hazard = exposure.hazard
        if not isinstance(hazard, Field) or not _hides(hazard):
            return exposure
        if hazard.differentiated or exposure.before.requires_grad:
            raise LpmError(f"site '{name}': a hazard that nobody has gives no derivative; open its sums, Custodian(…)")
        known, hidden = _parts(name, hazard)
        return Unseen(exposure, lambda resistance: self._test(name, exposure, known, hidden, resistance))

    def _test(
        self,
        name: str,
        exposure: Exposure,
        known: Tensor,
        hidden: list[tuple[Leaf, Tensor]],
        resistance: Tensor,
    ) -> Tensor:
        """Say to whom an event happens, Boolean of shape (…, N), and keep what there is of the cumulative hazard."""
        last = self._sites.get(name)
        sizes = exposure.batch_shape, resistance.shape, shape_of(exposure.episode)
        shape = broadcast(*sizes, *(() if last is None else (last.own.shape,)))
        before = _encoded(f"site '{name}': the hazard before", exposure.before, shape)
        level = _encoded(f"site '{name}': a resistance", resistance, shape)
        site = self._present(last, exposure.episode, shape, before > level)
        # Nothing can happen again in an episode, so that the hazard needn't go on.
        alive = torch.from_numpy(~site.passed) & exposure.at_risk.cpu()
        span = alive.double() * torch.as_tensor(exposure.dt).double().cpu()
        said = f"site '{name}': a step's hazard"
        own = _encoded(said, known * span, shape)
        pairs, most = [], np.abs(own).astype(np.float64)
        for leaf, weight in hidden:
            total: Hidden = leaf.base  # type: ignore[assignment]
            each = _encoded(said, weight * span, shape)
            sums, bound = total.payload.numpy(), total.most.numpy().astype(np.float64)
            if leaf.index is not None:
                place = leaf.index.cpu().numpy()
                sums, bound = sums[..., place], bound[place]
            pairs.append((_wide(sums, shape), each))
            most += np.abs(each) * bound
        _check(said, most)
        products = self.among.inner([(sums, self.among.share(each)) for sums, each in pairs])
        site.hidden, site.own = self.among.plus(site.hidden, products), site.own + own
        above = self.among.plus(site.hidden, self.among.share(site.own + before - level))
        outcome = self.among.revealed(self.among.positive(above)) == 1
        site.passed = site.passed | outcome
        self._sites[name], self.tests = site, self.tests + outcome.size
        return (torch.from_numpy(outcome) & alive.expand(shape)).to(exposure.before.device)

    def _present(self, last: _Site | None, episode: Tensor | int, shape: torch.Size, over: NDArray[np.bool_]) -> _Site:
        """What there is of the present episodes; `over` is whose hazard had passed before there was any hidden."""
        now = np.broadcast_to(torch.as_tensor(episode).cpu().numpy(), shape)
        nothing = np.zeros(shape, np.int64)
        if last is None:
            return _Site(self.among.public(nothing), nothing, over, now)
        same = np.broadcast_to(last.episode, shape) == now
        hidden = _wide(last.hidden, shape)
        if isinstance(episode, Tensor):
            # Everybody shares whether it goes on, so that who begins anew isn't told apart.
            hidden = self.among.inner([(hidden, self.among.share(same.astype(np.int64)))])
        elif not same.all():
            hidden = self.among.public(nothing)
        return _Site(hidden, np.where(same, last.own, 0), (same & last.passed) | over, now)


def _hides(part: Leaf | Field) -> bool:
    if isinstance(part, Leaf):
        return isinstance(part.base, Hidden)
    return any(_hides(x) for x in (*part.leaves, *(f for f in part.factors if isinstance(f, Field))))


def _parts(name: str, part: Leaf | Field) -> tuple[Tensor, list[tuple[Leaf, Tensor]]]:
    """The part of a hazard that agents know, and what each of its hidden leaves is times: float64 of shape (…, N)."""
    if isinstance(part, Leaf):
        if not isinstance(part.base, Hidden):
            return part.precise().dense().cpu(), []
        weight = torch.ones(1, dtype=torch.float64) if part.share is None else part.share.double().cpu()
        if part.share is not None and part.index is not None:
            weight = weight[..., part.index.cpu().long()]
        return torch.zeros(1, dtype=torch.float64), [(part, weight * torch.as_tensor(part.scale).double().cpu())]
    each = [_parts(name, leaf) for leaf in part.leaves]
    known, hidden = sum((k for k, _ in each), torch.zeros(1, dtype=torch.float64)), [x for _, h in each for x in h]
    for factor in part.factors:
        if isinstance(factor, Field) and _hides(factor):
            raise LpmError(
                f"site '{name}': its hazard multiplies sums that are never opened with each other or with others; let "
                "it be linear in them, or open them, by Custodian(…)"
            )
        values = dense(factor if isinstance(factor, Tensor | Choice) else factor.precise()).double().cpu()
        known, hidden = known * values, [(leaf, weight * values) for leaf, weight in hidden]
    return known, hidden


def _wide(x: Numbers, shape: Sequence[int]) -> Numbers:
    """What k holders have of numbers, (k, …), spread over more leading dimensions: (k, *shape)."""
    return np.broadcast_to(x.reshape(len(x), *(1,) * (len(shape) + 1 - x.ndim), *x.shape[1:]), (len(x), *shape))


def _encoded(what: str, x: Tensor, shape: Sequence[int]) -> Numbers:
    """Numbers in multiples of 2⁻⁵⁰, to the nearest."""
    units = x.detach().double().cpu().numpy() * 2.0**FRACTION
    _check(what, units)
    return np.broadcast_to(np.rint(units).astype(np.int64), tuple(shape))


def _check(what: str, units: NDArray[np.float64]) -> None:
    """Refuse what numbers of the field have no room for."""
    largest = float(np.abs(units).max()) * 2.0**-FRACTION if units.size else 0.0
    if not largest < _ROOM:
        raise LpmError(
            f"{what} can be as large as {largest:g} where comparisons have room for {_ROOM:g}; take shorter steps, "
            "declare smaller bounds, or open sums, by Custodian(…)"
        )
