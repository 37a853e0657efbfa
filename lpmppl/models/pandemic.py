"""The pandemic model: so far its core, SEIRM — susceptible, exposed, infectious, recovered, mortality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pyro
import pyro.distributions as dist
import torch

from lpmppl.effects.internals.ring import width
from lpmppl.models.model import Model, Parameter
from lpmppl.models.population import Population
from lpmppl.models.progression import Stage, progression
from lpmppl.models.substep import Substep, compose
from lpmppl.models.transmission import Layer, transmission
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["SEIRM"]


def _around(default: float, spread: float = 0.2) -> dist.LogNormal:
    return dist.LogNormal(math.log(default), spread)


class SEIRM(Model):
    """An epidemic over several layers of contact, with published latent and infectious periods and mortality by age.

    Args:
        population: the people, with `age_band` (0–9 … 80+).
        layers: who meets whom, and how often.
        by: the dimensions of the tallies and the variables they come from, such as `{"borough": "borough", "age":
            "age_band"}`.
    """

    name = "seirm"

    def __init__(self, population: Population, layers: Sequence[Layer], by: Mapping[str, str] | None = None) -> None:
        self.population, self.layers = population, tuple(layers)
        self.by = population.strata(**by) if by else None
        covasim = "Kerr et al., PLOS Computational Biology 17 (2021), table 1"
        self.parameters = {
            "beta": Parameter(
                _around(0.048, 0.3),
                0.048,
                "transmission",
                "transmissions per contact",
                "chosen: R0 near 3, see docs/seirm.md",
            ),
            "latent_mean": Parameter(
                _around(4.5), 4.5, "mean latent period", "days", f"{covasim}, after Lauer et al. 2020"
            ),
            "latent_spread": Parameter(_around(1.5), 1.5, "spread of the latent period", "days", covasim),
            "infectious_mean": Parameter(
                _around(8.0), 8.0, "mean infectious period", "days", f"mild cases: {covasim}, after Wölfel et al. 2020"
            ),
            "infectious_spread": Parameter(_around(2.0), 2.0, "spread of the infectious period", "days", covasim),
            "fatality": Parameter(
                _around(1.0),
                1.0,
                "fatality",
                "factor on deaths per infection",
                "by age: Ferguson et al., report 9 (2020)",
            ),
            "initial_infected": Parameter(
                dist.Beta(1.0, 1999.0),
                0.0005,
                "infected at day 0",
                "share of the population",
                "chosen: about 4,000 New Yorkers",
            ),
        }
        self.environment = {"transmission": 1.0}
        self.tallies = {"infections": "new infections", "infectious": "infectious", "deaths": "deaths"}

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        people, device = self.population, self.population.device
        with people.plate():
            imported = pyro.sample("importation", dist.Bernoulli(theta["initial_infected"])).bool()
        state = {
            "stage": torch.full((people.size,), int(Stage.SUSCEPTIBLE), dtype=torch.uint8, device=device),
            "susceptible": ~imported,
            "infected": imported,
            "infected_at": torch.where(imported, float(start), -math.inf),
            "due": torch.full((people.size,), math.inf, device=device),
            "exposure": torch.zeros(people.size, dtype=torch.float64, device=device),
            "infectious": torch.zeros(self.by.count if self.by else 1, dtype=torch.int64, device=device),
            "transmission": torch.ones(1, device=device),
        }
        for layer in self.layers:
            n = layer.network
            state[f"{n.name}/infectious"] = torch.zeros_like(
                n.share("sum"), dtype=width(n.name, n.quantum, n.bound, n.reach)
            )
        return state

    def substeps(self, theta: Theta) -> tuple[Substep, ...]:
        """The parts of a day: own clocks first, then what the infectious do to others."""
        return (
            progression(self.population, [layer.network for layer in self.layers], theta, self.by),
            transmission(self.population, self.layers, theta, self.by),
        )

    def day(self, theta: Theta) -> Dynamics:
        return compose(*self.substeps(theta))
