"""What each cause makes of an outcome."""

import functools
import itertools

import numpy as np
import pytest

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.inference.attribution import attribute, attribute_substeps, shapley
from lpmppl.inference.contrasts import amounts
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
