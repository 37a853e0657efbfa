"""Switching off: some agents' messages over some networks reach nobody."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.cohorts import Sparse
from lpmppl.errors import InputError, nearest

__all__ = ["Silenced"]


class Silenced(Messenger):
    """Let nothing that some agents send over a network reach anybody: what would be, were it not for them.

    Args:
        network: the network's name; None for all networks.
        agents: whom, Boolean of shape (N,); None for everybody.
    Raises:
        InputError: where `agents` is no Boolean tensor over the agents.
    """

    def __init__(self, network: str | None = None, agents: Tensor | None = None) -> None:
        super().__init__()
        if agents is not None and not (isinstance(agents, Tensor) and agents.dtype == torch.bool and agents.dim() == 1):
            what = (
                f"{agents.dtype} of shape {tuple(agents.shape)}"
                if isinstance(agents, Tensor)
                else type(agents).__name__
            )
            raise InputError(f"silenced agents must be a Boolean tensor of shape (N,), but {what} was given")
        self.network, self.agents = network, agents
        self._met: dict[str, None] = {}

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if kind is None and self._met and self.network not in (None, *self._met):
            said = nearest("network", str(self.network), self._met)
            warnings.warn(f"nothing was silenced: {said}", stacklevel=2)
        super().__exit__(kind, value, traceback)

    def _pyro_aggregate(self, msg: Message) -> None:
        message, network, onto, reduce = msg["args"]
        self._met[network.name] = None
        if self.agents is not None and self.agents.shape[0] != network.agents:
            raise InputError(
                f"{self.agents.shape[0]} agents are to be silenced or not, but network '{network.name}' has "
                f"{network.agents}; give one Boolean for each"
            )
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
