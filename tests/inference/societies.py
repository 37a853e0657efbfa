"""A small society of substeps, sound as it stands, and with one fault put into it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch

from lpmppl.effects.distributions import Exposure
from lpmppl.effects.ops import aggregate, happens, tally
from lpmppl.models.model import Meant, Model, Parameter
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep, compose
from lpmppl.typing import State, Theta

__all__ = ["AGENTS", "FAULTS", "Town", "folk"]

AGENTS = 240


def folk(n: int = AGENTS) -> Population:
    """People in households of three."""
    return Population.of({"household": np.arange(n) // 3})


class Town(Model):
    """People who catch something at home and in town, earn a living unless they have it, and are asked every week.

    Args:
        population: the people, with `household`.
        fault: what is wrong with it, one of `FAULTS`; nothing by default.
    """

    name = "town"
    spreads = "catch"

    def __init__(self, population: Population, fault: str = "") -> None:
        self.population, self.fault, self.calls = population, fault, [0]
        share = dist.Normal(0.5, 1.0) if fault == "share" else dist.Beta(2.0, 2.0)
        self.parameters = {
            "pull": Parameter(dist.LogNormal(-1.9, 0.2), 0.15, "transmission", "per day", "chosen"),
            "first": Parameter(dist.Beta(1.0, 9.0), 0.1, "ill at the start", "share of the people", "chosen"),
            "wage": Parameter(dist.LogNormal(0.0, 0.1), 1.0, "wage", "dollars per day", "chosen"),
            "polled": Parameter(share, 0.5, "asked in a week", "share of the people", "chosen"),
        }
        self.environment = {"transmission": 1.0, "levy": 0.0}
        self.limits = {"transmission": (0.0, 10.0), "levy": (0.0, 1.0)}
        self.outcomes = {"caught": lambda s: s["ill"], "rich": lambda s: s["money"] > 5}
        self.tallies = {
            "caught": "new cases",
            "ill": "people who have it",
            "earned": "earnings",
            "asked": "people asked",
        }
        self.units = {"earned": "dollars"}
        self.balances = {"who caught it has it": lambda b, a: (a["ill"] & ~b["ill"]) != a["new"]}
        self.accounts = {"caught": lambda _, a: a["new"], "ill": lambda _, a: a["ill"]}
        self.meanings = {"polled is the share asked": _asked, "the well earn the wage, less the levy": _earned}
        self.responses = {"pull": {"caught": 1}, "levy": {"earned": 1 if fault == "sign" else -1}}

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        n = self.population.size
        with self.population.plate():
            ill = pyro.sample("importation", dist.Bernoulli(theta["first"])).bool()
        return {
            "ill": ill,
            "new": ill,
            "exposure": torch.zeros(n, dtype=torch.float64),
            "money": torch.zeros(n),
            "asked": torch.zeros(n, dtype=torch.bool),
            "transmission": torch.ones(1),
            "levy": torch.zeros(1),
        }

    def substeps(self, theta: Theta) -> tuple[Substep, ...]:
        told: list[float] = []
        return self._catch(theta), self._earn(theta, told), self._ask(theta, told)

    def day(self, theta: Theta) -> Callable[[State], State]:
        if self.fault == "restless":
            self.calls[0] += 1
        return compose(*self.substeps(theta))

    def _catch(self, theta: Theta) -> Substep:
        people, fault = self.population, self.fault
        home, town = people.network("household"), people.everyone()

        def meet(s: State) -> Any:
            scale = torch.ones(1) if fault == "deaf" else s["transmission"]
            if fault == "first world":
                scale = scale.flatten()[:1]
            if fault == "not null" and float(s["t"]) > 0 and s["transmission"].data_ptr() != self.kept:
                scale = scale * 2
            if fault == "not null" and not float(s["t"]):
                self.kept = s["transmission"].data_ptr()
            force = (aggregate(s["ill"], home) + aggregate(s["ill"], town)) * (theta["pull"] * scale)
            force = force * 30.0 if fault == "long step" else force
            dt = s["dt"] * s["dt"] if fault == "step twice" else s["dt"]
            risk = torch.ones_like(s["ill"]) if fault == "risk again" else ~s["ill"]
            exposure = Exposure(s["exposure"], force, risk, 0, dt)
            with people.plate():
                new, _ = happens("catch", exposure)
            if fault == "order of agents":
                new = new & (new.long().cumsum(-1) <= 3)
            return exposure, new

        def change(s: State, action: Any) -> State:
            exposure, new = action
            have = s["ill"] | new
            counted = ~new if fault == "tally" else new
            tally("caught", counted)
            tally("ill", have, stock=True)
            after = exposure.after * 0.5 if fault == "hazard lost" else exposure.after
            after = exposure.before if fault == "hazard kept" else after
            found = {"ill": have, "new": new, "exposure": after}
            if fault == "balance":
                found["ill"] = s["ill"]
            if fault == "type":
                found["exposure"] = after.float()
            if fault == "policy":
                found["transmission"] = s["transmission"] * 0.9
            return found

        reads = ("ill", "exposure", "transmission")
        writes = ("ill", "new", "exposure", *(("transmission",) if fault == "policy" else ()))
        return Substep("catch", reads, writes, meet, change)

    def _earn(self, theta: Theta, told: list[float]) -> Substep:
        people, fault = self.population, self.fault

        def work(s: State) -> State:
            pay = torch.where(s["ill"], 0.0, theta["wage"]) * (1 - s["levy"])
            if fault == "mispaid":
                pay = pay * (1 + s["levy"])
            if fault == "other chance":
                pay = pay * torch.rand(people.size)
            if fault == "stray":
                pay = pay * pyro.sample("luck", dist.Uniform(torch.zeros(people.size), 1.0))
            if fault == "no number":
                pay = torch.where(s["money"] > 3, torch.nan, pay)
            if fault == "restless":
                pay = pay * (1.0 + self.calls[0])
            if fault == "undeclared read":
                pay = pay + 0.0 * s["asked"]
            if fault == "hidden channel":
                told[:] = [float(s["t"])]
            tally("earned", (pay * s["dt"]).nan_to_num(), quantum=0.01, bound=1e4)
            if fault == "undeclared tally":
                tally("extra", s["ill"])
            if fault == "below 0":
                tally("ill_change", -s["ill"].long())
            found = {"money": s["money"] + pay * s["dt"]}
            return {**found, "wealth": pay} if fault == "undeclared write" else found

        writes = ("money", "rent") if fault == "forgotten" else ("money",)
        writes = ("money", "new") if fault == "two writers" else writes
        return Substep("earn", ("ill", "money", "levy"), writes, lambda s: s, lambda s, _: work(s))

    def _ask(self, theta: Theta, told: list[float]) -> Substep:
        people, fault = self.population, self.fault

        def ask(s: State) -> State:
            with people.plate():
                chance = theta["polled"] * (0.6 if fault == "misdrawn" else 1.0)
                asked = pyro.sample("poll", dist.Bernoulli(chance)).bool()
            if fault == "hidden channel" and told == [float(s["t"])]:
                asked = torch.zeros_like(asked)
            tally("asked", asked)
            return {"asked": asked}

        return Substep("ask", (), ("asked",), lambda s: s, lambda s, _: ask(s), every=7)


def _asked(theta: Theta, before: State, after: State, _: Mapping[str, torch.Tensor]) -> Meant:
    asked = after["asked"].double()
    share = theta["polled"].expand_as(asked)
    known = share if float(before["t"]) % 7 == 0 else share * torch.nan
    return Meant(asked, known, share * (1 - share))


def _earned(theta: Theta, before: State, after: State, counted: Mapping[str, torch.Tensor]) -> Meant:
    wages = torch.where(after["ill"], 0.0, theta["wage"]) * (1 - before["levy"]) * before["dt"]
    return Meant(counted["earned"], wages.double().sum(), near=0.01 * len(wages))


FAULTS: Mapping[str, str] = {
    "undeclared read": "declarations",
    "undeclared write": "declarations",
    "forgotten": "declarations",
    "two writers": "writers",
    "share": "units",
    "no number": "state",
    "type": "state",
    "policy": "state",
    "hazard lost": "exposures",
    "hazard kept": "exposures",
    "risk again": "exposures",
    "balance": "balances",
    "tally": "tallies",
    "undeclared tally": "tallies",
    "below 0": "tallies",
    "other chance": "chance",
    "stray": "chance",
    "restless": "resumed",
    "first world": "worlds",
    "not null": "null",
    "order of agents": "relabelled",
    "deaf": "spread",
    "sign": "responses",
    "hidden channel": "order",
    "step twice": "halving",
    "mispaid": "meanings",
    "misdrawn": "meanings",
}
"""What can be wrong with a town, and the check that must say so."""
