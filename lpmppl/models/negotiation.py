"""Negotiation: what a household means to spend of a payment, as its adults settle it among them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lpmppl.effects.ops import decide, ring_sum
from lpmppl.models import stimulus
from lpmppl.models.behaviour import observed
from lpmppl.models.memory import never, remembered
from lpmppl.models.new_yorkers import READ, archetypes_of, present
from lpmppl.models.part import Setting
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["PART", "SPEND", "negotiation", "settled"]

SPEND = ("spend", "save")

ADULT = 18

UNIT = 2.0**-24
"""The unit in which shares are added, so that the sum has no order."""


def settled(setting: Setting, s: State, dollars: Tensor) -> tuple[Tensor, Tensor]:
    r"""The share of a payment that each household means to spend: the mean of what its adults would.

    .. math:: \sigma_h = \frac{1}{|A_h|} \sum_{i \in A_h} P(\mathrm{spend} \mid k_i)

    of eqs. 4–5 of the LPM paper's probabilities, each adult an equal voice. Everybody observes, besides what any
    decision observes, the `payment`: dollars that an adult gets.

    Args:
        setting: the people.
        s: the state.
        dollars: what an adult gets, of shape (…, 1).
    Returns:
        σ of shape (…, H), 0 where there are no adults; and what the archetypes will remember.
    """
    people, kinds = setting.people, archetypes_of(setting)
    home = people.network("household")
    adult = people["age"] >= ADULT
    adults = people.derived("adults", lambda: home.total(adult.int()))
    kind = present(people, kinds, s)(slice(None))
    context: dict[str, Any] = observed(kinds, setting, s, s["before/spend"])
    context |= {"payment": dollars, "due": lambda: kinds.count(kind[..., adult])}
    chance = decide("spend", kinds.table, SPEND, context)[..., 0].detach()
    willing = torch.where(adult, kinds.read(chance, kind), 0.0)
    total = ring_sum((willing.double() / UNIT).round().long(), home) * UNIT
    return (total / adults.clamp(min=1)).float(), remembered(s["before/spend"], chance)


def negotiation(setting: Setting, theta: Theta) -> Substep:
    """The substep of `stimulus`, in which each household settles among its adults what it spends of a payment.

    Args:
        setting: the people.
        theta: the parameters of `stimulus.PART`; `payment_spent` has nothing to say here.
    """

    def settle(s: State, dollars: Tensor) -> tuple[Tensor, State]:
        share, before = settled(setting, s, dollars)
        return share, {"before/spend": before}

    substep = stimulus.stimulus(setting, theta, settle, ("before/spend",))
    return replace(substep, reads=(*substep.reads, "admissions/week", *READ, "before/spend"))


def _begin(setting: Setting, theta: Theta, t0: float) -> State:
    return {**stimulus.begin(setting, theta, t0), "before/spend": never(archetypes_of(setting))}


PART = replace(stimulus.PART, substep=negotiation, start=_begin, decisions=("spend",))
"""The part `stimulus` of a society whose households settle what they spend among their adults."""
