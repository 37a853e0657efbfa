"""Federated learning of a calibrating network: institutions that keep their societies, and send updates masked."""

from __future__ import annotations

import copy
from abc import abstractmethod
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

__all__ = ["Federated", "FederatedCalibNN", "update"]


class Federated(CalibNN):
    """A `CalibNN` whose rounds take the mean of what institutions found, wherever these are.

    Args:
        models: the societies that are here, by name.
        streams: as for `CalibNN`.
        days: for how many days.
        local: how many steps of its own each institution takes in a round.
        options: what else `CalibNN` takes.
    """

    def __init__(self, models: Any, streams: Any, days: int, *, local: int = 1, **options: Any) -> None:
        self.local = whole("local", local, 1)
        super().__init__(models, streams, days, **options)

    def _begun(self, context: int, rank: int) -> Trained:
        return Trained(super()._begun(context, rank).network, self.local)

    def _steps(self, count: int) -> None:
        for _ in range(-(-count // self.local)):
            self._round()

    @abstractmethod
    def _mean(self, weights: Tensor) -> np.ndarray:
        """The mean over institutions of what each found at these weights, and of their losses, float64 (n + 1,)."""

    def _round(self) -> None:
        """One round: from the weights, which all have, to the next."""
        weights = parameters_to_vector(self._trained.network.parameters()).detach()
        *mean, loss = torch.from_numpy(self._mean(weights)).split([weights.numel(), 1])
        self._noted(float(loss))
        if self.local == 1:
            _give(self._trained.network, mean[0].to(weights.dtype))
            self._trained.step(self._trained.length())
        else:
            vector_to_parameters(weights + mean[0].to(weights.dtype), self._trained.network.parameters())
            self._trained.averaged.update_parameters(self._trained.network)


class FederatedCalibNN(Federated):
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

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> network = FederatedCalibNN({"north": model, "south": model}, "infections", days=2)
    >>> losses = network.learn(2)  # in earnest a thousand, or some
    >>> network.given(torch.tensor([[1.0, 0.0]]), "north").mean.shape  # of beta, gamma and initial_infected
    torch.Size([1, 3])
    """

    def __init__(self, models: Any, streams: Any, days: int, *, local: int = 1, **options: Any) -> None:
        super().__init__(models, streams, days, local=local, **options)
        if len(self.tasks) < 2:
            raise InputError("one institution has nobody to sum its updates with: give two or more, or use CalibNN")
        keys = agreed(list(self.tasks))
        self._institutions = [
            _Institution(name, runs, keys[name], self._trained.network) for name, runs in self._runs.items()
        ]
        self._turn = 0
        self.traffic: Counter[str] = Counter()

    def _parts(self) -> list[Trained]:
        return [self._trained, *(each.mine for each in self._institutions)]

    def _mean(self, weights: Tensor) -> np.ndarray:
        # Masks of a round that is broken off are never used again.
        turn, self._turn = self._turn, self._turn + 1
        sent = []
        for institution in self._institutions:
            sent.append(institution.update(weights.clone(), self.local, turn))
            self.traffic["weights"] += weights.numel() * weights.element_size()
            self.traffic["masked updates"] += sent[-1].nbytes
        return opened(sent) / len(sent)


class _Institution:
    """One that keeps its society and its runs; what it sends is masked."""

    def __init__(self, name: str, runs: TrainingRuns, keys: dict[str, bytes], network: torch.nn.Module) -> None:
        self.name, self._runs, self._keys = name, runs, keys
        self.mine = Trained(copy.deepcopy(network))

    def update(self, weights: Tensor, local: int, turn: int) -> np.ndarray:
        """What it found at these weights, masked: uint64."""
        return masked(update(self.mine, self._runs, weights, local), self.name, self._keys, turn)


def update(mine: Trained, runs: TrainingRuns, weights: Tensor, local: int) -> np.ndarray:
    """What an institution finds at some weights of a network: float64 of shape (n + 1,), with its loss at the end.

    Args:
        mine: its network, which is given these weights.
        runs: its runs.
        weights: of shape (n,).
        local: how many steps it takes: the gradient for one, else what its steps changed.
    """
    network, losses = mine.network, []
    vector_to_parameters(weights.clone(), network.parameters())
    for _ in range(local):
        mine.optimizer.zero_grad()
        loss = runs.loss(network, AT_ONCE)
        loss.backward()
        losses.append(float(loss.detach()))
        if local > 1:
            mine.step(mine.length())
    if local > 1:
        found = parameters_to_vector(network.parameters()).detach() - weights
    else:
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
        found = torch.cat([g.reshape(-1) for g in grads])
    return np.append(found.double().numpy(), np.mean(losses))


def _give(network: torch.nn.Module, gradient: Tensor) -> None:
    """Let a network's gradient be this vector."""
    at = 0
    for p in network.parameters():
        p.grad = gradient[at : at + p.numel()].reshape(p.shape).clone()
        at += p.numel()
