"""What a model is made of: its people, whom they meet, and by what its tallies are broken down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lpmppl.effects.fields import Network
from lpmppl.errors import InputError
from lpmppl.models.given import named
from lpmppl.models.networks import Edges, Groups
from lpmppl.models.population import Population

__all__ = ["broken_down", "met", "needed"]


def needed(people: object) -> Population:
    """A population, which a model is made of.

    Raises:
        InputError: for anything else.
    """
    if not isinstance(people, Population):
        raise InputError(
            f"a population is needed, but {type(people).__name__} was given; give nyc.population(agents), or one made "
            "with Population.of({'variable': values})"
        )
    return people


def met(people: Population, networks: object) -> tuple[Network, ...]:
    """Whom the agents meet: networks of these very people.

    Raises:
        InputError: for anything else.
    """
    found = tuple(networks) if isinstance(networks, Sequence) and not isinstance(networks, str) else None
    if found is None or not all(isinstance(network, Groups | Edges) for network in found):
        kinds = type(networks).__name__ if found is None else ", ".join(type(x).__name__ for x in found)
        raise InputError(
            f"networks={kinds} was given; give a list of them, such as [people.network('household'), people.everyone()]"
        )
    for network in found:
        if network.agents != people.size:
            raise InputError(
                f"network '{network.name}' has {network.agents} agents, but there are {people.size}; give one of the "
                "same people, and where ranks share them, groups of the rank's own part"
            )
    return found


def broken_down(people: Population, by: Mapping[str, str] | None) -> Groups | None:
    """The strata of a model's tallies, by what they are to be broken down; None for one total.

    Raises:
        InputError: for what names no variables, or such as `Population.strata` refuses.
    """
    given = named(by, {})
    return people.strata(**given) if given else None
