"""Which households a PUMA has: forms and members, raked to its people and to the city's household sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lpmppl.data.ipf import tilt
from lpmppl.data.rounding import cascade
from lpmppl.data.targets import Targets

__all__ = ["ALONE", "COUPLE", "LONE", "SHARED", "Households", "draw", "weights"]

ALONE, COUPLE, LONE, SHARED = range(4)
"""Lives alone; a couple, with or without others; one head with relatives; unrelated people who share a dwelling."""

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

# (form, head of 65+, people under 18, of 18–64, of 65+, households per 100 before raking). Modelled: the order of
# magnitude of the ACS's household types of New York; the raking below moves them to the margins.
_TYPES: tuple[tuple[int, int, int, int, int, float], ...] = (
    (ALONE, 0, 0, 1, 0, 20.5),
    (ALONE, 1, 0, 0, 1, 12.0),
    (SHARED, 0, 0, 2, 0, 5.0),
    (SHARED, 0, 0, 3, 0, 2.0),
    (SHARED, 0, 0, 4, 0, 0.9),
    (SHARED, 0, 0, 5, 0, 0.3),
    (SHARED, 0, 0, 1, 1, 0.4),
    (COUPLE, 0, 0, 2, 0, 11.0),
    (COUPLE, 0, 0, 1, 1, 1.5),
    (COUPLE, 1, 0, 1, 1, 1.0),
    (COUPLE, 1, 0, 0, 2, 5.5),
    *((COUPLE, 0, k, 2, 0, w) for k, w in enumerate((5.0, 5.5, 2.0, 0.8, 0.4, 0.2, 0.1), start=1)),
    *((COUPLE, 0, k, 3, 0, w) for k, w in enumerate((4.0, 2.0, 1.2, 0.5, 0.2, 0.1))),
    *((COUPLE, 0, k, 4, 0, w) for k, w in enumerate((2.0, 0.9, 0.4, 0.2, 0.1))),
    *((COUPLE, 0, k, 5, 0, w) for k, w in enumerate((0.6, 0.3, 0.2, 0.1))),
    *((COUPLE, 0, k, 2, 1, w) for k, w in enumerate((0.8, 0.8, 0.8, 0.3, 0.1))),
    *((COUPLE, 0, k, 3, 1, w) for k, w in enumerate((0.5, 0.3, 0.2, 0.1))),
    *((COUPLE, 0, k, 2, 2, w) for k, w in enumerate((0.2, 0.3, 0.3, 0.1))),
    *((COUPLE, 0, k, 4, 2, w) for k, w in enumerate((0.05, 0.08, 0.08, 0.05))),
    *((COUPLE, 1, k, 1, 2, w) for k, w in enumerate((2.0, 0.3, 0.1))),
    *((COUPLE, 1, k, 2, 2, w) for k, w in enumerate((0.8, 0.4, 0.3, 0.1))),
    *((COUPLE, 1, k, 2, 1, w) for k, w in enumerate((1.5, 0.2, 0.1))),
    *((COUPLE, 1, k, 3, 1, w) for k, w in enumerate((0.6, 0.2, 0.1))),
    *((LONE, 0, k, 1, 0, w) for k, w in enumerate((3.0, 2.0, 0.9, 0.3, 0.1), start=1)),
    *((LONE, 0, k, 2, 0, w) for k, w in enumerate((4.5, 2.0, 1.0, 0.4, 0.2))),
    *((LONE, 0, k, 3, 0, w) for k, w in enumerate((2.0, 0.8, 0.4, 0.2))),
    *((LONE, 0, k, 4, 0, w) for k, w in enumerate((0.5, 0.3, 0.2))),
    *((LONE, 0, k, 1, 1, w) for k, w in enumerate((2.0, 0.8, 0.4, 0.1))),
    *((LONE, 0, k, 2, 1, w) for k, w in enumerate((0.8, 0.4, 0.2))),
    *((LONE, 1, k, 1, 1, w) for k, w in enumerate((3.0, 0.6, 0.3))),
    *((LONE, 1, k, 2, 1, w) for k, w in enumerate((1.2, 0.4, 0.2, 0.1))),
    *((LONE, 1, k, 3, 1, w) for k, w in enumerate((0.4, 0.2, 0.1))),
    *((LONE, 1, k, 0, 1, w) for k, w in enumerate((0.2, 0.1), start=1)),
    (LONE, 1, 0, 0, 2, 0.3),
)
_TABLE = np.array(_TYPES)
_MEMBERS = _TABLE[:, 2:5].astype(np.int64)
_SIZE = np.minimum(_MEMBERS.sum(axis=1), 7) - 1


@dataclass
class Households:
    """The households of one PUMA: `form`, whether the head is `senior`, and `members` (H, 3) under 18, 18–64, 65+."""

    form: Whole
    senior: NDArray[np.bool_]
    members: Whole


def needs(targets: Targets) -> Whole:
    """People in households by PUMA and class under 18, 18–64, 65+; (P, 3)."""
    people = (targets.persons - targets.quarters).sum(axis=2)
    return np.stack([people[:, :18].sum(1), people[:, 18:65].sum(1), people[:, 65:].sum(1)], axis=1)


def weights(targets: Targets, sweeps: int = 200, tolerance: float = 1e-4) -> Array:
    """Expected households of each type by PUMA, (P, types).

    Generalised raking (iterative proportional updating, Ye et al. 2009): each PUMA's households and people by class are
    met exactly by a maximum-entropy tilt, alternating with the scaling of household sizes to the city's shares.
    """
    features = np.concatenate([np.ones((len(_TABLE), 1)), _MEMBERS], axis=1).astype(np.float64)
    goals = np.concatenate([targets.households[:, None], needs(targets)], axis=1).astype(np.float64)
    # A PUMA's four totals are tilted per household, which keeps Newton's steps of one size whatever N is.
    per_household = goals / goals[:, :1]
    factor = np.ones(7)
    start: Array | None = None
    for _ in range(sweeps):
        table, start = tilt(_TABLE[:, 5] / 100 * factor[_SIZE], features, per_household, start)
        shares = np.bincount(_SIZE, goals[:, 0] @ table, 7) / goals[:, 0].sum()
        if np.max(np.abs(shares / targets.sizes - 1)) < tolerance:
            break
        factor *= targets.sizes / shares
    return table * goals[:, :1]


def draw(expected: Array, need: Whole, rng: np.random.Generator) -> Households:
    """Whole households of one PUMA with exactly `need` people of each class, by systematic sampling and a small repair.

    `expected` (types,) sums to the number of households; `need` (3,) people under 18, 18–64, 65+.
    """
    total = round(float(expected.sum()))
    counts = cascade(expected * (total / expected.sum()), float(rng.random()))
    kind = np.repeat(np.arange(len(_TABLE)), counts)[:total]
    home = Households(_TABLE[kind, 0].astype(np.int64), _TABLE[kind, 1] > 0, _MEMBERS[kind].copy())
    _balance(home.members, need, rng)
    return _named(home)


def _balance(members: Whole, need: Whole, rng: np.random.Generator) -> None:
    """Add and remove single people until every class has its total; every household keeps an adult."""
    for column in range(3):
        while (short := int(need[column] - members[:, column].sum())) > 0:
            roomy = np.flatnonzero(members.sum(axis=1) >= 2)
            homes = roomy if roomy.size else np.arange(len(members))
            members[rng.choice(homes, min(short, homes.size), replace=False), column] += 1
    for column in (1, 2, 0):
        while (over := int(members[:, column].sum() - need[column])) > 0:
            spare = members[:, column] > 0
            if column:
                spare &= members[:, 1:].sum(axis=1) > 1
            homes = np.flatnonzero(spare)
            if not homes.size:
                # Every adult of this class is the only one at home: one of them becomes the other class of adult,
                # and that class gives one up where it has two.
                home = rng.choice(np.flatnonzero(members[:, column] > 0))
                members[home, column] -= 1
                members[home, 3 - column] += 1
                continue
            members[rng.choice(homes, min(over, homes.size), replace=False), column] -= 1
    if (members.sum(axis=0) != need).any():
        _balance(members, need, rng)


def _named(home: Households) -> Households:
    """Make form and head agree with the members after the repair."""
    under, working, old = home.members.T
    adults, size = working + old, home.members.sum(axis=1)
    form = np.where(size == 1, ALONE, home.form)
    form = np.where((form == ALONE) & (size > 1), np.where(under > 0, LONE, SHARED), form)
    form = np.where((form == SHARED) & (under > 0), LONE, form)
    form = np.where((form == COUPLE) & (adults < 2), LONE, form)
    senior = np.where(working == 0, True, np.where(old == 0, False, home.senior))
    return Households(form, senior, home.members)
