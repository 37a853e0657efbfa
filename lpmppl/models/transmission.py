"""Transmission: who is infected today, by the virus of whom they meet at home, at work, at school and elsewhere."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Sparse
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.fields import Choice, Field
from lpmppl.effects.ops import aggregate, happens, tally
from lpmppl.models.contacts import CONTACTS, SUSCEPTIBILITY, in_session, mixing, schools
from lpmppl.models.immunity import infectiousness, viral_load
from lpmppl.models.model import Parameter
from lpmppl.models.networks import Groups
from lpmppl.models.part import Part, Setting
from lpmppl.models.periods import around, each
from lpmppl.models.progression import Stage
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["OUTINGS", "PART", "transmission"]

_LOAD_BOUND = 8.0
"""More than any agent's infectiousness: a message's bound, in average infections' days."""


_LEAST_ABOUT = 0.02
"""Activity below which those who are about aren't told apart further."""


def transmission(setting: Setting, theta: Theta, matrix: Tensor | None = None, outings: bool = False) -> Substep:
    r"""The substep in which agents at risk are infected: eq. 8 of the LPM paper over four layers of contact.

    .. math:: p_i = 1 - \exp\Big(-\beta\, S_i\, \Delta t \Big[ c_h \bar I_h + o_i \big(w_i\, a_w^\kappa c_w \bar I_w
        + a_c^\kappa \sum_b M_{ab} \bar I_{b} \big) \Big]\Big)

    Ī is the mean infectiousness (of the viral load) of an agent's household, workplace or school, and of the people of
    age b of its area and the city; o is what masks and isolation leave of contacts outside the home, w whether the
    agent goes to work or school, a the activity there relative to before the pandemic, and M the contacts a day of age
    a with age b. Community contacts are drawn anew every day: a Poisson number of them, thinned by who is infectious
    and transmits, infects with just this probability, so nobody needs to draw them one by one.

    Args:
        setting: where it plays.
        theta: `beta`, transmissions per contact over an average infection; `mask_source` and `mask_wearer`, the shares
            of transmission that a mask stops on either side; `local`, the share of community contacts within an
            agent's own area; `crowding`, the exponent κ of contacts by activity; `home`, a factor on household
            contacts; `season`, the amplitude of the year.
        matrix: contacts a day in the community of age band a (row) with age band b; by default in proportion to their
            numbers, as Mistry et al. find for New York State.
        outings: whether people decide themselves whether to go out (`out`): who does then has more contacts in the
            community than who doesn't, (r_i + a_t) / (a_r + a_t) times the mean of shops' and of transit's activity,
            with r_i 1 or 0, and is met as much more often.
    """
    people = setting.people
    device = people.device
    household, places = people.network("household"), people.network("workplace", nowhere=0)
    home, at_work = _bounded(household), _bounded(places)
    bands = people.labels("age_band")
    areas = people.strata(area="puma", age="age_band")
    bound = _LOAD_BOUND / _LEAST_ABOUT if outings else _LOAD_BOUND
    community = replace(areas, name="community", bound=bound, dims={}, together=True)
    residents = areas.size.reshape(-1, len(bands)).float()
    is_school = schools(people)
    per_place = torch.where(is_school, CONTACTS["school"], CONTACTS["workplace"])
    pupil = people["employment"] != 2
    susceptibility = Field.on(torch.tensor(SUSCEPTIBILITY, device=device), people["age_band"])
    met = mixing(people, matrix)

    def messages(s: State) -> tuple[Sparse, Sparse, Sparse]:
        """What everybody with an infection sends home, to work or school, and into the community today."""
        ill = people.cohort(s["active"])
        days = s["t"] + 0.5 * s["dt"]
        since = ill.read(days) - ill.read(s["infected_at"])
        stage = ill.read(s["stage"])
        sheds = infectiousness(viral_load(s, ill, ill.read(s["archetype"]), since))
        out = torch.where((stage == Stage.SEVERE) | (stage == Stage.CRITICAL), torch.zeros_like(sheds), sheds)
        mask = torch.where(ill.read(s["masked"]), 1.0 - each(ill, theta["mask_source"]), 1.0)
        outside = torch.where(ill.read(s["isolating"]), torch.zeros_like(out), out * mask)
        goes = ill.read(s["employed"]) | ill.group(pupil)
        met_by = outside * ill.read(_about(s)) if outings else outside
        return ill.carrying(out), ill.carrying(torch.where(goes, outside, 0.0)), ill.carrying(met_by)

    def force(s: State) -> Exposure:
        to_home, to_work, to_others = messages(s)
        school = torch.where(s["schools"] < 0, in_session(setting.date_of(float(s["t"]))), s["schools"])
        activity = torch.where(is_school, school, s["mobility/workplaces"])
        inside = aggregate(to_home, home) * (CONTACTS["household"] * theta["home"])
        work = _weighted(aggregate(to_work, at_work), per_place * activity ** theta["crowding"])
        goes = Choice(s["employed"] | pupil, 1.0, 0.0)
        shed = aggregate(to_others, community, reduce="sum").total
        about = ((s["mobility/retail"] + s["mobility/transit"]) / 2) ** theta["crowding"]
        pressure = _pressure(torch.as_tensor(shed), residents, met, theta["local"]) * community.quantum
        elsewhere = Field.on(pressure * about, community.index)
        if outings:
            elsewhere = elsewhere * _about(s)
        masks = Choice(s["masked"], 1.0 - theta["mask_wearer"], 1.0)
        outside = (work * goes + elsewhere) * Choice(s["isolating"], 0.0, 1.0) * masks
        scale = theta["beta"] * s["transmission"] * _season(setting, s, theta)
        hazard = (inside + outside) * scale * susceptibility * s["protection"]
        again = people.cohort(s["returned"])
        before = again.write(s["exposure"], 0.0) if len(again) else s["exposure"]
        risk = again.write(s["susceptible"], True)
        return Exposure(before, hazard, at_risk=risk, episode=s["episode"], dt=s["dt"])

    def infect(infection: Exposure) -> tuple[Exposure, Tensor, Tensor | Sparse]:
        with people.plate():
            return infection, *happens("infection", infection)

    def change(s: State, action: tuple[Exposure, Tensor, Tensor | Sparse]) -> State:
        infection, infected, left = action
        cohort = people.cohort(infected)
        tally("infections", cohort, by=setting.by)
        at = s["t"] + s["dt"] * (1.0 - cohort.read(left))
        return {
            "exposure": infection.after,
            "infected": infected,
            "infected_at": cohort.write(s["infected_at"], at),
            "susceptible": cohort.write(infection.at_risk, False),
            "episode": cohort.write(s["episode"], cohort.read(s["episode"]) + 1),
        }

    return Substep(
        "transmission",
        reads=(
            "active",
            "archetype",
            "employed",
            "episode",
            "exposure",
            "infected_at",
            "isolating",
            "masked",
            "mobility/retail",
            "mobility/transit",
            "mobility/workplaces",
            "protection",
            "returned",
            "schools",
            "stage",
            "susceptible",
            "transmission",
            "viral_load",
            *(("out",) if outings else ()),
        ),
        writes=("exposure", "infected", "infected_at", "susceptible", "episode"),
        observe=force,
        policy=infect,
        transition=change,
    )


def _bounded(network: Groups) -> Groups:
    return replace(network, bound=_LOAD_BOUND)


def _weighted(field: Field, weight: Tensor) -> Field:
    """Give every group of a field of one network a factor of its own, shape (…, G)."""
    (leaf,) = field.leaves
    return Field.on(leaf.values * leaf.scale * weight, leaf.index)


def _about(s: State) -> Choice:
    """How much more than the mean, or less, someone is about who goes out, or stays in."""
    transit = s["mobility/transit"]
    mean = (s["mobility/retail"] + transit).clamp(min=2 * _LEAST_ABOUT)
    return Choice(s["out"], (1.0 + transit) / mean, transit / mean)


def _pressure(infected: Tensor, residents: Tensor, matrix: Tensor, local: Tensor) -> Tensor:
    """Infectious contacts a day of each area and age, shape (…, areas · ages), from what is shed there, in integers.

    A share `local` of contacts is with people of one's own area, the rest with people of the whole city.
    """
    shed = infected.reshape(*infected.shape[:-1], *residents.shape)
    whole = shed.sum(-2, keepdim=True, dtype=torch.float64 if shed.is_floating_point() else torch.int64)
    near = shed.to(residents.dtype) / residents.clamp(min=1.0)
    far = whole.to(residents.dtype) / residents.sum(-2, keepdim=True).clamp(min=1.0)
    local = local.reshape(*local.shape, 1) if local.dim() else local
    mean = local * near + (1.0 - local) * far
    # Added up age by age: a matrix product's rounding would depend on how many worlds there are.
    met = sum(mean[..., b : b + 1] * matrix[:, b] for b in range(matrix.shape[-1]))
    return torch.as_tensor(met).reshape(infected.shape)


def _season(setting: Setting, s: State, theta: Theta) -> Tensor:
    """The factor of the season, greatest in mid-January."""
    day = float(s["t"]) + setting.start.timetuple().tm_yday - 15
    return 1.0 + theta["season"] * math.cos(2 * math.pi * day / 365.25)


def start(setting: Setting, theta: Theta, t: float) -> State:
    """Some have just been infected: those who bring the infection to the city."""
    people, device = setting.people, setting.people.device
    with people.plate():
        imported = pyro.sample("importation", dist.Bernoulli(theta["initial_infected"])).bool()
    return {
        "exposure": torch.zeros(people.size, dtype=torch.float64, device=device),
        "susceptible": ~imported,
        "infected": imported,
        "infected_at": torch.where(imported, float(t), -math.inf),
        "episode": imported.to(torch.uint8),
    }


PART = Part(
    "transmission",
    transmission,
    start,
    parameters={
        "beta": Parameter(around(0.55, 0.2), 0.55, "transmission", "transmissions per contact", "chosen: R0 near 3"),
        "mask_source": Parameter(dist.Beta(5.0, 5.0), 0.5, "what a mask holds back", "share", "chosen"),
        "mask_wearer": Parameter(dist.Beta(3.0, 7.0), 0.3, "what a mask keeps out", "share", "chosen"),
        "home": Parameter(around(0.5), 0.5, "household contacts", "factor", "chosen: a fifth of a household infected"),
        "crowding": Parameter(
            around(1.0, 0.1),
            1.0,
            "contacts by activity",
            "exponent",
            "chosen: between 1, as many about each, and 2, fewer",
        ),
        "local": Parameter(dist.Beta(5.0, 5.0), 0.5, "community contacts within the area", "share", "chosen"),
        "season": Parameter(dist.Beta(2.0, 18.0), 0.1, "amplitude of the season", "share", "chosen"),
        "initial_infected": Parameter(
            dist.Beta(1.5, 498.5),
            0.003,
            "infected at day 0",
            "share of the population",
            "chosen: New York's course of spring 2020 from 1 March",
        ),
    },
    environment={"transmission": 1.0, "schools": -1.0},
    limits={"transmission": (0.0, 1000.0), "schools": (0.0, 1.0)},
    tallies={"infections": "new infections"},
    targets={"transmission": "agent"},
    spreads="infection",
    outcomes={"infected": lambda _, s: s["episode"] > 0},
)

OUTINGS = replace(PART, substep=partial(transmission, outings=True))
"""The same where people decide themselves whether to go out."""
