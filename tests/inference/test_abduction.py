"""Counterfactuals of the days that really were: guided runs, and their noise in every world."""

import json

import numpy as np
import pytest
import xarray as xr

import lpmppl as lpm
from lpmppl.errors import InputError
from tests.inference.test_exactly import MODEL, SEEN, TRUTH

HELD = {"gamma": TRUTH["gamma"], "initial_infected": TRUTH["initial_infected"]}


def asked(**more):
    given = {"set": HELD, "observed": {"infection": SEEN.tolist()}, **more}
    return lpm.counterfactual(MODEL, {"half": [("transmission", 0.5, 7)]}, days=25, seed=1, **given)


def infections(tree):
    found = tree["prior_predictive"]["infections"].isel(chain=0)
    return found.sum([d for d in found.dims if d not in ("draw", "policy", "day")]).transpose("policy", "draw", "day")


@pytest.fixture(scope="module")
def drawn():
    return asked(draws=6, guided=60)


def test_the_world_as_it_was_has_what_was_seen_and_the_other_what_would_have_been(drawn):
    factual, other = infections(drawn).to_numpy()
    assert (factual[:, : len(SEEN)] == SEEN).all() and (other[:, :7] == SEEN[:7]).all()
    assert (other.sum(-1) < factual.sum(-1)).all()
    # Draws have noises, and futures, of their own.
    assert len({tuple(x) for x in factual[:, len(SEEN) :].tolist()}) > 1


def test_draws_of_the_prior_are_chosen_by_how_likely_they_made_it(drawn):
    prior = lpm.run(MODEL, 1, 1, draws=360, set=HELD)["prior"]["beta"].to_numpy()
    chosen, factor = drawn["prior"]["beta"].to_numpy(), prior.std()
    assert chosen.std() < 0.8 * factor and set(chosen.ravel()) <= set(prior.ravel())
    assert json.loads(drawn.attrs["observed"]) == {"infection": SEEN.tolist()}
    assert drawn.attrs["guided_runs"] == 360 and 10 < drawn.attrs["effective_runs"] < 360
    if "weight" in drawn["prior"].coords:
        assert float(drawn["prior"]["weight"].sum()) == pytest.approx(1.0)


def test_each_draw_of_a_posterior_chooses_among_its_own_runs():
    fit = lpm.calibrate_exactly(MODEL, {"infection": SEEN.tolist()}, 100, set=HELD, draws=40)
    tree = asked(posterior=fit, draws=3, guided=8, set={}, replicates=2)
    betas = tree["prior"]["beta"].to_numpy().ravel()
    assert len({*betas}) == 3 and {*np.unique(tree["prior"]["parameters"])} == {0, 1, 2}
    assert tree.attrs["guided_runs"] == 48
    assert (infections(tree).to_numpy()[0][:, : len(SEEN)] == SEEN).all()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"observed": {"infectoin": [1]}}, "did you mean 'infection'"),
        ({"observed": {"infection": [-1]}}, "whole numbers"),
        ({"observed": {}}, "nothing was observed"),
        ({"observed": {"infection": "4"}}, "can't be read"),
        ({"observed": {"infection": {0: 4}}}, "can't be read"),
        ({"observed": {"infection": iter([4])}}, "can't be read"),
        ({"observed": {"infection": [10**400]}}, "can't be read"),
        ({"observed": {"infection": [1e30]}}, "whole numbers"),
        ({"draws": 10**4, "guided": 10**4}, "more than 1,000,000"),
        ({"observed": {"infection": [1] * 26}}, "26 days were observed, but the run has 25"),
        ({"observed": {"infection": [5_000]}}, r"none of 16 guided runs .* infection \[5000\]"),
        ({"guided": 1}, "guided=1"),
        ({"guided": 2}, "of 2, and 10 are needed"),
    ],
)
def test_what_cannot_be_is_refused(more, said):
    with pytest.raises(InputError, match=said):
        asked(**more)


def test_policies_are_refused_before_runs_are_guided(monkeypatch):
    def never(*_):
        raise AssertionError("runs were guided")

    monkeypatch.setattr("lpmppl.inference.counterfactual.abducted", never)
    for more in ({"by": {"x": "nope"}}, {"set": {"betta": 1.0}}):
        with pytest.raises(InputError):
            asked(**more)
    with pytest.raises(InputError, match="outside the run"):
        lpm.counterfactual(MODEL, {"transmission": 0.5}, 50, 25, observed={"infection": [1]})


def test_a_posterior_of_something_else_is_noticed():
    values = {"beta": [0.3, 0.3, 0.3], "gamma": [0.1] * 3, "initial_infected": [0.02, 0.02, 0.3]}
    fit = xr.DataTree.from_dict({"posterior": xr.Dataset({k: (("chain", "draw"), [x]) for k, x in values.items()})})
    with pytest.warns(UserWarning, match="1 of 3 draws of the posterior"):
        asked(posterior=fit, observed={"infection": SEEN[:4].tolist()}, guided=20, set={})
    fit["posterior"]["initial_infected"][..., -1] = 0.0
    with pytest.raises(InputError, match="1 of 3 draws of the posterior, none of 20"):
        asked(posterior=fit, observed={"infection": SEEN[:4].tolist()}, guided=20, set={})


def test_events_of_a_constant_hazard_may_be_seen_too():
    days = {"infection": SEEN[:3].tolist(), "recovery": [2, 1, 0]}
    tree = asked(observed=days, draws=None, guided=400)
    assert (infections(tree).to_numpy()[0][:, :3] == SEEN[:3]).all()
    recoveries = tree["prior_predictive"]["recoveries"].sel(policy="as it was")
    assert (recoveries.sum([d for d in recoveries.dims if d not in ("draw", "day")])[..., :3] == days["recovery"]).all()


def test_weights_of_abduction_are_kept_when_more_is_observed():
    tree = asked(draws=30, guided=2, observed={"infection": SEEN[:3].tolist()})
    before = tree["prior"]["weight"].to_numpy()
    assert len({*before}) > 1
    after = lpm.weigh(tree, {"infections": SEEN[:3].tolist()}, size=None, least=1.0)
    np.testing.assert_allclose(after["prior"]["weight"], before)
    assert {*json.loads(after.attrs["observed"])} == {"infection", "infections"}
