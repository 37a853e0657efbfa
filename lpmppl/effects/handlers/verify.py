"""Verified and Witness: a society that says when, or notes where, a substep breaks what it promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.cohorts import dense
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.fields import Network
from lpmppl.errors import LpmError
from lpmppl.typing import State

__all__ = [
    "Breach",
    "Invariant",
    "Site",
    "Turns",
    "Verified",
    "Whereabouts",
    "Witness",
    "bounded",
    "conserved",
    "finite",
    "never_falls",
]


@dataclass(frozen=True)
class Invariant:
    """Something that holds of every substep.

    Args:
        name: what holds, for the error.
        holds: the state before and after the substep to whether it does, and what was seen if it doesn't.
    """

    name: str
    holds: Callable[[State, State], tuple[bool, str]]


def conserved(name: str, amount: Callable[[State], Tensor]) -> Invariant:
    """An amount, such as the number of people, that no substep changes."""

    def holds(before: State, after: State) -> tuple[bool, str]:
        was, now = torch.broadcast_tensors(amount(before), amount(after))
        return torch.equal(was, now), f"{was.flatten().tolist()} before, {now.flatten().tolist()} after"

    return Invariant(f"{name} is conserved", holds)


def bounded(key: str, low: float, high: float) -> Invariant:
    """A state key whose values lie in low … high; NaN does not."""

    def holds(_: State, after: State) -> tuple[bool, str]:
        if key not in after:
            return True, ""
        x = after[key]
        return bool(((x >= low) & (x <= high)).all()), f"values {float(x.min()):g} … {float(x.max()):g}"

    return Invariant(f"'{key}' lies in {low:g} … {high:g}", holds)


def never_falls(key: str) -> Invariant:
    """A state key that accumulates."""

    def holds(before: State, after: State) -> tuple[bool, str]:
        if key not in before or key not in after:
            return True, ""
        change = (after[key] - before[key]).min()
        return bool(change >= 0), f"a change of {float(change):g}"

    return Invariant(f"'{key}' never falls", holds)


def finite(key: str) -> Invariant:
    """A state key that is a number for everybody: never NaN, and infinite only where some were infinite before."""

    def holds(before: State, after: State) -> tuple[bool, str]:
        if key not in after or not after[key].is_floating_point():
            return True, ""
        x, was = after[key], before.get(key)
        wrong = _no_number(x, was is not None and bool(was.isinf().any()))
        return not bool(wrong.any()), f"{int(wrong.sum())} of {x.numel()} values aren't"

    return Invariant(f"'{key}' is finite", holds)


def _no_number(x: Tensor, infinite: bool) -> Tensor:
    """Which values are NaN, or infinite where they may not be."""
    return x.isnan() if infinite else ~x.isfinite()


def _plain(name: str) -> str:
    """A site's name without its step: `infection` of `t=3/infection`."""
    return name.partition("/")[2] or name if name.startswith("t=") else name


class Whereabouts(Messenger):
    """Know where a run is, so that what stops it can be told of.

    Attributes:
        substep: the substep whose turn it is, "" between two of them.
        site: the site, tally, message or decision at work, "" where there is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.substep, self.site = "", ""

    def _pyro_substep(self, msg: Message) -> None:
        self.substep, self.site = msg["args"][0], ""

    def _pyro_post_substep(self, msg: Message) -> None:
        self.substep, self.site = "", ""

    def _enter(self, kind: str, name: str) -> None:
        self.site = f"{kind} '{_plain(name)}'"

    def _leave(self, msg: Message) -> None:
        self.site = ""

    def _pyro_sample(self, msg: Message) -> None:
        self._enter("site", msg["name"])

    def _pyro_happens(self, msg: Message) -> None:
        self._enter("site", msg["args"][0])

    def _pyro_tally(self, msg: Message) -> None:
        self._enter("tally", msg["args"][0])

    def _pyro_decide(self, msg: Message) -> None:
        self._enter("decision", msg["args"][0])

    def _pyro_aggregate(self, msg: Message) -> None:
        self._enter("network", msg["args"][1].name)

    _pyro_post_sample = _pyro_post_happens = _pyro_post_tally = _pyro_post_decide = _pyro_post_aggregate = _leave


class _Watched(Mapping[str, Tensor]):
    """A state that notes what is read of it."""

    def __init__(self, state: State) -> None:
        self.state, self.read = state, set[str]()

    def __getitem__(self, key: str) -> Tensor:
        self.read.add(key)
        return self.state[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


class Verified(Messenger):
    """Check of every substep what it reads and writes against what it declares, and the invariants.

    Args:
        invariants: what must hold of every substep, such as `conserved("people", count)`.
    Raises:
        LpmError: naming the substep, the day, the key or invariant, and what was seen.
    """

    def __init__(self, *invariants: Invariant) -> None:
        super().__init__()
        self.invariants = invariants

    def _pyro_substep(self, msg: Message) -> None:
        name, fn, state, reads, writes = msg["args"]

        def watched(s: State) -> State:
            view = _Watched(s)
            changes = fn(view)
            where = f"substep '{name}' on day {float(s['t']):g}" if "t" in s else f"substep '{name}'"
            if reads is not None and (extra := sorted(view.read - {*reads, *(writes or ()), "t", "dt"})):
                raise LpmError(f"{where} read {', '.join(extra)}, which it doesn't declare; add it to reads")
            if writes is not None and (extra := sorted(set(changes) - set(writes))):
                raise LpmError(f"{where} wrote {', '.join(extra)}, which it doesn't declare; add it to writes")
            after = {**s, **changes}
            for invariant in self.invariants:
                kept, seen = invariant.holds(s, after)
                if not kept:
                    raise LpmError(f"{where}: {invariant.name} no longer: {seen}")
            return changes

        msg["args"] = (name, watched, state, reads, writes)


@dataclass(frozen=True)
class Breach:
    """What was broken for the first time, by which substep, or at which hazard site, and on which day."""

    where: str
    day: float
    what: str
    seen: str
    site: bool = False


@dataclass
class Turns:
    """What one substep did over a run, beside what it declares."""

    reads: frozenset[str] | None
    writes: frozenset[str] | None
    read: set[str] = field(default_factory=set)
    wrote: set[str] = field(default_factory=set)
    changed: set[str] = field(default_factory=set)
    turns: int = 0


@dataclass
class Site:
    """What happened at a hazard site, a number each step; `likely` are those at risk with p above one half."""

    days: list[float] = field(default_factory=list)
    at_risk: list[int] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    accrued: list[float] = field(default_factory=list)
    likely: list[int] = field(default_factory=list)
    last: tuple[Tensor, Tensor] | None = None
    done: Tensor | None = None
    met: Tensor | None = None


class Witness(Messenger):
    r"""Note over a run, without ever refusing, what every substep reads and writes and where an invariant breaks.

    Of every hazard site it keeps a ledger. While an agent's episode lasts, its cumulative hazard goes on from where it
    stood, :math:`\Lambda_t = \Lambda'_{t-1}`; a later episode begins at 0; to whom the event has happened isn't at risk
    of it again within the episode. Without these, `ExogenousNoise` and plain Pyro differ in law.

    Args:
        agents: how many agents there are.
        invariants: what must hold of every substep.
    Attributes:
        breaches: each kind of breach once, where it came first.
        substeps: what every substep did, by name.
        sites: the ledger of every hazard site over all agents, by name.
        networks: the networks that messages go over, by name.
        strays: sites of a value for each agent that stand outside the agents' plate.
        sampled: the names of all sites.
        observed: what was observed at the last of each decision, by its name and the feature's: `isolate: risk`. Of
            every site besides, what it is drawn from: `fatal: mean`, `fatal: variance` and, in the agents' plate,
            their ids, `fatal: who`, and the episode of their lives that it belongs to, `fatal: episode`.
    """

    def __init__(self, agents: int, *invariants: Invariant) -> None:
        super().__init__()
        self.agents, self.invariants = agents, invariants
        self.breaches: list[Breach] = []
        self.substeps: dict[str, Turns] = {}
        self.sites: dict[str, Site] = {}
        self.networks: dict[str, Network] = {}
        self.strays: set[str] = set()
        self.sampled: set[str] = set()
        self.observed: dict[str, Tensor] = {}
        self._known: set[tuple[str, str]] = set()
        self._day = 0.0
        self._infinite: dict[str, bool] = {}
        self._types: dict[str, torch.dtype] = {}

    def note(self, where: str, what: str, seen: str, site: bool = False) -> None:
        """Keep a breach, unless the same was seen before."""
        if (where, what) not in self._known:
            self._known.add((where, what))
            self.breaches.append(Breach(where, self._day, what, seen, site))

    def _pyro_substep(self, msg: Message) -> None:
        name, fn, state, reads, writes = msg["args"]
        said = self.substeps.setdefault(
            name,
            Turns(None if reads is None else frozenset(reads), None if writes is None else frozenset(writes)),
        )

        def watched(s: State) -> State:
            self._day = float(s["t"]) if "t" in s else self._day
            view = _Watched(s)
            try:
                changes = fn(view)
            finally:
                said.read |= view.read
            said.turns += 1
            said.wrote |= set(changes)
            said.changed |= {k for k, x in changes.items() if k not in s or x is not s[k]}
            self.check(name, s, changes)
            return changes

        msg["args"] = (name, watched, state, reads, writes)

    def check(self, name: str, before: State, changes: State) -> None:
        """Note what a change of the state breaks: each key's type, its being a number, and the invariants."""
        self.numbers(name, before, changes)
        after = {**before, **changes}
        for invariant in self.invariants:
            kept, seen = invariant.holds(before, after)
            if not kept:
                self.note(name, f"{invariant.name} no longer", seen)

    def numbers(self, name: str, before: State, changes: State) -> None:
        """Every key stays of its type, and a number; what is infinite at first, such as a clock, may be so later."""
        for key, x in changes.items():
            if key not in self._infinite:
                first = before.get(key, x)
                self._infinite[key] = first.is_floating_point() and bool(first.isinf().any())
                self._types[key] = first.dtype
            if x.dtype != self._types[key]:
                self.note(name, f"'{key}' changes its type", f"{x.dtype} after {self._types[key]}")
            if x.is_floating_point() and bool((wrong := _no_number(x, self._infinite[key])).any()):
                self.note(name, f"'{key}' is no number", f"{int(wrong.sum())} of {x.numel()} values aren't")

    def _pyro_sample(self, msg: Message) -> None:
        name, fn = _plain(msg["name"]), msg["fn"]
        self.sampled.add(name)
        shape, agents = getattr(fn, "batch_shape", ()), (msg["infer"] or {}).get("agents")
        if shape and shape[-1] == self.agents > 1 and agents is None:
            self.strays.add(name)
        if agents is not None:
            self.observed[f"{name}: who"] = agents
            if (episode := (msg["infer"] or {}).get("episode")) is not None:
                self.observed[f"{name}: episode"] = torch.as_tensor(episode)
        for moment in () if isinstance(fn, Exposure | Left) else ("mean", "variance"):
            try:
                self.observed[f"{name}: {moment}"] = getattr(fn, moment).detach()
            except (AttributeError, NotImplementedError):
                # Not every distribution knows its moments.
                continue

    def _pyro_happens(self, msg: Message) -> None:
        self.sampled.add(_plain(msg["args"][0]))

    def _pyro_aggregate(self, msg: Message) -> None:
        network = msg["args"][1]
        self.networks[network.name] = network

    def _pyro_decide(self, msg: Message) -> None:
        name, _, _, context = (*msg["args"], None)[:4]
        for feature, value in (context or {}).items():
            if isinstance(value, int | float | Tensor):
                self.observed[f"{name}: {feature}"] = torch.as_tensor(value)

    def _pyro_post_happens(self, msg: Message) -> None:
        name, exposure = msg["args"]
        if exposure.batch_shape[-1:] != (self.agents,):
            return
        with torch.no_grad():
            self._enter(name, exposure, dense(msg["value"][0]))

    def _enter(self, name: str, exposure: Exposure, event: Tensor) -> None:
        """Carry one step into the ledger of a site."""
        site = self.sites.setdefault(name, Site())
        shape = event.shape
        before, after, risk = (x.expand(shape) for x in (exposure.before, exposure.after, exposure.at_risk))
        episode = torch.as_tensor(exposure.episode, device=before.device).to(torch.int64).expand(shape)
        if site.last is not None and site.done is not None and site.met is not None:
            stood, was = site.last
            # Between an event and the return to risk the next episode has begun, and its hazard may be zeroed any time.
            going_on = (before == stood) | ((episode != site.met) & (before == 0))
            if bool((off := (episode == was) & ~going_on).any()):
                span = f"{int(off.sum())} agents, such as {float(before[off][0]):g} after {float(stood[off][0]):g}"
                self.note(name, "the cumulative hazard of an episode doesn't go on from where it stood", span, True)
            if bool((off := (episode < was) | (episode > was + 1)).any()):
                self.note(name, "an episode doesn't follow the one before it", f"{int(off.sum())} agents", True)
            if bool((off := risk & (episode != site.met) & (episode > 0) & (before != 0)).any()):
                self.note(
                    name, "an episode doesn't begin at a cumulative hazard of 0", f"{int(off.sum())} agents", True
                )
            if bool((off := risk & (episode == site.done)).any()):
                self.note(
                    name,
                    "who had the event is at risk of it again in the same episode",
                    f"{int(off.sum())} agents",
                    True,
                )
        nobody = torch.full_like(episode, -1)
        site.met = torch.where(risk, episode, nobody if site.met is None else site.met)
        site.done = torch.where(event, episode, nobody if site.done is None else site.done)
        site.last = after.clone(), episode.clone()
        met = (after - before).double()
        site.days.append(self._day)
        site.at_risk.append(int(risk.sum()))
        site.events.append(int(event.sum()))
        site.accrued.append(float(met[risk].sum()))
        site.likely.append(int((met[risk] > 0.6931471805599453).sum()))
