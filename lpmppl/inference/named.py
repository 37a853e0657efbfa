"""Whether every name that a model's declarations use is one that the model has."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from lpmppl.inference.findings import Finding
from lpmppl.inference.trials import Stopped, Trials, like, line

__all__ = ["named"]

_CALLED = ("outcomes", "balances", "accounts", "meanings")


def named(trials: Trials) -> Iterator[Finding]:
    """Whether responses, accounts, limits, outcomes and what spreads are of what the model has."""
    found = [*_shapes(trials)]
    if not found:
        found = [*_of_policies(trials), *_of_tallies(trials), *_outcomes(trials), *_spreads(trials)]
    yield from found
    if not any(f.severity == "broken" for f in found):
        yield Finding("names", "kept", "", "every name in the model's declarations is one that it has")


def _broken(where: str, words: str) -> Finding:
    return Finding("names", "broken", where, words)


def _lacks(where: str, kind: str, name: object, names: Collection[str]) -> Finding:
    """That a declaration names what the model doesn't have, and what may have been meant."""
    words = f"it names the {kind} '{name}', which the model doesn't have{like(str(name), names)}"
    return _broken(where, words)


def _shapes(trials: Trials) -> Iterator[Finding]:
    """Declarations that can't be read at all."""
    model = trials.model
    for what in (*_CALLED, "responses", "limits", "options", "targets", "units"):
        given = getattr(model, what)
        if not isinstance(given, Mapping):
            yield _broken(f"`{what}`", f"it is {type(given).__name__}; give a mapping by name")
        elif what in _CALLED:
            for name in (n for n, law in given.items() if not callable(law)):
                yield _broken(f"`{what}`", f"'{name}' is {type(given[name]).__name__}; give what can be called")
    if isinstance(model.pulses, str):
        yield _broken("`pulses`", f"it is {model.pulses!r}; give a list of names, such as [{model.pulses!r}]")


def _of_policies(trials: Trials) -> Iterator[Finding]:
    model = trials.model
    for what in ("limits", "options", "targets", "pulses"):
        for name in getattr(model, what):
            if name not in model.environment:
                yield _lacks(f"`{what}`", "part of the environment", name, model.environment)
    known = {*model.parameters, *model.environment}
    responses: Mapping[str, Any] = model.responses
    for name, signs in responses.items():
        if name not in known:
            yield _lacks("`responses`", "parameter or part of the environment", name, known)
        if not isinstance(signs, Mapping):
            yield _broken(f"responses to '{name}'", f"they are {type(signs).__name__}; give 1 or -1 by tally")
            continue
        for tally, sign in signs.items():
            if tally not in model.tallies:
                yield _lacks(f"responses to '{name}'", "tally", tally, model.tallies)
            if sign not in (1, -1):
                yield _broken(f"responses to '{name}'", f"'{tally}' has {sign!r}; 1 never falls and -1 never rises")


def _of_tallies(trials: Trials) -> Iterator[Finding]:
    model = trials.model
    for name in model.accounts:
        if name not in model.tallies:
            yield _lacks("`accounts`", "tally", name, model.tallies)


def _outcomes(trials: Trials) -> Iterator[Finding]:
    """Outcomes that can't be read off the last state."""
    try:
        state = trials.base.state
    except Stopped:
        return
    for name, what in trials.model.outcomes.items():
        try:
            what(state)
        except Exception as e:  # noqa: BLE001 (an outcome that can't be read is a finding)
            kind = "" if isinstance(e, KeyError) else f"{type(e).__name__}: "
            yield _broken(f"outcome '{name}'", f"it can't be read off the last state: {kind}{line(e, state)}")


def _spreads(trials: Trials) -> Iterator[Finding]:
    """Whether there is the site at which agents are said to act on each other."""
    name = trials.model.spreads
    try:
        seen = trials.base.witness
    except Stopped:
        seen = None
    if not name or seen is None or name in seen.sampled or name in seen.sites:
        return
    quiet = [part.name for part in trials.substeps if part.name not in seen.substeps]
    if quiet:
        yield Finding(
            "names", "warning", "`spreads`", f"site '{name}' never came up, and neither did {', '.join(quiet)}"
        )
    else:
        yield _lacks("`spreads`", "site", name, seen.sampled)
