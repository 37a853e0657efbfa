"""Double entry: what a step of each part must leave in balance, and what its tallies are in the state.

None of it is played. `lpmppl.verify` holds a model to it, and the tests a part that was changed. A law is given the
people and the states before and after a step, and is 0 or false for everybody where it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lpmppl.models import chance_meanings, disease_meanings, economic_meanings, response_meanings
from lpmppl.models.economic_books import LABOUR, MOBILITY, STIMULUS, members
from lpmppl.models.part import Book
from lpmppl.models.population import Population
from lpmppl.models.progression import Stage
from lpmppl.models.seen import years
from lpmppl.models.vaccination import ADULT
from lpmppl.models.within_host import PRIORS, VARIATIONS
from lpmppl.typing import State

__all__ = ["BOOKS"]


def _ended(s: State) -> Tensor:
    """The time at which a step ends, but for rounding."""
    return s["t"] + s["dt"] - 1e-4


def _at_risk(before: State, after: State) -> Tensor:
    return before["susceptible"] | after["returned"]


def _infected_at(_: Population, before: State, after: State) -> Tensor:
    at, new = after["infected_at"], after["infected"]
    inside = (at >= before["t"] - 1e-4) & (at <= before["t"] + before["dt"] + 1e-4)
    return torch.where(new, ~inside, at != before["infected_at"])


def _from_nobody(people: Population, before: State, after: State) -> Tensor:
    """Who isolates meets only the household: without an infection there, no hazard accrues."""
    home = people.network("household")
    ill = members(people, "household", after["active"])[..., home.index.long()] > 0
    alone = after["isolating"] & ~ill & _at_risk(before, after) & ~after["returned"]
    return alone & (after["exposure"] != before["exposure"])


_TRANSMISSION = Book(
    balances={
        "the susceptible are those at risk who aren't infected": lambda _, b, a: (
            a["susceptible"] != (_at_risk(b, a) & ~a["infected"])
        ),
        "who is infected was at risk": lambda _, b, a: a["infected"] & ~_at_risk(b, a),
        "an infection has its time in the step": _infected_at,
        "each infection is an episode": lambda _, b, a: a["episode"].int() != b["episode"].int() + a["infected"].int(),
        "who isolates is at risk at home only": _from_nobody,
        "hazard accrues only at risk": lambda _, b, a: ~_at_risk(b, a) & (a["exposure"] != b["exposure"]),
    },
    accounts={"infections": lambda _, __, a: a["infected"]},
    responses={
        "beta": {"infections": 1},
        "home": {"infections": 1},
        "initial_infected": {"infections": 1},
        "mask_source": {"infections": -1},
        "mask_wearer": {"infections": -1},
        "crowding": {"infections": -1},
        "transmission": {"infections": 1},
        "schools": {"infections": 1},
    },
    meanings=disease_meanings.TRANSMISSION,
)


def _is(stage: Tensor, *names: str) -> Tensor:
    return torch.stack([stage == Stage[name] for name in names]).any(0)


_FOLLOW = {
    "SUSCEPTIBLE": ("EXPOSED", "PRESYMPTOMATIC", "ASYMPTOMATIC"),
    "EXPOSED": ("PRESYMPTOMATIC", "ASYMPTOMATIC"),
    "PRESYMPTOMATIC": ("MILD",),
    "ASYMPTOMATIC": ("RECOVERED",),
    "MILD": ("SEVERE", "RECOVERED", "DEAD"),
    "SEVERE": ("CRITICAL", "RECOVERED"),
    "CRITICAL": ("RECOVERED", "DEAD"),
    "RECOVERED": ("EXPOSED", "PRESYMPTOMATIC", "ASYMPTOMATIC"),
    "DEAD": (),
}
"""The stages that each may be followed by within a step."""

_ILL = ("EXPOSED", "PRESYMPTOMATIC", "ASYMPTOMATIC", "MILD", "SEVERE", "CRITICAL")


def _follows(_: Population, before: State, after: State) -> Tensor:
    was, now = before["stage"], after["stage"]
    wrong = was != now
    for name, next_ones in _FOLLOW.items():
        if next_ones:
            wrong = wrong & ~((was == Stage[name]) & _is(now, *next_ones))
    return wrong


def _destined(_: Population, before: State, after: State) -> Tensor:
    destiny, new = after["destiny"], after["stage"] != before["stage"]
    bits = {"SEVERE": 1, "CRITICAL": 2, "DEAD": 4}
    return torch.stack([new & _is(after["stage"], name) & ((destiny & bit) == 0) for name, bit in bits.items()]).any(0)


def _turned(stage: str) -> Callable[[State, State], Tensor]:
    return lambda b, a: _is(a["stage"], stage) & ~_is(b["stage"], stage)


def _early(_: Population, before: State, after: State) -> Tensor:
    turned = _is(before["stage"], *_ILL) & (before["stage"] != after["stage"])
    return turned & ~(before["due"] < before["t"] + before["dt"] + 1e-4)


def _hurried(_: Population, before: State, after: State) -> Tensor:
    """Whose first stage is shorter than a step."""
    new = before["infected"] & _is(after["stage"], "EXPOSED")
    return new & ~(after["due"] - before["infected_at"] >= before["dt"] - 1e-3)


def _admissions(people: Population, before: State, after: State) -> Tensor:
    today = after["admitted"].sum(-1, keepdim=True) * (1e5 / people.everybody) / before["dt"]
    share = (before["dt"] / 7).clamp(max=1.0)
    return after["admissions/week"] - (1 - share) * before["admissions/week"] - share * today


_PROGRESSION = Book(
    balances={
        "stages follow one another": _follows,
        "each becomes what it was destined to": _destined,
        "nobody's stage ends before its time": _early,
        "an incubation lasts a step at least": _hurried,
        "who has an infection waits for a time ahead, and nobody else does": lambda _, b, a: torch.where(
            a["active"], ~(a["due"] >= _ended(b)) | a["due"].isinf(), ~a["due"].isinf() & ~a["infected"]
        ),
        "the active are in a stage of the disease": lambda _, __, a: a["active"] != _is(a["stage"], *_ILL),
        "the symptomatic are mild, severe or critical": lambda _, __, a: (
            a["symptomatic"] != _is(a["stage"], "MILD", "SEVERE", "CRITICAL")
        ),
        "symptoms begin as the mild stage does": lambda _, b, a: a["onset"] != _turned("MILD")(b, a),
        "the admitted are those now severe": lambda _, b, a: a["admitted"] != _turned("SEVERE")(b, a),
        "the dead died": lambda _, b, a: a["died"] != _turned("DEAD")(b, a),
        "who recovers returns to risk": lambda _, b, a: a["returned"] != _turned("RECOVERED")(b, a),
        "who was infected is exposed next": lambda _, b, a: b["infected"] & ~_is(a["stage"], *_ILL),
        "an immune archetype is of one's age": lambda p, _, a: (
            a["active"] & (a["archetype"].long() // (len(PRIORS) * VARIATIONS) != p["age_band"].long())
        ),
        "the week's admissions are a mean of the days'": _admissions,
    },
    accounts={
        "admissions": lambda _, __, a: a["admitted"],
        "deaths": lambda _, __, a: a["died"],
        "hospitalised": lambda _, __, a: _is(a["stage"], "SEVERE", "CRITICAL"),
    },
    responses={
        "severity": {"admissions": 1},
        "fatality": {"deaths": 1},
        "incubation_median": {"admissions": -1},
    },
    meanings={**disease_meanings.PROGRESSION, **chance_meanings.PROGRESSION},
)

_IMMUNITY = Book(
    balances={
        "protection is a share": lambda _, __, a: ~((a["protection"] >= 0) & (a["protection"] <= 1)),
        "who was never infected nor vaccinated isn't protected": lambda _, b, a: (
            (a["protection"] != 1) & (b["doses"] == 0) & b["infected_at"].isinf()
        ),
    },
    responses={"treatment": {"infections": -1}},
    meanings=disease_meanings.IMMUNITY,
)


def _told(_: Population, before: State, after: State) -> Tensor:
    at, new = after["positive_at"], after["learnt"]
    return torch.where(new, at != before["t"], at != before["positive_at"])


_TESTING = Book(
    balances={
        "results that are awaited lie ahead": lambda _, b, a: ~(a["result_at"] >= _ended(b)),
        "who learns of a test does so today": _told,
        "the dead learn nothing": lambda _, __, a: a["learnt"] & _is(a["stage"], "DEAD"),
        "who learns of a test awaits no other": lambda _, b, a: a["learnt"] & ~a["result_at"].isinf(),
    },
    accounts={"cases": lambda _, __, a: a["learnt"]},
    responses={
        "capacity": {"tests": 1},
        "tracing": {"tests": 1},
        "screening": {"tests": 1},
        "other_reasons": {"tests_sought": 1},
        "pcr_delay": {"cases": -1},
    },
    meanings={**response_meanings.TESTING, **chance_meanings.TESTING},
)


_BEHAVIOUR = Book(
    balances={
        "isolation has an end ahead": lambda _, b, a: a["isolating"] & ~(a["isolate_until"] > b["t"]),
        "who isolates anew fell ill or learnt of a test": lambda _, b, a: (
            a["isolating"] & ~b["isolating"] & ~(a["onset"] | a["learnt"])
        ),
        "isolation ends when it was to": lambda _, b, a: (
            b["isolating"] & ~a["isolating"] & (b["isolate_until"] > b["t"])
        ),
        "who works ill has symptoms and a job, and is neither admitted nor isolated": lambda _, __, a: (
            a["works_ill"] & (a["admitted"] | a["isolating"] | ~(a["symptomatic"] & a["employed"]))
        ),
        "who falls ill with a job and doesn't isolate works ill": lambda _, __, a: (
            a["onset"] & a["employed"] & ~a["isolating"] & ~a["works_ill"]
        ),
        "who seeks a test fell ill": lambda _, __, a: a["seeks_test"] & ~a["onset"],
        "those in isolation are counted": lambda _, __, a: (
            a["isolating/total"].sum(-1, keepdim=True) - a["isolating"].sum(-1, keepdim=True)
        ),
        "what archetypes did is a share, or −1": lambda _, __, a: torch.cat(
            [~((a[k] == -1) | ((a[k] >= 0) & (a[k] <= 1))) for k in ("before/isolate", "before/test")], -1
        ),
    },
    accounts={"isolating": lambda _, __, a: a["isolating"]},
    responses={"isolation_days": {"isolating": 1}},
    meanings={**response_meanings.BEHAVIOUR, **chance_meanings.BEHAVIOUR},
)

_MASKING = Book(
    balances={
        "masks are counted in every borough": lambda p, _, a: a["masked/borough"] - members(p, "borough", a["masked"]),
        "masks are counted in all": lambda _, __, a: (
            a["masked/total"].sum(-1, keepdim=True) - a["masked"].sum(-1, keepdim=True)
        ),
        "what archetypes wore is a share, or −1": lambda _, __, a: (
            ~((a["before/mask"] == -1) | ((a["before/mask"] >= 0) & (a["before/mask"] <= 1)))
        ),
    },
    accounts={"masked": lambda _, __, a: a["masked"]},
    responses={"mask_mandate": {"masked": 1}},
    meanings=chance_meanings.MASKING,
)


def _oldest_first(people: Population, before: State, after: State) -> Tensor:
    """Whether somebody got a first dose while somebody of an older decade who wanted one didn't."""
    band, wants = people["age_band"].long(), _eligible(people, before, after)
    given = wants & (after["doses"] > before["doses"])
    left = wants & (after["doses"] == 0)
    youngest = torch.where(given, band, 99).amin(-1, keepdim=True)
    oldest = torch.where(left, band, -1).amax(-1, keepdim=True)
    return (youngest < 99) & (oldest > youngest)


def _eligible(people: Population, before: State, after: State) -> Tensor:
    adult = years(people) >= ADULT
    return (before["doses"] == 0) & after["willing"] & adult & ~_is(after["stage"], "DEAD")


def _too_many(people: Population, before: State, after: State) -> Tensor:
    share = before["doses_per_day"].double()
    there = torch.where(share < 0, 0.003, share) * people.everybody * before["dt"].double() + 1
    given = (after["doses"].int() - before["doses"].int()).sum(-1, keepdim=True)
    return (given > there) | ((share == 0) & (given > 0))


def _left_over(people: Population, before: State, after: State) -> Tensor:
    """Whether doses that there were stayed in the fridge while somebody wanted a first one."""
    there = before["doses_per_day"].double() * people.everybody * before["dt"].double() - 1
    given = (after["doses"].int() - before["doses"].int()).sum(-1, keepdim=True)
    waiting = (_eligible(people, before, after) & (after["doses"] == 0)).any(-1, keepdim=True)
    return waiting & (given < there)


_VACCINATION = Book(
    balances={
        "a dose is one more, and there are two": lambda _, b, a: (
            (a["doses"].int() < b["doses"].int()) | (a["doses"].int() > b["doses"].int() + 1) | (a["doses"] > 2)
        ),
        "a dose is given today": lambda _, b, a: torch.where(
            a["doses"] != b["doses"], a["dosed_at"] != b["t"], a["dosed_at"] != b["dosed_at"]
        ),
        "first doses go to the willing, of age and alive": lambda p, b, a: (
            (b["doses"] == 0) & (a["doses"] > 0) & ~_eligible(p, b, a)
        ),
        "the oldest come first": _oldest_first,
        "no more doses are given than there are": _too_many,
        "no dose is left while somebody waits": _left_over,
        "the dead get none": lambda _, b, a: (a["doses"] != b["doses"]) & _is(b["stage"], "DEAD") & ~a["died"],
    },
    accounts={
        "doses": lambda _, b, a: a["doses"] != b["doses"],
        "second_doses": lambda _, b, a: (b["doses"] == 1) & (a["doses"] == 2),
    },
    responses={"doses_per_day": {"doses": 1}, "interval": {"second_doses": -1}},
    meanings=response_meanings.VACCINATION,
)


def _reports(people: Population, before: State, after: State) -> Tensor:
    """What awaits its report moves up a day, and grows by no more than what happened."""
    wrong = []
    for stream, mask in (("cases", "learnt"), ("admissions", "admitted"), ("deaths", "died")):
        was, now = before[f"pending/{stream}"], after[f"pending/{stream}"]
        cells = was.shape[-1] // 15
        moved = torch.cat((was[..., cells:], torch.zeros_like(was[..., :cells])), -1)
        grown, happened = now - moved, after[mask].sum(-1, keepdim=True)
        total = grown.sum(-1, keepdim=True)
        wrong += [(grown < -1e-3).any(-1, keepdim=True), (total > happened + 1e-2)]
        wrong.append((now[..., -cells:] != 0).any(-1, keepdim=True))
    return torch.cat(wrong, -1)


_OBSERVATION = Book(
    balances={"what awaits its report moves up a day": _reports},
    responses={"report_delay": {"reported_cases": -1}},
    meanings={**response_meanings.OBSERVATION, **chance_meanings.OBSERVATION},
)

BOOKS: Mapping[str, Book] = {
    "behaviour": _BEHAVIOUR,
    "claims": Book(meanings={**economic_meanings.CLAIMS, **chance_meanings.CLAIMS}),
    "immunity": _IMMUNITY,
    "labour": LABOUR,
    "masking": _MASKING,
    "mobility": MOBILITY,
    "observation": _OBSERVATION,
    "progression": _PROGRESSION,
    "stimulus": STIMULUS,
    "testing": _TESTING,
    "transmission": _TRANSMISSION,
    "vaccination": _VACCINATION,
}
"""The books of the pandemic's parts, by name."""
