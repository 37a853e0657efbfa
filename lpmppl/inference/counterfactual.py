"""What if: the same people with the same chance, with and without policies."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import xarray as xr
from chirho.counterfactual.handlers import MultiWorldCounterfactual

from lpmppl.effects.handlers.guided import Observations
from lpmppl.effects.handlers.stratified import told
from lpmppl.errors import InputError
from lpmppl.inference import policies as plans
from lpmppl.inference.abduction import MOST, Abduction, abducted
from lpmppl.inference.checks import MOST_DRAWS, ONE_AT_A_TIME, alone, checked, whole
from lpmppl.inference.contrasts import with_effects
from lpmppl.inference.flows import Flows
from lpmppl.inference.memory import check_worlds
from lpmppl.inference.policies import FACTUAL, WORLD, Act, Policy
from lpmppl.inference.run import drawn, each_apart, simulated
from lpmppl.inference.sources import Who
from lpmppl.inference.spread import Spread
from lpmppl.inference.strata import strata
from lpmppl.inference.triggers import InForce
from lpmppl.inference.weights import weighted
from lpmppl.inference.worlds import UnderPolicies
from lpmppl.models.model import Model
from lpmppl.models.networks import Groups

__all__ = ["counterfactual", "worlds_of"]

_KEPT = 16
"""What a number of a tally takes with its effects, in bytes."""


def counterfactual(
    model: Model,
    do: Any,
    at: int | Sequence[int] | None = None,
    days: int = 90,
    seed: int = 0,
    *,
    draws: int | None = None,
    replicates: int = 1,
    posterior: xr.DataTree | None = None,
    observed: Observations | None = None,
    guided: int = 16,
    set: Mapping[str, float] | None = None,
    interventions: Sequence[tuple[str, float | str, int]] = (),
    factorial: bool = False,
    by: Mapping[str, str] | None = None,
    sources: Mapping[str, str] | None = None,
    start: str = "",
    progress: bool = False,
) -> xr.DataTree:
    """Say what would have become of the same people, with the same chance, under other policies.

    One run holds every alternative as a world beside the world as it was; they share the days before one of them does
    something, and all of every person's chance, so that what differs between them is the policy's doing. It is ChiRho's
    `MultiWorldCounterfactual` around `run`, with one index of worlds, `policy`.

    Args:
        model: the society.
        do: the policies, as `lpmppl.inference.policies.policies` reads them: `{"stimulus": 500.0}`, a sweep
            `{"stimulus": [250.0, 500.0]}`, acts with their own days `[("stimulus", 500.0, 30), …]`, or policies by name
            `{"cheque": [("stimulus", 500.0, 30)], …}`; a value may be a `Trigger`.
        at: the day, or days to sweep over, of values in `do` that have none.
        days: how many days, 1 or more.
        seed: the seed of the agents' chance, and of the parameters where they are drawn.
        draws: how many times parameters are drawn, from the posterior or else from their priors; None for once at the
            defaults.
        replicates: how many times the agents' chance is drawn anew for each of them, which tells what is uncertain by
            chance from what is by parameters.
        posterior: a DataTree with a group `posterior`, from which parameters are drawn.
        observed: by hazard site, such as "infection", how many events there were on each day from the first on, NaN
            where that wasn't seen, or how many were `lpm.Reported`; or those of each stratum, as a DataArray over
            `day` and strata of the model. The world as it was then has just these, and the
            others what would have become of the same people with the chance that they must have had (`lpmppl.
            inference.abduction`). A posterior must be one given the same, as that of `lpm.calibrate_exactly` is. It is
            for some 100,000 people or fewer.
        guided: how many runs with these events are made for each draw, of which it gets one by how likely they are.
        set: values of parameters, by name, that aren't drawn.
        interventions: `(name, value, day)`: what is done in every world.
        factorial: whether the policies are also combined with each other in every way.
        by: variables of agents or households by the name of their dimension, by which individual outcomes are counted;
            borough, age and income band by default, where the population has them.
        sources: variables by which it is recorded who infected whom in each world, as in `run`; None not to.
        start: the ISO date of day 0, for the results.
        progress: show a progress bar on stderr.
    Returns:
        a DataTree as `run` gives it, whose tallies have the dimension `policy`, with the groups `effects`,
        `effects_daily` and `effects_by_<stratum>`, which `contrast` explains, and `flows`: of each outcome, how many
        people had it as it was and would have had it (chain, draw, policy, strata, was, would); where outcomes are
        averted at a price, `costs`, as `cost_per` gives it; where policies have triggers, `triggers`, the days on
        which they are in force. With `observed`, draws have the coordinate `weight` where some count for more than
        others, and the attrs `guided_runs` and `effective_runs`, what those are worth.
    Raises:
        InputError: for a policy, name, value, day or posterior that can't be used, and for more policies at once than
            fit into memory, with how many do.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> tree = counterfactual(model, {"transmission": [0.5, 0.0]}, at=2, days=8, set={"initial_infected": 0.05})
    >>> tree["prior_predictive"]["infections"].coords["policy"].values.tolist()
    ['as it was', 'transmission=0.5@2', 'transmission=0@2']
    >>> effect = tree["effects"]["infections"].sel(estimate="mean")
    >>> bool(effect[1] < effect[0] < 0)
    True
    """
    chosen = plans.policies(do, at)
    chosen = plans.factorial(chosen) if factorial else chosen
    fixed, always = checked(model, days, seed, set or {}, interventions, draws, start)
    days, seed, replicates = int(days), int(seed), whole("replicates", replicates, 1)
    thetas = drawn(model, fixed, draws, seed) if posterior is None else _posterior(model, posterior, fixed, draws, seed)
    attrs: dict[str, Any] = {
        "start": start,
        "parameters": json.dumps(thetas[0] if draws is None and posterior is None else fixed),
        "policies": json.dumps({p.name: [str(act) for act in p.acts] for p in chosen}),
        "interventions": json.dumps(always),
        "draws_from": "posterior" if posterior is not None else "defaults" if draws is None else "prior",
    }
    if len(thetas) * replicates > MOST_DRAWS:
        raise InputError(f"{len(thetas)} draws of replicates={replicates} each are over {MOST_DRAWS:,}: give fewer")
    whose = [k for k in range(len(thetas)) for _ in range(replicates)]
    acts = [Act(str(n), v, int(d)) for n, v, d in always]
    each = [thetas[k] for k in whose]
    who = None if sources is None else Who(model, sources)
    abduction = None
    if observed is not None:
        alone("lpm.counterfactual")
        _asked(model, chosen, acts, days, by)
        guided = whole("guided", guided, 2)
        if len(whose) * guided > MOST:
            raise InputError(f"{len(whose)} draws of guided={guided} runs each are more than {MOST:,}: give fewer")
        if posterior is None and draws is not None:
            # Runs choose among draws of the parameters too.
            thetas = drawn(model, fixed, draws * guided, seed)
        fitted = posterior is not None
        abduction = abducted(model, observed, thetas, len(whose), guided, days, seed, always, fitted)
        whose = abduction.whose
        each = [thetas[k] for k in whose]
        attrs |= {
            **told(abduction.series),
            "guided_runs": abduction.runs,
            "effective_runs": abduction.effective,
        }
    chances = range(len(each))
    return worlds_of(model, chosen, acts, each, chances, whose, days, seed, by, attrs, progress, who, abduction)


def worlds_of(
    model: Model,
    chosen: Sequence[Policy],
    always: Sequence[Act],
    thetas: Sequence[Mapping[str, float]],
    chances: Sequence[int],
    whose: Sequence[int],
    days: int,
    seed: int,
    by: Mapping[str, str] | None = None,
    attrs: Mapping[str, Any] = MappingProxyType({}),
    progress: bool = False,
    who: Who | None = None,
    abduction: Abduction | None = None,
) -> xr.DataTree:
    """Run the worlds of policies once for every draw, as `counterfactual` does once it has read what it was given.

    Args:
        model: the society.
        chosen: the policies.
        always: what is done in every world.
        thetas: the parameters of each draw.
        chances: which draw of the agents' chance each one has.
        whose: which draw of the parameters each one has.
        days: how many days.
        seed: the seed of the agents' chance.
        by: by what individual outcomes are counted.
        attrs: what the result is to say of itself.
        progress: show a progress bar on stderr.
        who: what records who infected whom.
        abduction: the noises of draws that are as was seen, and what they count for.
    """
    alone("lpm.counterfactual")
    under, kinds = _asked(model, chosen, always, days, by)
    cells = math.prod(len(labels) for labels in model.by.dims.values()) if model.by else 1
    plan = [(policy.name, *map(str, policy.acts)) for policy in chosen], [*map(str, always)]
    asked = model.name, model.variant, days, seed, thetas, *plan
    spread = Spread(model.population, len(thetas), *asked, worlds=len(chosen))
    names = [FACTUAL, *(policy.name for policy in chosen)]
    if len(here := spread.worlds_of(chosen)) < len(chosen):
        under = UnderPolicies(model, here, always, days)
    worlds = [FACTUAL, *(policy.name for policy in here)]
    under.begun = partial(
        check_worlds,
        people=model.population.size,
        results=_KEPT * days * cells * len(model.tallies) * len(thetas),
        sources=who is not None,
    )

    def some(draws: Sequence[int], bar: bool) -> xr.DataTree:
        counted, turned = Flows(model.outcomes, kinds, WORLD, worlds), InForce(under.triggers)
        with ONE_AT_A_TIME, ExitStack() as stack:
            stack.enter_context(MultiWorldCounterfactual(first_available_dim=-3))
            stack.enter_context(counted)
            stack.enter_context(turned)
            noises = [abduction.noises[k] for k in draws] if abduction else ()
            own = [thetas[k] for k in draws], [chances[k] for k in draws]
            tree = simulated(under, *own, days, seed, (), attrs, bar, who=who, noises=noises)
        of = ("draw", [whose[k] for k in draws])
        for group in ("prior", "prior_predictive", *(["sources"] if who else [])):
            found = tree[group].to_dataset().assign_coords(parameters=of)
            if group != "prior":
                if WORLD not in found.dims:  # nothing was ever done
                    found = found.expand_dims({WORLD: len(worlds)}, 2)
                found = found.assign_coords({WORLD: worlds})
            tree[group] = xr.DataTree(found)
        if any(counted.counts.values()):
            tree["flows"] = xr.DataTree(counted.dataset().assign_coords(parameters=of))
        if turned.draws:
            tree["triggers"] = xr.DataTree(turned.dataset(days).assign_coords(parameters=of))
        return tree

    can = who is None and abduction is None
    tree = each_apart(some, spread.mine, model.population, days, progress, can, len(worlds))
    tree = spread.whole(tree, names)
    if abduction is not None and len({*abduction.weights.tolist()}) > 1:
        tree = weighted(tree, abduction.weights)
    return with_effects(tree)


def _asked(
    model: Model, chosen: Sequence[Policy], always: Sequence[Act], days: int, by: Mapping[str, str] | None
) -> tuple[UnderPolicies, Groups]:
    """The model under its policies and the strata of its outcomes, or what is wrong with them."""
    kinds = strata(model.population, by)
    if taken := {*model.outcomes} & {*kinds.dims}:
        raise InputError(f"a stratum can't be called '{min(taken)}': that is an outcome; give by= another name for it")
    return UnderPolicies(model, chosen, always, days), kinds


def _held(model: Model, tree: xr.DataTree) -> dict[str, float]:
    """The parameters that a calibration held, at the values that it held them at."""
    try:
        held = json.loads(str(tree.attrs.get("set", "{}")))
    except json.JSONDecodeError:
        return {}
    found = {n: x for n, x in held.items() if n in model.parameters} if isinstance(held, dict) else {}
    for name, x in found.items():
        number = isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)
        if not number or not bool(model.parameters[name].prior.support.check(torch.tensor(float(x)))):
            raise InputError(f"the posterior held {name} at {x!r}, which can't be by the model's prior")
    return found


def _posterior(
    model: Model, tree: xr.DataTree, fixed: Mapping[str, float], draws: int | None, seed: int
) -> list[dict[str, float]]:
    """Parameters of draws from a posterior, without replacement as far as it reaches."""
    if not isinstance(tree, xr.DataTree) or "posterior" not in tree.children:
        kind = ", ".join(map(str, getattr(tree, "children", ()))) or type(tree).__name__
        raise InputError(f"a DataTree with a group 'posterior' is needed, but {kind} was given")
    found = tree["posterior"].to_dataset()
    # What a calibration held is part of what it found.
    fixed = {**_held(model, tree), **fixed}
    wanted = [name for name in model.parameters if name not in fixed]
    if missing := [name for name in wanted if name not in found]:
        raise InputError(
            f"the posterior lacks {', '.join(missing)}, which the model has; fit the whole model, or say values in set="
        )
    for name in wanted:
        if {*found[name].dims} != {"chain", "draw"} or not found[name].size or found[name].dtype.kind not in "iuf":
            raise InputError(
                f"the posterior's {name} has dims {found[name].dims} and {found[name].size} values of "
                f"{found[name].dtype}; it must be numbers over chain and draw"
            )
        values = torch.from_numpy(found[name].to_numpy().astype("float32"))
        bad = ~(model.parameters[name].prior.support.check(values) & torch.isfinite(values))
        if bool(bad.any()):
            raise InputError(
                f"the posterior's {name} has {float(values[bad][0]):g}, which can't be by the model's prior"
            )
    samples = found[wanted].stack(sample=("chain", "draw")) if wanted else None
    size = samples.sizes["sample"] if samples is not None else 1
    number = size if draws is None else whole("draws", draws, 1)
    generator = torch.Generator().manual_seed(seed)
    order = [int(i) for _ in range(-(-number // size)) for i in torch.randperm(size, generator=generator)][:number]
    drawn_from = {name: samples[name].to_numpy() for name in wanted} if samples is not None else {}
    return [{n: fixed[n] if n in fixed else float(drawn_from[n][i]) for n in model.parameters} for i in order]
