"""What a simulation was asked to do: everything that its numbers depend on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lpmppl.errors import InputError, nearest

__all__ = ["POPULATIONS", "Settings"]

POPULATIONS: dict[str, tuple[str, ...]] = {"nyc": ("seirm", "sir")}
"""Populations by name, the module of that name in `lpmppl.models`, with the models that it defines."""


@dataclass(frozen=True)
class Settings:
    """The options of `lpmppl simulate` that decide its numbers.

    `saved` is the path of a saved population, "" for none; `agents` is None where that population's size decides.
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
    intervene: tuple[tuple[str, float, int], ...]

    def __post_init__(self) -> None:
        if self.name not in POPULATIONS:
            raise InputError(nearest("population", self.name, POPULATIONS))
        if self.model not in POPULATIONS[self.name]:
            raise InputError(nearest(f"model of {self.name}", self.model, POPULATIONS[self.name]))
        if self.days < 1:
            raise InputError(f"--days {self.days}: simulate at least one day")

    def record(self) -> dict[str, Any]:
        """Give the settings as `run.json` keeps them."""
        return {**asdict(self), "set": dict(self.set), "intervene": [list(act) for act in self.intervene]}

    @classmethod
    def read(cls, record: Mapping[str, Any], where: str) -> Settings:
        """Read settings back from `run.json`.

        Raises InputError where they are incomplete.
        """
        try:
            acts = tuple((str(n), float(v), int(d)) for n, v, d in record["intervene"])
            rest = {f.name: record[f.name] for f in fields(cls) if f.name != "intervene"}
            return cls(**rest, intervene=acts)
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


def plain(value: object) -> str:
    """Write a setting as it is given on the command line.

    >>> plain({"beta": 0.3}), plain((("transmission", 0.3, 20),)), plain(90)
    ('beta=0.3', 'transmission=0.3@20', '90')
    """
    if isinstance(value, Mapping):
        return " ".join(f"{k}={v:g}" for k, v in value.items()) or "none"
    if isinstance(value, tuple):
        return " ".join(f"{n}={v:g}@{d}" for n, v, d in value) or "none"
    return str(value) or "none"
