"""Adoption: who has the exposure-notification app, by what it is worth to each alone and through others who have it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import pyro
import pyro.distributions as dist
import torch
from scipy import optimize, special
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.internals.segments import by_blocks, pick
from lpmppl.effects.ops import happens, ring_sum, tally
from lpmppl.effects.plates import AgentPlate
from lpmppl.errors import InputError
from lpmppl.models import transmission
from lpmppl.models.contacts import CONTACTS, schools
from lpmppl.models.given import number
from lpmppl.models.model import Parameter
from lpmppl.models.networks import Groups
from lpmppl.models.part import Part, Setting
from lpmppl.models.periods import around
from lpmppl.models.population import Population
from lpmppl.models.progression import Stage
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["PART", "PHONES", "SCHEMES", "adoption", "at_work", "folds", "levels"]

PHONES = (0.09, 0.8, 0.97, 0.96, 0.94, 0.86, 0.7, 0.48, 0.32)
"""Share with a smartphone by age band 0–9 … 80+: OFCOM, as `app_users_fraction` of Hinch et al., PLOS Computational
Biology 17 (2021), e1009146, has it."""

SCHEMES = ("people", "workplaces", "areas", "connected")
"""Who is given the app, by the number in the environment's `app_seeding`."""

_WEEK = 7.0

_MOST = 1e6
"""A greater value than an app is worth to anybody, in utility."""

_MOST_PAID = 1e4
"""Dollars that an install may cost: the bound of one person's contribution to the tally."""


@dataclass(frozen=True, eq=False)
class _Circle:
    """How an agent's contacts divide: shares of groups, so that they read as per-group values.

    Args:
        work: the share of contacts who are colleagues or schoolmates, over how many these are, shape (G,).
        elsewhere: the share of contacts who are met elsewhere, shape (G,).
    """

    work: Tensor
    elsewhere: Tensor


def at_work(people: Population) -> tuple[Groups, Tensor]:
    """Workplaces and schools, and the contacts a day of their members with each other, shape (G,); none where alone."""
    places = people.network("workplace", nowhere=0)
    contacts = torch.where(schools(people), CONTACTS["school"], CONTACTS["workplace"])
    return places, torch.where(places.size > 1, contacts, 0.0)


def _circle(people: Population) -> _Circle:
    places, contacts = at_work(people)
    whole = contacts + CONTACTS["community"]
    return _Circle(contacts / whole / (places.size - 1).clamp(min=1), CONTACTS["community"] / whole)


def _ties(people: Population) -> tuple[Tensor, Tensor]:
    """For each person the share of all who have more contacts at home and at work, and who have as many: shape (N,)."""
    home, work = people.network("household"), people.network("workplace", nowhere=0)
    ties = pick(home.size - 1, home.index) + pick((work.size - 1).clamp(min=0), work.index)
    most = people.network("household").reach + work.reach
    count = people.together(torch.bincount(ties, minlength=most + 1)).double() / people.everybody
    more = 1.0 - count.cumsum(0)
    return pick(more.clamp(min=0.0).float(), ties), pick(count.float(), ties)


def adoption(setting: Setting, theta: Theta) -> Substep:
    r"""The substep in which people get the app, or give it up.

    Person i with a smartphone, who would use such an app at all, looks at it at the rate κ = `reconsider`, and then has
    it with the probability of a logit in what it is worth:

    .. math:: \lambda_i^\pm = \kappa\, \sigma(\pm V_i), \qquad V_i = \alpha + \nu\, x_i + \gamma \log(1 + 1000\, r_i)

    x is the share of i's contacts, away from home, who have it: those are the contacts that can be detected, so that
    they are the square of adoption among all contacts. r is i's own risk of infection in a week, :math:`1 - e^{-H}`
    with the hazard H that i met in the last seven days (exponentially weighted), which a device can work out from sums
    that are known there anyway and tell nobody; it is worth something where the environment's `app_answers` is 1.

    `app_seeds` installs the app, once, on the phones of a share of people, or of all who are in a share of places, in
    the order of `app_seeding`: people, workplaces and schools, or areas by lot, or those with the most people at home
    and at work first. Everybody who has been given it may give it up as anybody else.

    Args:
        setting: the people, with `age_band`, `household`, `workplace`, `workplace_kind` and `puma`.
        theta: `reconsider`, `standalone` (α), `network_value` (ν), `answers_value` (γ), `local`, the share of community
            contacts within one's own area, and `install_cost`, dollars for each install that is given.
    """
    people, by = setting.people, setting.by
    places, areas = people.network("workplace", nowhere=0), people.network("puma", together=True)
    circle = people.derived("circle of contacts", lambda: _circle(people))
    in_area = 1.0 / (areas.size - 1).clamp(min=1).float()
    in_city = 1.0 / max(people.everybody - 1, 1)

    def change_of(s: State) -> Exposure:
        own, local = s["app"], theta["local"]
        work = s["app/workplaces"].float()
        area = s["app/areas"].float()
        city = area.sum(-1, keepdim=True)
        steady = theta["standalone"]
        learning = s["app_answers"] * theta["answers_value"]
        tell = bool((s["app_answers"] > 0).any())

        def some(agents: slice) -> Tensor:
            has = own[..., agents].float()
            place, home = places.index[agents], areas.index[agents]
            x = pick(circle.work, place) * (pick(work, place) - has)
            near = local * pick(in_area, home) * (pick(area, home) - has) + (1.0 - local) * in_city * (city - has)
            # In double precision, so that it gives the same float32 in whatever batch of worlds.
            value = steady + theta["network_value"] * (x + pick(circle.elsewhere, place) * near).double()
            if tell:
                risk = -torch.expm1(-s["own_hazard"][..., agents].double())
                value = value + learning * torch.log1p(1000.0 * risk)
            chance = torch.sigmoid(torch.where(own[..., agents], -value, value))
            return (theta["reconsider"] * chance).float()

        at_risk = s["phone"] & (s["stage"] != Stage.DEAD)
        return Exposure(s["app/looked"], by_blocks(people.size, some), at_risk, s["app/episode"], s["dt"])

    def switch(s: State) -> tuple[Exposure, Tensor, Cohort]:
        looks = change_of(s)
        with people.plate():
            switched, _ = happens("app_switch", looks)
        return looks, switched, given(s, switched)

    def given(s: State, switched: Tensor) -> Cohort:
        """Who is given the app today: of those whose turn it is, whoever would have it not."""
        if not bool((s["app_seeds"] > 0).any()):
            return people.cohort(torch.zeros_like(switched))
        scheme = s["app_seeding"]
        more, alike = people.derived("ties", lambda: _ties(people))
        in_place = torch.where(places.index == 0, 1.0, pick(s["seeding/workplaces"], places.index))
        turn = torch.where(scheme == 0, s["seeding/people"], more + alike * s["seeding/people"])
        turn = torch.where(scheme == 1, in_place, turn)
        turn = torch.where(scheme == 2, pick(s["seeding/areas"], areas.index), turn)
        without = ~(s["app"] ^ switched)
        return people.cohort((turn < s["app_seeds"]) & without & s["phone"] & (s["stage"] != Stage.DEAD))

    def change(s: State, action: tuple[Exposure, Tensor, Cohort]) -> State:
        looks, switched, seeded = action
        changed = people.cohort(switched)
        now = ~changed.read(s["app"])
        tally("app_installs", changed.select(now), by=by)
        tally("app_removals", changed.select(~now), by=by)
        tally("app_given", seeded, by=by)
        price = theta["install_cost"]
        paid = price.reshape(()) if price.numel() == 1 else seeded.read(price)
        tally("app_dollars", seeded.carrying(paid), by=by, quantum=0.01, bound=_MOST_PAID)
        app = seeded.write(changed.write(s["app"], now), True)
        both = people.cohort(app != s["app"])
        sign = both.carrying(torch.where(both.read(app), 1, -1))
        anew = people.cohort(switched | seeded.mask())
        met = (s["exposure"] - s["exposure/before"]).clamp(min=0.0).float()
        return {
            "app": app,
            "app/looked": anew.write(looks.after, 0.0),
            "app/episode": anew.write(s["app/episode"], anew.read(s["app/episode"]) + 1),
            "app/workplaces": ring_sum(sign, places, s["app/workplaces"]),
            "app/areas": ring_sum(sign, areas, s["app/areas"]),
            "app/total": tally("app", sign, by=by, onto=s["app/total"]),
            "own_hazard": s["own_hazard"] * (1.0 - (s["dt"] / _WEEK).clamp(max=1.0)) + met,
            "exposure/before": s["exposure"],
            "app_seeds": torch.zeros_like(s["app_seeds"]),
        }

    written = (
        *("app", "app/looked", "app/episode", "app/workplaces", "app/areas", "app/total"),
        *("own_hazard", "exposure/before", "app_seeds"),
    )
    kept = ("phone", "seeding/people", "seeding/workplaces", "seeding/areas")
    return Substep(
        "adoption",
        reads=("app_answers", "app_seeding", "exposure", "stage", *kept, *written),
        writes=written,
        policy=switch,
        transition=change,
    )


def folds(network_value: float) -> tuple[float, float]:
    r"""Between which values of the app alone there are two stable levels of adoption, where everybody meets everybody.

    Where everybody with a phone has y as the share who have the app, :math:`\dot y = \kappa (\sigma(\alpha + \nu y) -
    y)`. Its fixed points have :math:`\alpha = \mathrm{logit}(y) - \nu y`, which turns at :math:`y_\pm = \tfrac12 (1
    \pm \sqrt{1 - 4 / \nu})`: below the first of the two values only the low level is stable, above the second only the
    high one.

    Args:
        network_value: ν, above 4, times the share of people who have a phone and would use the app.
    Raises:
        InputError: for no number, or one of 4 or less, where there is one level whatever the app is worth alone.
    Source: Brock and Durlauf, "Discrete choice with social interactions", Review of Economic Studies 68 (2001), 235.

    >>> [round(x, 3) for x in folds(7.0)]
    [-4.224, -2.776]
    """
    if (value := number("network_value", network_value, most=_MOST)) <= 4.0:
        raise InputError(f"network_value={value:g} was given; two levels of adoption need one above 4")
    return _alone(_turning(value), value), _alone(-_turning(value), value)


def levels(standalone: float, network_value: float) -> list[float]:
    """The fixed points of adoption where everybody meets everybody: one, or the low, the critical and the high level.

    Args:
        standalone: α, the value of the app alone.
        network_value: ν, times the share of people who have a phone and would use the app.
    Returns:
        shares of those who have a phone and would use the app, increasing; of three the outer two are stable, and the
        one between is the critical mass. At a fold, where two of them meet, it is counted once or not at all.
    Raises:
        InputError: for what are no numbers.

    >>> [round(y, 3) for y in levels(-3.2, 7.0)]
    [0.057, 0.398, 0.974]
    """
    alone, value = (
        number("standalone", standalone, -_MOST, _MOST),
        number("network_value", network_value, -_MOST, _MOST),
    )
    beyond = abs(alone) + abs(value) + 1.0
    turns = [] if value <= 4.0 else [-_turning(value), _turning(value)]

    def gap(odds: float) -> float:
        return _alone(odds, value) - alone

    edges = pairwise([-beyond, *turns, beyond])
    found = [optimize.brentq(gap, a, b, xtol=1e-14) for a, b in edges if (gap(a) > 0) != (gap(b) > 0)]
    return [float(special.expit(odds)) for odds in found]


def _alone(odds: float, network_value: float) -> float:
    """The value of the app alone at which a share with these log-odds have it and stay so many."""
    return odds - network_value * float(special.expit(odds))


def _turning(network_value: float) -> float:
    """The log-odds of the greater of the two shares at which that value turns, of a network value above 4."""
    return math.log(network_value) + 2.0 * math.log(0.5 + 0.5 * math.sqrt(1.0 - 4.0 / network_value))


def _turn(people: Population, kind: str, variable: str) -> Tensor:
    """The place of each workplace or area in the order in which they are given the app, shape (G,)."""
    with AgentPlate(kind, people.ids_of(variable), 0):
        return torch.as_tensor(
            pyro.sample(f"seeding/{kind}", dist.Uniform(torch.zeros((), device=people.device), 1.0))
        ).float()


def start(setting: Setting, theta: Theta, t: float) -> State:
    """Nobody has the app; who would ever, and in which order it is given out, is known."""
    people, device = setting.people, setting.people.device
    share = torch.tensor(PHONES, device=device)[people["age_band"].long()] * theta["would_use"]
    with people.plate(episode=0):
        phone = pyro.sample("phone", dist.Bernoulli(share)).bool()
        turn = pyro.sample("seeding/people", dist.Uniform(torch.zeros((), device=device), 1.0)).float()
    nobody = torch.zeros(people.size, dtype=torch.bool, device=device)
    none = partial(ring_sum, nobody.long())
    never = torch.zeros(people.size, dtype=torch.float64, device=device)
    return {
        "phone": phone,
        "seeding/people": turn,
        "seeding/workplaces": _turn(people, "workplaces", "workplace"),
        "seeding/areas": _turn(people, "areas", "puma"),
        "app": nobody,
        "app/looked": never,
        "app/episode": torch.zeros(people.size, dtype=torch.int32, device=device),
        "app/workplaces": none(people.network("workplace", nowhere=0)),
        "app/areas": none(people.network("puma", together=True)),
        "app/total": none(setting.by),
        "own_hazard": torch.zeros(people.size, device=device),
        "exposure/before": never,
    }


PART = Part(
    "adoption",
    adoption,
    start,
    parameters={
        "reconsider": Parameter(around(0.1), 0.1, "how often somebody looks at the app", "per day", "chosen"),
        "standalone": Parameter(dist.Normal(-3.2, 0.3), -3.2, "value of the app alone", "utility", "chosen"),
        "network_value": Parameter(
            around(17.0), 17.0, "value of the app if all contacts had it", "utility", "chosen: two levels, well mixed"
        ),
        "answers_value": Parameter(
            around(0.3), 0.3, "value of knowing one's risk", "utility per log(1 + risk in thousandths)", "chosen"
        ),
        "would_use": Parameter(
            dist.Beta(5.0, 5.0), 0.5, "who would ever use it", "share of those with a smartphone", "chosen"
        ),
        "install_cost": Parameter(around(10.0), 10.0, "an install that is given", "dollars", "chosen"),
        "local": transmission.PART.parameters["local"],
    },
    keeps=("phone", "seeding/people", "seeding/workplaces", "seeding/areas"),
    environment={"app_seeds": 0.0, "app_seeding": 0.0, "app_answers": 0.0},
    limits={"app_seeds": (0.0, 1.0), "app_answers": (0.0, 1.0)},
    options={"app_seeding": SCHEMES},
    pulses=("app_seeds",),
    tallies={
        "app": "people with the app",
        "app_installs": "installs by oneself",
        "app_removals": "removals",
        "app_given": "installs that are given",
        "app_dollars": "cost of installs that are given",
    },
    units={"app_dollars": "dollars"},
    outcomes={"app_used": lambda _, s: s["app"]},
)
