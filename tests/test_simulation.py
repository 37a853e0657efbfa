"""Create, execute, visualize: a model with its people, what of it is swapped, and where its people are."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

import lpmppl as lpm
from lpmppl import archetype
from lpmppl.data.areas import PUMAS
from lpmppl.effects.handlers.behaviour import Tabulated, Utility
from lpmppl.errors import InputError
from lpmppl.inference.run import run
from lpmppl.models import immunity, within_host
from lpmppl.models.archetypes import Archetypes, Lookup
from lpmppl.models.immunity import loads
from lpmppl.models.pandemic import Pandemic
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from lpmppl.simulation import create

SEEDED = {"initial_infected": 0.1}
THETA = {name: torch.tensor(p.default) for name, p in within_host.PARAMETERS.items()}


@pytest.fixture(scope="module")
def people():
    return lpm.nyc.population(1_000)


@pytest.fixture(scope="module")
def plain(people):
    """The pandemic with nothing swapped."""
    return create(lpm.nyc.pandemic, people).execute(12, set=SEEDED)


def sir(people, by=None):
    """An SIR of households and everybody."""
    return SIR(people, (people.network("household"), people.everyone()), by=by)


def town(n: int = 600, **more) -> Population:
    """People in households of three, which have places in a plane."""
    rng = np.random.default_rng(4)
    variables = {
        "household": ("agent", np.arange(n, dtype="int32") // 3),
        "positions": (("household", "axis"), rng.normal(size=(n // 3, 2))),
        "ward": ("household", np.arange(n // 3) % 5, {"labels": ["a", "b", "c", "d", "e"]}),
    }
    return Population(xr.Dataset({**variables, **more}))


def about(page) -> dict:
    return json.loads(re.search(r'id="about">(.*?)</script>', page.html, re.S)[1])


def same(a: xr.DataTree, b: xr.DataTree) -> bool:
    return a["prior_predictive"].to_dataset().equals(b["prior_predictive"].to_dataset())


# Create and execute


def test_a_model_of_ones_own_runs_as_it_does(people):
    model = lpm.nyc.seirm(people)
    simulation = create(model=lambda population: model, population=people)
    tree = simulation.execute(days=5, seed=1)
    assert tree["prior_predictive"].dataset.identical(run(model, 5, 1)["prior_predictive"].dataset)
    assert simulation.result is tree


def test_new_york_is_tallied_by_district_unless_it_is_said_otherwise(people):
    simulation = create(lpm.nyc.seirm, people)
    tree = simulation.execute(6, set=SEEDED)
    model = lpm.nyc.seirm(people, by={"puma": "puma", "age": "age_band"})
    assert same(tree, run(model, 6, set=SEEDED))
    by = create(lpm.nyc.seirm, people, by={"size": "household_size"}).model.by
    assert list(by.dims) == ["size"]


def test_options_are_the_models(people):
    simulation = create(lpm.nyc.pandemic, people, start="2020-12-14", without=("vaccination",))
    assert simulation.model.start == "2020-12-14"
    assert "vaccination" not in [part.name for part in simulation.model.parts]


def test_a_class_of_models_will_do(people):
    simulation = create(Pandemic, people, by={"borough": "borough"})
    assert isinstance(simulation.model, Pandemic)
    assert list(simulation.model.by.dims) == ["borough"]


@pytest.mark.parametrize(
    ("model", "said"),
    [("seirm", "model is str"), (lambda population: population, "made Population, which is no model")],
)
def test_what_is_no_model_is_refused(people, model, said):
    with pytest.raises(InputError, match=said):
        create(model, people)


# What is swapped: the ODE within the body


def test_the_models_own_ode_swapped_in_changes_nothing(people):
    course = archetype.ode(within_host.ode(THETA, *within_host.archetypes()), torch.arange(31.0))
    treated = [("treatment", 1.0, 7)]
    swapped = create(lpm.nyc.pandemic, people, archetype={"immune_dynamics": course})
    plain = create(lpm.nyc.pandemic, people)
    assert same(
        swapped.execute(14, set=SEEDED, interventions=treated), plain.execute(14, set=SEEDED, interventions=treated)
    )
    # What the ODE no longer reads is no parameter, but an antiviral still is.
    assert set(plain.model.parameters) - set(swapped.model.parameters) == set(within_host.PARAMETERS) - {"antiviral"}


def test_its_loads_are_those_of_the_own_ode_in_every_world():
    course = archetype.ode(within_host.ode(THETA, *within_host.archetypes()), torch.arange(31.0))
    worlds = torch.tensor([[0.0], [0.4], [1.0]])
    torch.testing.assert_close(course(THETA, worlds), loads(THETA, worlds), atol=2e-5, rtol=0)


def decay(s):
    """Exponential growth for a while, whose rate falls: a log load that is a parabola."""
    return {"virus": s["rate"] * s["virus"], "rate": -s["brake"]}


@pytest.mark.parametrize(("rate", "brake", "many"), [(4.0, 0.5, 7), (2.5, 1.0, 100)])
def test_another_ode_is_solved_and_read_on_every_day(rate, brake, many):
    times = torch.linspace(0.0, 30.0, many)
    start = {"virus": 10.0, "rate": rate, "brake": torch.full((within_host.ARCHETYPES,), brake)}
    found = archetype.ode(decay, times, start)({}, torch.zeros(1)).reshape(within_host.ARCHETYPES, 31)
    at = times.double()
    exact = 1.0 + (rate * at - brake * at**2 / 2) / np.log(10)
    days = np.interp(np.arange(31), at.numpy(), exact.clamp(min=-6).numpy())
    # Single precision holds 1e-6 of a load, in log10, to about 1e-4; a load near the floor is cut there.
    np.testing.assert_allclose(found[0].numpy(), days, atol=2e-2)
    assert torch.equal(found[0], found[-1])


def test_who_has_no_virus_infects_nobody(people, plain):
    none = archetype.ode(lambda s: {"virus": -9.0 * s["virus"]}, torch.arange(31.0), {"virus": 1.0})
    simulation = create(lpm.nyc.pandemic, people, archetype={"immune_dynamics": none})
    tree = simulation.execute(12, set=SEEDED)
    infections = [t["prior_predictive"]["infections"].sum().item() for t in (tree, plain)]
    assert infections[0] < infections[1]
    assert tree["prior_predictive"]["infections"].isel(day=slice(1, None)).sum() == 0
    with pytest.raises(InputError, match="treatment"):
        simulation.execute(12, interventions=[("treatment", 1.0, 3)])


def test_an_ode_without_a_finite_load_is_refused_by_name(people):
    wild = archetype.ode(lambda s: {"virus": s["virus"] ** 9}, torch.arange(31.0), {"virus": 10.0})
    with pytest.raises(InputError, match="no finite viral load with the ODE that was given"):
        create(lpm.nyc.pandemic, people, archetype={"immune_dynamics": wild}).execute(2)


def test_a_part_of_another_name_stands_in_for_none(people):
    with pytest.raises(InputError, match="unknown substep 'nowhere'"):
        lpm.nyc.pandemic(people, swapped=[replace(immunity.PART, name="nowhere")])


def test_a_run_of_one_ode_isnt_resumed_with_another(people, tmp_path):
    start = {"virus": 1.0, "rate": 3.0, "brake": 0.4}
    courses = [archetype.ode(decay, torch.arange(31.0), {**start, "rate": rate}) for rate in (3.0, 3.0, 4.0)]
    one, same_one, another = (create(lpm.nyc.pandemic, people, archetype={"immune_dynamics": c}) for c in courses)
    one.execute(3, checkpoint=tmp_path / "c.npz", checkpoint_every=1)
    same_one.execute(3, resume=tmp_path / "c.npz")
    with pytest.raises(InputError):
        another.execute(3, resume=tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dynamics": 3}, "the ODE is int"),
        ({"eval_times": torch.tensor([0.0, 0.0, 30.0])}, "increasing"),
        ({"eval_times": torch.arange(1.0, 31.0)}, "from 1 to 30"),
        ({"eval_times": torch.arange(20.0)}, "from 0 to 19"),
        ({"virus": "load"}, "no 'load'"),
        ({"start": {"virus": 1.0}}, "which its start lacks"),
        ({"start": {"virus": torch.ones(3), "rate": 1.0, "brake": 0.1}}, r"shape \(3,\)"),
        ({"dynamics": lambda s: {"virus": s["virus"], "cells": 0.0}}, "derivative of 'cells'"),
        ({"dynamics": lambda s: s["virus"]}, "derivatives by name"),
    ],
)
def test_an_ode_that_cant_be_is_refused(arguments, said):
    start = {"virus": 1.0, "rate": 1.0, "brake": 0.1}
    with pytest.raises(InputError, match=said):
        archetype.ode(**{"dynamics": decay, "eval_times": torch.arange(31.0), "start": start, **arguments})


# What is swapped: decisions


ISOLATE = {"isolate": {"intercept": 1.5}}


def test_a_decision_is_taken_by_what_is_given(people, plain):
    """In all forms a behaviour can be said in, and the other decisions as before."""
    model = create(lpm.nyc.pandemic, people).model
    behaviour = {**model.behaviour, "isolate": ISOLATE}
    with Utility(behaviour):
        expected = run(model, 12, set=SEEDED)
    for said in (ISOLATE, Utility({"isolate": ISOLATE})):
        found = create(lpm.nyc.pandemic, people, archetype={"isolate": said}).execute(12, set=SEEDED)
        assert same(found, expected)
    assert not same(plain, expected)
    whole = create(lpm.nyc.pandemic, people, archetype={"decisions": Utility(behaviour)})
    assert same(whole.execute(12, set=SEEDED), expected)


def test_a_decision_may_have_a_table(people):
    certain = torch.tensor([1.0, 0.0])
    tree = create(lpm.nyc.pandemic, people, archetype={"isolate": certain}).execute(12, set=SEEDED)
    never = create(lpm.nyc.pandemic, people, archetype={"isolate": Tabulated({"isolate": 1 - certain})})
    isolating = tree["prior_predictive"]["isolating"].sum()
    assert int(isolating) > 0 and int(never.execute(12, set=SEEDED)["prior_predictive"]["isolating"].sum()) == 0


@pytest.mark.slow
def test_a_decision_goes_before_all_decisions(people):
    model = create(lpm.nyc.pandemic, people).model
    swaps = {"decisions": Utility(model.behaviour), "isolate": ISOLATE}
    a = create(lpm.nyc.pandemic, people, archetype=swaps).execute(12, set=SEEDED)
    b = create(lpm.nyc.pandemic, people, archetype={"isolate": ISOLATE}).execute(12, set=SEEDED)
    assert same(a, b)


def test_people_decide_by_the_archetypes_that_are_given(people):
    kinds = Archetypes(people, {"sex": Lookup("sex")})
    women_stay = {"isolate": {"isolate": {"sex=female": 40.0, "intercept": -20.0}}}
    simulation = create(lpm.nyc.pandemic, people, by={"sex": "sex"}, archetype={"decisions": kinds})
    assert simulation.model.setting.archetypes is kinds
    plain = {name: {option: {"intercept": 0.0} for option in o} for name, o in simulation.model.behaviour.items()}
    with Utility({**plain, **women_stay}):
        tree = run(simulation.model, 12, set=SEEDED)
    isolating = tree["prior_predictive"]["isolating"].sum(["chain", "draw", "day"])
    assert int(isolating.sel(sex="female")) > 0 == int(isolating.sel(sex="male"))


@pytest.mark.parametrize(
    ("model", "swaps", "said"),
    [
        ("pandemic", {"isolat": ISOLATE}, "did you mean 'isolate'"),
        ("pandemic", {"immune_dynamics": lambda s: s}, r"make it with archetype\.ode"),
        ("pandemic", {"isolate": 3}, "int, which decides nothing"),
        ("pandemic", {"decisions": {}}, "dict, which decides nothing"),
        ("pandemic", "isolate", "archetype is str"),
        ("pandemic", {"isolate": "ode"}, "'immune_dynamics' alone can be"),
        ("pandemic", {"isolate": "archetypes"}, "give them as 'decisions'"),
        ("seirm", {"immune_dynamics": "ode"}, "can't be swapped in seirm"),
        ("seirm", {"isolate": ISOLATE}, "unknown archetype 'isolate'"),
    ],
)
def test_what_cant_be_swapped_is_refused_by_name(people, model, swaps, said):
    made = {"ode": archetype.ode(decay, torch.arange(31.0), {"virus": 1.0, "rate": 1.0, "brake": 0.1})}
    made["archetypes"] = Archetypes(people, {"sex": Lookup("sex")})
    if isinstance(swaps, dict):
        swaps = {k: made.get(v, v) if isinstance(v, str) else v for k, v in swaps.items()}
    with pytest.raises(InputError, match=said):
        create(getattr(lpm.nyc, model), people, archetype=swaps)


# Visualize


def test_before_execute_there_is_nothing_to_see(people):
    with pytest.raises(InputError, match=r"call execute\(days=…\) before visualize"):
        create(lpm.nyc.seirm, people).visualize()


def test_the_positions_of_new_yorkers_are_their_districts(people, tmp_path):
    simulation = create(lpm.nyc.seirm, people)
    simulation.execute(4, set=SEEDED)
    page = simulation.visualize(geo_index="household/positions", path=tmp_path / "city.html")
    assert (tmp_path / "city.html").read_text("utf-8") == page.html
    assert [a["label"] for a in about(page)["areas"]] == sorted(PUMAS)
    assert page.html == simulation.visualize("puma").html == simulation.visualize("agent/puma").html
    assert "<iframe" in page._repr_html_()


def test_a_result_by_borough_is_a_map_of_boroughs(people):
    simulation = create(lpm.nyc.seirm, people, by={"where": "borough"})
    simulation.execute(3, set=SEEDED)
    assert len(about(simulation.visualize("borough"))["areas"]) == 5
    with pytest.raises(InputError, match=r"aren't by 'puma'; create\(model, population, by=\{\"puma\": \"puma\"\}\)"):
        simulation.visualize()


def test_positions_are_gathered_in_hexagons_and_people_counted():
    folk = town()
    simulation = create(sir, folk)
    tree = simulation.execute(30, set=SEEDED)
    said = about(simulation.visualize("household/positions"))
    people = tree["constant_data"]["people"].to_numpy()
    assert people.sum() == 600 and said["people"] == people.tolist() and len(said["areas"]) > 30
    # Who shares a hexagon lies near to it: its people's mean place is in the same order as its cell.
    cells = np.array(said["cells"])[:, :2]
    code = simulation.model.population["area_of_positions"].numpy()
    where = folk.dataset["positions"].to_numpy()
    middle = np.stack([where[code == k].mean(0) for k in range(len(cells))])
    assert np.corrcoef(cells[:, 0], middle[:, 0])[0, 1] > 0.98
    assert np.corrcoef(cells[:, 1], middle[:, 1])[0, 1] < -0.98
    # The epidemic is the one without a map.
    plain = run(sir(folk), 30, set=SEEDED)["prior_predictive"]["infections"]
    assert tree["prior_predictive"]["infections"].sum("area").equals(plain.astype("int64"))


def test_agents_may_have_positions_themselves():
    n = 300
    places = (("agent", "axis"), np.random.default_rng(1).uniform(size=(n, 2)))
    folk = Population(xr.Dataset({"household": ("agent", np.arange(n, dtype="int32") // 2), "homes": places}))
    simulation = create(sir, folk, by={"where": "agent/homes"})
    simulation.execute(5, set=SEEDED)
    assert sum(about(simulation.visualize("agent/homes"))["people"]) == n


def test_areas_lie_where_their_people_are():
    folk = town()
    west_to_east = np.array([[-9.0, 0.0], [-4.0, 2.0], [0.0, -2.0], [4.0, 2.0], [9.0, 0.0]])
    near = west_to_east[np.arange(200) % 5] + folk.dataset["positions"].to_numpy() / 10
    folk = town(positions=(("household", "axis"), near))
    simulation = create(sir, folk, by={"ward": "ward"})
    simulation.execute(5, set=SEEDED)
    cells = about(simulation.visualize("household/ward"))["cells"]
    assert [c[0] for c in cells] == sorted(c[0] for c in cells)


def test_areas_of_which_nobody_knows_the_place_are_a_spiral():
    folk = Population(town().dataset.drop_vars("positions"))
    simulation = create(sir, folk, by={"ward": "ward"})
    simulation.execute(5, set=SEEDED)
    page = simulation.visualize("ward")
    assert [a["name"] for a in about(page)["areas"]] == ["a", "b", "c", "d", "e"]
    assert "Nobody said where" in page.html
    with pytest.raises(InputError, match=r"unknown variable.*give the population a variable 'positions'"):
        simulation.visualize()


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("wart", "did you mean 'ward'"),
        ("agent/ward", "say 'household/ward'"),
        ("household", r"by=\{\"household\": \"household\"\}"),
    ],
)
def test_a_geography_that_cant_be_is_refused(index, said):
    simulation = create(sir, town(), by={"ward": "ward"})
    simulation.execute(3, set=SEEDED)
    with pytest.raises(InputError, match=said):
        simulation.visualize(index)


@pytest.mark.parametrize(
    ("positions", "said"),
    [
        ((("household", "axis"), np.zeros((200, 3))), r"shape \(200, 3\)"),
        ((("household", "axis"), np.full((200, 2), np.nan)), "no place for 200 of 200"),
    ],
)
def test_positions_that_cant_be_are_refused(positions, said):
    with pytest.raises(InputError, match=said):
        create(sir, town(positions=positions))


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    simulation = create(sir, town())
    simulation.execute(3, set=SEEDED)
    simulation.visualize()
    assert torch.equal(before, torch.get_rng_state())


# First mistakes


WAVE = lambda s: {"virus": s["virus"]}  # noqa: E731
COURSE = {"dynamics": WAVE, "eval_times": torch.arange(31.0), "start": {"virus": 1.0}}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": int}, "model is the class int; give what makes one of a population"),
        ({"model": dict}, "model is the class dict"),
        ({"model": len}, "model is builtin_function_or_method"),
        ({"model": lambda: 3}, r"can't be made of a population and no options \(too many positional arguments\)"),
        ({"model": SIR}, r"SIR can't be made of .*\(missing a required argument: 'networks'\); give a function"),
        ({"population": None}, "a population is needed, but NoneType was given"),
        ({"population": "nyc"}, "a population is needed, but str was given"),
        ({"nonsense": 3}, "unknown option of pandemic 'nonsense'"),
        ({"without": 3}, "without=3 was given; give a list"),
        ({"swapped": 3}, "swapped=3 was given; give a list of parts"),
        ({"swapped": [3]}, r"swapped=\[3\] was given; give a list of parts"),
        ({"app": "yes"}, "app='yes' was given; say True or False"),
        ({"negotiated": 1}, "negotiated=1 was given; say True or False"),
        ({"by": []}, r"by=\[\] was given; give variables by the name of their dimension"),
        ({"by": {3: "puma"}}, "names of dimensions and of variables are words"),
        ({"by": {"a": ["puma"]}}, "names of dimensions and of variables are words"),
        ({"by": {"": "puma"}}, "names of dimensions and of variables are words"),
        ({"archetype": {"isolate": {"isolate": 3.0}}}, "option 'isolate': float was given for coefficients"),
        ({"archetype": {"isolate": {"x": 1}}}, "option 'x': int was given for coefficients"),
        ({"archetype": {"isolate": {"isolate": {"intercept": "y"}}}}, "coefficient of 'intercept' is y; give a finite"),
    ],
)
def test_what_create_cant_use_is_said_in_words(people, arguments, said):
    with pytest.raises(InputError, match=said) as e:
        create(**{"model": lpm.nyc.pandemic, "population": people, **arguments})
    assert "\n" not in str(e.value)


def test_no_strata_are_none_and_not_the_models_own(people):
    simulation = create(lpm.nyc.seirm, people, by={})
    tallies = simulation.execute(2)["prior_predictive"]
    assert tallies["infections"].dims == ("chain", "draw", "day")
    assert create(lpm.nyc.seirm, people, by=None).model.by.dims.keys() == {"puma", "age"}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: s.execute(2, draw=3), "did you mean 'draws'"),
        (lambda s: s.visualize("puma", path=3), "path=3 was given"),
        (lambda s: s.visualize("puma", path=""), "path='' was given; give a file that ends in .html"),
        (lambda s: s.visualize(None), "geo_index='None'"),
    ],
)
def test_what_a_simulation_cant_use_is_said_in_words(people, call, said):
    simulation = create(lpm.nyc.seirm, people)
    simulation.execute(1)
    with pytest.raises(InputError, match=said):
        call(simulation)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"dynamics": lambda: {}}, "can't be evaluated .TypeError.*give a function of the state"),
        ({"dynamics": lambda s: 1 / 0}, "can't be evaluated .ZeroDivisionError"),
        ({"dynamics": lambda s: s["virus"].foo}, "can't be evaluated .AttributeError"),
        ({"dynamics": lambda s: {"virus": None}}, "derivative of 'virus' is None; give numbers"),
        ({"dynamics": lambda s: {"virus": "x"}}, "derivative of 'virus' is 'x'; give numbers"),
        ({"dynamics": lambda s: {"virus": torch.zeros(7)}}, r"derivative of 'virus' has shape \(7,\); give a number"),
        ({"eval_times": None}, "eval_times is None; give numbers"),
        ({"eval_times": "x"}, "eval_times is 'x'; give numbers"),
        ({"eval_times": [0.0, "x"]}, "eval_times is .*; give numbers"),
        ({"eval_times": [0.0, float("inf")]}, "eval_times is .*; give finite, real numbers"),
        ({"eval_times": torch.arange(31.0) + 0j}, "give finite, real numbers"),
        ({"start": 3}, "start is 3; give numbers or tensors by name"),
        ({"start": {}}, "start has nothing, but no 'virus'"),
        ({"start": {3: 1.0, "virus": 1.0}}, "give numbers or tensors by name"),
        ({"start": {"virus": None}}, "start 'virus' is None; give numbers"),
        ({"start": {"virus": float("nan")}}, "start 'virus' is nan; give finite, real numbers"),
        ({"virus": []}, r"virus=\[\] was given; give the name"),
        ({"solver": "rk4"}, "solver='rk4' was given; give a TorchDiffEq"),
    ],
)
def test_what_an_ode_cant_use_is_said_in_words(arguments, said):
    with pytest.raises(InputError, match=said) as e:
        archetype.ode(**{**COURSE, **arguments})
    assert "\n" not in str(e.value)
