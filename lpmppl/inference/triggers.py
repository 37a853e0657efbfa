"""When triggers are in force: day by day, in each world and draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from torch import Tensor

from lpmppl._compat import Message, Messenger, effectful

__all__ = ["InForce", "in_force"]


@effectful(type="in_force")
def in_force(day: int, triggers: Mapping[str, Tensor]) -> None:
    """Say which triggers are in force from today on: by the name of each, a Boolean of shape (…, 1)."""


class InForce(Messenger):
    """Note on which days the triggers of policies are in force, each in the world of its policy.

    Args:
        triggers: by the name that `in_force` has for it, a trigger's policy, the number of its world, and its act.
    """

    def __init__(self, triggers: Mapping[str, tuple[str, int, str]]) -> None:
        super().__init__()
        self.triggers = dict(triggers)
        self.draws: list[dict[tuple[str, int], bool]] = []

    def _pyro_post_in_force(self, msg: Message) -> None:
        day, found = msg["args"]
        if not self.draws or (next(iter(found)), day) in self.draws[-1]:
            self.draws.append({})
        for name, on in found.items():
            worlds = on.reshape(-1)
            self.draws[-1][name, day] = bool(worlds[self.triggers[name][1] if worlds.numel() > 1 else 0])

    def dataset(self, days: int) -> xr.Dataset:
        """`in_force`, Boolean over (chain, draw, trigger, day), with each trigger's policy and act as coordinates."""
        names: Sequence[str] = list(self.triggers)
        values = [[[draw.get((name, day), False) for day in range(days)] for name in names] for draw in self.draws]
        coords = {
            "policy_of": ("trigger", [self.triggers[name][0] for name in names]),
            "act": ("trigger", [self.triggers[name][2] for name in names]),
            "chain": [0],
            "draw": np.arange(len(self.draws)),
            "day": np.arange(days),
        }
        return xr.Dataset({"in_force": (("chain", "draw", "trigger", "day"), np.array([values], bool))}, coords)
