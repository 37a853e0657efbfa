"""Outings: who goes out to shops, restaurants and the like as before, decided anew every week."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from lpmppl.data.recorded import Recorded, shipped
from lpmppl.effects.internals.segments import by_blocks
from lpmppl.effects.ops import decide, ring_sum, tally
from lpmppl.models import mobility, transmission
from lpmppl.models.archetypes import counts
from lpmppl.models.behaviour import OBSERVED, OUTING, observed
from lpmppl.models.inclination import AS_ONE, inclination
from lpmppl.models.memory import never, remembered
from lpmppl.models.new_yorkers import archetypes_of, present
from lpmppl.models.part import Part, Setting
from lpmppl.models.progression import Stage
from lpmppl.models.substep import Substep
from lpmppl.typing import State, Theta

__all__ = ["decided", "outings", "part"]


def outings(setting: Setting, theta: Theta, recorded: Recorded | None = None) -> Substep:
    r"""The weekly substep in which everybody decides anew whether to go out as before, or to stay in.

    Person i goes out where its own inclination :math:`u_i \sim U(0, 1)`, which it keeps, is below :math:`P(go\ out
    \mid k_i)` of its archetype. Observed are the stringency of policies, 0 to 1, and what every decision observes. The
    activity of shops and restaurants is the share who go out.

    Args:
        setting: the people.
        theta: nothing; `households_as_one` is the start's.
        recorded: whose stringency is in force where none was set; New York's in 2020 by default.
    """
    people, kinds = setting.people, archetypes_of(setting)
    stringency = mobility.policy(setting, shipped() if recorded is None else recorded)

    def choose(s: State) -> tuple[Tensor, Tensor]:
        now = present(people, kinds, s)
        context = observed(kinds, setting, s, s["before/outing"])
        context |= {
            "stringency": stringency(s).float() / 100.0,
            "due": lambda: counts(now(slice(None)), kinds.size),
        }
        chance = decide("outing", kinds.table, OUTING, context)[..., 0].detach()

        def some(agents: slice) -> Tensor:
            goes = s["inclination/outing"][..., agents] < kinds.read(chance, now(agents))
            return goes & (s["stage"][..., agents] != Stage.DEAD)

        out: Tensor = by_blocks(people.size, some)
        return out, remembered(s["before/outing"], chance)

    def change(s: State, choice: tuple[Tensor, Tensor]) -> State:
        out, before = choice
        changed = people.cohort(out != s["out"])
        sign = changed.carrying(torch.where(changed.read(out), 1, -1))
        going = ring_sum(sign, None, s["out/city"])
        return {
            "out": out,
            "out/city": going,
            "out/total": tally("going_out", sign, by=setting.by, onto=s["out/total"]),
            "mobility/retail": going.float() / people.everybody,
            "before/outing": before,
        }

    written = ("out", "out/city", "out/total", "mobility/retail", "before/outing")
    return Substep(
        "outings",
        reads=(
            *OBSERVED,
            "stage",
            "stringency",
            "inclination/outing",
            *(key for key in written if key != "mobility/retail"),
        ),
        writes=written,
        policy=choose,
        transition=change,
        every=7,
    )


def start(setting: Setting, theta: Theta, t0: float, recorded: Recorded | None = None) -> State:
    """As many go out as were recorded on the first day, or everybody outside the record."""
    people = setting.people
    inclined = inclination(people, "inclination_to_go_out", theta["households_as_one"])
    retail = mobility.begin(setting, theta, t0, recorded)["mobility/retail"]
    out = inclined < retail
    city = ring_sum(out.long(), None)
    return {
        "out": out,
        "out/city": city,
        "out/total": ring_sum(out.long(), setting.by),
        "mobility/retail": city.float() / people.everybody,
        "inclination/outing": inclined,
        "before/outing": never(archetypes_of(setting)),
    }


def part(recorded: Recorded | None = None) -> Part:
    """The part of a model in which people decide whether to go out, under a record's policies; New York's by default.

    It wants `mobility.part(…, decided=("retail",))` beside it, which leaves shops and restaurants to it.
    """
    return Part(
        "outings",
        partial(outings, recorded=recorded),
        partial(start, recorded=recorded),
        parameters={"households_as_one": AS_ONE},
        keeps=("inclination/outing",),
        decisions=("outing",),
        tallies={"going_out": "people who go out to shops and restaurants as before"},
    )


def decided(
    parts: Sequence[Part], recorded: Recorded | None = None, network: mobility.Network | None = None
) -> list[Part]:
    """The parts of a model with outings decided by each person instead of recorded for the city.

    Whoever goes out then meets, and is met by, more people in the community than whoever stays in.

    Args:
        parts: the parts, `mobility` and `transmission` among them.
        recorded: what was recorded; New York in 2020 by default.
        network: the activity expected of workplaces and transit; the one trained on New York in 2020 by default.
    """
    without = {"mobility": mobility.part(recorded, network, decided=("retail",)), "transmission": transmission.OUTINGS}
    found = []
    for each in parts:
        found.append(without.get(each.name, each))
        if each.name == "mobility":
            found.append(part(recorded))
    return found
