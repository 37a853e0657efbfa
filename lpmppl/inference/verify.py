"""Verify a model: the question, does it keep what it declares, and what every society must?"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.handlers.verify import Invariant
from lpmppl.errors import InputError, nearest
from lpmppl.inference.checks import ONE_AT_A_TIME, alone, checked, whole
from lpmppl.inference.declared import coverage, declarations, scales, units, writers
from lpmppl.inference.findings import Finding, Verification
from lpmppl.inference.named import named
from lpmppl.inference.orders import halving, order
from lpmppl.inference.relabelled import doubled, relabelled
from lpmppl.inference.relations import chance, influence, null, responses, resumed, spread, worlds
from lpmppl.inference.run import drawn, playing
from lpmppl.inference.stepwise import steps_kept
from lpmppl.inference.trials import Stopped, Trials, line
from lpmppl.models.model import Model

__all__ = ["CHECKS", "Verification", "verify"]

Check = Callable[[Trials], Iterator[Finding]]

CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "writers": writers,
        "units": units,
        "state": steps_kept,
        "exposures": steps_kept,
        "balances": steps_kept,
        "tallies": steps_kept,
        "meanings": steps_kept,
        "names": named,
        "declarations": declarations,
        "scales": scales,
        "coverage": coverage,
        "chance": chance,
        "null": null,
        "worlds": worlds,
        "resumed": resumed,
        "relabelled": relabelled,
        "spread": spread,
        "responses": responses,
        "order": order,
        "halving": halving,
        "doubled": doubled,
        "influence": influence,
    }
)
"""The checks, in the order in which they are made: docs/verification.md says what each of them says."""


MOST_STEPS = 100_000
"""The most steps of a run: every step is looked at, and there are many runs."""


def verify(
    model: Model,
    days: int = 20,
    seed: int = 0,
    *,
    set: Mapping[str, float] | None = None,
    draws: int = 1,
    checks: Collection[str] | None = None,
    replicates: int = 3,
    dt: float = 1.0,
    make: Callable[[Any], Model] | None = None,
    invariants: Sequence[Invariant] = (),
) -> Verification:
    """Verify that a composed model keeps what it declares, and what every society must.

    It plays the model again and again, each time with one thing changed. A few thousand agents and enough of what
    spreads at the start (`set`) show more than a large city on its first days.

    Args:
        model: the society.
        days: how many days each run has.
        seed: the seed of the agents' chance.
        set: values of parameters, by name; the others have their defaults.
        draws: for how many values of the parameters every step is watched: the defaults, and then draws from the
            priors.
        checks: the names of the checks to make, of `CHECKS`; all of them by default.
        replicates: how many draws of the agents' chance statistical checks average over.
        dt: the step in days, of which `days` is a multiple.
        make: what makes the model of a population, such as `lpmppl.nyc.pandemic`: with it the people are put in another
            order, and doubled.
        invariants: what must hold of every substep besides, such as `conserved("people", count)`.
    Returns:
        what was found; `.ok` says whether nothing was broken, and its text is the report.
    Raises:
        InputError: for a name or number that can't be used, a `make` that doesn't make this model, or an invariant
            that can't be asked. What stops the model itself is a finding.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> found = verify(model, days=5, set={"initial_infected": 0.05}, checks=["units", "declarations", "null"])
    >>> found.ok
    True
    """
    fixed, _ = checked(model, days, seed, set or {}, (), draws, "")
    alone("verify")
    whole("replicates", replicates, 1)
    dt = _step(dt, int(days))
    names = list(CHECKS) if checks is None else list(dict.fromkeys(_named(checks)))
    first = {**drawn(model, {}, None, seed)[0], **fixed}
    more = drawn(model, fixed, draws - 1, seed) if draws > 1 else []
    with ONE_AT_A_TIME:
        _makes(make, model)
        trials = Trials(model, first, int(days), int(seed), replicates, dt, make, _asked(invariants), more)
        _askable(trials)
        findings: list[Finding] = []
        for check in dict.fromkeys(CHECKS[name] for name in names):
            name = next(n for n in names if CHECKS[n] is check)
            try:
                # What was found until then is kept.
                findings.extend(check(trials))
            except Stopped as stopped:
                findings.append(trials.tell(name, stopped))
            except Exception as e:  # noqa: BLE001 (whatever a model's own declarations do is a finding)
                findings.append(Finding(name, "broken", "", f"it stops with {type(e).__name__}: {line(e)}"))
    return Verification(model.name, findings, int(days), trials.agents, int(seed), trials.runs)


def _named(checks: Collection[str]) -> Collection[str]:
    if isinstance(checks, str):
        raise InputError(f"checks={checks!r} was given; give a list of names, such as [{checks!r}]")
    if not isinstance(checks, Iterable) or not (names := list(checks)):
        raise InputError(f"checks={checks!r} was given; give some of {', '.join(CHECKS)}")
    for name in names:
        if name not in CHECKS:
            raise InputError(nearest("check", name, CHECKS))
    return names


def _step(dt: object, days: int) -> float:
    """The step, if the days are a multiple of it."""
    try:
        step = math.nan if isinstance(dt, bool | str) else float(dt)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        step = math.nan
    if not (math.isfinite(step) and step > 0):
        raise InputError(f"dt={dt!r} was given; give a positive number of days, such as 1 or 0.5")
    many = days / step
    if many > MOST_STEPS:
        raise InputError(f"{days} days at steps of {step:g} are more than {MOST_STEPS:,} steps: give fewer days")
    if round(many) < 1 or abs(round(many) * step - days) > 1e-6 * days:
        raise InputError(
            f"dt={step:g} was given, and {days} days are no multiple of it; give another step or other days"
        )
    return step


def _makes(make: object, model: Model) -> None:
    """Refuse what doesn't make the model of the people that it is given."""
    if make is None:
        return
    if not callable(make):
        raise InputError(f"make={make!r} was given; give what makes the model of a population, or leave it out")
    try:
        made = make(model.population)
    except Exception as e:
        raise InputError(
            f"make= stops with {type(e).__name__} when it is given the model's own people: {line(e)}"
        ) from e
    if not isinstance(made, Model):
        raise InputError(
            f"make= gave {type(made).__name__} when it was given the model's own people; it must give a model"
        )
    if made.name != model.name or {*made.parameters} != {*model.parameters}:
        raise InputError(f"make= gave another model, '{made.name}', than the '{model.name}' that is verified")
    if made.population.size != model.population.size:
        many, few = model.population.size, made.population.size
        raise InputError(
            f"make= was given {many} agents and made a model of {few}; it must take the people it is given"
        )


def _asked(invariants: object) -> tuple[Invariant, ...]:
    """The invariants, if they are such."""
    given = (
        (invariants,) if isinstance(invariants, Invariant | str) or not isinstance(invariants, Iterable) else invariants
    )
    for one in (found := tuple(given)):
        if not isinstance(one, Invariant) or isinstance(invariants, Invariant):
            raise InputError(f"invariants={invariants!r} was given; give a list of such as conserved('people', count)")
    return found


def _askable(trials: Trials) -> None:
    """Refuse an invariant that can't be asked of the state at the start, where there is one."""
    if not trials.invariants:
        return
    try:
        with torch.no_grad(), playing(trials.model, trials.seed, 0, (), DiscreteTime(trials.dt)):
            begun = trials.model.initial(trials.tensors(), 0.0)
    except Exception:  # noqa: BLE001 (the model's own checks say so)
        return
    for one in trials.invariants:
        try:
            kept, _ = one.holds(begun, begun)
            bool(kept)
        except Exception as e:
            raise InputError(
                f"the invariant '{one.name}' can't be asked of the state at the start: {type(e).__name__}: "
                f"{line(e, begun)}"
            ) from e
