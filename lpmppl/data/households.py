"""Who lives with whom: the people of one PUMA placed in its households at plausible ages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lpmppl.data.composition import COUPLE, LONE, SHARED, Households
from lpmppl.data.targets import AGES

__all__ = ["PARENT_GAP", "ROLES", "Residents", "place", "settle"]

ROLES = ("householder", "partner", "child", "parent", "other relative", "nonrelative", "group quarters")
_HEAD, _PARTNER, _CHILD, _PARENT, _RELATIVE, _UNRELATED, _QUARTERS = range(7)
PARENT_GAP = (15, 50)
"""A child of the householder is at least 15 years younger than the older of householder and partner, and, under 18, at
most 50 younger than the younger; a parent of the householder is at least 15 older. Who is not is an other relative."""

_FIRST_BIRTH = (28.5, 6.0)
"""Mean and spread of a parent's age at the first birth, years: chosen; 26.3 for mothers in all states in 2014 (NCHS
Data Brief 232)."""

_OLDEST = 64.9  # of the class 18–64, for wishes in years with fractions
_SAME_SEX = 0.02  # share of couples of one sex (modelled)
_LONE_MOTHERS = 0.83  # share of women among lone parents (modelled after the ACS's householders without spouse)

Float = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass
class Residents:
    """The people of one PUMA, sorted by household.

    By person: `household` (0-based in the PUMA), `age`, `sex`, `role`; by household: `size` and `quarters`.
    """

    household: Whole
    age: Whole
    sex: Whole
    role: Whole
    size: Whole
    quarters: Flags


def settle(homes: Households, persons: Whole, quarters: Whole, facility: float, rng: np.random.Generator) -> Residents:
    """All residents of one PUMA, its households and facilities in random order.

    `persons`, `quarters` (AGES, 2) counts by age and sex; `facility` the mean people of one facility.
    """
    home, age, sex, role = place(homes, persons - quarters, rng)
    facility_home, facility_age, facility_sex = _facilities(quarters, facility, rng)
    households = len(homes.form)
    count = households + (int(facility_home[-1]) + 1 if facility_home.size else 0)
    home = np.concatenate([home, facility_home + households])
    address = rng.permutation(count)
    # Within a household the order is that of the roles, so the householder comes first.
    role = np.concatenate([role, np.full(facility_home.size, _QUARTERS)])
    order = np.argsort(address[home] * len(ROLES) + role, kind="stable")
    institution = np.zeros(count, bool)
    institution[address[households:]] = True
    household = address[home][order]
    return Residents(
        household,
        np.concatenate([age, facility_age])[order],
        np.concatenate([sex, facility_sex])[order],
        role[order],
        np.bincount(household, minlength=count),
        institution,
    )


def _facilities(quarters: Whole, mean: float, rng: np.random.Generator) -> tuple[Whole, Whole, Whole]:
    """Facility, age and sex of the residents of group quarters; people of like age share a facility."""
    total = int(quarters.sum())
    age = np.repeat(np.arange(AGES), quarters.sum(axis=1))
    sex = np.repeat(np.tile([0, 1], AGES), quarters.ravel())
    sizes = np.maximum(8, rng.exponential(mean, size=total // 8 + 1)).astype(np.int64)
    ends = np.cumsum(sizes)
    facility = np.searchsorted(ends, np.arange(total), side="right")
    return facility, age, sex


def _ordinal(home: Whole) -> Whole:
    """0, 1, 2 … within each run of equal values."""
    starts = np.flatnonzero(np.diff(home, prepend=-1))
    return np.arange(home.size) - np.repeat(starts, np.diff(starts, append=home.size))


def _matched(wish: Float, pool: Whole) -> Whole:
    """Ages from `pool` (people by age) given out in the order of the wished ages."""
    ages = np.empty(wish.size, np.int64)
    ages[np.argsort(wish, kind="stable")] = np.repeat(np.arange(AGES), pool)
    return ages


def _quantiles(pool: Float, n: int, rng: np.random.Generator) -> Float:
    """`n` ages with the distribution of `pool` (weight by age), in years with fractions."""
    total = pool.sum()
    if total <= 0:
        pool, total = np.ones_like(pool), float(pool.size)
    edges = np.concatenate([[0.0], np.cumsum(pool)])
    return np.interp(rng.random(n) * total, edges, np.arange(AGES + 1))


def _gap(n: int, rng: np.random.Generator) -> Float:
    return np.clip(rng.normal(*_FIRST_BIRTH, n), 17.0, 46.0)


def place(homes: Households, pool: Whole, rng: np.random.Generator) -> tuple[Whole, Whole, Whole, Whole]:
    """Household, age, sex and role of everyone in the households of one PUMA; uses up `pool` (AGES, 2) exactly.

    Every place in a household wishes for an age that fits the others in it, and the people of each class (under 18,
    18–64, 65+) are given out in the order of the wishes. Places that fit anyone (alone, couples without children,
    shared dwellings) wish for the ages that the others leave over, so that the wishes are met almost to the year.
    """
    form, senior = homes.form, homes.senior
    under, working, old = homes.members.T
    families = len(form)
    by_age, year = pool.sum(axis=1), np.arange(AGES)
    pools = [np.where((year >= first) & (year < last), by_age, 0) for first, last in ((0, 18), (18, 65), (65, AGES))]
    couple = form == COUPLE
    # A couple is of one class where the head's class has two people; otherwise the partner is of the other class.
    partner_old = couple & np.where(senior, old >= 2, working < 2)

    home_under, home_working, home_old = (np.repeat(np.arange(families), n) for n in (under, working, old))
    role_under = np.where(senior[home_under], _RELATIVE, _CHILD)
    role_working = _roles(home_working, ~senior, couple & ~partner_old, form, rng)
    role_old = _roles(home_old, senior, partner_old, form, rng)
    # Beyond head and partner, an older adult with a younger head is the head's parent; with an older head a sibling.
    role_old[role_old == _CHILD] = _PARENT
    role_old[(role_old == _PARENT) & senior[home_old]] = _RELATIVE

    age_under = _young(home_under, under, pools[0], rng)
    eldest = np.full(families, -1.0)
    np.maximum.at(eldest, home_under, age_under + 0.5)
    grown = role_working == _CHILD
    wish_grown = _grown(eldest[home_working[grown]], rng)
    np.maximum.at(eldest, home_working[grown], wish_grown)
    has_parent = np.bincount(home_old[role_old == _PARENT], minlength=families) > 0
    head = _heads(eldest, ~senior & has_parent, ~senior & partner_old, rng)

    age_old = _matched(_old(home_old, role_old, head, partner_old & ~senior, pools[2], rng), pools[2])
    elder = np.zeros(families)
    np.maximum.at(elder, home_old[role_old <= _PARTNER], age_old[role_old <= _PARTNER])
    # A grown child of an older head wishes for an age from the head's, not the head's from the child's.
    from_elder = np.clip(elder[home_working[grown]] - _gap(wish_grown.size, rng), 18.0, _OLDEST)
    wish = np.full(home_working.size, np.nan)
    wish[grown] = np.where(senior[home_working[grown]], from_elder, wish_grown)
    wish[role_working == _HEAD] = head[home_working[role_working == _HEAD]]
    mates = role_working == _PARTNER
    wish[mates] = _partners(home_working[mates], head, np.where(senior, elder, np.nan), eldest, rng)
    age_working = _matched(_leftover(wish, home_working, role_working, form, pools[1], rng), pools[1])

    home = np.concatenate([home_under, home_working, home_old])
    age = np.concatenate([age_under, age_working, age_old])
    role = np.concatenate([role_under, role_working, role_old])
    _kinship(home, age, role, families)
    return home, age, _sexes(home, age, role, form, pool, rng), role


def _young(home: Whole, under: Whole, pool: Whole, rng: np.random.Generator) -> Whole:
    """Ages of the people under 18: brothers and sisters about three years apart."""
    wish = _quantiles(pool.astype(float), under.size, rng)[home]
    wish += 3.0 * (_ordinal(home) - (under[home] - 1) / 2) + rng.normal(0.0, 1.0, wish.size)
    return _matched(wish, pool)


def _grown(eldest: Float, rng: np.random.Generator) -> Float:
    """Wished ages of grown children at home: close to 18 where there are younger ones (`eldest` ≥ 0), and up to 40."""
    with_younger, alone = rng.exponential(3.0, eldest.size), rng.exponential(8.0, eldest.size)
    return np.minimum(18.0 + np.where(eldest >= 0, with_younger, alone), 40.0)


def _heads(eldest: Float, with_parent: Flags, older_partner: Flags, rng: np.random.Generator) -> Float:
    """Wished ages of heads: from the eldest child, or of middle age with a parent at home; nan where anyone fits."""
    parental = eldest >= 0
    head = np.where(parental, np.clip(eldest + _gap(eldest.size, rng), 18.0, _OLDEST), np.nan)
    middle = with_parent & ~parental
    head[middle] = np.clip(rng.normal(48.0, 9.0, int(middle.sum())), 25.0, _OLDEST)
    mixed = older_partner & np.isnan(head)
    head[mixed] = rng.uniform(56.0, _OLDEST, int(mixed.sum()))
    return head


def _old(home: Whole, role: Whole, head: Float, partner_only: Flags, pool: Whole, rng: np.random.Generator) -> Float:
    """Wished ages of people of 65 and over: partners of like age, parents a generation above the head."""
    couple = _quantiles(pool.astype(float), head.size, rng)
    couple[partner_only] = 65.0 + rng.exponential(3.0, int(partner_only.sum()))
    wish = couple[home] + np.where(role == _PARTNER, rng.normal(0.0, 3.5, home.size), 0.0)
    above = np.clip(np.nan_to_num(head[home], nan=45.0) + _gap(home.size, rng), 65.0, 97.0)
    return np.where(role == _PARENT, above, wish)


def _partners(home: Whole, head: Float, elder: Float, eldest: Float, rng: np.random.Generator) -> Float:
    """Wished ages of partners under 65: beside the head (some years below an `elder` one), above the eldest child."""
    beside = np.where(
        np.isnan(elder[home]),
        head[home] + rng.normal(0.0, 3.5, home.size),
        elder[home] - np.abs(rng.normal(5.0, 3.0, home.size)),
    )
    least = np.where(eldest[home] >= 0, np.minimum(eldest[home] + 17.0, _OLDEST), 18.0)
    return np.clip(beside, least, _OLDEST)


def _leftover(wish: Float, home: Whole, role: Whole, form: Whole, pool: Whole, rng: np.random.Generator) -> Float:
    """Fill the wishes that are nan from the ages that the other wishes leave over in `pool`."""
    free = np.isnan(wish)
    taken = np.bincount(wish[~free].astype(np.int64), minlength=AGES)
    left = np.maximum(pool - taken, 0).astype(float)
    centre = _quantiles(left, form.size, rng)[home[free]]
    spread = np.where(form[home[free]] == COUPLE, 2.5, 5.0)
    near = centre + spread * rng.normal(0.0, 1.0, centre.size)
    anyone = _quantiles(left, centre.size, rng)
    # Other relatives may be of any age; couples and people who share a dwelling are of like age.
    alike = np.isin(role[free], (_HEAD, _PARTNER, _UNRELATED))
    filled = wish.copy()
    filled[free] = np.clip(np.where(alike, near, anyone), 18.0, _OLDEST)
    return filled


def _roles(home: Whole, heads: Flags, partners: Flags, form: Whole, rng: np.random.Generator) -> Whole:
    """Roles of the adults of one class: head and partner where they are of this class, then children or others."""
    rank = _ordinal(home)
    own, mate = heads[home].astype(np.int64), partners[home].astype(np.int64)
    # Of the further adults in families most are grown children; the rest are brothers, aunts, cousins (modelled).
    further = np.where(rng.random(home.size) < 0.75, _CHILD, _RELATIVE)
    further = np.where(form[home] == SHARED, _UNRELATED, further)
    return np.where(rank < own, _HEAD, np.where(rank < own + mate, _PARTNER, further))


def _kinship(home: Whole, age: Whole, role: Whole, families: int) -> None:
    """Children and parents whose age does not allow it become other relatives, in place."""
    head = np.zeros(families, np.int64)
    head[home[role == _HEAD]] = age[role == _HEAD]
    partner = head.copy()
    partner[home[role == _PARTNER]] = age[role == _PARTNER]
    least, most = PARENT_GAP
    close = np.maximum(head, partner)[home] < age + least
    far = (age < 18) & (np.minimum(head, partner)[home] > age + most)
    role[(role == _CHILD) & (close | far)] = _RELATIVE
    role[(role == _PARENT) & (age < head[home] + least)] = _RELATIVE


def _sexes(home: Whole, age: Whole, role: Whole, form: Whole, pool: Whole, rng: np.random.Generator) -> Whole:
    """Sex of everyone, the numbers by age exactly as in `pool` (AGES, 2): partners mostly of different sex."""
    families = len(form)
    man = rng.random(families) < 0.5
    man[form == LONE] = rng.random(int((form == LONE).sum())) > _LONE_MOTHERS
    mate = np.where(rng.random(families) < _SAME_SEX, man, ~man)
    paired = (form[home] == COUPLE) | ((form[home] == LONE) & (role == _HEAD))
    wish = rng.random(home.size)
    # 0–1 woman, 2–3 whoever is left, 4–5 man: within one age, women go to the lowest wishes.
    wish += np.where(
        paired & (role == _HEAD), 4.0 * man[home], np.where(paired & (role == _PARTNER), 4.0 * mate[home], 2.0)
    )
    order = np.argsort(age * 8 + wish, kind="stable")
    sex = np.empty(home.size, np.int64)
    sex[order] = np.repeat(np.tile([0, 1], AGES), pool.ravel())
    return sex
