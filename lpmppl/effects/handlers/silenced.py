"""Switching off: some agents' messages over some networks reach nobody."""

from __future__ import annotations

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.cohorts import Sparse

__all__ = ["Silenced"]


class Silenced(Messenger):
    """Let nothing that some agents send over a network reach anybody: what would be, were it not for them.

    Args:
        network: the network's name; None for all networks.
        agents: whom, Boolean of shape (N,); None for everybody.
    """

    def __init__(self, network: str | None = None, agents: Tensor | None = None) -> None:
        super().__init__()
        self.network, self.agents = network, agents

    def _pyro_aggregate(self, msg: Message) -> None:
        message, network, onto, reduce = msg["args"]
        if self.network in (None, network.name):
            msg["args"] = (self._without(message), network, onto, reduce)

    def _without(self, message: Tensor | Sparse) -> Tensor | Sparse:
        if not isinstance(message, Sparse):
            silent = torch.ones((), dtype=torch.bool) if self.agents is None else self.agents
            return torch.where(silent, torch.zeros_like(message), message)
        members = message.cohort
        silent = torch.ones_like(members.agent, dtype=torch.bool) if self.agents is None else self.agents[members.agent]
        heard = (~silent).nonzero().squeeze(-1)
        return Sparse(members.select(heard), message.value[heard])
