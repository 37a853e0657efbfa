"""Discrete time: the meaning of `simulate` for a society that changes day by day."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from chirho.dynamical.handlers.interruption import StaticEvent, ZeroEvent
from torch import Tensor

from lpmppl._compat import (
    IndexSet,
    Interruption,
    Message,
    Messenger,
    Solver,
    acts_of,
    add_indices,
    effectful,
    get_index_plates,
    get_new_interruptions,
    simulate_point,
)
from lpmppl.effects.handlers.noise import ExogenousNoise
from lpmppl.effects.internals import checkpoints, parts
from lpmppl.effects.internals.order import check_order
from lpmppl.effects.internals.parts import Part
from lpmppl.effects.internals.segments import at_work
from lpmppl.effects.internals.successors import successors
from lpmppl.effects.internals.worlds import check_shapes, leading, policy, within_worlds
from lpmppl.errors import InputError, LpmError, nearest
from lpmppl.typing import Dynamics, State

__all__ = ["DiscreteTime"]

_CLOCK = ("t", "dt")

Steps: TypeAlias = Callable[[State, int, int], State]


@effectful(type="snapshot")
def _snapshot() -> dict[str, Tensor]:
    """Collect what handlers remember of the run so far."""
    return {}


@effectful(type="restore")
def _restore(saved: Mapping[str, Tensor]) -> None:
    """Give handlers back what they remembered."""


@effectful(type="own_sums")
def _own_sums(state: State) -> State:
    """The state without sums that are another rank's, which may be out of date here."""
    return state


@effectful(type="steps")
def _steps_of(steps: Steps, state: State, first: int, last: int) -> State:
    """Take the steps from number `first` to before number `last`."""
    return steps(state, first, last)


class _Step(Messenger):
    """Name the sites of one step by its time, and tell handlers which step it is."""

    def __init__(self, t: float, number: int) -> None:
        super().__init__()
        self.prefix, self.number, self.seen = f"t={t:.12g}/", number, set[str]()

    def _once(self, name: str) -> str:
        if name in self.seen:
            raise LpmError(f"'{name}' comes twice in one step, and would get one chance twice: give each its name")
        self.seen.add(name)
        return self.prefix + name

    def _pyro_sample(self, msg: Message) -> None:
        msg["infer"] = {"site": msg["name"], "step": self.number, **(msg["infer"] or {})}
        msg["name"] = self._once(msg["name"])

    def _pyro_tally(self, msg: Message) -> None:
        msg["args"] = (self._once(msg["args"][0]), *msg["args"][1:])


class DiscreteTime(Solver[Tensor]):
    """Run a society step by step under ChiRho's `simulate`, with its interventions, events and worlds.

    The dynamics get the time `t` and the step `dt` in the state, both of shape (1,). Sites and tallies are named by
    step (`t=30/infection`). Static interventions act at the start of their day; dynamic ones are tested after every
    step, in each world by itself, and act in the first step at which their event is not negative. Whether one has
    acted is in the state (`event/0`, …).

    Args:
        dt: the length of a step, in days.
        progress: called with the number of steps done and to do, after every step.
        checkpoint: a file to write the simulation to every `every` days, whole or not at all.
        every: days between checkpoints.
        resume: take the simulation up from the checkpoint where there is one.
        tag: what the run is, in a checkpoint; another tag's checkpoint is refused.
        part: what of the population is this rank's, where ranks share it and keep a file each.
    Raises:
        InputError: where a time lies off the grid of steps or before the start, or the checkpoint is damaged or of
            another run.
        LpmError: where handlers stand in an order that would be wrong.
    """

    def __init__(
        self,
        dt: float = 1.0,
        progress: Callable[[int, int], None] | None = None,
        checkpoint: Path | None = None,
        every: float = 30.0,
        resume: bool = False,
        tag: str = "",
        part: Part | None = None,
    ) -> None:
        if not (math.isfinite(dt) and dt > 0):
            raise InputError(f"the step dt must be a positive number of days, but {dt} was given")
        super().__init__()
        self.dt, self.progress, self.checkpoint, self.resume, self.tag = dt, progress, checkpoint, resume, tag
        self.part = part
        self.every = max(1, round(every / dt))

    def _pyro_simulate(self, msg: Message) -> None:
        if msg["done"]:
            return
        check_order(ExogenousNoise, DiscreteTime)
        dynamics, state, start, end = msg["args"]
        with at_work(), successors():
            msg["value"] = self._run(dynamics, dict(state), self._steps(start, "start"), self._steps(end, "end"))
        msg["done"] = True

    def _steps(self, time: Any, what: str) -> int:
        """The number of steps from time 0 to a time on the grid."""
        t = float(time)
        n = round(t / self.dt) if math.isfinite(t) else 0
        if not math.isfinite(t) or abs(n * self.dt - t) > 1e-6 * max(1.0, abs(t)):
            raise InputError(
                f"the {what} {t:g} lies off the grid of steps of {self.dt:g} days; move it to a multiple of the step"
            )
        return n

    def _run(self, dynamics: Dynamics, state: dict[str, Tensor], first: int, last: int) -> State:
        if self.checkpoint is not None and not self.checkpoint.parent.is_dir():
            raise InputError(f"there is no folder {self.checkpoint.parent} for the checkpoint; make it first")
        begin = first
        applied: list[tuple[int, int]] = []
        splits: dict[str, list[str]] = {}
        if self.resume and self.checkpoint is not None and self.checkpoint.exists():
            first, state, applied, splits = self._restored(state)
        static, dynamic = self._interruptions(first, last, set(applied), state)
        for k, _ in dynamic:
            state.setdefault(f"event/{k}", torch.zeros(1, dtype=torch.bool))
        now = first
        while True:
            for key, n, interruption in [s for s in static if s[1] == now]:
                with policy(f"t={n * self.dt:.12g}" if key == 0 else f"t={n * self.dt:.12g}/{key}"):
                    dynamics, changed = interruption.callback(dynamics, state)
                state = {**state, **changed}
                applied.append((n, key))
            dynamics, state = self._events(dynamics, state, dynamic, now, splits)
            if now >= last:
                return state
            # An event can come after any step; without one, nothing can until the next static intervention.
            following = [n for _, n, _ in static if n > now]
            until = now + 1 if dynamic or self.checkpoint or self.progress else min([last, *following])
            state = dict(simulate_point(dynamics, state, torch.tensor(now * self.dt), torch.tensor(until * self.dt)))
            now = until
            if self.progress is not None:
                self.progress(now - begin, last - begin)
            if self.checkpoint is not None and (now - begin) % self.every == 0 and now < last:
                self._save(state, now, applied, splits)

    def _interruptions(
        self, first: int, last: int, applied: set[tuple[int, int]], state: State
    ) -> tuple[list[tuple[int, int, Interruption[Tensor]]], list[tuple[int, Interruption[Tensor]]]]:
        """Sort the interruptions into static ones (key, step, …), in order of time, and dynamic ones (number, …)."""
        static: list[tuple[int, int, Interruption[Tensor]]] = []
        dynamic: list[tuple[int, Interruption[Tensor]]] = []
        seen: dict[int, int] = {}
        for interruption in get_new_interruptions():
            predicate = interruption.predicate
            acts = acts_of(interruption)
            for name in acts:
                if name not in state:
                    raise InputError(nearest("part of the state", name, state))
            check_shapes(state, acts)
            if isinstance(predicate, StaticEvent):
                n = self._steps(predicate.time, "time of an intervention")
                key = seen[n] = seen.get(n, -1) + 1
                if n < first and (n, key) not in applied:
                    raise InputError(
                        f"an intervention at day {n * self.dt:g} lies before the start at day {first * self.dt:g}; "
                        "start earlier or move it"
                    )
                if n > last:
                    warnings.warn(
                        f"the intervention at day {n * self.dt:g} has no effect: the run ends at day "
                        f"{last * self.dt:g}",
                        stacklevel=2,
                    )
                if n >= first:
                    static.append((key, n, interruption))
            elif isinstance(predicate, ZeroEvent):
                dynamic.append((len(dynamic), interruption))
            else:
                raise InputError(
                    f"DiscreteTime can't tell when {interruption} is due; use ChiRho's static or dynamic interruptions"
                )
        if missing := sorted(n for n, key in applied if key > seen.get(n, -1)):
            raise InputError(
                f"the checkpoint has had an intervention at day {missing[0] * self.dt:g} that isn't in force now; "
                "resume with the interventions it was made with"
            )
        return sorted(static, key=lambda s: (s[1], s[0])), dynamic

    def _events(
        self,
        dynamics: Dynamics,
        state: dict[str, Tensor],
        dynamic: list[tuple[int, Interruption[Tensor]]],
        now: int,
        splits: dict[str, list[str]],
    ) -> tuple[Dynamics, dict[str, Tensor]]:
        """Let the dynamic events act, in the worlds in which they are due and haven't acted."""
        t = torch.tensor(now * self.dt)
        for k, interruption in dynamic:
            name = f"event/{k}"
            try:
                value = torch.as_tensor(interruption.predicate.event_fn(t, state))
            except Exception as e:
                raise InputError(f"a dynamic event can't be evaluated: {type(e).__name__}: {e}") from e
            # Where there are worlds, a number without dimensions is of all of them together, as `.sum()` is.
            several = not value.dim() and leading(state).numel() > 1
            if several or (value.dim() and (value.shape[-1] != 1 or not within_worlds(value.shape, state))):
                raise InputError(
                    f"a dynamic event gave a value of shape {tuple(value.shape)}; it must be one number per world, "
                    "such as .sum(-1, keepdim=True), or (t - 5).reshape(1) where it is of time alone"
                )
            fired = state[name]
            due = (value.reshape(value.shape or (1,)) >= 0) & ~fired
            if not bool(due.any()):
                continue
            known = set(get_index_plates())
            with policy(name, due, splits.get(name)):
                dynamics, changed = interruption.callback(dynamics, state)
            splits.setdefault(name, [p for p in get_index_plates() if p not in known])
            state = {**state, **changed, name: fired | due}
        return dynamics, state

    def _pyro_simulate_point(self, msg: Message) -> None:
        if msg["done"]:
            return
        dynamics, state, start, end = msg["args"]
        msg["value"] = self._path(dynamics, state, start, end)
        msg["done"] = True

    def _pyro_simulate_trajectory(self, msg: Message) -> None:
        if msg["done"]:
            return
        dynamics, state, times = msg["args"]
        parts, at = [state], times[0]
        for time in times[1:]:
            state = self._path(dynamics, state, at, time)
            parts.append(state)
            at = time
        # What a step leaves for the next one is no part of what the state was at first.
        kept = [k for k in parts[0] if all(k in p for p in parts)]
        msg["value"] = {k: torch.stack(torch.broadcast_tensors(*(p[k] for p in parts)), dim=-1) for k in kept}
        msg["done"] = True

    def _path(self, dynamics: Dynamics, state: State, start: Any, end: Any) -> State:
        """Apply the dynamics step by step."""
        device = next((x.device for x in state.values()), None)

        def steps(state: State, first: int, last: int) -> State:
            for n in range(first, last):
                t = n * self.dt
                clock = {"t": torch.tensor([t], device=device), "dt": torch.tensor([self.dt], device=device)}
                with _Step(t, n):
                    new = dynamics({**state, **clock})
                if not isinstance(new, Mapping):
                    raise LpmError(f"the day's step gave {type(new).__name__} on day {t:g}; return the state by name")
                state = {k: v for k, v in new.items() if k not in _CLOCK}
            return state

        return _steps_of(steps, state, self._steps(start, "start"), self._steps(end, "end"))

    def _save(self, state: State, now: int, applied: list[tuple[int, int]], splits: Mapping[str, list[str]]) -> None:
        assert self.checkpoint is not None
        plates = [[name, frame.size] for name, frame in get_index_plates().items()]
        meta = {"tag": self.tag, "step": now, "dt": self.dt, "applied": applied, "splits": splits, "plates": plates}
        arrays = {**_snapshot(), **{f"state/{k}": v for k, v in _own_sums(state).items()}}
        if self.part is not None:
            parts.save(self.checkpoint, self.part, arrays, meta)
            return
        try:
            checkpoints.save(self.checkpoint, arrays, meta)
        except OSError as e:
            # A full disk shouldn't cost the run itself.
            warnings.warn(f"the checkpoint {self.checkpoint} can't be written ({e.strerror}); going on", stacklevel=2)

    def _restored(self, state: State) -> tuple[int, dict[str, Tensor], list[tuple[int, int]], dict[str, list[str]]]:
        assert self.checkpoint is not None
        saved, meta = parts.load(self.checkpoint, self.part)
        if meta["tag"] != self.tag or meta["dt"] != self.dt:
            raise InputError(f"{self.checkpoint} belongs to another run; resume with the settings it was made with")
        old = {k.removeprefix("state/"): v for k, v in saved.items() if k.startswith("state/")}
        if missing := sorted(set(state) - set(old)):
            raise InputError(
                f"{self.checkpoint} lacks {', '.join(missing)}, which the model's state has; it was made with "
                "another model"
            )
        for name, size in meta["plates"]:
            add_indices(IndexSet(**{name: set(range(size))}))
            if name not in get_index_plates():
                raise InputError(f"{self.checkpoint} holds several worlds; resume it under the same handler of worlds")
        _restore(saved)
        device = next(iter(state.values())).device
        return (
            meta["step"],
            {k: v.to(device) for k, v in old.items()},
            [(n, key) for n, key in meta["applied"]],
            meta["splits"],
        )
