"""New York City: its people, and its epidemics."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from lpmppl.effects.ranks import Ranks
from lpmppl.errors import InputError, nearest
from lpmppl.models import negotiation, notification, outings, stimulus
from lpmppl.models.archetypes import Archetypes
from lpmppl.models.contacts import CONTACTS, Layer
from lpmppl.models.given import shown
from lpmppl.models.pandemic import PARTS, Pandemic
from lpmppl.models.part import Part
from lpmppl.models.people import needed
from lpmppl.models.population import Population, named
from lpmppl.models.seirm import SEIRM
from lpmppl.models.sir import SIR
from lpmppl.models.varying import Varying

__all__ = ["CONTACTS", "FITTED", "OF_APP", "pandemic", "population", "seirm", "sir", "varying"]


RESIDENTS = 8_480_225
"""Residents of the city: ACS 2020–2024, the base of its synthetic population."""

PEOPLE = (
    "age", "age_band", "borough", "puma", "household", "household_size", "household_kind", "income", "role",
    "employment", "occupation", "industry", "workplace", "workplace_kind",
)  # fmt: skip
"""What the pandemic asks of its people."""

FITTED = ("initial_infected", "beta", "severity", "fatality", "report_delay", "report_dispersion")
"""What daily counts of admissions and deaths say something of, besides the steps and places of `varying`."""

_APP = [part for part in notification.notified(PARTS) if part.name in ("adoption", "notification")]

OF_APP = {n for part in _APP for n in (*part.parameters, *part.environment, *part.tallies)} - {
    n for part in PARTS for n in part.parameters
}
"""Parameters, parts of the environment and tallies that the pandemic has with its app alone."""

STRATA = {"borough": "borough", "age": "age_band"}


def population(agents: int = 8_400_000, seed: int = 0, device: str = "cpu", ranks: Ranks | None = None) -> Population:
    """The synthetic people of New York, built once and then cached.

    Args:
        agents: how many; fewer than the city has are a proportional sample of whole households.
        seed: the seed of the synthesis.
        device: where its tensors live.
        ranks: those that share it, where each is to have its part, as `Population.shard` gives it; together they build
            it, each some areas, where they share the cache.
    Raises:
        InputError: for a number of agents below 1,000 or beyond 100 million.
    """
    from lpmppl.data import cache, together

    if ranks is None:
        return Population(cache.population(agents, seed), device)
    path = cache.path_of(agents, seed)

    def total(x: NDArray[np.int64]) -> NDArray[np.int64]:
        return ranks.total("building the population", torch.from_numpy(x)).numpy()

    if all(ranks.agree("the population", agents, path.exists())):
        try:
            return Population.open(path, device, ranks)
        except InputError as error:
            if ranks.rank == 0:
                warnings.warn(f"{error} (building it again now)", stacklevel=2)
                cache.forget(path)
            ranks.agree("a damaged population", agents)
    if together.build(agents, seed, path, ranks.rank, ranks.count, total):
        return Population.open(path, device, ranks)
    # Where the cache can't be written, everybody builds it.
    return Population(cache.population(agents, seed), device).shard(ranks)


def seirm(people: Population, by: Mapping[str, str] | None = None) -> SEIRM:
    """SEIRM over households, workplaces with schools, and neighbourhoods.

    Args:
        people: `population()`, or one that `Population.open` read.
        by: the dimensions of the tallies and the variables they come from; borough and age band by default.
    """
    _require(people, "household", "workplace", "neighbourhood", "workplace_kind", "borough", "age_band")
    kinds, kind = people.coded("workplace_kind")
    per_kind = torch.tensor([CONTACTS.get(each, 0.0) for each in kinds], device=people.device)
    layers = (
        Layer(people.network("household"), CONTACTS["household"]),
        Layer(people.network("workplace", nowhere=0), per_kind[kind.long()]),
        Layer(people.network("neighbourhood"), CONTACTS["community"]),
    )
    return SEIRM(people, layers, by=named(by, STRATA))


def pandemic(
    people: Population,
    start: str = "2020-03-01",
    without: Collection[str] = (),
    by: Mapping[str, str] | None = None,
    archetypes: Archetypes | None = None,
    negotiated: bool = False,
    going_out: bool = False,
    app: bool = False,
    swapped: Collection[Part] = (),
) -> Pandemic:
    """The composed pandemic.

    Args:
        people: `population()`, or one that `Population.open` read.
        start: the ISO date of day 0.
        without: the names of substeps to leave out.
        by: the dimensions of the tallies and the variables they come from, such as `{"income": "income_band"}`; borough
            and age band by default.
        archetypes: by which archetypes people decide; by default those that the model's own behaviour is made for.
        negotiated: whether households settle among their adults what they spend of a payment, a decision `spend`,
            instead of spending by their savings alone.
        going_out: whether people decide every week whether to go out to shops and restaurants as before, a decision
            `outing`, instead of all as much as was recorded and a network expects.
        app: whether people may adopt an exposure-notification app, which tells users of contacts with positive ones.
        swapped: parts that stand in for those of their names, such as an immunity of another ODE.
    """
    _require(people, *PEOPLE)
    strata = named(by, STRATA)
    for name, value in {"negotiated": negotiated, "going_out": going_out, "app": app}.items():
        if not isinstance(value, bool):
            raise InputError(f"{name}={shown(value)} was given; say True or False")
    if not isinstance(without, Collection):
        raise InputError(f"without={shown(without)} was given; give a list of substeps' names")
    if not isinstance(swapped, Collection) or not all(isinstance(part, Part) for part in swapped):
        raise InputError(f"swapped={shown(swapped)} was given; give a list of parts, such as [archetype.ode(…).part()]")
    parts = [negotiation.PART if negotiated and part is stimulus.PART else part for part in PARTS]
    if going_out:
        parts = outings.decided(parts)
    stand_in = {part.name: part for part in swapped}
    for name in stand_in:
        if name not in {part.name for part in parts}:
            raise InputError(nearest("substep", name, [part.name for part in parts]))
    parts = [stand_in.get(part.name, part) for part in parts]
    if app and (lacking := sorted({"testing", "transmission"} & {*without})):
        raise InputError(f"app=True needs {' and '.join(lacking)}: leave that out of without={list(without)}")
    if app:
        parts = notification.notified(parts)
    return Pandemic(people, strata, start, without, parts, RESIDENTS, archetypes)


def varying(
    people: Population,
    days: int,
    start: str = "2020-03-01",
    every: int = 14,
    ahead: int = 0,
    without: Collection[str] = (),
    within: str = "borough",
    app: bool = False,
) -> Varying:
    """The composed pandemic with transmission that varies from fortnight to fortnight and by borough, to be calibrated.

    Args:
        people: `population()`, or one that `Population.open` read.
        days: how many days there are data of; the last knot lies a week before their end, so that they show it.
        start: the ISO date of day 0.
        every: the days between knots.
        ahead: for how many days after them the walk goes on, of which the data say nothing; it rests at their end.
        without: the names of substeps to leave out.
        within: the variable whose values have factors of their own; "" for none, as where counts are of the whole city.
        app: whether people may adopt an exposure-notification app, as in `pandemic`.
    """
    knots = [*range(every, max(every, days - 7), every)]
    if ahead:
        knots += range(days - 1, days + ahead + every, every)
    return Varying(pandemic(people, start, without, app=app), knots=knots, within=within)


def sir(people: Population, by: Mapping[str, str] | None = None) -> SIR:
    """SIR over households and neighbourhoods, tallied by borough and age, or `by` other variables."""
    _require(people, "household", "neighbourhood", "borough", "age_band")
    return SIR(people, (people.network("household"), people.network("neighbourhood")), by=named(by, STRATA))


def _require(people: Population, *names: str) -> None:
    if missing := [n for n in names if n not in needed(people).dataset]:
        raise InputError(
            f"the population '{people.name}' lacks {', '.join(missing)}, which this model needs; build one with "
            "`lpmppl population nyc`"
        )
