"""Attribution: how much of an outcome each of several causes makes, taken with and without all the others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from lpmppl._compat import Message, Messenger
from lpmppl.effects.fields import Network
from lpmppl.effects.handlers.silenced import Silenced
from lpmppl.errors import InputError, nearest
from lpmppl.inference.checks import alone
from lpmppl.inference.contrasts import amounts
from lpmppl.inference.policies import AND, FACTUAL, WORLD
from lpmppl.inference.run import run
from lpmppl.inference.sources import layers_of
from lpmppl.inference.strata import strata
from lpmppl.models.model import Model

__all__ = ["attribute", "attribute_groups", "attribute_layers", "attribute_substeps", "shapley"]

Outcome = str | Callable[[xr.Dataset], float]

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

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> plans = {"early": [("transmission", 0.5, 1)], "late": [("transmission", 0.0, 4)]}
    >>> tree = lpm.counterfactual(model, plans, days=8, factorial=True, set={"initial_infected": 0.05})
    >>> share = attribute(tree)["infections"].sum("policy").mean()
    >>> both = tree["effects"]["infections"].sel(estimate="mean", policy="early + late")
    >>> bool(abs(share - both) < 1e-6)
    True
    """
    found = amounts(tree, by)
    worlds = [str(w) for w in found[WORLD].values]
    causes = [w for w in worlds[1:] if AND not in w]
    names = {frozenset(c): AND.join(c) for k in range(1, len(causes) + 1) for c in itertools.combinations(causes, k)}
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
    outcome: Outcome,
    days: int = 90,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    """Share out an outcome among substeps, by leaving every set of them out of the model.

    Args:
        make: what makes the model where it is called with `without=[…]`, such as
            `functools.partial(lpm.nyc.pandemic, people)`.
        substeps: one to six of its substeps.
        outcome: a tally, summed over days and strata, or a function of the tallies of a run to a number.
        days: how many days.
        seed: the seed of the agents' chance, which all these models share site by site.
        options: what else `run` takes.
    Returns:
        over `substep`: `share`, each one's Shapley value, and `alone`, what leaving out it alone takes away; the attrs
        `with_all` and `with_none` say what the outcome is with all of them and with none.
    Raises:
        InputError: for a substep that there isn't, that another one reads, or that counts the outcome; for too many.

    >>> from functools import partial
    >>> import lpmppl as lpm
    >>> make = partial(lpm.nyc.pandemic, lpm.nyc.population(1_000))
    >>> found = attribute_substeps(make, ["vaccination"], "infections", days=2)
    >>> float(found["share"].sum()) == found.attrs["with_all"] - found.attrs["with_none"]
    True
    """
    alone("attribution")
    names = _causes("substeps", substeps)
    # Every model is made before the first is run, so that one that can't be is named at once.
    models = {left: make(without=[n for n in names if n not in left]) for left in _sets(names)}
    for model in models.values():
        if isinstance(outcome, str) and outcome not in model.tallies:
            raise InputError(nearest("tally that is left when these substeps are out", outcome, model.tallies))
    given, acts = dict(options.get("set") or {}), list(options.get("interventions") or ())

    def worth(left: frozenset[str]) -> float:
        model, values, done = models[left], given, acts
        # The whole model comes first, and refuses what none of them has; what goes with a substep does nothing then.
        if len(left) < len(names):
            values = {k: v for k, v in given.items() if k in model.parameters}
            done = [act for act in acts if act[0] in model.environment]
        return _outcome(run(model, days, seed, **{**options, "set": values, "interventions": done}), outcome)

    return _shared_out("substep", names, worth, outcome)


def attribute_layers(
    model: Model,
    outcome: Outcome,
    layers: Collection[str] = (),
    days: int = 90,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    """Share out an outcome among the layers of contact, by silencing every set of them.

    Args:
        model: the society.
        outcome: a tally, summed over days and strata, or a function of the tallies of a run to a number.
        layers: as `sources` names them: networks, or where their groups are of several kinds, the kinds, such as
            `school`; all by default.
        days: how many days.
        seed: the seed of the agents' chance, which all runs share.
        options: what else `run` takes.
    Returns:
        over `layer`: `share`, each one's Shapley value, and `alone`, what silencing it alone takes away; the attrs
        `with_all` and `with_none` say what the outcome is with all of them and with none.
    Raises:
        InputError: for a layer or outcome that there isn't; for more than six layers.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.seirm(lpm.nyc.population(1_000))
    >>> found = attribute_layers(model, "infections", ["household", "school"], 10, set={"initial_infected": 0.05})
    >>> float(found["share"].sum()) == found.attrs["with_all"] - found.attrs["with_none"]
    True
    """
    known = layers_of(model, _networks(model, seed))
    if not layers and len(known) > MOST:
        raise InputError(f"this model has {len(known)} layers: name up to {MOST} of {', '.join(known)} in layers=")
    names = _causes("layers", layers or list(known))
    for name in names:
        if name not in known:
            raise InputError(nearest("layer", name, known))
    senders = {name: known[name] for name in names}
    return _silenced_in_turn("layer", senders, model, outcome, days, seed, options)


def attribute_groups(
    model: Model,
    outcome: Outcome,
    by: str,
    days: int = 90,
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    """Share out an outcome among groups of people, by letting every set of them pass nothing on.

    Args:
        model: the society.
        outcome: a tally, summed over days and strata, or a function of the tallies of a run to a number.
        by: a variable of agents or of their households, such as `borough`.
        days: how many days.
        seed: the seed of the agents' chance, which all runs share.
        options: what else `run` takes.
    Returns:
        over the variable: `alone`, what silencing a group alone takes away, and, for up to six groups, `share`, each
        one's Shapley value; the attrs say what the outcome is `with_all` of them, and for up to six `with_none`.
    Raises:
        InputError: for a variable or outcome that there isn't.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.seirm(lpm.nyc.population(1_000))
    >>> found = attribute_groups(model, "infections", by="sex", days=10, set={"initial_infected": 0.05})
    >>> float(found["share"].sum()) == found.attrs["with_all"] - found.attrs["with_none"]
    True
    """
    if not isinstance(by, str):
        raise InputError(f"by={by!r} was given; give the name of one variable of the people")
    groups = strata(model.population, {by: by})
    _networks(model, seed)
    senders = {name: (None, groups.index == k) for k, name in enumerate(groups.dims[by])}
    return _silenced_in_turn(by, senders, model, outcome, days, seed, options)


def _silenced_in_turn(
    dim: str,
    senders: Mapping[str, tuple[str | None, Tensor | None]],
    model: Model,
    outcome: Outcome,
    days: int,
    seed: int,
    options: Mapping[str, Any],
) -> xr.Dataset:
    """Share out an outcome among senders, each a network and whose messages over it they are, by silencing them."""

    def worth(left: frozenset[str]) -> float:
        with ExitStack() as stack:
            for name in senders.keys() - left:
                stack.enter_context(Silenced(*senders[name]))
            return _outcome(run(model, days, seed, **options), outcome)

    return _shared_out(dim, list(senders), worth, outcome)


def _causes(what: str, given: Collection[str]) -> list[str]:
    fit = isinstance(given, Collection) and not isinstance(given, str) and all(isinstance(x, str) for x in given)
    names = list(dict.fromkeys(given)) if fit else []
    if not 1 <= len(names) <= MOST:
        raise InputError(f"{what}={given!r} was given; give one to {MOST} names of {what}")
    return names


def _sets(names: Sequence[str]) -> list[frozenset[str]]:
    """Every set of causes, all of them first."""
    return [frozenset(s) for k in range(len(names), -1, -1) for s in itertools.combinations(names, k)]


def _outcome(tree: xr.DataTree, outcome: Outcome) -> float:
    tallies = tree["prior_predictive"].to_dataset()
    if isinstance(outcome, str):
        if outcome not in tallies:
            raise InputError(nearest("tally", outcome, [str(n) for n in tallies.data_vars]))
        return float(tallies[outcome].sum()) / (tallies.sizes["chain"] * tallies.sizes["draw"])
    if not callable(outcome):
        raise InputError(f"outcome={outcome!r} was given; give a tally's name, or a function of the tallies")
    try:
        value = np.asarray(outcome(tallies))
    except Exception as e:
        raise InputError(f"the outcome can't be evaluated: {type(e).__name__}: {e}") from e
    if value.size != 1 or value.dtype.kind not in "biuf" or not np.isfinite(value).all():
        raise InputError(f"the outcome gave {value}; it must give one finite number")
    return float(value.reshape(()))


def _shared_out(
    dim: str, names: Sequence[str], worth: Callable[[frozenset[str]], float], outcome: Outcome
) -> xr.Dataset:
    """Each cause's Shapley value where there are few, and what the outcome loses without it alone."""
    everything = frozenset(names)
    few = len(names) <= MOST
    wanted = _sets(names) if few else [everything, *(everything - {n} for n in names)]
    found = {left: np.asarray(worth(left)) for left in wanted}
    values = {"alone": [float(found[everything] - found[everything - {n}]) for n in names]}
    attrs = {"outcome": outcome if isinstance(outcome, str) else getattr(outcome, "__name__", "outcome")}
    attrs["with_all"] = float(found[everything])
    if few:
        shares = shapley(found, names)
        values = {"share": [float(shares[n]) for n in names], **values}
        attrs["with_none"] = float(found[frozenset()])
    return xr.Dataset({what: (dim, x) for what, x in values.items()}, {dim: list(names)}, attrs)


class _Named(Messenger):
    """Note the networks that messages go over."""

    def __init__(self) -> None:
        super().__init__()
        self.networks: dict[str, Network] = {}

    def _pyro_aggregate(self, msg: Message) -> None:
        network = msg["args"][1]
        self.networks[network.name] = network


def _networks(model: Model, seed: int) -> dict[str, Network]:
    """The networks that messages go over on the first day of a model."""
    alone("attribution")
    with _Named() as noted:
        run(model, 1, seed)
    if not noted.networks:
        raise InputError(f"nobody sends anything to anybody in the model '{model.name}'")
    return noted.networks
