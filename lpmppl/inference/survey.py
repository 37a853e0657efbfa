"""A survey as codes: its respondents' attributes and choices, drawn into folds, and what archetypes of them lose."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from lpmppl.errors import InputError, nearest
from lpmppl.models.archetypes import Bins, Lookup

__all__ = ["Column", "Survey", "read"]

_FINEST = 128
"""The most intervals of a number among which edges are looked for."""


@dataclass(frozen=True)
class Column:
    """An attribute as codes: intervals of a number in their order with the missing last, or labels."""

    name: str
    code: np.ndarray
    levels: int
    missing: bool
    ordered: bool
    labels: tuple[str, ...] = ()
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    shown: tuple[str, ...] = ()
    """Its labels in the order in which they are shown."""
    known: tuple[str, ...] = ()
    """What the population calls these."""

    def source(self, groups: np.ndarray) -> tuple[np.ndarray, Bins | Lookup]:
        """The groups of codes in the order in which they are shown, and what the attribute is made of in words."""
        if self.low is None or self.high is None:
            first: dict[int, list[str]] = {}
            for label in self.shown:
                first.setdefault(int(groups[self.labels.index(label)]), []).append(label)
            rank = {g: k for k, g in enumerate(first)}
            names: dict[str, tuple[str, ...]] = {}
            for members in first.values():
                name = _gathered(members, self.ordered)
                while name in names:
                    name += " (others)"
                names[name] = tuple(self.known[self.shown.index(m)] for m in members)
            return np.array([rank[int(g)] for g in groups]), Lookup(self.name, names)
        cuts = np.flatnonzero(np.diff(groups[: self.levels]))
        ends = np.concatenate([self.low, self.high])
        is_whole = bool((ends % 1 == 0).all() and (abs(ends) < 2**53).all())
        edges = [_edge(float(self.high[c]), float(self.low[c + 1]), is_whole) for c in cuts]
        labels = _intervals(edges, is_whole)
        return groups, Bins(self.name, tuple(edges), labels, "unknown" if self.missing else None)


def _gathered(members: list[str], ordered: bool) -> str:
    """What labels are called together."""
    if ordered and len(members) > 2:
        return f"{members[0]} to {members[-1]}"
    if len(members) > 4:
        return f"{', '.join(members[:3])} or {len(members) - 3} others"
    return members[0] if len(members) == 1 else f"{', '.join(members[:-1])} or {members[-1]}"


def _edge(below: float, above: float, is_whole: bool) -> float:
    """A short number in (below, above], near the middle; a whole one between whole numbers.

    >>> _edge(39.0, 40.0, True), _edge(0.3312, 0.3419, False)
    (40, 0.34)
    """
    middle = below + (above - below) / 2
    if is_whole:
        return math.ceil(middle) if middle > below else int(above)
    short = (float(f"{middle:.{digits}g}") for digits in range(1, 18))
    return next((edge for edge in short if below < edge <= above), above)


def _intervals(edges: Sequence[float], is_whole: bool) -> tuple[str, ...]:
    """What the intervals between edges are called.

    >>> _intervals([40, 65], True), _intervals([0.5], False)
    (('under 40', '40–64', '65 and over'), ('under 0.5', '0.5 and over'))
    """
    if not edges:
        return ("known",)
    between = [(low, high - 1 if is_whole else high) for low, high in pairwise(edges)]
    middle = [_say(low) if low == last else f"{_say(low)}–{_say(last)}" for low, last in between]
    return (f"under {_say(edges[0])}", *middle, f"{_say(edges[-1])} and over")


def _say(number: float) -> str:
    """A number in words; a year is written without a comma."""
    return f"{number:,.15g}" if abs(number) >= 10_000 else f"{number:.15g}"


@dataclass(frozen=True)
class Survey:
    """Respondents as codes: one row for all that are alike."""

    columns: list[Column]
    code: np.ndarray
    """Of each attribute, shape (U, attributes)."""
    choice: np.ndarray
    """Shape (U,)."""
    each: np.ndarray
    """What a respondent weighs, 1 on average, shape (U,)."""
    weight: np.ndarray
    """What respondents in each fold weigh, shape (folds, U)."""
    options: tuple[str, ...]
    shown: list[int]
    """The options' places in the order in which they are shown."""

    @property
    def respondents(self) -> float:
        return float(self.weight.sum())

    def mean(self, losses: np.ndarray) -> float:
        """The mean over respondents of what they lose in their folds, shape (folds, U)."""
        return float((self.weight * losses).sum() / self.weight.sum())

    def error(self, losses: np.ndarray) -> float:
        """The standard error of that mean."""
        spread = self.weight * self.each * (losses - self.mean(losses)) ** 2
        return float(np.sqrt(spread.sum()) / self.weight.sum())

    def cells(self, maps: dict[int, np.ndarray]) -> tuple[np.ndarray, int]:
        """Each row's archetype, and how many there are."""
        cell, size = np.zeros(len(self.choice), dtype=np.int64), 1
        for a, groups in maps.items():
            cell = cell * (int(groups.max()) + 1) + groups[self.code[:, a]]
            size *= int(groups.max()) + 1
        return cell, size

    def shares(self, cell: np.ndarray, size: int, weight: np.ndarray) -> np.ndarray:
        """Shares of options by cell, shape (cells, A), smoothed by A respondents of the overall shares."""
        options = len(self.options)
        flat = np.bincount(cell * options + self.choice, weights=weight, minlength=size * options)
        count = flat.reshape(size, options)
        overall = (count.sum(0) + 1) / (count.sum() + options)
        return (count + options * overall) / (count.sum(1, keepdims=True) + options)

    def held_out(self, maps: Sequence[dict[int, np.ndarray]]) -> np.ndarray:
        """What each row loses in each fold under the groups found without that fold, shape (folds, U)."""
        lost = []
        for mine, groups in zip(self.weight, maps, strict=True):
            cell, size = self.cells(groups)
            shares = self.shares(cell, size, self.weight.sum(0) - mine)
            lost.append(-np.log(shares[cell, self.choice]))
        return np.stack(lost)


def read(
    respondents: object, choice: str, attributes: Sequence[str] | None, folds: int, weight: str | None, seed: int
) -> Survey:
    """Check and code a survey; nothing depends on the order of its rows and columns, or on what labels are called."""
    if not isinstance(respondents, pd.DataFrame):
        raise InputError(f"respondents must be a DataFrame of pandas, but {type(respondents).__name__} was given")
    known = [str(c) for c in respondents.columns]
    if len(set(known)) < len(known):
        twice = next(c for c in known if known.count(c) > 1)
        raise InputError(f"respondents have two columns '{twice}': rename one")
    frame = respondents.set_axis(known, axis=1)
    if isinstance(attributes, str) or not isinstance(attributes, Iterable | None):
        raise InputError(f"attributes={attributes!r} was given; give a list of columns, such as [{attributes!r}]")
    taken = [c for c in known if c not in (choice, weight)] if attributes is None else list(attributes)
    for name in [choice, *([] if weight is None else [weight]), *taken]:
        if name not in known:
            raise InputError(nearest("column of respondents", str(name), known))
    if not taken or len({*taken, choice, weight}) < len(taken) + 2:
        raise InputError(
            f"choice='{choice}', weight={weight!r} and attributes={taken} were given; name each column once, and one "
            "attribute or more"
        )
    mass = np.ones(len(frame)) if weight is None else _weights(frame[weight])
    frame, mass = frame[mass > 0], mass[mass > 0]
    if not len(frame):
        raise InputError(f"respondents have no rows of a weight above 0 (of {len(respondents)}): give one or more")
    counted = bool((mass % 1 == 0).all())
    number = round(mass.sum()) if counted else len(mass)
    if number >= 10**9:
        raise InputError(f"the weights count {number:,} respondents: give fewer than 1,000,000,000")
    if number < folds:
        raise InputError(f"folds={folds} was given for {number} respondents; give {number} at most, and 2 or more")
    options, chosen, shown = _options(frame[choice], choice, mass, number)
    columns = [_column(frame[c], c, chosen, len(options), mass, number) for c in sorted(taken)]
    each = np.ones(len(mass)) if counted else mass / mass.mean()
    rows, place = np.unique(
        np.stack([*(c.code for c in columns), chosen, each], 1).astype(float), axis=0, return_inverse=True
    )
    count = np.bincount(place.reshape(-1), weights=mass if counted else None).round().astype(np.int64)
    rng, drawn = np.random.default_rng(seed), []
    for fold in range(folds):
        size = round(number * (fold + 1) / folds) - round(number * fold / folds)
        drawn.append(rng.multivariate_hypergeometric(count, size, method="marginals"))
        count = count - drawn[-1]
    code = rows[:, :-2].astype(np.int64)
    drawing = np.stack(drawn) * rows[:, -1]
    return Survey(columns, code, rows[:, -2].astype(np.int64), rows[:, -1], drawing, options, shown)


def _weights(column: pd.Series) -> np.ndarray:
    """Weights, all of them finite and none below 0."""
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        raise InputError(f"weight column '{column.name}' holds {column.dtype}; give numbers")
    mass: np.ndarray = column.to_numpy(dtype=float, na_value=math.nan)
    if (bad := ~(np.isfinite(mass) & (mass >= 0))).any():
        raise InputError(
            f"weight column '{column.name}' has {mass[bad][0]:g} in row {np.flatnonzero(bad)[0]}; give numbers, 0 or "
            "more"
        )
    return mass


def _labels(column: pd.Series, what: str) -> tuple[list[str], np.ndarray, bool]:
    """The labels of a column, the code of each row, and whether the labels have an order of their own."""
    if (gone := int(column.isna().sum())) > 0:
        raise InputError(f"{what} is missing in {gone} rows: give a label, such as 'unknown', or leave these rows out")
    if isinstance(column.dtype, pd.CategoricalDtype):
        return [str(c) for c in column.cat.categories], column.cat.codes.to_numpy().astype(np.int64), column.cat.ordered
    if pd.api.types.infer_dtype(column) == "boolean":
        return ["no", "yes"], column.to_numpy(dtype=np.int64), True
    labels, code = np.unique(column.astype(str).to_numpy(dtype=object).astype(str), return_inverse=True)
    return labels.tolist(), code, False


def _options(
    column: pd.Series, choice: str, mass: np.ndarray, number: int
) -> tuple[tuple[str, ...], np.ndarray, list[int]]:
    """What was chosen among, the commonest first, each row's choice, and the order in which options are shown."""
    labels, code, _ = _labels(column, f"choice '{choice}'")
    weight = np.bincount(code, weights=mass, minlength=len(labels))
    first = [k for k in sorted(range(len(labels)), key=lambda k: (-weight[k], labels[k])) if weight[k] > 0]
    if len(first) < 2:
        raise InputError(f"everybody chose '{labels[first[0]]}' in column '{choice}': there is nothing to explain")
    if len(first) >= number:
        raise InputError(f"choice '{choice}' has {len(first)} labels for {number} respondents: give labels they share")
    rank = np.full(len(labels), -1)
    rank[first] = np.arange(len(first))
    return tuple(labels[k] for k in first), rank[code], [int(rank[k]) for k in range(len(labels)) if weight[k] > 0]


def _column(column: pd.Series, name: str, chosen: np.ndarray, options: int, mass: np.ndarray, number: int) -> Column:
    """An attribute as codes."""
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if pd.api.types.is_numeric_dtype(column) and kind not in ("boolean", "complex"):
        return _number(column, name, mass)
    if not isinstance(column.dtype, pd.CategoricalDtype) and kind not in ("string", "boolean", "empty"):
        raise InputError(
            f"attribute '{name}' holds {kind} values as {column.dtype}; give numbers, words, categories or Booleans"
        )
    labels, code, ordered = _labels(column, f"attribute '{name}'")
    known = ("0", "1") if kind == "boolean" else tuple(labels)
    weight = np.zeros((len(labels), options))
    np.add.at(weight, (code, chosen), mass)
    if (seen := int((weight.sum(1) > 0).sum())) < 2:
        raise InputError(f"attribute '{name}' is '{labels[code[0]]}' in every row: leave it out")
    if seen >= number:
        raise InputError(f"attribute '{name}' has {seen} labels for {number} respondents: give labels that they share")
    # Labels are coded by how many respondents have them, so that what they are called doesn't matter.
    order = (
        range(len(labels))
        if ordered
        else sorted(range(len(labels)), key=lambda k: (-weight[k].sum(), *weight[k], labels[k]))
    )
    rank = np.argsort(list(order))
    coded = tuple(labels[k] for k in order)
    return Column(name, rank[code], len(labels), False, ordered, coded, shown=tuple(labels), known=known)


def _number(column: pd.Series, name: str, mass: np.ndarray) -> Column:
    """A number as the interval in which it lies, of intervals that weigh about the same where it has many values."""
    values: np.ndarray = column.to_numpy(dtype=float, na_value=math.nan)
    if np.isinf(values).any():
        raise InputError(f"attribute '{name}' has infinite numbers: give finite ones, or nan where it isn't known")
    has = ~np.isnan(values)
    distinct, place = np.unique(values[has], return_inverse=True)
    if len(distinct) + (not has.all()) < 2:
        same = f"{distinct[0]:g}" if len(distinct) else "missing"
        raise InputError(f"attribute '{name}' is {same} in every row: leave it out")
    bin_ = np.arange(len(distinct))
    if len(distinct) > _FINEST:
        weight = np.bincount(place, weights=mass[has])
        _, bin_ = np.unique(
            ((np.cumsum(weight) - weight / 2) / weight.sum() * _FINEST).astype(np.int64), return_inverse=True
        )
    levels = int(bin_[-1]) + 1
    code = np.full(len(values), levels)
    code[has] = bin_[place]
    starts = np.flatnonzero(np.diff(bin_, prepend=-1))
    low, high = distinct[starts], distinct[np.append(starts[1:], len(distinct)) - 1]
    return Column(name, code, levels, not bool(has.all()), True, low=low, high=high)
