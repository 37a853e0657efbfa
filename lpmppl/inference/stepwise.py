"""What must hold after every step: numbers, exposures, balances and tallies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lpmppl.effects.cohorts import dense
from lpmppl.effects.handlers.record import Record
from lpmppl.effects.handlers.verify import Witness
from lpmppl.errors import InputError
from lpmppl.inference.findings import Finding
from lpmppl.inference.meanings import Ledger, laws
from lpmppl.inference.orders import by_steps
from lpmppl.inference.trials import Each, Stopped, Trial, Trials, like, line
from lpmppl.models.model import Model
from lpmppl.models.substep import CLOCK
from lpmppl.typing import State

__all__ = ["steps_kept"]


class _Book:
    """What is kept of every step, and what was broken first."""

    def __init__(
        self,
        model: Model,
        note: Callable[[str, str, str, float], None],
        whole: Callable[..., None],
        meanings: Ledger,
        witness: Witness,
    ) -> None:
        self.model, self.note, self.whole = model, note, whole
        self.meanings, self.witness = meanings, witness
        self.steps = 0

    def __call__(self, before: State, after: State, record: Record) -> None:
        t = float(before["t"])
        self.steps += 1
        self.whole(before, after)
        self._environment(before, after, t)
        for name, law in laws(self.model.balances).items():
            self._balance(name, law, before, after, t)
        for name, read in laws(self.model.accounts).items():
            self._account(name, read, before, after, record, t)
        counted = dict(self.witness.observed)
        for name, series in record.series.items():
            self._tally(name, series, t)
            if series.days[-1] == t:
                counted[name] = series.entries[-1].double().sum() * (series.quantum or 1.0)
        self.meanings.enter(before, after, counted)
        # What isn't drawn or decided in a step isn't left from another.
        self.witness.observed.clear()

    def _environment(self, before: State, after: State, t: float) -> None:
        for name in self.model.environment:
            if name not in after:
                self.note(f"environment '{name}'", "it is lost", "the state no longer has it", t)
            elif name not in self.model.pulses and not torch.equal(before[name].squeeze(), after[name].squeeze()):
                seen = f"{_first(before[name])} before, {_first(after[name])} after"
                self.note(f"environment '{name}'", "the model changes it, which only policies may", seen, t)
        for key in before:
            if key not in after and key not in CLOCK:
                self.note(f"key '{key}'", "it is lost", "the state no longer has it", t)

    def _balance(self, name: str, law: Callable[[State, State], Tensor], before: State, after: State, t: float) -> None:
        off = self._read(f"balance '{name}'", law, before, after, t)
        if off is None:
            return
        wrong = ~(off.abs() < 1e-3) if off.is_floating_point() else off != 0
        if bool(wrong.any()):
            seen = f"{int(wrong.sum())} of {wrong.numel()} are out, such as by {_first(off[wrong])}"
            self.note(f"balance '{name}'", "it doesn't hold", seen, t)

    def _read(self, where: str, law: Callable[[State, State], Any], before: State, after: State, t: float) -> Any:
        """What a law of the model says of two states; None where it says nothing, which is noted."""
        try:
            return torch.as_tensor(dense(law(before, after))).detach()
        except Exception as e:  # noqa: BLE001 (a law that can't be asked is a finding)
            what = (
                "it reads what the state doesn't have"
                if isinstance(e, KeyError)
                else f"it stops with {type(e).__name__}"
            )
            self.note(where, what, line(e, {*before, *after}), t)
            return None

    def _account(
        self, name: str, read: Callable[[State, State], Tensor], before: State, after: State, record: Record, t: float
    ) -> None:
        series = record.series.get(name)
        if series is None or series.days[-1] != t:
            return
        unit = series.quantum or 1.0
        counted = series.entries[-1].double().sum() * unit
        read_off = self._read(f"tally '{name}'", read, before, after, t)
        if read_off is None:
            return
        read_off = read_off.double()
        # Amounts that aren't whole are rounded for everybody by themselves, and kept in single precision.
        amount = float(read_off.sum())
        slack = 0.0 if unit == 1.0 else 1e-3 * abs(amount) + 0.5 * unit * read_off.numel()
        if abs(float(counted) - amount) > slack:
            seen = f"{float(counted):g} counted, {amount:g} in the state"
            self.note(f"tally '{name}'", "it isn't what the state says", seen, t)

    def _tally(self, name: str, series: Any, t: float) -> None:
        if series.days[-1] != t:
            return
        last, where = series.entries[-1], f"tally '{name}'"
        if name not in self.model.tallies:
            self.note(where, "the model doesn't declare it", "it is counted", t)
        if name not in self.model.units and bool((last < 0).any()):
            self.note(where, "it is below 0", f"{int(last.min())} in a stratum", t)
        people = self.model.population.everybody
        total = int(last.sum()) * (series.quantum or 1.0)
        if name not in self.model.units and total > people:
            self.note(where, "it counts more than there are people", f"{total:g} of {people}", t)


def _first(x: Tensor) -> str:
    value = x.flatten()[0].item()
    return f"{value:g}" if isinstance(value, float) else str(value)


def steps_kept(trials: Trials) -> Iterator[Finding]:
    """Whether every step keeps what it must: at the defaults, in other draws, under policies and at half the step."""
    yield from _one(trials, "", theta=trials.theta)
    for number, theta in enumerate(trials.draws, 1):
        yield from _one(trials, f" in draw {number} of the parameters", theta=theta)
    acts = [(name, x, trials.at(1 / 4)) for name, x in trials.stirred().items()]
    if acts:
        yield from _one(trials, " under policies", theta=trials.theta, acts=acts)
    if not trials.stops and not by_steps(trials):
        yield from _one(trials, f" at steps of {trials.dt / 2:g} days", theta=trials.theta, acts=acts, dt=trials.dt / 2)


def _one(trials: Trials, which: str, **how: Any) -> Iterator[Finding]:
    noted: dict[tuple[str, str], tuple[str, float]] = {}

    def note(where: str, what: str, seen: str, t: float) -> None:
        noted.setdefault((where, what), (seen, t))

    books: list[_Book] = []

    def watch(witness: Witness) -> Each:
        def whole(before: State, after: State) -> None:
            # What substeps leave has been looked at; invariants are of substeps, where there are such.
            changes = {k: x for k, x in after.items() if k not in CLOCK}
            (witness.numbers if witness.substeps else witness.check)("the day", before, changes)

        theta = trials.tensors(how["theta"])
        books.append(_Book(trials.model, note, whole, Ledger(trials.model, theta), witness))
        return books[0]

    trial: Trial | Stopped
    try:
        trial = trials.witnessed(watch, **how)
    except Stopped as stopped:
        if "dt" in how and isinstance(stopped.error, InputError):
            yield Finding("state", "doesn't apply", "", f"it refuses a shorter step: {stopped.error}")
            return
        trial = stopped
    if not which:
        trials.keep("base", trial)
    seen, (book,) = trial.witness, books
    assert seen is not None
    for breach in seen.breaches:
        kind = "exposures" if breach.site else "state"
        what = "site" if kind == "exposures" else "substep"
        where = breach.where if breach.where == "the day" else f"{what} '{breach.where}'"
        yield Finding(kind, "broken", where, f"{breach.what} on day {breach.day:g}{which}: {breach.seen}")
    for (where, what), (words, t) in noted.items():
        kind = "tallies" if where.startswith("tally") else "balances" if where.startswith("balance") else "state"
        yield Finding(kind, "broken", where, f"{what} on day {t:g}{which}: {words}")
    wrong = list(book.meanings.findings(which))
    yield from wrong
    if isinstance(trial, Stopped):
        # Each of the four says that nothing is known of the days that didn't come.
        yield trials.tell("state", trial)
        for check in ("exposures", "balances", "tallies", "meanings") if not which else ():
            yield trials.tell(check, trial)
        return
    for name in sorted({*trials.model.tallies} - {*trial.series}):
        if trials.days >= 7 and not which:
            yield Finding("tallies", "broken", f"tally '{name}'", f"the model declares it and never counts it{which}")
    if not which:
        yield from _unmet(trials, book.meanings, trial)
    if seen.breaches or noted or wrong:
        return
    yield from _kept(trials, seen.sites, book, which)


def _unmet(trials: Trials, ledger: Ledger, trial: Trial) -> Iterator[Finding]:
    """The meanings of which nothing is known, and why."""
    model = trials.model
    seen = trial.witness
    assert seen is not None
    declared = {key for part in trials.substeps for key in (*part.reads, *part.writes)}
    sites = {f"{site}: {what}" for site in seen.sampled for what in ("mean", "variance", "who")}
    known = {*trial.begun, *trial.state, *declared, *CLOCK, *model.tallies, *model.parameters, *sites, *ledger.counted}
    for name in laws(model.meanings):
        if name in ledger.sums:
            continue
        key = ledger.missing.get(name)
        if key is None:
            yield Finding("meanings", "doesn't apply", f"'{name}'", "nothing came up that it could be said of")
        elif key in known:
            yield Finding("meanings", "doesn't apply", f"'{name}'", f"'{key}' never came up")
        else:
            words = f"it reads '{key}', which no part that plays has as a key, tally or site{like(key, known)}"
            yield Finding("meanings", "warning", f"'{name}'", words)


def _kept(trials: Trials, sites: Mapping[str, Any], book: _Book, which: str) -> Iterator[Finding]:
    model, steps = trials.model, book.steps
    words = f"every value is a number of its type, and policies' keys are theirs, {steps} steps{which}"
    yield Finding("state", "kept", "", words)
    if which:
        return
    if sites:
        words = f"{len(sites)} hazards go on from where they stood, each event once an episode{which}"
        yield Finding("exposures", "kept", "", words)
    else:
        yield Finding("exposures", "doesn't apply", "", "nothing is driven by a hazard")
    if model.balances:
        yield Finding("balances", "kept", "", f"{', '.join(model.balances)}: after every step{which}")
    else:
        yield Finding("balances", "doesn't apply", "", "the model declares no `balances`")
    if met := book.meanings.sums:
        words = f"{len(met)} of {len(model.meanings)} were met and are so: {', '.join(met)}"
        yield Finding("meanings", "kept", "", words)
    else:
        why = "the model declares no `meanings`" if not model.meanings else "none of them was met"
        yield Finding("meanings", "doesn't apply", "", why)
    words = f"people are counted from 0 to their number; {len(model.accounts)} of {len(model.tallies)}"
    yield Finding("tallies", "kept", "", f"{words} are what the state says{which}")
