"""How parameters and interventions are spelled on the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from lpmppl.errors import InputError

__all__ = ["interventions", "settings"]

NAME = re.compile(r"[A-Za-z_][\w./-]*")
NO_NUMBERS = ("nan", "inf", "infinity")


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
        word = value.strip() if NAME.fullmatch(value.strip()) and value.strip().lower() not in NO_NUMBERS else None
        acts.append((name.strip(), word or finite(value, f"--intervene {text}"), int(day)))
    return acts


def finite(text: str, where: str) -> float:
    """Read a finite number."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: '{text}' isn't a number") from None
    if not math.isfinite(value):
        raise InputError(f"{where}: the value must be a finite number, not {value}")
    return value
