"""The isolation game: who stays at home bears the cost of it, and others have most of the good."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy import integrate, optimize, stats
from torch import Tensor

from lpmppl.effects.distributions import Exposure
from lpmppl.effects.ops import aggregate, decide, happens, substep, tally
from lpmppl.errors import InputError, nearest
from lpmppl.models.archetypes import Archetypes
from lpmppl.models.given import number, shown, whole
from lpmppl.models.model import Model, Parameter
from lpmppl.models.people import broken_down, needed
from lpmppl.models.population import Population
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["ISOLATE", "Game", "Isolation"]

ISOLATE = ("isolate", "go out")

_HALVINGS = 12
"""How often the range of what is expected of others is halved, before a secant brings it to single precision."""

_OF_RANGE = 2.0**-25
"""The least and the greatest share of people at which a cost is still told apart: single precision has no finer."""

_CENT, _MOST = 0.01, 1e4

_DOLLARS = 1e12
"""More dollars than anything costs that one agent does."""

_NUMBERS = (
    ("prevalence", 0.0, 1.0), ("rate", 0.0, math.inf), ("loss", 0.0, _DOLLARS), ("public", 0.0, _DOLLARS),
    ("benefit", -_DOLLARS, _DOLLARS),
)  # fmt: skip
"""The numbers of a game, with the least and the greatest that they can be."""

_COSTS = stats.logistic(60.0, 15.0)
"""What a period of isolation costs people, dollars: chosen."""


@dataclass(frozen=True)
class Game:
    r"""One period among n people who meet each other, in closed form or as the root of one equation.

    Everybody is infectious with probability q, and doesn't know it. Whoever goes out meets the hazard
    :math:`\beta k / n` of the k infectious ones who do, so that with :math:`\delta = q (1 - e^{-\beta/n})` and a share
    p of people who isolate one who goes out is infected with probability

    .. math:: \pi(p) = (1 - q) \big(1 - g^{n-1}\big), \qquad g = 1 - (1 - p)\,\delta.

    Isolating costs :math:`c \sim F`, gives :math:`b`, and earns the subsidy s. With a loss :math:`\ell` for who is
    infected, somebody isolates where :math:`c < b + s + \ell\,\pi(p)`.

    Args:
        size: n, people who meet each other, 2 or more.
        prevalence: q, the share who are infectious.
        rate: β, the hazard where everybody met is infectious, per period.
        loss: ℓ, what an infection costs whom it strikes, dollars.
        public: what it costs others besides, such as a hospital, dollars.
        benefit: b, what isolating is worth to who does, whatever others do, dollars.
        costs: F, the law of what isolating costs, dollars: a frozen continuous one of `scipy.stats`.
    Raises:
        InputError: for numbers that can't be, in its methods too, or where the infections that isolating spares don't
            fall as more isolate, so that there may be several optima.
    Source: Pigou, The Economics of Welfare (1920), part II.

    >>> game = Game(size=1000, prevalence=0.05, rate=1.5, loss=300.0, public=200.0, benefit=5.0)
    >>> round(game.equilibrium(), 3), round(game.optimum(), 3), round(game.subsidy(), 2)
    (0.083, 0.341, 31.44)
    >>> round(game.equilibrium(game.subsidy()), 3)
    0.341
    """

    size: int
    prevalence: float
    rate: float
    loss: float
    public: float = 0.0
    benefit: float = 0.0
    costs: Any = _COSTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", whole("size", self.size, 2, 10**12))
        for name, least, most in _NUMBERS:
            object.__setattr__(self, name, number(name, getattr(self, name), least, most))
        if self.prevalence == 1.0:
            raise InputError("prevalence=1.0 was given, where nobody is left to be infected; give a share below 1")
        _check(self.costs)
        if self.size * self._met > 2.0:
            raise InputError(
                f"{self.size} people with prevalence={self.prevalence:g} and rate={self.rate:g} can have several "
                f"optima; give a prevalence or rate so that n q (1 − exp(−rate/n)) = {self.size * self._met:.3g} is at "
                "most 2"
            )

    @property
    def _met(self) -> float:
        """δ: the probability that one who goes out is infectious and infects a given other who does."""
        return -self.prevalence * math.expm1(-self.rate / self.size)

    def risk(self, p: float) -> float:
        """π: the probability that one who goes out is infected, where a share p of the others isolate."""
        p = number("p", p, 0.0, 1.0)
        return -(1 - self.prevalence) * math.expm1((self.size - 1) * math.log1p(-(1 - p) * self._met))

    def spread(self, p: float) -> float:
        r"""How many others one who goes out infects, on average: :math:`(1-q)(n-1)(1-p)\,\delta\,g^{n-2}`."""
        p = number("p", p, 0.0, 1.0)
        escape = 1 - (1 - p) * self._met
        return (1 - self.prevalence) * (self.size - 1) * (1 - p) * self._met * escape ** (self.size - 2)

    def externality(self, p: float) -> float:
        r"""What one who goes out costs others, dollars: :math:`h\,\pi + (\ell + h)\,\sigma`, with h the public cost."""
        return self.public * self.risk(p) + (self.loss + self.public) * self.spread(p)

    def equilibrium(self, subsidy: float = 0.0) -> float:
        """The share who isolate in the symmetric Nash equilibrium: there is one, as the risk falls as more do."""
        subsidy = number("subsidy", subsidy)
        return self._where(lambda p: self.benefit + subsidy + self.loss * self.risk(p))

    def optimum(self) -> float:
        """The share who isolate at the least social cost: as many as have a cost below what it spares everybody."""
        return self._where(lambda p: self.benefit + self.loss * self.risk(p) + self.externality(p))

    def subsidy(self, burden: float = 0.0) -> float:
        """The subsidy at which the equilibrium is the optimum, dollars: Pigou's, the externality at the optimum.

        With a `burden`, of what it costs to raise a dollar beyond that dollar, it is the one of the least social cost
        with that of raising it.
        """
        burden = number("burden", burden, 0.0)
        if burden == 0.0:
            return self.externality(self.optimum())

        def price(p: float) -> float:
            return float(self.costs.ppf(p)) - self.benefit - self.loss * self.risk(p)

        least, most = min(self.equilibrium(), 1 - 1e-9), self.optimum()
        found = optimize.minimize_scalar(
            lambda p: self.social_cost(p) + burden * price(p) * p,
            bounds=(least, max(most, least + 1e-9)),
            method="bounded",
            options={"xatol": 1e-10},
        )
        return max(price(float(found.x)), 0.0)

    def social_cost(self, p: float) -> float:
        r"""Dollars a head: :math:`\int_0^p (F^{-1}(v) - b)\,dv + (\ell + h)(1 - p)\,\pi(p)`; payments only move."""
        p = number("p", p, 0.0, 1.0)
        cost, _ = integrate.quad(self.costs.ppf, 0.0, p)
        return float(cost) - self.benefit * p + (self.loss + self.public) * (1 - p) * self.risk(p)

    def alone(self) -> bool:
        r"""Whether there is but one equilibrium: so where :math:`\ell (1-q)\,\delta \max f < 1 - \delta`."""
        density = float(self.costs.pdf(self.costs.ppf(np.linspace(1e-6, 1 - 1e-6, 10_001))).max())
        return self.loss * (1 - self.prevalence) * self._met * density < 1 - self._met

    def _where(self, value: Any) -> float:
        """The share whose cost lies below a value that falls as that share grows."""
        return float(optimize.brentq(lambda p: p - float(self.costs.cdf(value(p))), 0.0, 1.0, xtol=1e-14))


class Isolation(Model):
    r"""The isolation game, played anew in every period: a step is one, and nothing but the subsidy lasts.

    People decide by `decide`, knowing the subsidy and expecting of others what these do: the share p who isolate is
    the one that follows from the risk that it makes, :math:`p = \sum_k w_k P_k(\pi(p), s)` over archetypes k. By
    default they do as `Game` has it, where costs are logistic, which is the multinomial logit; whatever behaviour
    stands around the model decides in its place. Then chance has its say: each is infectious or not, and whoever goes
    out is exposed to those who do.

    Args:
        population: the people.
        among: the variable of the groups within which people meet, all of one size, such as "household"; "" for
            everybody with everybody.
        costs: the law of what isolating costs, dollars: a frozen continuous one of `scipy.stats`.
        loss: what an infection costs whom it strikes, dollars.
        benefit: what isolating is worth to who does, whatever others do, dollars.
        by: the dimensions of the tallies and the variables they come from.
        archetypes: by which archetypes people decide; as one by default.
    Raises:
        InputError: for groups of several sizes or of one member, or numbers that can't be.
    """

    name = "isolation"
    spreads = "infection"

    def __init__(
        self,
        population: Population,
        among: str = "",
        costs: Any = _COSTS,
        loss: float = 300.0,
        benefit: float = 5.0,
        by: Mapping[str, str] | None = None,
        archetypes: Archetypes | None = None,
    ) -> None:
        _check(costs)
        self.population, self.costs = needed(population), costs
        self.loss = number("loss", loss, 0.0, _DOLLARS)
        self.benefit = number("benefit", benefit, -_DOLLARS, _DOLLARS)
        if not isinstance(among, str):
            raise InputError(f"among={shown(among)} was given; give the name of a variable, or '' for everybody")
        self.network = population.network(among) if among else population.everyone()
        sizes = torch.bincount(self.network.index.long(), minlength=self.network.count)
        if among == "":
            sizes = torch.tensor([population.everybody])
        if int(sizes.min()) != int(sizes.max()) or int(sizes.max()) < 2:
            raise InputError(
                f"groups of {int(sizes.min())} to {int(sizes.max())} people were given by among={among!r}; give groups "
                "of one size, 2 or more"
            )
        self.size = int(sizes.max())
        if not isinstance(archetypes, Archetypes | None) or (
            archetypes is not None and archetypes.of() is not population
        ):
            raise InputError(
                f"archetypes={shown(archetypes)} was given; give Archetypes of these people, or leave it out"
            )
        self.kinds = Archetypes(population, {}) if archetypes is None else archetypes
        self._kind = self.kinds.code()
        counted = population.together(torch.bincount(self._kind.long(), minlength=self.kinds.size))
        self._share = counted.double() / population.everybody
        self.by = broken_down(population, by)
        self.parameters = {
            "prevalence": Parameter(
                dist.Beta(2.0, 38.0), 0.05, "infectious people", "share", "chosen: one in twenty, of whom nobody knows"
            ),
            "rate": Parameter(
                dist.LogNormal(math.log(1.5), 0.3),
                1.5,
                "rate of transmission",
                "transmitting contacts per period",
                "chosen",
            ),
        }
        self.environment, self.limits = {"subsidy": 0.0}, {"subsidy": (0.0, _MOST)}
        self.tallies = {
            "infections": "new infections",
            "isolators": "people who isolate",
            "costs": "what isolating costs those whom it costs something",
            "gains": "what isolating gives those who would rather stay at home",
            "payments": "subsidies",
        }
        self.units = dict.fromkeys(("costs", "gains", "payments"), "dollars")
        if costs.dist.name == "logistic":
            middle, scale = float(costs.median()), float(costs.std()) * math.sqrt(3.0) / math.pi
            coefficients = {
                "intercept": (self.benefit - middle) / scale,
                "subsidy": 1.0 / scale,
                "risk": self.loss / scale,
            }
            self.behaviour = {"isolate": {"isolate": coefficients}}

    def game(self, public: float = 0.0, **parameters: float) -> Game:
        """The same game, solved.

        Args:
            public: what an infection costs others than whom it strikes, dollars.
            parameters: values of parameters, by name; the others are at their defaults.
        """
        for name in parameters:
            if name not in self.parameters:
                raise InputError(nearest("parameter of the game", name, self.parameters))
        values = {name: p.default for name, p in self.parameters.items()} | parameters
        return Game(self.size, **values, loss=self.loss, public=public, benefit=self.benefit, costs=self.costs)

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        return {"subsidy": torch.zeros(1, device=self.population.device)}

    def day(self, theta: Theta) -> Dynamics:
        people, nothing = self.population, torch.zeros(self.population.size, dtype=torch.float64)
        nothing = nothing.to(people.device)
        most = max(abs(float(self.costs.ppf(p))) for p in (_OF_RANGE, 1 - _OF_RANGE)) + _CENT

        def step(s: State) -> State:
            chance = self._expected(theta, s["subsidy"])
            with people.plate():
                inclination = pyro.sample("inclination", dist.Uniform(torch.zeros((), device=people.device), 1.0))
                infectious = pyro.sample("infectious", dist.Bernoulli(theta["prevalence"])).bool()
            isolates = inclination < self.kinds.read(chance, self._kind)
            force = aggregate(infectious & ~isolates, self.network) * theta["rate"]
            # Every period is an episode of its own: nothing is left of the hazard that was met in the last.
            exposure = Exposure(nothing, force, ~infectious & ~isolates, episode=round(float(s["t"])))
            with people.plate():
                infected, _ = happens("infection", exposure)
            cost = torch.from_numpy(self.costs.ppf(inclination.double().cpu().clamp(_OF_RANGE, 1 - _OF_RANGE).numpy()))
            cost = torch.where(isolates, cost.to(people.device), 0.0)
            tally("infections", infected, by=self.by)
            tally("isolators", isolates, by=self.by)
            tally("costs", cost.clamp(min=0.0), by=self.by, quantum=_CENT, bound=most)
            tally("gains", (-cost).clamp(min=0.0), by=self.by, quantum=_CENT, bound=most)
            tally("payments", isolates * s["subsidy"], by=self.by, quantum=_CENT, bound=_MOST)
            return {}

        return lambda s: substep("isolation", step, s)

    def _expected(self, theta: Theta, subsidy: Tensor) -> Tensor:
        """The probability with which each archetype isolates, where all expect what all do: shape (…, K)."""
        q, rate = theta["prevalence"].double(), theta["rate"].double()
        met = -q * torch.expm1(-rate / self.size)

        def response(p: Tensor) -> Tensor:
            risk = -(1 - q) * torch.expm1((self.size - 1) * torch.log1p(-(1 - p) * met))
            context = {"subsidy": subsidy, "risk": risk, "attributes": self.kinds.labels}
            return decide("isolate", self.kinds.table, ISOLATE, context)[..., 0].detach()

        def excess(p: Tensor) -> Tensor:
            """By how much more isolate than others expect, which falls as they expect more."""
            return (response(p) * self._share).sum(-1, keepdim=True) - p

        low = torch.zeros_like((met + subsidy).double())
        high = torch.ones_like(low)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            more = excess(middle) > 0
            low, high = torch.where(more, middle, low), torch.where(more, high, middle)
        above, below = excess(low), excess(high)
        return response(low + (high - low) * (above / (above - below)).clamp(0.0, 1.0))


def _check(costs: Any) -> None:
    """Refuse what is no law of costs."""
    frozen = isinstance(getattr(costs, "dist", None), stats.rv_continuous)
    if not frozen or not all(math.isfinite(float(costs.ppf(p))) for p in (_OF_RANGE, 0.5, 1 - _OF_RANGE)):
        raise InputError(
            f"costs={shown(costs)} was given; give a continuous law with its numbers, such as "
            "scipy.stats.logistic(60, 15)"
        )
