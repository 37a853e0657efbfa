"""What meanings read besides a step's states: whom sites were drawn for and from what, hazards in all, and ages."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lpmppl.models.population import Population

__all__ = ["Counted", "among", "drawn", "with_total", "years"]

Counted = Mapping[str, Tensor]
"""The totals of a step's tallies, what was observed in it, and what was drawn from, as `Witness.observed` has it."""


_LEAST = 2e-3
"""Mean hazard per day below which the rounding of messages is seen in their sum."""


def drawn(people: Population, counted: Counted, site: str, moment: str = "mean") -> tuple[Tensor, Tensor]:
    """The places of those for whom a site was drawn in the step, and a moment of what it was drawn from or the episode.

    Args:
        people: the population.
        counted: what `lpmppl.verify` gives meanings.
        site: the site's name.
        moment: "mean", "variance" or "episode".
    Returns:
        positions in 0 … N − 1 and float64, both of shape (k,); of shape (0,) where it wasn't drawn.
    """
    if f"{site}: who" not in counted:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0).double()
    order = torch.argsort(people.ids)
    places = order[torch.searchsorted(people.ids[order], counted[f"{site}: who"].to(people.ids.dtype))]
    return places, counted[f"{site}: {moment}"].double().expand(places.shape)


def among(people: Population, places: Tensor) -> Tensor:
    """Who is at some places, positions in 0 … N − 1: 1 or 0 of everybody, float64 of shape (N,)."""
    return torch.zeros(people.size).double().index_fill(0, places, 1.0)


def years(people: Population) -> Tensor:
    """Everybody's age, by the middle of its band where no more is known, shape (N,)."""
    return people["age"] if "age" in people.dataset else people["age_band"] * 10 + 5


def with_total(seen: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
    """Hazards of shape (k,), and the logarithm of their sum over what is expected of it: shape (k + 1,) each.

    Messages are rounded, which evens out in the sum: it is nearer to what is expected than each. Where little is
    spread, rounding is seen in it too, and nothing is said.
    """
    both = seen.double().sum(), expected.double().sum()
    ratio = torch.where(both[1] > _LEAST * len(expected), torch.log(both[0] / both[1]), torch.nan).reshape(1)
    return torch.cat((seen.double(), ratio)), torch.cat((expected.double(), ratio * 0))
