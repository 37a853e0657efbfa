"""Trials: a model played again and again, each time with one thing changed, as verification needs it."""

from __future__ import annotations

import difflib
import math
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lpmppl._compat import Messenger
from lpmppl.effects.handlers.record import Record
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.handlers.verify import Invariant, Whereabouts, Witness
from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError
from lpmppl.inference.checks import begun as checked_start
from lpmppl.inference.findings import Finding
from lpmppl.inference.run import playing
from lpmppl.models.model import Model
from lpmppl.models.substep import CLOCK, Substep
from lpmppl.typing import Dynamics, State

__all__ = ["Each", "Stopped", "Trial", "Trials", "apart", "like", "line"]

Each = Callable[[State, State, Record], None]


@dataclass(frozen=True)
class Trial:
    """What one run left: its first and last state, and every tally, of shape (steps, …, strata), in its unit.

    Attributes:
        begun, state: the state at the start and at the end.
        series: every tally by name, float64 of shape (T, …, G).
        stocks: the names of tallies that count who is in a state, rather than what happened.
        witness: what was noted on the way, where it was asked for.
    """

    begun: State
    state: State
    series: Mapping[str, Tensor]
    stocks: frozenset[str]
    witness: Witness | None = None

    def total(self, name: str) -> float:
        """A tally over the run: what happened, added up, or the mean of who was in a state."""
        x = self.series[name]
        summed = float(x.sum())
        return summed / max(x.shape[0], 1) if name in self.stocks else summed


class Stopped(Exception):  # noqa: N818 (it says what a model did, and is no error of ours)
    """A model that stopped with an error of its own while it was played.

    Args:
        where: the substep, or what of the model it was at.
        when: the day, and how it was played, in words.
        what: the error in words.
        error: the error.
    Attributes:
        begun: the state at the start, if there was one.
        witness: what was noted until then, where it was asked for.
    """

    def __init__(self, where: str, when: str, what: str, error: Exception) -> None:
        super().__init__(f"{where}: {what}")
        self.where, self.when, self.what, self.error = where, when, what, error
        self.begun: State | None = None
        self.witness: Witness | None = None

    @property
    def same(self) -> tuple[str, str]:
        """What another that stops for the same reason has too."""
        return self.where, self.what


def like(name: str, names: Iterable[object]) -> str:
    """The name that may have been meant, as a question after a comma; "" where none is near."""
    close = difflib.get_close_matches(name, sorted({str(n) for n in names} - {name}), n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else ""


def line(error: Exception, names: Iterable[object] = ()) -> str:
    """An error in a line: of a key that isn't there, which one may have been meant."""
    if isinstance(error, KeyError) and len(error.args) == 1:
        return f"there is no '{error.args[0]}'{like(str(error.args[0]), names)}"
    return (str(error).strip().splitlines() or ["it says no more"])[0][:300]


_HERE = Path(__file__).parent.parent
_HANDLERS = tuple(str(_HERE / part) for part in ("effects", "inference", "_compat", "simulation"))
_LIBRARIES = (*(sysconfig.get_path(kind) for kind in ("stdlib", "platlib", "purelib")), "<frozen")


def _source(error: Exception) -> str:
    """The file and line of the model at which an error came: the last that is neither a library's nor the handlers'."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        name = frame.filename
        if not name.startswith(_HANDLERS if name.startswith(str(_HERE)) else _LIBRARIES):
            return f" ({Path(name).name}, line {frame.lineno})"
    return ""


def apart(a: Trial, b: Trial, state: bool = True) -> list[str]:
    """The tallies, and the keys of the last state, that aren't equal bit for bit."""
    names = sorted({*a.series} | {*b.series})
    off = [n for n in names if n not in a.series or n not in b.series or not _same(a.series[n], b.series[n])]
    if state:
        keys = sorted(k for k in {*a.state} | {*b.state} if not k.startswith("event/"))
        off += [
            f"state '{k}'" for k in keys if k not in a.state or k not in b.state or not _same(a.state[k], b.state[k])
        ]
    return off


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        a, b = a.squeeze(), b.squeeze()
    if a.is_floating_point() and b.is_floating_point() and a.shape == b.shape:
        return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())
    return torch.equal(a, b)


@dataclass
class Trials:
    """A model with what it is played with.

    Args:
        model: the society.
        theta: the value of every parameter.
        days, seed: how long, and of which chance.
        replicates: how often statistical checks play.
        dt: the step in days.
        make: what makes the model of a population, where it is known.
        invariants: what must hold of every substep besides.
        draws: further values of the parameters.
        runs: how many runs were played.
        moving: the parameters and parts of the environment that were seen to move a tally.
        stops: what stopped the model and has been told.
    """

    model: Model
    theta: Mapping[str, float]
    days: int
    seed: int
    replicates: int = 4
    dt: float = 1.0
    make: Callable[[Any], Model] | None = None
    invariants: Sequence[Invariant] = ()
    draws: Sequence[Mapping[str, float]] = ()
    runs: int = 0
    moving: set[str] = field(default_factory=set)
    stops: set[tuple[str, str]] = field(default_factory=set)
    _kept: dict[Any, Trial | Stopped] = field(default_factory=dict)

    @property
    def agents(self) -> int:
        return self.model.population.size

    def tensors(self, theta: Mapping[str, float] | None = None) -> dict[str, Tensor]:
        """Parameters as tensors on the people's device."""
        device = self.model.population.device
        return {name: torch.tensor(x, device=device) for name, x in (self.theta if theta is None else theta).items()}

    @cached_property
    def substeps(self) -> tuple[Substep, ...]:
        """The parts of a day."""
        try:
            parts = tuple(self.model.substeps(self.tensors()))
            if wrong := [type(part).__name__ for part in parts if not isinstance(part, Substep)]:
                raise InputError(f"{self.model.name}.substeps gave {wrong[0]}; give Substeps")
            return parts
        except Exception as e:
            raise Stopped("the substeps", "as they are made", _said(e, self._names({})), e) from e

    @property
    def base(self) -> Trial:
        """The run that the others are held against, with a witness.

        Raises:
            Stopped: if it can't be played to its end, with what was noted until then.
        """
        if "base" not in self._kept:
            try:
                self.keep("base", self.witnessed())
            except Stopped as stopped:
                self.keep("base", stopped)
        return self.known("base")

    @property
    def so_far(self) -> tuple[Witness | None, State, Stopped | None]:
        """What was noted of the run that the others are held against, its start, and what stops it."""
        try:
            return self.base.witness, self.base.begun, None
        except Stopped as stopped:
            return stopped.witness, stopped.begun or {}, stopped

    def known(self, key: Any) -> Trial:
        """A run that is kept.

        Raises:
            Stopped: if the model stopped in it.
        """
        kept = self._kept[key]
        if isinstance(kept, Stopped):
            raise kept
        return kept

    def keep(self, key: Any, trial: Trial | Stopped) -> None:
        """Keep a run for others who ask for it, or what stopped it."""
        self._kept[key] = trial

    def tell(self, check: str, stopped: Stopped) -> Finding:
        """What a check says of a model that stopped: that it is broken, once, and then that the check can't be made."""
        if stopped.same in self.stops:
            words = f"it can't be asked {stopped.when}: the model stops there as said above"
            return Finding(check, "doesn't apply", stopped.where, words)
        self.stops.add(stopped.same)
        words = f"it stops with {type(stopped.error).__name__} {stopped.when}: {stopped.what}"
        return Finding(check, "broken", stopped.where, words)

    def at(self, share: float) -> float:
        """A day after a share of the run that lies on its grid of steps."""
        return math.floor(share * self.days / self.dt + 1e-6) * self.dt

    def witnessed(self, watch: Callable[[Witness], Each] | None = None, **how: Any) -> Trial:
        """A run under a witness of substeps and hazards; `watch` gives what sees every step, `how` goes to `play`."""
        witness = Witness(self.agents, *self.invariants)
        each = None if watch is None else watch(witness)
        inside = (witness, *how.pop("inside", ()))
        try:
            return self.play(inside=inside, each=each, witness=witness, **how)
        except Stopped as stopped:
            stopped.witness = witness
            raise

    @property
    def plain(self) -> Trial:
        """A run without a witness."""
        return self.kept("plain")

    def noise(self, name: str, *totals: float) -> float:
        """How far totals of a tally may lie apart by chance: of a count, or as far as another chance moves it."""
        count = 0.0 if name in self.model.units else 3.0 * max(abs(x) for x in totals) ** 0.5
        other = self.kept("other chance", chance=1)
        return max(count, abs(other.total(name) - self.base.total(name)) if name in other.series else 0.0)

    def stirred(self) -> dict[str, float]:
        """Another value, within its limits, of everything that policies may change."""
        return {name: self.other(name) for name in self.model.environment if name not in self.model.pulses}

    def other(self, name: str) -> float:
        """Another value of a part of the environment: half of what it is, or a little where it is 0 or as recorded."""
        value = self.model.environment[name]
        low, high = self.model.limits.get(name, (0.0, math.inf))
        if name in self.model.options:
            return float(value == 0)
        if value > 0 and value / 2 >= low:
            return value / 2
        return low + min(0.25 * (high - low), 10.0)

    def kept(self, *key: Any, **how: Any) -> Trial:
        """A run that several checks ask for, played once."""
        if key not in self._kept:
            try:
                self.keep(key, self.play(**how))
            except Stopped as stopped:
                self.keep(key, stopped)
        return self.known(key)

    def play(
        self,
        dynamics: Callable[[Mapping[str, Tensor]], Dynamics] | None = None,
        *,
        model: Model | None = None,
        theta: Mapping[str, float] | None = None,
        acts: Sequence[Sequence[Any]] = (),
        chance: int = 0,
        dt: float | None = None,
        span: tuple[float, float] | None = None,
        state: State | None = None,
        outside: Sequence[Messenger] = (),
        inside: Sequence[Messenger] = (),
        each: Each | None = None,
        witness: Witness | None = None,
    ) -> Trial:
        """Play once.

        Args:
            dynamics: from the parameters to the day, by default the model's own.
            model: another model.
            theta: other parameters.
            acts: interventions, name, value and day.
            chance: which draw of the agents' chance.
            dt: another step.
            span: the first and the last day.
            state: the state to begin in.
            outside: handlers outside the solver.
            inside: handlers inside the agents' noise.
            each: what sees the state before and after every step, and the record.
            witness: the witness among the handlers.
        Raises:
            Stopped: with any error of the model's.
        """
        model, dt = model or self.model, dt or self.dt
        values, (first, last) = self.tensors(theta), span or (0.0, float(self.days))
        self.runs += 1
        now, part, begun = first, "the start", None
        place = Whereabouts()

        def step(s: State) -> State:
            nonlocal now
            now = float(s["t"])
            after = day(s)
            if each is not None:
                each(s, after, record)
            return after

        try:
            handlers = (*inside, place)
            with (
                torch.no_grad(),
                playing(model, self.seed, chance, acts, DiscreteTime(dt), outside, handlers) as record,
            ):
                begun = dict(state) if state is not None else checked_start(model, model.initial(values, first))
                part = "the day"
                day = (dynamics or model.day)(values)
                end = simulate(step, begun, torch.tensor(first), torch.tensor(last))
        except Exception as e:
            how = self._how(theta, acts, dt, chance, model, outside, state)
            at = f", at {place.site}" if place.site else ""
            where = f"substep '{place.substep}'" if place.substep else part
            words = _said(e, self._names(begun or {}))
            stopped = Stopped(where, f"on day {now:g}{at}, {how}", words, e)
            stopped.begun = begun
            raise stopped from e
        series = {n: torch.as_tensor(x.values).double() for n, x in record.series.items()}
        stocks = frozenset(n for n, x in record.series.items() if x.stock)
        return Trial(begun, {k: v for k, v in end.items() if k not in CLOCK}, series, stocks, witness)

    def _names(self, state: State) -> set[str]:
        """The names that may have been meant."""
        return {*state, *CLOCK, *self.model.parameters, *self.model.environment, *self.model.tallies}

    def _how(
        self,
        theta: Mapping[str, float] | None,
        acts: Sequence[Sequence[Any]],
        dt: float,
        chance: int,
        model: Model,
        outside: Sequence[Messenger],
        state: State | None,
    ) -> str:
        """How a run was played, in words."""
        words = []
        if theta is not None and (other := [n for n in theta if theta[n] != self.theta.get(n)]):
            words.append(f"with {_few([f'{n}={theta[n]:g}' for n in other])}")
        if acts:
            words.append(f"under {_few([f'{name}={value:g}@{day:g}' for name, value, day in acts])}")
        if dt != self.dt:
            words.append(f"at steps of {dt:g} days")
        if chance:
            words.append("with another chance")
        if model is not self.model:
            words.append("of the people put otherwise")
        if outside:
            words.append("in two worlds at once")
        if state is not None:
            words.append("taken up from its own state")
        return " ".join(words) or "as it was set"


def _few(words: Sequence[str]) -> str:
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _said(error: Exception, names: Iterable[object]) -> str:
    return line(error, names) + _source(error)
