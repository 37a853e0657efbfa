"""What `do` and `at` may say, and how what they mustn't say is refused."""

import numpy as np
import pytest
import torch
import xarray as xr
from chirho.counterfactual.handlers import MultiWorldCounterfactual
from chirho.dynamical.handlers.interruption import StaticIntervention

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.inference.policies import Act, Policy, Trigger, factorial, policies
from lpmppl.inference.worlds import UnderPolicies
from tests.laws.conftest import MODELS


@pytest.fixture(scope="module")
def model():
    return lpm.nyc.pandemic(lpm.nyc.population(1_000))


def names(do, at=None):
    return [policy.name for policy in policies(do, at)]


def test_a_sweep_is_every_combination():
    assert names({"stimulus": [250, 500.0]}, at=[10, 20]) == [f"stimulus={x}@{d}" for d in (10, 20) for x in (250, 500)]
    both = policies({"stimulus": 500.0, "test": "antigen"}, at=3)
    assert both == (Policy("stimulus=500@3, test=antigen@3", (Act("stimulus", 500.0, 3), Act("test", "antigen", 3))),)


def test_acts_may_have_days_of_their_own():
    acts = [("stimulus", 500.0, 3), Act("schools", Trigger(0.0, ("admissions/week", 2.0)), 5)]
    (policy,) = policies(acts)
    assert [act.day for act in policy.acts] == [3, 5]
    assert policies({"both": acts}) == policies([Policy("both", policy.acts)])
    closing = Act("schools", Trigger(0.0, ("admissions/week", 5.0), ("admissions/week", 2.0)), 0)
    assert str(closing) == "schools=0 while admissions/week>5<2 on trigger@0"
    assert str(Act("stimulus", 5.0, 1, {"borough": ["Bronx", "Queens"]})) == "stimulus=5@1 (Bronx/Queens)"


def test_a_factorial_design_has_every_subset():
    three = policies({n: [("stimulus", float(k), 1)] for k, n in enumerate("abc", 1)})
    assert [p.name for p in factorial(three)] == ["a", "b", "c", "a + b", "a + c", "b + c", "a + b + c"]


@pytest.mark.parametrize(
    ("do", "at", "said"),
    [
        ({}, 3, "can't be read"),
        ([], None, "can't be read"),
        ("stimulus", 3, "can't be read"),
        (None, 3, "can't be read"),
        ({"stimulus": 500.0}, None, "has no day"),
        ({"stimulus": []}, 3, "nothing to do"),
        ({"stimulus": 500.0}, [], "nothing to do"),
        ({"stimulus": [500.0, 500.0]}, 3, "two policies 'stimulus=500@3'"),
        ({"cheque": [("stimulus", 500.0, 3)], "schools": 0.0}, None, "'cheque' has acts with days of their own"),
        ([("stimulus", 500.0)], None, r"\('stimulus', 500.0\) can't be read"),
        ([("stimulus", 500.0, 3)], 3, "days of their own; leave it out"),
        ({"as it was": [("stimulus", 500.0, 3)]}, None, "can't be called 'as it was'"),
        ({"": [("stimulus", 500.0, 3)]}, None, "can't be called ''"),
        ({None: [("stimulus", 500.0, 3)]}, None, "can't be called None"),
    ],
)
def test_what_cannot_be_read_is_refused(do, at, said):
    with pytest.raises(InputError, match=said):
        policies(do, at)


@pytest.mark.parametrize(
    ("acts", "said"),
    [
        ([("stimulos", 500.0, 3)], "did you mean 'stimulus'"),
        ([("savings", 500.0, 3)], "unknown part of the environment 'savings'"),
        ([("stimulus", 500.0, 30)], "stimulus=500@30 lies outside the run: give a day below 30"),
        ([("stimulus", 500.0, -1)], "give a whole number, 0 or more"),
        ([("stimulus", 500.0, 2.5)], "give a whole number"),
        ([("stimulus", -5.0, 3)], "stimulus=-5 can't be"),
        ([("stimulus", float("nan"), 3)], "must be a finite number"),
        ([("test", "antigens", 3)], "did you mean 'antigen'"),
        ([("test", True, 3)], "test=True can't be"),
        ([("stimulus", None, 3)], "stimulus=None is no number"),
        ([("stimulus", {}, 3)], "is no number"),
        ([(5, 5.0, 3)], "unknown part of the environment '5'"),
        ([Act("stimulus", 0.5, 3, {"income": "x"})], "unknown variable with labels 'income'"),
        ([Act("schools", Trigger(0.0, ("admissions/week", float("nan"))), 3)], "has the condition"),
        ([Act("schools", Trigger(0.0, ("admissions/week", "1")), 3)], "has the condition"),
        ([Act("schools", Trigger(0.0, lambda s: s["nothing"]), 0)], "can't be evaluated: KeyError"),
        ([Act("schools", Trigger(0.0, lambda s: s["susceptible"]), 0)], r"gave torch.bool of shape \(1000,\)"),
        ([Act("schools", Trigger(0.0, lambda s: 1.0), 0)], "must give one Boolean"),
        ([("stimulus", 500.0, 3), ("stimulus", 600.0, 3)], "two acts set stimulus on day 3"),
        ([Act("schools", 0.0, 3, {"borough": "Bronx"})], "schools is one for the whole city"),
        (
            [Act("stimulus", 5.0, 3, {"age_band": "80+"})],
            "stimulus is set for each household, whose members differ in age_band",
        ),
        ([Act("transmission", 0.5, 3, {"borough": "Bornx"})], "did you mean 'Bronx'"),
        ([Act("transmission", 0.5, 3, {"burough": "Bronx"})], "did you mean 'borough'"),
        ([Act("schools", Trigger(7.0, ("admissions/week", 1.0)), 3)], "schools=7 can't be"),
        ([Act("schools", Trigger(0.0, ("admissions/week",)), 3)], "has the condition"),
        ([Act("schools", Trigger(0.0, "admissions/week"), 3)], "has the condition"),
    ],
)
def test_acts_that_cannot_be_are_refused_before_the_first_day(model, acts, said):
    with pytest.raises(InputError, match=said) as error:
        lpm.counterfactual(model, acts, days=30)
    assert "\n" not in str(error.value)


def test_a_trigger_on_what_is_no_number_of_the_city_is_refused(model):
    for key in ("savings", "nothing"):
        with pytest.raises(InputError, match=f"unknown number of the whole city in the state '{key}'"):
            lpm.counterfactual(model, [Act("schools", Trigger(0.0, (key, 1.0)), 3)], days=30)


def test_a_target_is_a_mask_over_whom_the_key_is_set_for(model):
    act = Act("transmission", 0.25, 0, {"borough": "Bronx", "income_band": ["none (group quarters)"]})
    theta = lpm.nyc.seirm(model.population).defaults()
    under = UnderPolicies(lpm.nyc.seirm(model.population), [Policy("p", (act,))], only=1)
    state = {**under.initial(theta), "t": torch.zeros(1), "dt": torch.ones(1)}
    done = under._done(state)
    people = model.population
    quarters = people["income_band"][people["household"].long()] == 0
    whom = (people["borough"] == people.labels("borough").index("Bronx")) & quarters
    assert 0 < int(whom.sum()) < people.size
    assert torch.equal(done["transmission"], torch.where(whom, 0.25, 1.0))


@pytest.mark.parametrize("to", ["Bronx", ["Bronx"], {"borough": []}, {"borough": 5}, {"borough": None}, None])
def test_whom_an_act_concerns_is_said_by_labels(to):
    with pytest.raises(InputError, match="can't be read; give labels by variable"):
        Act("transmission", 0.5, 3, to)


def test_a_factorial_design_with_names_like_its_own_is_refused():
    plans = policies({n: [("stimulus", 1.0, 1)] for n in ("a", "b", "a + b")})
    with pytest.raises(InputError, match=r"can't be called 'a \+ b'"):
        factorial(plans)


def test_numbers_that_differ_have_names_that_do_and_arrays_are_swept():
    assert names({"transmission": [0.5, 0.5000001]}, at=1) == ["transmission=0.5@1", "transmission=0.5000001@1"]
    swept = names({"transmission": np.array([0.5, 0.25])}, at=range(1, 3))
    assert swept == [f"transmission={x}@{d}" for d in (1, 2) for x in (0.5, 0.25)]


def test_handlers_of_worlds_around_the_call_are_refused(model):
    act = StaticIntervention(torch.tensor(5.0), {"transmission": torch.tensor([0.1])})
    for handler in (MultiWorldCounterfactual(first_available_dim=-4), act):
        with handler, pytest.raises(InputError, match="makes its own worlds, but stands under"):
            lpm.counterfactual(model, {"transmission": 0.5}, at=1, days=8)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda v: v * np.nan, "the posterior's beta has nan, which can't be"),
        (lambda v: -v, "the posterior's beta has -0.55"),
        (lambda v: v.expand_dims(x=2), r"has dims \('x', 'chain', 'draw'\)"),
        (lambda v: v.isel(chain=0, drop=True), r"has dims \('draw',\)"),
        (lambda v: v.astype(str), "values of <U"),
    ],
)
def test_a_posterior_is_checked_like_values_that_are_set(model, spoil, said):
    values = xr.Dataset({n: (("chain", "draw"), np.full((2, 3), p.default)) for n, p in model.parameters.items()})
    values["beta"] = spoil(values["beta"])
    with pytest.raises(InputError, match=said):
        lpm.counterfactual(
            model, {"stimulus": 5.0}, at=1, days=2, posterior=xr.DataTree.from_dict({"posterior": values})
        )
    with pytest.raises(InputError, match="a DataTree with a group 'posterior' is needed"):
        lpm.counterfactual(model, {"stimulus": 5.0}, at=1, days=2, posterior=values)


def test_an_outcome_that_is_none_costs_no_result():
    model = MODELS["sir_on_a_graph"]()
    model.outcomes = {"odd": lambda s: s["exposure"], "infected": model.outcomes["infected"]}
    with pytest.warns(UserWarning, match="the outcome 'odd' gave torch.float64"):
        tree = lpm.counterfactual(model, {"transmission": 0.5}, at=1, days=5)
    assert list(tree["flows"].data_vars) == ["infected"]


def test_a_posterior_must_have_every_parameter(model):
    values = xr.Dataset({n: (("chain", "draw"), np.full((2, 3), p.default)) for n, p in model.parameters.items()})
    tree = xr.DataTree.from_dict({"posterior": values.drop_vars("beta")})
    with pytest.raises(InputError, match="the posterior lacks beta"):
        lpm.counterfactual(model, {"stimulus": 5.0}, at=1, days=2, posterior=tree)
    with pytest.raises(InputError, match="a DataTree with a group 'posterior' is needed"):
        lpm.counterfactual(model, {"stimulus": 5.0}, at=1, days=2, posterior=xr.DataTree(values))
    values["beta"] = values["beta"] + np.arange(6).reshape(2, 3) / 100
    tree = xr.DataTree.from_dict({"posterior": values})
    found = lpm.counterfactual(model, {"stimulus": 5.0}, at=1, days=2, posterior=tree, set={"home": 0.4})
    assert sorted(found["prior"]["beta"].values[0]) == pytest.approx(sorted(values["beta"].values.ravel()))
    assert found["prior"]["home"].values.tolist() == [[0.4] * 6]
    assert found.attrs["draws_from"] == "posterior"


def test_on_which_days_a_trigger_is_in_force_is_recorded():
    model = MODELS["seirm_in_layers"]()
    week = Trigger(0.5, lambda s: torch.as_tensor(s["t"] == 5.0), lambda s: torch.as_tensor(s["t"] >= 9.0))
    ever, never = (Trigger(0.5, lambda s, x=x: torch.as_tensor(s["t"] >= x)) for x in (7.0, 99.0))
    plans = {
        "week": [Act("transmission", week, 2)],
        "others": [Act("transmission", ever, 0), Act("transmission", never, 0)],
        "dated": [("transmission", 0.9, 3)],
    }
    tree = lpm.counterfactual(model, plans, days=12, replicates=2)
    found = tree["triggers"]["in_force"]
    assert found["policy_of"].values.tolist() == ["week", "others", "others"]
    expected = np.zeros((3, 12), bool)
    expected[0, 5:9] = expected[1, 7:] = True
    assert (found.values == expected).all() and found.shape == (1, 2, 3, 12)
    assert "triggers" not in lpm.counterfactual(model, {"dated": plans["dated"]}, days=5).children


def test_the_days_of_a_trigger_are_those_of_its_own_world():
    """One that looks at infections is in force where they are many, and in the other world they are as many again."""
    model = MODELS["seirm_in_layers"]()
    many = Trigger(0.1, lambda s: s["infectious"].sum(-1, keepdim=True) > 60)
    plans = {
        "worse": [("transmission", 3.0, 0)],
        "worse, then closed": [("transmission", 3.0, 0), Act("transmission", many, 0)],
    }
    plans["closed"] = [Act("transmission", many, 0)]
    tree = lpm.counterfactual(model, plans, days=30, set={"initial_infected": 0.05, "beta": 0.1})
    ill = tree["prior_predictive"]["infectious"].sum(["borough", "age"]).squeeze(drop=True)
    on = tree["triggers"]["in_force"].squeeze(drop=True)
    for k, name in enumerate(("worse, then closed", "closed")):
        evening = ill.sel(policy=name).values > 60
        assert on.isel(trigger=k).values.tolist() == [False, *np.maximum.accumulate(evening)[:-1].tolist()]
        assert on.isel(trigger=k).any()
    assert on.isel(trigger=0).values.argmax() < on.isel(trigger=1).values.argmax()
