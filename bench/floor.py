"""The least that a day must read and write of every agent, counted from a model's own tensors, and what copying costs.

Counted are, each once a day: of every exposure, the cumulative hazard read and written, the resistance that it meets,
the mask of those at risk and the mask of the events; of its hazard, the membership in every layer, every factor that
agents have of their own, and the values of every layer's groups; and every clock that is looked through for who is due.
Not counted are who is in a mask, which a list could say, events, of which a day has few, and weekly decisions: what is
left out makes the floor lower, and a day the slower beside it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.fields import Field
from lpmppl.effects.handlers import ExogenousNoise, Utility
from lpmppl.models.model import Model

MOST = 2**26
"""Numbers in a copy: beyond every cache, so that each of more would take as long."""

PER_AGENT = 6
"""Numbers of 4 bytes copied for each agent, each read and written: about what a day reads and writes."""


class Passes(Messenger):
    """Note what of every agent a day's exposures and clocks read and write, in bytes an agent by what it is."""

    def __init__(self, model: Model, noise: ExogenousNoise) -> None:
        super().__init__()
        self.people, self.noise = model.population, noise
        self.found: dict[str, float] = {}
        self.seen: set[int] = set()

    def note(self, what: str, x: Tensor, times: int = 1) -> None:
        """Note a tensor over agents or groups, unless the day has read it before."""
        if x.data_ptr() not in self.seen:
            self.seen.add(x.data_ptr())
            self.found[what] = self.found.get(what, 0.0) + times * x.element_size() * x.shape[-1] / self.people.size

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if isinstance(fn, Exposure):
            resistance = self.noise.resistance(str(msg["infer"].get("site", msg["name"])), self.people.ids)
            self.note("cumulative hazards, read and written", fn.before, times=2)
            self.note("resistances", resistance)
            self.note("masks of those at risk and of events", fn.at_risk, times=2)
            for what, x in _parts(fn.hazard) if isinstance(fn.hazard, Field) else ():
                self.note(what, x)


def _parts(field: Field) -> Iterator[tuple[str, Tensor]]:
    """What a hazard is read from."""
    for leaf in field.leaves:
        if isinstance(leaf, Field):
            yield from _parts(leaf)
        elif leaf.index is None:
            yield "factors of agents", leaf.base
        elif leaf.base.shape[-1] > 1:
            yield "memberships", leaf.index
            yield "values of groups", leaf.base
            if leaf.share is not None:
                yield "values of groups", leaf.share
    for factor in field.factors:
        if isinstance(factor, Field):
            yield from _parts(factor)
        else:
            yield "factors of agents", factor if isinstance(factor, Tensor) else factor.mask


def pieces(model: Model) -> dict[str, float]:
    """Bytes a day and agent that a model's days must read and write at least, by what they are.

    Args:
        model: it is played for as many days as its rarest substep comes round in.
    """
    theta = model.defaults()
    days = max(part.every for part in model.substeps(theta))  # type: ignore[attr-defined]
    noise = ExogenousNoise(0)
    passes, of = Passes(model, noise), Cohort.of

    def looked(x: Tensor, ids: Tensor | None = None, above: float | None = None, below: float | None = None) -> Cohort:
        if (above is not None or below is not None) and x.shape[-1] == model.population.size:
            passes.note("clocks", x)
        return of(x, ids, above, below)

    with noise, Utility(getattr(model, "behaviour", {})), passes:
        state = {**model.initial(theta), "dt": torch.ones(1)}
        day = model.day(theta)
        passes.found.clear()
        with patch.object(Cohort, "of", looked):
            for t in range(days):
                passes.seen.clear()
                state = {**state, **day({**state, "t": torch.full((1,), float(t))})}
    return {what: size / days for what, size in passes.found.items()}


def bandwidth(agents: int, repetitions: int = 5) -> list[float]:
    """Bytes read and written a second by copying, with as many threads as torch has, once for each repetition."""
    many = min(PER_AGENT * agents, MOST)
    source, target = torch.ones(many), torch.ones(many)
    # Few agents' copy is over before a clock or a sleeping thread notices.
    times = max(1, MOST // 16 // many)
    found = []
    for _ in range(repetitions):
        start = time.perf_counter()
        for _ in range(times):
            target.copy_(source)
        found.append(2 * times * source.nbytes / (time.perf_counter() - start))
    return found
