"""Posteriors of small societies given the number of events of each day."""

import json

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl.errors import InputError

MODEL = lpm.nyc.sir(lpm.nyc.population(1_000))
TRUTH = {"beta": 0.35, "gamma": 0.12, "initial_infected": 0.02}
MADE = lpm.run(MODEL, 14, seed=2, set=TRUTH)["prior_predictive"]["infections"]
SEEN = MADE.sum([d for d in MADE.dims if d != "day"]).to_numpy().astype(float)


@pytest.fixture(scope="module")
def found():
    torch.set_num_threads(1)
    before = torch.get_rng_state()
    held = {"gamma": TRUTH["gamma"], "initial_infected": TRUTH["initial_infected"]}
    tree = lpm.calibrate_exactly(MODEL, {"infection": [*SEEN[:10], float("nan"), *SEEN[11:]]}, 200, set=held, draws=500)
    assert bool((before == torch.get_rng_state()).all())
    return tree


def test_the_posterior_is_near_the_truth_and_narrower_than_the_prior(found) -> None:
    beta, prior = (found[group]["beta"].to_numpy() for group in ("posterior", "prior"))
    assert beta.shape == (1, 500) and abs(beta.mean() - TRUTH["beta"]) < 4 * beta.std()
    assert beta.std() < 0.6 * prior.std()
    assert list(found["posterior"].data_vars) == ["beta"]


def test_what_it_says_of_itself(found) -> None:
    assert found.attrs["runs"] <= 200 and found.attrs["effective"] > 10
    assert found["sample_stats"]["log_weight"].sizes == {"evaluation": found.attrs["runs"]}
    assert np.isnan(found["observed_data"]["infection"][10]) and found["observed_data"]["infection"].sizes["day"] == 14
    verdict = json.loads(found.attrs["verdict"])
    assert len(verdict) == 2 and "k-hat" in verdict[1]
    assert json.loads(found.attrs["set"])["gamma"] == pytest.approx(0.12)


def test_it_may_be_asked_what_if(found) -> None:
    what = lpm.counterfactual(MODEL, do={"transmission": 0.0}, at=0, days=3, draws=2, posterior=found)
    assert float(lpm.contrast(what)["infections"].sel(estimate="mean").max()) < 0


@pytest.mark.parametrize(
    ("seen", "more", "said"),
    [
        ({"infectoin": [1, 2]}, {}, "did you mean 'infection'"),
        ({"infection": [1.5]}, {}, "whole numbers"),
        ({"infection": [1, 2]}, {"parameters": ["bta"]}, "did you mean 'beta'"),
        ({"infection": [1, 2]}, {"evaluations": 3}, "evaluations=3"),
        ({"infection": [1, 2]}, {"draws": 0}, "draws=0"),
    ],
)
def test_what_cannot_be_is_refused(seen, more, said) -> None:
    with pytest.raises(InputError, match=said):
        lpm.calibrate_exactly(MODEL, seen, **{"evaluations": 100, **more})
