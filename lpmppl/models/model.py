"""A whole model: its people, its parameters, its start and its day."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import pyro
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin

from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError
from lpmppl.models import display
from lpmppl.models.given import number
from lpmppl.models.networks import Groups
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["Meant", "Model", "Parameter", "Wrapped"]


@dataclass(frozen=True)
class Parameter:
    """A structural parameter: a sample site outside the agents' plate.

    Args:
        prior: its distribution before any data, Pyro's or torch's.
        default: the value a run uses unless it is set or drawn.
        description: what it is, in a few words.
        units: its unit, such as "per day".
        source: where the default comes from.
    Raises:
        InputError: for a prior that is no distribution of one number, or a default that is no number.

    >>> from pyro import distributions as dist
    >>> beta = Parameter(dist.LogNormal(-1.0, 0.3), 0.4, "transmission", "contacts per day", "chosen")
    >>> beta.default, round(float(beta.prior.mean), 3)
    (0.4, 0.385)
    """

    prior: TorchDistributionMixin
    default: float
    description: str
    units: str
    source: str

    def __post_init__(self) -> None:
        prior = _of_pyro(self.prior)
        object.__setattr__(self, "prior", prior)
        if not isinstance(prior, TorchDistributionMixin):
            own = isinstance(prior, torch.distributions.Distribution)
            given = f"torch's {type(prior).__name__}" if own else repr(prior)
            raise InputError(
                f"the prior of '{self.description}' is {given}; give a distribution of Pyro's, such as "
                "pyro.distributions.LogNormal(-1.0, 0.3)"
            )
        if shape := tuple(prior.shape()):
            raise InputError(
                f"the prior of '{self.description}' has shape {shape}, but a parameter is one number; give each its own"
            )
        number(f"the default of '{self.description}'", self.default)


def _of_pyro(prior: Any) -> Any:
    """A distribution of torch's own as Pyro's of the same name, which can be a site; anything else as it is."""
    kind = getattr(pyro.distributions, type(prior).__name__, None)
    if isinstance(prior, TorchDistributionMixin) or not isinstance(prior, torch.distributions.Distribution):
        return prior
    # Of two ways to say the same, one is enough.
    named = {n: getattr(prior, n) for n in prior.arg_constraints if n != "logits"}
    return kind(**named) if named and isinstance(kind, type) and issubclass(kind, type(prior)) else prior


class Meant(NamedTuple):
    """What a step left of something that a model gives a meaning to, beside what is expected of it.

    Args:
        seen: what was measured, of any shape: an agent each, or one number.
        expected: what that is on average, of the same shape; NaN where nothing can be said of it.
        variance: the variance of what was measured; 0 where it must be what is expected.
        near: what may lie between the two where it must, besides a fivehundredth.
    """

    seen: torch.Tensor
    expected: torch.Tensor
    variance: torch.Tensor | float = 0.0
    near: float = 1e-4


class Model(ABC):
    """A society as a Pyro program: calling it samples its parameters and simulates under the solver in force.

    Attributes:
        name: the model's name.
        parameters: every sample site outside the agents' plate, by name.
        environment: the state keys that policies may change, with their values at the start.
        limits: the least and the greatest value of parts of the environment, by name, where there are such.
        options: the words for 0, 1, … of parts of the environment whose values have such, by name.
        by: the strata of its tallies, or None for one total.
        tallies: what the model counts, by name, in a few words; the headline first.
        units: the units of tallies that don't count people, by name.
        pulses: parts of the environment that the model sets back by itself once they have worked, such as a payment.
        targets: parts of the environment that can be set for some alone, with the dimension that they are then on:
            "agent" or "household".
        outcomes: what may have become of an agent by the end, by name: the last state to a Boolean of shape (…, N).
        balances: what a step must leave at 0 or false for everybody, by what it says: the states before and after the
            step to a tensor.
        accounts: what tallies count, read off the state a second time, by tally: the states before and after the step
            to a tensor that adds up to the tally's total of the step.
        responses: which way tallies go with parameters and the environment: by the name of one of these, which
            tallies never fall (1) or never rise (−1) in it.
        meanings: what parameters and equations mean, by what it says: the parameters, the states before and after a
            step, and the totals of its tallies with what each site is drawn from, to what was seen and what is expected
            of it.
        spreads: the hazard site at which agents act on each other, such as `infection`, where there is one.
        variant: what tells it from models of the same name, so that a run goes on in the one it was begun in.
        timed: whether what agents do to others follows the time of their events within a step, as derivatives along
            paths need.
        behaviour: coefficients of the behaviour it has where none is in force, by decision, option and feature.
        prompts: what a language model that decides is asked, by decision: templates in Jinja's language.
        population: the people.

    >>> from pyro import distributions as dist
    >>> from lpmppl.effects.ops import tally
    >>> class Births(Model):
    ...     name, environment, tallies = "births", {}, {"children": "children"}
    ...     parameters = {"rate": Parameter(dist.LogNormal(-3.0, 0.3), 0.05, "births", "per day", "chosen")}
    ...
    ...     def __init__(self, people):
    ...         self.population = people
    ...
    ...     def initial(self, theta, start=0.0):
    ...         return {"children": torch.zeros(self.population.size)}
    ...
    ...     def day(self, theta):
    ...         def step(s):
    ...             with self.population.plate():
    ...                 born = pyro.sample("born", dist.Bernoulli(theta["rate"]))
    ...             tally("children", born)
    ...             return {**s, "children": s["children"] + born}
    ...
    ...         return step
    >>> import lpmppl as lpm
    >>> model = Births(Population.of({"household": torch.arange(1000) // 3}))
    >>> run = lpm.run(model, days=10)["prior_predictive"]["children"]
    >>> 300 < int(run.sum()) < 700
    True
    """

    name: ClassVar[str]
    parameters: Mapping[str, Parameter]
    environment: Mapping[str, float]
    limits: Mapping[str, tuple[float, float]] = MappingProxyType({})
    options: Mapping[str, Sequence[str]] = MappingProxyType({})
    pulses: Collection[str] = ()
    targets: Mapping[str, str] = MappingProxyType({})
    outcomes: Mapping[str, Callable[[State], torch.Tensor]] = MappingProxyType({})
    balances: Mapping[str, Callable[[State, State], torch.Tensor]] = MappingProxyType({})
    accounts: Mapping[str, Callable[[State, State], torch.Tensor]] = MappingProxyType({})
    responses: Mapping[str, Mapping[str, int]] = MappingProxyType({})
    meanings: Mapping[str, Callable[[Theta, State, State, Mapping[str, torch.Tensor]], Meant]] = MappingProxyType({})
    spreads: str = ""
    variant: str = ""
    timed: bool = False
    behaviour: Mapping[str, Any] = MappingProxyType({})
    prompts: Mapping[str, str] = MappingProxyType({})
    by: Groups | None = None
    tallies: Mapping[str, str]
    units: Mapping[str, str] = MappingProxyType({})
    population: Population

    @abstractmethod
    def initial(self, theta: Theta, start: float = 0.0) -> State:
        """The state at day `start`, on which whoever brings the infection has just been infected."""

    @abstractmethod
    def day(self, theta: Theta) -> Dynamics:
        """The dynamics of one step."""

    def substeps(self, theta: Theta) -> tuple[Substep, ...]:
        """The parts of a day, in order; none where a day is of one piece."""
        return ()

    def sample_parameters(self) -> dict[str, torch.Tensor]:
        """Sample every parameter from its prior, as sites of the surrounding Pyro program."""
        return {name: pyro.sample(name, p.prior) for name, p in self.parameters.items()}

    def defaults(self) -> dict[str, torch.Tensor]:
        """Every parameter at its default."""
        return {name: torch.tensor(p.default) for name, p in self.parameters.items()}

    def __repr__(self) -> str:
        return display.model_line(self)

    def _repr_html_(self) -> str:
        return display.model_html(self)

    def __call__(self, days: float, start: float = 0.0) -> State:
        """Sample the parameters and simulate from day `start` for `days` days; returns the last state."""
        theta = self.sample_parameters()
        return simulate(
            self.day(theta), self.initial(theta, start), torch.tensor(float(start)), torch.tensor(float(start + days))
        )


class Wrapped(Model):
    """A model made of another, which it is like in all that isn't said otherwise.

    Args:
        model: the other model.
    Raises:
        InputError: for what is no model.
    """

    _ALIKE = (
        *("name", "population", "parameters", "environment", "limits", "options", "by", "tallies", "units"),
        *("balances", "accounts", "responses", "meanings"),
        *("pulses", "targets", "outcomes", "spreads", "variant", "timed", "behaviour", "prompts"),
    )

    def __init__(self, model: Model) -> None:
        if not isinstance(model, Model):
            raise InputError(f"a model is needed, but {type(model).__name__} was given")
        self.model = model
        for attribute in self._ALIKE:
            setattr(self, attribute, getattr(model, attribute))

    def __getattr__(self, name: str) -> Any:
        # What a model has besides, such as its start.
        return getattr(self.__dict__["model"], name)

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        return self.model.initial(theta, start)

    def day(self, theta: Theta) -> Dynamics:
        return self.model.day(theta)

    def substeps(self, theta: Theta) -> tuple[Substep, ...]:
        return self.model.substeps(theta)
