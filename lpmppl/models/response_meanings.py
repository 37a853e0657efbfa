"""What the parameters and equations of testing, vaccines, decisions and reports mean: each said a second time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lpmppl.models.behaviour import FATIGUE, STAY_AT_HOME
from lpmppl.models.disease_meanings import is_in, load, summed
from lpmppl.models.model import Meant
from lpmppl.models.new_yorkers import archetypes_of, present
from lpmppl.models.observation import STREAMS, WEEKDAYS
from lpmppl.models.part import Setting
from lpmppl.models.seen import Counted, years
from lpmppl.models.testing import DETECTION, capacity
from lpmppl.models.vaccination import ADULT, FIRST_VACCINATIONS
from lpmppl.typing import State, Theta

__all__ = [
    "BEHAVIOUR",
    "OBSERVATION",
    "TESTING",
    "VACCINATION",
    "alive",
    "arriving",
    "chances",
    "result_delay",
    "supply",
    "tired",
]


def alive(a: State) -> Tensor:
    """Who lives after the step."""
    return ~is_in(a["stage"], "DEAD")


def _sought(_: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    ill = b["seeks_test"] & alive(a)
    others = (alive(a) & ~b["seeks_test"]).sum()
    p = (theta["other_reasons"] * b["dt"]).clamp(max=1.0)
    return Meant(counted["tests_sought"] - ill.sum(), others * p, others * p * (1 - p))


def supply(setting: Setting, b: State, a: State) -> Tensor:
    """The tests that there are in the step."""
    recorded = capacity(setting.date_of(float(b["t"])))
    return torch.where(a["capacity"] < 0, recorded, a["capacity"]) * b["dt"] * setting.people.everybody


def _detectable(b: State, a: State) -> Tensor:
    limit = torch.tensor(DETECTION)[(a["test"] > 0.5).long()]
    return a["active"] & (load(a, b["infected_at"], b["t"]) >= limit) & alive(a)


def _false(_: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    """Results that come of no virus that the test detects."""
    found = b["result_at"].isinf() & (~a["result_at"].isinf() | a["learnt"])
    real = _detectable(b, a)
    tested = (counted["tests"] - (found & real).sum()).clamp(min=0)
    p = theta["false_positive"]
    return Meant((found & ~real).sum(), tested * p, tested * p * (1 - p) + 1e-6)


def result_delay(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Tensor:
    """The days that a result takes: those of its kind, as many times as long as there is a queue."""
    queue = (counted["tests_sought"] / supply(setting, b, a).clamp(min=1e-6)).clamp(1.0, 4.0)
    return torch.where(a["test"] > 0.5, 0.0, theta["pcr_delay"] * queue)


def _wait(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    """A result that is awaited from today on comes after the delay, as many times as long as there is a queue."""
    new = b["result_at"].isinf() & ~a["result_at"].isinf()
    return Meant(
        a["result_at"][new], (b["t"] + result_delay(setting, theta, b, a, counted)).expand(int(new.sum())), near=1e-3
    )


def _admitted(_: Setting, __: Theta, b: State, a: State, ___: Counted) -> Meant:
    who = a["admitted"] & _detectable(b, a)
    heard = ~a["result_at"].isinf() | a["learnt"]
    return Meant(heard[who].double(), torch.ones(int(who.sum())))


def _arrives(_: Setting, __: Theta, b: State, a: State, ___: Counted) -> Meant:
    """Who awaited a result learns of it in the step in which it comes."""
    due = (b["result_at"] < b["t"] + b["dt"] * (1 - 1e-6)) & alive(a)
    return Meant(a["learnt"][due].double(), torch.ones(int(due.sum())))


TESTING = {
    "other_reasons is the share who ask for a test in a day": _sought,
    "false_positive is the share positive of those without a virus to detect": _false,
    "a result takes pcr_delay, times the queue": _wait,
    "the admitted are tested": _admitted,
    "a result is heard when it comes": _arrives,
}


def _given(setting: Setting, _: Theta, b: State, a: State, counted: Counted) -> Meant:
    """Doses given are those there are, or as many as are wanted: within the one that a day hands on to the next."""
    recorded = 0.003 if setting.date_of(float(b["t"])) >= FIRST_VACCINATIONS else 0.0
    share = torch.where(a["doses_per_day"] < 0, recorded, a["doses_per_day"]).double()
    people = setting.people
    wanted = ((b["doses"] == 0) & a["willing"] & (years(people) >= ADULT) & alive(a)).sum()
    due = ((b["doses"] == 1) & (a["doses"] == 2)).sum()
    there = share * people.everybody * b["dt"].double()
    return Meant(counted["doses"], torch.minimum(there, wanted + due), near=1.0 if float(share) else 1e-6)


def _interval(setting: Setting, theta: Theta, b: State, a: State, _: Counted) -> Meant:
    """Second doses after the interval of the schedule in force."""
    later = (a["second_dose"] == 1) | ((a["second_dose"] == 2) & (years(setting.people) < 65))
    wait = torch.where(later, theta["delayed_interval"], theta["interval"])
    second = (b["doses"] == 1) & (a["doses"] == 2)
    late = (b["t"] - b["dosed_at"] - wait)[second]
    return Meant((late >= -1e-3).double(), torch.ones_like(late))


VACCINATION = {
    "doses given are those there are, or as many as are wanted": _given,
    "a second dose waits for its interval": _interval,
}


_OWN = ("isolating", "isolate_until", "works_ill", "seeks_test", "before/isolate", "before/test", "masked")


def chances(setting: Setting, b: State, a: State, who: Tensor, decision: str) -> Tensor:
    """With what chance each of those does what it decides, as its archetype remembers."""
    kinds = archetypes_of(setting)
    s = {**a, **{key: b[key] for key in _OWN if key in b}}
    cohort = setting.people.cohort(who)
    return kinds.read(a[f"before/{decision}"], present(setting.people, kinds, s)(cohort), cohort).double()


def _seeks(setting: Setting, _: Theta, b: State, a: State, __: Counted) -> Meant:
    p = chances(setting, b, a, a["onset"], "test")
    return Meant(a["seeks_test"][a["onset"]].double(), p, p * (1 - p) + 1e-9)


def _isolates(setting: Setting, _: Theta, b: State, a: State, __: Counted) -> Meant:
    """Who falls ill, or learns of a test, isolates where its inclination is below its archetype's chance."""
    who = (a["onset"] | a["learnt"]) & ~(b["isolating"] & (b["isolate_until"] > b["t"]))
    p = chances(setting, b, a, who, "isolate")
    return Meant(a["isolating"][who].double(), (b["inclination/isolate"][who] < p).double())


def _until(_: Setting, theta: Theta, b: State, a: State, __: Counted) -> Meant:
    anew = a["isolating"] & (a["isolate_until"] != b["isolate_until"])
    return Meant(a["isolate_until"][anew], (b["t"] + theta["isolation_days"]).expand(int(anew.sum())), near=1e-3)


def _ends(_: Setting, __: Theta, b: State, a: State, ___: Counted) -> Meant:
    over = b["isolating"] & (b["isolate_until"] <= b["t"]) & ~a["onset"] & ~a["learnt"]
    return Meant(a["isolating"][over].double(), torch.zeros(int(over.sum())))


def tired(days: float) -> float:
    """The fatigue some days after people were to stay at home."""
    return 1.0 - math.exp(-max(days, 0.0) / FATIGUE)


def _tired(setting: Setting, _: Theta, b: State, __: State, counted: Counted) -> Meant:
    days = float(b["t"]) - setting.day(STAY_AT_HOME)
    return Meant(counted["isolate: fatigue"], torch.tensor(tired(days)))


def _risk(_: Setting, __: Theta, ___: State, a: State, counted: Counted) -> Meant:
    return Meant(counted["isolate: risk"], torch.log1p(a["admissions/week"]))


def _weeks(_: Setting, __: Theta, b: State, ___: State, counted: Counted) -> Meant:
    return Meant(counted["isolate: weeks"], torch.tensor(float(int(float(b["t"]) / 7))))


def _paid(_: Setting, __: Theta, b: State, a: State, counted: Counted) -> Meant:
    return Meant(counted["isolation_payments"], (a["isolation_pay"] * a["isolating"] * b["dt"]).sum(), near=0.5)


BEHAVIOUR = {
    "those ill seek a test with their archetype's chance": _seeks,
    "who is inclined to isolates": _isolates,
    "isolation lasts isolation_days": _until,
    "isolation ends on its day": _ends,
    "fatigue is 1 - exp(-t/180) of the days since people were to stay at home": _tired,
    "the risk is log(1 + admissions a day per 100,000)": _risk,
    "the weeks are those since the start": _weeks,
    "who isolates is paid for the days": _paid,
}


def _shares(mean: Tensor) -> Tensor:
    """The share reported after 0, 1, … days to the nearest day, log-normal around the mean, with a spread of 0.6."""
    edges = torch.arange(15) + 0.5
    below = torch.special.ndtr((torch.log(edges / mean.double()) + 0.18) / 0.6)
    share = torch.diff(below, prepend=below.new_zeros(1))
    return share / share.sum()


def arriving(setting: Setting, theta: Theta, b: State, a: State, stream: str) -> Tensor:
    """What awaited its report before the step and what happened in it, by the days until the report: (15, strata)."""
    was = b[f"pending/{stream}"].double().reshape(15, -1)
    happened = a[STREAMS[stream]].double()
    index = torch.zeros_like(happened, dtype=torch.long) if setting.by is None else setting.by.index.long()
    return was + _shares(theta["report_delay"])[:, None] * summed(happened, index, was.shape[-1])


def _delays(setting: Setting, theta: Theta, b: State, a: State, _: Counted) -> Meant:
    now, meant = [], []
    for stream in STREAMS:
        coming = arriving(setting, theta, b, a, stream)
        meant.append(torch.cat((coming[1:], torch.zeros_like(coming[:1]))).flatten())
        now.append(a[f"pending/{stream}"].double())
    return Meant(torch.cat(now), torch.cat(meant), near=1e-3)


def _reports(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    seen, means, variances = [], [], []
    weekday = setting.date_of(float(b["t"])).weekday()
    for stream in STREAMS:
        mean = arriving(setting, theta, b, a, stream)[0] * setting.weight * WEEKDAYS[stream][weekday]
        seen.append(counted[f"reported_{stream}"].double())
        means.append(mean.sum())
        variances.append((mean + mean**2 / theta["report_dispersion"]).sum())
    # Each is measured by what chance makes of it, so that the large don't drown the small.
    spread = torch.stack(variances).clamp(min=1.0).sqrt()
    return Meant(torch.stack(seen) / spread, torch.stack(means) / spread, torch.stack(variances) / spread**2)


OBSERVATION = {
    "report_delay is the mean of the log-normal delay": _delays,
    "reports are what falls due, by the weekday, for the residents": _reports,
}
