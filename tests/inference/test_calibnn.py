"""A network that calibrates: what it learns, what it says of itself, and societies that it hasn't met."""

import json
from dataclasses import replace

import arviz as az
import numpy as np
import pyro.distributions as dist
import pytest
import torch

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.inference.answer import Answer
from lpmppl.models.model import Parameter
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from lpmppl.report.calibration import warns
from lpmppl.report.page import write

DAYS = 15


def society(agents=400, by=False):
    """People who meet as one group, of whom enough bring the infection that every run has some."""
    people = Population.of({"household": np.arange(agents) // 2, "borough": (np.arange(agents) % 2).astype(np.uint8)})
    model = SIR(people, [people.everyone()], by={"borough": "borough"} if by else None)
    prior = Parameter(dist.Beta(20.0, 380.0), 0.05, "share of the people", "the first infected", "test")
    model.parameters = {**model.parameters, "initial_infected": prior}
    return model


def counts_of(model, seed=3, **values):
    made = lpm.run(model, DAYS, seed, set=values)["prior_predictive"]["infections"]
    return made.sum([d for d in made.dims if d != "day"]).to_numpy().astype(float)


@pytest.fixture(scope="module")
def learnt():
    torch.set_num_threads(1)
    before = torch.get_rng_state()
    network = lpm.CalibNN(society(), "infections", DAYS, set={"gamma": 0.1})
    losses = [network.learn(256)[""], network.learn(192)[""]]
    assert bool((before == torch.get_rng_state()).all())
    return network, losses


def test_runs_it_has_not_seen_are_told_better_than_by_the_prior(learnt):
    network, (first, later) = learnt
    u = network.tasks[""].scale.drawn(2000, 1)
    prior = -float(torch.distributions.Normal(u.mean(0), u.std(0)).log_prob(u).sum(-1).mean())
    assert later < first < prior and later < prior - 1.0


def test_its_intervals_hold_what_they_should(learnt):
    network, _ = learnt
    found = network.calibration(last=250)
    assert found.attrs["runs"] == 250 and list(found["parameter"].values) == ["beta", "initial_infected"]
    assert ((found["coverage"] > 0.8) & (found["coverage"] < 0.98)).all() and (found["p_value"] > 1e-6).all()


def test_a_posterior_follows_the_data(learnt):
    network, _ = learnt
    means = []
    for beta in (0.2, 0.6):
        seen = counts_of(society(), beta=beta, gamma=0.1, initial_infected=0.05)
        fit = network.posterior({"infections": seen}, draws=400)
        mine = fit["posterior"]["beta"].to_numpy()
        assert abs(mine.mean() - beta) < 4 * mine.std() and mine.std() < 0.7 * fit["prior"]["beta"].to_numpy().std()
        means.append(mine.mean())
    assert means[0] < means[1] - 0.1
    assert fit.attrs["runs_coverage"] > 0.8 and (fit["observed_data"]["infections"] == seen).all()
    same = network.posterior({"infections": seen}, draws=400)
    assert (same["posterior"]["beta"] == fit["posterior"]["beta"]).all()
    # Fewer days say less.
    short = network.posterior({"infections": seen[:4]}, draws=400)
    assert short["posterior"]["beta"].to_numpy().std() > mine.std()
    what = lpm.counterfactual(society(), {"transmission": 0.0}, 2, 5, draws=2, posterior=fit)
    assert float(lpm.contrast(what)["infections"].sel(estimate="mean").max()) < 0


def test_runs_at_draws_say_what_would_have_been_counted(learnt, tmp_path):
    network, _ = learnt
    seen = counts_of(society(), beta=0.4, gamma=0.1, initial_infected=0.05)
    fit = network.posterior({"infections": seen[:10]}, draws=200, simulations=8, ahead=5)
    predictive, ahead = fit["posterior_predictive"]["infections"], fit["forecast"]["infections"]
    assert dict(predictive.sizes) == {"chain": 1, "draw": 200, "day": DAYS}
    assert list(ahead["day"].values) == list(range(DAYS, DAYS + 5))
    assert fit["predictions"]["recoveries"].sizes["day"] == fit.attrs["days"] == DAYS + 5
    # The days that were kept from it are told by the runs.
    low, high = (predictive.quantile(q, ("chain", "draw")).to_numpy() for q in (0.02, 0.98))
    assert ((low <= seen) & (seen <= high))[10:].mean() >= 0.6
    assert np.isnan(fit["observed_data"]["infections"][10:]).all() and 0.5 < fit.attrs["coverage"] <= 1.0
    said = json.loads(fit.attrs["verdict"])
    assert "90 % intervals held" in said[0] and "bands hold" in said[-1]
    page = write(fit, tmp_path / "page.html").read_text()
    assert "Is it to be believed?" in page and "intervals held" in page
    assert float(az.summary(fit["posterior"].to_dataset(), kind="stats")["mean"]["beta"]) > 0


def test_it_is_gone_on_from_by_a_calibration(learnt):
    network, _ = learnt
    model = society()
    seen = counts_of(model, beta=0.4, gamma=0.1, initial_infected=0.05)
    first = network.posterior({"infections": seen})
    options = {"rounds": 1, "set": {"gamma": 0.1}, "rows": 32, "simulations": 4, "draws": 100, "restarts": 1}
    refined = lpm.calibrate(model, {"infections": seen}, before=first, **options)
    assert abs(refined.attrs["moved"]) < 2.0
    beta = refined["posterior"]["beta"].to_numpy()
    assert abs(beta.mean() - 0.4) < 4 * beta.std()


def test_what_is_known_of_a_network_is_said(learnt):
    network, _ = learnt
    seen = {"infections": counts_of(society(), beta=0.4, gamma=0.1, initial_infected=0.05)}
    model = network.tasks[""].model
    assert network.posterior(seen, model, draws=5).attrs["verdict"] == network.posterior(seen, draws=5).attrs["verdict"]
    (said,) = json.loads(network.posterior(seen, society(), draws=5).attrs["verdict"])
    assert said == "how right this is isn't known: the network met no run of this society" and warns(said)
    answer = Answer(network.tasks[""], None, None, DAYS, network.calibration(), [])
    for coverage, p, first, more in ((0.6, 0.9, "too confident", 0), (0.9, 1e-6, "in the last", 1)):
        ranks = network.calibration().assign(coverage=("parameter", [coverage] * 2), p_value=("parameter", [p, 0.5]))
        said, figures = replace(answer, ranks=ranks)._verdict(torch.zeros(3, 2))
        assert said[0].startswith(first) and figures["runs_coverage"] == coverage and warns(said[0]) == (not more)
        assert sum("beta isn't where its posterior says" in x for x in said) == more
    with pytest.raises(InputError, match="a society that has its own"):
        network.posterior(seen, covariates=[1.0])
    for strange in (None, 3, ["a"]):
        with pytest.raises(InputError, match="society"):
            network.posterior(seen, strange)


@pytest.mark.parametrize(("options", "said"), [({"simulations": 1}, "simulations=1"), ({"ahead": 3}, "ahead=3")])
def test_runs_that_cant_be_made_are_refused(learnt, options, said):
    with pytest.raises(InputError, match=said):
        learnt[0].posterior({"infections": [1.0] * DAYS}, **options)


def test_data_beyond_all_runs_are_noticed(learnt):
    network, _ = learnt
    with pytest.warns(UserWarning, match="infections: more or fewer were seen than in any of 448 runs"):
        network.posterior({"infections": [400.0] * 9}, draws=3)


def test_the_same_seed_learns_the_same():
    networks = [lpm.CalibNN(society(), "infections", 5, seed=4) for _ in range(2)]
    assert len({network.learn(70)[""] for network in networks}) == 1
    again = lpm.CalibNN(society(), "infections", 5, seed=5)
    assert again.learn(70)[""] != networks[0].losses[-1]


def test_several_societies_share_a_network_and_one_more_is_read_by_it():
    strata = {"few": society(200, by=True), "many": society(800, by=True)}
    network = lpm.CalibNN(strata, {"infections": ["borough"]}, 6, covariates={"few": [0.0], "many": [1.0]})
    losses = network.learn(64)
    assert {*losses} == {*strata} and network.tasks["few"].ensemble.runs == 64
    other = society(400, by=True)
    made = lpm.run(other, 6, 1)["prior_predictive"]["infections"].isel(chain=0, draw=0).astype(float)
    fit = network.posterior(made.to_dataset(name="infections"), other, covariates=[0.5], draws=10)
    assert fit.attrs["agents"] == 400 and fit["posterior"]["gamma"].sizes == {"chain": 1, "draw": 10}
    with pytest.raises(InputError, match="0 covariates"):
        network.posterior(made.to_dataset(name="infections"), other)
    with pytest.raises(InputError, match="is by nothing, and the network reads it by borough"):
        network.posterior({"infections": [1, 2, 3]}, "few")


def test_strata_are_told_apart():
    """What is the same in sum, but in another borough, is other data."""
    network = lpm.CalibNN(society(by=True), {"infections": ["borough"]}, 4)
    network.learn(64)
    assert network.tasks[""].streams == ["infections/0", "infections/1"]
    counts = torch.tensor([[9.0, 0, 9, 0, 9, 0, 9, 0], [0, 9, 0, 9, 0, 9, 0, 9]], dtype=torch.float64)
    one, other = network.given(counts).mean
    assert float((one - other).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("models", "streams", "more", "said"),
    [
        ({}, "infections", {}, "no society"),
        (3, "infections", {}, "no society"),
        ({"a": 3}, "infections", {}, "a model is needed"),
        (society(), "infectious people", {}, "unknown stream"),
        (society(), [], {}, "names nothing"),
        (society(by=True), {"infections": ["burrow"]}, {}, "borough"),
        (society(), "infections", {"days": 1}, "days=1"),
        (society(), "infections", {"parameters": ["bta"]}, "did you mean 'beta'"),
        (society(), "infections", {"covariates": {"": [float("nan")]}}, "finite numbers"),
        ({"a": society(), "b": society()}, "infections", {"covariates": {"a": [1.0]}}, "as many"),
        (society(), "infections", {"covariates": {"": ["wide"]}}, "finite numbers"),
        (society(), "infections", {"covariates": {"burrow": [1.0]}}, "unknown society 'burrow'"),
        (society(), 3, {}, "give the names"),
    ],
)
def test_what_cannot_be_is_refused(models, streams, more, said):
    with pytest.raises(InputError, match=said):
        lpm.CalibNN(models, streams, **{"days": 5, **more})


def test_what_it_cannot_answer_is_refused(learnt):
    network, _ = learnt
    with pytest.raises(InputError, match="hasn't learnt anything"):
        lpm.CalibNN(society(), "infections", 5).posterior({"infections": [1, 2]})
    with pytest.raises(InputError, match="streams= has 3 for strata"):
        lpm.CalibNN(society(), {"infections": 3}, 5)
    with pytest.raises(InputError, match="unknown society 'burrow'"):
        network.posterior({"infections": [1, 2]}, "burrow")
    with pytest.raises(InputError, match="unknown society 'burrow'"):
        network.given(torch.ones(1, DAYS), "burrow")
    with pytest.raises(InputError, match=r"shape \(1, 7\) were given; give a tensor of shape \(B, 15\)"):
        network.given(torch.ones(1, 7))
    with pytest.raises(InputError, match=r"ndarray were given; give a tensor of shape \(B, 15\)"):
        network.given(np.ones((1, DAYS)))
    with pytest.raises(InputError, match="unknown society"):
        network.given(torch.ones(1, DAYS), ["burrow"])
    with pytest.raises(InputError, match="hasn't learnt anything"):
        lpm.CalibNN(society(), "infections", 5).given(torch.ones(1, 5))
    with pytest.raises(InputError, match="simulations=0"):
        network.learn(0)
    with pytest.raises(InputError, match="give counts"):
        network.posterior({"infections": [1, -2]})
    with pytest.raises(InputError, match="did you mean 'infections'"):
        network.posterior({"infection": [1, 2]})
    with pytest.raises(InputError, match="recoveries"):
        network.posterior({"infections": [1, 2], "recoveries": [1, 2]})
    seirm = lpm.nyc.seirm(lpm.nyc.population(1_000))
    with pytest.raises(InputError, match="unknown parameter 'gamma'"):
        network.posterior({"infections": [1, 2]}, seirm)
    free = lpm.CalibNN(society(), "infections", 2)
    free.learn(2)
    with pytest.raises(InputError, match="never met the parameters latent_mean, latent_spread"):
        free.posterior({"infections": [1, 2]}, seirm)


@pytest.mark.parametrize(
    "make",
    [
        lambda: lpm.CalibNN(society(200), "infections", 5, seed=4),
        lambda: lpm.SplitCalibNN(society(200), {"a": "infections", "b": "recoveries"}, 5, seed=4),
        lambda: lpm.FederatedCalibNN({"a": society(100), "b": society(200)}, "infections", 5, local=5, seed=4),
    ],
    ids=["whole", "split", "federated"],
)
def test_a_kept_network_goes_on_as_if_it_had_never_stopped(make, tmp_path, monkeypatch):
    monkeypatch.setattr(lpm.inference.calibnn, "_REPLAY", 10)
    one, other = make(), make()
    one.learn(70)
    one.save(tmp_path / "network.npz")
    other.resume(tmp_path / "network.npz")
    name = next(iter(one.tasks))
    assert one.learn(66) == other.learn(66) and one.losses == other.losses
    counts = torch.ones(1, len(one.tasks[name].ensemble.observed.counts), dtype=torch.float64)
    assert torch.equal(one.given(counts, name).mean, other.given(counts, name).mean)
    assert (one.calibration(name)["coverage"] == other.calibration(name)["coverage"]).all()


def test_a_network_of_another_make_is_not_taken_up(tmp_path):
    network = lpm.CalibNN(society(200), "infections", 5)
    network.learn(2)
    network.save(tmp_path / "network.npz")
    done = {"interventions": [("transmission", 0.0, 1)]}
    for other in (
        lpm.CalibNN(society(300), "infections", 5),
        lpm.CalibNN(society(200), "infections", 6),
        lpm.CalibNN(society(200), "infections", 5, **done),
        lpm.CalibNN(society(200), "infections", 5, covariates={"": [1.0]}),
    ):
        with pytest.raises(InputError, match="is of another network"):
            other.resume(tmp_path / "network.npz")
    with pytest.raises(InputError, match="there is no network at"):
        network.resume(tmp_path / "nothing.npz")
    (tmp_path / "torn.npz").write_bytes((tmp_path / "network.npz").read_bytes()[:500])
    with pytest.raises(InputError, match="damaged"):
        network.resume(tmp_path / "torn.npz")
    with pytest.raises(InputError, match="can't be written"):
        network.save(tmp_path / "no" / "folder.npz")
