"""Populations: variables as tensors, networks, strata, and what isn't one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from lpmppl.errors import InputError
from lpmppl.models.population import Population


def people() -> Population:
    return Population.of(
        {"household": np.array([0, 0, 1]), "age": np.array([40, 8, 70], dtype=np.uint8), "borough": [1, 1, 0]}
    )


def test_variables_are_tensors_of_their_dtype():
    assert people()["age"].dtype == torch.uint8
    assert people()["age"].tolist() == [40, 8, 70]
    with pytest.raises(InputError, match="did you mean 'household'"):
        people()["houshold"]


def test_everyone_meets_everyone():
    assert people().everyone().size.tolist() == [3]


def test_nobody_meets_nowhere():
    network = people().network("household", nowhere=0)
    assert network.size.tolist() == [0, 1]
    assert network.share("mean").tolist() == [0.0, 1.0]


def test_strata_are_the_product_in_the_order_given():
    strata = people().strata(borough="borough", household="household")
    assert dict(strata.dims) == {"borough": ["0", "1"], "household": ["0", "1"]}
    assert strata.index.tolist() == [2, 2, 1]


def test_ids_must_be_distinct_and_fit():
    for bad in ([0, 0, 1], [-1, 0, 1], [0, 1, 2**32]):
        dataset = people().dataset.assign_coords(agent=("agent", bad))
        with pytest.raises(InputError, match="ids must be distinct"):
            Population(dataset)


def test_a_dataset_without_agents_is_refused():
    with pytest.raises(InputError, match="dimension 'agent'"):
        Population(xr.Dataset())


def test_a_cohort_needs_a_mask_over_its_agents():
    with pytest.raises(InputError, match="over the 3 agents"):
        people().cohort(torch.ones(4, dtype=torch.bool))
    with pytest.raises(InputError, match="Boolean mask"):
        people().cohort(torch.ones(3))


def test_saved_and_opened_it_is_the_same(tmp_path):
    people().save(tmp_path / "p.zarr")
    again = Population.open(tmp_path / "p.zarr")
    xr.testing.assert_identical(again.dataset.drop_attrs(), people().dataset.drop_attrs())
    (tmp_path / "other.zarr").mkdir()
    with pytest.raises(InputError):
        Population.open(tmp_path / "other.zarr")


def test_a_variable_that_is_one_number_is_refused_by_name():
    people = Population(xr.Dataset({"age": ("agent", [3, 4]), "puma": ((), 7)}))
    with pytest.raises(InputError, match="'puma' of the population is one number"):
        people["puma"]
