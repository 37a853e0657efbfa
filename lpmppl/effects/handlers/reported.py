"""Counts of reports: events of which each is reported with a probability, some steps after it happened."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpmppl.effects.distributions import MOST
from lpmppl.effects.internals.streams import stream, uniform
from lpmppl.errors import InputError

__all__ = ["Allotting", "Reported", "counts_of"]

_BESIDE = 0.5
"""How many events a step is guessed to have beside, so that none is left out of those that reports may be of."""


@dataclass(frozen=True, eq=False)
class Reported:
    """Counts of reports of events, in place of the events themselves, for `Guided` and what asks by it.

    Args:
        counts: how many were reported in each step from the first on, NaN where that wasn't seen.
        share: the probability that an event is ever reported, above 0 and at most 1; or the name of a parameter that is
            it, where parameters are known by name; or, for `Guided` with draws in R rows, a tensor of shape (R,).
        delay: the probabilities that a report comes so many steps after its event, of 0, 1, 2 … steps, which add up to
            1; or a whole number of steps.
    Raises:
        InputError: for counts, a share or a delay that can't be.

    >>> Reported([0, 2, 1], share=0.3, delay=[0.5, 0.25, 0.25]).delay
    (0.5, 0.25, 0.25)
    """

    counts: Sequence[float]
    share: float | str | Tensor = 1.0
    delay: int | Sequence[float] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", counts_of("reports", self.counts))
        if not self.counts:
            raise InputError("reports of no step were given; give their number in each step, NaN where it wasn't seen")
        if not isinstance(self.share, str):
            try:
                known = torch.as_tensor(self.share, dtype=torch.float64).detach()
            except (TypeError, ValueError, RuntimeError) as e:
                raise InputError(f"share={self.share!r} was given; give a probability, or a parameter's name") from e
            if known.dim() > 1 or not known.numel():
                raise InputError(f"share= has the shape {tuple(known.shape)}; give a number, or one for each row")
            good = (known > 0) & (known <= 1)
            if isinstance(self.share, bool) or not bool(good.all()):
                bad = float(known.reshape(-1)[~good.reshape(-1)][0]) if not bool(good.all()) else self.share
                raise InputError(f"share={bad} was given; give a probability above 0 and at most 1")
        object.__setattr__(self, "delay", _delay(self.delay))

    def __len__(self) -> int:
        return len(self.counts)

    def __iter__(self) -> Iterator[float]:
        return iter(self.counts)

    def allotting(self, site: str, seed: int, draw: int | Tensor) -> Allotting:
        """What says of which step's events reports are.

        Args:
            site: the hazard site.
            seed: the seed of that chance.
            draw: which draw of it, a number, or integers of shape (R, 1).
        """
        assert isinstance(self.delay, tuple)
        y = torch.tensor(self.counts, dtype=torch.float64)
        seen, steps, lags = ~torch.isnan(y), len(y), len(self.delay)
        # What is of step s, reported l steps after, comes in step s + l.
        when = torch.arange(steps)[:, None] + torch.arange(lags)
        known = (when < steps) & seen[when.clamp(max=steps - 1)]
        comes = torch.where(known, torch.tensor(self.delay, dtype=torch.float64), 0.0)
        later = torch.zeros(steps, steps, dtype=torch.float64)
        at, lag = (comes > 0).nonzero(as_tuple=True)
        guess, possible = _brought_back(y.nan_to_num(), comes, when)
        later[at, when[at, lag]] = guess[at] * comes[at, lag]
        rows = draw.shape[0] if isinstance(draw, Tensor) else 1
        left = y.nan_to_num().expand(rows, steps).clone()
        # Of reports in step u, what is expected of events after step s: of all steps after it.
        after = later.flip(0).cumsum(0).flip(0) - later
        return Allotting(possible, comes, guess, after, left, (stream(seed, f"{site}/reported"), draw))


def _brought_back(y: Tensor, comes: Tensor, when: Tensor) -> tuple[Tensor, bool]:
    """How many events each step is guessed to have had, shape (T,), and whether all reports can be of some.

    Reports are shared out among the steps before them by their delays, and what came is averaged over the delays of
    each step's: smooth, as a sharper guess follows the chance of single reports, and more of them are taken wrongly.
    """
    place, within = when.clamp(max=len(y) - 1), comes.sum(-1)
    met = torch.zeros_like(y).index_add(0, place.reshape(-1), comes.reshape(-1))
    each = torch.where(met > 0, y / met.clamp(min=1e-300), 0.0)
    guess = (comes * each[place]).sum(-1) / within.clamp(min=1e-300)
    return guess + _BESIDE, not bool(((met == 0) & (y > 0)).any())


@dataclass
class Allotting:
    r"""Reports, step by step taken for those of its events or of later ones, by chance.

    With :math:`\lambda_s` the events that the society expects in step s, and :math:`\hat\lambda` what is guessed of
    later ones, in proportion to :math:`\lambda_s`, each report of step s + l that isn't of an earlier one is taken for
    one of step s with the probability

    .. math:: q = \frac{\lambda_s \delta_l}
        {\lambda_s \delta_l + \sum_{s' > s} \hat\lambda_{s'} \delta_{s + l - s'}}

    and the run is weighed by the probability of these delays of the step's reports over that of having said so. Given
    that events are Poisson, as many as are expected and were guessed, that has no variance.

    Args:
        possible: whether every report can be of some step's events.
        comes: with which probability a report of each step's events comes l steps after in one that was seen, (T, L).
        guess: how many events each step is guessed to have, shape (T,).
        after: how many reports of step u are guessed to be of events after step s, shape (T, T).
        left: the reports of each step that aren't yet taken for any step's, shape (R, T).
        key: the key of the chance, and the draw.
    """

    possible: bool
    comes: Tensor
    guess: Tensor
    after: Tensor
    left: Tensor
    key: tuple[int, int | Tensor]

    @property
    def within(self) -> Tensor:
        """With which probability a report of an event of each step comes in one that was seen, shape (T,)."""
        return self.comes.sum(-1)

    def step(self, step: int, expected: Tensor) -> tuple[Tensor, Tensor]:
        """Say how many reports are of a step's events.

        Args:
            step: the step.
            expected: how many events the society expects in it, shape (R,).
        Returns:
            how many, int64 of shape (R,), and the log-weight of having said so, float64 of shape (R,).
        """
        # It takes a fifth of a second to import, and every program imports the handlers.
        from scipy.stats import binom

        within, total = float(self.within[step]), torch.zeros(len(expected), dtype=torch.float64)
        log = torch.zeros_like(total)
        scale = expected / self.guess[step]
        for lag, chance in enumerate(self.comes[step].tolist()):
            if not chance:
                continue
            u = step + lag
            m, own = self.left[:, u], expected * chance
            q = torch.where(own > 0, own / (own + self.after[step, u] * scale), 0.0)
            # No later step's events can be meant: what is left is of this one.
            q = q if float(self.after[step, u]) else torch.ones_like(q)
            uniforms = uniform(torch.tensor([lag]), self.key[0], self.key[1], step).reshape(-1).expand(len(m))
            taken = torch.from_numpy(np.asarray(binom.ppf(uniforms.numpy(), m.numpy(), q.numpy()))).clamp(min=0.0)
            chosen = torch.lgamma(m + 1) - torch.lgamma(m - taken + 1)
            log = (
                log
                - chosen
                - torch.xlogy(taken, q)
                - torch.xlogy(m - taken, 1 - q)
                + torch.xlogy(taken, chance / within)
            )
            self.left[:, u] = m - taken
            total = total + taken
        return total.long(), log + torch.lgamma(total + 1)


def counts_of(site: str, series: Any) -> list[float]:
    """A series of counts, NaN where one wasn't seen.

    Raises:
        InputError: for what isn't a series of whole numbers, 0 or more.
    """
    try:
        if isinstance(series, str | bytes | Mapping | Set | Iterator):
            raise TypeError
        counts = [float(x) for x in (series.detach().double() if isinstance(series, Tensor) else series)]
    except (TypeError, ValueError, OverflowError) as e:
        raise InputError(f"what was observed of '{site}' can't be read: {series!r}; give a number for each step") from e
    for day, x in enumerate(counts):
        if not math.isnan(x) and (not 0 <= x <= MOST or not x.is_integer()):
            raise InputError(f"{x:g} events of '{site}' in step {day}: give whole numbers, 0 or more, or NaN if unseen")
    return counts


def _delay(delay: int | Sequence[float]) -> tuple[float, ...]:
    """The probabilities of delays of 0, 1, 2 … steps."""
    try:
        steps = -1 if isinstance(delay, bool) else operator.index(delay)  # type: ignore[arg-type]
        if steps >= 0:
            return (*[0.0] * steps, 1.0)
    except (TypeError, RuntimeError, ValueError):
        pass
    try:
        found = () if isinstance(delay, Mapping | Set) else tuple(float(x) for x in delay)  # type: ignore[union-attr]
    except (TypeError, ValueError):
        found = ()
    if not found or not all(0 <= x <= 1 for x in found) or not math.isclose(sum(found), 1.0, abs_tol=1e-6):
        raise InputError(
            f"delay={delay!r} was given; give a number of steps, or the probabilities of 0, 1, 2 … steps, which add up "
            "to 1"
        )
    return found
