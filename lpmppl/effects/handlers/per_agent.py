"""Agents' chance and agents' counts held against the agents there are: a plate forgotten, a tally of something else."""

from __future__ import annotations

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistributionMixin

from lpmppl._compat import ConditionMessenger, Message, Messenger, handler_stack
from lpmppl.effects.handlers.noise import base_of
from lpmppl.errors import InputError

__all__ = ["PerAgent"]


class PerAgent(Messenger):
    """Refuse chance that the run's seed says nothing of, and tallies that aren't of the agents.

    It stands around the handlers of a run. Outside a plate a site's chance is keyed in a step alone, as that of the
    environment, which has no value for each agent: on ranks, each would draw the same again.

    Args:
        agents: how many agents there are here.
    Raises:
        InputError: at a site outside a plate that no step keys, or that has a value for each agent; at a tally without
            strata of another number of values than there are agents.
    """

    def __init__(self, agents: int) -> None:
        super().__init__()
        self.agents = agents

    def _pyro_sample(self, msg: Message) -> None:
        fn, infer, name = msg["fn"], msg["infer"] or {}, msg["name"]
        if (
            msg["is_observed"]
            or infer.get("agents") is not None
            or not isinstance(fn, TorchDistributionMixin)
            or isinstance(base_of(fn), dist.Delta)
            or any(isinstance(h, ConditionMessenger) and name in h.data for h in handler_stack())
        ):
            return
        site = infer.get("site", name)
        if self.agents > 1 and tuple(fn.batch_shape[-1:]) == (self.agents,):
            raise InputError(
                f"site '{site}' has a value for each of {self.agents:,} agents, but stands outside their plate; put it "
                "in `with population.plate():`"
            )
        if msg["value"] is None and not msg["done"]:
            raise InputError(
                f"site '{site}' stands outside a plate and before the first step, where the seed says nothing of its "
                "chance; put it in `with population.plate():`, or make it a parameter"
            )

    def _pyro_tally(self, msg: Message) -> None:
        name, integers, by = msg["args"][:3]
        if by is None and integers.shape[-1] != self.agents:
            raise InputError(
                f"tally '{name.rpartition('/')[2]}': shape {tuple(integers.shape)} was given, but there are "
                f"{self.agents:,} agents; give what each contributes, with agents on the last dimension"
            )
