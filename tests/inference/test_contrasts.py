"""Estimates of effects from results whose every number is known."""

import numpy as np
import pytest
import xarray as xr
from scipy.stats import nbinom

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.inference.contrasts import amounts

WORLDS = ["as it was", "cheque", "nothing"]


def result(parameters=(0, 0, 1, 1), seed=0):
    """Four draws of two tallies by borough in three worlds, in the third of which nothing differs."""
    rng, n = np.random.default_rng(seed), len(parameters)
    dims = ("chain", "draw", "policy", "day", "borough")
    infections = rng.integers(50, 99, (1, n, 3, 5, 2))
    infections[:, :, 2] = infections[:, :, 0]
    beds = rng.integers(5, 9, (1, n, 3, 5, 2))
    paid = np.zeros((1, n, 3, 5, 2))
    paid[:, :, 1, 2] = 1000.0
    tallies = xr.Dataset(
        {
            "infections": (dims, infections, {"kind": "flow", "units": "people per day"}),
            "beds": (dims, beds, {"kind": "stock", "units": "people"}),
            "payments": (dims, paid, {"kind": "flow", "units": "dollars per day"}),
        },
        {"policy": WORLDS, "borough": ["Bronx", "Queens"], "parameters": ("draw", list(parameters))},
    )
    flows = rng.integers(1, 20, (1, n, 2, 2, 2, 2))
    flows[:, :, 1, :, 0, 1] = flows[:, :, 1, :, 1, 0] = 0
    coords = {"policy": WORLDS[1:], "borough": ["Bronx", "Queens"], "was": ["no", "yes"], "would": ["no", "yes"]}
    fates = xr.Dataset(
        {"infected": (("chain", "draw", "policy", "borough", "was", "would"), flows)},
        {**coords, "parameters": ("draw", list(parameters))},
    )
    return xr.DataTree.from_dict({"prior_predictive": tallies, "flows": fates}), infections, beds, flows


def test_effects_are_differences_of_worlds():
    tree, infections, beds, _ = result()
    total = infections.sum((3, 4))[0]
    found = lpm.contrast(tree)
    x = total[:, 1] - total[:, 0]
    expected = [x.mean(), *np.quantile(x, [0.05, 0.95]), x.std(ddof=1)]
    assert found["infections"].sel(policy="cheque").values[:4] == pytest.approx(expected)
    assert (found["infections"].sel(policy="nothing") == 0).all()
    last = beds.sum(4)[0, :, :, -1]
    assert float(found["beds"].sel(policy="cheque", estimate="mean")) == pytest.approx((last[:, 1] - last[:, 0]).mean())
    peak = beds.sum(4)[0].max(-1)
    assert float(found["peak_beds"].sel(policy="cheque", estimate="mean")) == pytest.approx(
        (peak[:, 1] - peak[:, 0]).mean()
    )
    assert found["payments"].attrs["units"] == "dollars" and found["infections"].attrs["units"] == "people"
    ratio = lpm.contrast(tree, by="borough", ratio=True, level=0.5)["infections"].sel(policy="cheque", borough="Queens")
    queens = infections[0, :, :, :, 1].sum(2)
    assert ratio.values[:3] == pytest.approx([(q := queens[:, 1] / queens[:, 0]).mean(), *np.quantile(q, [0.25, 0.75])])
    daily = lpm.contrast(tree, daily=True)["infections"].sel(policy="cheque", estimate="mean")
    assert daily.values == pytest.approx((infections.sum(4)[0, :, 1] - infections.sum(4)[0, :, 0]).mean(0))


def test_chance_is_told_from_parameters():
    rng = np.random.default_rng(1)
    tree, *_ = result(parameters=np.repeat(np.arange(400), 5))
    tallies = tree["prior_predictive"].to_dataset()
    level = np.repeat(rng.normal(0, 30.0, 400), 5) + rng.normal(0, 10.0, 2000)
    values = np.zeros(tallies["infections"].shape)
    values[0, :, 1, 0, 0] = level
    tree["prior_predictive"] = xr.DataTree(
        tallies.assign(infections=(tallies["infections"].dims, values, {"kind": "flow"}))
    )
    found = lpm.contrast(tree)["infections"].sel(policy="cheque")
    # Standard errors: 10/√3200 and 30/√800.
    assert float(found.sel(estimate="sd_chance")) == pytest.approx(10.0, abs=0.6)
    assert float(found.sel(estimate="sd_parameters")) == pytest.approx(30.0, abs=3.5)
    alone = lpm.contrast(result(parameters=(0, 1, 2, 3))[0])["infections"]
    assert alone.sel(estimate=["sd_chance", "sd_parameters"]).isnull().all()
    single = lpm.contrast(result(parameters=(0,))[0])["infections"].sel(policy="cheque")
    assert float(single.sel(estimate="low")) == float(single.sel(estimate="high")) == float(single.sel(estimate="mean"))
    assert single.sel(estimate="sd").isnull()


def test_fates_are_shares_of_those_who_had_or_hadnt():
    tree, *_, flows = result()
    found = lpm.fates(tree, "infected", by="borough").sel(policy="cheque", borough="Bronx", estimate="mean")
    (no_no, no_yes), (yes_no, yes_yes) = (flows[0, :, 0, 0, i].T for i in (0, 1))
    assert float(found["necessity"]) == pytest.approx((yes_no / (yes_no + yes_yes)).mean())
    assert float(found["sufficiency"]) == pytest.approx((no_yes / (no_no + no_yes)).mean())
    assert (float(found["averted"]), float(found["caused"])) == (yes_no.mean(), no_yes.mean())
    balance = yes_no - no_yes
    people = no_no + no_yes + yes_no + yes_yes
    assert float(found["needed_to_treat"]) == pytest.approx((people[balance > 0] / balance[balance > 0]).mean())
    assert found["necessity"].attrs == {"units": "probability"} and found["averted"].attrs == {"units": "people"}
    null = lpm.fates(tree, "infected").sel(policy="nothing", estimate="mean")
    assert float(null["necessity"]) == float(null["sufficiency"]) == 0 and np.isnan(float(null["needed_to_treat"]))


def test_cost_is_dollars_over_what_is_averted():
    tree, infections, *_ = result()
    infections[:, :, 1] = infections[:, :, 0] - 2
    tallies = tree["prior_predictive"].to_dataset()
    tree["prior_predictive"] = xr.DataTree(
        tallies.assign(infections=(tallies["infections"].dims, infections, {"kind": "flow"}))
    )
    found = lpm.cost_per(tree, "infections")["cost"]
    assert found.sel(policy="cheque").values == pytest.approx([2000 / 20] * 3)
    assert found.sel(policy="nothing").isnull().all()


def test_draws_count_for_how_they_agree_with_what_was_observed():
    tree, infections, *_, flows = result(parameters=(0, 1, 2, 3))
    own = infections.sum(4)[0, :, 0]
    seen = [float(own[2, 0]), np.nan, float(own[2, 2])]
    log = np.array(
        [[nbinom.logpmf(y, 7.0, 7.0 / (7.0 + m + 0.5)) for y, m in ((seen[0], o[0]), (seen[2], o[2]))] for o in own]
    )
    expected = np.exp(log.sum(1)) / np.exp(log.sum(1)).sum()
    found = lpm.weigh(tree, {"infections": seen}, size=7.0, least=1.0)
    assert found["prior_predictive"]["weight"].values == pytest.approx(expected)
    assert found.attrs["effective_draws"] == pytest.approx(1 / (expected**2).sum())
    x = infections.sum((3, 4))[0]
    effect = (x[:, 1] - x[:, 0]) @ expected
    assert float(found["effects"]["infections"].sel(policy="cheque", estimate="mean")) == pytest.approx(effect)
    caused = flows[0, :, 0, :, 0, 1].sum(1)
    assert float(lpm.fates(found, "infected")["caused"].sel(policy="cheque", estimate="mean")) == pytest.approx(
        caused @ expected
    )
    exact = lpm.weigh(tree, {"infections": own[2]}, size=None, least=1.0)
    assert exact["flows"]["weight"].values.tolist() == [0.0, 0.0, 1.0, 0.0]
    assert "weight" not in tree["prior_predictive"].coords


@pytest.mark.parametrize(
    ("observed", "options", "said"),
    [
        ({}, {}, "nothing was observed"),
        ({"infection": [1]}, {}, "did you mean 'infections'"),
        ({"infections": []}, {}, "one number for each day"),
        ({"infections": [1] * 6}, {}, "one number for each day"),
        ({"infections": [1] * 5}, {"first": 1}, "one number for each day"),
        ({"infections": [-1.0]}, {}, "counts are 0 or more"),
        ({"infections": [1e6]}, {"size": None}, "no draw agrees"),
        ({"infections": [100]}, {"size": 0.0}, "size=0.0"),
        ({"infections": [100]}, {"least": 4.5}, "and 4.5 are needed"),
    ],
)
def test_what_cannot_be_weighed_is_refused(observed, options, said):
    with pytest.raises(InputError, match=said):
        lpm.weigh(result()[0], observed, **options)


def test_the_world_as_it_was_is_found_by_its_label():
    tree, *_ = result()
    expected = lpm.contrast(tree)["infections"].sel(policy="cheque")
    tallies = tree["prior_predictive"].to_dataset()
    tree["prior_predictive"] = xr.DataTree(tallies.isel(policy=[2, 1, 0]))
    assert lpm.contrast(tree)["infections"].sel(policy="cheque").equals(expected)
    tree["prior_predictive"] = xr.DataTree(tallies.isel(policy=[1, 2]))
    for ask in (lambda: lpm.contrast(tree), lambda: lpm.cost_per(tree, "infections")):
        with pytest.raises(InputError, match="keep 'as it was'"):
            ask()


def test_what_a_result_hasnt_is_named():
    tree, *_ = result()
    for ask, said in (
        (lambda: lpm.contrast(tree, by="boroughs"), "did you mean 'borough'"),
        (lambda: lpm.contrast(tree, level=90), "level=90"),
        (lambda: lpm.fates(tree, "infected", level=-1), "level=-1"),
        (lambda: lpm.cost_per(tree, "infections", level="a"), "level=a"),
        (lambda: lpm.cost_per(tree, "infections", resamples=0), "resamples=0"),
        (lambda: lpm.fates(tree, "infection"), "did you mean 'infected'"),
        (lambda: lpm.fates(tree, "infected", by="age"), "unknown stratum 'age'"),
        (lambda: lpm.cost_per(tree, "infection"), "did you mean 'infections'"),
        (lambda: amounts(xr.DataTree()), "no policies to compare"),
        (lambda: lpm.fates(xr.DataTree(), "infected"), "no policies to compare"),
    ):
        with pytest.raises(InputError, match=said):
            ask()


def test_what_averted_outcomes_cost_is_in_the_result():
    model = lpm.nyc.pandemic(lpm.nyc.population(2_000))
    plans = {"cheque": [("stimulus", 2000.0, 5)], "fewer": [("transmission", 0.2, 5), ("stimulus", 10.0, 5)]}
    tree = lpm.counterfactual(model, plans, days=30, set={"initial_infected": 0.05}, replicates=3)
    costs = tree["costs"]["cost"]
    alone = lpm.cost_per(tree, "infections")["cost"]
    assert "infections" in costs["outcome"].values and "unemployed" not in costs["outcome"].values
    assert costs.sel(outcome="infections", policy="fewer").values == pytest.approx(alone.sel(policy="fewer").values)
    # Who pays nothing has no price.
    free = lpm.counterfactual(model, {"fewer": [("transmission", 0.2, 5)]}, days=20, set={"initial_infected": 0.05})
    assert free["costs"].sizes["outcome"] == 0
