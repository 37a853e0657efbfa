"""Loops over agents that neither torch nor NumPy has in one piece, compiled for the CPU by Numba.

Each works on a block that fits the cache, without the interpreter's lock, so that blocks run on several threads. None
reorders or contracts a floating-point operation: an agent's bits don't depend on where in a block it lies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba import literal_unroll

__all__ = [
    "above",
    "accrue",
    "add",
    "add_crossing",
    "below",
    "between",
    "carry_over",
    "changes",
    "choose",
    "crossing",
    "differ",
    "gather",
    "gather_add",
    "meet",
    "meet_sum",
    "scale",
    "scatter",
    "send_back",
    "true",
    "uniform",
]

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(loop: F) -> F:
    """Compile a loop, keeping the machine code on disk where there is a place for it."""
    try:
        return cast(F, numba.njit(nogil=True, cache=True)(loop))
    except RuntimeError:  # an installation and a home that can't be written
        return cast(F, numba.njit(nogil=True)(loop))


@_compiled
def gather(out: np.ndarray, values: np.ndarray, index: np.ndarray) -> None:
    """Set out[k] to values[index[k]]; the index is unsigned, which spares a test for negative ones."""
    for k in range(index.shape[0]):
        out[k] = values[index[k]]


@_compiled
def gather_add(out: np.ndarray, values: np.ndarray, index: np.ndarray) -> None:
    """Add values[index[k]] to out[k]."""
    for k in range(index.shape[0]):
        out[k] += values[index[k]]


@_compiled
def send_back(out: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """Add values[k] to out[index[k]] where it isn't zero."""
    for k in range(index.shape[0]):
        if values[k] != 0:
            out[index[k]] += values[k]


@_compiled
def changes(
    values: np.ndarray, bits: np.ndarray, seen: np.ndarray, first: int, where: np.ndarray, by: np.ndarray
) -> int:
    """Write first + k, and by how much, for every k whose value, zero off a mask, isn't the one seen, and see it."""
    n = 0
    for k in range(values.shape[0]):
        now = np.float32(values[k]) if bits[k >> 3] >> (7 - (k & 7)) & 1 else np.float32(0)
        was = seen[k]
        if now != was:
            where[n] = first + k
            by[n] = np.float64(now) - np.float64(was)
            seen[k] = now
            n += 1
    return n


@_compiled
def scatter(out: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """Set out[index[k]] to values[k], or to the one value there is."""
    if values.shape[0] == 1:
        for k in range(index.shape[0]):
            out[index[k]] = values[0]
    else:
        for k in range(index.shape[0]):
            out[index[k]] = values[k]


@_compiled
def add(out: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """Add values[k] to out[index[k]]."""
    for k in range(index.shape[0]):
        out[index[k]] += values[k]


@_compiled
def crossing(
    slot: np.ndarray, group: np.ndarray, value: np.ndarray, row: np.ndarray, many: int, out: np.ndarray
) -> int:
    """Write the slot of group[k], in its row, beside value[k] where it has one; returns how many."""
    n = 0
    for k in range(group.shape[0]):
        place = slot[group[k]]
        if place >= 0:
            out[n, 0] = row[k] * many + place if row.shape[0] else place
            out[n, 1] = value[k]
            n += 1
    return n


@_compiled
def add_crossing(out: np.ndarray, pairs: np.ndarray, groups: np.ndarray, length: int) -> None:
    """Add numbers to rows of so many groups, at what `crossing` has written beside them."""
    for k in range(pairs.shape[0]):
        place = np.int64(pairs[k, 0])
        row = place // groups.shape[0]
        out[row * length + groups[place - row * groups.shape[0]]] += pairs[k, 1]


@_compiled
def carry_over(out: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """Set out[index[k]] to values[index[k]]."""
    for k in range(index.shape[0]):
        out[index[k]] = values[index[k]]


@_compiled
def scale(out: np.ndarray, values: np.ndarray, share: np.ndarray, factor: np.float32) -> None:
    """Set out[k] to values[k] times its share times a factor, each rounded to the kind of the share."""
    for k in range(out.shape[0]):
        out[k] = (np.float32(values[k]) * share[k]) * factor


@_compiled
def choose(out: np.ndarray, mask: np.ndarray, yes: np.float32, no: np.float32) -> None:
    """Multiply out[k] by one of two numbers."""
    for k in range(out.shape[0]):
        out[k] *= yes if mask[k] else no


@_compiled
def accrue(step: np.ndarray, risk: np.ndarray, before: np.ndarray, after: np.ndarray) -> None:
    """Add a step's hazard to the cumulative hazard of those at risk."""
    for k in range(step.shape[0]):
        after[k] = before[k] + step[k] if risk[k] else before[k]


@_compiled
def meet(
    step: np.ndarray, risk: np.ndarray, before: np.ndarray, after: np.ndarray, level: np.ndarray, event: np.ndarray
) -> None:
    """Do as `accrue`, and say where the level of someone at risk lies in (before, after]."""
    for k in range(step.shape[0]):
        was = before[k]
        now = was + step[k] if risk[k] else was
        after[k] = now
        event[k] = risk[k] & (now > level[k]) & (was <= level[k])


@_compiled
def meet_sum(
    leaves: tuple[tuple[np.ndarray, np.ndarray], ...],
    factors: tuple[np.ndarray, ...],
    risk: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    level: np.ndarray,
    event: np.ndarray,
    first: int,
    out: np.ndarray,
) -> int:
    """Do as `meet` and then `true`, of a sum of values[index[k]] times factors of each k; returns how many."""
    n = 0
    for k in range(risk.shape[0]):
        step = np.float32(0)
        for leaf in literal_unroll(leaves):
            step += leaf[0][leaf[1][k]]
        for factor in factors:
            step *= factor[k]
        was = before[k]
        now = was + step if risk[k] else was
        after[k] = now
        met = risk[k] & (now > level[k]) & (was <= level[k])
        event[k] = met
        if met:
            out[n] = first + k
            n += 1
    return n


@_compiled
def true(x: np.ndarray, first: int, out: np.ndarray) -> int:
    """Write first + k for every k at which a mask, given as bytes, is true; returns how many."""
    n = 0
    eights = x[: x.shape[0] // 8 * 8].view(np.uint64)
    for word in range(eights.shape[0]):
        if eights[word]:
            for k in range(8 * word, 8 * word + 8):
                if x[k]:
                    out[n] = first + k
                    n += 1
    for k in range(8 * eights.shape[0], x.shape[0]):
        if x[k]:
            out[n] = first + k
            n += 1
    return n


@_compiled
def above(x: np.ndarray, level: float, first: int, out: np.ndarray) -> int:
    """Write first + k for every k at which a value lies above a level; returns how many."""
    n = 0
    for k in range(x.shape[0]):
        if x[k] > level:
            out[n] = first + k
            n += 1
    return n


@_compiled
def below(x: np.ndarray, level: float, first: int, out: np.ndarray) -> int:
    """Write first + k for every k at which a value lies below a level; returns how many."""
    n = 0
    for k in range(x.shape[0]):
        if x[k] < level:
            out[n] = first + k
            n += 1
    return n


@_compiled
def uniform(ids: np.ndarray, start: np.uint64, out: np.ndarray) -> None:
    """Set out[k] to the uniform of agent ids[k] in the stream that starts at `start`, as `streams` defines it."""
    for k in range(ids.shape[0]):
        z = np.uint64(ids[k]) * np.uint64(0x9E3779B97F4A7C15) + start
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        out[k] = (np.float64(z >> np.uint64(12)) + 0.5) * 2.0**-52


@_compiled
def differ(x: np.ndarray, y: np.ndarray, first: int, out: np.ndarray) -> int:
    """Write first + k for every k at which two arrays differ; returns how many."""
    n = 0
    for k in range(x.shape[0]):
        if x[k] != y[k]:
            out[n] = first + k
            n += 1
    return n


@_compiled
def between(x: np.ndarray, low: float, high: float, first: int, out: np.ndarray) -> int:
    """Write first + k for every k at which a value lies above one level and below another; returns how many."""
    n = 0
    for k in range(x.shape[0]):
        if (x[k] > low) & (x[k] < high):
            out[n] = first + k
            n += 1
    return n
