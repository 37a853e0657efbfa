"""What a model declares, held against one run: keys, units, time scales, and whether anything happened at all."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import torch

from lpmppl.inference.findings import Finding
from lpmppl.inference.trials import Trials
from lpmppl.models.model import Parameter
from lpmppl.models.substep import CLOCK, Substep

__all__ = ["coverage", "declarations", "scales", "units", "writers"]

ONE_PIECE = "the day is of one piece: it declares no substeps"
_LIKELY = 0.01
"""Share of the agents at risk above which an event more likely than not says that the step is too long."""

_RARELY = 0.005
"""Probability of a prior outside 0 … 1 from which a share's is wrong."""

_SHARES = re.compile(r"^(share|probability|chance|fraction|proportion)\b")
_AMOUNTS = re.compile(r"(^|\b)(per|days?|dollars?|factor|rate|transmissions|contacts|events)\b")


def declarations(trials: Trials) -> Iterator[Finding]:
    """Whether every substep reads and writes what it declares, and every key has one writer and a reader."""
    parts = trials.substeps
    if not parts:
        yield Finding("declarations", "doesn't apply", "", ONE_PIECE)
        return
    seen, begun, stopped = trials.so_far
    if seen is None:
        assert stopped is not None
        yield trials.tell("declarations", stopped)
        return
    broken: list[Finding] = []
    for part in parts:
        turns = seen.substeps.get(part.name)
        if turns is None:
            continue
        reads, writes = {*part.reads, *CLOCK}, {*part.writes}
        words = [f"reads '{key}' and doesn't declare it" for key in sorted(turns.read - reads - writes)]
        words += [f"writes '{key}' and doesn't declare it" for key in sorted(turns.wrote - writes)]
        never = sorted(writes - turns.wrote) if turns.turns else ()
        words += [f"declares to write '{key}' and never did in {turns.turns} turns" for key in never]
        broken += [_of(part, said) for said in words]
    yield from broken
    yield from _nowhere(trials, set(begun))
    if stopped is not None:
        # What a run that ends early doesn't read or write, it may have read or written later.
        yield trials.tell("declarations", stopped)
        return
    yield from _unused(trials, set(begun))
    if not broken:
        yield Finding(
            "declarations",
            "kept",
            "",
            f"{len(parts)} substeps read and write what they declare",
        )


def _of(part: Substep, words: str, severity: str = "broken") -> Finding:
    return Finding("declarations", severity, f"substep '{part.name}'", words)


def writers(trials: Trials) -> Iterator[Finding]:
    """Whether every substep has a name of its own, and every key one writer: what can be said before a run."""
    parts = trials.substeps
    if not parts:
        yield Finding("writers", "doesn't apply", "", ONE_PIECE)
        return
    found = list(_twice(parts))
    yield from found
    if not found:
        yield Finding("writers", "kept", "", f"{len(parts)} substeps, and one writer of every key")


def _twice(parts: tuple[Substep, ...]) -> Iterator[Finding]:
    writer: dict[str, str] = {}
    names: set[str] = set()
    for part in parts:
        if part.name in names:
            yield replace(_of(part, "two substeps have this name"), check="writers")
        names.add(part.name)
        for key in part.writes:
            if key in writer:
                yield replace(_of(part, f"writes '{key}', which '{writer[key]}' writes too"), check="writers")
            writer.setdefault(key, part.name)


def _nowhere(trials: Trials, given: set[str]) -> Iterator[Finding]:
    """Keys that are declared as read and never there."""
    written = {key for part in trials.substeps for key in part.writes}
    for part in trials.substeps if given else ():
        for key in sorted({*part.reads} - given - written - {*CLOCK}):
            yield _of(part, f"reads '{key}', which neither the start gives nor a substep writes")


def _unused(trials: Trials, given: set[str]) -> Iterator[Finding]:
    """Keys that nobody reads, or that are declared as read and weren't."""
    seen = trials.base.witness
    assert seen is not None
    written = {key for part in trials.substeps for key in part.writes}
    read = {key for turns in seen.substeps.values() for key in turns.read}
    for part in trials.substeps:
        turns = seen.substeps.get(part.name)
        if turns is not None and (idle := sorted({*part.reads} - turns.read - {*part.writes} - {*CLOCK})):
            yield _of(part, f"declares to read {_list(idle)} and didn't in {turns.turns} turns", "warning")
    outcomes = _outcomes(trials)
    for key in sorted(given - read - outcomes):
        if key in trials.model.environment:
            yield Finding("declarations", "warning", f"environment '{key}'", "no substep reads it: policies do nothing")
        elif key not in written:
            yield Finding(
                "declarations", "warning", f"key '{key}'", "the start gives it, and no substep reads or writes it"
            )


def _outcomes(trials: Trials) -> set[str]:
    """The keys that outcomes read."""

    class Noting(dict[str, torch.Tensor]):
        def __getitem__(self, key: str) -> torch.Tensor:
            read.add(key)
            return super().__getitem__(key)

    read: set[str] = set()
    for what in trials.model.outcomes.values():
        # What an outcome can't read is said where names are.
        with suppress(KeyError):
            what(Noting(trials.base.state))
    return read


def _list(names: list[str]) -> str:
    return ", ".join(f"'{n}'" for n in names)


def units(trials: Trials) -> Iterator[Finding]:
    """Whether every number says its unit, and its prior and default can be of that unit."""
    model, wrong = trials.model, 0
    for name, p in model.parameters.items():
        for severity, words in _unit(p):
            wrong += severity == "broken"
            yield Finding("units", severity, f"parameter '{name}'", words)
    for name, value in model.environment.items():
        low, high = model.limits.get(name, (-math.inf, math.inf))
        # Below 0 stands for what was recorded, where there is such.
        if not (low <= value <= high or value < 0 <= low) or (name in model.options and value < 0):
            wrong += 1
            words = f"its value at the start, {value:g}, lies outside its limits {low:g} … {high:g}"
            yield Finding("units", "broken", f"environment '{name}'", words)
    for name in sorted({*model.units} - {*model.tallies}):
        wrong += 1
        yield Finding("units", "broken", f"tally '{name}'", "it has a unit, and the model has no such tally")
    for name, words in model.tallies.items():
        if not str(words).strip():
            yield Finding("units", "warning", f"tally '{name}'", "it isn't said what it counts")
    if not wrong:
        yield Finding("units", "kept", "", f"{len(model.parameters)} parameters can be what their units say")


def _unit(p: Parameter) -> Iterator[tuple[str, str]]:
    if not p.units.strip():
        yield "warning", "it has no unit"
    if not p.source.strip():
        yield "warning", "it isn't said where its default comes from"
    support = p.prior.support
    if not bool(support.check(torch.tensor(p.default))):
        yield "broken", f"its default {p.default:g} lies outside its prior's support"
    low, high = (_bound(support, end) for end in ("lower_bound", "upper_bound"))
    share, amount = bool(_SHARES.search(p.units)), bool(_AMOUNTS.search(p.units))
    if share and not (low >= 0 and high <= 1):
        outside = _outside(p)
        words = f"it is a {p.units}, and its prior reaches from {low:g} to {high:g}: {outside:.1%} of it are no share"
        yield ("broken" if outside > _RARELY else "warning"), words
    if amount and not share and low < 0:
        yield "broken", f"it counts {p.units}, and its prior reaches from {low:g}"
    if share and re.search(r"\brate\b", p.description):
        yield "warning", "a share is called a rate"


def _outside(p: Parameter) -> float:
    """The probability that a prior gives to what is no share, of 1,000 draws."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = p.prior.sample((1000,))
    return float(((x < 0) | (x > 1)).double().mean())


def _bound(support: object, end: str) -> float:
    base = getattr(support, "base_constraint", support)
    value = getattr(base, end, None)
    return (-math.inf if end == "lower_bound" else math.inf) if value is None else float(torch.as_tensor(value).min())


def scales(trials: Trials) -> Iterator[Finding]:
    """Whether the parts' periods fit the step and each other, and the step the hazards."""
    seen, _, stopped = trials.so_far
    found = False
    writer = {key: part for part in trials.substeps for key in part.writes}
    for part in trials.substeps:
        if abs(part.every / trials.dt - round(part.every / trials.dt)) > 1e-6:
            found = True
            words = f"its period of {part.every} days is no multiple of the step of {trials.dt:g} days"
            yield Finding("scales", "broken", f"substep '{part.name}'", words)
        slow: dict[str, list[str]] = {}
        for key in part.reads:
            other = writer.get(key)
            if other is not None and other is not part and other.every > part.every:
                slow.setdefault(other.name, []).append(key)
        for name, keys in slow.items():
            found, old = True, next(p.every for p in trials.substeps if p.name == name) - 1
            words = f"reads {_list(sorted(keys))} every {part.every} days, up to {old} days after '{name}' wrote it"
            yield Finding("scales", "warning", f"substep '{part.name}'", words, {"days": float(old)})
    for name, site in seen.sites.items() if seen is not None else ():
        risk, likely = sum(site.at_risk), sum(site.likely)
        if risk and likely > _LIKELY * risk:
            found = True
            words = (
                f"in a turn the event is more likely than not for {likely / risk:.0%} of those at risk: a turn is too "
                "long for this process"
            )
            yield Finding("scales", "warning", f"site '{name}'", words, {"share": likely / risk})
    if stopped is not None:
        yield trials.tell("scales", stopped)
    elif not found:
        yield Finding("scales", "kept", "", f"every period and hazard fits a step of {trials.dt:g} days")


def coverage(trials: Trials) -> Iterator[Finding]:
    """Whether there was something to see: turns, events and tallies."""
    base, seen = trials.base, trials.base.witness
    assert seen is not None
    quiet = 0
    for part in trials.substeps:
        if part.name not in seen.substeps:
            quiet += 1
            yield Finding("coverage", "warning", f"substep '{part.name}'", f"it had no turn in {trials.days} days")
    for name, site in seen.sites.items():
        if not sum(site.events):
            quiet += 1
            yield Finding("coverage", "warning", f"site '{name}'", "nothing happened: play longer, or say more in set=")
    for name in trials.model.tallies:
        if name in base.series and not bool(base.series[name].any()):
            quiet += 1
            yield Finding("coverage", "warning", f"tally '{name}'", "it stayed 0, so that nothing is known of it")
    if not quiet:
        yield Finding("coverage", "kept", "", "every substep had a turn, every site an event and every tally a count")
