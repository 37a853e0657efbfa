"""Households that decide as one: marginals as they were, and the dependence that was asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.handlers import ExogenousNoise, Tabulated
from lpmppl.errors import InputError
from lpmppl.inference.calibrate import fitted_names
from lpmppl.inference.scales import Scale
from lpmppl.models.inclination import chosen_once, inclination
from lpmppl.models.population import Population

HOMES = 60_000
SIZE = torch.arange(HOMES) % 4 + 1
HOME = torch.repeat_interleave(torch.arange(HOMES), SIZE)
PEOPLE = Population.of({"household": HOME.numpy()})
FIRST = torch.cumsum(SIZE, 0) - SIZE
SEVERAL = FIRST[SIZE > 1]
"""The first members of the households that have two or more; the second is next to it."""


def drawn(as_one: float, seed: int = 0) -> torch.Tensor:
    with ExogenousNoise(seed):
        return inclination(PEOPLE, "inclined", torch.tensor(as_one))


def correlation(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(np.corrcoef(x.double(), y.double())[0, 1])


@pytest.mark.parametrize("as_one", [0.0, 0.3, 0.8, 1.0])
def test_everybody_does_it_with_its_own_probability(as_one: float):
    u = drawn(as_one)
    assert bool(((u > 0) & (u < 1)).all())
    # Five standard errors, of households as one too: fails one time in a million.
    off = 5 * math.sqrt(0.25 / HOMES)
    for p in (0.1, 0.5, 0.9):
        assert abs(float((u < p).double().mean()) - p) < off
        assert abs(float((u[SEVERAL] < p).double().mean()) - p) < off


@pytest.mark.parametrize("as_one", [0.0, 0.3, 0.8, 1.0])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.84])
def test_members_choices_correlate_as_was_asked(as_one: float, p: float):
    does = drawn(as_one) < p
    # 45,000 pairs: five standard errors of a correlation are 0.024 or less, here a little more for rare choices.
    assert correlation(does[SEVERAL], does[SEVERAL + 1]) == pytest.approx(as_one, abs=0.035)
    strangers = does[SEVERAL], does[SEVERAL.roll(1)]
    assert correlation(*strangers) == pytest.approx(0.0, abs=0.035)


def test_members_of_different_archetypes_both_do_it_as_often_as_is_said():
    u, rho, p, q = drawn(0.6), 0.6, 0.3, 0.7
    both = ((u[SEVERAL] < p) & (u[SEVERAL + 1] < q)).double().mean()
    assert float(both) == pytest.approx(rho * min(p, q) + (1 - rho) * p * q, abs=5 * math.sqrt(0.25 / len(SEVERAL)))


def test_households_as_one_have_one_place_and_others_keep_their_own():
    alone, some, one = drawn(0.0), drawn(0.5), drawn(1.0)
    assert torch.equal(one, one[FIRST][HOME])
    same = some == one
    # Whole households, and the others as if nobody was as one.
    assert torch.equal(same[FIRST][HOME], same)
    assert torch.equal(some[~same], alone[~same])
    assert float(same[FIRST].double().mean()) == pytest.approx(0.5, abs=5 * math.sqrt(0.25 / HOMES))
    assert not torch.equal(some, drawn(0.5, seed=1))


def test_each_draw_of_the_share_is_its_own_run():
    shares = torch.tensor([[0.0], [0.4], [1.0]])
    with ExogenousNoise(0):
        together = inclination(PEOPLE, "inclined", shares)
    assert together.shape == (3, PEOPLE.size)
    for k, share in enumerate(shares[:, 0].tolist()):
        assert torch.equal(together[k], drawn(share))


def test_who_is_as_one_follows_the_household_and_not_the_order_of_agents():
    order = torch.randperm(PEOPLE.size, generator=torch.Generator().manual_seed(0))
    mixed = Population(PEOPLE.dataset.isel(agent=order.numpy()).assign_coords(agent=("agent", order.numpy())))
    with ExogenousNoise(0):
        assert torch.equal(inclination(mixed, "inclined", torch.tensor(0.5)), drawn(0.5)[order])


@pytest.mark.parametrize("as_one", [0.0, 0.5, 1.0])
def test_what_is_decided_once_is_decided_so_too(as_one: float):
    chance = torch.where(HOME % 2 == 0, 0.2, 0.7)
    with ExogenousNoise(0):
        does = chosen_once(PEOPLE, "willing", chance, torch.tensor(as_one))
    for p in (0.2, 0.7):
        mine = SEVERAL[chance[SEVERAL] == p]
        assert float(does[mine].double().mean()) == pytest.approx(p, abs=5 * math.sqrt(0.25 / len(mine)))
        assert correlation(does[mine], does[mine + 1]) == pytest.approx(as_one, abs=0.05)


def test_a_city_whose_households_decide_as_one():
    people = lpm.nyc.population(20_000)
    city = lpm.nyc.pandemic(people)
    home = people["household"].long()
    first = torch.full((int(home.max()) + 1,), -1).scatter_(0, home.flip(0), torch.arange(people.size).flip(0))
    others = torch.nonzero(first[home] != torch.arange(people.size))[:, 0]
    half = torch.tensor([0.5, 0.5])
    shares, alike = [], []
    for as_one in (0.0, 0.6):
        theta = {**city.defaults(), "households_as_one": torch.tensor(as_one)}
        with ExogenousNoise(0), Tabulated(dict.fromkeys(city.prompts, half)):
            state = city.initial(theta)
        wears = state["inclination/mask"] < 0.5
        for does in (wears, state["inclination/isolate"] < 0.5, state["willing"]):
            shares.append(float(does.double().mean()))
            alike.append(correlation(does[others], does[first[home[others]]]))
    # Marginals within 1 % and correlations within 0.05 of what was asked.
    assert shares == pytest.approx([0.5] * 6, rel=0.03)
    assert alike == pytest.approx([0.0] * 3 + [0.6] * 3, abs=0.05)


def test_the_share_is_a_parameter_of_the_run():
    city = lpm.nyc.pandemic(lpm.nyc.population(2_000))
    plain, none, all_ = (
        lpm.run(city, days=25, seed=0, **more)
        for more in ({}, {"set": {"households_as_one": 0.0}}, {"set": {"households_as_one": 1.0}})
    )
    tallies = [t["prior_predictive"]["masked"].values for t in (plain, none, all_)]
    assert np.array_equal(tallies[0], tallies[1])
    assert not np.array_equal(tallies[0], tallies[2])


@pytest.mark.slow
def test_a_share_of_none_is_left_out_of_a_sensitivity():
    city = lpm.nyc.pandemic(lpm.nyc.population(1_000))
    found = lpm.sensitivity(city, "infections", days=3, draws=2, set={"initial_infected": 0.1}, audit=False)
    assert "households_as_one" not in found["parameter"].values
    assert "isolation_days" in found["parameter"].values


def test_a_share_of_none_is_left_out_of_all_parameters():
    city = lpm.nyc.pandemic(lpm.nyc.population(1_000))
    assert "isolation_days" in fitted_names(city, "all", {})
    assert "households_as_one" not in fitted_names(city, "all", {})
    with pytest.raises(InputError, match="households_as_one=0 lies at the edge of its prior"):
        Scale(city, ["households_as_one"])
    inside = Scale(city, ["households_as_one"], {"households_as_one": 0.3})
    assert inside.at("households_as_one") == pytest.approx(0.3)
