"""Kinds of people: what individual outcomes, and who infected whom, are broken down by."""

from __future__ import annotations

from collections.abc import Mapping

from lpmppl.models.networks import Groups
from lpmppl.models.population import STRATA, Population, named

__all__ = ["strata"]


def strata(people: Population, by: Mapping[str, str] | None = None) -> Groups:
    """Kinds of people: the product of coded variables of agents, or of their households and other groups.

    Args:
        people: the population.
        by: variables by the name of their dimension in results; those of `population.STRATA` that there are by default.
    Raises:
        InputError: for a variable that the population hasn't or that can't be used, or a name that results have.
    """
    return people.strata(**named(by, {d: v for d, v in STRATA.items() if v in people.dataset.variables}))
