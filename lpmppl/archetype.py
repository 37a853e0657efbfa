"""What stands in for a part of a model, archetype by archetype: `archetype.ode(…)`, for `lpmppl.create`."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import cached_property

import torch
from chirho.dynamical.handlers.interruption import StaticIntervention
from chirho.dynamical.handlers.solver import TorchDiffEq
from torch import Tensor

from lpmppl.effects.internals.segments import broadcast
from lpmppl.effects.ops import evolve
from lpmppl.errors import InputError
from lpmppl.models import within_host
from lpmppl.models.given import shown
from lpmppl.models.immunity import with_course
from lpmppl.models.part import Part
from lpmppl.models.within_host import ARCHETYPES, DAYS, ONSETS, VARIATIONS
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["Ode", "ode"]

OUTPUT, ANTIVIRAL = "output", "antiviral"


def ode(
    dynamics: Dynamics,
    eval_times: Tensor,
    start: Mapping[str, float | Tensor] | None = None,
    virus: str = "virus",
    solver: TorchDiffEq | None = None,
) -> Ode:
    """The course of an infection within the body by an ODE, as ChiRho's `simulate` takes one: Fig. 5b of the LPM paper.

    It is solved for every immune archetype (age band × what the immune system has met × class of incubation period) at
    once. What differs between archetypes, such as a rate that falls with age, is a part of the state that doesn't
    change; `within_host.archetypes()` says what each archetype is. Where the state has `output`, the share of its virus
    that an antiviral leaves, the treated get it as in the model's own ODE.

    Args:
        dynamics: the state to its derivatives per day, by name; what it leaves out doesn't change.
        eval_times: days since infection at which it is evaluated, increasing from 0 to 30 or later; between them
            log10 of the virus is linear.
        start: the state at infection, numbers or tensors of shape (180,); that of the model's own ODE by default.
        virus: the name of the viral load in the state, copies/ml.
        solver: the solver; fourth-order Runge–Kutta in steps of 0.1 days by default.
    Raises:
        InputError: for times that can't be, a start without the virus, or derivatives of what isn't in the start.
    Source: Chopra, "Large Population Models" (2025), Fig. 5b.

    >>> def wave(s):
    ...     return {"virus": s["growth"] * s["virus"], "growth": -0.5 + 0.0 * s["growth"]}
    >>> course = ode(wave, torch.arange(31.0), {"virus": 1.0, "growth": 5.0})
    >>> course({}, torch.zeros(1)).shape
    torch.Size([5580])
    """
    return Ode(dynamics, eval_times, start, virus, solver)


class Ode:
    """What `ode` makes: the parameters and the treatment to the viral load of every archetype on every day."""

    def __init__(
        self,
        dynamics: Dynamics,
        eval_times: Tensor,
        start: Mapping[str, float | Tensor] | None,
        virus: str,
        solver: TorchDiffEq | None,
    ) -> None:
        if not callable(dynamics):
            raise InputError(f"the ODE is {type(dynamics).__name__}; give a function of the state")
        times, last = _numbers("eval_times", eval_times), float(DAYS - 1)
        if times.dim() != 1 or len(times) < 2 or not bool((times[1:] > times[:-1]).all()):
            raise InputError(f"eval_times={shown(eval_times)}: give increasing days since infection, shape (T,)")
        if float(times[0]) != 0.0 or not float(times[-1]) >= last:
            raise InputError(
                f"eval_times go from {float(times[0]):g} to {float(times[-1]):g}; let them go from 0 to 30"
            )
        self.dynamics, self.times, self.virus, self.solver = dynamics, times, virus, solver
        if start is not None and (not isinstance(start, Mapping) or not all(isinstance(name, str) for name in start)):
            raise InputError(f"the ODE's start is {shown(start)}; give numbers or tensors by name")
        if not isinstance(virus, str):
            raise InputError(f"virus={shown(virus)} was given; give the name of the viral load in the state")
        if solver is not None and not isinstance(solver, TorchDiffEq):
            raise InputError(f"solver={shown(solver)} was given; give a TorchDiffEq of ChiRho, or leave it out")
        self.given = _own_start() if start is None else dict(start)
        if virus not in self.given:
            given = ", ".join(self.given) or "nothing"
            raise InputError(f"the ODE's start has {given}, but no '{virus}'; say which is virus=")
        for name, value in self.given.items():
            if (shape := tuple(_numbers(f"the ODE's start '{name}'", value).shape)) not in ((), (ARCHETYPES,)):
                raise InputError(f"the ODE's start '{name}' has shape {shape}; give a number or shape ({ARCHETYPES},)")
        try:
            change = dynamics(self._start())
        except KeyError as e:
            raise InputError(f"the ODE reads {e}, which its start lacks; give start={{{e}: …}}") from e
        except Exception as e:
            raise InputError(
                f"the ODE can't be evaluated ({type(e).__name__}: {e}); give a function of the state, tensors of shape "
                f"({ARCHETYPES},) by name, to their derivatives"
            ) from e
        if not isinstance(change, Mapping) or (extra := next((n for n in change if n not in self.given), None)):
            what = f"gives the derivative of '{extra}', which its start lacks" if isinstance(change, Mapping) else ""
            raise InputError(
                f"the ODE {what or 'must give derivatives by name'}; its start has {', '.join(self.given)}"
            )
        for name, x in change.items():
            shape = tuple(_numbers(f"the ODE's derivative of '{name}'", x, finite=False).shape)
            if shape not in ((), (ARCHETYPES,)):
                raise InputError(
                    f"the ODE's derivative of '{name}' has shape {shape}; give a number or shape ({ARCHETYPES},)"
                )

    def _start(self) -> State:
        kind = torch.get_default_dtype()
        return {n: torch.as_tensor(v, dtype=kind).expand(ARCHETYPES) for n, v in self.given.items()}

    @property
    def treatable(self) -> bool:
        """Whether it has an antiviral."""
        return OUTPUT in self.given

    @cached_property
    def mark(self) -> str:
        """What tells it from other courses: a checksum of its untreated loads."""
        theta = {ANTIVIRAL: torch.tensor(within_host.PARAMETERS[ANTIVIRAL].default)}
        return f"{zlib.crc32(self(theta, torch.zeros(1)).detach().numpy().tobytes()):08x}"

    def part(self) -> Part:
        """The immunity of a model with this course of infections."""
        antiviral = {ANTIVIRAL: within_host.PARAMETERS[ANTIVIRAL]} if self.treatable else {}
        return with_course(self, antiviral, self.treatable)

    def __call__(self, theta: Theta, treatment: Tensor) -> Tensor:
        """Log10 copies/ml of shape (…, K · T), as `immunity.loads` has them.

        Args:
            theta: the parameters, `antiviral` among them where it is treatable.
            treatment: how much of an antiviral's efficacy the treated have, shape (…, 1).
        """
        device = treatment.device
        start = {n: x.to(device) for n, x in self._start().items()}
        given = []
        if self.treatable:
            left = 1.0 - theta[ANTIVIRAL] * treatment
            wide = broadcast((ARCHETYPES,), left.shape)
            start = {n: x.expand(wide) for n, x in start.items()}
            variation = within_host.archetypes(device)[2]
            given = [_antiviral(k, variation, left) for k in range(VARIATIONS)]
        path = evolve("within_host", self._rates, start, self.times, self.solver or within_host.solver(), given)
        return self._daily(within_host.log_load({"virus": path[self.virus]})).flatten(-2)

    def _rates(self, state: State) -> State:
        change = self.dynamics(state)
        return {
            n: torch.as_tensor(change[n]).expand_as(x) if n in change else torch.zeros_like(x) for n, x in state.items()
        }

    def _daily(self, load: Tensor) -> Tensor:
        """Loads at the times of evaluation, shape (…, T'), on every day: shape (…, T)."""
        times = self.times.to(load.device)
        days = torch.arange(DAYS, dtype=times.dtype, device=times.device)
        after = torch.searchsorted(times, days).clamp(1, len(times) - 1)
        share = ((days - times[after - 1]) / (times[after] - times[after - 1])).to(load.dtype)
        return load[..., after - 1] + share * (load[..., after] - load[..., after - 1])


def _numbers(what: str, value: object, finite: bool = True) -> Tensor:
    """A number or tensor as real numbers."""
    try:
        found = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as e:
        raise InputError(f"{what} is {shown(value)}; give numbers") from e
    if found.is_complex() or (finite and not bool(found.isfinite().all())):
        raise InputError(f"{what} is {shown(value)}; give finite, real numbers")
    return found.to(torch.get_default_dtype())


def _antiviral(k: int, variation: Tensor, left: Tensor) -> StaticIntervention:
    """What an antiviral leaves of the output of virus of a class of variation, from its first symptoms on."""
    return StaticIntervention(
        torch.tensor(ONSETS[k]), {OUTPUT: lambda before: torch.where(variation == k, left, before)}
    )


def _own_start() -> dict[str, float | Tensor]:
    """The start of the model's own ODE, at its defaults."""
    memory = torch.tensor(within_host.MEMORY)[within_host.archetypes()[1]]
    inoculum = within_host.PARAMETERS["inoculum"].default
    return {"target": 1.0, "eclipse": inoculum, "infected": 0.0, "virus": 0.0, "response": memory, OUTPUT: 1.0}
