"""What a calibrating network is learnt by: steps of its weights, and the runs of a society as they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lpmppl.effects.distributions import Counted
from lpmppl.inference.head import Posterior, ranks
from lpmppl.inference.reader import Task

__all__ = ["Network", "Trained", "TrainingRuns"]

Network = Callable[[Task, Tensor], Posterior]
"""From a society and counts of shape (B, D), NaN where they weren't seen, to posteriors of batch shape (B,)."""

_RATE, _DECAY, _KEPT, _GREATEST = 5e-3, 0.1, 0.99, 5.0
"""The rate of Adam and of the decay of weights, how much of their average these keep in a step, and the greatest length
of a gradient."""

_ENDED, _GAPS, _LOST = 0.3, 0.2, 0.1
"""In how many of the runs that are learnt from the last days are unseen, or some days, and how often a series is."""


class Trained:
    """A network, or a part of one, that is learnt by Adam, with the average of its weights over the last steps.

    Args:
        network: its first weights.
        each: how many steps lie between one averaging and the next.
    """

    def __init__(self, network: nn.Module, each: int = 1) -> None:
        self.network = network
        self.averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(_KEPT**each)).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=_DECAY)

    def length(self) -> float:
        """The length of the gradient."""
        return math.sqrt(sum(float((p.grad**2).sum()) for p in self.network.parameters() if p.grad is not None))

    def step(self, length: float) -> None:
        """Take a step along the gradient, which is part of one of this length."""
        if length > _GREATEST:
            for p in self.network.parameters():
                if p.grad is not None:
                    p.grad.mul_(_GREATEST / length)
        self.optimizer.step()
        self.averaged.update_parameters(self.network)


class TrainingRuns:
    """Runs of a society at parameters of its priors, kept to learn from.

    Args:
        task: the society.
        days: for how many days.
        seed: the seed of the parameters, of what is counted and of which runs a step learns from.
    """

    def __init__(self, task: Task, days: int, seed: int) -> None:
        self.task, self.days, self.seed = task, days, seed
        self.counts = torch.zeros(0, len(task.ensemble.observed.counts), dtype=torch.float64)
        self.ranks = torch.zeros(0, len(task.scale), dtype=torch.float64)
        self._u = torch.zeros(0, len(task.scale), dtype=torch.float64)
        self._chance = torch.Generator().manual_seed(seed)

    def simulated(self, runs: int) -> tuple[Tensor, Tensor]:
        """Parameters of the priors, on their scale, and the counts of a run of each: shapes (B, P) and (B, D)."""
        of = self.task
        done = of.ensemble.runs
        u = of.scale.drawn(runs, self.seed + 7919 * (done + 1))
        thetas = [{**of.rest, **values} for values in of.scale.values(u)]
        mean, size, _ = of.ensemble(thetas, range(done, done + runs))
        expected, dispersion = torch.from_numpy(mean), torch.from_numpy(size)
        exact = ~torch.isfinite(dispersion)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + done)
            counts = Counted(expected, dispersion.masked_fill(exact, 1.0)).sample()
        return u, torch.where(exact, expected, counts)

    def more(self, runs: int, network: Network) -> list[float]:
        """Make so many more, judge a network by them that hasn't learnt from them, and keep them: the losses, nats."""
        u, counts = self.simulated(runs)
        with torch.no_grad():
            found = network(self.task, counts)
            losses = [-float(x) for x in found.log_prob(u)]
        self.ranks = torch.cat((self.ranks, ranks(found, u, self.seed + self.task.ensemble.runs)))
        self._u, self.counts = torch.cat((self._u, u)), torch.cat((self.counts, counts))
        return losses

    def kept(self) -> dict[str, Tensor]:
        """All that there is of them, by name."""
        return {"u": self._u, "counts": self.counts, "ranks": self.ranks, "chance": self._chance.get_state()}

    def put_back(self, kept: Mapping[str, Tensor]) -> None:
        """Have what `kept` gave."""
        self._u, self.counts, self.ranks = kept["u"], kept["counts"], kept["ranks"]
        self._chance.set_state(kept["chance"])

    def loss(self, network: Network, runs: int) -> Tensor:
        """The mean loss of some of them, of which not all is seen, with its derivative: a scalar, nats."""
        at = torch.randint(len(self._u), (runs,), generator=self._chance)
        return -network(self.task, self._partly(self.counts[at])).log_prob(self._u[at]).mean()

    def _partly(self, counts: Tensor) -> Tensor:
        """Counts of which some aren't seen, as may be so with data: shape (B, D)."""
        runs, days, of = len(counts), self.days, self.task

        def chance(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=self._chance)

        last = torch.where(chance(runs, 1) < _ENDED, (1 + chance(runs, 1) * days).floor(), float(days))
        gone = (torch.arange(days) >= last) | ((chance(runs, 1) < _GAPS) & (chance(runs, days) < 0.3))
        parts = []
        for part in of.ensemble.observed.split(counts.numpy()):
            lost = chance(runs, 1, part.shape[-1]) < (_LOST if len(of.streams) > 1 else 0.0)
            parts.append(torch.from_numpy(part).masked_fill(gone[..., None] | lost, torch.nan).flatten(1))
        return torch.cat(parts, -1)
