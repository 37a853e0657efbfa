"""What each cause makes of an outcome."""

import functools
import itertools

import numpy as np
import pytest
import xarray as xr
from chirho.counterfactual.handlers import MultiWorldCounterfactual

import lpmppl as lpm
from lpmppl.effects.handlers import Silenced
from lpmppl.errors import InputError
from lpmppl.inference.attribution import attribute, attribute_substeps, shapley
from lpmppl.inference.contrasts import amounts
from lpmppl.models.population import Population
from tests.laws.conftest import MODELS


def test_shapley_is_the_mean_over_orders():
    rng, causes = np.random.default_rng(0), "abcd"
    sets = [frozenset(s) for k in range(5) for s in itertools.combinations(causes, k)]
    worth = {s: rng.normal(size=3) for s in sets}
    found = shapley(worth, causes)
    for cause in causes:
        gains = [
            worth[frozenset(order[: order.index(cause) + 1])] - worth[frozenset(order[: order.index(cause)])]
            for order in itertools.permutations(causes)
        ]
        assert found[cause] == pytest.approx(np.mean(gains, 0))
    assert sum(found.values()) == pytest.approx(worth[frozenset(causes)] - worth[frozenset()])


def test_an_effect_is_shared_out_among_policies():
    model = MODELS["seirm_in_layers"]()
    plans = {
        "early": [("transmission", 0.6, 3)],
        "late": [("transmission", 0.3, 12)],
        "idle": [("transmission", 1.0, 2)],
    }
    tree = lpm.counterfactual(
        model, plans, days=30, factorial=True, replicates=3, set={"initial_infected": 0.05, "beta": 0.2}
    )
    shares, total = attribute(tree)["infections"], amounts(tree)["infections"]
    together = total.sel(policy="early + late + idle", drop=True) - total.sel(policy="as it was", drop=True)
    assert shares.sum("policy").values == pytest.approx(together.values)
    assert shares.dims[-1] == "policy" or set(shares.dims) == {"policy", "chain", "draw"}
    assert float(shares.sel(policy="early").mean()) < 0 and float(shares.sel(policy="late").mean()) < 0
    by_age = attribute(tree, by="age")["infections"]
    assert by_age.sum("age").transpose(*shares.dims).values == pytest.approx(shares.values)


def test_an_effect_without_every_combination_is_refused():
    model = MODELS["sir_on_a_graph"]()
    tree = lpm.counterfactual(model, {"transmission": [0.5, 0.3]}, at=2, days=5)
    with pytest.raises(InputError, match="give factorial=True"):
        attribute(tree)


def test_an_outcome_is_shared_out_among_substeps():
    make = functools.partial(lpm.nyc.pandemic, lpm.nyc.population(3_000))
    found = attribute_substeps(
        make, ["masking", "behaviour"], "infections", days=45, set={"initial_infected": 0.02, "claim_share": 0.9}
    )
    assert float(found["share"].sum()) == pytest.approx(found.attrs["with_all"] - found.attrs["with_none"])
    assert (found["share"] < 0).all()
    whole = lpm.run(make(), days=45, set={"initial_infected": 0.02, "claim_share": 0.9})
    assert found.attrs["with_all"] == float(whole["prior_predictive"]["infections"].sum())
    alone = lpm.run(make(without=["masking"]), days=45, set={"initial_infected": 0.02, "claim_share": 0.9})
    gone = found.attrs["with_all"] - float(alone["prior_predictive"]["infections"].sum())
    assert float(found["alone"].sel(substep="masking")) == gone


@pytest.mark.parametrize(
    ("substeps", "outcome", "said"),
    [
        ("masking", "infections", "give one to 6 names"),
        ([], "infections", "give one to 6 names"),
        (["mask"], "infections", "did you mean 'masking'"),
        (["masking"], "infection", "did you mean 'infections'"),
        (["progression"], "infections", "reads admissions/week"),
    ],
)
def test_what_cannot_be_attributed_is_refused(substeps, outcome, said):
    make = functools.partial(lpm.nyc.pandemic, lpm.nyc.population(1_000))
    with pytest.raises(InputError, match=said):
        attribute_substeps(make, substeps, outcome, days=3)


def test_an_outcome_is_shared_out_among_layers():
    """By runs under the handler alone, and the school, which is a kind of workplace, apart."""
    model = lpm.nyc.pandemic(lpm.nyc.population(3_000))
    options = {"days": 30, "set": {"initial_infected": 0.03}}
    names = ["household", "school"]
    found = lpm.attribute_layers(model, "infections", names, **options)
    assert list(found["layer"].values) == names
    assert float(found["share"].sum()) == pytest.approx(found.attrs["with_all"] - found.attrs["with_none"])
    schools = (model.population["workplace_kind"] == 2)[model.population["workplace"].long()]
    for name, handler in {"household": Silenced("household"), "school": Silenced("workplace", schools)}.items():
        with handler:
            alone = float(lpm.run(model, **options)["prior_predictive"]["infections"].sum())
        assert float(found["alone"].sel(layer=name)) == found.attrs["with_all"] - alone > 0


def test_an_outcome_is_shared_out_among_groups_and_may_be_a_function():
    model = MODELS["seirm_in_layers"]()

    def gap(tallies):
        by_borough = tallies["infections"].sum(["chain", "draw", "day", "age"])
        return float(by_borough[0] - by_borough[1])

    options = {"days": 30, "set": {"initial_infected": 0.03, "beta": 0.1}}
    found = lpm.attribute_groups(model, gap, "borough", **options)
    assert float(found["share"].sum()) == pytest.approx(found.attrs["with_all"] - found.attrs["with_none"])
    assert found.attrs["outcome"] == "gap" and found.attrs["with_none"] == 0
    # Whom a borough infects lives in it more often than not, so that each makes its own side of the gap.
    assert float(found["share"][0]) > 0 > float(found["share"][1])
    many = lpm.attribute_groups(model, "infections", "age_band", **options)
    assert "share" not in many and (many["alone"] > 0).all() and many.sizes["age_band"] == 9


def test_the_layers_are_those_over_which_people_are_infected():
    model = lpm.nyc.seirm(lpm.nyc.population(2_000))
    options = {"days": 15, "set": {"initial_infected": 0.05}}
    found = lpm.attribute_layers(model, "infections", **options)
    sent = lpm.run(model, **options, sources={"age": "age_band"})["sources"]["infection"]
    assert set(found["layer"].values) >= set(sent["layer"].values) and "none" not in found["layer"].values
    work = lpm.attribute_layers(model, "infections", ["workplace"], **options)
    offices = (model.population["workplace_kind"] == 1)[model.population["workplace"].long()]
    with Silenced("workplace", offices):
        without = lpm.run(model, **options)["prior_predictive"]["infections"].sum()
    assert work.attrs["with_none"] == float(without)


def test_kinds_that_are_called_alike_stay_apart():
    people = lpm.nyc.population(2_000)
    folk = Population(people.dataset.copy())
    folk.dataset["household_kind"] = folk.dataset["household_kind"].assign_attrs(labels=["school", "neighbourhood"])
    options = {"days": 10, "set": {"initial_infected": 0.05}, "sources": {"sex": "sex"}}
    plain = lpm.run(lpm.nyc.seirm(people), **options)["sources"]["infection"].sum(["day", "from_sex", "sex"])
    found = lpm.run(lpm.nyc.seirm(folk), **options)["sources"]["infection"].sum(["day", "from_sex", "sex"])
    names = {"household": "household: school", "school": "workplace: school", "neighbourhood": "neighbourhood"}
    for old, new in names.items():
        assert np.array_equal(plain.sel(layer=old).values, found.sel(layer=new).values), old


def test_layers_and_groups_that_cannot_be_are_refused():
    model = MODELS["seirm_in_layers"]()
    with pytest.raises(InputError, match="can't be evaluated: KeyError"):
        lpm.attribute_groups(model, lambda tallies: tallies["nothing"], "borough", days=3)
    for odd in (lambda tallies: None, lambda tallies: "many", lambda tallies: 1j):
        with pytest.raises(InputError, match="one finite number"):
            lpm.attribute_groups(model, odd, "borough", days=3)
    make = functools.partial(lpm.nyc.pandemic, lpm.nyc.population(1_000))
    with pytest.raises(InputError, match="did you mean 'initial_infected'"):
        attribute_substeps(make, ["masking"], "infections", days=3, set={"initial_infectd": 0.1})
    with MultiWorldCounterfactual(first_available_dim=-3), pytest.raises(InputError, match="makes its own worlds"):
        lpm.attribute_layers(model, "infections", ["household"], days=3)
    with pytest.raises(InputError, match="give a tally's name"):
        lpm.attribute_groups(model, 5, "borough", days=3)
    with pytest.raises(InputError, match="did you mean 'household'"):
        lpm.attribute_layers(model, "infections", ["houshold"], days=3)
    with pytest.raises(InputError, match="did you mean 'infections'"):
        lpm.attribute_layers(model, "infection", ["household"], days=3)
    with pytest.raises(InputError, match="borough"):
        lpm.attribute_groups(model, "infections", "burough", days=3)
    with pytest.raises(InputError, match="one finite number"):
        lpm.attribute_groups(model, lambda tallies: tallies["infections"], "borough", days=3)


def society(rates, people):
    """A result whose infections per person are known by income and size of household."""
    infections = np.asarray(rates) * np.asarray(people)
    coords = {"income": ["low", "high"], "size": ["1", "2", "3"]}
    tally = (("chain", "draw", "day", "income", "size"), infections[None, None, None])
    return xr.DataTree.from_dict(
        {
            "prior_predictive": xr.Dataset(
                {"infections": (*tally, {"kind": "flow", "units": "people per day"})}, coords
            ),
            "constant_data": xr.Dataset({"people": (("income", "size"), np.asarray(people))}, coords),
        }
    )


def test_a_gap_is_who_people_are_and_what_happens_to_them():
    people = [[100, 200, 700], [500, 300, 200]]
    # Only the size of the household matters: all of the gap is composition.
    found = lpm.disparity(society([[0.1, 0.2, 0.4]] * 2, people), "infections", "income", "size").squeeze(drop=True)
    assert found["rate"].values == pytest.approx([0.33, 0.19]) and found["gap"].values == pytest.approx([0.07, -0.07])
    assert found["composition"].values == pytest.approx(found["gap"].values)
    assert found["rates"].values == pytest.approx([0, 0], abs=1e-12)
    assert found["gap"].attrs == {"units": "people per person", "long_name": "infections"}
    # Only income matters: none of it is.
    found = lpm.disparity(society([[0.4] * 3, [0.1] * 3], [[100, 100, 100]] * 2), "infections", "income", "size")
    assert found["rates"].values.ravel() == pytest.approx([0.15, -0.15])
    assert found["composition"].values.ravel() == pytest.approx([0, 0], abs=1e-12)
    # Both: by hand, for those of low income. There is nobody of high income alone in a household.
    rates, people = [[0.5, 0.2, 0.3], [0.0, 0.1, 0.3]], [[10, 30, 60], [0, 50, 50]]
    found = lpm.disparity(society(rates, people), "infections", "income", "size").sel(income="low").squeeze(drop=True)
    share, all_share = np.array([0.1, 0.3, 0.6]), np.array([10, 80, 110]) / 200
    own, general = np.array([0.5, 0.2, 0.3]), np.array([0.5, 11 / 80, 0.3])
    assert float(found["composition"]) == pytest.approx(((share - all_share) * (own + general) / 2).sum())
    assert float(found["rates"]) == pytest.approx(((own - general) * (share + all_share) / 2).sum())
    assert float(found["gap"]) == pytest.approx(float(found["composition"] + found["rates"]))
    with pytest.raises(InputError, match="did you mean 'income'"):
        lpm.disparity(society(rates, people), "infections", "incom", "size")
    for odd in (None, len):
        with pytest.raises(InputError, match="unknown tally"):
            lpm.disparity(society(rates, people), odd, "income")
    with pytest.raises(InputError, match="itself"):
        lpm.disparity(society(rates, people), "infections", "income", "income")
    with pytest.raises(InputError, match="did you mean 'infections'"):
        lpm.disparity(society(rates, people), "infection", "income")


def test_tallies_by_income_are_those_of_households():
    """A variable of households stands for their members, and what isn't known is a kind of its own."""
    people = lpm.nyc.population(2_000)
    model = lpm.nyc.seirm(people, by={"income": "income_band"})
    found = lpm.run(model, days=5, set={"initial_infected": 0.1})
    each = people["income_band"][people["household"].long()]
    assert found["constant_data"]["people"].values.tolist() == np.bincount(each, minlength=7).tolist()
    people.dataset["known"] = ("household", np.where(np.arange(people.dataset.sizes["household"]) % 2, 0, -1))
    strata = people.strata(known="known")
    assert strata.dims["known"] == ["unknown", "0"]
    assert strata.index.tolist() == (people["household"].long() % 2).tolist()


def test_what_is_done_by_a_substep_goes_with_it():
    make = functools.partial(lpm.nyc.pandemic, lpm.nyc.population(2_000))
    options = {"set": {"initial_infected": 0.05}, "interventions": [("mask_mandate", 1.0, 1)]}
    found = lpm.attribute_substeps(make, ["masking"], "infections", days=12, **options)
    assert float(found["share"].sel(substep="masking")) < 0
    assert found.attrs["with_all"] < found.attrs["with_none"]
    with pytest.raises(InputError, match="did you mean 'mask_mandate'"):
        lpm.attribute_substeps(make, ["masking"], "infections", days=4, interventions=[("mask_mandates", 1.0, 1)])
