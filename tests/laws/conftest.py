"""The models under law: each small, with every kind of network and stratum the package has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from chirho.counterfactual.handlers import MultiWorldCounterfactual
from chirho.dynamical.handlers.interruption import DynamicIntervention, StaticIntervention
from chirho.indexed.ops import get_index_plates
from torch import Tensor

from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, Record
from lpmppl.effects.ops import simulate
from lpmppl.models.contacts import Layer
from lpmppl.models.model import Model
from lpmppl.models.networks import Edges
from lpmppl.models.population import Population
from lpmppl.models.seirm import SEIRM
from lpmppl.models.sir import SIR

AGENTS, DAYS = 600, 40


def people(order: np.ndarray | None = None) -> Population:
    """Six hundred people in households, workplaces and two boroughs; in another order where one is given."""
    rng = np.random.default_rng(0)
    i = np.arange(AGENTS)
    variables = {
        "household": i // 3,
        "workplace": np.where(rng.random(AGENTS) < 0.6, rng.integers(1, 40, AGENTS), 0),
        "neighbourhood": i // 150,
        "borough": (i // 300).astype(np.uint8),
        "age_band": rng.integers(0, 9, AGENTS).astype(np.uint8),
    }
    population = Population.of({k: v if order is None else v[order] for k, v in variables.items()})
    return population if order is None else Population(population.dataset.assign_coords(agent=("agent", i[order])))


def renamed(population: Population, order: np.ndarray | None) -> Population:
    """The same people in another order, with their ids; as they are where none is given."""
    if order is None:
        return population
    return Population(population.dataset.isel(agent=order).assign_coords(agent=("agent", order)))


def graph(order: np.ndarray | None = None) -> Edges:
    """A random graph of mean degree 4 over the same people."""
    rng = np.random.default_rng(1)
    ends = rng.integers(0, AGENTS, (2, 2 * AGENTS))
    place = np.arange(AGENTS) if order is None else np.argsort(order)
    source, target = (torch.from_numpy(place[e]) for e in ends)
    return Edges("graph", torch.cat((source, target)), torch.cat((target, source)), AGENTS)


def sir_in_households(order: np.ndarray | None = None) -> Model:
    p = people(order)
    return SIR(p, [p.network("household"), p.everyone()], by={"borough": "borough"})


def sir_on_a_graph(order: np.ndarray | None = None) -> Model:
    return SIR(people(order), [graph(order)])


def seirm_in_layers(order: np.ndarray | None = None) -> Model:
    p = people(order)
    layers = (
        Layer(p.network("household"), 6.0),
        Layer(p.network("workplace", nowhere=0), 8.0),
        Layer(p.network("neighbourhood"), 4.0),
    )
    return SEIRM(p, layers, by={"borough": "borough", "age": "age_band"})


def seirm_on_a_graph(order: np.ndarray | None = None) -> Model:
    return SEIRM(people(order), (Layer(graph(order), 12.0),))


MODELS: dict[str, Callable[..., Model]] = {
    f.__name__: f for f in (sir_in_households, sir_on_a_graph, seirm_in_layers, seirm_on_a_graph)
}


@pytest.fixture(params=MODELS)
def make(request: pytest.FixtureRequest) -> Callable[..., Model]:
    return MODELS[request.param]


@pytest.fixture
def model(make: Callable[..., Model]) -> Model:
    return make()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Outcome:
    """What a run left: the last state, the series of every tally, and the names of its worlds by dimension."""

    state: Mapping[str, Tensor]
    series: Mapping[str, np.ndarray]
    worlds: Mapping[str, int]

    def world(self, **chosen: int) -> Outcome:
        """The outcome in one world: the named indices taken, the others factual."""
        at = {dim: chosen.get(name, 0) for name, dim in self.worlds.items()}

        def take(x: Any) -> Any:
            for dim, k in sorted(at.items()):
                if x.ndim >= -dim:
                    x = (
                        x.take(k if x.shape[dim] > 1 else 0, dim)
                        if isinstance(x, np.ndarray)
                        else x.select(dim, k if x.shape[dim] > 1 else 0)
                    )
            return x

        # Removing leftmost dimensions first keeps the rest in place.
        return Outcome({k: take(v) for k, v in self.state.items()}, {k: take(v) for k, v in self.series.items()}, {})

    def differences(self, other: Outcome) -> list[str]:
        """The keys that aren't equal bit for bit; a leading dimension of one is no difference."""
        keys = (set(self.state) | set(other.state)) - {k for k in (*self.state, *other.state) if k.startswith("event/")}
        off = [
            k for k in keys if k not in self.state or k not in other.state or not _same(self.state[k], other.state[k])
        ]
        return off + [
            k for k in self.series if not _same(torch.as_tensor(self.series[k]), torch.as_tensor(other.series[k]))
        ]


def _same(a: Tensor, b: Tensor) -> bool:
    a, b = a.squeeze(), b.squeeze()
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def play(
    model: Model, *handlers: Any, days: int = DAYS, theta: Mapping[str, Tensor] | None = None, begin: int = 0
) -> Outcome:
    """Simulate under the handlers, outermost first; a solver and a record are brought where none is given."""
    if theta is None:
        theta = {**model.defaults(), "initial_infected": torch.tensor(0.02), "beta": model.defaults()["beta"] * 2}
    record = Record()
    with torch.no_grad(), ExitStack() as stack:
        if not any(isinstance(h, DiscreteTime) for h in handlers):
            stack.enter_context(DiscreteTime())
        for handler in (record, *handlers):
            stack.enter_context(handler)
        state = simulate(model.day(theta), model.initial(theta), torch.tensor(float(begin)), torch.tensor(float(days)))
        worlds = {name: frame.dim for name, frame in get_index_plates().items()}
    return Outcome(state, {k: s.values for k, s in record.series.items()}, worlds)


def noise(seed: int = 1) -> ExogenousNoise:
    return ExogenousNoise(seed)


def worlds() -> MultiWorldCounterfactual:
    return MultiWorldCounterfactual(first_available_dim=-3)


def policy(day: int, value: float) -> Any:
    return StaticIntervention(torch.tensor(float(day)), {"transmission": torch.tensor([value])})


def trigger(model: Model, above: float, value: float) -> Any:
    """Transmission goes to a value once more agents than `above` are or were infected."""

    def event(_: Tensor, s: Mapping[str, Tensor]) -> Tensor:
        hit = s["infected_at"] > -torch.inf if "infected_at" in s else ~s["susceptible"]
        return hit.float().sum(-1, keepdim=True) - above

    return DynamicIntervention(event, {"transmission": torch.tensor([value])})
