"""Immunity: the viral load that people of an immune archetype carry, and how well the immune are protected."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl._compat import inside_transform
from lpmppl.effects.cohorts import Cohort, at
from lpmppl.effects.internals.segments import differentiated
from lpmppl.errors import InputError
from lpmppl.models import within_host
from lpmppl.models.model import Parameter
from lpmppl.models.part import Part, Setting
from lpmppl.models.periods import around, each
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep
from lpmppl.models.within_host import ARCHETYPES, DAYS, FLOOR, PRIORS, VARIATIONS
from lpmppl.typing import State, Theta

__all__ = ["PART", "archetype_of", "disease_factor", "immunity", "infectiousness", "loads", "viral_load", "with_course"]

WEEK = 7
"""Days between two turns of the substep."""

INFECTIOUS = 6.0
"""Log10 copies/ml from which people infect others, in proportion to what is above it.

Larremore et al., Science Advances 7 (2021), eabd5393.
"""

AVERAGE = 1.909
"""Infectiousness above `INFECTIOUS`, log10 copies/ml times days, of an average untreated first infection.

The mean over age bands and classes of variation at the parameters' defaults, of the loads as `viral_load` reads them.
"""

TAKES_EFFECT = (12.0, 7.0)
"""Days after the first and the second dose until it protects: Polack et al., NEJM 383 (2020), 2603."""


def loads(theta: Theta, treatment: Tensor) -> Tensor:
    """The viral load of every immune archetype on every day of infection: one ODE for each archetype.

    Args:
        theta: the parameters of the ODE, of shape () or (…, 1).
        treatment: how much of an antiviral's efficacy everybody has from the first symptoms on, shape (…, 1).
    Returns:
        log10 copies/ml, −6 where there is no virus, of shape (…, K · T), the days of an archetype side by side.
    """
    path = within_host.courses(theta, treatment, *within_host.archetypes(treatment.device))
    return within_host.log_load(path).flatten(-2)


Course = Callable[[Theta, Tensor], Tensor]
"""The parameters and the treatment to the viral load of every immune archetype on every day, as of `loads`."""


def archetype_of(cohort: Cohort, people: Population, state: State, quantile: Tensor) -> Tensor:
    """The immune archetypes of people who have just been infected.

    Args:
        cohort: the k infected.
        people: the population; its `age_band` counts.
        state: `infected_at` and `episode` with this infection in it, `doses` and `dosed_at`. A dose counts once it has
            taken effect.
        quantile: where each one's incubation period lies in its distribution, in [0, 1), shape (k,).
    Returns:
        codes in 0 … K − 1, int16 of shape (k,).
    """
    doses, _ = _in_effect(cohort, state, cohort.read(state["infected_at"]))
    again = cohort.read(state["episode"]) > 1
    prior = torch.where(doses == 1, PRIORS.index("one dose"), 0)
    prior = torch.where(again, PRIORS.index("infected"), prior)
    prior = torch.where(doses > 1, PRIORS.index("two doses"), prior)
    variation = (quantile * VARIATIONS).long().clamp(0, VARIATIONS - 1)
    age = cohort.group(people["age_band"]).long()
    return ((age * len(PRIORS) + prior) * VARIATIONS + variation).to(torch.int16)


def viral_load(state: State, cohort: Cohort, archetype: Tensor, days: Tensor) -> Tensor:
    """The viral load of people some time after their infection, linear in time between the days of the table.

    Args:
        state: its `viral_load`, of shape (…, K · T).
        cohort: the k people.
        archetype: their immune archetypes, integers of shape (k,).
        days: days since their infection, shape (k,); infinite for who was never infected.
    Returns:
        log10 copies/ml of shape (k,); minus infinity before an infection and from its day 30 on.
    """
    table = state["viral_load"]
    within = (days >= 0) & (days < DAYS - 1)
    since = torch.where(within, days, 0.0)
    day = since.floor()
    shape = torch.Size((*cohort.shape[:-1], table.shape[-1]))
    first = cohort.row * shape[-1] + archetype.long() * DAYS + day.long()
    before, after = at(table, shape, first), at(table, shape, first + 1)
    return torch.where(within, before + (since - day) * (after - before), -math.inf)


def infectiousness(load: Tensor) -> Tensor:
    r"""How infectious a viral load makes: :math:`\max(0, \log_{10} V - 6)`, in units of average infections a day.

    Added up over its days, an average untreated first infection has an infectiousness of 1.

    Args:
        load: log10 copies/ml.
    Returns:
        infectiousness per day, of the same shape.

    >>> [round(float(i), 2) for i in infectiousness(torch.tensor([-torch.inf, 5.0, 6.96]))]
    [0.0, 0.0, 0.5]
    """
    return (load - INFECTIOUS).clamp(min=0.0) / AVERAGE


def _in_effect(cohort: Cohort, state: State, t: Tensor) -> tuple[Tensor, Tensor]:
    """How many doses have taken effect in the members by a day, and for how many days the last of them has."""
    doses = cohort.read(state["doses"]).long()
    delay = torch.tensor((0.0, *TAKES_EFFECT), device=t.device)[doses.clamp(max=2)]
    # Who has none waits for none: an infinite wait would have no derivative.
    since = torch.where(doses > 0, t - cohort.read(state["dosed_at"]) - delay, 0.0)
    return doses - ((doses <= 2) & (since < 0)).long(), since.clamp(min=0.0)


def _efficacy(cohort: Cohort, state: State, theta: Theta, t: Tensor) -> tuple[Tensor, Tensor]:
    """The doses in effect, and their efficacy against infection, at a day: shape (k,) each."""
    doses, since = _in_effect(cohort, state, t)
    fresh = torch.where(doses > 1, each(cohort, theta["efficacy_two"]), each(cohort, theta["efficacy_one"]))
    efficacy = fresh * torch.exp(-since / each(cohort, theta["waning_days"]))
    return doses, torch.where(doses > 0, efficacy, 0.0)


def disease_factor(cohort: Cohort, state: State, theta: Theta, severe: bool = False) -> Tensor:
    r"""What vaccination before the infection leaves of the risk of symptoms, or of severe disease once there are any.

    Efficacy against severe disease doesn't wane: with efficacy :math:`e` against infection at the time of infection,
    the risk of the infected is such that :math:`1 - e_s` is left in all, if it isn't less already:
    :math:`\min\{1, (1 - e_s) / ((1 - e) f)\}`, where :math:`f` is the factor on symptoms.

    Args:
        cohort: k infected people.
        state: `infected_at`, `doses` and `dosed_at`.
        theta: `breakthrough_symptoms` f, `efficacy_severe` :math:`e_s`, and the efficacies against infection.
        severe: whether severe disease, given symptoms, is asked for.
    Returns:
        a factor on the risk of those without vaccination, shape (k,).
    """
    doses, efficacy = _efficacy(cohort, state, theta, cohort.read(state["infected_at"]))
    symptoms = each(cohort, theta["breakthrough_symptoms"])
    if severe:
        left = (1.0 - efficacy).clamp(min=1e-6) * symptoms.clamp(min=1e-6)
        factor = ((1.0 - each(cohort, theta["efficacy_severe"])) / left).clamp(max=1.0)
    else:
        factor = symptoms
    return torch.where(doses > 0, factor, 1.0)


def immunity(setting: Setting, theta: Theta, course: Course = loads) -> Substep:
    r"""The weekly substep that says what viral load an infection brings, and how susceptible the immune are.

    The load follows from the ODE of every immune archetype, with the treatment of the day. The factor on the
    susceptibility of who was infected or vaccinated before is

    .. math:: (1 - e_v\,e^{-t_v/\tau_v})\,(1 - e_r\,e^{-t_r/\tau_r})

    with the efficacy :math:`e_v` of the doses in effect and :math:`t_v` days since the last of them took effect, and
    :math:`e_r` of an infection :math:`t_r` days ago. Doses and infections of the week count from the next turn on.

    Args:
        setting: where it plays.
        theta: the parameters of the part.
        course: the loads of every archetype, as `loads` has them.
    """
    people = setting.people
    solved: list[tuple[Tensor, Tensor]] = []

    def table(treatment: Tensor) -> Tensor:
        """The loads under a treatment; solved anew where it isn't that of the week before."""
        if solved and torch.equal(solved[0][0], treatment):
            return solved[0][1]
        found = course(theta, treatment)
        if not bool(torch.isfinite(found.detach()).all()):
            given = [name for name in within_host.PARAMETERS if name in theta]
            names = ", ".join(f"{name}={float(theta[name].detach().flatten()[0]):g}" for name in given)
            raise InputError(
                f"the course of an infection has no finite viral load with {names or 'the ODE that was given'}; give "
                "values nearer their defaults"
            )
        if not differentiated(found) and not inside_transform(found):
            solved[:] = [(treatment, found)]
        return found

    def protect(s: State) -> State:
        immune = people.cohort((s["doses"] > 0) | (s["infected_at"] > -math.inf))
        t = immune.read(s["t"])
        _, vaccine = _efficacy(immune, s, theta, t)
        infected_at = immune.read(s["infected_at"])
        ever = infected_at > -math.inf
        since = torch.where(ever, t - infected_at, 0.0)
        kept = torch.exp(-since / each(immune, theta["waning_recovered"]))
        recovery = torch.where(ever, each(immune, theta["efficacy_recovered"]) * kept, 0.0)
        left = ((1.0 - vaccine) * (1.0 - recovery)).to(s["protection"].dtype)
        return {"viral_load": table(s["treatment"]), "protection": immune.write(s["protection"], left)}

    return Substep(
        "immunity",
        reads=("treatment", "infected_at", "doses", "dosed_at", "protection"),
        writes=("viral_load", "protection"),
        policy=protect,
        transition=lambda _, updates: updates,
        every=WEEK,
    )


def start(setting: Setting, theta: Theta, t: float, course: Course = loads) -> State:
    """Nobody is immune, and where the first day isn't the substep's turn, the untreated loads hold until it is."""
    device = setting.people.device
    none = torch.full((ARCHETYPES * DAYS,), math.log10(FLOOR), dtype=theta["waning_days"].dtype, device=device)
    return {
        "viral_load": course(theta, torch.zeros(1, device=device)) if t % WEEK else none,
        "protection": torch.ones(setting.people.size, device=device),
    }


PART = Part(
    "immunity",
    immunity,
    start,
    parameters={
        **within_host.PARAMETERS,
        "efficacy_one": Parameter(
            dist.Beta(7.0, 3.0), 0.70, "one dose against infection", "share", "Hall et al., Lancet 397 (2021), 1725"
        ),
        "efficacy_two": Parameter(
            dist.Beta(17.0, 3.0), 0.85, "two doses against infection", "share", "Hall et al., Lancet 397 (2021), 1725"
        ),
        "waning_days": Parameter(
            around(240.0),
            240.0,
            "decline of the vaccine's efficacy against infection to 1/e",
            "days",
            "88 to 47 % in five months: Tartof et al., Lancet 398 (2021), 1407",
        ),
        "breakthrough_symptoms": Parameter(
            dist.Beta(3.0, 6.0),
            1 / 3,
            "symptoms of the vaccinated who are infected",
            "factor",
            "1 − 0.95 against disease, Polack et al., NEJM 383 (2020), 2603, over 1 − 0.85 against infection",
        ),
        "efficacy_severe": Parameter(
            dist.Beta(18.0, 2.0),
            0.90,
            "vaccine against severe disease",
            "share",
            "admissions: Tartof et al., Lancet 398 (2021), 1407",
        ),
        "efficacy_recovered": Parameter(
            dist.Beta(16.0, 3.0),
            0.84,
            "an earlier infection against infection",
            "share",
            "SIREN: Hall et al., Lancet 397 (2021), 1459",
        ),
        "waning_recovered": Parameter(
            around(1000.0, 0.5),
            1000.0,
            "decline of an infection's protection to 1/e",
            "days",
            "chosen: slow, SIREN's 0.84 is a mean over seven months",
        ),
    },
    environment={"treatment": 0.0},
    limits={"treatment": (0.0, 1.0)},
)


def with_course(course: Course, parameters: Mapping[str, Parameter], treatable: bool) -> Part:
    """The part with another course of infections within the body.

    Args:
        course: the loads of every archetype, as `loads` has them.
        parameters: those that it reads, in the place of `within_host.PARAMETERS`.
        treatable: whether it has an antiviral; where not, a policy that gives one is refused.
    """
    own = {name: p for name, p in PART.parameters.items() if name not in within_host.PARAMETERS}
    return replace(
        PART,
        substep=partial(immunity, course=course),
        start=partial(start, course=course),
        parameters={**parameters, **own},
        limits=PART.limits if treatable else {"treatment": (0.0, 0.0)},
    )
