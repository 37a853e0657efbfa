"""What must come of a change that means nothing, or something known: the relations that every model is under."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from chirho.counterfactual.handlers import MultiWorldCounterfactual
from chirho.dynamical.handlers.interruption import StaticIntervention
from torch import Tensor

from lpmppl.inference.findings import Finding
from lpmppl.inference.trials import Trial, Trials, apart, like

__all__ = ["chance", "influence", "null", "responses", "resumed", "spread", "worlds"]

SCALE = "transmission"
"""The part of the environment that scales what agents do to each other, 1 by default."""

NO_POLICIES = "the model has no environment that policies could change"


def chance(trials: Trials) -> Iterator[Finding]:
    """Whether a seed gives the same numbers whatever the global random state is, which is left alone."""
    seen, _, stopped = trials.so_far
    strays = sorted(seen.strays) if seen is not None else []
    found = [Finding("chance", "broken", f"site '{n}'", "it stands outside the agents' plate") for n in strays]
    if stopped is not None:
        yield from found
        raise stopped
    with _shaken(1):
        before = _states()
        one = trials.play()
        after = _states()
    with _shaken(2):
        two = trials.play()
    if not _alike(before, after):
        found.append(
            Finding("chance", "broken", "", "a run draws from the global random state, which it must leave alone")
        )
    if off := apart(one, two):
        words = f"the same seed gives other numbers when the global random state is another: {_some(off)} differ"
        found.append(Finding("chance", "broken", "", words))
    elif off := apart(one, trials.base):
        words = f"a second run with the same seed differs from the first, or from one that is watched, in {_some(off)}"
        found.append(Finding("chance", "broken", "", words))
    yield from found
    if not found:
        yield Finding(
            "chance", "kept", "", "the same seed gives the same bits, and the global random state is left alone"
        )


@contextmanager
def _shaken(seed: int) -> Iterator[None]:
    """Another global random state of torch, NumPy and Python, and what it was afterwards."""
    kept = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])  # noqa: NPY002


def _states() -> tuple[Tensor, Any, Any]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002


def _alike(a: tuple[Tensor, Any, Any], b: tuple[Tensor, Any, Any]) -> bool:
    same = torch.equal(a[0], b[0]) and a[1] == b[1]
    return same and all(np.array_equal(x, y) for x, y in zip(a[2], b[2], strict=True))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def null(trials: Trials) -> Iterator[Finding]:
    """Whether setting the environment to what it is changes nothing, bit for bit."""
    model = trials.model
    acts = [(n, x, trials.at(1 / 2)) for n, x in model.environment.items() if n not in model.pulses]
    if not acts:
        yield Finding("null", "doesn't apply", "", NO_POLICIES)
    elif off := apart(trials.plain, trials.play(acts=acts)):
        yield Finding("null", "broken", "", f"setting the environment to what it is changes {_some(off)}")
    else:
        yield Finding("null", "kept", "", f"{len(acts)} policies that change nothing change no bit")


def worlds(trials: Trials) -> Iterator[Finding]:
    """Whether each of two worlds in one run equals the run of it alone, bit for bit."""
    values = trials.stirred()
    if not values:
        yield Finding("worlds", "doesn't apply", "", NO_POLICIES)
        return
    day, device = torch.tensor(trials.at(1 / 4)), trials.model.population.device

    def act() -> Any:
        return StaticIntervention(day, {n: torch.tensor([x], device=device) for n, x in values.items()})

    both = trials.play(outside=(MultiWorldCounterfactual(first_available_dim=-3),), inside=(act(),))
    alone = trials.plain, trials.play(inside=(act(),))
    found = False
    for k, single in enumerate(alone):
        if off := apart(single, _world(both, k)):
            found = True
            which = "with the policies" if k else "without a policy"
            yield Finding("worlds", "broken", "", f"the world {which} isn't the run of it alone: {_some(off)} differ")
    if not found:
        if not apart(*alone):
            yield Finding("worlds", "warning", "", f"{', '.join(values)} were changed, and nothing came of it")
        yield Finding("worlds", "kept", "", "each of two worlds in one run equals the run of it alone, bit for bit")


def _world(trial: Trial, k: int) -> Trial:
    def take(x: Tensor, least: int) -> Tensor:
        if x.dim() < least:
            return x
        return x.select(-3, k if x.shape[-3] > 1 else 0)

    state = {n: take(x, 3) for n, x in trial.state.items()}
    return Trial(trial.begun, state, {n: take(x, 4) for n, x in trial.series.items()}, trial.stocks)


def resumed(trials: Trials) -> Iterator[Finding]:
    """Whether a run that is stopped and taken up from its state equals the uninterrupted one, bit for bit."""
    half, whole = trials.at(1 / 2), trials.plain
    if not half:
        yield Finding("resumed", "doesn't apply", "", "one step can't be parted")
        return
    first = trials.play(span=(0.0, half))
    rest = trials.play(span=(half, float(trials.days)), state=first.state)
    joined = {n: _joined(first, rest, n) for n in {*first.series} | {*rest.series}}
    if off := apart(whole, Trial(whole.begun, rest.state, joined, whole.stocks)):
        words = f"taken up from its state on day {half:g} it goes on otherwise: {_some(off)} differ"
        yield Finding("resumed", "broken", "", words)
    else:
        yield Finding("resumed", "kept", "", f"taken up from its state on day {half:g} it goes on to the same bits")


def _joined(a: Trial, b: Trial, name: str) -> Tensor:
    parts = [x.series[name] for x in (a, b) if name in x.series]
    return torch.cat(parts) if len({p.shape[1:] for p in parts}) == 1 else parts[0]


def spread(trials: Trials) -> Iterator[Finding]:
    """Whether what spreads stands still without its hazard, and follows its scale."""
    name, model, base = trials.model.spreads, trials.model, trials.base
    seen = base.witness
    assert seen is not None
    if not name or name not in seen.sites:
        if name and name not in seen.sampled:
            words = f"agents are said to act on each other there, and it never came up{like(name, seen.sampled)}"
            yield Finding("spread", "broken", f"site '{name}'", words)
            return
        why = "the model doesn't say at which site agents act on each other" if not name else f"'{name}' has no hazard"
        yield Finding("spread", "doesn't apply", "", why)
        return
    if SCALE not in model.environment:
        yield Finding("spread", "doesn't apply", "", f"the environment has no '{SCALE}' to scale it by")
        return
    where, one, site = f"site '{name}'", model.environment[SCALE], seen.sites[name]
    still = _site(trials.witnessed(acts=[(SCALE, 0.0, 0)]), name)
    bad = []
    if sum(still.events) or sum(still.accrued) > 0:
        words = f"with {SCALE} at 0 there are {sum(still.events)} events and a hazard of {sum(still.accrued):g}"
        bad.append(Finding("spread", "broken", where, words))
    most = max(range(len(site.accrued)), key=site.accrued.__getitem__)
    day = site.days[most]
    if site.accrued[most] > 0:
        twice = _site(trials.witnessed(acts=[(SCALE, 2 * one, day)]), name).accrued[most] / site.accrued[most]
        if abs(twice - 2) > 0.01:
            words = f"with {SCALE} doubled on day {day:g} its hazard that day is {twice:.3f} times as high, not 2"
            bad.append(Finding("spread", "broken", where, words, {"ratio": twice}))
    low, mid, high = (_events(trials, name, factor * one) for factor in (0.5, 1.0, 2.0))
    slack = 3 * max(low, mid, high) ** 0.5
    if low > mid + slack or mid > high + slack:
        words = f"with {SCALE} at {one / 2:g}, {one:g} and {2 * one:g} there are {low}, {mid} and {high} events"
        bad.append(Finding("spread", "broken", where, words))
    yield from bad
    if not bad:
        words = f"no event without its hazard, twice the hazard at twice the scale, and {low} ≤ {mid} ≤ {high} events"
        yield Finding("spread", "kept", where, words)


def _site(trial: Trial, name: str) -> Any:
    assert trial.witness is not None
    return trial.witness.sites[name]


def _events(trials: Trials, name: str, scale: float) -> int:
    runs = (trials.witnessed(acts=[(SCALE, scale, 0)], chance=r) for r in range(trials.replicates))
    return sum(sum(_site(run, name).events) for run in runs)


def responses(trials: Trials) -> Iterator[Finding]:
    """Whether tallies go with parameters and the environment the way the model declares, under common chance."""
    if not trials.model.responses:
        yield Finding("responses", "doesn't apply", "", "the model declares no `responses`")
    known = {*trials.model.parameters, *trials.model.environment}
    for name, signs in trials.model.responses.items():
        if name not in known:
            words = f"the model has no such parameter or part of the environment{like(name, known)}"
            yield Finding("responses", "broken", f"'{name}'", words)
            continue
        low, high = _ends(trials, name, range(1))
        idle = not apart(low[0], high[0])
        counted = {t: sign for t, sign in signs.items() if t in low[0].series and t in high[0].series}
        for tally in {*signs} - {*counted}:
            words = f"it is declared to go with '{name}', and is never counted{like(tally, trials.model.tallies)}"
            yield Finding("responses", "broken", f"tally '{tally}'", words)
        if not idle and not all(_clearly(sign, low[0].total(t), high[0].total(t)) for t, sign in counted.items()):
            # What one draw of chance doesn't show, the others may, unless nothing at all has come of it.
            more = _ends(trials, name, range(1, trials.replicates))
            low, high = low + more[0], high + more[1]
        if any(apart(x, y, state=False) for x, y in zip(low, high, strict=True)):
            trials.moving.add(name)
        found = len(signs) - len(counted)
        for tally, sign in counted.items():
            a, b = (sum(run.total(tally) for run in runs) for runs in (low, high))
            most, numbers, severity = max(abs(a), abs(b)), {"low": a, "high": b}, "broken"
            if sign * (b - a) < -_slack(a, b):
                words = (
                    f"it is declared to {'rise' if sign > 0 else 'fall'} with '{name}', and goes from {a:g} to {b:g}"
                )
            elif a == b and most > 0:
                # What it works on may not have come up, such as a payment of which something is spent.
                nothing = not any(apart(x, y) for x, y in zip(low, high, strict=True))
                then = "nothing at all goes with it" if nothing else f"play longer than {trials.days} days"
                severity = "warning"
                words = f"it is declared to go with '{name}', and is {a:g} whatever that is: {then}"
            else:
                continue
            found += 1
            yield Finding("responses", severity, f"tally '{tally}'", words, numbers)
        if not found:
            yield Finding("responses", "kept", f"'{name}'", f"{', '.join(signs)} go with it as declared")


def _slack(a: float, b: float) -> float:
    return 0.01 * max(abs(a), abs(b)) + 1.0


def _clearly(sign: int, a: float, b: float) -> bool:
    """Whether a total goes the way it is declared to, by more than what is let pass the other way."""
    return sign * (b - a) > _slack(a, b)


def _ends(trials: Trials, name: str, chances: range) -> tuple[list[Trial], list[Trial]]:
    """Runs with a low and with a high value of a parameter or of part of the environment, with the same chance."""
    if name in trials.model.parameters:
        low, high = _values(trials, name)
        thetas = ({**trials.theta, name: x} for x in (low, high))
        return tuple([trials.play(theta=t, chance=r) for r in chances] for t in thetas)  # type: ignore[return-value]
    pulse = name in trials.model.pulses
    low_limit, high_limit = trials.model.limits.get(name, (0.0, math.inf))
    day, bottom = (trials.at(1 / trials.days) if pulse else 0.0), max(low_limit, 0.0)
    value = 500.0 if pulse else high_limit if math.isfinite(high_limit) else trials.other(name)
    if trials.model.environment[name] > 0:
        bottom, value = trials.other(name), trials.model.environment[name]
    acts = ([(name, x, day)] for x in (bottom, value))
    return tuple([trials.play(acts=a, chance=r) for r in chances] for a in acts)  # type: ignore[return-value]


def _values(trials: Trials, name: str) -> tuple[float, float]:
    """Two values of a parameter that its prior allows, below and above the one it has."""
    x, support = trials.theta[name], trials.model.parameters[name].prior.support
    high = 1.5 * x
    if not bool(support.check(torch.tensor(high))):
        high = x + (1 - x) / 2
    return 0.5 * x, high


def influence(trials: Trials) -> Iterator[Finding]:
    """Whether every parameter and every part of the environment changes anything at all."""
    model, idle = trials.model, []
    # What `responses` saw to move a tally needn't be played again.
    for name in {*model.parameters} - trials.moving:
        changed = trials.play(theta={**trials.theta, name: _values(trials, name)[1]})
        if not apart(trials.plain, changed):
            idle.append(f"parameter '{name}'")
    for name in {*model.environment} - trials.moving:
        value = 500.0 if name in model.pulses else trials.other(name)
        if not apart(
            trials.plain,
            trials.play(acts=[(name, value, trials.at(min(1, trials.days - 1) / trials.days))]),
            state=False,
        ):
            idle.append(f"environment '{name}'")
    for where in sorted(idle):
        yield Finding("influence", "warning", where, f"another value of it changes nothing in {trials.days} days")
    if not idle:
        yield Finding("influence", "kept", "", "every parameter and every part of the environment changes something")
