"""Masks: who wears one in public, decided anew every week."""

from __future__ import annotations

import torch
from torch import Tensor

from lpmppl.effects.internals.segments import broadcast, by_blocks
from lpmppl.effects.ops import decide, ring_sum, tally
from lpmppl.models.archetypes import counts
from lpmppl.models.behaviour import MASK, OBSERVED, observed
from lpmppl.models.inclination import AS_ONE, inclination
from lpmppl.models.memory import never, remembered
from lpmppl.models.new_yorkers import archetypes_of, present
from lpmppl.models.part import Part, Setting
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["MANDATES", "PART", "mandated", "masking"]

MANDATES = (("2020-04-17", "2021-05-19"), ("2021-12-13", "2022-02-10"))
"""From when until when masks were required in New York.

Executive Order 202.17, from 17 April 2020, until the state took over the CDC's guidance for the vaccinated; and the
winter's rule for indoor places without proof of vaccination.
"""

ADVISED = "2020-04-03"
"""When the CDC began to advise everybody to cover their face in public."""

SURVEYED = 0.84
"""Share who wore a mask every time in businesses in November 2020, as in the survey behind `UTILITY["mask"]`."""


def mandated(setting: Setting, t: float) -> bool:
    """Whether masks were required in New York on day t."""
    return any(setting.day(begin) <= t < setting.day(end) for begin, end in MANDATES)


def masking(setting: Setting, theta: Theta) -> Substep:
    r"""The weekly substep in which everybody decides anew whether to wear a mask in public.

    Person i does where its own inclination :math:`u_i \sim U(0, 1)`, which it keeps, is below :math:`P(mask \mid k_i)`
    of its archetype in its borough: so choices change only as these probabilities move. Observed are the risk, the
    advice and mandate in force, and the share of the borough who wore a mask last week.

    Args:
        setting: the people.
        theta: nothing; `households_as_one` is the start's.
    """
    people, kinds = setting.people, archetypes_of(setting)
    borough = people.network("borough")

    def residents(s: State) -> Tensor:
        """How many there are of each archetype in each borough, shape (…, B, K)."""
        place = present(people, kinds, s)(slice(None)) + borough.index.int() * kinds.size
        return counts(place, borough.count * kinds.size).unflatten(-1, (borough.count, kinds.size))

    def choose(s: State) -> tuple[Tensor, Tensor]:
        t = float(s["t"])
        ordered = torch.where(s["mask_mandate"] < 0, float(mandated(setting, t)), s["mask_mandate"])
        places = (borough.count, kinds.size)
        context = observed(kinds, setting, s, s["before/mask"].unflatten(-1, places))
        context |= {
            "risk": context["risk"].unsqueeze(-1),
            "mandate": ordered.unsqueeze(-1),
            "advice": float(t >= setting.day(ADVISED)),
            "neighbours": (s["masked/borough"] * borough.share("mean")).unsqueeze(-1),
            "due": lambda: residents(s),
            "groups": 1,
        }
        chance = decide("mask", kinds.table, MASK, context)[..., 0]
        chance = chance.expand(broadcast(chance.shape, places)).flatten(-2).detach()

        now = present(people, kinds, s)

        def some(agents: slice) -> Tensor:
            kind = now(agents) + borough.index[agents].int() * kinds.size
            return s["inclination/mask"][..., agents] < kinds.read(chance, kind)

        masked: Tensor = by_blocks(people.size, some)
        return masked, remembered(s["before/mask"], chance)

    def change(s: State, choice: tuple[Tensor, Tensor]) -> State:
        masked, before = choice
        changed = people.cohort(masked != s["masked"])
        sign = torch.where(changed.read(masked), 1, -1)
        return {
            "masked": masked,
            "masked/borough": ring_sum(changed.carrying(sign), borough, s["masked/borough"]),
            "masked/total": tally("masked", changed.carrying(sign), by=setting.by, onto=s["masked/total"]),
            "before/mask": before,
        }

    written = ("masked", "masked/borough", "masked/total", "before/mask")
    return Substep(
        "masking",
        reads=(*OBSERVED, "mask_mandate", "inclination/mask", *written),
        writes=written,
        policy=choose,
        transition=change,
        every=7,
    )


def start(setting: Setting, theta: Theta, t0: float) -> State:
    """Nobody wears a mask, or as many as in November 2020 where they are required already."""
    people = setting.people
    inclined = inclination(people, "inclination_to_mask", theta["households_as_one"])
    masked = inclined < (SURVEYED if mandated(setting, t0) else 0.0)
    return {
        "masked": masked,
        "masked/borough": ring_sum(masked.long(), people.network("borough")),
        "masked/total": ring_sum(masked.long(), setting.by),
        "inclination/mask": inclined,
        "before/mask": never(archetypes_of(setting), people.network("borough").count),
    }


PART = Part(
    "masking",
    masking,
    start,
    parameters={"households_as_one": AS_ONE},
    keeps=("inclination/mask",),
    decisions=("mask",),
    environment={"mask_mandate": -1.0},
    limits={"mask_mandate": (0.0, 1.0)},
    tallies={"masked": "people who wear a mask in public"},
)
