"""Notification: who is told by the app of a contact with somebody who tested positive, and stays at home."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.fields import Field
from lpmppl.effects.ops import ring_sum, tally
from lpmppl.errors import InputError
from lpmppl.models import adoption
from lpmppl.models.adoption import at_work
from lpmppl.models.contacts import CONTACTS, in_session, schools
from lpmppl.models.model import Parameter
from lpmppl.models.part import Part, Setting
from lpmppl.models.periods import around, each
from lpmppl.models.progression import Stage
from lpmppl.models.substep import CLOCK, Substep
from lpmppl.typing import State, Theta

__all__ = ["LOOK_BACK", "QUARANTINE", "notification", "notified"]

LOOK_BACK = 7.0
"""Days whose contacts are told: `quarantine_days` of OpenABM-Covid19, the model of Abueg et al. 2021."""

QUARANTINE = 14.0
"""The most days of a quarantine: `quarantine_length_traced_positive` of OpenABM-Covid19."""

_MOST_MET = 2.0**12
"""More than any agent's expected contacts with those who upload on one day."""


@dataclass(frozen=True, eq=False)
class _Told:
    """The action of a day: who uploads, whom that tells, who of them stays at home until when, and what is known.

    `users` have `met` so many of those who upload, shape (k,); `found` is the share of each infection's sources that
    have uploaded, shape (…, N).
    """

    uploads: Cohort
    users: Cohort
    met: Tensor
    told: Cohort
    staying: Cohort
    until: Tensor
    found: Tensor


def notification(setting: Setting, theta: Theta, infecting: Callable[[Setting, Theta], Substep]) -> Substep:
    r"""The substep in which users of the app who learn of a positive test upload it, and other users are told.

    User j has had with users U who upload today a Poisson number of detected contacts, of mean

    .. math:: m_j = d \Big( c_w a_w \frac{1}{n_w - 1} \sum_{i \in U \cap w} L_i + c_c a_c \sum_{i \in U}
        \Big[\frac{\lambda 1_{i \in a}}{n_a - 1} + \frac{1 - \lambda}{N - 1}\Big] L_i \Big), \qquad i \neq j

    with L the days that i wasn't at home out of the last `LOOK_BACK`, w the workplace or school, a the area, c contacts
    and a activity as in `transmission`, and d = `detected`. Whoever was infected in these days was so by one contact
    more: by one of U with the probability of the hazard that came from U on that day away from home, over all of that
    day's hazard. `transmission` itself is asked for both. Those at home aren't told by the app: they know.

    A share `compliance` of who is told stays away from others outside the home, for `QUARANTINE` days or until it gives
    up, at the rate `dropout`. Who is in quarantine isn't told again.

    Args:
        setting: the people, with what `transmission` needs.
        theta: `detected`, `uploads`, the share of positive users who upload, `compliance`, `dropout`, `isolation_days`,
            `home`, `local` and `crowding`.
        infecting: the substep in which people are infected.
    """
    people, by = setting.people, setting.by
    places, contacts = at_work(people)
    areas = people.network("puma", together=True)
    infection = infecting(setting, {**theta, "home": torch.zeros_like(theta["home"])})
    is_school = schools(people)
    pupil = people["employment"] != 2
    most = int(24 * LOOK_BACK)

    def at_home_since(s: State, cohort: Cohort) -> Tensor:
        """Since when members are in isolation or quarantine, infinite where they aren't: shape (k,)."""
        ill = cohort.read(s["isolate_until"]) - each(cohort, theta["isolation_days"])
        ill = torch.where(cohort.read(s["isolating"]), ill, math.inf)
        told = torch.where(cohort.read(s["quarantining"]), cohort.read(s["quarantine_from"]), math.inf)
        return torch.minimum(ill, told)

    def expected(s: State, uploads: Cohort, days: Tensor, users: Cohort) -> Tensor:
        """How many detected contacts users have had with those who upload today: shape (k,)."""
        # In whole hours, so that they are added up as integers.
        hours = (24.0 * days).round().long()
        at_work_with = ring_sum(uploads.carrying(hours), places, None, most).float() / 24.0
        near = ring_sum(uploads.carrying(hours), areas, None, most).float() / 24.0
        session = torch.where(s["schools"] < 0, in_session(setting.date_of(float(s["t"]))), s["schools"])
        activity = torch.where(is_school, session, s["mobility/workplaces"]) ** theta["crowding"]
        about = ((s["mobility/retail"] + s["mobility/transit"]) / 2) ** theta["crowding"]
        each_colleague = contacts * activity / (places.size - 1).clamp(min=1)
        each_neighbour = about * CONTACTS["community"] * theta["local"] / (areas.size - 1).clamp(min=1)
        anybody = about * CONTACTS["community"] * (1.0 - theta["local"]) / max(people.everybody - 1, 1)
        met_near = near * each_neighbour + near.sum(-1, keepdim=True) * anybody
        # Nobody is one's own contact.
        own = users.read(uploads.carrying(hours.float() / 24.0))
        work = users.read(Field.on(at_work_with * each_colleague, places.index))
        work = work - own * users.read(Field.on(each_colleague, places.index))
        mine = users.read(Field.on(each_neighbour + anybody, areas.index))
        elsewhere = users.read(Field.on(met_near, areas.index)) - own * mine
        goes = users.read(s["employed"]) | users.group(pupil)
        outside = (torch.where(goes, work, 0.0) + elsewhere).clamp(min=0.0)
        return each(users, theta["detected"]) * outside

    def from_uploads(s: State, uploads: Cohort, since: Tensor, recent: Cohort) -> Tensor:
        """The share of the hazard that infected each member which came from those who upload today: shape (k,)."""
        nobody = torch.zeros_like(s["learnt"])
        then = {key: s[key] for key in (*infection.reads, *CLOCK)}
        unlike = {"returned": nobody, "protection": torch.ones_like(s["protection"])}
        then |= {**unlike, "stage": torch.zeros_like(s["stage"])}
        t, dt = float(s["t"]), float(s["dt"])
        theirs, mine = uploads.read(s["infected_at"]), recent.read(s["infected_at"])
        share = torch.zeros(len(recent), device=people.device)
        for step in range(1, round(LOOK_BACK / dt) + 1):
            day = t - step * dt
            about = uploads.select((theirs < day) & (since > day)).mask()
            hazard = infection.observe(
                {**then, "t": torch.full_like(s["t"], day), "active": about, "isolating": nobody}
            )
            (now,) = ((mine >= day) & (mine < day + dt)).nonzero(as_tuple=True)
            then_infected = recent.select(now)
            whole = then_infected.read(s["infection/hazard"]).clamp(min=1e-30)
            part = then_infected.read(hazard.hazard) / whole
            share = share.index_copy(0, now, part.clamp(0.0, 1.0).to(share.dtype))
        return share

    def tell(s: State) -> _Told:
        learnt = people.cohort(s["learnt"] & s["app"])
        with learnt.plate():
            sends = pyro.sample("upload", dist.Bernoulli(each(learnt, theta["uploads"]).expand(len(learnt)))).bool()
        uploads = learnt.select(sends)
        found = people.cohort(s["infected"]).write(s["source/found"], 0.0)
        users = people.cohort(s["app"] & ~s["quarantining"] & (s["stage"] != Stage.DEAD))
        if not bool((ring_sum(uploads.carrying(1), None) > 0).any()):
            nobody, nothing = users.select(users.where[:0]), torch.zeros(0, device=people.device)
            return _Told(uploads, nobody, nothing, nobody, nobody, nothing, found)
        since = at_home_since(s, uploads)
        days = LOOK_BACK - (uploads.read(s["t"]) - since).clamp(0.0, LOOK_BACK)
        met = expected(s, uploads, days, users)
        with users.plate():
            by_chance = pyro.sample("notification", dist.Bernoulli(-torch.expm1(-met))).bool()
        recent = users.select(users.read(s["infected_at"]) >= users.read(s["t"]) - LOOK_BACK)
        share = each(recent, theta["detected"]) * from_uploads(s, uploads, since, recent)
        before = recent.read(found)
        # There was one such contact: the chance that it is of today's, given that it is of nobody who uploaded before.
        chance = (share / (1.0 - before).clamp(min=1e-6)).clamp(0.0, 1.0)
        with recent.plate():
            traced = pyro.sample("source_notification", dist.Bernoulli(chance)).bool()
        told = people.cohort(recent.select(traced).mask() | users.select(by_chance).mask())
        with told.plate():
            complies = pyro.sample(
                "quarantine", dist.Bernoulli(each(told, theta["compliance"]).expand(len(told)))
            ).bool()
            patience = pyro.sample("patience", dist.Uniform(torch.zeros(len(told), device=people.device), 1.0))
        stay = (-torch.log1p(-patience) / each(told, theta["dropout"])).clamp(max=QUARANTINE)[complies]
        staying = told.select(complies)
        until = staying.read(s["t"]) + stay
        return _Told(uploads, users, met, told, staying, until, recent.write(found, before + share))

    def change(s: State, action: _Told) -> State:
        staying = action.staying
        tally("uploads", action.uploads, by=by)
        tally("contacts_detected", action.users.carrying(action.met), by=by, bound=_MOST_MET)
        tally("notified", action.told, by=by)
        over = people.cohort(s["quarantining"])
        over = over.select(over.read(s["quarantine_until"]) <= over.read(s["t"]))
        total = ring_sum(over.carrying(-1), by, s["quarantining/total"])
        return {
            "quarantining": staying.write(over.write(s["quarantining"], False), True),
            "quarantine_from": staying.write(s["quarantine_from"], staying.read(s["t"])),
            "quarantine_until": staying.write(s["quarantine_until"], action.until),
            "quarantining/total": tally("quarantined", staying.carrying(1), by=by, onto=total),
            "source/found": action.found,
        }

    written = ("quarantining", "quarantine_from", "quarantine_until", "quarantining/total", "source/found")
    own = ("app", "infected", "infection/hazard", "isolate_until", "learnt", *written)
    return Substep(
        "notification",
        reads=tuple(dict.fromkeys((*infection.reads, *own))),
        writes=written,
        policy=tell,
        transition=change,
    )


def start(setting: Setting, theta: Theta, t: float) -> State:
    """Nobody has been told of anything."""
    people, device = setting.people, setting.people.device
    nobody = torch.zeros(people.size, dtype=torch.bool, device=device)
    never = torch.full((people.size,), -math.inf, device=device)
    return {
        "quarantining": nobody,
        "quarantine_from": never,
        "quarantine_until": never,
        "quarantining/total": ring_sum(nobody.long(), setting.by),
        "source/found": torch.zeros(people.size, device=device),
    }


def apart(setting: Setting, theta: Theta, infecting: Callable[[Setting, Theta], Substep]) -> Substep:
    """The substep in which people are infected, where who is in quarantine meets nobody outside the home.

    It also keeps the hazard that infected each person, per day and as without any protection.

    Args:
        setting: the people.
        theta: as `infecting` has them.
        infecting: the substep as it is without quarantine.
    """
    inner, people = infecting(setting, theta), setting.people

    def observe(s: State) -> Any:
        seen = {key: s[key] for key in (*inner.reads, *CLOCK)}
        return inner.observe({**seen, "isolating": s["isolating"] | s["quarantining"]})

    def change(s: State, action: Any) -> State:
        exposure, infected, _ = action
        new = people.cohort(infected)
        met = (new.read(exposure.after) - new.read(exposure.before)).double()
        alone = met / (new.read(s["dt"]) * new.read(s["protection"]).clamp(min=1e-6))
        return {**inner.transition(s, action), "infection/hazard": new.write(s["infection/hazard"], alone.float())}

    return replace(
        inner,
        reads=(*inner.reads, "quarantining", "infection/hazard"),
        writes=(*inner.writes, "infection/hazard"),
        observe=observe,
        transition=change,
    )


def notified(parts: Sequence[Part]) -> list[Part]:
    """The parts of a model with the app: its adoption and its notifications, and transmission that heeds quarantines.

    Args:
        parts: the parts, `behaviour`, `testing` and `transmission` among them.
    Raises:
        InputError: where there is no transmission.
    """
    infecting = next((part for part in parts if part.name == "transmission"), None)
    if infecting is None:
        raise InputError("the app tells of contacts that infect, but no part is called 'transmission'; add one")
    before = infecting.start

    def begin(setting: Setting, theta: Theta, t: float) -> State:
        own = before(setting, theta, t)
        return {**own, "infection/hazard": torch.zeros(setting.people.size, device=setting.people.device)}

    heeding = replace(infecting, substep=partial(apart, infecting=infecting.substep), start=begin)
    told = Part(
        "notification",
        partial(notification, infecting=infecting.substep),
        start,
        parameters=PARAMETERS,
        tallies={
            "uploads": "positive users who upload",
            "contacts_detected": "expected contacts of users with users who upload",
            "notified": "users who are told of a contact",
            "quarantined": "people in quarantine",
        },
        units={"contacts_detected": "contacts"},
    )
    found: list[Part] = []
    for part in parts:
        found += [adoption.PART, told, heeding] if part is infecting else [part]
    return found


PARAMETERS = {
    "detected": Parameter(
        dist.Beta(8.0, 2.0),
        0.8,
        "contacts that the app detects where both have it",
        "share",
        "`traceable_interaction_fraction` of OpenABM-Covid19",
    ),
    "uploads": Parameter(dist.Beta(8.0, 2.0), 1.0, "users who upload their positive test", "share", "chosen"),
    "compliance": Parameter(
        dist.Beta(9.0, 1.0),
        0.9,
        "who is told and goes into quarantine",
        "share",
        "`quarantine_compliance_traced_positive` of OpenABM-Covid19",
    ),
    "dropout": Parameter(
        around(0.03), 0.03, "who gives a quarantine up", "per day", "`quarantine_dropout_traced_positive` of the same"
    ),
}
