"""Who acts on whom: from which agents, over which network, the events of a hazard came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.cohorts import Cohort, Sparse, dense
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.fields import Network
from lpmppl.effects.handlers.record import Series
from lpmppl.effects.internals.ring import quantise
from lpmppl.effects.ops import ring_sum
from lpmppl.errors import InputError, LpmError
from lpmppl.typing import State

__all__ = ["Kinds", "Sources"]

_CELLS = 2**26
"""The most totals of one network, over all kinds of senders, that are held at once."""

_TOLERANCE = 2e-3
"""What rounding to a network's fixed point may make of a hazard's parts together."""


@runtime_checkable
class Kinds(Protocol):
    """Kinds of agents: a code of each, shape (N,), in the product of the labels of some dimensions."""

    @property
    def index(self) -> Tensor: ...

    @property
    def count(self) -> int: ...

    @property
    def dims(self) -> Mapping[str, Sequence[str]]: ...


class _Reached(Exception):  # noqa: N818 (it is no error)
    """The site whose hazard was wanted, with its exposure."""

    def __init__(self, exposure: Exposure) -> None:
        super().__init__()
        self.exposure = exposure


@dataclass
class _Turn:
    """What it takes to play a substep's turn again."""

    fn: Callable[[State], State]
    state: State
    networks: dict[str, Network] = field(default_factory=dict)
    events: dict[str, Any] = field(default_factory=dict)
    exposure: Exposure | None = None
    sent: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def key(self, total: Tensor) -> str | None:
        """The state key that holds a running total."""
        return next((key for key, x in self.state.items() if x is total), None)


class Sources(Messenger):
    r"""Say from whom the events of a hazard came: who infected whom, by kind of agent and by layer.

    The hazard of eq. 8 of the LPM paper is a sum over who sends, :math:`h_i = \sum_{j, l} h_{ij}^l`. Given that the
    event happened to i, it came from agent j over layer l with the probability

    .. math:: \Pr(j, l \mid i) = h_{ij}^l / h_i

    The substep in which the site stands is played again with the messages of each kind of senders alone, over each
    network alone, and its hazard read at those to whom the event happened. So these are expected numbers given
    everything that happened; over senders and layers they add up to the events. The run itself stays as it is.

    Args:
        site: the hazard's site, such as `infection`.
        senders: the kinds of agents that send.
        receivers: the kinds of agents to whom it happens; the same by default.
        layers: by a network's name, codes of its groups, shape (G,), and their labels, where groups of different kinds
            are layers of their own.
    Raises:
        InputError: where the kinds are none.
        LpmError: where the site stands in no substep, its hazard isn't a sum over who sends, or a running total in the
            state began before the handler.
    """

    def __init__(
        self,
        site: str,
        senders: Kinds,
        receivers: Kinds | None = None,
        layers: Mapping[str, tuple[Tensor, Sequence[str]]] | None = None,
    ) -> None:
        super().__init__()
        for kinds in (senders, receivers):
            if kinds is not None and not isinstance(kinds, Kinds):
                raise InputError(
                    f"kinds of agents are needed, but {type(kinds).__name__} was given; give population.strata(age=…)"
                )
        self.site, self.senders, self.receivers = site, senders, receivers or senders
        self.layers = dict(layers or {})
        self.days: list[float] = []
        self.entries: list[dict[str, Tensor]] = []
        self.nobodys: list[Tensor] = []
        self.networks: dict[str, Network] = {}
        self._turn: _Turn | None = None
        self._sent: dict[str, Tensor] = {}

    @property
    def layers_met(self) -> list[str]:
        """The layers over which anything came, and those networks that are one layer each."""
        whole = (name for name in self.networks if name not in self.layers)
        return list(dict.fromkeys([*whole, *(name for entry in self.entries for name in entry)]))

    def sent(self, names: Sequence[str]) -> Series:
        """Events a day that agents brought about: float64 of shape (T, …, layers · senders · receivers)."""
        found = Series()
        found.days = list(self.days)
        for entry, like in zip(self.entries, self.nobodys, strict=True):
            nothing = like.new_zeros(*like.shape[:-1], self.senders.count * self.receivers.count)
            found.entries.append(torch.cat([entry.get(name, nothing) for name in names], -1))
        found.dims = {
            "layer": list(names),
            **{f"from_{d}": x for d, x in self.senders.dims.items()},
            **self.receivers.dims,
        }
        return found

    def unsent(self) -> Series:
        """Events a day that no agent brought about: float64 of shape (T, …, receivers)."""
        found = Series()
        found.days, found.entries, found.dims = list(self.days), list(self.nobodys), self.receivers.dims
        return found

    def _pyro_substep(self, msg: Message) -> None:
        _, fn, state, *_ = msg["args"]
        self._turn = _Turn(fn, state)

    def _pyro_post_aggregate(self, msg: Message) -> None:
        message, network, onto, _ = msg["args"]
        if self._turn is None:
            return
        self._turn.networks.setdefault(network.name, network)
        if onto is not None:
            # A running total is of all changes so far: what each agent's add up to is what it sends now.
            total = msg["value"].total
            self._turn.sent[id(total)] = total, self.lasting(onto, self._turn) + dense(message)

    def lasting(self, total: Tensor, turn: _Turn) -> Tensor:
        """What each agent has sent into a running total of the state, shape (…, N), or (1,) of nothing."""
        key = turn.key(total)
        if key not in self._sent and bool(total.any()):
            raise LpmError(
                f"site '{self.site}': its hazard reads a running total that began before it was asked who sends; ask "
                "from the first day on"
            )
        return self._sent.get(key or "", total.new_zeros(1).float())

    def _pyro_running(self, msg: Message) -> None:
        if self._turn is not None:
            network = msg["args"][1]
            self._turn.networks.setdefault(network.name, network)

    def _pyro_post_happens(self, msg: Message) -> None:
        name, exposure = msg["args"]
        if self._turn is not None:
            self._turn.events[name] = msg["value"]
            self._turn.exposure = exposure if name == self.site else self._turn.exposure
        elif name == self.site:
            raise LpmError(f"site '{name}' stands in no substep, so that its senders can't be told; put it into one")

    def _pyro_post_substep(self, msg: Message) -> None:
        turn, self._turn = self._turn, None
        if turn is None:
            return
        for key, x in msg["value"].items():
            if id(x) in turn.sent:
                self._sent[key] = turn.sent[id(x)][1]
        if turn.exposure is not None:
            self._count(turn, turn.exposure)

    def _count(self, turn: _Turn, exposure: Exposure) -> None:
        """Count the day's events by layer, sender and receiver."""
        happened = Cohort.of(dense(turn.events[self.site][0]))
        self.networks |= turn.networks
        if not len(happened):
            nothing = torch.zeros(*happened.shape[:-1], self.receivers.count, dtype=torch.float64)
            self._keep(turn, {}, nothing)
            return
        whole, nobody = _read(exposure, happened), None
        parts = {}
        for name, network in turn.networks.items():
            parts[name], nobody = self._parts(turn, network, happened)
        nobody = whole if nobody is None else nobody
        everything = nobody + sum(part.sum(0) for part in parts.values())
        if bool(((everything - whole).abs() > _TOLERANCE * whole).any()):
            raise LpmError(
                f"site '{self.site}': its hazard isn't a sum over who sends, so that it can't be told whom an event "
                f"came from; alone they make up to {float((everything / whole).max()):.3g} of it"
            )
        # An event that was forced without a hazard came from nobody.
        scale = torch.where(everything > 0, 1.0 / everything, 0.0)
        entry = {}
        for name, part in parts.items():
            if name not in self.layers:
                entry[name] = self._summed(happened, part * scale)
                continue
            code, labels = self.layers[name]
            where = code[happened.group(turn.networks[name].index).long()]  # type: ignore[attr-defined]
            for k in where[part.sum(0) > 0].unique().tolist():
                of_kind = self._summed(happened, part * scale * (where == k))
                entry[labels[k]] = entry[labels[k]] + of_kind if labels[k] in entry else of_kind
        self._keep(turn, entry, self._summed(happened, torch.where(everything > 0, nobody * scale, 1.0).unsqueeze(0)))

    def _keep(self, turn: _Turn, entry: dict[str, Tensor], nobody: Tensor) -> None:
        self.days.append(float(turn.state["t"]))
        self.entries.append(entry)
        self.nobodys.append(nobody)

    def _summed(self, happened: Cohort, share: Tensor) -> Tensor:
        """Shares of events, shape (senders, k), added up by world and receiver: (…, senders · receivers)."""
        lead, size = happened.shape[:-1], self.receivers.count
        to = happened.row * size + self.receivers.index[happened.agent].long()
        out = share.new_zeros(share.shape[0], lead.numel() * size).index_add_(1, to, share)
        return out.reshape(-1, lead.numel(), size).movedim(0, 1).reshape(*lead, -1).cpu()

    def _parts(self, turn: _Turn, network: Network, happened: Cohort) -> tuple[Tensor, Tensor]:
        """The hazard of those to whom it happened, by who sends over a network, by nobody: (senders, k), (k,)."""
        senders, worlds = self.senders.count, happened.shape[:-1].numel()
        step = max(1, _CELLS // max(1, network.share("sum").shape[-1] * worlds))
        found, nobody = [], torch.zeros(len(happened), dtype=torch.float64)
        for first in range(0, senders, step):
            rows = range(first, min(first + step, senders))
            exposure = self._played(turn, _Apart(self, turn, network.name, rows, len(happened.shape) - 1))
            hazard = _read(exposure, happened.expand((len(rows) + 1, *happened.shape[:-1]))).reshape(len(rows) + 1, -1)
            nobody = hazard[-1]
            found.append(hazard[:-1] - nobody)
        return torch.cat(found), nobody

    def _played(self, turn: _Turn, apart: _Apart) -> Exposure:
        """Play a turn again as far as the site, and give the exposure that it comes to."""
        try:
            with apart:
                turn.fn(turn.state)
        except _Reached as reached:
            return reached.exposure
        raise LpmError(f"site '{self.site}' wasn't met when its substep was played again with the same state")


def _read(exposure: Exposure, cohort: Cohort) -> Tensor:
    """The hazard of a cohort's members, float64 of shape (k,)."""
    hazard = exposure.hazard
    return cohort.read(torch.tensor([hazard]) if isinstance(hazard, int | float) else hazard).double()


class _Apart(Messenger):
    """Send what each kind of senders sends alone, over one network alone, in a leading dimension of kinds.

    The last row of that dimension is of no messages at all.

    Args:
        sources: the handler that asks.
        turn: the substep's turn that is played again.
        network: the network's name.
        kinds: the kinds of senders.
        worlds: the number of dimensions that the event has before its agents.
    """

    def __init__(self, sources: Sources, turn: _Turn, network: str, kinds: range, worlds: int) -> None:
        super().__init__()
        self.sources, self.turn, self.network, self.kinds, self.worlds = sources, turn, network, kinds, worlds

    def _pyro_aggregate(self, msg: Message) -> None:
        message, network, onto, reduce = msg["args"]
        if onto is None:
            msg["args"] = (self._alone(message, network), network, None, reduce)

    def _pyro_running(self, msg: Message) -> None:
        total, network, reduce, weight = msg["args"]
        sent = self.sources.lasting(total, self.turn)
        alone = self._alone(sent.expand(*sent.shape[:-1], network.agents), network)
        integers = Sparse(alone.cohort, quantise(alone.value, network.quantum, total.dtype))
        msg["args"] = (ring_sum(integers, network), network, reduce, weight)

    def _alone(self, message: Tensor | Sparse, network: Network) -> Sparse:
        """A message with each kind of senders in a row of its own."""
        if not isinstance(message, Sparse):
            few = Cohort.of(torch.ne(dense(message), 0))
            message = few.carrying(few.read(message))
        members = message.cohort
        # Worlds stay on the dimensions that they have in the event, though the message may not have them yet.
        missing = (1,) * (self.worlds - len(members.shape) + 1)
        shape = torch.Size((len(self.kinds) + 1, *missing, *members.shape))
        if network.name != self.network:
            return Sparse(Cohort(members.where[:0], shape), message.value[:0])
        row = self.sources.senders.index[members.agent].long() - self.kinds.start
        mine = ((row >= 0) & (row < len(self.kinds))).nonzero().squeeze(-1)
        where = row[mine] * members.shape.numel() + members.where[mine]
        order = where.argsort()
        return Sparse(Cohort(where[order], shape), message.value[mine[order]])

    def _pyro_happens(self, msg: Message) -> None:
        name, exposure = msg["args"]
        if name == self.sources.site:
            raise _Reached(exposure)
        msg["value"], msg["done"], msg["stop"] = self.turn.events[name], True, True

    def _pyro_tally(self, msg: Message) -> None:
        msg["stop"] = True

    def _pyro_sample(self, msg: Message) -> None:
        raise LpmError(
            f"its substep draws '{msg['name']}' before '{self.sources.site}', so that it can't be played again to tell "
            "its senders; draw it in a substep of its own"
        )
