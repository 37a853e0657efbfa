"""Every model that the package ships is verified as it comes: by every check, with verification's own defaults."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl.inference.verify import CHECKS, verify
from lpmppl.models.firms import firms
from lpmppl.models.isolation import Isolation
from lpmppl.models.opinion import Opinion
from lpmppl.models.population import Population
from lpmppl.models.supply_chain import SupplyChain
from lpmppl.models.town import town


def opinion():
    people, ties = town(1_000)
    return Opinion(people, [people.network("household"), ties])


SHIPPED = {
    "sir": lambda: lpm.nyc.sir(lpm.nyc.population(1_000)),
    "seirm": lambda: lpm.nyc.seirm(lpm.nyc.population(1_000)),
    "pandemic": lambda: lpm.nyc.pandemic(lpm.nyc.population(1_000)),
    "supply_chain": lambda: SupplyChain(firms(1_000)),
    "opinion": opinion,
    "isolation": lambda: Isolation(Population.of({"household": np.arange(1_000) // 4}), "household"),
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_breaks_nothing(name):
    """Of the statistical checks 6 in 100,000 sums that are right lie further off; the seed is fixed."""
    found = verify(SHIPPED[name]())
    assert found.model == name
    assert found.ok, str(found)
    # No check is left out without a word.
    assert {f.check for f in found.findings} == set(CHECKS)
