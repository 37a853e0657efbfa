"""Which plan is best, among plans of which that is known."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.inference.search import _expected_loss
from tests.laws.conftest import MODELS

INFECTED = {"initial_infected": 0.05}


def test_the_best_is_found_and_the_others_get_fewer_draws():
    model = MODELS["sir_in_households"]()
    found = lpm.search(model, {"transmission": [0.9, 0.2, 0.6, 0.4, 1.5]}, "infections", at=3, days=30, set=INFECTED)
    assert found.attrs["best"] == found["policy"].values[0] == "transmission=0.2@3"
    assert found.attrs["runner_up"] == "transmission=0.4@3"
    draws = found["draws"].to_series()
    assert draws["transmission=0.2@3"] == draws.max() > draws["transmission=1.5@3"] == 2
    assert draws["as it was"] == draws.max()
    assert (np.diff(draws) <= 0).all() and float(found["behind"][0]) == 0
    assert (found["behind"][1:] > 0).all() and 0 <= found.attrs["regret"] < 1
    # What is said of each plan is what its worlds are.
    tree = lpm.counterfactual(model, {"transmission": 0.4}, at=3, days=30, set=INFECTED, replicates=int(draws.iloc[1]))
    total = tree["prior_predictive"]["infections"].sel(policy="transmission=0.4@3").sum(("day", "borough"))
    assert float(found["objective"].sel(policy="transmission=0.4@3")) == pytest.approx(float(total.mean()))


def test_doing_nothing_may_be_best():
    model = MODELS["sir_on_a_graph"]()
    found = lpm.search(model, {"transmission": [1.5, 2.0]}, "infections", at=2, days=20, set=INFECTED)
    assert found.attrs["best"] == "as it was"


def test_plans_beyond_the_budget_are_out():
    model = lpm.nyc.pandemic(lpm.nyc.population(1_000))
    plans = {"stimulus": [100.0, 500.0, 2000.0]}
    spending = lambda x: -x["spending"]  # noqa: E731
    rich = lpm.search(model, plans, spending, at=5, days=21, at_once=2)
    assert rich.attrs["best"] == "stimulus=2000@5"
    cost = rich["cost"].to_series()
    assert cost["as it was"] == 0 < cost["stimulus=100@5"] < cost["stimulus=500@5"] < cost["stimulus=2000@5"]
    poor = lpm.search(model, plans, spending, at=5, days=21, budget=1.01 * cost["stimulus=500@5"])
    assert poor.attrs["best"] == "stimulus=500@5"
    assert not bool(poor["affordable"].sel(policy="stimulus=2000@5"))
    with_parameters = lpm.search(model, plans, spending, at=5, days=10, parameters=True)
    assert with_parameters.attrs["best"] == "stimulus=2000@5"


@pytest.mark.parametrize(("behind", "error"), [(0.5, 1.0), (3.0, 0.7), (-1.0, 0.4), (0.0, 2.0)])
def test_the_expected_loss_is_its_integral(behind, error):
    loss, _ = quad(lambda d: max(0.0, -d) * norm.pdf(d, behind, error), behind - 10 * error, 0)
    assert _expected_loss(behind, error) == pytest.approx(loss, abs=1e-8)
    assert (_expected_loss(2.0, 0.0), _expected_loss(-2.0, 0.0)) == (0.0, 2.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"objective": "infection"}, "did you mean 'infections'"),
        ({"objective": lambda x: x["infections"].mean()}, "must give one number for each"),
        ({"keep": 1.0}, "keep=1.0"),
        ({"first": 1}, "first=1"),
        ({"at_once": 0}, "at_once=0"),
        ({"budget": -1.0, "cost": "infections"}, "budget=-1.0"),
        ({"budget": 1.0}, "unknown tally 'payments'"),
        ({"budget": -0.0, "cost": "dollars"}, "unknown tally 'dollars'"),
        ({"candidates": {}}, "can't be read"),
    ],
)
def test_what_cannot_be_searched_is_refused(options, said):
    given = {"candidates": {"transmission": [0.5, 0.2]}, "objective": "infections", "at": 3, "days": 10, **options}
    with pytest.raises(InputError, match=said):
        lpm.search(MODELS["sir_on_a_graph"](), **given)
