"""Susceptible, infectious, recovered: the reading lesson."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import dense
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.fields import Network
from lpmppl.effects.ops import aggregate, happens, substep, tally
from lpmppl.models.model import Meant, Model, Parameter
from lpmppl.models.people import broken_down, met, needed
from lpmppl.models.population import Population
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["SIR"]


class SIR(Model):
    r"""An epidemic of people who are infectious at once and for an exponential time.

    Infection follows eq. 8 of the LPM paper, :math:`p = 1 - e^{-\beta \Delta t\, n_i^{-1} \sum_j I_j}`,
    summed over the networks; recovery has the constant hazard :math:`\gamma`.

    Args:
        population: the people.
        networks: who meets whom; each contributes the mean over its neighbours.
        by: the dimensions of the tallies and the variables they come from, such as `{"borough": "borough"}`.
    """

    name = "sir"
    spreads = "infection"

    def __init__(
        self, population: Population, networks: Sequence[Network], by: Mapping[str, str] | None = None
    ) -> None:
        self.population, self.networks = needed(population), met(population, networks)
        self.by = broken_down(population, by)
        self.parameters = {
            "beta": Parameter(
                dist.LogNormal(-1.2, 0.3),
                0.3,
                "rate of transmission",
                "transmitting contacts per day and network",
                "prior; R0 of 2–3 with two networks",
            ),
            "gamma": Parameter(
                dist.LogNormal(-2.0, 0.2),
                0.125,
                "rate of recovery",
                "recoveries per day",
                "infectious for 8 days: Wölfel et al., Nature 581, 2020",
            ),
            "initial_infected": Parameter(
                dist.Beta(1.0, 999.0),
                0.001,
                "infected at day 0",
                "share of the population",
                "chosen: one in a thousand",
            ),
        }
        self.environment = {"transmission": 1.0}
        self.limits, self.targets = {"transmission": (0.0, 1000.0)}, {"transmission": "agent"}
        self.outcomes = {"infected": lambda s: ~s["susceptible"]}
        self.tallies = {"infections": "new infections", "infectious": "infectious", "recoveries": "recoveries"}
        self.balances, self.accounts, self.responses = _BALANCES, _ACCOUNTS, _RESPONSES
        self.meanings = {"the hazard of infection is that of equation 8": self._force, **_MEANINGS}

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        with self.population.plate():
            infectious = pyro.sample("initial_infection", dist.Bernoulli(theta["initial_infected"])).bool()
        device = self.population.device
        hazard = torch.zeros(self.population.size, dtype=torch.float64, device=device)
        one = torch.ones(1, device=device)
        return {
            "susceptible": ~infectious,
            "infectious": infectious,
            "share": one,
            "exposure": hazard,
            "illness": hazard,
            "transmission": one,
        }

    def day(self, theta: Theta) -> Dynamics:
        beta, gamma = theta["beta"], theta["gamma"]

        def step(s: State) -> State:
            # Who was infected yesterday sheds only for the share of that step that was left: the first step's message.
            message = s["infectious"] * s["share"]
            force = sum(aggregate(message, network) for network in self.networks) * (beta * s["transmission"])
            infection = Exposure(s["exposure"], force, at_risk=s["susceptible"], dt=s["dt"])
            recovery = Exposure(s["illness"], gamma, at_risk=s["infectious"], dt=s["dt"])
            with self.population.plate():
                recovered, _ = happens("recovery", recovery)
                infected, left = happens("infection", infection)
            infectious = (s["infectious"] & ~recovered) | infected
            tally("infections", infected, by=self.by)
            tally("recoveries", recovered, by=self.by)
            tally("infectious", infectious, by=self.by, stock=True)
            return {
                **s,
                "exposure": infection.after,
                "illness": recovery.after,
                "share": torch.where(infected, dense(left), 1.0),
                "susceptible": s["susceptible"] & ~infected,
                "infectious": infectious,
            }

        return lambda s: substep("sir", step, s)

    def _force(self, theta: Theta, before: State, after: State, _: Mapping[str, Tensor]) -> Meant:
        sheds, risk = before["infectious"] * before["share"], before["susceptible"]
        met = sum(torch.as_tensor(dense(aggregate(sheds, network))) for network in self.networks)
        hazard = torch.as_tensor(met) * theta["beta"] * before["transmission"]
        accrued = (after["exposure"] - before["exposure"]) / before["dt"]
        return Meant(accrued[risk], hazard.expand_as(accrued)[risk])


def _recovery(theta: Theta, before: State, after: State, _: Mapping[str, Tensor]) -> Meant:
    ill = before["infectious"]
    accrued = (after["illness"] - before["illness"])[ill] / before["dt"]
    return Meant(accrued, theta["gamma"].expand_as(accrued))


_MEANINGS = {"gamma is the hazard of recovery": _recovery}


def _infected(before: State, after: State) -> Tensor:
    return before["susceptible"] & ~after["susceptible"]


def _shares(before: State, after: State) -> Tensor:
    new, share = _infected(before, after), after["share"]
    return torch.where(new, ~((share >= 0) & (share < 1)), share != 1)


_BALANCES = {
    "nobody is susceptible and infectious": lambda _, a: a["susceptible"] & a["infectious"],
    "nobody becomes susceptible again": lambda b, a: a["susceptible"] & ~b["susceptible"],
    "the infectious are those who were or are infected now": lambda b, a: (
        (a["infectious"] & ~b["infectious"]) != _infected(b, a)
    ),
    "who was infected today sheds for what is left of it": _shares,
    "hazard accrues only at risk": lambda b, a: (
        (~b["susceptible"] & (a["exposure"] != b["exposure"])) | (~b["infectious"] & (a["illness"] != b["illness"]))
    ),
}
_ACCOUNTS = {
    "infections": _infected,
    "recoveries": lambda b, a: b["infectious"] & ~a["infectious"],
    "infectious": lambda _, a: a["infectious"],
}
_RESPONSES = {
    "beta": {"infections": 1},
    "gamma": {"infectious": -1},
    "initial_infected": {"infectious": 1},
    "transmission": {"infections": 1},
}
