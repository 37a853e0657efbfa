"""Which estimator a derivative is taken by, and its draws."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property

import numpy as np

from lpmppl._compat import Messenger
from lpmppl.effects.handlers.cuts import Cuts
from lpmppl.effects.handlers.held import Held
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.differences import Way, differences, either_value, slope
from lpmppl.inference.flipping import Answer, Question, flipped, learn
from lpmppl.inference.pathwise import Along, along_paths
from lpmppl.inference.readings import Reading
from lpmppl.inference.relaxing import RELAXATIONS, relaxation, relaxed
from lpmppl.inference.scoring import scored
from lpmppl.models.model import Model

__all__ = ["ESTIMATORS", "Estimation", "check_seen", "check_timed", "cuts_of", "warn_of_plateau"]

ESTIMATORS = ("auto", "differences", "pathwise", "flips", "score", *RELAXATIONS)

_FEW, _PER_AGENT = 5, 10
"""Differences are the better of the two up to so many parameters, and up to one for so many agents.

The spread of differences falls with the number of agents, that of flips doesn't: docs/gradients.md.
"""

_WORK = 5_000_000
"""Agents times parameters from which a pass backwards is worth its program, if it is right."""

_PLATEAU = 0.02
"""The share of time at risk without hazard up to which a derivative along paths is taken for right."""

_FLOOR, _MOST, _AT_ONCE = 8, 1024, 8
"""The fewest and the most draws to a precision, and by how many times they may grow at once: few know their spread."""


class Estimation:
    """Derivatives of a question, draw by draw.

    Args:
        question: what is asked.
        estimator: what was asked for, one of `ESTIMATORS`.
        step: how far differences go to either side.
        flips: how many flips each draw has.
        tau: the temperature of the Gumbel-softmax.
    Attributes:
        by_chance: the estimator of the parameters that enter by a chance; empty where all have differences.
        cuts: the parameters that it doesn't see, with where they enter.
        each: derivatives, shape (D, M, P).
        typical: what was asked for, shape (D, M).
    Raises:
        InputError: where an estimator was asked for that isn't right for the model, or doesn't see a parameter.
    """

    def __init__(self, question: Question, estimator: str, step: float, flips: int, tau: float) -> None:
        self.question, self.flips, self.tau = question, flips, tau
        model, names = question.model, question.names
        self._along: list[Along] = []
        self._answers: list[Answer] = []
        self._idle: list[int] = []
        self.each = np.zeros((0, 0, 0))
        self.typical = np.zeros((0, 0))
        many = len(names) > max(_FEW, model.population.everybody / _PER_AGENT)
        self.by_chance = {"auto": "flips" if many else "", "differences": ""}.get(estimator, estimator)
        if estimator == "pathwise":
            check_timed(model, "ask for 'auto' or 'differences'")
        large = model.timed and len(names) * model.population.everybody >= _WORK
        if estimator == "pathwise" or (estimator == "auto" and large):
            self._look_along(insist=estimator == "pathwise")
        inside = relaxation(self.by_chance, tau=tau) if self.by_chance in RELAXATIONS else Held()
        self.cuts = self._along[0].unseen if self._along else cuts_of(question, inside) if self.by_chance else {}
        if estimator != "auto":
            check_seen(self.cuts, estimator, "leave it out of wrt, or ask for 'auto' or 'differences'")
        warn_of_plateau(self.plateau)
        self._seen = [n for n in names if n not in self.cuts] if self.by_chance else []
        self._others = [n for n in names if n not in self._seen]
        self._ways = [either_value(model, question.theta, n, step) for n in self._others]

    def elsewhere(self, model: Model, draws: int) -> Estimation:
        """So many draws of the same derivatives, by the same estimators, in another society."""
        other = copy(self)
        other.question = replace(self.question, model=model)
        other._along, other._answers, other._idle = [], [], []
        other.each, other.typical = np.zeros((0, 0, 0)), np.zeros((0, 0))
        other.extend(draws)
        return other

    def estimator_of(self, name: str) -> str:
        """The estimator that a parameter's derivative is taken by."""
        return self.by_chance if name in self._seen else "differences"

    @property
    def plateau(self) -> Mapping[str, float]:
        """Along paths, by hazard site, the share of time at risk without hazard."""
        return self._along[0].plateau if self._along else {}

    def extend(self, more: int) -> None:
        """Take more draws, two or more."""
        names, first = list(self.question.names), len(self.each)
        chances = range(first, first + more)
        middle = None
        if self._others:
            apart, middle = self._apart(chances)
        value, typical = self._of_seen(chances) if self._seen else (None, middle)
        assert typical is not None
        each = np.zeros((more, typical.shape[1], len(names)))
        if self._others:
            each[:, :, [names.index(n) for n in self._others]] = apart
        if value is not None:
            each[:, :, [names.index(n) for n in self._seen]] = value
        self.each = np.concatenate([self.each, each]) if first else each
        self.typical = np.concatenate([self.typical, typical]) if first else typical

    def sharpen(self, precision: float) -> None:
        """Draw on until the standard error of every derivative, in all, is at most a share of the largest."""
        if len(self.each) < _FLOOR:
            self.extend(max(2, _FLOOR - len(self.each)))
        while (factor := (self._error / precision) ** 2) > 1:
            draws = len(self.each)
            wanted = math.ceil(draws * min(factor, _AT_ONCE))
            if wanted > _MOST and draws >= _MOST // 2:
                warnings.warn(
                    f"after {draws} draws the standard error is {self._error:.2g} of the largest derivative, and "
                    f"precision={precision:g} would take some {draws * factor:,.0f}; ask for less, or for more agents",
                    stacklevel=3,
                )
                return
            self.extend(max(2, min(wanted, _MOST) - draws))

    @property
    def _error(self) -> float:
        """The largest standard error over the largest derivative, each by a deviation of its parameter's prior."""
        whole = self.each.sum(1) * self._scale
        largest = np.abs(whole.mean(0)).max()
        error = whole.std(0, ddof=1).max() / math.sqrt(len(whole))
        return float(error / largest) if largest else 0.0

    @cached_property
    def _scale(self) -> np.ndarray:
        return np.array([slope(self.question.model, self.question.theta, n) for n in self.question.names])

    def _apart(self, chances: range) -> tuple[np.ndarray, np.ndarray]:
        """Differences (D, M, P') of the parameters that have them, and values (D, M)."""
        question, reading, ways = self.question, self.question.read, self._ways
        if not isinstance(reading, Reading):
            found, base = differences(question, chances, ways)
            return found.transpose(0, 2, 1), base
        m = math.prod(reading.shape)
        both = replace(question, read=lambda series: np.concatenate([reading(series), series.reshape(-1)]))
        each, base = np.zeros((len(chances), len(ways), m)), np.zeros((len(chances), m))

        def look(draws: Sequence[int], asked: Sequence[int], joint: Sequence[Way] = ()) -> np.ndarray:
            """Take differences of some parameters in some draws, and say where they, and joint ways, move the tally."""
            found, typical = differences(both, [chances[d] for d in draws], [*(ways[k] for k in asked), *joint])
            each[np.ix_(draws, asked)], base[draws] = found[:, : len(asked), :m], typical[:, :m]
            return np.asarray(found[..., m:].any(-1))

        rest = list(range(len(chances)))
        if not chances.start:
            moved = look(rest[:1], range(len(ways)))
            self._idle, rest = np.flatnonzero(~moved[0]).tolist(), rest[1:]
        if rest:
            # What didn't move the tally so far is moved together: as long as nothing comes of that, of none of it.
            together = [_together([ways[k] for k in self._idle])] if self._idle else []
            busy = [k for k in range(len(ways)) if k not in self._idle]
            more = look(rest, busy, together)[:, len(busy) :]
            if again := [d for n, d in enumerate(rest) if more[n].any()]:
                typical = base[again]
                alone = look(again, self._idle)
                base[again] = typical
                self._idle = [k for n, k in enumerate(self._idle) if not alone[:, n].any()]
        return each.transpose(0, 2, 1), base

    def _of_seen(self, chances: range) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives (D, M, P') with respect to the parameters that it sees, and values (D, M)."""
        asked = replace(self.question, names=self._seen)
        if self.by_chance == "pathwise":
            done = len(self._along)
            self._along += [along_paths(self.question, c, look=False) for c in chances if c >= done]
            kept = [list(self.question.names).index(n) for n in self._seen]
            along = self._along[chances.start : chances.stop]
            return np.array([a.value[:, kept] for a in along]), np.array([a.base for a in along])
        if self.by_chance == "score":
            return scored(asked, chances)
        if self.by_chance in RELAXATIONS:
            return relaxed(asked, chances, self.by_chance, self.tau)
        for chance in chances:
            self._answers.append(flipped(asked, chance, learn(asked, self._answers, self.flips)))
        mine = self._answers[chances.start :]
        return np.array([a.value for a in mine]), np.array([a.base for a in mine])

    def _look_along(self, insist: bool) -> None:
        """Take the first draw along paths, and go on so where that is right, or somebody insists."""
        try:
            first = along_paths(self.question, 0)
        except LpmError:
            if insist:
                raise
            return
        if not insist and max(first.plateau.values(), default=0.0) > _PLATEAU:
            return
        self._along, self.by_chance = [first], "pathwise"


def _together(ways: Sequence[Way]) -> Way:
    """All of some ways at once."""
    above = {n: x for side, _, _ in ways for n, x in side.items()}
    below = {n: x for _, side, _ in ways for n, x in side.items()}
    return above, below, 1.0


def cuts_of(question: Question, inside: Messenger) -> dict[str, str]:
    """The parameters that enter a decision of the program, with where in it.

    Args:
        question: what is asked.
        inside: what the estimator makes of chance.
    """
    theta = question.values(differentiated=True)
    cuts = Cuts({name: theta[name] for name in question.names})
    with cuts:
        question.run(theta, 0, inside)
    return {name: cuts.of[name] for name in question.names if name in cuts.of}


def check_timed(model: Model, remedy: str) -> None:
    """Refuse derivatives along paths of a model whose events act in whole steps."""
    if not model.timed:
        raise InputError(
            f"the model {model.name} isn't one whose events act by their times (timed = True): derivatives along paths "
            f"would miss what acts in whole steps; {remedy}"
        )


def check_seen(cuts: Mapping[str, str], estimator: str, remedy: str) -> None:
    """Refuse an estimator that doesn't see where a parameter enters."""
    if cuts:
        name, where = next(iter(cuts.items()))
        raise InputError(
            f"parameter {name} enters a decision at {where}, which estimator='{estimator}' doesn't see; {remedy}"
        )


def warn_of_plateau(plateau: Mapping[str, float], stacklevel: int = 3) -> None:
    """Warn where derivatives along paths are biased."""
    for site, share in plateau.items():
        if share > _PLATEAU:
            warnings.warn(
                f"for {share:.0%} of their time at risk agents meet no hazard at site '{site}' any more: derivatives "
                "along paths miss those who escape for good; take estimator='differences'",
                stacklevel=stacklevel + 1,
            )
