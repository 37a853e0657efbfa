"""Double entry of the economy: what a step of labour, money and mobility must leave in balance."""

from __future__ import annotations

import torch
from torch import Tensor

from lpmppl.models import chance_meanings, economic_meanings
from lpmppl.models.part import Book
from lpmppl.models.population import Population
from lpmppl.typing import State

__all__ = ["LABOUR", "MOBILITY", "STIMULUS", "members"]


def _weekly(s: State) -> bool:
    """Whether a week begins in this step."""
    t, dt = float(s["t"]), float(s["dt"])
    return (t + 1e-6 * dt) % 7 < dt * (1 - 1e-6)


def members(people: Population, name: str, mask: Tensor) -> Tensor:
    """How many of a mask there are in each group of a variable, shape (…, G)."""
    groups = people.network(name)
    zeros = mask.new_zeros((*mask.shape[:-1], groups.count), dtype=torch.int64)
    return zeros.index_add(-1, groups.index.long(), mask.to(torch.int64))


def _hired_or_laid_off(_: Population, before: State, after: State) -> Tensor:
    changed = before["employed"] != after["employed"]
    return torch.where(
        changed,
        (after["job_changes"].int() != before["job_changes"].int() + 1) | (after["job_hazard"] != 0),
        (after["job_changes"] != before["job_changes"]) | (after["job_hazard"] < before["job_hazard"]),
    )


def _idle(_: Population, before: State, after: State) -> Tensor:
    keys = ("employed", "filed", "job_hazard", "claim_due", "claiming")
    moved = torch.stack([(before[k] != after[k]).any(-1, keepdim=True) for k in keys]).any(0)
    return moved & torch.tensor(not _weekly(before), device=moved.device)


def _claims(_: Population, before: State, after: State) -> Tensor:
    """Claims come due when they were to, and only of who was laid off."""
    week, t = _weekly(before), before["t"]
    if not week:
        return torch.zeros_like(after["filed"])
    out = before["employed"] & ~after["employed"]
    due = before["claim_due"] < t + 7 - 1e-4
    return torch.where(
        out,
        ~(after["claim_due"] >= t + 7 - 1e-4),
        (after["filed"] != due)
        | torch.where(due, ~after["claim_due"].isinf(), after["claim_due"] != before["claim_due"]),
    )


def _draws(_: Population, before: State, after: State) -> Tensor:
    """Who claims begins to draw benefits unless at work, and goes on until hired."""
    now = (before["claiming"] | (after["filed"] if _weekly(before) else torch.zeros_like(after["filed"]))) & ~after[
        "employed"
    ]
    return after["claiming"] != now


LABOUR = Book(
    balances={
        "who is hired or laid off begins anew": _hired_or_laid_off,
        "nothing moves between the weeks": _idle,
        "claims are filed when they fall due": _claims,
        "who has filed draws benefits until hired": _draws,
        "nobody outside the labour force is hired": lambda p, b, a: (
            a["employed"] & ~b["employed"] & (p["employment"] == 0)
        ),
        "earners are counted in every household": lambda p, _, a: a["earners"] - members(p, "household", a["employed"]),
        "claimants are counted in every household": lambda p, _, a: (
            a["claimants"] - members(p, "household", a["claiming"])
        ),
    },
    accounts={
        "ui_claims": lambda _, __, a: a["filed"],
        "unemployed": lambda p, _, a: (p["employment"] != 0) & ~a["employed"],
    },
    responses={
        "turnover": {"unemployed": 1},
        "layoff_fall": {"unemployed": 1},
        "layoff_closure": {"unemployed": 1},
        "layoff_delay": {"unemployed": -1},
        "claim_share": {"ui_claims": 1},
        "claim_delay": {"ui_claims": -1},
    },
    meanings={**economic_meanings.LABOUR, **chance_meanings.LABOUR},
)


def _kept_money(_: Population, before: State, after: State) -> Tensor:
    """On days without wages savings change by what is paid less what is spent of payments."""
    meant = before["unspent"] + after["paid"]
    wrong = ~((after["unspent"] >= -1e-2) & (after["unspent"] <= meant + 1e-2))
    if _weekly(before):
        return wrong
    spent = before["savings"] + after["paid"] - after["savings"]
    return wrong | ~((spent >= -1e-1) & (spent <= after["paid"] + 1e-1))


def _spent(_: Population, before: State, after: State) -> Tensor:
    if _weekly(before):
        return torch.full((1,), torch.nan)
    return (before["savings"] + after["paid"] - after["savings"]).clamp(min=0)


STIMULUS = Book(
    balances={
        "savings move by what is paid and spent": _kept_money,
        "a payment is made once": lambda _, __, a: a["stimulus"],
        "a payment is 0 dollars or more": lambda _, __, a: a["paid"] < 0,
    },
    accounts={"payments": lambda _, __, a: a["paid"], "spending": _spent},
    responses={
        "stimulus": {"payments": 1, "spending": 1},
        "payment_spent": {"spending": 1},
        "payment_time": {"spending": -1},
        "liquidity": {"spending": 1},
    },
    meanings=economic_meanings.STIMULUS,
)

MOBILITY = Book(
    balances={
        "activity is above 0": lambda _, __, a: torch.cat([~(a[k] > 0) for k in a if k.startswith("mobility/")], -1)
    },
    responses={"stringency": {"infections": -1, "spending": -1}},
    meanings=economic_meanings.MOBILITY,
)
