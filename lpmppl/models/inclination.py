"""Inclination: where each person stands between the most and the least inclined, alone or as its household does."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.internals.segments import pick
from lpmppl.effects.plates import AgentPlate
from lpmppl.models.model import Parameter
from lpmppl.models.population import Population

__all__ = ["AS_ONE", "chosen_once", "inclination"]

AS_ONE = Parameter(
    dist.Beta(1.0, 4.0),
    0.0,
    "households whose members are inclined alike",
    "share",
    "chosen: 0, so that members are alike in nothing but their archetype; the correlation of members' choices",
)


def inclination(people: Population, site: str, as_one: Tensor) -> Tensor:
    r"""Each person's own place between the most and the least inclined, uniform on (0, 1).

    .. math:: u_i = b_h w_h + (1 - b_h) v_i, \qquad b_h \sim \mathrm{Bernoulli}(\rho), \quad w_h, v_i \sim U(0, 1)

    Whoever is inclined below its probability p does it, so that each does with its own p whatever ρ is; two members i
    and j of a household both do with :math:`\rho \min(p_i, p_j) + (1 - \rho) p_i p_j`. Where they are alike, ρ is the
    correlation of their choices; where they aren't, ρ of the greatest that these probabilities allow.

    Args:
        people: the population, with `household`.
        site: the name of the site.
        as_one: ρ, the share of households that are inclined as one, of shape () or (…, 1).
    Returns:
        float32 of shape (…, N).
    """
    with people.plate(episode=0):
        own: Tensor = pyro.sample(site, dist.Uniform(torch.zeros((), device=people.device), 1.0))
    shared = _shared(people, site, as_one)
    return own if shared is None else torch.where(shared[0], shared[1], own)


def chosen_once(people: Population, site: str, chance: Tensor, as_one: Tensor) -> Tensor:
    """Who does what is decided once, with the household's inclination where that is one.

    Args:
        people: the population, with `household`.
        site: the name of the site.
        chance: each person's probability, shape (…, N).
        as_one: the share of households that are inclined as one, of shape () or (…, 1).
    Returns:
        a Boolean of shape (…, N).
    """
    with people.plate(episode=0):
        own: Tensor = pyro.sample(site, dist.Bernoulli(chance)).bool()
    shared = _shared(people, site, as_one)
    return own if shared is None else torch.where(shared[0], shared[1] < chance, own)


def _shared(people: Population, site: str, as_one: Tensor) -> tuple[Tensor, Tensor] | None:
    """For every person whether its household is inclined as one, and that inclination; None where none is."""
    if not bool((as_one > 0).any()):
        return None
    home = people["household"]
    with AgentPlate("households", people.ids_of("household"), 0):
        alike: Tensor = pyro.sample(f"{site}/as_one", dist.Bernoulli(as_one)).bool()
        place: Tensor = pyro.sample(f"{site}/household", dist.Uniform(torch.zeros((), device=people.device), 1.0))
    return pick(alike, home), pick(place, home)
