"""What the disease's parameters and equations mean: each said a second time, of what a step left in the state.

None of it is played. A meaning is given the setting, the parameters, the states before and after a step and the step's
tallies; `lpmppl.verify` holds what was seen to what is expected. A part's order in the day says which of the two states
it read: its own keys and those of later parts before the step, those of earlier parts after it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lpmppl.models.contacts import CONTACTS, SUSCEPTIBILITY, in_session, mixing, schools
from lpmppl.models.immunity import AVERAGE, INFECTIOUS, TAKES_EFFECT
from lpmppl.models.model import Meant
from lpmppl.models.part import Setting
from lpmppl.models.periods import lognormal
from lpmppl.models.progression import AT_HOME, CLINICAL, PRESYMPTOMATIC, Stage, fatality_by_age, survivors_by_age
from lpmppl.models.seen import Counted, with_total, years
from lpmppl.models.within_host import DAYS, PRIORS, VARIATIONS
from lpmppl.typing import State, Theta

__all__ = [
    "IMMUNITY",
    "LEGS",
    "PROGRESSION",
    "TRANSMISSION",
    "in_effect",
    "is_in",
    "leads",
    "load",
    "summed",
    "weekly",
]


def is_in(stage: Tensor, *names: str) -> Tensor:
    """Who is in one of some stages."""
    return torch.stack([stage == Stage[name] for name in names]).any(0)


def load(a: State, infected_at: Tensor, at: Tensor) -> Tensor:
    """The viral load of everybody at a time: between the days of the table in a straight line, −∞ outside it."""
    since = (at - infected_at).double()
    inside = (since >= 0) & (since < DAYS - 1)
    since = torch.where(inside, since, 0.0)
    day = since.long()
    table = a["viral_load"].double().reshape(-1, DAYS)
    first, then = (table[a["archetype"].long(), day + k] for k in (0, 1))
    return torch.where(inside, first + (since - day) * (then - first), -math.inf)


def summed(x: Tensor, index: Tensor, count: int) -> Tensor:
    """What the members of each group have together, shape (G,)."""
    return x.new_zeros(count).index_add(0, index.long(), x)


def _force(setting: Setting, theta: Theta, b: State, a: State, _: Counted) -> Meant:
    """Equation 8 over the four layers, of everybody at risk: the hazard that accrued, per day."""
    people = setting.people
    risk = b["susceptible"] | a["returned"]
    began = torch.where(a["returned"], 0.0, b["exposure"])
    seen = (a["exposure"] - began)[risk] / b["dt"]
    virus = load(a, b["infected_at"], b["t"] + b["dt"] / 2)
    sheds = torch.where(a["active"], (virus - INFECTIOUS).clamp(min=0) / AVERAGE, 0.0)
    out = torch.where(is_in(a["stage"], "SEVERE", "CRITICAL"), 0.0, sheds)
    outside = out * torch.where(a["masked"], 1 - theta["mask_source"], 1.0) * ~a["isolating"]
    pupil = people["employment"] != 2
    goes = a["employed"] | pupil
    home, place = people["household"].long(), people["workplace"].long()
    homes = summed(out, home, people.network("household").count)[home]
    inside = homes / torch.bincount(home)[home] * CONTACTS["household"] * theta["home"]
    many = people.network("workplace", nowhere=0).count
    met = summed(outside * goes, place, many)[place] / torch.bincount(place, minlength=many)[place].clamp(min=1)
    is_school = schools(people)[place]
    at = torch.where(is_school, CONTACTS["school"], CONTACTS["workplace"])
    session = a["schools"] if float(a["schools"]) >= 0 else torch.tensor([in_session(setting.date_of(float(b["t"])))])
    activity = torch.where(is_school, session, a["mobility/workplaces"]) ** theta["crowding"]
    work = torch.where(goes & (place > 0), met * at * activity, 0.0)
    about = ((a["mobility/retail"] + a["mobility/transit"]) / 2) ** theta["crowding"]
    matrix = mixing(people, None).double()
    age, area = people["age_band"].long(), people["puma"].long()
    shape = int(area.max()) + 1, len(matrix)
    cell = area * shape[1] + age
    shed = summed(outside, cell, math.prod(shape)).reshape(shape)
    lives = summed(torch.ones_like(outside), cell, math.prod(shape)).reshape(shape)
    near, far = shed / lives.clamp(min=1), shed.sum(0) / lives.sum(0).clamp(min=1)
    pressure = (theta["local"] * near + (1 - theta["local"]) * far) @ matrix.T
    elsewhere = pressure.flatten()[cell] * about
    masks = torch.where(a["masked"], 1 - theta["mask_wearer"], 1.0)
    day = setting.date_of(0.0).timetuple().tm_yday - 15 + float(b["t"])
    season = 1 + theta["season"] * math.cos(2 * math.pi * day / 365.25)
    meets = inside + (work + elsewhere) * masks * ~a["isolating"]
    hazard = meets * theta["beta"] * a["transmission"] * season * a["protection"]
    expected = (hazard * torch.tensor(SUSCEPTIBILITY)[age])[risk]
    return Meant(*with_total(seen, expected), near=2e-4)


TRANSMISSION = {"the hazard of infection is that of equation 8": _force}


def _place(theta: Theta, first: Tensor) -> Tensor:
    """Where an incubation lies in its distribution, of the days until it is called presymptomatic."""
    days = first.double() / ((1 - PRESYMPTOMATIC) * theta["incubation_median"])
    return torch.special.ndtr(torch.log(days) / theta["incubation_spread"])


def _longer(theta: Theta, b: State, a: State, share: float) -> Meant:
    """How many of those just infected incubate for longer than all but a share do.

    Who is in the next stage already waited for less than two steps.
    """
    new, law = b["infected"], _place(theta, a["due"] - b["infected_at"])
    longer = (a["stage"] == Stage.EXPOSED) & (law > 1 - share)
    expected = torch.where(_place(theta, 2 * b["dt"]) > 1 - share, torch.nan, share)
    return Meant(longer[new].double(), expected.expand(int(new.sum())), share * (1 - share))


def _median(_: Setting, theta: Theta, b: State, a: State, __: Counted) -> Meant:
    return _longer(theta, b, a, 0.5)


def _spread(_: Setting, theta: Theta, b: State, a: State, __: Counted) -> Meant:
    return _longer(theta, b, a, 0.1586553)


def _rest(_: Setting, __: Theta, b: State, a: State, ___: Counted) -> Meant:
    who = (b["stage"] == Stage.EXPOSED) & (a["stage"] == Stage.PRESYMPTOMATIC)
    first = (b["due"] - b["infected_at"])[who]
    rest = first * (PRESYMPTOMATIC / (1 - PRESYMPTOMATIC))
    return Meant((a["due"] - b["due"])[who], rest.clamp(min=float(b["dt"])), near=1e-3)


def _symptoms(setting: Setting, _: Theta, b: State, a: State, __: Counted) -> Meant:
    who = (b["stage"] == Stage.EXPOSED) & is_in(a["stage"], "PRESYMPTOMATIC", "ASYMPTOMATIC") & (b["doses"] == 0)
    p = torch.tensor(CLINICAL)[setting.people["age_band"].long()[who]]
    return Meant((a["stage"][who] == Stage.PRESYMPTOMATIC).double(), p, p * (1 - p))


def _falling_ill(setting: Setting, theta: Theta, b: State, a: State) -> tuple[Tensor, Tensor, Tensor]:
    """Whose symptoms begin of a first infection and without vaccination, their age band, and their share ill."""
    who = a["onset"] & (b["doses"] == 0) & (b["episode"] == 1)
    band = setting.people["age_band"].long()[who]
    return who, band, torch.tensor(CLINICAL)[band]


def _fatal(setting: Setting, theta: Theta, b: State, a: State, _: Counted) -> Meant:
    who, _band, ill = _falling_ill(setting, theta, b, a)
    p = (fatality_by_age(years(setting.people)[who].float()) * theta["fatality"] / ill).clamp(max=0.95)
    return Meant(((a["destiny"][who] & 4) > 0).double(), p, p * (1 - p))


def _severe(setting: Setting, theta: Theta, b: State, a: State, _: Counted) -> Meant:
    who, band, ill = _falling_ill(setting, theta, b, a)
    of_survivors = (survivors_by_age()[band] * theta["severity"] / ill).clamp(max=0.95)
    p = torch.where((a["destiny"][who] & 4) > 0, 1 - AT_HOME, of_survivors)
    return Meant(((a["destiny"][who] & 1) > 0).double(), p, p * (1 - p))


LEGS = {
    ("EXPOSED", "ASYMPTOMATIC", 0): (8.0, 2.0),
    ("PRESYMPTOMATIC", "MILD", 0): (8.0, 2.0),
    ("PRESYMPTOMATIC", "MILD", 1): (6.6, 4.9),
    ("PRESYMPTOMATIC", "MILD", 4): (13.0, 6.0),
    ("MILD", "SEVERE", 3): (1.5, 2.0),
    ("MILD", "SEVERE", 1): (18.1, 6.3),
    ("SEVERE", "CRITICAL", 7): (7.0, 4.8),
    ("SEVERE", "CRITICAL", 3): (18.1, 6.3),
}
"""Mean and standard deviation in days of each stage, by the stage before and what the agent is destined to (1 severe,
2 critical, 4 fatal): Kerr et al., PLOS Computational Biology 17 (2021), table 1, and docs/pandemic.md."""


def leads(destiny: Tensor, then: str, fate: int) -> Tensor:
    """Whether a destiny is this one, as far as the length of a stage hangs on it, by the stage."""
    # The severe's are told apart by whether they become critical, and the critical by whether they die.
    bits = {"ASYMPTOMATIC": 0, "MILD": 5, "SEVERE": 2, "CRITICAL": 4}[then]
    own = destiny & bits
    own = torch.where((own & 1) > 0, 1, own) if then == "MILD" else own
    return own == (fate & bits)


def _periods(_: Setting, __: Theta, b: State, a: State, ___: Counted) -> Meant:
    """Each stage's length where it lies in its log-normal: uniform but for those that last one step at least."""
    us, means = [a["due"].new_zeros(0).double()], [a["due"].new_zeros(0).double()]
    for (was, now, destiny), (mean, spread) in LEGS.items():
        who = (b["stage"] == Stage[was]) & (a["stage"] == Stage[now]) & leads(a["destiny"], now, destiny)
        law = lognormal(torch.tensor(mean), spread)
        u = law.cdf((a["due"] - b["due"])[who].double().clamp(min=1e-6))
        us.append(u)
        means.append((0.5 + law.cdf(b["dt"].double()) ** 2 / 2).expand_as(u))
    return Meant(torch.cat(us), torch.cat(means), 1 / 12)


PROGRESSION = {
    "the incubation's median is incubation_median": _median,
    "the logarithm of the incubation spreads by incubation_spread": _spread,
    "the presymptomatic share of the incubation is the rest of it": _rest,
    "the share with symptoms is that of the age": _symptoms,
    "the fatal share of those ill is that of the age and of fatality": _fatal,
    "the admitted share of those ill is that of the age and of severity": _severe,
    "a stage lasts as long as published": _periods,
}


def in_effect(b: State, at: Tensor) -> tuple[Tensor, Tensor]:
    """How many doses protect, and for how many days the last of those given has."""
    given = b["doses"].long()
    wait = torch.tensor((0.0, *TAKES_EFFECT))[given.clamp(max=2)]
    since = torch.where(given > 0, at - b["dosed_at"] - wait, 0.0)
    return torch.where(since < 0, given - 1, given), since.clamp(min=0.0)


def _protection(_: Setting, theta: Theta, b: State, a: State, __: Counted) -> Meant:
    if not weekly(b):
        return Meant(a["protection"], b["protection"])
    doses, since = in_effect(b, b["t"])
    fresh = torch.where(doses == 0, 0.0, torch.where(doses == 1, theta["efficacy_one"], theta["efficacy_two"]))
    ever = ~b["infected_at"].isinf()
    ago = torch.where(ever, b["t"] - b["infected_at"], 0.0)
    recovered = torch.where(ever, theta["efficacy_recovered"], 0.0) * torch.exp(-ago / theta["waning_recovered"])
    left = (1 - fresh * torch.exp(-since / theta["waning_days"])) * (1 - recovered)
    known = (b["doses"] > 0) | ever
    return Meant(a["protection"], torch.where(known, left, b["protection"]))


def weekly(s: State) -> bool:
    """Whether a week begins in this step."""
    t, dt = float(s["t"]), float(s["dt"])
    return (t + 1e-6 * dt) % 7 < dt * (1 - 1e-6)


def _prior(_: Setting, __: Theta, b: State, a: State, ___: Counted) -> Meant:
    new = b["infected"]
    doses, _since = in_effect(b, b["infected_at"])
    prior = torch.where(doses == 1, PRIORS.index("one dose"), 0)
    prior = torch.where(b["episode"] > 1, PRIORS.index("infected"), prior)
    prior = torch.where(doses > 1, PRIORS.index("two doses"), prior)
    return Meant((a["archetype"].long() // VARIATIONS % len(PRIORS))[new], prior[new])


def _variation(_: Setting, theta: Theta, b: State, a: State, __: Counted) -> Meant:
    new = b["infected"] & (a["stage"] == Stage.EXPOSED) & (b["stage"] != Stage.EXPOSED)
    u, least = _place(theta, (a["due"] - b["infected_at"])[new]), _place(theta, b["dt"])
    # At an edge between two classes single precision may say either; the shortest incubations are all of one length.
    place = u * VARIATIONS
    sure = ((place - place.round()).abs() > 1e-2) & (u > least + 1e-3)
    return Meant((a["archetype"].long() % VARIATIONS)[new][sure], place[sure].floor())


IMMUNITY = {
    "protection is what vaccines and infections leave": _protection,
    "the archetype is of what one is immune by": _prior,
    "a fast incubation is fast in the body": _variation,
}
