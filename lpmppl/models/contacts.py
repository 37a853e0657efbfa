"""How often people meet, where and of what age, and how readily the virus takes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import torch
from torch import Tensor
from torch.nn.functional import pad

from lpmppl.effects.fields import Network
from lpmppl.errors import InputError
from lpmppl.models.population import Population

__all__ = ["CONTACTS", "SUSCEPTIBILITY", "Layer", "in_session", "mixing", "proportionate", "schools"]

CONTACTS = {"household": 4.11, "workplace": 8.07, "school": 11.41, "community": 2.79}
"""Contacts per day and person in each setting, of those in it: Mistry et al., Nature Communications 12 (2021), 323."""

SUSCEPTIBILITY = (0.40, 0.38, 0.79, 0.86, 0.80, 0.82, 0.88, 0.74, 0.74)
"""Relative susceptibility by age band 0–9 … 80+: Davies et al., Nature Medicine 26 (2020), where 70+ is one."""

_CLOSED = (date(2020, 3, 16), date(2020, 9, 21))
_HYBRID = 0.3
"""Share of pupils in school in the autumn of 2020 (chosen: in-person schooling was offered to those who asked)."""


@dataclass(frozen=True)
class Layer:
    """One layer of contact.

    Args:
        network: who meets whom in it.
        contacts: contacts per day of an agent in the layer, a number or one per group, shape (G,).
    """

    network: Network
    contacts: Tensor | float


def schools(people: Population) -> Tensor:
    """Which workplaces are schools, shape (G,).

    Raises:
        InputError: for a kind without a label.
    """
    kinds, kind = people.coded("workplace_kind")
    return torch.tensor([each == "school" for each in kinds], device=people.device)[kind.long()]


def proportionate(people: Population) -> Tensor:
    """Contacts a day in the community of each age band with each other, in proportion to their numbers: shape (A, A).

    Mistry et al. find community contacts to be so in New York State; other settings bring the ages together that live,
    work and learn together.
    """
    bands = people.network("age_band")
    # Nobody may be of the last ages.
    size = pad(bands.size, (0, _bands(people) - bands.count))
    return CONTACTS["community"] * (size / people.everybody).float().expand(len(size), len(size))


def _bands(people: Population) -> int:
    """How many age bands there are, whether somebody is of them or not."""
    return max(people.network("age_band").count, len(people.labels("age_band")))


def mixing(people: Population, matrix: Tensor | None) -> Tensor:
    """Check a matrix of contacts a day of age band a (row) with age band b (column); proportionate where none is given.

    Raises:
        InputError: for a matrix of another shape than the population's age bands, or with entries that are negative or
            no finite numbers.
    """
    if matrix is None:
        return proportionate(people)
    count = _bands(people)
    if tuple(matrix.shape) != (count, count):
        raise InputError(
            f"the contact matrix has shape {tuple(matrix.shape)}; give {count} × {count}, age bands by age bands"
        )
    if not bool((torch.isfinite(matrix) & (matrix >= 0)).all()):
        raise InputError(f"the contact matrix holds {float(matrix.min()):g}; contacts a day are finite and 0 or more")
    return matrix.to(people.device, torch.float32)


def in_session(today: date) -> float:
    """The share of pupils in school by the calendar and as recorded in New York: 0 in the holidays and when closed.

    >>> in_session(date(2020, 3, 13)), in_session(date(2020, 3, 16)), in_session(date(2021, 7, 4))
    (1.0, 0.0, 0.0)
    """
    if (6, 26) < (today.month, today.day) < (9, 8):
        return 0.0
    if _CLOSED[0] <= today < _CLOSED[1]:
        return 0.0
    return _HYBRID if _CLOSED[1] <= today < date(2021, 9, 13) else 1.0
