"""Counts of events by stratum: how many there were in each part of the society."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lpmppl.effects.handlers.reported import Reported, counts_of
from lpmppl.errors import InputError

__all__ = ["Series", "Stratified", "each", "mapped", "told"]

Series = Sequence[float] | Reported


@dataclass(frozen=True, eq=False)
class Stratified:
    """Counts of events of each of some strata, in place of those of all agents, for `Guided` and what asks by it.

    Args:
        series: by stratum, how many of its agents had an event in each step from the first on, NaN where that wasn't
            seen, or how many were `Reported`.
        stratum: of which of these each agent is, by its place among them, integers of shape (N,); agents of none, by
            another number, are left to chance.
    Raises:
        InputError: for series or strata that can't be.

    >>> homes = torch.tensor([0, 0, 1, 1, 1])
    >>> len(Stratified({"north": [0, 1], "south": [2, 0, 1]}, homes))
    3
    """

    series: Mapping[str, Series]
    stratum: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.series, Mapping) or not self.series:
            raise InputError(f"{self.series!r} was given; give a series by stratum, such as {{'north': [0, 2]}}")
        whose = self.stratum
        if not isinstance(whose, Tensor) or whose.dim() != 1 or whose.is_floating_point() or whose.dtype == torch.bool:
            raise InputError("stratum= isn't integers of shape (N,); give the place of each agent's stratum in series=")
        read = {
            str(label): x if isinstance(x, Reported) else counts_of(str(label), x) for label, x in self.series.items()
        }
        if len(read) < len(self.series):
            raise InputError(f"strata are called {list(self.series)}: give each a name of its own, in letters")
        object.__setattr__(self, "series", read)

    def __len__(self) -> int:
        return max(len(x) for x in self.series.values())

    def parts(self, agents: int) -> Iterator[tuple[str, Tensor, Series]]:
        """Each stratum's label, the places of its agents, and its series.

        Raises:
            InputError: where the strata are those of another number of agents.
        """
        if len(self.stratum) != agents:
            raise InputError(
                f"strata of {len(self.stratum)} agents were given for a site of {agents}: say of each of these"
            )
        for (label, series), members in zip(self.series.items(), self._members, strict=True):
            yield label, members, series

    @cached_property
    def _members(self) -> list[Tensor]:
        return [(self.stratum == k).nonzero().squeeze(-1) for k in range(len(self.series))]


def each(observations: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Every series of some observations: its site, what it is called, and the series."""
    for site, series in observations.items():
        if isinstance(series, Stratified):
            yield from ((site, f"{site} of {label}", part) for label, part in series.series.items())
        else:
            yield site, site, series


def mapped(observations: Mapping[str, Any], change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """The same observations with each series changed, given its site."""
    return {
        site: Stratified({n: change(site, x) for n, x in series.series.items()}, series.stratum)
        if isinstance(series, Stratified)
        else change(site, series)
        for site, series in observations.items()
    }


def told(observations: Mapping[str, Any]) -> dict[str, str]:
    """What was observed, as attrs of a result: `observed`, the counts, and `reported`, shares and delays of reports."""
    series = {name: x for _, name, x in each(observations)}
    reports = {
        name: {"share": x.share if isinstance(x.share, str) else float(x.share), "delay": x.delay}
        for name, x in series.items()
        if isinstance(x, Reported)
    }
    return {
        "observed": json.dumps({name: list(counts) for name, counts in series.items()}),
        **({"reported": json.dumps(reports)} if reports else {}),
    }
