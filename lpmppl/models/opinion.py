"""Opinion: a society that makes up its mind and changes it, by its own lights, by its neighbours', and for money."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.fields import Field, Leaf, Network
from lpmppl.effects.internals.ring import width
from lpmppl.effects.internals.segments import differentiated
from lpmppl.effects.ops import aggregate, decide, happens, running, tally
from lpmppl.errors import InputError, nearest
from lpmppl.models.archetypes import Archetypes, Bins, Lookup
from lpmppl.models.given import shown
from lpmppl.models.model import Model, Parameter
from lpmppl.models.networks import Groups
from lpmppl.models.people import broken_down, met, needed
from lpmppl.models.periods import around
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep, compose
from lpmppl.typing import Dynamics, State, Theta

__all__ = ["ADOPT", "OFFER", "PROMPT", "UTILITY", "Opinion", "influence", "payment", "switching"]

ADOPT = ("adopt", "leave it")
OFFER = ("not offered", "offered")

UTILITY: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    # Sizes are chosen. That a small payment does worse than none and a larger one better is the finding of Gneezy and
    # Rustichini, "Pay enough or don't pay at all", Quarterly Journal of Economics 115 (2000), 791–810.
    "adopt": {"adopt": {"intercept": -0.85, "offer=offered × paid": -0.5, "offer=offered × reward": 1.5}}
}
"""What a feature adds to the utility of adopting, by default: alike for everybody."""

PROMPT = """\
Would you sort your household's waste for recycling?
{% if offer == "offered" and paid %}
Whoever does is paid {{ "%.2f" | format(dollars) }} dollars a day.
{% endif %}
Answer with one of: {{ options | join(", ") }}.
Answer:"""

CENT, MOST = 0.01, 1e4
"""The unit of payments, and the most that an agent is paid in a step, dollars."""

_FOR, _AGAINST = 2, 1
"""The codes of zealots for it and against it; others have 0."""


def _reach(total: Tensor, network: Network, conformity: Tensor) -> Field:
    """The share of each agent's neighbours behind a running total, to the power of the conformity."""
    share = running(total, network)
    if not differentiated(conformity) and bool((conformity == 1.0).all()):
        return share
    # One leaf without factors, so that the power is taken on groups.
    (leaf,) = share.leaves
    assert isinstance(leaf, Leaf)
    return Field((Leaf((leaf.values * leaf.scale) ** conformity, leaf.index),))


def influence(people: Population, networks: Sequence[Network]) -> Substep:
    """The substep in which everybody learns how many of their neighbours are of either opinion.

    Args:
        people: the population.
        networks: whom each agent observes.
    """

    def change(s: State, changed: Cohort) -> State:
        now, before = changed.read(s["opinion"]), changed.read(s["known"])
        sides = {"for": now.int() - (before == 1).int(), "against": (~now).int() - (before == 0).int()}
        updates: dict[str, Tensor] = {"known": changed.write(s["known"], now.to(torch.int8))}
        for network in networks:
            for side, moved in sides.items():
                key = f"{network.name}/{side}"
                total = aggregate(changed.carrying(moved), network, onto=s[key]).total
                assert total is not None
                updates[key] = total
        return updates

    written = ("known", *_counts(networks))
    return Substep(
        "influence",
        reads=("opinion", *written),
        writes=written,
        policy=lambda s: people.cohort(s["known"] != s["opinion"]),
        transition=change,
    )


def _counts(networks: Sequence[Network]) -> list[str]:
    """The state keys of how many neighbours are of either opinion."""
    return [f"{network.name}/{side}" for network in networks for side in ("for", "against")]


def switching(
    people: Population,
    networks: Sequence[Network],
    kinds: Archetypes,
    theta: Theta,
    zealots: Tensor | None = None,
    by: Groups | None = None,
) -> Substep:
    r"""The substep in which agents take an opinion up or give it up, by what they and their neighbours think of it.

    .. math::
        h_i^{0 \to 1} = a\, P(k_i) + b \sum_l \left(\frac{n_{il}^1}{n_{il}}\right)^\alpha, \qquad
        h_i^{1 \to 0} = a\, (1 - P(k_i)) + b \sum_l \left(\frac{n_{il}^0}{n_{il}}\right)^\alpha

    with n¹ of the n neighbours over network l of opinion 1 at the start of the step and n⁰ of opinion 0, and P the
    probability that i's archetype adopts when it deliberates: with :math:`a_0 = a P(0)` and :math:`a_1 = a (1 - P(0))`
    an incentive of c dollars adds :math:`a (P(c) - P(0))`, which is below 0 where it crowds out. With α = 1 it is
    Kirman's model, the noisy voter. A switch ends an episode: both cumulative hazards are 0 again.

    Args:
        people: the population.
        networks: whom each agent observes; their shares add up.
        kinds: by which archetypes agents decide; the last attribute is whether the incentive is offered to them.
        theta: `deliberation` a and `herding` b, both per day, and `conformity` α.
        zealots: who never switches, Boolean of shape (N,); None where everybody may.
        by: the strata of the tallies.
    Source: Kirman, "Ants, rationality, and recruitment", Quarterly Journal of Economics 108 (1993), 137–156; Granovsky
        and Madras, "The noisy voter model", Stochastic Processes and their Applications 55 (1995); α ≠ 1: Peralta et
        al., "Analytical and numerical study of the non-linear noisy voter model", Chaos 28 (2018), 075516.
    """
    a, b, conformity = theta["deliberation"], theta["herding"], theta["conformity"]
    static = kinds.code(offer=torch.zeros(people.size, dtype=torch.bool, device=people.device)) // len(OFFER)

    def own(s: State) -> tuple[Field, Field]:
        """What deliberation adds to the hazards of adopting and of giving up."""
        dollars, offered = s["incentive"], s["offered"] > 0.5
        kind = static * len(OFFER) + offered
        context = {
            "reward": torch.log1p(dollars),
            "paid": (dollars > 0).float(),
            "dollars": dollars,
            "attributes": kinds.labels,
            "due": lambda: kinds.count(kind),
        }
        chance = decide("adopt", kinds.table, ADOPT, context)
        found = []
        for k in range(len(ADOPT)):
            values = a * chance[..., k]
            if offered.shape[-1] == 1:
                one = values.unflatten(-1, (-1, len(OFFER)))
                found.append(Field.on(torch.where(offered, one[..., 1], one[..., 0]), static))
            else:
                found.append(Field.on(kinds.read(values, kind)))
        return found[0], found[1]

    def choose(s: State) -> tuple[Exposure, Exposure, Tensor, Tensor]:
        up, down = own(s)
        for network in networks:
            up = up + _reach(s[f"{network.name}/for"], network, conformity) * b
            down = down + _reach(s[f"{network.name}/against"], network, conformity) * b
        mind = s["opinion"]
        out, into = (~mind, mind) if zealots is None else (~mind & ~zealots, mind & ~zealots)
        adoption = Exposure(s["attraction"], up, out, s["episode"], s["dt"])
        lapse = Exposure(s["doubt"], down, into, s["episode"], s["dt"])
        with people.plate():
            adopted, _ = happens("adoption", adoption)
            lapsed, _ = happens("lapse", lapse)
        return adoption, lapse, adopted, lapsed

    def change(s: State, action: tuple[Exposure, Exposure, Tensor, Tensor]) -> State:
        adoption, lapse, adopted, lapsed = action
        switched = people.cohort(adopted | lapsed)
        new = switched.read(adopted)
        tally("adoptions", switched.select(new), by=by)
        tally("lapses", switched.select(~new), by=by)
        opinion = switched.write(s["opinion"], new)
        tally("adopters", opinion, by=by, stock=True)
        tally("holdouts", ~opinion, by=by, stock=True)
        return {
            "opinion": opinion,
            "attraction": switched.write(adoption.after, 0.0),
            "doubt": switched.write(lapse.after, 0.0),
            "episode": switched.write(s["episode"], switched.read(s["episode"]) + 1),
        }

    written = ("opinion", "attraction", "doubt", "episode")
    return Substep(
        "switching",
        reads=("incentive", "offered", *_counts(networks), *written),
        writes=written,
        policy=choose,
        transition=change,
    )


def payment(people: Population, by: Groups | None = None) -> Substep:
    """The substep in which whoever is offered the incentive and is of opinion 1 gets it, in dollars a day.

    Args:
        people: the population.
        by: the strata of the tally.
    """
    nobody = Cohort(torch.empty(0, dtype=torch.int64, device=people.device), torch.Size((people.size,)))

    def pay(s: State) -> State:
        dollars = s["incentive"]
        if bool((dollars < 0).any()):
            raise InputError(f"incentive={float(dollars.min()):g} was given; an incentive is 0 dollars a day or more")
        if not bool((dollars > 0).any()) and not differentiated(dollars):
            tally("payments", nobody.carrying(0.0), by=by, quantum=CENT, bound=MOST)
            return {}
        entitled = s["opinion"] & (s["offered"] > 0.5)
        tally("payments", entitled * (dollars * s["dt"]), by=by, quantum=CENT, bound=MOST)
        return {}

    return Substep(
        "payment",
        reads=("incentive", "offered", "opinion"),
        writes=(),
        policy=pay,
        transition=lambda _, nothing: nothing,
    )


class Opinion(Model):
    """A society of two opinions, such as whether to recycle, with an incentive for one of them that costs money.

    Policies set `incentive`, dollars a day for everybody of opinion 1 to whom it is `offered`: to all by default.

    Args:
        population: the people.
        networks: whom each of them observes: groups, each member of which counts among its own neighbours, or edges.
        by: the dimensions of the tallies and the variables they come from, such as `{"price": "price"}`.
        attributes: what tells the archetypes apart by which agents decide, such as `{"price": Lookup("price")}`.
        behaviour: what features add to the utility of adopting, where no other behaviour is in force; `UTILITY` by
            default.
        zealots: a variable of the population: 0 for who may switch, 1 for who is always of opinion 0, 2 for 1.
    Raises:
        InputError: for no network, two of one name, one of other agents, an attribute called "offer", or codes of
            zealots that aren't.

    >>> import lpmppl as lpm
    >>> from lpmppl.models.town import town
    >>> people, edges = town(2_000)
    >>> model = Opinion(people, [people.network("household"), edges])
    >>> run = lpm.run(model, days=30, interventions=[("incentive", 4.0, 10)])["prior_predictive"]
    >>> bool(run["adopters"][0, 0, -1] > run["adopters"][0, 0, 9])
    True
    """

    name = "opinion"
    spreads = "adoption"

    def __init__(
        self,
        population: Population,
        networks: Sequence[Network],
        by: Mapping[str, str] | None = None,
        attributes: Mapping[str, Bins | Lookup] | None = None,
        behaviour: Mapping[str, Mapping[str, Mapping[str, float]]] | None = None,
        zealots: str | None = None,
    ) -> None:
        self.population, self.networks = needed(population), met(population, networks)
        names = [network.name for network in self.networks]
        if not names or len({*names}) < len(names):
            raise InputError(f"the networks are {names}; give one or more, each with a name of its own")
        self.by = broken_down(population, by)
        self.kinds = Archetypes(population, {} if attributes is None else attributes, {"offer": OFFER})
        self.zealots = None if zealots is None else _zealots(population, zealots)
        self.behaviour = UTILITY if behaviour is None else behaviour
        if not isinstance(self.behaviour, Mapping):
            raise InputError(f"behaviour={shown(behaviour)} was given; give coefficients, such as UTILITY")
        if "adopt" not in self.behaviour:
            raise InputError(nearest("decision of the behaviour", "adopt", self.behaviour))
        self.prompts = {"adopt": PROMPT}
        self.variant = json.dumps([names, self.kinds.labels, zealots])
        self.parameters = {
            "deliberation": Parameter(
                around(0.02, 0.3),
                0.02,
                "how often agents make up their own mind",
                "per day",
                "chosen: every 50 days",
            ),
            "herding": Parameter(
                around(0.1, 0.3),
                0.1,
                "how often agents follow a neighbour",
                "per day and network",
                "chosen: every 10 days where all are of the other opinion",
            ),
            "conformity": Parameter(
                around(1.0, 0.2),
                1.0,
                "exponent of the neighbours' share",
                "1",
                "1 in Kirman (1993); above 1 two agreeing neighbours count for more than twice one",
            ),
            "initial": Parameter(
                dist.Beta(2.0, 8.0), 0.2, "of opinion 1 at day 0", "share of the population", "chosen"
            ),
        }
        self.environment = {"incentive": 0.0, "offered": 1.0}
        self.limits = {"incentive": (0.0, MOST)}
        self.options = {"offered": ("no", "yes")}
        self.targets = {"offered": "agent"}
        self.outcomes = {"adopts": lambda s: s["opinion"]}
        self.tallies = {
            "adopters": "people of opinion 1",
            "holdouts": "people of opinion 0",
            "adoptions": "people who take opinion 1 up",
            "lapses": "people who give opinion 1 up",
            "payments": "incentives paid",
        }
        self.units = {"payments": "dollars"}

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        people, device = self.population, self.population.device
        with people.plate():
            opinion = pyro.sample("initial_opinion", dist.Bernoulli(theta["initial"])).bool()
        if self.zealots is not None:
            opinion = (opinion | (self.zealots == _FOR)) & (self.zealots != _AGAINST)
        hazard = torch.zeros(people.size, dtype=torch.float64, device=device)
        state = {
            "opinion": opinion,
            "attraction": hazard,
            "doubt": hazard,
            "episode": torch.zeros(people.size, dtype=torch.int32, device=device),
            "known": torch.full((people.size,), -1, dtype=torch.int8, device=device),
            **{name: torch.full((1,), value, device=device) for name, value in self.environment.items()},
        }
        for network in self.networks:
            total = torch.zeros_like(
                network.share("sum"), dtype=width(network.name, network.quantum, network.bound, network.reach)
            )
            state |= {f"{network.name}/for": total, f"{network.name}/against": total}
        return state

    def substeps(self, theta: Theta) -> tuple[Substep, ...]:
        """The parts of a day: what is seen of others, who switches, and who is paid."""
        fixed = None if self.zealots is None else self.zealots != 0
        return (
            influence(self.population, self.networks),
            switching(self.population, self.networks, self.kinds, theta, fixed, self.by),
            payment(self.population, self.by),
        )

    def day(self, theta: Theta) -> Dynamics:
        return compose(*self.substeps(theta))


def _zealots(people: Population, variable: str) -> Tensor:
    """Who is a zealot, and of which opinion: integers of shape (N,)."""
    if not isinstance(variable, str):
        raise InputError(f"zealots={shown(variable)} was given; give the name of a variable of the population")
    codes = people[variable]
    if (
        codes.is_floating_point()
        or tuple(codes.shape) != (people.size,)
        or not bool(torch.isin(codes, codes.new_tensor([0, 1, 2])).all())
    ):
        raise InputError(
            f"zealots='{variable}': {codes.dtype} of shape {tuple(codes.shape)}, {float(codes.min()):g} … "
            f"{float(codes.max()):g}, was given; give a variable of agents with 0 for who may switch, 1 for who is "
            "always of opinion 0 and 2 for who is always of opinion 1"
        )
    return codes
