"""Attribution: how much of an outcome each of several causes makes, taken with and without all the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import xarray as xr

from lpmppl.errors import InputError, nearest
from lpmppl.inference.contrasts import amounts
from lpmppl.inference.policies import FACTUAL, WORLD
from lpmppl.inference.run import run
from lpmppl.models.model import Model

__all__ = ["attribute", "attribute_substeps", "shapley"]

MOST = 6
"""The most causes: every set of them is a world, or a run."""


def shapley(worth: Mapping[frozenset[str], np.ndarray], causes: Sequence[str]) -> dict[str, np.ndarray]:
    r"""Share out the worth of all causes together among them: Shapley's value.

    .. math:: \phi_i = \sum_{S \not\ni i} \frac{|S|!\,(n - |S| - 1)!}{n!} \big(v(S \cup i) - v(S)\big)

    Args:
        worth: v of every set of causes, the empty one too, arrays of one shape.
        causes: their names.
    Returns:
        each one's share; together they are the worth of all less that of none.

    >>> worth = {frozenset(): 0.0, frozenset("a"): 4.0, frozenset("b"): 2.0, frozenset("ab"): 5.0}
    >>> {cause: float(share) for cause, share in shapley(worth, "ab").items()}
    {'a': 3.5, 'b': 1.5}
    """
    n = len(causes)
    found = {}
    for cause in causes:
        others = [c for c in causes if c != cause]
        sets = (frozenset(s) for k in range(n) for s in itertools.combinations(others, k))
        found[cause] = sum(
            math.factorial(len(s))
            * math.factorial(n - len(s) - 1)
            / math.factorial(n)
            * (worth[s | {cause}] - worth[s])
            for s in sets
        )
    return found


def attribute(tree: xr.DataTree, by: str | Sequence[str] = ()) -> xr.Dataset:
    """Share out the effect of policies done together among them.

    Args:
        tree: what `counterfactual` gave with `factorial=True`, for two to six policies.
        by: strata to keep.
    Returns:
        dims (chain, draw, policy, …): each policy's Shapley value of every tally, in its units; in every draw they add
        up to the effect of all policies together.
    Raises:
        InputError: for a result that hasn't every combination of its policies.
    """
    found = amounts(tree, by)
    worlds = [str(w) for w in found[WORLD].values]
    causes = [w for w in worlds[1:] if " + " not in w]
    names = {frozenset(c): " + ".join(c) for k in range(1, len(causes) + 1) for c in itertools.combinations(causes, k)}
    if not 2 <= len(causes) <= MOST or set(worlds) != {FACTUAL, *names.values()}:
        raise InputError("sharing out an effect needs every combination of two to six policies: give factorial=True")

    def share(tally: xr.DataArray) -> xr.DataArray:
        worth = {s: tally.sel({WORLD: name}, drop=True) for s, name in names.items()}
        worth[frozenset()] = tally.sel({WORLD: FACTUAL}, drop=True)
        shares = shapley(worth, causes)  # type: ignore[arg-type]
        joined = xr.concat([shares[c] for c in causes], WORLD)  # type: ignore[misc]
        return joined.assign_coords({WORLD: causes}).assign_attrs(tally.attrs)

    return found.map(share)


def attribute_substeps(
    make: Callable[..., Model],
    substeps: Collection[str],
    outcome: str,
    days: int = 90,
    seed: int = 0,
    **options: object,
) -> xr.Dataset:
    """Share out an outcome among substeps, by leaving every set of them out of the model.

    Args:
        make: what makes the model where it is called with `without=[…]`, such as
            `functools.partial(lpm.nyc.pandemic, people)`.
        substeps: one to six of its substeps.
        outcome: the tally, summed over days and strata.
        days: how many days.
        seed: the seed of the agents' chance, which all these models share site by site.
        options: what else `run` takes.
    Returns:
        over `substep`: `share`, each one's Shapley value, and `alone`, what leaving out it alone changes; the attrs
        `with_all` and `with_none` say what the outcome is with all of them and with none.
    Raises:
        InputError: for a substep that there isn't, that another one reads, or that counts the outcome; for too many.
    """
    names = list(dict.fromkeys(substeps))
    if isinstance(substeps, str) or not 1 <= len(names) <= MOST:
        raise InputError(f"substeps={substeps!r} was given; give one to {MOST} names of substeps")
    # Every model is made before the first is run, so that one that can't be is named at once.
    models = {
        frozenset(left): make(without=[n for n in names if n not in left])
        for k in range(len(names), -1, -1)
        for left in itertools.combinations(names, k)
    }
    for model in models.values():
        if outcome not in model.tallies:
            raise InputError(nearest("tally that is left when these substeps are out", outcome, model.tallies))
    worth = {}
    for left, model in models.items():
        allowed = {k: v for k, v in options.items() if k != "set"}
        values = {k: v for k, v in dict(options.get("set") or {}).items() if k in model.parameters}  # type: ignore[call-overload]
        tally = run(model, days, seed, set=values, **allowed)["prior_predictive"][outcome]  # type: ignore[arg-type]
        worth[left] = np.asarray(float(tally.sum()))
    everything, nothing = worth[frozenset(names)], worth[frozenset()]
    shares = shapley(worth, names)
    return xr.Dataset(
        {
            "share": ("substep", [float(shares[n]) for n in names]),
            "alone": ("substep", [float(everything - worth[frozenset(names) - {n}]) for n in names]),
        },
        {"substep": names},
        {"outcome": outcome, "with_all": float(everything), "with_none": float(nothing)},
    )
