"""Federated learning of a calibrating network: institutions that keep their societies, and send updates masked."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lpmppl.errors import InputError
from lpmppl.inference.calibnn import AT_ONCE, CalibNN
from lpmppl.inference.checks import whole
from lpmppl.inference.secure_sum import agreed, masked, opened
from lpmppl.inference.training import Trained, TrainingRuns

__all__ = ["FederatedCalibNN"]


class FederatedCalibNN(CalibNN):
    r"""A `CalibNN` of societies that belong to institutions, who learn it together without showing what they have.

    Each society, with its people, its runs and its data, stays with its institution. In a round each gets the weights
    w, takes steps of its own on its runs, and sends what they changed under masks that cancel in the sum over
    institutions, which is all that anybody else sees:

    .. math:: w \leftarrow w + \frac1K \sum_k \Delta_k(w)

    (McMahan et al., AISTATS 2017). With one step a round the gradients are summed instead, and Adam's step is taken
    with the sum: the same update as that of `CalibNN`, but for the rounding of sums. Whoever is one of two can take the
    sum apart; three or more can't, unless all but one of them show each other what they sent.

    Args:
        models: the society of each institution, by the institution's name.
        streams: as for `CalibNN`.
        days: for how many days.
        local: how many steps of its own each institution takes in a round.
        options: what else `CalibNN` takes.
    Raises:
        InputError: for fewer than two institutions, and as `CalibNN` does.
    """

    def __init__(self, models: Any, streams: Any, days: int, *, local: int = 1, **options: Any) -> None:
        self.local = whole("local", local, 1)
        super().__init__(models, streams, days, **options)
        if len(self.tasks) < 2:
            raise InputError("one institution has nobody to sum its updates with: give two or more, or use CalibNN")
        keys = agreed(list(self.tasks))
        self._institutions = [
            _Institution(name, runs, keys[name], self._trained.network) for name, runs in self._runs.items()
        ]
        self._turn = 0
        self.traffic: Counter[str] = Counter()

    def _begun(self, context: int, rank: int) -> Trained:
        return Trained(super()._begun(context, rank).network, self.local)

    def _parts(self) -> list[Trained]:
        return [self._trained, *(each.mine for each in self._institutions)]

    def _steps(self, count: int) -> None:
        for _ in range(-(-count // self.local)):
            self._round()

    def _round(self) -> None:
        """One round: the weights go out, the sum of all updates comes back."""
        weights = parameters_to_vector(self._trained.network.parameters()).detach()
        # Masks of a round that is broken off are never used again.
        turn, self._turn = self._turn, self._turn + 1
        sent = []
        for institution in self._institutions:
            sent.append(institution.update(weights.clone(), self.local, turn))
            self.traffic["weights"] += weights.numel() * weights.element_size()
            self.traffic["masked updates"] += sent[-1].nbytes
        *mean, loss = torch.from_numpy(opened(sent) / len(sent)).split([weights.numel(), 1])
        self._noted(float(loss))
        if self.local == 1:
            _give(self._trained.network, mean[0].to(weights.dtype))
            self._trained.step(self._trained.length())
        else:
            vector_to_parameters(weights + mean[0].to(weights.dtype), self._trained.network.parameters())
            self._trained.averaged.update_parameters(self._trained.network)


class _Institution:
    """One that keeps its society and its runs; what it sends is masked."""

    def __init__(self, name: str, runs: TrainingRuns, keys: dict[str, bytes], network: torch.nn.Module) -> None:
        self.name, self._runs, self._keys = name, runs, keys
        self.mine = Trained(copy.deepcopy(network))

    def update(self, weights: Tensor, local: int, turn: int) -> np.ndarray:
        """The gradient at these weights, or what its own steps from them changed, with the loss, masked: uint64."""
        network, losses = self.mine.network, []
        vector_to_parameters(weights.clone(), network.parameters())
        for _ in range(local):
            self.mine.optimizer.zero_grad()
            loss = self._runs.loss(network, AT_ONCE)
            loss.backward()
            losses.append(float(loss.detach()))
            if local > 1:
                self.mine.step(self.mine.length())
        if local > 1:
            found = parameters_to_vector(network.parameters()).detach() - weights
        else:
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
            found = torch.cat([g.reshape(-1) for g in grads])
        return masked(np.append(found.double().numpy(), np.mean(losses)), self.name, self._keys, turn)


def _give(network: torch.nn.Module, gradient: Tensor) -> None:
    """Let a network's gradient be this vector."""
    at = 0
    for p in network.parameters():
        p.grad = gradient[at : at + p.numel()].reshape(p.shape).clone()
        at += p.numel()
