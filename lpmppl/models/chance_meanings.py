"""What the parts of the pandemic draw from, and of whom: each said a second time, of the two states of a step.

`lpmppl.verify` knows of every site whom it is drawn for and the mean and variance of what it is drawn from. So a chance
is held to its equation exactly, however few events come of it. None of it is played.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lpmppl.models.behaviour import STAY_AT_HOME
from lpmppl.models.disease_meanings import LEGS, in_effect, is_in, leads, summed, weekly
from lpmppl.models.masking import ADVISED, MANDATES
from lpmppl.models.model import Meant
from lpmppl.models.new_yorkers import archetypes_of, present
from lpmppl.models.observation import STREAMS, WEEKDAYS
from lpmppl.models.part import Setting
from lpmppl.models.progression import AT_HOME, CLINICAL, fatality_by_age, survivors_by_age
from lpmppl.models.response_meanings import alive, arriving, chances, result_delay, supply, tired
from lpmppl.models.seen import Counted, among, drawn, years
from lpmppl.typing import State, Theta

__all__ = ["BEHAVIOUR", "CLAIMS", "LABOUR", "MASKING", "OBSERVATION", "PROGRESSION", "TESTING"]

INTENSIVE = (0.05, 0.05, 0.05, 0.05, 0.063, 0.122, 0.274, 0.432, 0.709)
"""In intensive care of those admitted, by age band: Ferguson et al., Imperial report 9 (2020), table 1."""


def _of_each(setting: Setting, counted: Counted, site: str, who: Tensor, chance: Tensor) -> Meant:
    """That a site is drawn for some and nobody else, and from a mean; both of shape (N,)."""
    places, mean = drawn(setting.people, counted, site)
    there = among(setting.people, places)
    expected = chance.double().expand(setting.people.size)[places]
    return Meant(torch.cat((there, mean)), torch.cat((who.double(), expected)), near=1e-7)


def _protected(theta: Theta, b: State) -> tuple[Tensor, Tensor]:
    """Whether doses were in effect at the infection, and their efficacy against it then."""
    doses, since = in_effect(b, b["infected_at"])
    fresh = torch.where(doses == 1, theta["efficacy_one"], theta["efficacy_two"])
    return doses > 0, fresh.double() * torch.exp(-since.double() / theta["waning_days"])


def _symptoms(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    """Of all whose incubation ends: the share of the age, times breakthrough_symptoms of who was vaccinated."""
    done = is_in(a["stage"], "PRESYMPTOMATIC", "ASYMPTOMATIC") & ~is_in(b["stage"], "PRESYMPTOMATIC", "ASYMPTOMATIC")
    shielded, _ = _protected(theta, b)
    p = torch.tensor(CLINICAL)[setting.people["age_band"].long()]
    return _of_each(setting, counted, "symptoms", done, torch.where(shielded, p * theta["breakthrough_symptoms"], p))


def _risk(setting: Setting, theta: Theta, b: State) -> Tensor:
    """What severe disease of those with symptoms is times, by vaccines and earlier infections, over the share ill."""
    shielded, efficacy = _protected(theta, b)
    left = ((1 - efficacy) * theta["breakthrough_symptoms"]).clamp(min=1e-12)
    vaccinated = torch.where(shielded, ((1 - theta["efficacy_severe"]) / left).clamp(max=1.0), 1.0)
    ill = torch.tensor(CLINICAL)[setting.people["age_band"].long()]
    return vaccinated * torch.where(b["episode"] > 1, theta["reinfection_severity"], 1.0) / ill


def _fatal(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    p = fatality_by_age(years(setting.people).float()) * theta["fatality"] * _risk(setting, theta, b)
    return _of_each(setting, counted, "fatal", a["onset"], p.clamp(max=0.95))


def _admitted(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    p = survivors_by_age()[setting.people["age_band"].long()] * theta["severity"] * _risk(setting, theta, b)
    p = torch.where((a["destiny"] & 4) > 0, 1 - AT_HOME, p.clamp(max=0.95).double())
    return _of_each(setting, counted, "admission", a["onset"], p)


def _intensive(setting: Setting, _: Theta, __: State, a: State, counted: Counted) -> Meant:
    """Half of the critical die: of the survivors' admissions the other half was critical, and who dies was too."""
    half = torch.tensor(INTENSIVE)[setting.people["age_band"].long()] / 2
    p = torch.where((a["destiny"] & 4) > 0, 1.0, half / (1 - half))
    return _of_each(setting, counted, "intensive", a["onset"], p)


def _of_the_infection(setting: Setting, _: Theta, b: State, a: State, counted: Counted) -> Meant:
    """In every world: so a later infection has a chance of its own, and the first has that of the first."""
    return _of_episode(setting, counted, b["episode"], ("incubation", "symptoms", "fatal", "admission", "intensive"))


def _of_episode(setting: Setting, counted: Counted, number: Tensor, sites: Sequence[str]) -> Meant:
    """That the chance of sites belongs to the episode of each one's life with a number."""
    both = [drawn(setting.people, counted, site, "episode") for site in sites]
    seen = torch.cat([episode for _, episode in both])
    return Meant(seen, torch.cat([number[places].double() for places, _ in both]))


def _periods(setting: Setting, _: Theta, b: State, a: State, counted: Counted) -> Meant:
    """Each stage's mean and standard deviation are the published ones of where it leads."""
    people = setting.people
    places, mean = drawn(people, counted, "period")
    spread = drawn(people, counted, "period", "variance")[1].sqrt()
    now, destiny = a["stage"][places], a["destiny"][places]
    published = torch.full((*places.shape, 2), torch.nan).double()
    for (_was, then, fate), law in LEGS.items():
        published[is_in(now, then) & leads(destiny, then, fate)] = torch.tensor(law).double()
    turned = (b["stage"] != a["stage"]) & ~(b["infected"] & is_in(a["stage"], "EXPOSED"))
    seen = torch.cat((among(people, places), mean, spread))
    return Meant(seen, torch.cat((turned.double(), published[:, 0], published[:, 1])))


PROGRESSION = {
    "whose incubation ends has symptoms with the chance of the age": _symptoms,
    "who falls ill dies of it with the chance of the age, of fatality and of what one is immune by": _fatal,
    "who falls ill is admitted with the chance of the age, of severity and of what one is immune by": _admitted,
    "of the admitted as many are critical as published": _intensive,
    "the mean and spread of a stage are the published ones": _periods,
    "the chance of a course is that of the infection": _of_the_infection,
}


def _by_turns(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    """Besides those ill a rotating share of everybody asks, one after another: on day t whose turn lies t shares on."""
    share = theta["other_reasons"].double() * b["dt"]
    ahead = torch.remainder(b["test_turn"].double() - b["t"] * theta["other_reasons"].double(), 1.0)
    asked = alive(a) & (b["seeks_test"] | (ahead < share))
    # Turns are kept in single precision, in which neighbours' windows may overlap.
    edge = torch.minimum((ahead - share).abs(), torch.minimum(ahead, 1 - ahead)) < 1e-5
    there = among(setting.people, drawn(setting.people, counted, "test_slot")[0])
    return Meant(there, torch.where(edge, torch.nan, asked.double()))


def _served(setting: Setting, _: Theta, b: State, a: State, counted: Counted) -> Meant:
    p = (supply(setting, b, a) / counted["tests_sought"].clamp(min=1)).clamp(max=1.0)
    _places, mean = drawn(setting.people, counted, "test_slot")
    return Meant(mean, p.expand_as(mean), near=1e-7)


def _done(setting: Setting, _: Theta, b: State, a: State, counted: Counted) -> Meant:
    """Who asks is tested as far as there are tests; besides, the admitted, contacts, and everybody once a screening."""
    places, served = drawn(setting.people, counted, "test_slot")
    none = torch.ones(setting.people.size).double().index_copy(0, places, 1 - served)
    none = none * (1 - _contacts(setting, b) * a["tracing"].clamp(0, 1).double()) * ~a["admitted"]
    every = torch.ceil(a["screening"].double())
    none = torch.where(every > 0, none * (1 - b["dt"] / every.clamp(min=1)), none)
    p = torch.where(alive(a), 1 - none, 0.0)
    return Meant(counted["tests"], p.sum(), (p * (1 - p)).sum())


def _contacts(setting: Setting, b: State) -> Tensor:
    """The others in the households of who learnt of a positive test."""
    home = setting.people["household"].long()
    return (summed(b["learnt"].long(), home, int(home.max()) + 1)[home] > 0) & ~b["learnt"]


def _traced(setting: Setting, _: Theta, b: State, a: State, counted: Counted) -> Meant:
    contacts = _contacts(setting, b) & bool(a["tracing"] > 0)
    return _of_each(setting, counted, "tracing", contacts, a["tracing"].clamp(0, 1))


def _mistaken(setting: Setting, theta: Theta, _: State, __: State, counted: Counted) -> Meant:
    _places, mean = drawn(setting.people, counted, "false_positive")
    return Meant(mean, theta["false_positive"].expand_as(mean), near=1e-7)


def _not_before(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    """Whose result wasn't awaited hears of it in the step only if the test takes less time than that."""
    days = result_delay(setting, theta, b, a, counted)
    new = b["result_at"].isinf() & (a["learnt"] | ~a["result_at"].isinf())
    # Whose wait ends with the step may hear of it in this one or the next.
    at_once = torch.where((days - b["dt"]).abs() < 1e-3, torch.nan, (days < b["dt"]).double())
    return Meant(a["learnt"][new].double(), at_once.expand(int(new.sum())))


TESTING = {
    "tests done are those wanted, or as many as there are": _done,
    "who asks for another reason does so by turns": _by_turns,
    "who asks is tested as far as there are tests": _served,
    "the household of who learns of a positive test is reached as far as contacts are traced": _traced,
    "false_positive is the chance of a false result": _mistaken,
    "no result is heard before its time": _not_before,
}


def _seeks(setting: Setting, _: Theta, b: State, a: State, counted: Counted) -> Meant:
    places, mean = drawn(setting.people, counted, "seeks_test")
    ill = among(setting.people, places)
    p = chances(setting, b, a, a["onset"], "test")
    same = torch.equal(ill > 0, a["onset"])
    expected = p if same else torch.full_like(mean, torch.nan)
    return Meant(torch.cat((ill, mean)), torch.cat((a["onset"].double(), expected)), near=1e-7)


def _of_the_illness(setting: Setting, _: Theta, b: State, __: State, counted: Counted) -> Meant:
    return _of_episode(setting, counted, b["episode"], ("seeks_test",))


def _observed(setting: Setting, _: Theta, b: State, a: State, counted: Counted) -> Meant:
    """What is known when it is decided on a test: as when it is decided on isolation."""
    seen = torch.stack([counted[f"test: {what}"].reshape(()).double() for what in ("risk", "fatigue", "weeks")])
    risk, day = torch.log1p(a["admissions/week"]), float(b["t"])
    meant = [float(risk), tired(day - setting.day(STAY_AT_HOME)), float(int(day / 7))]
    return Meant(seen, torch.tensor(meant).double())


BEHAVIOUR = {
    "the chance to seek a test is that of the infection": _of_the_illness,
    "whose symptoms begin seeks a test with the chance of its archetype": _seeks,
    "risk, fatigue and weeks are known to who decides on a test": _observed,
}


def _masks_weekly(_: Setting, __: Theta, b: State, ___: State, counted: Counted) -> Meant:
    return Meant(torch.tensor(float("mask: risk" in counted)), torch.tensor(float(weekly(b))))


def _masks_known(setting: Setting, _: Theta, b: State, a: State, counted: Counted) -> Meant:
    """The mandate in force, the advice, the risk, and the share of each borough who wore a mask before."""
    day, own = float(b["t"]), float(a["mask_mandate"])
    today = setting.date_of(day).isoformat()
    ordered = float(any(first <= today < last for first, last in MANDATES)) if own < 0 else own
    borough = setting.people.network("borough")
    wore = summed(b["masked"].double(), borough.index, borough.count)
    share = wore / torch.bincount(borough.index.long(), minlength=borough.count).clamp(min=1)
    meant = torch.tensor([ordered, float(today >= ADVISED), float(torch.log1p(a["admissions/week"]))]).double()
    seen = torch.stack([counted[f"mask: {what}"].reshape(()).double() for what in ("mandate", "advice", "risk")])
    return Meant(torch.cat((seen, counted["mask: neighbours"].double().flatten())), torch.cat((meant, share)))


def _masked(setting: Setting, _: Theta, b: State, a: State, __: Counted) -> Meant:
    """Who is inclined to, at the chance that its archetype in its borough remembers, wears one until the next week."""
    if not weekly(b):
        return Meant(a["masked"].double(), b["masked"].double())
    kinds, borough = archetypes_of(setting), setting.people.network("borough")
    s = {**a, "masked": b["masked"]}
    kind = present(setting.people, kinds, s)(slice(None)) + borough.index.int() * kinds.size
    chance = kinds.read(a["before/mask"], kind)
    return Meant(a["masked"].double(), (b["inclination/mask"] < chance).double())


MASKING = {
    "masks are decided on once a week": _masks_weekly,
    "mandate, advice, risk and neighbours are known to who decides on a mask": _masks_known,
    "who is inclined to wears a mask": _masked,
}


def _files(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    out = b["employed"] & ~a["employed"]
    return _of_each(setting, counted, "claim", out, theta["claim_share"])


def _waits(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    out = b["employed"] & ~a["employed"]
    return _of_each(setting, counted, "claim_wait", out, theta["claim_delay"])


def _of_the_job(setting: Setting, _: Theta, b: State, __: State, counted: Counted) -> Meant:
    return _of_episode(setting, counted, b["job_changes"], ("claim", "claim_wait"))


LABOUR = {
    "the chance of a claim is that of the job": _of_the_job,
    "who is laid off files with the chance claim_share": _files,
    "who is laid off waits for claim_delay on average": _waits,
}


def _reports(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    """The mean and variance of every report: what falls due, by the weekday, for the residents."""
    weekday = setting.date_of(float(b["t"])).weekday()
    seen, meant = [], []
    for stream in STREAMS:
        mean = arriving(setting, theta, b, a, stream)[0] * setting.weight * WEEKDAYS[stream][weekday]
        seen += [counted[f"reported/{stream}: {m}"].double().flatten() for m in ("mean", "variance")]
        meant += [mean, mean + mean**2 / theta["report_dispersion"]]
    return Meant(torch.cat(seen), torch.cat(meant), near=1e-3)


OBSERVATION = {"the mean of a report is what falls due, by the weekday": _reports}


def _claims_weekly(_: Setting, __: Theta, b: State, ___: State, counted: Counted) -> Meant:
    return Meant(torch.tensor(float("reported_ui_claims" in counted)), torch.tensor(float(weekly(b))))


def _claims(setting: Setting, theta: Theta, _: State, a: State, counted: Counted) -> Meant:
    cells = 1 if setting.by is None else setting.by.count
    index = torch.zeros_like(a["filed"], dtype=torch.long) if setting.by is None else setting.by.index.long()
    mean = summed(a["filed"].double(), index, cells) * setting.weight
    seen = [counted[f"reported/ui_claims: {m}"].double().flatten() for m in ("mean", "variance")]
    return Meant(torch.cat(seen), torch.cat((mean, mean + mean**2 / theta["report_dispersion"])), near=1e-3)


CLAIMS = {"claims are reported once a week": _claims_weekly, "the mean of a week's report is its claims": _claims}
