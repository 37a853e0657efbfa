"""How parameters and interventions are spelled on the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lpmppl.errors import InputError

if TYPE_CHECKING:
    from lpmppl.inference.policies import Policy

__all__ = ["interventions", "policies", "settings", "strata"]

NAME = re.compile(r"[A-Za-z_][\w./-]*")
NO_NUMBERS = ("nan", "inf", "infinity")
TRIGGER = re.compile(
    r"(?P<act>[^@]*)@\s*(?P<key>[A-Za-z_][\w./-]*)>(?P<above>[^<>@]+)(?:<(?P<below>[^<>@]+))?(?:@\s*(?P<day>\d+))?\s*"
)


def settings(texts: Sequence[str]) -> dict[str, float]:
    """Read `name=value` pairs.

    Raises InputError for another spelling, a value that isn't a finite number, or a name given twice.

    >>> settings(["beta=0.3", "gamma=1e-1"])
    {'beta': 0.3, 'gamma': 0.1}
    """
    values: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not NAME.fullmatch(name.strip()):
            raise InputError(f"--set '{text}' should read name=value, for example --set beta=0.3")
        if name.strip() in values:
            raise InputError(f"--set gives '{name.strip()}' twice: give each parameter once")
        values[name.strip()] = finite(value, f"--set {text}")
    return values


def interventions(texts: Sequence[str]) -> list[tuple[str, float | str, int]]:
    """Read `name=value@day` triples: from this day on, the name has this value, a number or a word.

    Raises InputError for another spelling, a value that isn't a finite number or a word, or a name given twice for one
    day.

    >>> interventions(["transmission=0.3@20", "test=antigen@0"])
    [('transmission', 0.3, 20), ('test', 'antigen', 0)]
    """
    acts: list[tuple[str, float | str, int]] = []
    for text in texts:
        act, at, day = text.rpartition("@")
        name, equals, value = act.partition("=")
        if not at or not equals or not NAME.fullmatch(name.strip()):
            raise InputError(
                f"--intervene '{text}' should read name=value@day, for example --intervene transmission=0.3@20"
            )
        if not re.fullmatch(r"\s*[+-]?\d+\s*", day):
            raise InputError(f"--intervene '{text}': the day '{day}' isn't a whole number")
        if any((name.strip(), int(day)) == (other, when) for other, _, when in acts):
            raise InputError(f"--intervene gives '{name.strip()}' twice on day {int(day)}: give it once a day")
        acts.append((name.strip(), said(value, f"--intervene {text}"), int(day)))
    return acts


def strata(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read by what results are broken down: `VARIABLE` or `name=VARIABLE`, several joined by commas.

    Raises InputError for another spelling, or a name given twice.

    >>> strata(["puma,age=age_band", "income_band"])
    (('puma', 'puma'), ('age', 'age_band'), ('income_band', 'income_band'))
    """
    found: dict[str, str] = {}
    for text in (part.strip() for given in texts for part in given.split(",")):
        name, equals, variable = (part.strip() for part in text.partition("="))
        if not NAME.fullmatch(name) or (equals and not NAME.fullmatch(variable)):
            raise InputError(f"--by '{text}' should read VARIABLE or name=VARIABLE, for example --by puma,age=age_band")
        if name in found:
            raise InputError(f"--by gives '{name}' twice: give each name once")
        found[name] = variable or name
    return tuple(found.items())


def said(value: str, where: str) -> float | str:
    """Read a word or a finite number."""
    text = value.strip()
    return text if NAME.fullmatch(text) and text.lower() not in NO_NUMBERS else finite(text, where)


def policies(texts: Sequence[str]) -> list[Policy]:
    """Read policies: `name=value@day`, several acts of one joined by commas, with a label before a colon if wanted.

    In place of the day, `key>high<low` sets the value while that part of the state, having risen above `high`, isn't
    back below `low`; without `<low`, for good. A day behind it, as in `key>high<low@20`, is that from which on it is
    looked at.

    Raises InputError for another spelling, a value that isn't a finite number or a word, or a policy given twice.

    >>> [(p.name, len(p.acts)) for p in policies(["stimulus=500@30", "shut: schools=0@9, test=antigen@0"])]
    [('stimulus=500@30', 1), ('shut', 2)]
    """
    from lpmppl.inference.policies import Act, Policy, Trigger

    found: list[Policy] = []
    for text in texts:
        label, colon, rest = text.rpartition(":")
        acts = []
        for spelled in rest.split(","):
            trigger = TRIGGER.fullmatch(spelled.strip())
            act, _, when = (trigger["act"], "@", "") if trigger else spelled.rpartition("@")
            name, equals, value = act.partition("=")
            if not equals or not NAME.fullmatch(name.strip()) or not (trigger or re.fullmatch(r"\s*\d+\s*", when)):
                raise InputError(
                    f"--do '{spelled.strip()}' should read name=value@day, for example --do stimulus=500@30, or "
                    "name=value@key>high<low, or name=value@key>high<low@day"
                )
            where = f"--do {spelled.strip()}"
            number = said(value, where)
            if trigger is None:
                acts.append(Act(name.strip(), number, int(when)))
            else:
                key, above, below = trigger["key"], finite(trigger["above"], where), trigger["below"]
                until = None if below is None else (key, finite(below, where))
                acts.append(Act(name.strip(), Trigger(number, (key, above), until), int(trigger["day"] or 0)))
        policy = Policy(label.strip() if colon and label.strip() else rest.strip(), tuple(acts))
        if any(policy.name == other.name for other in found):
            raise InputError(f"--do gives '{policy.name}' twice: give each policy once, or a label of its own")
        found.append(policy)
    return found


def finite(text: str, where: str) -> float:
    """Read a finite number."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: '{text}' isn't a number") from None
    if not math.isfinite(value):
        raise InputError(f"{where}: the value must be a finite number, not {value}")
    return value
