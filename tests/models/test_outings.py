"""Outings: who goes out is everybody's own decision, which makes the city's activity and who meets whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from chirho.dynamical.handlers.interruption import StaticIntervention
from scipy.stats import chi2

import lpmppl as lpm
from lpmppl.data.recorded import shipped
from lpmppl.effects.handlers import Decided, DiscreteTime, Tabulated, Utility
from lpmppl.models.behaviour import UTILITY, archetypes
from lpmppl.models.new_yorkers import present
from lpmppl.models.population import Population
from lpmppl.models.progression import Stage
from tests.laws.conftest import noise, play, renamed, worlds

AGENTS, DAYS = 2_000, 30
EVEN = {name: torch.tensor([0.5, 0.5]) for name in UTILITY}


def people(order: np.ndarray | None = None) -> Population:
    return renamed(lpm.nyc.population(AGENTS), order)


@pytest.fixture(scope="module")
def model():
    return lpm.nyc.pandemic(people(), going_out=True)


def go(model, *handlers, days=DAYS, behaviour=None, **parameters):
    values = {"initial_infected": 0.05, **parameters}
    theta = {**model.defaults(), **{k: torch.tensor(v) for k, v in values.items()}}
    return play(model, behaviour or Utility(model.behaviour), *handlers, days=days, theta=theta)


def going(outcome) -> np.ndarray:
    """How many go out, by week."""
    return outcome.series["going_out"].sum(-1)


def act(day, **values):
    return StaticIntervention(torch.tensor(float(day)), {k: torch.tensor([float(v)]) for k, v in values.items()})


def test_the_activity_of_shops_is_the_share_who_go_out(model):
    found = go(model, noise())
    many = going(found)
    assert int(many[-1]) == int(found.state["out"].sum()) == int(found.state["out/city"])
    assert float(found.state["mobility/retail"]) == pytest.approx(int(many[-1]) / AGENTS)
    assert 0 < many[-1] < many[0] < AGENTS


def test_choices_change_once_a_week_and_follow_each_persons_inclination(model):
    with Decided() as kept:
        found = go(model, noise(), days=16)
    assert len(going(found)) == 3
    out, inclined = found.state["out"], found.state["inclination/outing"]
    last = kept["outing"].rows(kept["outing"].observed["weeks"] == 2)
    kinds = archetypes(model.population)
    well = last.codes[:, list(kinds.labels).index("health")] == 0
    (chance,) = last.chance[well, 0].unique().tolist()
    ill = found.state["symptomatic"] | torch.isfinite(found.state["positive_at"])
    # Who has been well for two days was well when it was decided.
    before = go(model, noise(), days=14).state
    always = ~(ill | before["symptomatic"] | torch.isfinite(before["positive_at"]) | (before["stage"] == Stage.DEAD))
    assert torch.equal(out[always], inclined[always].double() < chance)


@pytest.mark.parametrize("share", [0.25, 0.9])
def test_the_share_is_the_behaviours_within_five_standard_errors(model, share):
    table = {**EVEN, "outing": torch.tensor([share, 1 - share])}
    found = go(model, noise(), behaviour=Tabulated(table), days=8)
    deviation = (share * (1 - share) / AGENTS) ** 0.5
    assert abs(float(found.state["mobility/retail"]) - share) < 5 * deviation  # fails by chance once in a million


def test_each_archetypes_share_is_its_probability_of_eq_6():
    """Three standard errors hold for 99.7 % of archetypes; fails by chance less than once in a million."""
    folk = lpm.nyc.population(50_000)
    city = lpm.nyc.pandemic(folk, going_out=True)
    kinds = archetypes(folk)
    chance = torch.rand(kinds.size, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    table = {**EVEN, "outing": torch.stack((chance, 1 - chance), -1)}
    theta = {**city.defaults(), "initial_infected": torch.tensor(1e-9)}
    with torch.no_grad(), noise(), Tabulated(table):
        first = {**city.initial(theta), "t": torch.tensor(0.0)}
    kind = present(folk, kinds, first)(slice(None)).long()
    out = go(city, noise(), behaviour=Tabulated(table), days=1, initial_infected=1e-9).state["out"]
    assert torch.equal(out, first["inclination/outing"] < chance[kind])
    many, went = torch.bincount(kind, minlength=kinds.size), torch.bincount(kind[out], minlength=kinds.size)
    enough = many >= 25
    z = ((went - many * chance) / (many * chance * (1 - chance)).sqrt())[enough]
    assert len(z) > 70
    assert float((z.abs() < 3).double().mean()) > 0.97
    assert chi2.sf(float(z.square().sum()), len(z)) > 1e-6


def test_whoever_goes_out_is_infected_more_often():
    folk = lpm.nyc.population(20_000)
    city = lpm.nyc.pandemic(folk, going_out=True)
    found = go(city, noise(), behaviour=Tabulated(EVEN), days=25, home=0.01, initial_infected=0.01)
    out, infected = found.state["out"], found.state["episode"] > 0
    a, b = (infected[who].double().mean() for who in (out, ~out))
    n = min(int(out.sum()), int((~out).sum()))
    error = float((2 * a * (1 - a) / n) ** 0.5)
    assert float(a - b) > 5 * error


def test_a_policy_keeps_people_in_and_each_world_is_its_single_run(model):
    lockdown = {"stringency": 100.0}
    base, single = go(model, noise()), go(model, noise(), act(7, **lockdown))
    assert going(single)[1] < 0.6 * going(base)[1]
    both = go(model, worlds(), noise(), act(7, **lockdown))
    assert both.world(**{"t=7": 0}).differences(base) == []
    assert both.world(**{"t=7": 1}).differences(single) == []
    null = go(model, worlds(), noise(), act(7, stringency=-1.0))
    assert null.world(**{"t=7": 1}).differences(base) == []


def test_the_dead_stay_in(model):
    options = {"initial_infected": 0.9, "severity": 1.0, "fatality": 1.0}
    found, before = (go(model, noise(), act(1, stringency=0.0), days=days, **options) for days in (57, 56))
    dead = before.state["stage"] == Stage.DEAD
    assert int(dead.sum()) > 10
    assert not bool((found.state["out"] & dead).any())


def test_renaming_agents_permutes_who_goes_out(model):
    order = np.random.default_rng(0).permutation(AGENTS)
    base, other = go(model, noise()), go(lpm.nyc.pandemic(people(order), going_out=True), noise())
    assert torch.equal(other.state["out"], base.state["out"][torch.from_numpy(order)])
    np.testing.assert_array_equal(other.series["going_out"], base.series["going_out"])


@pytest.mark.parametrize("day", [6, 7, 8])
def test_a_resumed_run_equals_the_uninterrupted_one(model, tmp_path, day):
    class KilledError(Exception):
        pass

    def stop(done, _):
        if done == day:
            raise KilledError

    file, whole = tmp_path / "c.npz", go(model, noise(), days=16)
    with pytest.raises(KilledError):
        go(model, DiscreteTime(progress=stop, checkpoint=file, every=1), noise(), days=16)
    assert go(model, DiscreteTime(checkpoint=file, resume=True), noise(), days=16).differences(whole) == []


def test_without_them_a_recorded_city_is_as_before():
    found = lpm.nyc.pandemic(people())
    assert "going_out" not in found.tallies
    assert "outing" not in found.behaviour


def test_the_utilities_know_the_record_they_were_fitted_to(model):
    """Held against the record's own inputs: mean error under 4 points, of activities that span 70 points."""
    record = shipped()
    weekly = slice(3, None, 7)
    coefficients = model.behaviour["outing"]["go out"]
    v = (
        coefficients["intercept"]
        + coefficients["stringency"] * record.stringency / 100
        + coefficients["risk"] * np.log1p(record.smoothed())
    )
    error = np.abs(1 / (1 + np.exp(-v)) - np.minimum(record.activity["retail"], 1))[weekly]
    assert error.mean() < 0.04
