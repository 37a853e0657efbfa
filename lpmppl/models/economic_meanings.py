"""What the economy's parameters and equations mean: each said a second time, of what a step left in the state."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lpmppl.data.recorded import ACTIVITIES, shipped
from lpmppl.models.disease_meanings import weekly
from lpmppl.models.labour import BENEFIT, SUPPLEMENT, relative_layoffs, wages
from lpmppl.models.mobility import calendar_of, since_2020, trained
from lpmppl.models.model import Meant
from lpmppl.models.part import Setting
from lpmppl.models.seen import Counted
from lpmppl.models.stimulus import AT_HOME, CHEQUES, CHILD_SHARE, eligibility, income_quartiles, normal_spending
from lpmppl.typing import State, Theta

__all__ = ["CLAIMS", "LABOUR", "MOBILITY", "STIMULUS"]


def _activity(_: Setting, __: Theta, b: State, a: State, ___: Counted) -> Meant:
    now = (a["mobility/workplaces"] + a["mobility/retail"]) / 2
    return Meant(a["labour/activity"], now if weekly(b) else b["labour/activity"])


def _pressure(_: Setting, theta: Theta, b: State, a: State, __: Counted) -> Meant:
    if not weekly(b):
        return Meant(a["labour/pressure"], b["labour/pressure"])
    now = (a["mobility/workplaces"] + a["mobility/retail"]) / 2
    keep = torch.exp(-7 / theta["layoff_delay"])
    fall = (b["labour/activity"] - now).clamp(min=0)
    return Meant(a["labour/pressure"], keep * b["labour/pressure"] + (1 - keep) * fall)


def _hazard(setting: Setting, theta: Theta, b: State, a: State, _: Counted) -> Meant:
    """The hazards of layoff and of hiring over the week, of all who keep their job or go on seeking one."""
    people = setting.people
    who = (people["employment"] != 0) & (b["employed"] == a["employed"])
    accrued = (a["job_hazard"] - b["job_hazard"])[who]
    if not weekly(b):
        return Meant(accrued, torch.zeros_like(accrued))
    kinds, relative = people.derived("relative layoffs", lambda: relative_layoffs(people))
    now, before = (a["mobility/workplaces"] + a["mobility/retail"]) / 2, b["labour/activity"]
    falls = theta["layoff_fall"] / 7 * a["labour/pressure"] + theta["layoff_closure"] * (1 - now).clamp(min=0)
    layoff = theta["turnover"] + relative[kinds.index.long()] * falls
    employed, seeking = ((people["employment"] == k).sum() for k in (2, 1))
    rise = (now.clamp(max=1) - before.clamp(max=1)).clamp(min=0)
    hiring = theta["turnover"] * employed / seeking.clamp(min=1) * now.clamp(max=1) + theta["rehiring"] / 7 * rise
    return Meant(accrued, 7 * torch.where(b["employed"], layoff, hiring)[who], near=1e-5)


def _files(_: Setting, theta: Theta, b: State, a: State, __: Counted) -> Meant:
    out = b["employed"] & ~a["employed"]
    files = (~a["claim_due"][out].isinf()).double()
    p = theta["claim_share"].expand_as(files)
    return Meant(files, p, p * (1 - p))


def _waits(_: Setting, theta: Theta, b: State, a: State, __: Counted) -> Meant:
    """The wait after the first week, in its means: exponential, and so of variance 1."""
    out = b["employed"] & ~a["employed"] & ~a["claim_due"].isinf()
    wait = (a["claim_due"][out] - b["t"] - 7) / theta["claim_delay"]
    return Meant(wait, torch.ones_like(wait), 1.0)


LABOUR = {
    "activity is the mean of workplaces' and retail's": _activity,
    "firms react to a fall over layoff_delay": _pressure,
    "the hazards of layoff and hiring are those of the equations": _hazard,
    "claim_share is the share of the laid off who file": _files,
    "claim_delay is the mean wait after the first week": _waits,
}


def _paid(setting: Setting, _: Theta, b: State, a: State, __: Counted) -> Meant:
    """Every payment on its date, and the pulse of a policy on the day it is set."""
    filing = eligibility(setting.people)
    t, dt = float(b["t"]), float(b["dt"])
    due = filing.payment(b["stimulus"], b["stimulus"] * CHILD_SHARE)
    for day, adult, child in CHEQUES:
        if t - 1e-6 <= setting.day(day) < t + dt - 1e-6:
            due = due + filing.payment(adult, child)
    return Meant(a["paid"], due.expand_as(a["paid"]), near=0.01)


def _spending(setting: Setting, theta: Theta, b: State, a: State) -> tuple[Tensor, Tensor, Tensor]:
    """What each household spends in the step, has to spend on, and has left to spend of payments, by the equations."""
    people = setting.people
    paid, savings = a["paid"], b["savings"]
    liquid = 1 / (1 + savings.clamp(min=0) / theta["liquidity"])
    means = b["unspent"] + theta["payment_spent"] * liquid * paid
    if not weekly(b):
        # Only of today's payment something is spent before the week begins.
        pace = 1 - torch.exp(-(7 - b["t"] % 7) / theta["payment_time"])
        now = (means - b["unspent"]) * pace
        return now, torch.zeros_like(now), means - now
    now = means * (1 - torch.exp(-7 / theta["payment_time"]))
    wage, _ = people.derived("wages", lambda: wages(people))
    income = people["income"].nan_to_num(0.0).float() / 52
    normal, quartile = normal_spending(people), income_quartiles(people).index.long()
    amount, first, last = SUPPLEMENT
    extra = amount if setting.day(first) <= float(b["t"]) <= setting.day(last) else 0.0
    benefit = torch.where(wage > 0, (wage / 2).clamp(*BENEFIT) + extra, 0.0)
    earned = wage * b["earners"] + benefit * b["claimants"] + torch.where(wage > 0, 0.0, income)
    kept = torch.where(income > 0, normal / income.clamp(min=1e-6), 0.0).clamp(max=1)
    spendable = kept * earned + (normal - income).clamp(min=0)
    response = theta["income_spent"] + theta["income_spent_poor"] * liquid
    usually = (normal + response * (spendable - normal)).clamp(min=0)
    avoided = torch.tensor(AT_HOME)[quartile] * (1 - a["mobility/retail"]).clamp(min=0) ** 2
    return usually * (1 - avoided).clamp(min=0) + now, spendable, means - now


def _spent(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    spent, _, _ = _spending(setting, theta, b, a)
    return Meant(counted["spending"], spent.double().sum(), near=0.01 * len(spent))


def _saved(setting: Setting, theta: Theta, b: State, a: State, _: Counted) -> Meant:
    spent, income = _spending(setting, theta, b, a)[:2]
    return Meant(a["savings"] - b["savings"], a["paid"] + income - spent, near=0.05)


def _unspent(setting: Setting, theta: Theta, b: State, a: State, _: Counted) -> Meant:
    return Meant(a["unspent"], _spending(setting, theta, b, a)[2], near=0.05)


STIMULUS = {
    "payments come on their dates, to who files for them": _paid,
    "households spend by the equation": _spent,
    "savings change by what comes in less what is spent": _saved,
    "what is meant to be spent of payments is spent at its pace": _unspent,
}


def _record(setting: Setting, _: Theta, b: State, a: State, __: Counted) -> Meant:
    """The record of the date, moved by what the network expects of another stringency and other admissions."""
    recorded, network = shipped(), trained()
    today = np.datetime64(setting.date_of(float(b["t"]) + 1e-6))
    row = int(np.searchsorted(recorded.days, today))
    inside = row < len(recorded.days) and recorded.days[row] == today
    own = b["stringency"].double()
    before = np.flatnonzero(recorded.days <= today)
    last = float(recorded.stringency[before[-1]]) if len(before) else 0.0
    stringency = torch.where(own >= 0, own.clamp(max=100.0), last)
    rest = network.rest(torch.as_tensor(calendar_of(np.asarray(since_2020(today)), float(since_2020(recorded.outset)))))
    log = network.log_activity(stringency, b["admissions/week"], rest)
    if inside:
        log = log - network.on(recorded)[row] + torch.as_tensor(recorded.table[row]).log()
    seen = torch.cat([a[f"mobility/{name}"] for name in ACTIVITIES], -1)
    return Meant(seen, log.exp().squeeze())


MOBILITY = {"activity is the record's of the date, moved by what the network expects": _record}


def _claimed(setting: Setting, theta: Theta, b: State, a: State, counted: Counted) -> Meant:
    cells = 1 if setting.by is None else setting.by.count
    mean = a["filed"].double().sum() * setting.weight
    if not weekly(b) or "reported_ui_claims" not in counted:
        mean = mean * torch.nan
    # Of strata that aren't told apart here the variance is at most that of one.
    index = torch.zeros_like(a["filed"], dtype=torch.long) if setting.by is None else setting.by.index.long()
    each = mean.new_zeros(cells).index_add(0, index, a["filed"].double()) * setting.weight
    variance = (each + each**2 / theta["report_dispersion"]).sum().clamp(min=1.0)
    seen = counted.get("reported_ui_claims", mean)
    return Meant(seen / variance.sqrt(), mean / variance.sqrt(), 1.0)


CLAIMS = {"claims are reported of the residents": _claimed}
