"""Many runs at once, a row each, of what was observed of a society: what it is expected to have been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lpmppl.effects.handlers.expected import Expected
from lpmppl.effects.handlers.record import Record
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError
from lpmppl.inference.flipping import ROWS, by_row, expanded
from lpmppl.inference.observed import Observed
from lpmppl.inference.results import day_by_day
from lpmppl.inference.run import playing
from lpmppl.inference.side_by_side import in_batches
from lpmppl.models.model import Model

__all__ = ["Ensemble"]


class Ensemble:
    """Runs of a model, as what they expect of each observed count.

    Args:
        model: the society.
        observed: what was observed.
        seed: the seed of the agents' chance.
        acts: interventions: name, value and day.
        days: how many days, as many as were observed by default.
        people: of how many people the observed counts are, where the model's are fewer and stand for them; reports are
            of the residents in any case.
    """

    def __init__(
        self,
        model: Model,
        observed: Observed,
        seed: int,
        acts: Sequence[Sequence[Any]] = (),
        days: int | None = None,
        people: int | None = None,
    ) -> None:
        self.model, self.observed, self.seed, self.acts = model, observed, seed, acts
        self.days = observed.days if days is None else days
        self.each = 1.0 if people is None else people / model.population.everybody
        self.runs = 0

    def __call__(
        self, thetas: Sequence[Mapping[str, float]], chances: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, list[Record]]:
        """Run the society once for every setting of its parameters.

        Args:
            thetas: parameters, all of them, for each row.
            chances: which draw of everybody's chance each row has.
        Returns:
            expected counts and the dispersion of each, float64 of shape (rows, D), by the order of `Observed.counts`
            with the days of this ensemble; and the records of the tallies, of batches of rows.
        """
        people = self.model.population
        rows = max(1, ROWS // people.everybody)
        found = in_batches(lambda k: self._batch(thetas[k], chances[k]), len(thetas), rows, people, self.days)
        means, sizes, records = zip(*found, strict=True)
        self.runs += len(thetas)
        return np.concatenate(means), np.concatenate(sizes), list(records)

    def _batch(
        self, thetas: Sequence[Mapping[str, float]], chances: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, Record]:
        rows, device = len(thetas), self.model.population.device
        theta, draw = {}, torch.tensor(list(chances), device=device).reshape(-1, 1)
        for name in self.model.parameters:
            values = [float(each[name]) for each in thetas]
            wide = torch.tensor(values, device=device).reshape(-1, 1)
            theta[name] = wide if len(set(values)) > 1 else wide[0, 0]
        alone: Any = int(chances[0]) if len(set(chances)) == 1 else draw
        expected = Expected()
        with (
            torch.no_grad(),
            playing(self.model, self.seed, alone, self.acts, DiscreteTime(), inside=[expected]) as record,
        ):
            state = self.model.initial(theta)
            state = expanded(state, rows) if rows > 1 else state
            simulate(self.model.day(theta), state, torch.tensor(0.0), torch.tensor(float(self.days)))
        parts = [self._read(s, expected, record, rows) for s in self.observed.streams]
        mean, size = (np.concatenate([p[k].reshape(rows, -1) for p in parts], -1) for k in (0, 1))
        return mean, size, record

    def _read(self, stream: Any, expected: Expected, record: Record, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """What a stream's counts are expected to be, and the dispersion of their sum over strata: (rows, T, K)."""
        if stream.site is None or stream.site not in expected.means:
            counts = by_row(day_by_day(record.series[stream.tally], self.days), rows).astype(float)
            folded = stream.folded(counts) * self.each
            return folded, np.full_like(folded, np.inf)
        shape = (self.days, rows, int(np.prod(stream.shape)) if stream.shape else 1)
        mean, variance = np.full(shape, np.nan), np.full(shape, np.nan)
        for day, m in expected.means[stream.site].items():
            known, k = m.double().cpu().numpy(), expected.sizes[stream.site][day].double().cpu().numpy()
            mean[day], variance[day] = known, known**2 / k
        mean, variance = (stream.folded(x.swapaxes(0, 1)) for x in (mean, variance))
        missing = np.isnan(mean[0]).any(-1)[: self.observed.days] & ~np.isnan(stream.counts).all(-1)
        if missing.any():
            counted = np.flatnonzero(~np.isnan(mean[0]).any(-1))
            raise InputError(
                f"'{stream.name}' was observed on day {int(np.argmax(missing))}, but the model counts it on days "
                f"{', '.join(map(str, counted[:4]))} …; put each count on such a day, and NaN on the others"
            )
        # Nothing is expected: any dispersion is right.
        with np.errstate(divide="ignore", invalid="ignore"):
            return mean, np.where(variance > 0, mean**2 / variance, 1.0)
