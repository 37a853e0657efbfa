"""Verify a model: the question, does it keep what it declares, and what every society must?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lpmppl.effects.handlers.verify import Invariant
from lpmppl.errors import InputError, nearest
from lpmppl.inference.checks import ONE_AT_A_TIME, alone, checked, whole
from lpmppl.inference.declared import coverage, declarations, scales, units, writers
from lpmppl.inference.findings import Finding, Verification
from lpmppl.inference.orders import halving, order
from lpmppl.inference.relabelled import doubled, relabelled
from lpmppl.inference.relations import chance, influence, null, responses, resumed, spread, worlds
from lpmppl.inference.run import drawn
from lpmppl.inference.stepwise import steps_kept
from lpmppl.inference.trials import Trials
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
        dt: the step in days.
        make: what makes the model of a population, such as `lpmppl.nyc.pandemic`: with it the people are put in another
            order, and doubled.
        invariants: what must hold of every substep besides, such as `conserved("people", count)`.
    Returns:
        what was found; `.ok` says whether nothing was broken, and its text is the report.
    Raises:
        InputError: for a name or number that can't be used.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> found = verify(model, days=5, set={"initial_infected": 0.05}, checks=["units", "declarations", "null"])
    >>> found.ok
    True
    """
    fixed, _ = checked(model, days, seed, set or {}, (), draws, "")
    alone("verify")
    whole("replicates", replicates, 1)
    names = list(CHECKS) if checks is None else list(dict.fromkeys(_named(checks)))
    first = {**drawn(model, {}, None, seed)[0], **fixed}
    more = drawn(model, fixed, draws - 1, seed) if draws > 1 else []
    trials = Trials(model, first, int(days), int(seed), replicates, dt, make, tuple(invariants), more)
    findings: list[Finding] = []
    with ONE_AT_A_TIME:
        for check in dict.fromkeys(CHECKS[name] for name in names):
            name = next(n for n in names if CHECKS[n] is check)
            try:
                findings += check(trials)
            except Exception as e:  # noqa: BLE001 (whatever stops a model is a finding)
                findings.append(Finding(name, "broken", "", f"it stops with {type(e).__name__}: {_line(e)}"))
                if "base" not in trials.known:
                    # What can't be played at all can't be asked anything.
                    break
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


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:300]
