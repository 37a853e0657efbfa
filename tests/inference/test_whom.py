"""Acts for some people alone: also by what the groups are that these belong to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.inference.policies import Act
from lpmppl.inference.worlds import _whom
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR

LABELS = {"labels": ["mill", "farm"]}


def society(place: list[int], ids: list[int] | None = None) -> SIR:
    people = xr.Dataset(
        {
            "household": ("agent", np.array([0, 0, 1, 1], dtype=np.int32)),
            "place": ("agent", np.array(place, dtype=np.int32)),
            "work": ("place", np.array([1, 0, 1], dtype=np.uint8), LABELS),
            "trade": ("agent", np.array([0, 1, 1, 1], dtype=np.uint8), LABELS),
            "tenure": ("household", np.array([0, 1], dtype=np.uint8), LABELS),
        }
    )
    population = Population(people if ids is None else people.assign_coords(agent=("agent", ids)))
    return SIR(population, [population.network("household")])


def whom(model: SIR, **to: str) -> list[bool]:
    mask = _whom(model, Act("transmission", 0.5, 1, to=to))
    assert mask is not None
    return mask.tolist()


@pytest.mark.parametrize("ids", [None, [7, 3, 9, 1]])
def test_it_is_by_what_the_groups_of_any_kind_are_that_they_belong_to(ids):
    model = society([2, 0, 1, 1], ids)
    assert whom(model, work="farm") == [True, True, False, False]
    assert whom(model, tenure="farm") == [False, False, True, True]
    assert whom(model, trade="farm") == [False, True, True, True]
    assert whom(model, work="farm", trade="farm") == [False, True, False, False]


def test_who_belongs_to_no_group_isnt_concerned():
    assert whom(society([2, -1, 1, -1]), work="farm") == [True, False, False, False]
    assert whom(society([2, -1, 1, -1]), work="mill") == [False, False, True, False]


def test_of_a_group_it_is_by_what_all_of_its_members_have_in_common():
    model = society([0, 0, 0, 0])
    model.targets = {"transmission": "household"}
    with pytest.raises(InputError, match="set for each household, whose members differ in trade"):
        whom(model, trade="farm")
    model.targets = {"transmission": "place"}
    with pytest.raises(InputError, match="set for each place, whose members differ in trade"):
        whom(model, trade="farm")
    with pytest.raises(InputError, match="set for each place, but tenure is known of each household"):
        whom(model, tenure="farm")
    assert torch.equal(torch.tensor(whom(model, work="mill")), torch.tensor([False, True, False]))
