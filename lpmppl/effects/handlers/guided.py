"""Guided simulation: every day as many events as were seen, to whom chance and hazards say, weighed by how likely."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers.held import place_of
from lpmppl.effects.internals.counts import chosen, log_probability
from lpmppl.effects.internals.streams import stream, uniform
from lpmppl.errors import InputError, LpmError

__all__ = ["Guided"]


class Guided(Messenger):
    r"""Force the number of events of a step to what was seen, and weigh the run by the probability of that number.

    With :math:`p_i = 1 - e^{-h_i}` the chances of those at risk given the state, the weight is

    .. math:: \log w = \sum_t \log P\Big(\sum_i y_{it} = k_t \,\Big|\, p_t\Big)

    and who it happens to is drawn from the law of the events given their number, both exactly. What isn't seen, such as
    recoveries, is simulated as ever. So :math:`\mathbb E\, w` is the probability of all that was seen, and runs
    weighted by w are the society conditioned on it. At a site that is guided, steps that weren't seen are drawn by
    chance of their own: resistances that have met a hazard say no more of what comes. Given the path the weight has its
    derivative by the parameters. It goes inside `ExogenousNoise`, and the work is that of some passes over everybody
    for each standard deviation of the count, so that it is for some 100,000 agents.

    Args:
        observations: by hazard site, how many events there were in each step from the first on, NaN where that wasn't
            seen.
        seed: the seed of who it happens to.
        draw: which draw of that.
    Attributes:
        log_weight: the log-weight so far, float64; minus infinity once a number couldn't be, after which nothing is
            forced.
        sites: the hazard sites that were met.
    Raises:
        InputError: for a series that isn't of whole numbers, 0 or more.
        LpmError: where the hazard is of several worlds or draws: guide one.
    """

    reads_sparse = True

    def __init__(self, observations: Mapping[str, Sequence[float]], seed: int = 0, draw: int = 0) -> None:
        super().__init__()
        if not isinstance(observations, Mapping) or not all(isinstance(site, str) for site in observations):
            raise InputError(f"{observations!r} was given; give series by hazard site, such as {{'infection': [0, 2]}}")
        self.observations = {site: _counts(site, series) for site, series in observations.items()}
        if not any(self.observations.values()):
            raise InputError("nothing was observed; give series by hazard site, such as {'infection': [0, 2, 3]}")
        self.seed, self.draw = seed, draw
        self.log_weight: Tensor = torch.zeros((), dtype=torch.float64)
        self.sites: set[str] = set()

    def _pyro_sample(self, msg: Message) -> None:
        exposure = msg["fn"]
        if msg["done"] or msg["value"] is not None or not isinstance(exposure, Exposure):
            return
        infer = msg["infer"] or {}
        site, step = place_of(infer, msg["name"])
        self.sites.add(site)
        if site not in self.observations:
            return
        if len(exposure.batch_shape) > 1:
            raise LpmError(
                f"site '{site}' has shape {tuple(exposure.batch_shape)}: Guided conditions one run; guide one world, "
                "and each draw by itself"
            )
        series, p = self.observations[site], torch.where(exposure.at_risk, -torch.expm1(-exposure.met), 0.0)
        uniforms = self._uniforms(site, step, infer["agents"])
        seen = 0 <= step < len(series) and not math.isnan(series[step]) and bool(torch.isfinite(self.log_weight))
        log = log_probability(p, int(series[step])) if seen else torch.zeros(())
        self.log_weight = self.log_weight + log
        if seen and bool(torch.isfinite(log)):
            msg["value"] = chosen(p.detach(), int(series[step]), uniforms)
        else:
            msg["value"] = next(uniforms) < p.detach()
        msg["done"] = msg["stop"] = True

    def _uniforms(self, site: str, step: int, ids: Tensor) -> Iterator[Tensor]:
        """One uniform for each agent, again and again."""
        attempt = 0
        while True:
            yield uniform(ids, stream(self.seed, f"{site}/guided"), self.draw, step, attempt)
            attempt += 1


def _counts(site: str, series: Any) -> list[float]:
    try:
        counts = [float(x) for x in ([series] if isinstance(series, str) else series)]
    except (TypeError, ValueError) as e:
        raise InputError(f"what was observed of '{site}' can't be read: {series!r}; give a number for each step") from e
    for day, x in enumerate(counts):
        if not math.isnan(x) and (x < 0 or not x.is_integer()):
            raise InputError(f"{x:g} events of '{site}' in step {day}: give whole numbers, 0 or more, or NaN if unseen")
    return counts
