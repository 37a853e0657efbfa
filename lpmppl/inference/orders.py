"""Whether the order of substeps matters where it mustn't, how much where it may, and whether shorter steps agree."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from lpmppl.effects.handlers.verify import Site
from lpmppl.errors import InputError
from lpmppl.inference.findings import Finding
from lpmppl.inference.trials import Stopped, Trial, Trials, apart
from lpmppl.models.substep import Substep, compose
from lpmppl.typing import Dynamics

__all__ = ["by_steps", "halving", "order"]

TOLERANCE = 0.05
"""Relative change of a tally's total above which the order of two substeps is warned of."""

_SHUFFLES = 3
_STEADY = 1.3
"""Factor by which a total changes with each halving of the step where it is in proportion to a power of the step."""


def order(trials: Trials) -> Iterator[Finding]:
    """Whether substeps that share no key can change places, and what it does where they do share one."""
    parts = trials.substeps
    if len(parts) < 2:
        why = "the day is of one piece: it declares no substeps" if not parts else "there is one substep"
        yield Finding("order", "doesn't apply", "", why)
        return
    plain = _played(trials, parts, trials.dt)
    if plain is None or apart(plain, trials.base):
        yield Finding("order", "doesn't apply", "", "the model's day does more than its substeps one after another")
        return
    for k in range(len(parts) - 1):
        yield _swap(trials, parts, k, plain)
    yield from _shuffles(trials, parts, plain)


def _played(trials: Trials, parts: Sequence[Substep], dt: float) -> Trial | None:
    """A run of substeps in an order; None where one then reads what isn't there yet."""

    def day(_: object) -> Dynamics:
        return compose(*parts)

    key = ("order", dt, *(part.name for part in parts))
    try:
        return trials.kept(*key, dynamics=day, dt=dt)
    except Stopped as stopped:
        if isinstance(stopped.error, KeyError | InputError):
            # So does a model that has no step of this length.
            return None
        raise


def _shared(a: Substep, b: Substep) -> list[str]:
    """The keys that one writes and the other reads or writes."""
    first, second = {*a.reads, *a.writes}, {*b.reads, *b.writes}
    return sorted(({*a.writes} & second) | ({*b.writes} & first))


def _swap(trials: Trials, parts: Sequence[Substep], k: int, plain: Trial) -> Finding:
    a, b = parts[k], parts[k + 1]
    swapped = [*parts[:k], b, a, *parts[k + 2 :]]
    where, keys = f"'{a.name}' and '{b.name}'", _shared(a, b)
    said = ", ".join(f"'{key}'" for key in keys)
    other = _played(trials, swapped, trials.dt)
    if other is None:
        words = f"'{b.name}' reads on the first day what only '{a.name}' brings"
        return Finding("order", "kept" if keys else "broken", where, words)
    if not keys:
        if off := apart(plain, other):
            words = (
                f"they declare no key in common, and yet in the other order {_some(off)} differ: a hidden dependence"
            )
            return Finding("order", "broken", where, words)
        return Finding("order", "kept", where, "they share no key, and in either order give the same bit for bit")
    worst, name = _effect(trials, plain, other)
    if worst <= TOLERANCE:
        words = f"by {said} they depend on each other; their order moves no total by more than {worst:.1%}"
        return Finding("order", "kept", where, words, {"effect": worst})
    half, turned = _played(trials, parts, trials.dt / 2), _played(trials, swapped, trials.dt / 2)
    finer = _effect(trials, half, turned, name)[0] if half is not None and turned is not None else worst
    then = "it resolves as the step shrinks" if finer <= 0.7 * worst else "it doesn't resolve as the step shrinks"
    words = (
        f"by {said} they depend on each other, and their order moves '{name}' by {worst:.1%}; with half the step by "
        f"{finer:.1%}: {then}"
    )
    return Finding("order", "warning", where, words, {"effect": worst, "half": finer})


def _effect(trials: Trials, a: Trial, b: Trial, name: str = "") -> tuple[float, str]:
    """The greatest relative change of a tally's total, beyond what a few events can make, and the tally."""
    worst, which = 0.0, name
    for tally in [name] if name else a.series:
        if tally not in b.series:
            return 1.0, tally
        x, y = a.total(tally), b.total(tally)
        most = max(abs(x), abs(y))
        change = max(abs(x - y) - (0.0 if name else trials.noise(tally, x, y)), 0.0) / most if most else 0.0
        if change > worst:
            worst, which = change, tally
    if which and not name:
        x, y = a.total(which), b.total(which)
        worst = abs(x - y) / max(abs(x), abs(y))
    return worst, which


def _shuffles(trials: Trials, parts: Sequence[Substep], plain: Trial) -> Iterator[Finding]:
    """Orders drawn at random among those in which parts that share keys stay as they are."""
    chance, orders = random.Random(trials.seed), []
    for _ in range(_SHUFFLES):
        left, mixed = list(parts), []
        while left:
            free = [p for k, p in enumerate(left) if not any(_shared(q, p) for q in left[:k])]
            mixed.append(chance.choice(free))
            left.remove(mixed[-1])
        if [p.name for p in mixed] != [p.name for p in parts] and mixed not in orders:
            orders.append(mixed)
    if not orders:
        yield Finding("order", "doesn't apply", "", "the keys that substeps share leave one order of all of them")
    for mixed in orders:
        other = _played(trials, mixed, trials.dt)
        said = ", ".join(p.name for p in mixed)
        off = ["everything"] if other is None else apart(plain, other)
        if off:
            words = f"the order {said} keeps all that depends on each other, and yet {_some(off)} differ"
            yield Finding("order", "broken", "", words)
        else:
            yield Finding("order", "kept", "", f"the order {said} gives the same bit for bit")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def halving(trials: Trials) -> Iterator[Finding]:
    r"""Whether totals and hazards settle as the step is halved twice, with the same resistances.

    With the totals :math:`T_1, T_{1/2}, T_{1/4}` the estimated order is :math:`\log_2 |T_1 - T_{1/2}| / |T_{1/2} -
    T_{1/4}|`. Totals that go on changing by a constant factor are in proportion to a power of the step: a rate was
    multiplied by it twice, or not at all.
    """
    if by_steps(trials):
        words = "nothing of it reads how long a step is, `dt`: a step is a period of its own, which has no half"
        yield Finding("halving", "warning", "", words)
        return
    steps = [trials.dt / 2**k for k in range(3)]
    try:
        runs = [trials.base, *(trials.witnessed(dt=dt) for dt in steps[1:])]
    except Stopped as stopped:
        if not isinstance(stopped.error, InputError):
            raise
        yield Finding("halving", "doesn't apply", "", f"it refuses a shorter step: {stopped.error}")
        return
    found = 0
    for what, name, values in _measures(runs):
        a, b, c = values
        noise = max(trials.noise(name, *values) if name in trials.base.series else 0.0, 0.02 * max(values))
        first, second = abs(b - a), abs(c - b)
        if max(values) <= 0 or max(first, second) <= noise:
            continue
        factors = [(x / y if x and y else float("inf")) for x, y in ((b, a), (c, b))]
        said = ", ".join(f"{v:g} at {dt:g}" for v, dt in zip(values, steps, strict=True))
        numbers = {f"dt={dt:g}": v for v, dt in zip(values, steps, strict=True)}
        steady = min(factors) > _STEADY or max(factors) < 1 / _STEADY
        if steady and second > noise and _as_far(factors):
            found += 1
            words = f"it changes by a constant factor as the step is halved ({said} days): it doesn't converge"
            yield Finding("halving", "broken", what, words, numbers)
        elif second > max(0.75 * first, noise):
            found += 1
            yield Finding("halving", "warning", what, f"it doesn't settle as the step is halved: {said} days", numbers)
    if not found:
        yield Finding(
            "halving",
            "kept",
            "",
            f"totals and hazards settle at steps of {steps[0]:g}, {steps[1]:g}, {steps[2]:g} days",
        )


def by_steps(trials: Trials) -> bool:
    """Whether neither the day nor any substep reads the length of the step."""
    seen, read = trials.base.witness, set[str]()
    if seen is not None and any("dt" in turns.read for turns in seen.substeps.values()):
        return False

    class Noting(dict[str, Tensor]):
        def __getitem__(self, key: str) -> Tensor:
            read.add(key)
            return super().__getitem__(key)

    def watched(theta: Mapping[str, Tensor]) -> Dynamics:
        day = trials.model.day(theta)
        return lambda s: day(Noting(s))

    trials.play(watched, span=(0.0, trials.dt))
    return "dt" not in read


def _as_far(factors: Sequence[float]) -> bool:
    """Whether the second factor is no nearer to 1 than the first, but for a tenth."""
    first, second = (max(f, 1 / f) if f else float("inf") for f in factors)
    return second > 0.9 * first


def _measures(runs: Sequence[Trial]) -> Iterator[tuple[str, str, list[float]]]:
    for name in runs[0].series:
        if all(name in run.series for run in runs):
            yield f"tally '{name}'", name, [abs(run.total(name)) for run in runs]
    witnesses = [run.witness for run in runs]
    for name in witnesses[0].sites if witnesses[0] else ():
        sites = [w.sites[name] for w in witnesses if w is not None and name in w.sites]
        if len(sites) == len(runs):
            yield f"hazard of '{name}'", "", [_met(site) for site in sites]


def _met(site: Site) -> float:
    """The hazard that one who was always at risk would have met over the run."""
    return sum(site.accrued) * len(site.at_risk) / max(sum(site.at_risk), 1)
