"""Behaviour: who wears a mask, isolates, goes on working, seeks a test and would be vaccinated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.internals.segments import broadcast
from lpmppl.effects.ops import decide, ring_sum, tally
from lpmppl.models.archetypes import Archetypes
from lpmppl.models.inclination import AS_ONE, chosen_once, inclination
from lpmppl.models.memory import never, recalled, remembered
from lpmppl.models.model import Parameter
from lpmppl.models.new_yorkers import READ, archetypes, archetypes_of, at_first, present
from lpmppl.models.part import Part, Setting
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = [
    "MASK",
    "OBSERVED",
    "OUTING",
    "PART",
    "UTILITY",
    "archetypes",
    "behaviour",
    "never",
    "observed",
    "present",
    "remembered",
]

CENT, MOST = 0.01, 1e4
"""What pay is counted in, and the most of a day, dollars."""

MASK, ISOLATE = ("mask", "no mask"), ("isolate", "go on")
TEST, VACCINATE = ("seek a test", "seek none"), ("accept", "refuse")
OUTING = ("go out", "stay in")

STAY_AT_HOME = "2020-03-22"
"""The state's stay-at-home order: from then on people tire."""

FATIGUE = 180.0
"""Days in which fatigue reaches 63 % of its height; chosen.

That keeping apart wanes, and ever more slowly, is the finding of Petherick et al., Nature Human Behaviour 5 (2021).
"""

AT_WORK = (
    "service",
    "natural resources, construction and maintenance",
    "production, transportation and material moving",
)
"""Occupations whose work can't be done at home."""

WAGE = 200.0
"""Dollars a day that make up for lost wages: over seven days, the median of what workers here earn in a week."""

UTILITY: Mapping[str, Mapping[str, Mapping[str, float]]] = {
    # Age and income: fitted to the share who wear a mask "every time" when entering a business in November 2020 (wave 3
    # of a YouGov survey for The Policy Lab at Brown University), standard errors 0.16–0.23; see docs/behaviour.md. The
    # intercept makes that survey's level, 84 %. The rest is chosen: the mandate so that its first effect is near 27
    # points (Karaivanov et al., Journal of Health Economics 78 (2021), 102475). No fatigue: masks became more common
    # all through 2020 (Petherick et al. 2021).
    "mask": {
        "mask": {
            "intercept": -3.3,
            "mandate": 1.2,
            "advice": 1.8,
            "risk": 0.2,
            "neighbours": 2.0,
            "age=0–17": -0.3,
            "age=40–64": 0.37,
            "age=65 and over": 0.72,
            "income=under $40,000": -0.24,
            "income=over $80,000": -0.03,
            "income=unknown": -0.31,
            "health=symptomatic": 0.5,
            "health=tested positive": 0.5,
        }
    },
    # Levels: 42.5 % isolate fully when ill (Smith et al., BMJ 372 (2021), n608), 82–86 % after a positive test (ONS,
    # Coronavirus and self-isolation after testing positive in England, February and March 2021). Need: half of the
    # log-odds between 96 % who would isolate with and 71 % without compensation for lost wages (Bodas and Peleg, Israel
    # Journal of Health Policy Research 9 (2020), 54); a day's wage makes up for it, and as much for others with a job.
    # Signs of age, hardship and key work: Smith et al. Sizes: chosen.
    "isolate": {
        "isolate": {
            "intercept": 0.2,
            "risk": 0.2,
            "fatigue": -0.6,
            "health=tested positive": 1.9,
            "savings=under $2,000 × employment=employed": -1.15,
            "pay × employment=employed": 1.15 / WAGE,
            "income=under $40,000": -0.1,
            **{f"occupation={job} × employment=employed": -0.3 for job in AT_WORK},
            "age=0–17": 0.6,
            "age=40–64": 0.1,
            "age=65 and over": 0.4,
        }
    },
    # Chosen: a third in autumn 2020, above the 18–22 % of the United Kingdom (Smith et al. 2021), since New York's
    # tests were free and needed no appointment.
    "test": {
        "seek a test": {
            "intercept": -0.6,
            "risk": 0.25,
            "fatigue": -0.3,
            "income=under $40,000": -0.2,
            "age=65 and over": 0.3,
        }
    },
    # Intercept, stringency and risk: fitted to Google's visits of shops and restaurants in New York, 24 February to 27
    # December 2020, R² 0.94; see docs/mobility.md. The rest is chosen.
    "outing": {
        "go out": {
            "intercept": 5.88,
            "stringency": -6.90,
            "risk": -0.37,
            "health=symptomatic": -1.0,
            "health=tested positive": -2.0,
        }
    },
    # Fitted to the shares that the default parameters of `stimulus` have households spend by their savings in spring
    # 2020, weighted by adults; 0.0002 nats from them.
    "spend": {
        "spend": {
            "intercept": -1.66,
            "savings=under $2,000": 0.29,
            "income=under $40,000": 0.18,
            "income=over $80,000": -0.96,
        }
    },
    # Level: 71 % would definitely or probably be vaccinated, 27 % not; of those aged 30–49 36 % not, of essential
    # workers 33 % (KFF COVID-19 Vaccine Monitor, December 2020). The rest is chosen.
    "vaccinate": {
        "accept": {
            "intercept": 0.75,
            "age=0–17": -0.5,
            "age=40–64": 0.3,
            "age=65 and over": 1.0,
            "income=under $40,000": -0.3,
            **{f"occupation={job}": -0.25 for job in AT_WORK},
        }
    },
}
"""What a feature adds to the utility of an option, by decision: the behaviour of New York's pandemic by default."""


def observed(kinds: Archetypes, setting: Setting, s: State, before: Tensor) -> dict[str, Any]:
    """What is observed when a decision falls due.

    Args:
        kinds: the archetypes.
        setting: where and when it is.
        s: the state.
        before: the share of each archetype who did it when it decided last, −1 where it never has, shape (…, K).
    Returns:
        the risk, log(1 + admissions a day per 100,000), fatigue, 0 to 1, the weeks since the start, and of each
        archetype whether it decides `again` and, if so, what share did it `before`.
    """
    tired = max(float(s["t"]) - setting.day(STAY_AT_HOME), 0.0)
    return {
        "risk": torch.log1p(s["admissions/week"]),
        "fatigue": 1.0 - math.exp(-tired / FATIGUE),
        "weeks": float(s["t"]) // 7.0,
        **recalled(before),
        "attributes": kinds.labels,
    }


def _in_every_world(cohort: Cohort, *values: Tensor) -> Cohort:
    """The same members in every world that one of the values knows of."""
    return cohort.expand(broadcast(cohort.shape[:-1], *(v.shape[:-1] for v in values)))


@dataclass(frozen=True)
class _Choice:
    """The action of a day: who fell ill and who learned of a positive test, and what they choose, shape (k,).

    `before` is what each archetype will remember of it.
    """

    ill: Cohort
    ill_isolates: Tensor
    seeks: Tensor
    told: Cohort
    told_isolates: Tensor
    before: State


OBSERVED = ("admissions/week", *READ)
EVENTS = ("onset", "learnt", "admitted", "episode")


def behaviour(setting: Setting, theta: Theta) -> Substep:
    r"""The substep of daily decisions: whoever falls ill or learns of a positive test decides whether to isolate.

    Person i isolates where its own inclination :math:`u_i \sim U(0, 1)`, which it keeps, is below :math:`P(isolate \mid
    k_i)` of its archetype (eqs. 4–6 of the LPM paper), until `isolation_days` later. Whoever falls ill, has a job and
    doesn't isolate works ill, until the symptoms end or it isolates, is admitted or loses the job. Of those who fall
    ill, some seek a test. Whoever isolates is paid the state's `isolation_pay`, dollars a day.

    Args:
        setting: the people.
        theta: `isolation_days`.
    """
    people, kinds = setting.people, archetypes_of(setting)
    nobody = Cohort(torch.empty(0, dtype=torch.int64, device=people.device), torch.Size([people.size])).carrying(0.0)

    def choose(s: State) -> _Choice:
        read = [s[key] for key in (*OBSERVED, *EVENTS, "isolating", "isolation_pay", "inclination/isolate")]
        ill, told = (_in_every_world(people.cohort(s[event]), *read) for event in ("onset", "learnt"))
        kind, told_kind = map(present(people, kinds, s), (ill, told))

        def anew() -> Tensor:
            return kinds.count(kind, ill)

        context = observed(kinds, setting, s, s["before/isolate"])
        context |= {"pay": s["isolation_pay"], "due": lambda: anew() + kinds.count(told_kind, told)}
        isolate = decide("isolate", kinds.table, ISOLATE, context)[..., 0]
        context = observed(kinds, setting, s, s["before/test"])
        test = decide("test", kinds.table, TEST, context | {"due": anew})[..., 0]
        ill_isolates = ill.read(s["inclination/isolate"]) < kinds.read(isolate, kind, ill)
        with ill.plate(episode=ill.read(s["episode"])):
            seeks = pyro.sample("seeks_test", dist.Bernoulli(kinds.read(test, kind, ill))).bool()
        told_isolates = told.read(s["inclination/isolate"]) < kinds.read(isolate, told_kind, told)
        before = {
            f"before/{name}": remembered(s[f"before/{name}"], x) for name, x in (("isolate", isolate), ("test", test))
        }
        return _Choice(ill, ill_isolates, seeks, told, told_isolates, before)

    def change(s: State, choice: _Choice) -> State:
        t, ill, told = float(s["t"]), choice.ill, choice.told
        over = _in_every_world(people.cohort(s["isolating"]), s["isolate_until"])
        over = over.select(over.read(s["isolate_until"]) <= t)
        isolating = over.write(s["isolating"], False)
        total = ring_sum(over.carrying(-1), setting.by, s["isolating/total"])
        # Who isolates already goes on: until the day they had in mind, or as long again if they fall ill now.
        staying = ill.select(choice.ill_isolates)
        total = ring_sum(staying.select(~staying.read(isolating)).carrying(1), setting.by, total)
        isolating = staying.overwrite(isolating, True)
        until = staying.write(s["isolate_until"], _after(t, theta, staying))
        warned = told.select(choice.told_isolates & ~told.read(isolating))
        total = tally("isolating", warned.carrying(1), by=setting.by, onto=total)
        isolating = warned.overwrite(isolating, True)
        until = warned.overwrite(until, _after(t, theta, warned))
        dollars = nobody
        # Only days on which somebody is paid cost a pass over the agents.
        if bool((s["isolation_pay"] != 0).any()):
            paid = _in_every_world(people.cohort(isolating), s["isolation_pay"])
            dollars = paid.carrying(paid.read(s["isolation_pay"]) * float(s["dt"]))
        tally("isolation_payments", dollars, by=setting.by, quantum=CENT, bound=MOST)

        able = s["symptomatic"], s["employed"], s["admitted"], isolating
        working = _in_every_world(people.cohort(s["works_ill"]), *able)
        has_symptoms, has_job, in_hospital, at_home = (working.read(x) for x in able)
        goes_on = has_symptoms & has_job & ~in_hospital & ~at_home
        works = working.select(~goes_on).write(s["works_ill"], False)
        works = ill.select(ill.read(s["employed"]) & ~ill.read(isolating)).overwrite(works, True)
        before = people.cohort(s["seeks_test"])
        return {
            "isolating": isolating,
            "isolate_until": until,
            "isolating/total": total,
            "works_ill": works,
            "seeks_test": ill.select(choice.seeks).overwrite(before.write(s["seeks_test"], False), True),
            **choice.before,
        }

    written = (
        *("isolating", "isolate_until", "isolating/total", "works_ill", "seeks_test"),
        *("before/isolate", "before/test"),
    )
    return Substep(
        "behaviour",
        reads=(*OBSERVED, *EVENTS, "isolation_pay", "inclination/isolate", *written),
        writes=written,
        policy=choose,
        transition=change,
    )


def _after(t: float, theta: Theta, cohort: Cohort) -> Tensor:
    days = theta["isolation_days"]
    return t + (days.reshape(()) if days.numel() == 1 else cohort.read(days))


def _start(setting: Setting, theta: Theta, t0: float) -> State:
    """Nobody isolates; everybody has an inclination to, and would accept a vaccine or not."""
    people, kinds = setting.people, archetypes_of(setting)
    nobody = torch.zeros(people.size, dtype=torch.bool, device=people.device)
    kind = at_first(people, kinds)
    context = {"attributes": kinds.labels, "due": lambda: kinds.count(kind)}
    accept = decide("vaccinate", kinds.table, VACCINATE, context)[..., 0]
    as_one = theta["households_as_one"]
    return {
        "isolating": nobody,
        "isolate_until": torch.full((people.size,), -math.inf, device=people.device),
        "isolating/total": ring_sum(nobody.long(), setting.by),
        "isolation_pay": torch.zeros(1, device=people.device),
        "works_ill": nobody.clone(),
        "seeks_test": nobody.clone(),
        "willing": chosen_once(people, "willing", kinds.read(accept, kind), as_one),
        "inclination/isolate": inclination(people, "inclination_to_isolate", as_one),
        "before/isolate": never(kinds),
        "before/test": never(kinds),
    }


PART = Part(
    "behaviour",
    behaviour,
    _start,
    parameters={
        "isolation_days": Parameter(
            dist.LogNormal(math.log(10.0), 0.2),
            10.0,
            "length of isolation",
            "days",
            "CDC guidance of 2020: ten days from onset",
        ),
        "households_as_one": AS_ONE,
    },
    keeps=("willing", "inclination/isolate"),
    decisions=("isolate", "test", "vaccinate"),
    tallies={"isolating": "people in isolation", "isolation_payments": "payments to who isolates"},
    units={"isolation_payments": "dollars"},
    environment={"isolation_pay": 0.0},
    limits={"isolation_pay": (0.0, MOST)},
)
