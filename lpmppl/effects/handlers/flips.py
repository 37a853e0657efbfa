r"""Flips: what if one agent's chance had come out otherwise?

The measure-valued derivative (Heidergott and Vázquez-Abad, J. Optim. Theory Appl. 136, 2008) of the expectation of X,
with y the value of site i and v another one that it may have:

.. math:: \frac{\partial\, \mathbb E X}{\partial \theta} = \mathbb E \sum_i \sum_v
    \frac{\partial\, p_i(v)}{\partial \theta} \, \big( X\{y_i \to v\} - X \big)

It takes three passes. `Stakes` adds up how much is at stake at every site of a run; `Scores` plays the run again, takes
the agents on whom the choice fell, and says how the probability of their other outcome depends on the parameters;
`Flips` gives each of them its other outcome, in a world of its own, with everybody's chance as it was.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.cohorts import Cohort, Sparse, dense
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.fields import Field
from lpmppl.effects.handlers.held import Held, is_chance, place_of, slopes
from lpmppl.effects.handlers.noise import base_of, quantile
from lpmppl.effects.internals.streams import exponential, stream, uniform
from lpmppl.errors import LpmError

__all__ = ["Flip", "Flips", "Scores", "Stakes"]

_AT_ONCE = 32
"""Log-probabilities that are derived in one pass; what came before them is held until then."""


@dataclass
class Flip:
    """One agent's other outcome at a site.

    Attributes:
        site: the site's name.
        step: the number of the step.
        agent: the agent's global id, or the place among the site's values where it is no agent's.
        value: the other outcome.
        weight: what a difference of outcomes counts, the score and `tempered` aside.
        score: derivatives of the other outcome's log-probability, by parameter.
        hazard: the step's hazard, where the site is an event's.
        left: the fraction of the step left after the event, whichever side it is on; NaN until it is known.
        resistance: the cumulative hazard at which an event that is taken away comes after all.
    """

    site: str
    step: int
    agent: int
    value: float
    weight: float
    score: dict[str, float]
    hazard: float | None = None
    left: float = torch.nan
    resistance: float = torch.inf

    @property
    def tempered(self) -> float:
        """What the time within the step makes of the weight of an event: 1 but for great hazards.

        An event's time has the density :math:`h e^{-hs}` in the step; with h it changes by :math:`(1 - hs) e^{-hs}`.
        """
        if not self.hazard or math.isnan(self.left):
            return 1.0
        h = torch.tensor(self.hazard, dtype=torch.float64)
        return float((1 - h * (1 - self.left)) * torch.expm1(h) / h)


def _stakes(fn: Any, shape: torch.Size) -> Tensor:
    """How much is at stake for each of a site's values: float64, flat.

    For an event it is :math:`h e^{-h}`, what the probability changes by when the hazard grows in proportion; for a
    choice the variance; 1 for any other value that varies.
    """
    fn = base_of(fn)
    if isinstance(fn, Exposure):
        h = (fn.after - fn.before).double()
        stakes = h * torch.exp(-h)
    elif isinstance(fn, dist.Bernoulli):
        stakes = fn.probs.double() * (1 - fn.probs.double())
    elif isinstance(fn, dist.Categorical):
        stakes = 1 - (fn.probs.double() ** 2).sum(-1)
    else:
        try:
            stakes = (fn.variance != 0).double()
        except NotImplementedError:
            stakes = torch.ones((), dtype=torch.float64)
    return stakes.expand(shape).reshape(-1)


class Stakes(Messenger):
    """Add up what is at stake at every site in every step: `by_site[site][step]`."""

    reads_sparse = True

    def __init__(self) -> None:
        super().__init__()
        self.by_site: dict[str, dict[int, float]] = defaultdict(dict)

    def _pyro_post_sample(self, msg: Message) -> None:
        if is_chance(msg):
            site, step = place_of(msg["infer"], msg["name"])
            value = float(_stakes(msg["fn"], msg["value"].shape).sum())
            if value > 0:
                self.by_site[site][step] = value


class Scores(Held):
    """Take the flips on which the choice fell, with the derivatives of their other outcome's log-probability.

    Args:
        points: by site and step, where in the running sum of what is at stake the choice fell, increasing.
        parameters: the parameters, with `requires_grad`.
        seed: the seed of the other outcomes' chance.
        draw: which draw of the noise the run has.
    """

    def __init__(
        self,
        points: Mapping[tuple[str, int], Tensor],
        parameters: Mapping[str, Tensor],
        seed: int,
        draw: int = 0,
    ) -> None:
        super().__init__()
        self.points, self.parameters, self.seed, self.draw = points, parameters, seed, draw
        self._flips: list[Flip] = []
        self._awaiting: list[tuple[Flip, int]] = []
        self._pending: dict[str, list[tuple[Flip, Tensor]]] = defaultdict(list)

    @property
    def flips(self) -> list[Flip]:
        """The flips whose probabilities depend on the parameters."""
        for site in list(self._pending):
            self._derive(site)
        return self._flips

    def _met(self, msg: Message) -> None:
        if isinstance(msg["fn"], Left):
            self._know(msg["value"])
        elif is_chance(msg) and (key := place_of(msg["infer"], msg["name"])) in self.points:
            self._take(key, msg, msg["value"])

    def _know(self, left: Tensor | Sparse) -> None:
        """Keep the times of the events that are to be taken away."""
        for flip, place in self._awaiting:
            flip.left = float(_one(left, place))
        self._awaiting = []

    def _take(self, key: tuple[str, int], msg: Message, value: Tensor) -> None:
        site, step = key
        fn, infer, points = base_of(msg["fn"]), msg["infer"], self.points[key]
        stakes = _stakes(fn, value.shape)
        place = torch.searchsorted(stakes.cumsum(0), points.to(stakes.device)).clamp(max=stakes.shape[0] - 1)
        ids = infer.get("agents")
        ids = torch.arange(value.shape[-1], device=value.device) if ids is None else ids
        agent = ids[place]
        if isinstance(fn, Exposure):
            where = Cohort(place, value.shape)
            h = where.read(fn.hazard) if isinstance(fn.hazard, Tensor | Field) else torch.tensor(fn.hazard)
            h = (h * torch.as_tensor(fn.dt).reshape(())).double().expand(place.shape)
            happened = value[place]
            other = (~happened).double()
            log = torch.where(happened, -h, torch.log(-torch.expm1(-torch.where(happened, 1.0, h))))
            chance = torch.where(happened, torch.exp(-h), -torch.expm1(-h)).detach()
            again = fn.after[place] + exponential(agent, stream(self.seed, f"{site}/flip"), self.draw, step)
        else:
            other, log, chance = self._other(site, step, fn, value, place, agent)
        if not log.requires_grad:
            return
        weight = (chance / stakes[place]).tolist()
        for k, at in enumerate(place.tolist()):
            flip = Flip(site, step, int(agent[k]), float(other[k]), weight[k], {})
            if isinstance(fn, Exposure):
                flip.hazard = float(h[k].detach())
                if happened[k]:
                    flip.resistance = float(again[k])
                    self._awaiting.append((flip, at))
            self._pending[site].append((flip, log[k]))
        if len(self._pending[site]) >= _AT_ONCE:
            self._derive(site)

    def _other(
        self, site: str, step: int, fn: Any, value: Tensor, place: Tensor, agent: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The other outcomes of a site without a hazard, their log-probabilities and what each counts."""
        u = uniform(agent, stream(self.seed, f"{site}/flip"), self.draw, step)
        now = value.reshape(-1)[place]
        if isinstance(fn, dist.Bernoulli):
            p = fn.probs.expand(value.shape).reshape(-1)[place].double()
            other = (1.0 - now.double()).round()
            log = torch.where(other > 0, torch.log(p), torch.log1p(-p))
            return other, log, torch.exp(log).detach()
        if isinstance(fn, dist.Categorical):
            p = fn.probs.expand(*value.shape, -1).reshape(-1, fn.probs.shape[-1])[place].double()
            rest = p.detach().scatter(-1, now.long().unsqueeze(-1), 0.0)
            total = rest.sum(-1)
            other = (u.unsqueeze(-1) * total.unsqueeze(-1) >= rest.cumsum(-1)[..., :-1]).sum(-1)
            return other, torch.log(p.gather(-1, other.unsqueeze(-1)).squeeze(-1)), total
        with torch.no_grad():
            middle = torch.full((value.numel(),), 0.5, dtype=torch.float64, device=value.device)
            drawn = quantile(site, fn, middle.index_copy(0, place, u).reshape(value.shape))
            other = drawn.reshape(-1)[place]
        log = fn.log_prob(value.detach().reshape(-1).index_copy(0, place, other.to(value.dtype)).reshape(value.shape))
        return other.double(), log.expand(value.shape).reshape(-1)[place], torch.ones_like(u)

    def _derive(self, site: str) -> None:
        """Derive a site's log-probabilities that wait for it, all in one pass through what they share."""
        pending = self._pending.pop(site)
        logs = torch.stack([log.double() for _, log in pending])
        for (flip, _), score in zip(pending, self._scores(logs).tolist(), strict=True):
            flip.score = dict(zip(self.parameters, score, strict=True))
            for name, x in flip.score.items():
                if not math.isfinite(x):
                    raise LpmError(
                        f"site '{site}', step {flip.step}: the derivative of its probability with respect to {name} "
                        "isn't finite; take it at another value of the parameter"
                    )
            if any(score):
                self._flips.append(flip)

    def _scores(self, logs: Tensor) -> Tensor:
        """Derivatives of log-probabilities of shape (k,): (k, parameters)."""
        try:
            return slopes(logs, self.parameters, torch.eye(len(logs), dtype=logs.dtype))
        except RuntimeError:
            # Not every operation of a program can be derived for several at once.
            return torch.stack([slopes(log, self.parameters) for log in logs])


class Flips(Messenger):
    """Give each row of the leading dimension one agent's other outcome.

    It goes inside `ExogenousNoise`, around a simulation whose state has one row for every flip. An event that is taken
    away comes again when the agent's hazard reaches the resistance that the flip has for it.

    Args:
        flips: the flips, one for each row.
    Raises:
        LpmError: at a site whose agents aren't told apart by row.
    """

    reads_sparse = True

    def __init__(self, flips: Sequence[Flip]) -> None:
        super().__init__()
        self.flips = flips
        self._due: dict[tuple[str, int], list[int]] = defaultdict(list)
        for row, flip in enumerate(flips):
            self._due[flip.site, flip.step].append(row)
        self._taken: dict[str, dict[int, _Taken]] = defaultdict(dict)
        self._given: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def _pyro_post_sample(self, msg: Message) -> None:
        if isinstance(msg["fn"], Left):
            self._know(str(msg["infer"]["site"]).removesuffix(".left"), msg["value"])
            return
        if not is_chance(msg):
            return
        site, step = place_of(msg["infer"], msg["name"])
        fn, rows = base_of(msg["fn"]), self._due.get((site, step), [])
        if isinstance(fn, Exposure) and self._taken[site]:
            self._come_after_all(site, fn, msg)
        if not rows:
            return
        places = [self._place(msg["infer"], row) for row in rows]
        value = _of_rows(msg["value"], msg["infer"], len(self.flips))
        for row, place in zip(rows, places, strict=True):
            flip = self.flips[row]
            where = (row, place) if value.dim() > 1 else place
            value[where] = bool(flip.value) if value.dtype == torch.bool else flip.value
            if isinstance(fn, Exposure):
                if flip.value:
                    self._given[site].append((row, place))
                else:
                    self._taken[site][row] = _Taken(place, flip.resistance, _number(fn.episode, row, place))
        msg["value"] = value

    def _know(self, site: str, left: Tensor | Sparse) -> None:
        """Keep the times of the events that were given."""
        for row, place in self._given.pop(site, []):
            self.flips[row].left = float(_one(left, row * left.shape[-1] + place))

    def _come_after_all(self, site: str, fn: Exposure, msg: Message) -> None:
        """Let events that were taken away come in the step in which their new resistance is reached."""
        changes = {}
        for row, taken in self._taken[site].items():
            if _number(fn.episode, row, taken.place) != taken.episode:
                continue
            risk, before, after = (_at_row(x, row, taken.place) for x in (fn.at_risk, fn.before, fn.after))
            comes = bool(risk) and float(before) <= taken.resistance < float(after)
            if comes != bool(_at_row(msg["value"], row, taken.place)):
                changes[row, taken.place] = comes
        if changes:
            value = _of_rows(msg["value"], msg["infer"], len(self.flips))
            for where, comes in changes.items():
                value[where] = comes
            msg["value"] = value

    def _place(self, infer: Mapping[str, Any], row: int) -> int:
        """Where among a site's values a flip's agent is: in its row, or for some agents, among all of them."""
        flip, ids, rows = self.flips[row], infer.get("agents"), infer.get("rows")
        if ids is None:
            return flip.agent
        mine = ids == flip.agent
        if rows is not None:
            each = rows(torch.arange(len(self.flips)).reshape(-1, 1))
            mine = mine & (each == row)
        found = mine.nonzero().reshape(-1)
        if found.shape[0] != 1:
            raise LpmError(
                f"site '{flip.site}': agent {flip.agent} was met {found.shape[0]} times in its world, where once was "
                "expected; sample the site for a cohort of a mask that is in the state"
            )
        return int(found[0])


@dataclass(frozen=True)
class _Taken:
    """An event that was taken away from an agent, and from which cumulative hazard on it comes after all."""

    place: int
    resistance: float
    episode: int


def _of_rows(value: Tensor, infer: Mapping[str, Any], rows: int) -> Tensor:
    """A site's values with every row of its own; those of some agents are in rows already."""
    return value.clone() if infer.get("rows") is not None else value.expand(rows, value.shape[-1]).clone()


def _one(x: Tensor | Sparse, place: int) -> Tensor:
    """A value at a flat place."""
    if isinstance(x, Sparse):
        return x.read(Cohort(x.cohort.where.new_tensor([place]), x.shape))
    return x.reshape(-1)[place]


def _at_row(x: Tensor, row: int, place: int) -> Tensor:
    x = dense(x)
    return x[..., place] if x.dim() < 2 else x[row if x.shape[0] > 1 else 0, place]


def _number(x: Tensor | int, row: int, place: int) -> int:
    return int(_at_row(x, row, place)) if isinstance(x, Tensor) else x
