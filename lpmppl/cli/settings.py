"""What a simulation was asked to do: everything that its numbers depend on."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lpmppl.errors import InputError, nearest

__all__ = ["POPULATIONS", "Settings"]

POPULATIONS: dict[str, tuple[str, ...]] = {"nyc": ("pandemic", "seirm", "sir")}
"""Populations by name, the module of that name in `lpmppl.models`, with the models that it defines."""

BEHAVIOURS = ("utility", "llm")
"""By what people decide: the model's own utilities, or a language model."""

MOST_DAYS = 100_000
MOST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Settings:
    """The options of `lpmppl simulate` that decide its numbers.

    `saved` is the path of a saved population, "" for none; `agents` is None where that population's size decides.
    `llm_url` is that of a language model's server, "" for one in this process, of which `llm_logprobs` are asked or
    samples; `cache` is the file of its answers. `by` are the variables by which tallies are broken down, by the name of
    their dimension; none for the model's own. `app` is whether people may adopt an app.
    """

    name: str
    saved: str
    model: str
    agents: int | None
    days: int
    seed: int
    population_seed: int
    device: str
    set: Mapping[str, float]
    intervene: tuple[tuple[str, float | str, int], ...]
    start: str = ""
    behaviour: str = BEHAVIOURS[0]
    llm_url: str = ""
    llm_model: str = ""
    samples: int = 10
    cache: str = ""
    llm_logprobs: bool = False
    by: tuple[tuple[str, str], ...] = ()
    app: bool = False

    def __post_init__(self) -> None:
        if self.name not in POPULATIONS:
            raise InputError(nearest("population", self.name, POPULATIONS))
        if self.model not in POPULATIONS[self.name]:
            raise InputError(nearest(f"model of {self.name}", self.model, POPULATIONS[self.name]))
        if self.behaviour not in BEHAVIOURS:
            raise InputError(nearest("behaviour", self.behaviour, BEHAVIOURS))
        if self.days < 1:
            raise InputError(f"--days {self.days}: simulate at least one day")
        if self.days > MOST_DAYS:
            raise InputError(f"--days {self.days}: results are kept for every day, so give at most {MOST_DAYS:,}")
        if not 0 <= self.seed <= MOST_SEED:
            raise InputError(f"--seed {self.seed}: give a whole number from 0 to {MOST_SEED} (2⁶³ − 1)")

    def record(self) -> dict[str, Any]:
        """Give the settings as `run.json` keeps them."""
        return {
            **asdict(self),
            "set": dict(self.set),
            "intervene": [list(act) for act in self.intervene],
            "by": [list(pair) for pair in self.by],
        }

    @classmethod
    def read(cls, record: Mapping[str, Any], where: str) -> Settings:
        """Read settings back from `run.json`.

        Raises InputError where they are incomplete, or not of their types.
        """
        try:
            saved = of("saved", record["saved"], str)
            return cls(
                **{name: of(name, record[name], str) for name in ("name", "model", "device", "start")},
                **{name: of(name, record[name], int) for name in ("days", "seed", "population_seed")},
                # Runs that began before these were options have none of them.
                **{n: of(n, record[n], str) for n in ("behaviour", "llm_url", "llm_model", "cache") if n in record},
                **{n: of(n, record[n], int) for n in ("samples",) if n in record},
                by=tuple((of("by", n, str), of(f"by {n}", v, str)) for n, v in of("by", record.get("by", []), list)),
                llm_logprobs=flag("llm_logprobs", record.get("llm_logprobs", False)),
                app=flag("app", record.get("app", False)),
                saved=saved,
                agents=None if saved and record["agents"] is None else of("agents", record["agents"], int),
                set={name: number(f"set {name}", value) for name, value in of("set", record["set"], dict).items()},
                intervene=tuple(
                    (of("intervene", n, str), act(f"intervene {n}", v), of(f"intervene {n}", d, int))
                    for n, v, d in of("intervene", record["intervene"], list)
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{where}: the settings in run.json are damaged ({error}): start anew with --out"
            ) from None

    def agree(self, given: Settings, explicit: Collection[str]) -> None:
        """Refuse options that were given explicitly, by name, and differ from these.

        Raises InputError naming the first of them.
        """
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(given, field.name)
            if field.name in explicit and mine != theirs:
                option = "population" if field.name == "saved" else field.name.replace("_", "-")
                raise InputError(
                    f"--resume goes on with {option} {plain(mine)}, not {plain(theirs)}: leave the option out"
                )


def of(name: str, value: Any, *kinds: type) -> Any:
    """Give a value of `run.json` that is of one of these types; TypeError for any other."""
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{name} is {value!r}")
    return value


def flag(name: str, value: Any) -> bool:
    """Give a value of `run.json` that is true or false; TypeError for any other."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}")
    return value


def number(name: str, value: Any) -> float:
    """Give a value of `run.json` as a finite number; TypeError or ValueError for any other."""
    if not -sys.float_info.max <= of(name, value, int, float) <= sys.float_info.max:
        raise ValueError(f"{name} is {value!r}")
    return float(value)


def act(name: str, value: Any) -> float | str:
    """Give a value of an intervention in `run.json`, a word or a finite number; TypeError or ValueError otherwise."""
    return value if isinstance(value, str) else number(name, value)


def plain(value: object) -> str:
    """Write a setting as it is given on the command line.

    >>> plain({"beta": 0.3}), plain((("transmission", 0.3, 20),)), plain(90), plain(True), plain((("age", "age_band"),))
    ('beta=0.3', 'transmission=0.3@20', '90', 'on', 'age=age_band')
    """
    if isinstance(value, Mapping):
        return " ".join(f"{k}={v:g}" for k, v in value.items()) or "none"
    if isinstance(value, tuple) and value and len(value[0]) == 2:
        return ",".join(n if n == v else f"{n}={v}" for n, v in value)
    if isinstance(value, tuple):
        return " ".join(f"{n}={v}@{d}" if isinstance(v, str) else f"{n}={v:g}@{d}" for n, v, d in value) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) or "none"
