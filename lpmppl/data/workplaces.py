"""Where people work and go to school: commuting between boroughs, establishments of heavy-tailed size, schools."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lpmppl.data.acs import BOROUGHS, INDUSTRIES, Tables
from lpmppl.data.targets import by_age

__all__ = ["KINDS", "Workplaces", "assign", "establishment_sizes"]

KINDS = ("none", "workplace", "school")
_EDUCATION = list(INDUSTRIES).index("edhlt") + 1
_LEVELS = (11, 14)  # ages at which pupils change to a middle and to a high school

Whole = NDArray[np.int32]


@dataclass
class Workplaces:
    """By agent: `of`, the workplace, 0 for none. By workplace: what and where it is.

    Index 0 stands for none: `kind`, `industry` (0 for none), `puma` and `borough`, and `size`, the agents there.
    """

    of: Whole
    kind: NDArray[np.uint8]
    industry: NDArray[np.uint8]
    puma: NDArray[np.uint8]
    borough: NDArray[np.uint8]
    size: Whole


def establishment_sizes(n: int, exponent: float, cap: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Sizes of establishments, P(size ≥ s) = s^−exponent up to `cap`, as many as it takes to hold `n` people.

    The last one is cut to the people left. Source: Axtell (2001), doi:10.1126/science.1062081.
    """
    parts: list[NDArray[np.int64]] = []
    held = 0
    while held < n:
        draws = rng.random(max(64, (n - held) // 4))
        sizes = np.minimum(np.floor(draws ** (-1.0 / exponent)), cap).astype(np.int64)
        parts.append(sizes)
        held += int(sizes.sum())
    sizes = np.concatenate(parts) if parts else np.empty(0, np.int64)
    ends = np.cumsum(sizes)
    count = int(np.searchsorted(ends, n)) + 1 if n else 0
    sizes = sizes[:count]
    if count:
        sizes[-1] -= int(ends[count - 1]) - n
    return sizes


def _cells(*keys: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A stable order by the keys (first key first), and where each run of equal keys starts in it."""
    code = np.zeros(keys[0].size, np.int64)
    for key in keys:
        code = code * (int(key.max(initial=0)) + 1) + key
    order = np.argsort(code, kind="stable")
    return order, np.flatnonzero(np.diff(code[order], prepend=-1))


def _commute(tables: Tables, home: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int8]:
    """Borough of work by borough of residence; −1 outside the city or at home."""
    names = list(BOROUGHS)
    sheet = tables.sheet("commuting")
    at_home = float(sheet.loc["city", "home"])
    work = np.full(home.size, -1, np.int8)
    for code, name in enumerate(names):
        row = sheet.loc[name, names].fillna(0.0).to_numpy(np.float64)
        row = row / (row.sum() + float(sheet.loc[name, "outside"])) * (1 - at_home)
        who = np.flatnonzero(home == code)
        to = np.searchsorted(np.cumsum(row), rng.random(who.size), side="right")
        work[who] = np.where(to < len(names), to, -1)
    return work


def _job_pumas(
    tables: Tables,
    work: NDArray[np.int8],
    home: NDArray[np.integer],
    own: NDArray[np.integer],
    residents: NDArray[np.int64],
    borough: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """PUMA of work within the borough of work: jobs by PUMA, or one's own PUMA."""
    jobs = tables.sheet("jobs")["weight"]
    weight = residents * np.array([jobs.get(f"{tables.census}:{puma}", 1.0) for puma in tables.pumas])
    place = np.zeros(work.size, np.uint8)
    for code in range(len(BOROUGHS)):
        rows = np.flatnonzero(borough == code)
        who = np.flatnonzero(work == code)
        share = np.cumsum(weight[rows]) / weight[rows].sum()
        place[who] = rows[np.minimum(np.searchsorted(share, rng.random(who.size), side="right"), rows.size - 1)]
    stay = (work == home) & (rng.random(work.size) < tables.value("workplaces", "own_puma", "share"))
    return np.where(stay, own, place).astype(np.uint8)


def assign(
    age: NDArray[np.integer],
    industry: NDArray[np.integer],
    puma: NDArray[np.integer],
    borough_of: NDArray[np.int64],
    institution: NDArray[np.bool_],
    tables: Tables,
    rng: np.random.Generator,
) -> Workplaces:
    """Workplaces and schools of all agents; `borough_of` (P,) maps PUMA to borough codes.

    Pupils go to a school of their level in or near their PUMA. Of the workers in education some work at the schools of
    the borough where they work, so many pupils to one; all others are cut into establishments by borough and industry.
    """
    of = np.zeros(age.size, np.int32)
    pupil_of, school_puma = _schools(age, puma, borough_of, institution, tables, rng)
    pupils = np.flatnonzero(pupil_of >= 0)
    schools = school_puma.size

    # Pupils with a job are at school; their job is not one of the places.
    workers = np.flatnonzero((industry > 0) & (pupil_of < 0))
    home = borough_of[puma[workers]].astype(np.int8)
    work = _commute(tables, home, rng)
    residents = np.bincount(puma, minlength=len(tables.pumas))
    place = _job_pumas(tables, work, home, puma[workers], residents, borough_of, rng)

    teaches = (industry[workers] == _EDUCATION) & (age[workers] >= 18)
    staff, school = _staff(teaches, work, pupil_of[pupils], borough_of[school_puma], tables, rng)
    hired = np.zeros(workers.size, bool)
    hired[staff] = True
    rest = np.flatnonzero((work >= 0) & ~hired)
    shuffled = rest[rng.permutation(rest.size)]
    order, starts = _cells(work[shuffled], industry[workers[shuffled]])
    shuffled = shuffled[order]
    exponent, cap = (tables.value("workplaces", "size", column) for column in ("exponent", "cap"))
    first, kinds, pumas = 1, [np.zeros(1, np.uint8)], [np.zeros(1, np.uint8)]
    for low, high in zip(starts, np.append(starts[1:], shuffled.size), strict=True):
        cell = shuffled[low:high]
        cell = cell[np.argsort(place[cell], kind="stable")]
        sizes = establishment_sizes(cell.size, exponent, int(cap), rng)
        of[workers[cell]] = first + np.repeat(np.arange(sizes.size, dtype=np.int32), sizes)
        # Establishments are cut from the workers in the order of their PUMA of work; that of the middle one is theirs.
        pumas.append(place[cell[np.cumsum(sizes) - (sizes + 1) // 2]])
        kinds.append(np.full(sizes.size, industry[workers[cell[0]]], np.uint8))
        first += sizes.size
    of[pupils] = first + pupil_of[pupils]
    of[workers[staff]] = first + school
    kind = np.concatenate([[0], np.full(first - 1, 1), np.full(schools, 2)]).astype(np.uint8)
    place_of = np.concatenate([*pumas, school_puma.astype(np.uint8)])
    trade = np.concatenate([*kinds, np.full(schools, _EDUCATION, np.uint8)])
    size = np.bincount(of, minlength=kind.size).astype(np.int32)
    size[0] = 0
    return Workplaces(of, kind, trade, place_of, borough_of[place_of].astype(np.uint8), size)


def _schools(
    age: NDArray[np.integer],
    puma: NDArray[np.integer],
    borough_of: NDArray[np.int64],
    institution: NDArray[np.bool_],
    tables: Tables,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """School of each agent (−1 for none) and PUMA of each school."""
    share = by_age(tables.sheet("enrolment"), "share")
    attends = np.flatnonzero((age >= 3) & (age < 18) & ~institution)
    attends = attends[rng.random(attends.size) < share[age[attends]]]
    step = np.searchsorted(_LEVELS, age[attends], side="right")
    shuffled = rng.permutation(attends.size)
    attends, step = attends[shuffled], step[shuffled]
    order, starts = _cells(borough_of[puma[attends]], step, puma[attends])
    attends, step = attends[order], step[order]
    # Schools are cut from the pupils of a borough and level in the order of their PUMA; a PUMA with pupils enough has
    # whole schools, one with too few shares with the next.
    _, wide = _cells(borough_of[puma[attends]], step)
    mean = tables.value("schools", "size", "pupils")
    of = np.full(age.size, -1, np.int32)
    pumas: list[int] = []
    for low, high in zip(wide, np.append(wide[1:], attends.size), strict=True):
        inner = np.append(starts[(starts > low) & (starts < high)], high)
        cuts = [low]
        made = 0
        for right in inner:
            schools = round((right - low) / mean) - made
            if right == high:
                schools = max(schools, 1 - made)
            if schools > 0:
                shares = np.cumsum(rng.gamma(6.0, 1.0, schools))
                begin = cuts[-1]
                cuts.extend((begin + np.round(shares / shares[-1] * (right - begin))).astype(int).tolist())
                made += schools
        # Too few pupils are left of the last PUMA for a school of their own: they go to the one before.
        cuts[-1] = high
        for begin, end in pairwise(cuts):
            if end > begin:
                of[attends[begin:end]] = len(pumas)
                pumas.append(int(puma[attends[(begin + end) // 2]]))
    return of, np.array(pumas, np.int64)


def _staff(
    teaches: NDArray[np.bool_],
    work: NDArray[np.int8],
    school_of_pupils: NDArray[np.int32],
    borough: NDArray[np.int64],
    tables: Tables,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which workers are school staff (indices), and the school of each."""
    pupils = np.bincount(school_of_pupils, minlength=borough.size)
    ratio = tables.value("schools", "staff", "pupils per staff")
    people: list[NDArray[np.int64]] = []
    schools: list[NDArray[np.int64]] = []
    for code in range(len(BOROUGHS)):
        mine = np.flatnonzero(borough == code)
        posts = np.repeat(mine, np.maximum(np.round(pupils[mine] / ratio), 1).astype(np.int64))
        able = np.flatnonzero(teaches & (work == code))
        count = min(posts.size, able.size)
        people.append(rng.choice(able, count, replace=False) if count else able[:0])
        schools.append(rng.choice(posts, count, replace=False) if count else posts[:0])
    return np.concatenate(people), np.concatenate(schools)
