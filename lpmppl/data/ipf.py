"""Iterative proportional fitting (raking) and its maximum-entropy sister for linear totals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lpmppl.errors import InputError

__all__ = ["rake", "tilt"]

Array = NDArray[np.float64]


def rake(
    seed: Array,
    margins: Sequence[tuple[NDArray[np.int64], Array]],
    tolerance: float = 1e-9,
    sweeps: int = 1000,
) -> Array:
    """Scale `seed` until every margin holds, keeping its odds ratios (Deming and Stephan 1940).

    A margin is `(groups, totals)`: `groups` has the shape of `seed` (or broadcasts to it) and says to which
    total each cell belongs. The result is the table nearest to `seed` in relative entropy.

    Raises InputError if a group with a positive total has no positive cell, or if the margins contradict one another.

    >>> import numpy as np
    >>> rows, columns = np.indices((2, 2))
    >>> rake(np.ones((2, 2)), [(rows, np.array([3.0, 1.0])), (columns, np.array([2.0, 2.0]))])
    array([[1.5, 1.5],
           [0.5, 0.5]])
    """
    table = np.array(seed, dtype=np.float64, order="C")
    flat = [
        (np.broadcast_to(groups, table.shape).ravel(), np.asarray(totals, np.float64)) for groups, totals in margins
    ]
    for groups, totals in flat:
        empty = np.flatnonzero((totals > 0) & (np.bincount(groups, table.ravel(), totals.size) <= 0))
        if empty.size:
            raise InputError(f"raking: total {empty[0]} is {totals[empty[0]]:g} but no cell of the seed can carry it")
    cells = table.reshape(-1)
    worst = np.inf
    for _ in range(sweeps):
        worst = 0.0
        for groups, totals in flat:
            current = np.bincount(groups, cells, totals.size)
            factor = np.divide(totals, current, out=np.zeros_like(totals), where=current > 0)
            worst = max(worst, float(np.max(np.abs(current - totals) / np.maximum(totals, 1.0))))
            cells *= factor[groups]
        if worst <= tolerance:
            return table
    raise InputError(f"raking: the margins contradict one another (off by {worst:.2g} after {sweeps} sweeps)")


def tilt(
    seed: Array, features: Array, totals: Array, start: Array | None = None, steps: int = 200
) -> tuple[Array, Array]:
    """Weights `w_pt = seed_t exp(features_t · λ_p)` with `Σ_t w_pt features_t = totals_p`, and λ.

    For each p the weights nearest to `seed` in relative entropy among those with these linear totals, by Newton's
    method on the dual `Σ_t w_pt − totals_p · λ_p`. `seed` (T,), `features` (T, F), `totals` (P, F), `start` the λ to
    begin from (P, F); the weights are (P, T).

    Raises InputError if no positive weights have these totals.

    >>> import numpy as np
    >>> sizes = np.array([1.0, 2.0, 3.0])
    >>> w, _ = tilt(np.ones(3), np.stack([np.ones(3), sizes], axis=1), np.array([[3.0, 6.6]]))
    >>> (w @ sizes).round(6)
    array([6.6])
    """
    scale = np.maximum(np.abs(features).max(axis=0), 1e-12)
    x, goal = features / scale, totals / scale
    lam = np.zeros_like(goal) if start is None else start * scale
    enough = 1e-8 * np.maximum(1.0, np.abs(goal).max(axis=1))

    def weights(at: Array) -> Array:
        return seed * np.exp(np.minimum(at @ x.T, 500.0))

    def dual(at: Array) -> Array:
        return weights(at).sum(axis=1) - (goal * at).sum(axis=1)

    for _ in range(steps):
        found = weights(lam)
        gradient = found @ x - goal
        if np.all(np.abs(gradient).max(axis=1) <= enough):
            return found, lam / scale
        hessian = np.einsum("pt,tf,tg->pfg", found, x, x, optimize=True)
        move = np.einsum("pfg,pg->pf", np.linalg.pinv(hessian, rcond=1e-13, hermitian=True), gradient)
        step, here = np.ones(len(goal)), dual(lam)
        # Near the optimum the dual stands still in floating point: only a real rise halves the step.
        while np.any(rises := dual(lam - step[:, None] * move) > here + 1e-12 * (1.0 + np.abs(here))):
            step = np.where(rises, step / 2, step)
            if step.min() < 1e-8:
                break
        lam = lam - step[:, None] * move
    worst = int(np.argmax(np.abs(weights(lam) @ x - goal).max(axis=1)))
    raise InputError(
        f"no positive weights have the totals {np.array2string(totals[worst], precision=4)}; check the table"
    )
