"""What a question gives, checked before anything is computed: each refusal names the value and the remedy."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import torch
from chirho.counterfactual.handlers.counterfactual import BaseCounterfactualMessenger
from torch import Tensor

from lpmppl._compat import ConditionMessenger, Interruption, Solver, handler_stack
from lpmppl.errors import InputError, nearest
from lpmppl.inference import policies
from lpmppl.models.given import whole
from lpmppl.models.model import Model, Parameter
from lpmppl.models.networks import Groups
from lpmppl.models.population import Population
from lpmppl.typing import State

__all__ = ["MOST_DRAWS", "ONE_AT_A_TIME", "Act", "alone", "begun", "checked", "setting", "whole"]

Act = tuple[str, float | str, int] | policies.Act
"""An intervention: name, value and day."""

ONE_AT_A_TIME = threading.RLock()
"""Pyro's handlers are one stack for all threads."""

MOST_DRAWS = 1_000_000
"""The most draws of a run: a result is held in memory."""

_PARTS = {"name": str, "population": Population, "parameters": Mapping, "environment": Mapping, "tallies": Mapping}
"""What every model has."""


def _whole_model(model: Model) -> None:
    """Refuse a model that lacks a part that every one has, or has something else in its place."""
    kind = type(model).__name__
    for part, what in _PARTS.items():
        found = getattr(model, part, None)
        if not isinstance(found, what):
            given = "nothing" if found is None else type(found).__name__
            raise InputError(f"{kind}.{part} must be a {what.__name__}, but {given} was given")
    for name, parameter in model.parameters.items():
        if not isinstance(parameter, Parameter):
            raise InputError(f"{kind}.parameters['{name}'] is {type(parameter).__name__}; make it a Parameter")
    if model.by is not None and not isinstance(model.by, Groups):
        raise InputError(f"{kind}.by is {type(model.by).__name__}; make it population.strata(name='variable') or None")


def begun(model: Model, state: Any) -> State:
    """The state at the start, if it is tensors by name, with every part of the environment in it as a real number."""
    kind = type(model).__name__
    if not isinstance(state, Mapping):
        raise InputError(f"{kind}.initial gave {type(state).__name__}; return the state, tensors by name")
    for name, x in state.items():
        if not isinstance(x, Tensor):
            raise InputError(f"{kind}.initial gave {type(x).__name__} for '{name}'; give a tensor")
    for name in model.environment:
        if name not in state:
            raise InputError(
                f"{kind}.initial gave no '{name}', a part of the environment; give torch.ones(1) or the like"
            )
        if not state[name].is_floating_point():
            raise InputError(f"{kind}.initial gave '{name}' as {state[name].dtype}, which policies can't set to 0.5")
    return dict(state)


def checked(
    model: Model, days: int, seed: int, fixed: Mapping[str, float], acts: Sequence[Act], draws: int | None, start: str
) -> tuple[dict[str, float], list[list[str | float | int]]]:
    """Check what a user gave, and name what can't be used."""
    if not isinstance(model, Model):
        raise InputError(f"a model is needed, but {type(model).__name__} was given")
    _whole_model(model)
    if model.by is not None and (twice := {*model.by.dims} & {*model.tallies, *model.outcomes}):
        raise InputError(f"a stratum of the model can't be called '{min(twice)}', as a tally or outcome is; rename it")
    _only_in_set(model)
    days, seed = whole("days", days, 1), whole("seed", seed, 0)
    if seed >= 2**63:
        raise InputError(f"seed={seed} was given; give one below 2**63")
    if draws is not None and whole("draws", draws, 1) > MOST_DRAWS:
        raise InputError(f"draws={draws} were asked for: give {MOST_DRAWS:,} at most")
    try:
        date.fromisoformat(start or "2020-01-01")
    except (TypeError, ValueError) as e:
        raise InputError(f"start={start!r} is no date; write it as '2020-03-01'") from e
    first = start or getattr(model, "start", "")
    try:
        date.fromisoformat(first or "2020-01-01") + timedelta(days=days)
    except OverflowError as e:
        raise InputError(f"{days} days from {first} reach beyond the year 9999: start earlier") from e
    values = {}
    if not isinstance(fixed, Mapping):
        raise InputError(f"set={fixed!r} was given; give values by name, such as {{'beta': 0.3}}")
    for name, value in fixed.items():
        if name not in model.parameters:
            raise InputError(nearest("parameter", str(name), model.parameters))
        values[name] = _number(f"parameter {name}", value)
        support = model.parameters[name].prior.support
        if not bool(support.check(torch.tensor(values[name]))):
            raise InputError(f"parameter {name}={value} can't be: its prior lives on {_words(support)}")
    taken: list[list[str | float | int]] = []
    if not isinstance(acts, Sequence):
        raise InputError(f"interventions={acts!r} was given; give a list of (name, value, day)")
    for one in acts:
        act: Any = (one.name, one.value, one.day) if isinstance(one, policies.Act) and not one.to else one
        if not isinstance(act, Sequence) or isinstance(act, str) or len(act) != 3:
            some = "; acts on some agents alone are for lpm.counterfactual" if isinstance(act, policies.Act) else ""
            raise InputError(f"the intervention {act!r} can't be read: give (name, value, day){some}")
        name, given, day = act
        if name not in model.environment:
            raise InputError(nearest("part of the environment", name, model.environment))
        value, day = setting(model, name, given), whole(f"the day of the intervention {name}", day, 0)
        if day >= days:
            raise InputError(f"the intervention {name}={value:g}@{day} lies outside the run: give a day below {days}")
        if any(other[0] == name and other[2] == day for other in taken):
            raise InputError(f"two interventions set {name} on day {day}: leave one of them out")
        taken.append([name, value, day])
    return values, taken


def alone(what: str) -> None:
    """Refuse handlers of worlds or interventions that stand around the call of what makes its own."""
    with ONE_AT_A_TIME:
        handlers = list(handler_stack())
    for handler in handlers:
        if isinstance(handler, Solver):
            raise InputError(f"{what} has a solver of its own, but stands under {type(handler).__name__}; leave it out")
        if isinstance(handler, BaseCounterfactualMessenger | Interruption):
            raise InputError(
                f"{what} makes its own worlds, but stands under {type(handler).__name__}; say the intervention "
                "in do= or interventions=, or use lpm.run under ChiRho's handlers"
            )


def _only_in_set(model: Model) -> None:
    """Refuse handlers that say what parameters are, which are no sites of a run."""
    with ONE_AT_A_TIME:
        handlers = list(handler_stack())
    for handler in handlers:
        data = getattr(handler, "data", None) if isinstance(handler, ConditionMessenger) else None
        data = getattr(handler, "actions", data)
        if isinstance(data, Mapping) and (said := [n for n in model.parameters if n in data]):
            raise InputError(
                f"{type(handler).__name__} around a run says what {said[0]} is, which is no site of it: say it in set="
            )


def setting(model: Model, name: str, value: object) -> float:
    """The number of what a part of the environment is set to: a word for it, or a number within its limits.

    Raises:
        InputError: for a word or number that it can't be.
    """
    words = model.options.get(name)
    if words is not None and isinstance(value, str):
        if value not in words:
            raise InputError(nearest(f"value of {name}", value, words))
        return float(words.index(value))
    number = _number(f"the intervention {name}", value)
    if words is not None and number not in range(len(words)):
        raise InputError(f"the intervention {name}={value} can't be: give one of {', '.join(words)}")
    low, high = model.limits.get(name, (-math.inf, math.inf))
    # Below 0 stands for what was recorded, where there is such.
    if not low <= number <= high and number != model.environment[name]:
        raise InputError(f"the intervention {name}={number:g} can't be: give {low:g} to {high:g}")
    return number


def _number(what: str, value: object) -> float:
    """Take a number that is finite in single precision, in which agents' values are kept."""
    if isinstance(value, bool):
        raise InputError(f"{what}={value} can't be: give a number, such as {int(value)}")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as e:
        raise InputError(f"{what}={value!r} is no number") from e
    single = float(torch.tensor(number, dtype=torch.float32))
    if not math.isfinite(single) or (single == 0.0 and number != 0.0):
        raise InputError(f"{what}={value!r} can't be: it must be a finite number of single precision")
    return number


def _words(support: object) -> str:
    """What a parameter may be, in words."""
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if low is not None and high is not None:
        return f"{float(low):g} to {float(high):g}"
    return f"numbers above {float(low):g}" if low is not None else str(support)
