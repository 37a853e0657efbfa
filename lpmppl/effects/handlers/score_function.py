"""The score function: how the probability of everything that happened in a run depends on the parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from lpmppl._compat import Message
from lpmppl.effects.cohorts import dense
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.handlers.held import Held, is_chance, place_of, slopes
from lpmppl.effects.handlers.noise import base_of

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
        fn = msg["fn"]
        if isinstance(fn, Left):
            h, event = _met(fn.exposure), dense(fn.event)
            safe = torch.where(event & (h > 0), h, 1.0)
            # The time's density, given that the event came.
            density = torch.log(safe) - safe * (1 - dense(msg["value"]).double()) - torch.log(-torch.expm1(-safe))
            self._add(msg, torch.where(event & (h > 0), density, 0.0))
        elif is_chance(msg):
            base = base_of(fn)
            if isinstance(base, Exposure):
                h = _met(base)
                safe = torch.where(msg["value"] & (h > 0), h, 1.0)
                log = torch.where(msg["value"], torch.log(-torch.expm1(-safe)), -h)
                self._add(msg, torch.where(base.at_risk, log, 0.0))
            else:
                self._add(msg, base.log_prob(msg["value"]).double())

    def _add(self, msg: Message, log: Tensor) -> None:
        if log.requires_grad:
            _, step = place_of(msg["infer"], msg["name"])
            self._logs[step] = self._logs[step] + log.sum()


def _met(exposure: Exposure) -> Tensor:
    """The step's hazard; 1 where nothing can happen, lest a derivative be infinite."""
    return torch.where(exposure.at_risk, exposure.met, 1.0)
