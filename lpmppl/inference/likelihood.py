"""How likely it was that as many events happened each day as were seen, by guided runs, many at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from lpmppl.effects.handlers.guided import Guided, Observations
from lpmppl.effects.handlers.reported import Reported
from lpmppl.effects.handlers.stratified import each, mapped
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError, nearest
from lpmppl.inference.checks import alone, checked, whole
from lpmppl.inference.differences import takes_rows
from lpmppl.inference.flipping import ROWS, Question, expanded
from lpmppl.inference.run import drawn, playing
from lpmppl.inference.seen import by_stratum
from lpmppl.inference.side_by_side import in_batches
from lpmppl.models.model import Model

__all__ = ["Guide", "likelihood", "with_shares"]


@dataclass(frozen=True)
class Guide:
    """Guided runs of a model, a row each where the model takes rows, and else one by one.

    Args:
        model: the society.
        series: by hazard site, the number of events on each day, NaN where it wasn't seen, or of reports.
        days: how many days.
        seed: the seed of all chance.
        acts: interventions: name, value and day.
    """

    model: Model
    series: Observations
    days: int
    seed: int = 0
    acts: Sequence[Sequence[Any]] = ()

    def __call__(
        self,
        values: Sequence[Mapping[str, float]],
        draws: Sequence[int],
        initial: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> tuple[Tensor, Tensor]:
        """Run once for each setting of all parameters.

        Args:
            values: the parameters of each run, R of them.
            draws: which draw of chance each has.
            initial: by yes-or-no site before the first step, to how many it falls in each run, of shape (R,).
        Returns:
            the log-weight of how it began, and that of the whole run, each float64 of shape (R,).
        Raises:
            InputError: for a hazard site that there isn't.
        """

        def piece(k: slice) -> tuple[Tensor, Tensor]:
            return self._together(values[k], draws[k], {n: x[k] for n, x in initial.items()})

        found = in_batches(piece, len(values), self.rows(values), self.model.population, self.days)
        began, log_weight = zip(*found, strict=True)
        return torch.cat(began), torch.cat(log_weight)

    def rows(self, values: Sequence[Mapping[str, float]]) -> int:
        """How many runs with these parameters the model takes at once."""
        names = differing(values)
        sides = [{n: one[n] for n in names} for one in values]
        asked = Question(self.model, values[0], (), "", lambda x: x, self.days, self.seed, self.acts)
        if len(values) < 2 or not takes_rows(asked, sides):
            return 1
        return max(1, ROWS // self.model.population.size)

    def _together(
        self, values: Sequence[Mapping[str, float]], draws: Sequence[int], initial: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        rows, names, device = len(values), differing(values), self.model.population.device
        draw: Any = draws[0] if rows == 1 else torch.tensor(draws, device=device).reshape(-1, 1)
        guided = Guided(with_shares(self.series, values), self.seed, draw, initial)
        with torch.no_grad(), playing(self.model, self.seed, draw, self.acts, DiscreteTime(), inside=[guided]):
            theta = {
                n: torch.tensor([one[n] for one in values], device=device).reshape(-1, 1)
                if n in names
                else torch.tensor(x, device=device)
                for n, x in values[0].items()
            }
            state = self.model.initial(theta)
            began = guided.log_weight
            state = expanded(state, rows) if rows > 1 else state
            simulate(self.model.day(theta), state, torch.tensor(0.0), torch.tensor(float(self.days)))
        for site, name, counts in each(self.series):
            if site not in guided.steps:
                raise InputError(nearest("hazard site", site, guided.steps))
            # Reports of one step may be of events of another, which must be met.
            count_any = isinstance(counts, Reported)
            never = [k for k, x in enumerate(counts) if (x > 0 or count_any) and k not in guided.steps[site]]
            if never:
                met = ", ".join(map(str, sorted(guided.steps[site])[:4]))
                seen = [*counts][never[0]]
                raise InputError(
                    f"{seen:g} events of '{name}' were seen in step {never[0]}, in which nobody is at that site: the "
                    f"model comes to it in steps {met}, …; give those their counts, and NaN or 0 the others; reports "
                    "must be of a site that it comes to in every step"
                )
        return began.cpu().reshape(-1), guided.log_weight.cpu().reshape(-1)


def with_shares(series: Observations, values: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Observations in which a share of reports that is a parameter is a number for each run.

    Raises:
        InputError: for a parameter that there isn't, or isn't a probability.
    """

    def known(site: str, reports: Any) -> Any:
        if isinstance(reports, Reported) and isinstance(name := reports.share, str):
            if name not in values[0]:
                raise InputError(nearest("parameter that is a share of reports", name, values[0]))
            shares = torch.tensor([one[name] for one in values], dtype=torch.float64)
            if bool(((shares <= 0) | (shares > 1)).any()):
                bad = float(shares[(shares <= 0) | (shares > 1)][0])
                raise InputError(
                    f"parameter {name}, the share of '{site}' that is reported, is {bad:g}: set it to a probability, "
                    "or give it a prior on 0 to 1"
                )
            return replace(reports, share=shares if len(values) > 1 else shares[0])
        if isinstance(reports, Reported) and isinstance(reports.share, Tensor) and reports.share.dim():
            raise InputError(
                f"the share of '{site}' that is reported has the shape {tuple(reports.share.shape)}; give a number, or "
                "the name of a parameter"
            )
        return reports

    return mapped(series, known)


def differing(values: Sequence[Mapping[str, float]]) -> list[str]:
    """The parameters that aren't the same in all settings."""
    return [n for n, x in values[0].items() if any(one[n] != x for one in values)]


def likelihood(
    model: Model,
    observed: Observations,
    draws: int = 64,
    seed: int = 0,
    *,
    set: Mapping[str, float] | None = None,
    interventions: Sequence[tuple[str, float | str, int]] = (),
) -> xr.Dataset:
    r"""The log-likelihood of each day's number of events, the mean over guided runs of the weight of each.

    .. math:: \hat L = \frac1D \sum_{d=1}^D w_d, \qquad \mathbb E\, \hat L = P(k_1, \dots, k_T \mid \theta)

    Every run has as many events each day as were seen, to whom hazards and chance say (`lpmppl.effects.handlers.
    guided`).

    Args:
        model: the society.
        observed: by hazard site, such as "infection", the number of events on each day from the first on, NaN where it
            wasn't seen, or how many were `lpm.Reported`; or those of each stratum, as an xarray DataArray over `day`
            and strata of the model.
        draws: how many guided runs, 2 or more.
        seed: the seed of all chance.
        set: values of parameters, by name; the others are at their defaults.
        interventions: `(name, value, day)`: what was done.
    Returns:
        `log_weight` over `draw`; the attrs `log_likelihood`, with the standard error of its estimate `se`, and
        `effective_draws`, :math:`(\sum w)^2 / \sum w^2`. It is minus infinity where no run could be as was seen.
    Raises:
        InputError: for a site that there isn't, a series that isn't of counts, or a number that can't be used.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> seen = {"infection": [10, 12, 9]}
    >>> likely, not_so = (
    ...     likelihood(model, seen, draws=8, set={"initial_infected": 0.05, "beta": b}).attrs["log_likelihood"]
    ...     for b in (0.15, 0.6)
    ... )
    >>> likely > not_so
    True
    """
    alone("a likelihood")
    draws = whole("draws", draws, 2)
    series = Guided(by_stratum(model, observed)).observations
    days = max(len(counts) for counts in series.values())
    fixed, acts = checked(model, max(1, days), seed, set or {}, interventions, None, "")
    (values,) = drawn(model, fixed, None, int(seed))
    _, logs = Guide(model, series, days, int(seed), acts)([values] * draws, range(draws))
    return _dataset(logs.numpy(), int(seed))


def _dataset(logs: np.ndarray, seed: int) -> xr.Dataset:
    most = logs.max()
    weights = np.exp(logs - most) if math.isfinite(most) else np.zeros(len(logs))
    mean = weights.mean()
    return xr.Dataset({"log_weight": ("draw", logs)}, {"draw": np.arange(len(logs))}).assign_attrs(
        log_likelihood=float(most + np.log(mean)) if mean else -math.inf,
        se=float(weights.std(ddof=1) / math.sqrt(len(logs)) / mean) if mean else math.nan,
        effective_draws=float(weights.sum() ** 2 / (weights**2).sum()) if mean else 0.0,
        draws=len(logs),
        seed=seed,
    )
