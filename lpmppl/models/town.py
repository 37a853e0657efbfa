"""A made-up town to try policies in: households, neighbourhoods, and ties between people that cross both."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.models.given import number, whole
from lpmppl.models.networks import Edges
from lpmppl.models.population import Population

__all__ = ["small_world", "town"]

_MOST = 100_000_000
"""The most agents that can be meant."""


def small_world(agents: int, neighbours: int = 8, rewired: float = 0.1, hubs: float = 0.0, seed: int = 0) -> Edges:
    """A small world: a ring in which each agent knows the nearest, and a share of ties leads anywhere instead.

    Args:
        agents: how many there are, more than neighbours.
        neighbours: how many each knows at first, an even number.
        rewired: the share of ties that lead anywhere.
        hubs: how unevenly these are spread: the spread of the logarithm of how readily agents are found; 0 for evenly.
        seed: the seed of who knows whom.
    Returns:
        edges in both directions, called "ties"; who draws an own tie or one twice counts it so.
    Raises:
        InputError: for numbers that make no small world.
    Source: Watts and Strogatz, "Collective dynamics of small-world networks", Nature 393 (1998), 440–442.

    >>> small_world(1_000, 4).degree.sum().item()
    4000
    """
    agents, neighbours = whole("agents", agents, 3, _MOST), whole("neighbours", neighbours, 2)
    rewired, hubs, seed = number("rewired", rewired, 0.0, 1.0), number("hubs", hubs, 0.0, 10.0), whole("seed", seed, 0)
    if not neighbours < agents or neighbours % 2:
        raise InputError(
            f"a small world of agents={agents:,} with neighbours={neighbours:,} can't be: give an even number of "
            "neighbours below that of agents"
        )
    rng = np.random.default_rng(seed)
    one = np.repeat(np.arange(agents), neighbours // 2)
    other = (one + np.tile(np.arange(1, neighbours // 2 + 1), agents)) % agents
    anywhere = np.flatnonzero(rng.random(len(one)) < rewired)
    readily = np.cumsum(np.exp(hubs * rng.standard_normal(agents)))
    found = np.searchsorted(readily, rng.random(len(anywhere)) * readily[-1], side="right")
    other[anywhere] = np.minimum(found, agents - 1)
    first, second = torch.from_numpy(one), torch.from_numpy(other)
    return Edges("ties", torch.cat((first, second)), torch.cat((second, first)), agents)


def town(agents: int = 10_000, seed: int = 0) -> tuple[Population, Edges]:
    """A made-up town to try incentives in, and who knows whom in it.

    People live in households of one to five and in neighbourhoods of about 150, and know eight others, most of them
    near by; a few are known to many. A third each is keen on money, moderate or proud, as their household is. A
    fifth each is the best connected, drawn by lot, or lives in one of the neighbourhoods drawn by lot.

    Args:
        agents: how many people.
        seed: the seed of who they are.
    Returns:
        the population, with `household`, `neighbourhood`, `price`, `connected`, `lottery` and `quarter`, and its ties.
    Raises:
        InputError: for fewer than 20 agents, or what is no number of them.

    >>> people, ties = town(1_000)
    >>> people.labels("price"), ties.agents
    (['keen', 'moderate', 'proud'], 1000)
    """
    agents, seed = whole("agents", agents, 20, _MOST), whole("seed", seed, 0)
    rng = np.random.default_rng([seed, 1])
    ties = small_world(agents, 8, 0.1, 1.0, seed)
    ends = np.cumsum(rng.choice([1, 2, 3, 4, 5], agents, p=[0.3, 0.33, 0.15, 0.14, 0.08]))
    household = np.searchsorted(ends, np.arange(agents), side="right").astype(np.int32)
    neighbourhood = (np.arange(agents) // min(150, agents // 5)).astype(np.int32)
    fifth = agents // 5
    connected, lottery = np.zeros(agents, np.uint8), np.zeros(agents, np.uint8)
    connected[np.argsort(-ties.degree.numpy(), kind="stable")[:fifth]] = 1
    lottery[rng.choice(agents, fifth, replace=False)] = 1
    places = int(neighbourhood[-1]) + 1
    drawn = rng.permutation(places) < max(1, round(places / 5))

    def coded(values: np.ndarray, *labels: str) -> tuple[str, np.ndarray, dict[str, list[str]]]:
        return "agent", values, {"labels": [*labels]}

    variables = {
        "household": ("agent", household),
        "neighbourhood": ("agent", neighbourhood),
        "price": coded(rng.integers(0, 3, agents, np.uint8)[household], "keen", "moderate", "proud"),
        "connected": coded(connected, "fewer", "most"),
        "lottery": coded(lottery, "lost", "won"),
        "quarter": coded(drawn[neighbourhood].astype(np.uint8), "elsewhere", "chosen"),
    }
    return Population(xr.Dataset(variables, attrs={"title": f"a made-up town, seed {seed}"})), ties
