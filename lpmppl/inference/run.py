"""Run a model: the first question, what happens?"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import xarray as xr
from chirho.dynamical.handlers.interruption import StaticIntervention
from torch import Tensor

from lpmppl._compat import (
    Messenger,
    handler_stack,
    interruptions_renewed,
)
from lpmppl.effects.handlers.behaviour import Utility
from lpmppl.effects.handlers.noise import ExogenousNoise
from lpmppl.effects.handlers.per_agent import PerAgent
from lpmppl.effects.handlers.record import Record
from lpmppl.effects.handlers.sharded import Sharded
from lpmppl.effects.handlers.time import DiscreteTime
from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError
from lpmppl.inference.checks import ONE_AT_A_TIME, Act, begun, checked, whole
from lpmppl.inference.results import tree_of
from lpmppl.inference.side_by_side import cores, side_by_side
from lpmppl.inference.sources import Who
from lpmppl.inference.spread import Spread, code, parts_of, together
from lpmppl.models.model import Model
from lpmppl.models.population import Population

__all__ = ["drawn", "each_apart", "installed", "playing", "run", "simulated"]


STACK = ("torch", "pyro-ppl", "chirho", "numpy", "xarray", "lpmppl")


def run(
    model: Model,
    days: int = 90,
    seed: int = 0,
    *,
    set: Mapping[str, float] | None = None,
    interventions: Sequence[Act] = (),
    draws: int | None = None,
    start: str = "",
    progress: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 30,
    resume: str | Path | None = None,
    sources: Mapping[str, str] | None = None,
) -> xr.DataTree:
    """Simulate a model day by day, and give its tallies with the parameters behind them.

    Handlers around the call, such as ChiRho's `MultiWorldCounterfactual` with `StaticIntervention`, act on every draw
    of the run. Parameters are no sites of the run: say them in `set`, or call the model as a program under `condition`.
    Where there are none around it, draws of some length are run by a process for each core, on Linux.

    Args:
        model: the society.
        days: how many days, 1 or more.
        seed: the seed of the agents' chance, and of the priors where parameters are drawn.
        set: values of parameters, by name; the others have their defaults, or are drawn.
        interventions: `(name, value, day)`: from that day on, a part of the environment has that value, a number or,
            where the model has words for it, a word.
        draws: how many times to draw parameters from their priors and the agents' chance anew; None for one run at the
            defaults.
        start: the ISO date of day 0, for the results; by default the model's own, where it has one.
        progress: show a progress bar on stderr.
        checkpoint: a file to write the run to every `checkpoint_every` days, for a single run.
        checkpoint_every: days between checkpoints.
        resume: a checkpoint to go on from; the result is that of the uninterrupted run.
        sources: variables of agents or households, by the name of their dimension, by which it is recorded who infected
            whom; None not to.
    Returns:
        a DataTree with the groups `prior` (parameters; chain, draw), `prior_predictive` (tallies; chain, draw, worlds,
        day and strata) and `constant_data` (residents by stratum), which ArviZ reads; with `sources` also the group
        `sources`, see `lpmppl.inference.sources`.
    Raises:
        InputError: for a name, value, day or file that can't be used; the nearest valid name is said.

    >>> import lpmppl as lpm
    >>> model = lpm.nyc.sir(lpm.nyc.population(1_000))
    >>> plain = run(model, days=10, seed=0)
    >>> closed = run(model, days=10, seed=0, interventions=[("transmission", 0.0, 5)])  # the same chance
    >>> new, fewer = (tree["prior_predictive"]["infections"].sum(["borough", "age"])[0, 0] for tree in (plain, closed))
    >>> bool((new[:5] == fewer[:5]).all()), int(fewer[5:].sum())
    (True, 0)
    """
    fixed, acts = checked(model, days, seed, set or {}, interventions, draws, start)
    days, seed = int(days), int(seed)
    whole("checkpoint_every", checkpoint_every, 1)
    if resume and checkpoint and Path(resume) != Path(checkpoint):
        raise InputError(f"resume={resume} goes on in its own file; leave checkpoint={checkpoint} out")
    if resume and not Path(resume).exists():
        raise InputError(f"there is no checkpoint {resume} to resume from")
    file = resume or checkpoint
    path = Path(file) if file else None
    if path is not None and sources is not None:
        raise InputError(
            f"from whom events came isn't kept with a checkpoint: leave {path} or sources={dict(sources)} out"
        )
    if path is not None and (draws or 1) > 1:
        raise InputError(f"a checkpoint is of one run, but draws={draws} was given; leave one of them out")
    thetas = drawn(model, fixed, draws, seed)
    solver = {"checkpoint": path, "every": checkpoint_every, "resume": resume is not None}
    attrs = {"start": start, "parameters": json.dumps(thetas[0] if draws is None else fixed)}
    who = None if sources is None else Who(model, sources)
    spread = Spread(model.population, len(thetas), model.name, model.variant, days, seed, thetas, acts)

    def some(draws: Sequence[int], bar: bool) -> xr.DataTree:
        each = [thetas[k] for k in draws]
        return simulated(model, each, draws, days, seed, acts, attrs, bar, solver, who)

    return spread.whole(each_apart(some, spread.mine, model.population, days, progress, who is None and path is None))


def each_apart(
    piece: Callable[[Sequence[int], bool], xr.DataTree],
    draws: Sequence[int],
    people: Population,
    days: int,
    progress: bool,
    can: bool,
    worlds: int = 1,
) -> xr.DataTree:
    """Do the draws of a run, a process for each core where that pays and nobody's handlers see it.

    Args:
        piece: the results of some draws, with a progress bar or without.
        draws: which draws.
        people: the people of the run.
        days: how many days.
        progress: show a progress bar on stderr.
        can: whether pieces keep nothing here but what they give.
        worlds: how many worlds each draw has.
    """
    at_once = cores(people, days * len(draws) * worlds, worlds) if can and not handler_stack() else 1
    if min(at_once, len(draws)) < 2:
        return piece(draws, progress)
    began = time.perf_counter()
    with ONE_AT_A_TIME, _bar(progress, days * len(draws)) as tick:
        done = None if tick is None else lambda n: tick(n * days)
        parts = side_by_side(lambda k: parts_of(piece(draws[k : k + 1], False)), len(draws), at_once, done)
    tree = together(parts, range(len(draws)))
    for node in tree.subtree:
        if "seconds" in node.attrs:
            node.attrs["seconds"] = time.perf_counter() - began
    return tree


def simulated(
    model: Model,
    thetas: Sequence[Mapping[str, float]],
    chances: Sequence[int],
    days: int,
    seed: int,
    acts: Sequence[Sequence[Any]] = (),
    attrs: Mapping[str, Any] = MappingProxyType({}),
    progress: bool = False,
    solver: Mapping[str, Any] = MappingProxyType({}),
    who: Who | None = None,
    noises: Sequence[ExogenousNoise] = (),
) -> xr.DataTree:
    """Simulate a model once for every draw, as `run` does once it has read what it was given.

    Args:
        model: the society.
        thetas: the parameters of each draw, all of them.
        chances: which draw of the agents' chance each one has.
        days: how many days.
        seed: the seed of the agents' chance.
        acts: interventions: name, value and day.
        attrs: what the result is to say of itself besides.
        progress: show a progress bar on stderr.
        solver: the solver's checkpoint, its interval and whether to resume.
        who: what records who infected whom.
        noises: the noise of each draw, by default that of its chance.
    """
    path = solver.get("checkpoint")
    people = model.population.checksum if path else 0
    tag = json.dumps(
        [installed("lpmppl"), model.name, model.variant, people, seed, days, thetas[0], acts], sort_keys=True
    )
    if (ranks := model.population.ranks) is not None:
        ranks.agree("the run's days and parameters", code(days, [sorted(theta.items()) for theta in thetas]))
    records: list[Record] = []
    began = time.perf_counter()
    bar = _bar(progress, days * len(thetas))
    with ONE_AT_A_TIME, torch.no_grad(), bar as tick, interruptions_renewed() as renew:
        for number, (values, chance) in enumerate(zip(thetas, chances, strict=True)):
            theta = {name: torch.tensor(value, device=model.population.device) for name, value in values.items()}
            renew()
            done = None if tick is None else lambda n, _, before=number * days: tick(before + n)
            clock = DiscreteTime(progress=done, tag=tag, part=model.population.part, **solver)
            outside = () if who is None else (who.handler(),)
            noise = noises[number] if noises else None
            with playing(model, seed, chance, acts, clock, outside, noise=noise) as record:
                records.append(record)
                simulate(
                    model.day(theta), begun(model, model.initial(theta)), torch.tensor(0.0), torch.tensor(float(days))
                )
    said = {
        **provenance(model),
        "days": days,
        "seed": seed,
        "seconds": time.perf_counter() - began,
        "interventions": json.dumps(acts),
        **attrs,
    }
    said["start"] = said.get("start") or getattr(model, "start", "")
    tree = tree_of(model, thetas, records, days, said)
    if who is not None:
        tree["sources"] = xr.DataTree(who.dataset(days))
    return tree


@contextmanager
def playing(
    model: Model,
    seed: int,
    chance: int | Tensor,
    acts: Sequence[Sequence[Any]],
    solver: DiscreteTime,
    outside: Sequence[Messenger] = (),
    inside: Sequence[Messenger] = (),
    noise: ExogenousNoise | None = None,
) -> Iterator[Record]:
    """The handlers of a run, with the record of its tallies; one run at a time.

    Args:
        model: the society.
        seed: the seed of the agents' chance.
        chance: which draw of it, a number, or integers of shape (D, 1) for D rows.
        acts: interventions: name, value and day.
        solver: the solver.
        outside: handlers that stand outside the solver.
        inside: handlers that stand inside the agents' noise.
        noise: the agents' noise, by default that of the seed and draw.
    """
    _check_shared(model)
    if (ranks := model.population.ranks) is not None:
        ranks.agree("the run's model, chance and interventions", code(model.name, model.variant, seed, chance, acts))
    with ONE_AT_A_TIME, ExitStack() as stack:
        stack.enter_context(PerAgent(model.population.size))
        record = stack.enter_context(Record())
        for handler in outside:
            stack.enter_context(handler)
        stack.enter_context(solver)
        stack.enter_context(ExogenousNoise(seed, chance) if noise is None else noise)
        if model.behaviour and not any(hasattr(h, "_pyro_decide") for h in handler_stack()):
            stack.enter_context(Utility(model.behaviour))
        for handler in inside:
            stack.enter_context(handler)
        for name, value, day in acts:
            given = torch.tensor([value], device=model.population.device)
            stack.enter_context(StaticIntervention(torch.tensor(float(day)), {name: given}))
        yield record


def _check_shared(model: Model) -> None:
    """Refuse a part of the people whose sums nobody adds up, and sums over ranks that have all people each."""
    adds_up = any(isinstance(handler, Sharded) for handler in handler_stack())
    ranks = model.population.ranks
    if ranks is not None and not adds_up:
        raise InputError(
            f"the model's people are those of rank {ranks.rank} of {ranks.count}: run it within `with Sharded(ranks):`"
        )
    if adds_up and ranks is None:
        raise InputError("every rank has all of the people, who would be counted by each: give it people.shard(ranks)")


def drawn(model: Model, fixed: Mapping[str, float], draws: int | None, seed: int) -> list[dict[str, float]]:
    """The parameters of every draw; the global random state is as it was afterwards."""
    if draws is None:
        return [{n: fixed.get(n, p.default) for n, p in model.parameters.items()}]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sampled = {n: p.prior.sample((draws,)).tolist() for n, p in model.parameters.items()}
    return [{n: fixed.get(n, sampled[n][d]) for n in model.parameters} for d in range(draws)]


def provenance(model: Model) -> dict[str, Any]:
    """What a result is of, and was made with."""
    people = model.population
    return {
        "agents": people.everybody,
        "model": model.name,
        "agents_are": str(people.dataset.attrs.get("agents_are", "people")),
        "population": people.name,
        "population_provenance": str(people.dataset.attrs.get("provenance", "{}")),
        "device": str(people.device),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "lpmppl_version": installed("lpmppl"),
        "versions": json.dumps({name: installed(name) for name in STACK}),
    }


@cache
def installed(name: str) -> str:
    """The version of an installed package, in words where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@contextmanager
def _bar(show: bool, total: int) -> Iterator[Callable[[int], None] | None]:
    """A progress bar in days on stderr."""
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TextColumn("days"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)
