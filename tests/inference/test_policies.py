"""What `do` and `at` may say, and how what they mustn't say is refused."""

import pytest
import torch

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.inference.policies import Act, Policy, Trigger, UnderPolicies, factorial, policies


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
        ({"cheque": [("stimulus", 500.0, 3)], "schools": 0.0}, 3, "'cheque' has acts with days of their own"),
        ([("stimulus", 500.0)], None, r"\('stimulus', 500.0\) can't be read"),
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
        ([("stimulus", 500.0, 3), ("stimulus", 600.0, 3)], "two acts set stimulus on day 3"),
        ([Act("schools", 0.0, 3, {"borough": "Bronx"})], "schools is one for the whole city"),
        (
            [Act("stimulus", 5.0, 3, {"borough": "Bronx"})],
            "stimulus is set for each household, but borough is known of",
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


def test_a_posterior_must_have_every_parameter(model):
    import numpy as np
    import xarray as xr

    values = xr.Dataset({n: (("chain", "draw"), np.full((2, 3), p.default)) for n, p in model.parameters.items()})
    tree = xr.DataTree.from_dict({"posterior": values.drop_vars("beta")})
    with pytest.raises(InputError, match="the posterior lacks beta"):
        lpm.counterfactual(model, {"stimulus": 5.0}, at=1, days=2, posterior=tree)
    with pytest.raises(InputError, match="no group 'posterior'"):
        lpm.counterfactual(model, {"stimulus": 5.0}, at=1, days=2, posterior=xr.DataTree(values))
    values["beta"] = values["beta"] + np.arange(6).reshape(2, 3) / 100
    tree = xr.DataTree.from_dict({"posterior": values})
    found = lpm.counterfactual(model, {"stimulus": 5.0}, at=1, days=2, posterior=tree, set={"home": 0.4})
    assert sorted(found["prior"]["beta"].values[0]) == pytest.approx(sorted(values["beta"].values.ravel()))
    assert found["prior"]["home"].values.tolist() == [[0.4] * 6]
    assert found.attrs["draws_from"] == "posterior"
