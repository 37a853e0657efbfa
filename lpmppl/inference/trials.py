"""Trials: a model played again and again, each time with one thing changed, as verification needs it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lpmppl._compat import Messenger
from lpmppl.effects.handlers.record import Record
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.handlers.verify import Invariant, Witness
from lpmppl.effects.ops import simulate
from lpmppl.inference.run import playing
from lpmppl.models.model import Model
from lpmppl.models.substep import CLOCK, Substep
from lpmppl.typing import Dynamics, State

__all__ = ["Each", "Trial", "Trials", "apart"]

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
    _kept: dict[Any, Trial] = field(default_factory=dict)

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
        return tuple(self.model.substeps(self.tensors()))

    @property
    def base(self) -> Trial:
        """The run that the others are held against, with a witness."""
        if "base" not in self._kept:
            self.keep("base", self.witnessed())
        return self._kept["base"]

    @property
    def known(self) -> frozenset[Any]:
        """The runs that are kept."""
        return frozenset(self._kept)

    def keep(self, key: Any, trial: Trial) -> None:
        """Keep a run for others who ask for it."""
        self._kept[key] = trial

    def witnessed(self, watch: Callable[[Witness], Each] | None = None, **how: Any) -> Trial:
        """A run under a witness of substeps and hazards; `watch` gives what sees every step, `how` goes to `play`."""
        witness = Witness(self.agents, *self.invariants)
        each = None if watch is None else watch(witness)
        inside = (witness, *how.pop("inside", ()))
        return self.play(inside=inside, each=each, witness=witness, **how)

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
            self._kept[key] = self.play(**how)
        return self._kept[key]

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
        """
        model, dt = model or self.model, dt or self.dt
        values, (first, last) = self.tensors(theta), span or (0.0, float(self.days))
        self.runs += 1
        with torch.no_grad(), playing(model, self.seed, chance, acts, DiscreteTime(dt), outside, inside) as record:
            begun = dict(model.initial(values, first) if state is None else state)
            day = (dynamics or model.day)(values)

            def step(s: State) -> State:
                after = day(s)
                if each is not None:
                    each(s, after, record)
                return after

            end = simulate(step, begun, torch.tensor(first), torch.tensor(last))
        series = {n: torch.as_tensor(x.values).double() for n, x in record.series.items()}
        stocks = frozenset(n for n, x in record.series.items() if x.stock)
        return Trial(begun, {k: v for k, v in end.items() if k not in CLOCK}, series, stocks, witness)
