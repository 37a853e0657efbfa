"""Transmission: who is infected today, by the infectious people of every layer of contact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lpmppl.effects.cohorts import Sparse
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.fields import Network
from lpmppl.effects.ops import happens, running, tally
from lpmppl.models.networks import Groups
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["SUSCEPTIBILITY", "Layer", "transmission"]

SUSCEPTIBILITY = (0.40, 0.38, 0.79, 0.86, 0.80, 0.82, 0.88, 0.74, 0.74)
"""Relative susceptibility by age band 0–9 … 80+: Davies et al., Nature Medicine 26 (2020), where 70+ is one."""


@dataclass(frozen=True)
class Layer:
    """One layer of contact.

    Args:
        network: who meets whom in it.
        contacts: contacts per day of an agent in the layer, a number or one per group, shape (G,).
    """

    network: Network
    contacts: Tensor | float


def transmission(population: Population, layers: Sequence[Layer], theta: Theta, by: Groups | None = None) -> Substep:
    r"""The substep in which susceptible agents are infected: eq. 8 of the LPM paper, summed over the layers.

    .. math:: p_i = 1 - \exp\Big(-\beta S_i \Delta t \sum_l c_l \frac{1}{n_i^l} \sum_{j \in N_l(i)} I_j\Big)

    with β the probability of transmission per contact, S the susceptibility of the agent's age, c the contacts per day
    of layer l.

    Args:
        population: the people; its `age_band` gives the susceptibility.
        layers: who meets whom, and how often.
        theta: `beta`, transmissions per contact with an infectious person.
        by: the strata of the tally of infections.
    """
    susceptibility = population["age_band"].new_tensor(SUSCEPTIBILITY, dtype=theta["beta"].dtype)[
        population["age_band"].long()
    ]

    def force(s: State) -> Exposure:
        pressure = sum(
            running(s[f"{layer.network.name}/today"], layer.network, weight=layer.contacts) for layer in layers
        )
        hazard = pressure * (theta["beta"] * s["transmission"]) * susceptibility
        return Exposure(s["exposure"], hazard, at_risk=s["susceptible"], dt=s["dt"])

    def infect(infection: Exposure) -> tuple[Exposure, Tensor, Tensor | Sparse]:
        with population.plate():
            return infection, *happens("infection", infection)

    def change(s: State, action: tuple[Exposure, Tensor, Tensor | Sparse]) -> State:
        infection, infected, left = action
        cohort = population.cohort(infected)
        tally("infections", cohort, by=by)
        at = s["t"] + s["dt"] * (1.0 - cohort.read(left))
        return {
            "exposure": infection.after,
            "infected": infected,
            "infected_at": cohort.write(s["infected_at"], at),
            "susceptible": cohort.write(s["susceptible"], False),
        }

    return Substep(
        "transmission",
        reads=(
            "exposure",
            "infected_at",
            "susceptible",
            "transmission",
            *(f"{layer.network.name}/today" for layer in layers),
        ),
        writes=("exposure", "infected", "infected_at", "susceptible"),
        observe=force,
        policy=infect,
        transition=change,
    )
