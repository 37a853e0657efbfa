"""Guided simulation: every day as many events as were seen, to whom chance and hazards say, weighed by how likely."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers.held import BEFORE, place_of
from lpmppl.effects.handlers.noise import base_of
from lpmppl.effects.handlers.reported import Allotting, Reported, counts_of
from lpmppl.effects.handlers.stratified import Series, Stratified
from lpmppl.effects.internals.counts import Uniforms, chosen, log_probability
from lpmppl.effects.internals.segments import differentiated
from lpmppl.effects.internals.streams import stream, uniform
from lpmppl.effects.tape import on_tape
from lpmppl.errors import InputError, LpmError

__all__ = ["Guided", "Observations"]

Observations = Mapping[str, Sequence[float] | Reported | Stratified]
"""By hazard site, how many events there were in each step, or how many were reported, of all agents or by stratum."""


class Guided(Messenger):
    r"""Force the number of events of a step to what was seen, and weigh the run by the probability of that number.

    With :math:`p_i = 1 - e^{-h_i}` the chances of those at risk given the state, the weight is

    .. math:: \log w = \sum_t \log P\Big(\sum_i y_{it} = k_t \,\Big|\, p_t\Big)

    and who it happens to is drawn from the law of the events given their number, both exactly. What isn't seen, such as
    recoveries, is simulated as ever. So :math:`\mathbb E\, w` is the probability of all that was seen, and runs
    weighted by w are the society conditioned on it. At a site that is guided, steps that weren't seen are drawn by
    chance of their own: resistances that have met a hazard say no more of what comes. Given the path the weight has its
    derivative by the parameters. Several draws are guided at once, a row each on dimension -2, with parameters of their
    own where these are given in rows; a row is the run of its draw alone. It goes inside `ExogenousNoise`. The work is
    that of some passes over everybody a step, of one where all that are at risk meet the same hazard.

    Events may be seen by stratum (`Stratified`): then there are as many in each, and weights are multiplied.

    Where events were reported, with a probability and after a delay (`Reported`), the number of reports is forced: of
    which steps' events they are is drawn as the run goes on, and weighed by how likely that is; events that are never
    reported come by chance beside those that are.

    To how many a yes-or-no site falls that stands before the first step, such as who brings the infection, can be given
    too: a run is then weighed by the probability of that number as well.

    Args:
        observations: by hazard site, how many events there were in each step from the first on, NaN where that wasn't
            seen, or how many were `Reported`; or either of each stratum, `Stratified`.
        seed: the seed of who it happens to.
        draw: which draw of that, a number, or integers of shape (R, 1) for R rows, as `ExogenousNoise` has it.
        initial: by yes-or-no site before the first step, to how many it falls, a number, or integers of shape (R,).
    Attributes:
        log_weight: the log-weight so far, float64 of shape (), or (R,) with rows; minus infinity once a number couldn't
            be, after which nothing is forced in that row.
        steps: by hazard site, the steps in which it was met.
    Raises:
        InputError: for a series that isn't of whole numbers, 0 or more, or draws of another shape.
        LpmError: where the hazard is of several worlds, or has rows that aren't those of the draws.
    """

    reads_sparse = True

    def __init__(
        self,
        observations: Observations,
        seed: int = 0,
        draw: int | Tensor = 0,
        initial: Mapping[str, int | Tensor] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        if not isinstance(observations, Mapping) or not all(isinstance(site, str) for site in observations):
            raise InputError(f"{observations!r} was given; give series by hazard site, such as {{'event': [0, 2]}}")
        self.observations = {
            site: series if isinstance(series, Reported | Stratified) else counts_of(site, series)
            for site, series in observations.items()
        }
        if not any(len(series) for series in self.observations.values()):
            raise InputError("nothing was observed; give series by hazard site, such as {'event': [0, 2, 3]}")
        if isinstance(draw, Tensor) and (draw.dim() != 2 or draw.shape[-1] != 1 or draw.is_floating_point()):
            raise InputError(
                f"draws of shape {tuple(draw.shape)} and {draw.dtype} were given; give a number, or integers of shape "
                "(R, 1) for R rows"
            )
        self.seed, self.draw, self.initial = seed, draw, initial
        lead = draw.shape[:1] if isinstance(draw, Tensor) else ()
        self.log_weight: Tensor = torch.zeros(lead, dtype=torch.float64)
        self.steps: dict[str, set[int]] = {}
        self._allotting: dict[str, Allotting] = {}

    def _pyro_sample(self, msg: Message) -> None:
        exposure, infer = msg["fn"], msg["infer"] or {}
        if msg["done"] or msg["value"] is not None:
            return
        site, step = place_of(infer, msg["name"])
        if step == BEFORE and site in self.initial:
            self._begin(msg, site)
            return
        if not isinstance(exposure, Exposure):
            return
        self.steps.setdefault(site, set()).add(step)
        if site not in self.observations:
            return
        shape = self._shape(site, exposure.batch_shape, infer)
        met = exposure.met
        p = torch.where(exposure.at_risk, -torch.expm1(-met), 0.0).expand(shape).reshape(-1, shape[-1])
        if not differentiated(met) and not on_tape():
            # The exposure would work it out row by row; the hazards of all rows are at hand.
            exposure._memo.setdefault("after", exposure.before + torch.where(exposure.at_risk, met, 0.0))

        series, ids = self.observations[site], infer["agents"]
        if isinstance(series, Stratified):
            event = self._free(p, self._uniforms(site, step, ids))
            for label, members, part in series.parts(shape[-1]):
                event[:, members] = self._seen(p[:, members], f"{site} of {label}", part, step, ids[members])
        else:
            event = self._seen(p, site, series, step, ids)
        msg["value"] = event.reshape(shape)
        msg["done"] = msg["stop"] = True

    def _seen(self, p: Tensor, name: str, series: Series, step: int, ids: Tensor) -> Tensor:
        """Let as many of some agents' events happen as one series says."""
        if isinstance(series, Reported):
            return self._reported(p, name, series, step, ids)
        uniforms = self._uniforms(name, step, ids)
        if 0 <= step < len(series) and not math.isnan(series[step]):
            return self._forced(p, int(series[step]), uniforms)
        return self._free(p, uniforms)

    def _begin(self, msg: Message, site: str) -> None:
        """Let a yes-or-no site before the first step fall to as many as was said."""
        law, infer = base_of(msg["fn"]), msg["infer"] or {}
        if not isinstance(law, dist.Bernoulli) or infer.get("agents") is None:
            raise LpmError(f"site '{site}' is {type(law).__name__}: initial= is for agents' yes-or-no sites")
        shape = self._shape(site, msg["fn"].batch_shape, infer)
        p, count = law.probs.double().expand(shape).reshape(-1, shape[-1]), self.initial[site]
        event = self._forced(p, count, self._uniforms(site, BEFORE, infer["agents"]))
        msg["value"] = event.reshape(shape).to(law.probs.dtype)
        msg["done"] = msg["stop"] = True

    def _forced(self, p: Tensor, count: int | Tensor, uniforms: Uniforms) -> Tensor:
        """Weigh the rows whose past can have been, and let the events be so many in those where they can."""
        if not p.shape[-1]:
            never = torch.as_tensor(count, device=self.log_weight.device).expand(len(p)) > 0
            self.log_weight = self.log_weight.masked_fill(never.reshape(self.log_weight.shape), -math.inf)
            return p > 0
        weight = self.log_weight.to(p.device).reshape(-1)
        rows = torch.isfinite(weight).nonzero().reshape(-1)
        each = torch.as_tensor(count, device=p.device).expand(len(p))
        weight = weight.index_add(0, rows, log_probability(p[rows], each[rows]))
        self.log_weight = weight.reshape(self.log_weight.shape)
        able = torch.isfinite(weight)
        if bool(able.all()):
            return chosen(p.detach(), each, uniforms)
        event, rows = self._free(p, uniforms), able.nonzero().reshape(-1)
        event[rows] = chosen(p.detach()[rows], each[rows], lambda k, *more: uniforms(rows[k], *more))
        return event

    def _reported(self, p: Tensor, site: str, series: Reported, step: int, ids: Tensor) -> Tensor:
        """Let as many events be reported as reports were drawn to be of this step, and others come beside.

        Of agents' chances p, r p is to have an event that is reported, and (1 - r) p / (1 - r p) one that isn't, given
        that none is.
        """
        if site not in self._allotting:
            self._allotting[site] = new = series.allotting(site, self.seed, self.draw)
            if not new.possible:
                self.log_weight = torch.full_like(self.log_weight, -math.inf)
        allotting, beside = self._allotting[site], self._uniforms(site, step, ids, "unreported")
        if not 0 <= step < len(series) or not float(allotting.within[step]):
            return self._free(p, self._uniforms(site, step, ids))
        if isinstance(series.share, str):
            raise InputError(
                f"the share of '{site}' that is reported is the name of a parameter, '{series.share}': give a number, "
                "or ask lpm.likelihood or lpm.calibrate_exactly, which know its value"
            )
        share = torch.as_tensor(series.share, dtype=p.dtype, device=p.device).reshape(-1, 1)
        if len(share) not in (1, len(p)):
            raise InputError(
                f"{len(share)} shares of reports of '{site}' were given for {len(p)} rows; give one for each"
            )
        rate = p * share * allotting.within[step].to(p.device)
        count, log_factor = allotting.step(step, p.detach().sum(-1).cpu())
        self.log_weight = self.log_weight + log_factor.to(self.log_weight.device).reshape(self.log_weight.shape)
        known = self._forced(rate, count.to(p.device), self._uniforms(site, step, ids))
        rest = torch.where(rate < 1, (p - rate) / (1 - rate).clamp(min=1e-300), 0.0)
        return known | self._free(rest, beside)

    def _uniforms(self, site: str, step: int, ids: Tensor, what: str = "guided") -> Uniforms:
        """Chance by the numbers of r rows, that of an attempt, and the places of some agents: shape (r, n)."""

        def draws(rows: Tensor, attempt: int, places: Tensor | None) -> Tensor:
            draw = self.draw[rows.to(self.draw.device)] if isinstance(self.draw, Tensor) else self.draw
            draw = int(draw) if isinstance(draw, Tensor) and len(rows) == 1 else draw
            whose = ids if places is None else ids[places]
            return uniform(whose, stream(self.seed, f"{site}/{what}"), draw, step, attempt).reshape(len(rows), -1)

        return draws

    def _free(self, p: Tensor, uniforms: Uniforms) -> Tensor:
        return uniforms(torch.arange(len(p), device=p.device), 0, None) < p.detach()

    def _shape(self, site: str, given: tuple[int, ...], infer: Message) -> tuple[int, ...]:
        """The shape of the site's events, with the rows of the draws on dimension -2."""
        given = tuple(given)
        if not isinstance(self.draw, Tensor):
            if math.prod(given[:-1]) == 1:
                return given
            remedy = "guide one world; give draws of shape (R, 1) to guide R rows"
        elif infer.get("rows") is not None:
            remedy = "guide a site of some agents in one run at a time"
        else:
            rows = len(self.draw)
            if math.prod(given[:-2]) == 1 and given[-2:-1] in ((), (1,), (rows,)):
                return (*given[:-2], rows, given[-1])
            remedy = f"guide one world, in {rows} rows as there are draws"
        raise LpmError(f"site '{site}' has shape {given}: Guided conditions one run, or a row for each draw; {remedy}")
