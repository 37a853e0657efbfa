"""One part of a model by itself, in a state that the test gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import torch

from lpmppl.effects.handlers import ExogenousNoise
from lpmppl.models.pandemic import PARTS
from lpmppl.models.part import Part, Setting
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep, compose
from lpmppl.typing import State
from tests.oracles import go


def town(n: int = 600, **variables: Any) -> Population:
    """People in households of three, of every age, half of them at work."""
    rng = np.random.default_rng(0)
    age = rng.integers(0, 95, n)
    given = {
        "age": age.astype(np.uint8),
        "age_band": np.minimum(age // 10, 8).astype(np.uint8),
        "household": np.arange(n) // 3,
        "borough": (np.arange(n) // (n // 2)).clip(max=1).astype(np.uint8),
        **variables,
    }
    return Population.of(given)


def setting(people: Population, start: str = "2020-03-01", by: bool = True, **more: Any) -> Setting:
    strata = people.strata(borough="borough", age="age_band") if by else None
    return Setting(people, date.fromisoformat(start), strata, **more)


def alone(
    part: Part,
    where: Setting,
    days: float,
    given: Mapping[str, Any] | None = None,
    *handlers: Any,
    watch: Callable[[State], None] | None = None,
    environment: Mapping[str, float] | None = None,
    then: Sequence[Substep] = (),
    seed: int = 0,
    dt: float = 1.0,
    **theta: float,
) -> tuple[State, dict[str, np.ndarray]]:
    """Simulate one part, other parts' keys being as `given`: the last state and every tally's series."""
    known = {name: p for other in (*PARTS, part) for name, p in other.parameters.items()}
    values = {name: torch.tensor(theta.get(name, p.default)) for name, p in known.items()}
    knobs = {**part.environment, **(environment or {})}

    def begin() -> State:
        own = part.start(where, values, 0.0)
        return {**own, **{k: torch.full((1,), v) for k, v in knobs.items()}, **(given or {})}

    day = compose(part.substep(where, values), *then)
    return go(day, begin, days, *(handlers or (ExogenousNoise(seed),)), dt=dt, watch=watch)
