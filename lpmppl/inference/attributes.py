"""Attributes of archetypes from a survey: those, and those bins of them, that explain what respondents decide."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import xlogy

from lpmppl.errors import LpmError
from lpmppl.inference.checks import whole
from lpmppl.inference.survey import Survey, read
from lpmppl.models.archetypes import Bins, Lookup

__all__ = ["Attributes", "choose_attributes"]

_LEAF = 10
"""The fewest respondents of a leaf: fewer say little about what their like decide."""

_LEAVES = (10, 40)
"""The fewest respondents of a leaf of the reference: the better is taken."""

_TREES = 50
"""How many trees the reference has."""

_FILLED = 5
"""How many respondents an archetype has on average, at least, before the weakest are merged."""

_DOUBT = 0.05
"""How often attributes that mean nothing may be taken up because there are many of them."""


@dataclass(frozen=True)
class Attributes:
    """Attributes of archetypes, and what is lost by knowing no more of a person than its archetype.

    Losses are the mean of −log p over respondents, in nats: p is the probability of what a respondent chose, given
    those in other folds. Each fold's edges and groups are found without the respondents they are judged by. Which
    attributes there are, and α, was chosen by these same losses, which makes them a little too low.
    """

    static: dict[str, Bins | Lookup]
    """What each attribute is made of, by its name, the most important first: for `Archetypes(people, static)`."""
    options: tuple[str, ...]
    """What respondents chose among."""
    shares: np.ndarray
    """The share of each option by archetype, shape (K, A), each smoothed by A respondents of the overall shares."""
    loss: float
    """Of these archetypes."""
    loss_of_one: float
    """Of one archetype for all, which knows nothing of anybody."""
    loss_of_reference: float
    """The least of these archetypes' and of two forests', which know all attributes given and have no limit on K.

    A forest is 50 extremely randomised trees by entropy, each of all respondents, with 10 or 40 to a leaf at least.
    """
    importance: dict[str, float]
    """By how much the loss grows where an attribute is left out and the rest is chosen anew; 0 for one not chosen."""

    @property
    def size(self) -> int:
        """The number K of archetypes."""
        return len(self.shares)

    @property
    def explained(self) -> float:
        """The share of what the reference explains that these archetypes keep; nan where it explains nothing."""
        most = self.loss_of_one - self.loss_of_reference
        return (self.loss_of_one - self.loss) / most if most > 0 else math.nan


def choose_attributes(
    respondents: pd.DataFrame,
    choice: str,
    attributes: Sequence[str] | None = None,
    *,
    most: int = 100,
    folds: int = 5,
    weight: str | None = None,
    seed: int = 0,
) -> Attributes:
    r"""Choose archetypes' attributes and bins by what explains decisions, with the fidelity that it costs.

    A classification tree is grown by entropy: its thresholds are edges of `Bins`, and labels that no split separates
    are gathered by a `Lookup`. The archetypes are every combination of these, :math:`K = \prod_a K_a`, so the tree is
    pruned by its cost and complexity until each has five respondents on average; then the two groups of an attribute
    that are worth least apart are made one, again and again. A step's :math:`\alpha` is the log-loss that it adds by
    archetype that it saves. Among steps with :math:`K \le` `most` the one of the largest :math:`\alpha` is taken whose
    held-out log-loss is within one standard error (of the difference, over respondents) of the least.

    An attribute whose omission costs no more than one standard error is left out, the least missed first. Every pair of
    attributes is tried by itself too, so that two which matter only together are found among others. Of a number with
    more than 128 values, edges are looked for between 128 intervals of equal weight.

    Args:
        respondents: a row for each respondent, or for each cell of them with `weight`. The columns are called as the
            population's variables. Numbers may be missing. Words, categories and Booleans may not; their labels are
            the population's own, and Booleans are its 0 and 1.
        choice: the column with what each chose, of two labels or more.
        attributes: the columns to choose from; all but `choice` and `weight` by default.
        most: the most archetypes.
        folds: into how many parts respondents are drawn, of equal size, to judge each by the others.
        weight: the column of weights. Whole numbers count respondents, who are drawn into folds one by one; others
            weigh one respondent each, and only their ratios matter.
        seed: the seed of the folds and the trees.
    Returns:
        the attributes, ready for `Archetypes`, with the losses.
    Raises:
        InputError: for columns that can't be used, or numbers out of range.
        LpmError: where scikit-learn isn't installed.
    Source:
        Breiman, Friedman, Olshen and Stone, Classification and Regression Trees (1984), chapters 3 and 11; labels are
        ordered for the tree as Coppersmith, Hong and Hosking, Data Mining and Knowledge Discovery 3 (1999), do.

    >>> rng = np.random.default_rng(0)
    >>> age, shoe = rng.integers(18, 90, 2_000), rng.integers(36, 46, 2_000)
    >>> masks = np.where(rng.random(2_000) < np.where(age < 40, 0.3, 0.8), "mask", "no mask")
    >>> found = choose_attributes(pd.DataFrame({"age": age, "shoe": shoe, "masks": masks}), "masks")
    >>> found.static["age"].labels, list(found.static), found.size
    (('under 40', '40 and over'), ['age'], 2)
    """
    most, folds, seed = whole("most", most, 1), whole("folds", folds, 2), whole("seed", seed, 0)
    survey = read(respondents, choice, attributes, folds, weight, seed)
    try:
        import sklearn.tree  # noqa: F401
    except ImportError as e:
        raise LpmError("choosing attributes needs scikit-learn: pip install 'lpmppl[survey]'") from e

    @cache
    def judge(use: tuple[int, ...]) -> _Judged:
        return _judged(survey, use, most, seed)

    held = _searched(survey, len(survey.columns), judge)
    maps = held.path.groups(held.alpha)
    without = {a: judge(tuple(b for b in held.use if b != a)).loss - held.loss for a in held.use}
    importance = {c.name: without[a] if a in maps else 0.0 for a, c in enumerate(survey.columns)}
    order = sorted(maps, key=lambda a: -importance[survey.columns[a].name])
    static, final = {}, {}
    for a in order:
        final[a], static[survey.columns[a].name] = survey.columns[a].source(maps[a])
    shares = survey.shares(*survey.cells(final), survey.weight.sum(0))
    least = min([held.loss, *(_forest(survey, leaf, seed) for leaf in _LEAVES)])
    return Attributes(
        static,
        tuple(survey.options[k] for k in survey.shown),
        shares[:, survey.shown],
        held.loss,
        survey.mean(survey.held_out([{}] * folds)),
        least,
        dict(sorted(importance.items(), key=lambda item: -item[1])),
    )


def _positions(survey: Survey, a: int, weight: np.ndarray) -> np.ndarray:
    """Where the codes of an attribute stand in the order in which the tree splits them; the missing in the middle."""
    column = survey.columns[a]
    if column.ordered:
        middle = np.searchsorted(np.cumsum(np.bincount(survey.code[:, a], weights=weight)), weight.sum() / 2)
        return np.append(np.arange(column.levels), min(int(middle), column.levels - 1))
    shares = survey.shares(survey.code[:, a], column.levels, weight)
    here = np.bincount(survey.code[:, a], weights=weight, minlength=column.levels)
    centred = shares - here @ shares / here.sum()
    axis = np.linalg.svd(np.sqrt(here)[:, None] * centred, full_matrices=False)[2][0]
    return np.argsort(np.argsort(centred @ axis * np.sign(axis[0] or 1.0), kind="stable"), kind="stable")


def _features(
    survey: Survey, use: Sequence[int], weight: np.ndarray
) -> tuple[np.ndarray, list[int], list[np.ndarray | None]]:
    """What trees are grown of, shape (U, features), the attribute of each feature, and codes' positions in it."""
    columns, of = list[np.ndarray](), list[int]()
    positions: list[np.ndarray | None] = []
    for a in use:
        positions.append(place := _positions(survey, a, weight))
        columns.append(place[survey.code[:, a]])
        of.append(a)
        if survey.columns[a].missing:
            positions.append(None)
            columns.append(survey.code[:, a] == survey.columns[a].levels)
            of.append(a)
    return np.stack(columns, 1).astype(np.float32), of, positions


class _Path:
    """Ever coarser groups of some attributes, with the cost of an archetype at which each is reached."""

    def __init__(self, survey: Survey, use: Sequence[int], weight: np.ndarray, seed: int) -> None:
        self.survey = survey
        self.steps = [(0.0, _grown(survey, use, weight, seed) if use else {})]
        alpha, maps = self.steps[0]
        cell, size = survey.cells(maps)
        options = len(survey.options)
        flat = np.bincount(cell * options + survey.choice, weights=weight, minlength=size * options) / weight.sum()
        table = flat.reshape(*(int(g.max()) + 1 for g in maps.values()), options)
        while maps:
            link, a, i, j = min(self._links(table, maps))
            axis, alpha = list(maps).index(a), max(alpha, link)
            table = np.delete(table, j, axis) + _at(axis, i, table.shape[axis] - 1, table.ndim) * table.take([j], axis)
            groups = np.where(maps[a] == j, i, maps[a])
            maps = {**maps, a: groups - (groups > j)}
            if table.shape[axis] == 1:
                table = table.squeeze(axis)
                del maps[a]
            self.steps.append((alpha, maps))

    def _links(self, table: np.ndarray, maps: dict[int, np.ndarray]) -> Iterator[tuple[float, int, int, int]]:
        """What each two groups that may be merged are worth apart, by archetype; the first number of two is less."""
        for axis, a in enumerate(maps):
            column, size = self.survey.columns[a], table.shape[axis]
            pairs = list(combinations(range(size), 2))
            if column.ordered and size > 2:
                pairs = [(i, i + 1) for i in range(size - 1 - column.missing)]
            first, second = (table.take(k, axis) for k in zip(*pairs, strict=True))
            other = tuple(k for k in range(table.ndim - 1) if k != axis)
            lost = (_lost(first + second) - _lost(first) - _lost(second)).sum(other)
            both = ((first.sum(-1) > 0) & (second.sum(-1) > 0)).sum(other)
            k = int((worth := lost / np.maximum(both, 1)).argmin())
            yield max(float(worth[k]), 0.0), a, *pairs[k]

    def groups(self, alpha: float) -> dict[int, np.ndarray]:
        """The group of each code, by attribute, where an archetype costs alpha; one in a single group is left out."""
        return next(maps for cost, maps in reversed(self.steps) if cost <= alpha)

    def prunings(self, most: int) -> Iterator[float]:
        """Costs of an archetype, increasing, one for every step that makes no more than so many; the last makes one."""
        costs = sorted({cost for cost, _ in self.steps})
        for low, high in pairwise(costs):
            if math.prod(int(g.max()) + 1 for g in self.groups(low).values()) <= most:
                yield math.sqrt(low * high)
        yield math.inf


def _at(axis: int, i: int, size: int, dims: int) -> np.ndarray:
    """1 at a place of an axis, 0 elsewhere."""
    return (np.arange(size) == i).reshape([size if k == axis else 1 for k in range(dims)])


def _lost(table: np.ndarray) -> np.ndarray:
    """What a cell's respondents lose by its shares, in nats: from counts of shape (…, A)."""
    return xlogy(table.sum(-1), table.sum(-1)) - xlogy(table, table).sum(-1)


def _grown(survey: Survey, use: Sequence[int], weight: np.ndarray, seed: int) -> dict[int, np.ndarray]:
    """The group of each code, by attribute, as a tree separates them that is pruned until its archetypes are filled."""
    from sklearn.tree import DecisionTreeClassifier

    features, of, positions = _features(survey, use, weight)
    least = min(max(_LEAF / survey.respondents, 0.002), 0.25)
    tree = DecisionTreeClassifier(criterion="entropy", min_weight_fraction_leaf=least, random_state=seed % 2**32)
    on = weight > 0
    grown = tree.fit(features[on], survey.choice[on], sample_weight=weight[on]).tree_
    cuts: dict[tuple[int, int], float] = {}
    for node, worth in enumerate(_worth(grown)):
        if worth > 0:
            f = int(grown.feature[node])
            key = f, math.floor(grown.threshold[node])
            cuts[key] = max(worth, cuts.get(key, 0.0))
    room = min(max(survey.respondents / _FILLED, 16), 2_000)
    for alpha in [0.0, *sorted(set(cuts.values()))]:
        alive: dict[int, list[int]] = {}
        for (f, cut), worth in cuts.items():
            if worth > alpha:
                alive.setdefault(of[f], []).extend([] if positions[f] is None else [cut])
        missing = {a: survey.columns[a].missing for a in alive}
        if math.prod(len(c) + 1 + missing[a] for a, c in alive.items()) <= room:
            break
    place = {a: p for a, p in zip(of, positions, strict=True) if p is not None}
    maps = {}
    for a in sorted(alive):
        groups = np.searchsorted(sorted(alive[a]), place[a][: survey.columns[a].levels])
        maps[a] = np.append(groups, len(alive[a]) + 1) if missing[a] else groups
    return maps


def _worth(tree: Any) -> np.ndarray:
    """The cost of a leaf at which each split is pruned, weakest link first; 0 for leaves."""
    left: list[int] = tree.children_left.tolist()
    right: list[int] = tree.children_right.tolist()
    alone = tree.impurity * tree.weighted_n_node_samples / tree.weighted_n_node_samples[0]
    under, leaves, inner = alone.copy(), np.ones(len(alone)), np.array(left) >= 0
    parent = np.full(len(alone), -1)
    for t in np.flatnonzero(inner)[::-1].tolist():
        under[t], leaves[t] = under[left[t]] + under[right[t]], leaves[left[t]] + leaves[right[t]]
        parent[[left[t], right[t]]] = t
    link = np.full(len(alone), np.inf)
    link[inner] = (alone - under)[inner] / (leaves[inner] - 1)
    worth, alpha = np.zeros(len(alone)), 0.0
    while inner[0]:
        t = int(link.argmin())
        alpha = max(alpha, float(link[t]))
        more, fewer, below = alone[t] - under[t], leaves[t] - 1, [t]
        while below:
            node = below.pop()
            if inner[node]:
                worth[node], inner[node], link[node] = alpha, False, np.inf
                below += [left[node], right[node]]
        while t >= 0:
            under[t], leaves[t] = under[t] + more, leaves[t] - fewer
            if inner[t]:
                link[t] = (alone[t] - under[t]) / (leaves[t] - 1)
            t = int(parent[t])
    return worth


@dataclass(frozen=True)
class _Judged:
    """The pruning that was chosen for some attributes."""

    use: tuple[int, ...]
    path: _Path
    alpha: float
    losses: np.ndarray
    loss: float
    alive: frozenset[int]


def _judged(survey: Survey, use: tuple[int, ...], most: int, seed: int) -> _Judged:
    """Choose by one standard error how strongly a tree of some attributes is pruned."""
    everybody = survey.weight.sum(0)
    path = _Path(survey, use, everybody, seed)
    paths = [_Path(survey, use, everybody - mine, seed) for mine in survey.weight]
    weakest = [next(p.prunings(most)) for p in paths]
    tried = []
    for alpha in path.prunings(most):
        maps = [p.groups(max(alpha, w)) for p, w in zip(paths, weakest, strict=True)]
        losses = survey.held_out(maps)
        alive = frozenset(path.groups(alpha)).union(*maps)
        tried.append(_Judged(use, path, alpha, losses, survey.mean(losses), alive))
    best = min(tried, key=lambda j: j.loss)
    return next(j for j in reversed(tried) if j.loss - best.loss <= survey.error(j.losses - best.losses))


def _searched(survey: Survey, number: int, judge: Callable[[tuple[int, ...]], _Judged]) -> _Judged:
    """Choose the attributes: from all, or from a pair that tells more than all, until each is worth its place."""

    def better(new: _Judged, old: _Judged, among: int) -> bool:
        errors = NormalDist().inv_cdf(1 - _DOUBT / among)
        return old.loss - new.loss > errors * survey.error(old.losses - new.losses)

    held = judge(tuple(range(number)))
    pairs = [judge(pair) for pair in combinations(range(number), 2)]
    if pairs and better(best := min(pairs, key=lambda j: j.loss), held, len(pairs)):
        held = best
        while rest := [a for a in range(number) if a not in held.use]:
            more = min((judge(tuple(sorted((*held.use, a)))) for a in rest), key=lambda j: j.loss)
            if not better(more, held, len(rest)):
                break
            held = more
    held = judge(tuple(sorted(held.alive)))
    while held.use:
        fewer = min((judge(tuple(b for b in held.use if b != a)) for a in held.use), key=lambda j: j.loss)
        if fewer.loss - held.loss > survey.error(fewer.losses - held.losses):
            break
        held = fewer
    return held


def _forest(survey: Survey, leaf: int, seed: int) -> float:
    """The held-out loss of a forest of extremely randomised trees, smoothed as a leaf of theirs is."""
    from sklearn.ensemble import ExtraTreesClassifier

    lost, options = [], len(survey.options)
    for mine in survey.weight:
        weight = survey.weight.sum(0) - mine
        on, least = weight > 0, min(leaf / survey.respondents, 0.5)
        features, _, _ = _features(survey, range(len(survey.columns)), weight)
        forest = ExtraTreesClassifier(
            _TREES, criterion="entropy", max_features=None, min_weight_fraction_leaf=least, random_state=seed % 2**32
        ).fit(features[on], survey.choice[on], sample_weight=weight[on])
        p = np.zeros((len(on), options))
        p[:, forest.classes_] = forest.predict_proba(features)
        overall = survey.shares(np.zeros(len(on), dtype=np.int64), 1, weight)
        p = (leaf * p + options * overall) / (leaf + options)
        lost.append(-np.log(p[np.arange(len(on)), survey.choice]))
    return survey.mean(np.stack(lost))
