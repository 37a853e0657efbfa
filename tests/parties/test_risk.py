"""A person's own risk: what the hazards of a week come to, and what they were without some contacts."""

from __future__ import annotations

import pytest
import torch

import lpmppl as lpm
from lpmppl._compat import Message, Messenger
from lpmppl.errors import InputError, LpmError
from lpmppl.parties.risk import OwnRisk
from lpmppl.parties.society import society

PEOPLE = lpm.nyc.population(1_000)


class Hazards(Messenger):
    """The cumulative hazards that the model's own exposures accrue."""

    def __init__(self):
        super().__init__()
        self.after = []

    def _pyro_post_happens(self, msg: Message) -> None:
        name, exposure = msg["args"]
        if name.endswith("infection"):
            self.after.append((exposure.hazard.dense() * exposure.dt).double())


def test_it_is_the_hazard_of_the_last_days_over_all_networks():
    with Hazards() as seen, OwnRisk(days=5) as own:
        lpm.run(society(PEOPLE), days=12, seed=2, set={"initial_infected": 0.05})
    found = own.told()
    total = torch.stack(seen.after[-5:]).sum(0)
    assert float(total.max()) > 0
    torch.testing.assert_close(torch.from_numpy(found["risk"].values), -torch.expm1(-total), rtol=1e-5, atol=1e-9)
    assert list(found["network"].values) == ["household", "borough"]
    assert ((found["without"] <= found["risk"] + 1e-12).all()).item()
    # Without one network the other is left: their hazards add up.
    hazards = -torch.log1p(-torch.from_numpy(found["without"].values))
    torch.testing.assert_close(hazards.sum(0), total, rtol=1e-5, atol=1e-9)


def test_whose_household_is_well_has_nothing_to_gain_at_home():
    with OwnRisk(days=1) as own:
        lpm.run(society(PEOPLE), days=1, seed=2, set={"initial_infected": 0.05})
    found = own.told()
    ill = ~torch.from_numpy(found["at_risk"].values)
    home = PEOPLE["household"].long()
    someone = torch.zeros(int(home.max()) + 1).index_add_(0, home, ill.float())[home] > 0
    without = torch.from_numpy(found["without"].sel(network="household").values)
    same = torch.isclose(without, torch.from_numpy(found["risk"].values), atol=1e-12)
    assert torch.equal(same, ~someone)
    assert 10 < int(someone.sum()) < 900


def test_what_can_not_be_told_is_refused():
    with pytest.raises(InputError, match="days=0"):
        OwnRisk(days=0)
    with pytest.raises(LpmError, match="nothing was seen of site 'infection'"):
        OwnRisk().told()
    city = lpm.nyc.pandemic(PEOPLE)
    with OwnRisk(), pytest.raises(LpmError, match="isn't a sum over networks"):
        lpm.run(city, days=1)
