"""The derivative of tallies by flips: a run, the agents on whom the choice falls, and each one's world."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lpmppl._compat import Messenger
from lpmppl.effects.handlers.flips import Flip, Flips, Scores, Stakes
from lpmppl.effects.handlers.held import BEFORE, slopes
from lpmppl.effects.handlers.record import Record
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.internals.streams import stream, uniform
from lpmppl.effects.ops import simulate
from lpmppl.inference.results import day_by_day
from lpmppl.inference.run import playing
from lpmppl.models.model import Model
from lpmppl.typing import State

__all__ = ["ROWS", "Answer", "Direct", "Learnt", "Question", "by_row", "expanded", "flipped", "learn"]

ROWS = 5_000_000
"""The most agents, over all flips, that are simulated at once."""

_LEAST = 4
"""The fewest flips at a site that matters."""

_FLOOR = 0.2
"""The least weight of a part of a run, of the mean one: what was learnt from few flips may be wrong."""

_PERIODS = 6
"""Parts of a run, in each of which what a flip comes to is learnt by itself."""


@dataclass(frozen=True)
class Question:
    """A tally of a model and how it is read, with everything that stays the same in all runs.

    Args:
        model: the society.
        theta: its parameters' values.
        names: the parameters with respect to which derivatives are taken.
        of: the tally.
        read: what of the tally's series is asked for, (T, …, G) to (…, M).
        days: how many days.
        seed: the seed of the agents' chance.
        acts: interventions: name, value and day.
    """

    model: Model
    theta: Mapping[str, float]
    names: Sequence[str]
    of: str
    read: Callable[[np.ndarray], np.ndarray]
    days: int
    seed: int
    acts: Sequence[Sequence[Any]] = ()

    def playing(
        self, chance: int, *inside: Messenger, first: int = 0, last: int | None = None
    ) -> AbstractContextManager[Record]:
        """The handlers of a run, or of its days `first` to `last`."""
        acts = [act for act in self.acts if first <= act[2] < (self.days if last is None else last)]
        return playing(self.model, self.seed, chance, acts, DiscreteTime(), inside=inside)

    def values(self, *, differentiated: bool = False) -> dict[str, Tensor]:
        device = self.model.population.device
        return {
            n: torch.tensor(x, device=device, requires_grad=differentiated and n in self.names)
            for n, x in self.theta.items()
        }

    def days_from(self, theta: Mapping[str, Tensor], state: State, first: int, last: int) -> State:
        """Simulate from day `first` to day `last`."""
        return simulate(self.model.day(theta), state, torch.tensor(float(first)), torch.tensor(float(last)))

    def run(self, theta: Mapping[str, Tensor], chance: int, *inside: Messenger) -> Record:
        """Play all days with these values of parameters, and give the record of them."""
        with self.playing(chance, *inside) as record:
            self.days_from(theta, self.model.initial(theta), 0, self.days)
        return record

    def series(self, record: Record) -> np.ndarray:
        """The tally on every day, shape (T, …, G), zero before it was counted."""
        return day_by_day(record.series[self.of], self.days)

    def weights(self, shape: Sequence[int]) -> np.ndarray:
        """What is asked for, as weights of a series of shape (T, …, G) in which it is linear: shape (M, T, G)."""
        days, groups = shape[0], shape[-1]
        weight = np.zeros((self.read(np.zeros(shape)).shape[-1], days, groups))
        for day in range(days):
            for g in range(groups):
                one = np.zeros(shape)
                one[day, ..., g] = 1.0
                weight[:, day, g] = self.read(one)
        return weight


@dataclass
class Learnt:
    """What earlier draws say of where flips matter.

    Attributes:
        flips: by site, how many.
        periods: by site, the weight of each part of the run.
        first: how many flips to spread evenly over the sites that are found, where nothing has been learnt.
    """

    flips: Mapping[str, int]
    periods: Mapping[str, np.ndarray] = field(default_factory=dict)
    first: int = 0

    def weight(self, site: str, step: int, days: int) -> float:
        return float(self.periods[site][_period(step, days)]) if site in self.periods else 1.0


@dataclass
class Answer:
    """What one draw says.

    Attributes:
        value: derivatives, shape (M, P).
        base: what was asked for in the run without flips, shape (M,).
        parts: by site, the step of every flip and what it comes to for each unit at stake, over days and strata, shape
            (P,).
        at_stake: by site, what is at stake in each part of the run.
    """

    value: np.ndarray
    base: np.ndarray
    parts: Mapping[str, list[tuple[int, np.ndarray]]]
    at_stake: Mapping[str, np.ndarray]


def flipped(question: Question, chance: int, learnt: Learnt) -> Answer:
    """Estimate derivatives from one run and flips in it.

    Args:
        question: what is asked.
        chance: which draw of the agents' chance.
        learnt: how many flips at each site, and where.
    """
    stakes = Stakes()
    with torch.no_grad():
        base = question.series(question.run(question.values(), chance, stakes))
    points, shares = _points(question, chance, stakes, learnt)
    theta = question.values(differentiated=True)
    wrt = {name: theta[name] for name in question.names}
    direct = Direct(question.of)
    scores = Scores(points, wrt, question.seed, chance)
    question.run(theta, chance, direct, scores)
    value = direct.derivatives(question, base, wrt)
    whole = question.read(base)
    parts: dict[str, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for flip, series in _worlds(question, chance, scores.flips):
        difference = question.read(series) - whole
        alone = flip.weight * flip.tempered * np.array([flip.score[name] for name in question.names])
        share = shares[flip.site] / learnt.weight(flip.site, flip.step, question.days)
        value = value + share * difference[:, None] * alone[None, :]
        parts[flip.site].append((flip.step, difference.sum() * alone))
    at_stake = {site: _by_period(per_step, question.days) for site, per_step in stakes.by_site.items()}
    return Answer(value, whole, parts, at_stake)


def learn(question: Question, answers: Sequence[Answer], flips: int) -> Learnt:
    """Spread flips over sites and over the run by what earlier draws say: more where their parts vary more.

    Every draw is unbiased whatever it is spread by, since that is settled before it begins.

    Args:
        question: what is asked.
        answers: what earlier draws said; none before the first.
        flips: how many flips in all.
    """
    if not answers:
        return Learnt({}, {}, flips)
    total = np.mean([answer.value.sum(0) for answer in answers], 0)
    scale = np.where(np.abs(total) > 0, np.abs(total), np.inf)  # what has no effect needs no flips
    need: dict[str, float] = {}
    periods: dict[str, np.ndarray] = {}
    for site in {site for answer in answers for site in answer.parts}:
        found = [(step, alone / scale) for answer in answers for step, alone in answer.parts.get(site, [])]
        at_stake = np.mean([answer.at_stake.get(site, np.zeros(_PERIODS)) for answer in answers], 0)
        square = np.array([float((x**2).sum()) for _, x in found])
        where = np.array([_period(step, question.days) for step, _ in found])
        whole = float(square.mean()) if len(square) else 0.0
        if not whole:
            continue
        each = np.array([(square[where == k].sum() + whole) / ((where == k).sum() + 1) for k in range(_PERIODS)])
        periods[site] = np.sqrt(each) + _FLOOR * math.sqrt(whole)
        need[site] = float((at_stake * periods[site]).sum())
    most = sum(need.values())
    # One flip where none has mattered so far, lest what is rare be missed.
    counts = {site: 1 for answer in answers for site in answer.parts}
    counts |= {site: max(_LEAST, round(flips * x / most)) for site, x in need.items()}
    return Learnt(counts, periods)


def _points(
    question: Question, chance: int, stakes: Stakes, learnt: Learnt
) -> tuple[dict[tuple[str, int], Tensor], dict[str, float]]:
    """Where the choice falls: evenly spread over what is at stake at each site, in the order of steps.

    Returns:
        points within each step, and what a flip of stake 1 counts at each site.
    """
    points: dict[tuple[str, int], Tensor] = {}
    shares = {}
    for site, per_step in stakes.by_site.items():
        count = max(_LEAST, learnt.first // len(stakes.by_site)) if learnt.first else learnt.flips.get(site, 0)
        if not count:
            continue
        steps = sorted(per_step)
        plain = np.array([per_step[step] for step in steps])
        weight = np.array([learnt.weight(site, step, question.days) for step in steps])
        ends = np.cumsum(plain * weight)
        jitter = uniform(torch.arange(count), stream(question.seed, f"{site}/points"), chance).numpy()
        where = (np.arange(count) + jitter) / count * ends[-1]
        at = np.minimum(np.searchsorted(ends, where), len(steps) - 1)
        shares[site] = float(ends[-1]) / count
        for k, group in itertools.groupby(range(count), key=lambda j: at[j]):
            inside = [(where[j] - (ends[k] - plain[k] * weight[k])) / weight[k] for j in group]
            points[site, steps[k]] = torch.tensor(inside, dtype=torch.float64)
    return points, shares


def _worlds(question: Question, chance: int, flips: Sequence[Flip]) -> Iterator[tuple[Flip, np.ndarray]]:
    """Simulate the flips' worlds, those of close steps together: gives each with its series, shape (T, G)."""
    order = sorted(flips, key=lambda flip: flip.step)
    rows = max(1, ROWS // question.model.population.size)
    for begin in range(0, len(order), rows):
        batch = order[begin : begin + rows]
        with torch.no_grad():
            yield from zip(batch, _batch(question, chance, batch), strict=True)


def _batch(question: Question, chance: int, flips: Sequence[Flip]) -> np.ndarray:
    """The series of each flip's world, shape (K, T, G): before the first flip they are one."""
    theta, first, last = question.values(), max(0, flips[0].step), question.days
    handler = Flips(flips)
    if first == 0:
        with question.playing(chance, handler) as record:
            question.days_from(theta, expanded(question.model.initial(theta), len(flips)), 0, last)
    else:
        with question.playing(chance, last=first) as earlier:
            state = question.days_from(theta, question.model.initial(theta), 0, first)
        with question.playing(chance, handler, first=first) as record:
            question.days_from(theta, expanded(state, len(flips)), first, last)
        _put_before(record, earlier, question.of)
    return by_row(question.series(record), len(flips))


def by_row(series: np.ndarray, rows: int) -> np.ndarray:
    """A series of shape (T, G) or (T, rows, G) as one for each row: (rows, T, G)."""
    wide = series if series.ndim > 2 else series[:, None]
    return np.broadcast_to(wide, (wide.shape[0], rows, wide.shape[-1])).swapaxes(0, 1)


def _put_before(record: Record, earlier: Record, of: str) -> None:
    """Let a record's series begin with those of an earlier one."""
    if (old := earlier.series.get(of)) is None:
        return
    new = record.series.setdefault(of, old)
    if new is not old:
        new.days, new.entries = old.days + new.days, old.entries + new.entries


def expanded(state: State, rows: int) -> State:
    """The state with a leading dimension of rows, which share its memory."""
    return {k: x if x.dim() > 1 else x.expand(rows, *x.shape) for k, x in state.items()}


class Direct(Messenger):
    """Keep what of a tally depends on the parameters where everything that chance decides is held."""

    def __init__(self, of: str) -> None:
        super().__init__()
        self.of = of
        self.entries: dict[int, Tensor] = {}
        self.stock = False

    def _pyro_post_tally(self, msg: Any) -> None:
        time, _, name = msg["args"][0].partition("/")
        if name == self.of:
            self.entries[int(float(time[2:]))] = msg["value"] * msg["args"][4]
            self.stock = msg["args"][5]

    def asked(self, question: Question, base: np.ndarray) -> Tensor:
        """The M things asked for, with their derivative: shape (M,)."""
        weight, days = question.weights(base.shape), list(self.entries)
        # What counts who is in a state stands until it is counted again.
        each = np.add.reduceat(weight, days, 1) if self.stock else weight[:, days]
        entries = torch.stack([self.entries[day].reshape(-1) for day in days]).cpu()
        return (torch.from_numpy(each) * entries).sum((1, 2))

    def derivatives(self, question: Question, base: np.ndarray, wrt: Mapping[str, Tensor]) -> np.ndarray:
        """Derivatives of what is asked for, shape (M, P)."""
        asked = list(self.asked(question, base))
        return np.stack([slopes(x, wrt).numpy() if x.requires_grad else np.zeros(len(wrt)) for x in asked])


def _period(step: int, days: int) -> int:
    return 0 if step == BEFORE else min(_PERIODS - 1, step * _PERIODS // days)


def _by_period(per_step: Mapping[int, float], days: int) -> np.ndarray:
    out = np.zeros(_PERIODS)
    for step, x in per_step.items():
        out[_period(step, days)] += x
    return out
