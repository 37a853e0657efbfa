"""Households settle what they spend: their adults' mean, of which the payment is spent, and who is asked when."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.handlers import Decided, LanguageModel, Tabulated, Utility
from lpmppl.models import stimulus
from lpmppl.models.negotiation import settled
from lpmppl.models.new_yorkers import archetypes
from tests.effects.language.sources import Exactly

PEOPLE = lpm.nyc.population(2_000)
HOME, AGE = PEOPLE["household"].long(), PEOPLE["age"]
CITY = lpm.nyc.pandemic(PEOPLE, start="2020-04-13", negotiated=True)
USUAL = lpm.nyc.pandemic(PEOPLE, start="2020-04-13")
PAID = 2
"""The day of the CARES Act's payment."""


def state(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    with Utility(CITY.behaviour):
        first = CITY.initial(CITY.defaults())
    return {**first, "t": torch.tensor(float(PAID)), "dt": torch.tensor(1.0), **more}


def table(p: float) -> torch.Tensor:
    return torch.tensor([p, 1 - p])


def test_a_household_means_to_spend_the_mean_of_what_its_adults_would():
    kinds = archetypes(PEOPLE)
    chance = torch.rand(kinds.size, generator=torch.Generator().manual_seed(0))
    s = state()
    with Tabulated({"spend": torch.stack([chance, 1 - chance], -1)}), Decided() as kept:
        share, before = settled(CITY.setting, s, torch.tensor([1200.0]))
    poor = s["savings"][HOME] < 2000
    employed = PEOPLE["employment"] == PEOPLE.labels("employment").index("employed")
    own = chance[kinds.code(employment=employed, savings=poor, health=torch.zeros_like(HOME)).long()]
    for home in range(200):
        adults = own[(home == HOME) & (AGE >= 18)]
        assert float(share[home]) == pytest.approx(float(adults.mean()) if len(adults) else 0.0, abs=1e-6)
    assert torch.equal(before, chance)
    assert kept["spend"].weight.sum() == (AGE >= 18).sum()
    assert set(kept["spend"].observed["payment"].tolist()) == {1200.0}


def test_worlds_settle_as_they_would_alone():
    rich = torch.full_like(state()["savings"], 9000.0)
    poor = torch.full_like(rich, 100.0)
    dollars = torch.tensor([600.0])
    with Utility(CITY.behaviour):
        both, _ = settled(CITY.setting, state(savings=torch.stack([rich, poor])), dollars)
        alone = [settled(CITY.setting, state(savings=x), dollars)[0] for x in (rich, poor)]
    assert torch.equal(both, torch.stack(alone))
    assert bool((both[1] >= both[0]).all())


def test_what_is_settled_is_what_is_spent():
    others = {name: table(0.5) for name in USUAL.prompts}
    # Without an effect of savings, a share that all agree on is the parameter of the usual part.
    never = {"liquidity": 1e30, "payment_spent": 0.25}
    with Tabulated(others):
        usual = lpm.run(USUAL, days=30, set=never)["prior_predictive"]
    with Tabulated({**others, "spend": table(0.25)}):
        settled_ = lpm.run(CITY, days=30, set={**never, "payment_spent": 0.9})["prior_predictive"]
    assert all(np.array_equal(usual[name], settled_[name]) for name in usual)
    with Tabulated({**others, "spend": table(0.5)}):
        more = lpm.run(CITY, days=30, set=never)["prior_predictive"]
    first = [float(x["spending"].isel(day=PAID).sum()) for x in (usual, more)]
    assert first[1] == pytest.approx(2 * first[0], rel=1e-3)


def test_the_default_spends_about_what_savings_alone_would_have():
    runs = [lpm.run(model, days=50)["prior_predictive"] for model in (USUAL, CITY)]
    none = lpm.run(lpm.nyc.pandemic(PEOPLE, start="2020-04-16"), days=47)["prior_predictive"]["spending"].sum()
    usual, negotiated = (float(x["spending"].sum()) for x in runs)
    assert abs(negotiated - usual) < 0.02 * (usual - float(none))


def test_adults_are_asked_when_there_is_a_payment_and_know_how_much():
    source = Exactly()
    with LanguageModel(source, CITY.prompts) as handler:
        lpm.run(CITY, days=12, interventions=[("stimulus", 500.0, 8)])
    asked = [text for text in source.asked if "payment of" in text]
    assert len(handler.asked.archetypes["spend"]) == 2
    assert {text.partition("payment of ")[2].partition(".")[0] for text in asked} == {"$1200", "$500"}
    assert not [text for text in asked if "Your age: 0–17" in text]
    again = [text for text in asked if "last had this to decide" in text]
    assert again
    assert all("$500" in text for text in again)


def test_a_city_that_does_not_negotiate_has_no_such_decision():
    assert "spend" in CITY.prompts
    assert "spend" in CITY.behaviour
    assert "spend" not in USUAL.prompts
    assert "spend" not in USUAL.behaviour
    without = lpm.nyc.pandemic(PEOPLE, without=["masking"])
    assert set(without.prompts) == set(without.behaviour) == {"isolate", "test", "vaccinate"}
    assert stimulus.PART.decisions == ()
