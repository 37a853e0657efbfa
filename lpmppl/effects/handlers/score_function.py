"""The score function: how the probability of everything that happened in a run depends on the parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from lpmppl._compat import Message
from lpmppl.effects.handlers.held import Held, log_probability, place_of, slopes

__all__ = ["ScoreFunction"]


class ScoreFunction(Held):
    r"""Add up the log-probability of what chance decided in each step; its derivatives weigh what comes after.

    .. math:: \frac{\partial\, \mathbb E X}{\partial \theta} = \mathbb E \sum_t \big(X_{\ge t} - b_t\big)
        \frac{\partial}{\partial \theta} \sum_{i \in t} \log p_i(y_i)

    with X to go from step t on and any b that doesn't depend on the run. It is right on any network, and scatters most
    (Glynn, Communications of the ACM 33, 1990, 75).

    Args:
        parameters: the parameters, with `requires_grad`.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.parameters = parameters
        self._logs: dict[int, Tensor] = defaultdict(lambda: torch.zeros((), dtype=torch.float64))

    def slopes(self) -> dict[int, Tensor]:
        """Derivatives of each step's log-probability, by step, shape (parameters,)."""
        return {step: slopes(log, self.parameters) for step, log in self._logs.items()}

    def _met(self, msg: Message) -> None:
        log = log_probability(msg)
        if log is not None and log.requires_grad:
            _, step = place_of(msg["infer"], msg["name"])
            self._logs[step] = self._logs[step] + log.sum()
