"""Calibration: the response it learns, the guides it fits, and posteriors that hold what the data were made by."""

import json
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr

import lpmppl as lpm
from lpmppl.effects.handlers import DiscreteTime, Expected
from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.ensemble import Ensemble
from lpmppl.inference.guides import GUIDES, guide_of
from lpmppl.inference.objectives import Counts
from lpmppl.inference.observed import Observed
from lpmppl.inference.predicted import Predicted
from lpmppl.inference.response import Response, basis
from lpmppl.inference.rounds import CalibrationRounds
from lpmppl.inference.run import playing
from lpmppl.inference.scales import Scale
from lpmppl.inference.svi import fitted, weighed
from lpmppl.models.model import Parameter
from lpmppl.models.varying import Varying

DAYS = 30
QUICK = {"rounds": 1, "rows": 16, "draws": 100, "simulations": 2, "restarts": 1, "steps": 60}


def society(agents=4_000):
    """An SIR that begins with a hundred people, so that chance is of the counts and not of an outbreak."""
    model = lpm.nyc.sir(lpm.nyc.population(agents))
    first = Parameter(dist.Beta(20.0, 780.0), 0.025, "infected at day 0", "share of the population", "chosen")
    model.parameters = {**model.parameters, "initial_infected": first}
    return model


TRUTH = {"beta": 0.36, "gamma": 0.11, "initial_infected": 0.03}


def counts(model, seed=5, names=("infections",)):
    made = lpm.run(model, DAYS, seed=seed, set=TRUTH)["prior_predictive"]
    return {n: made[n].sum([d for d in made[n].dims if d != "day"]).to_numpy().astype(float) for n in names}


@pytest.fixture(scope="module")
def calibrated():
    torch.set_num_threads(1)
    model = society()
    before, store = torch.get_rng_state(), dict(pyro.get_param_store().items())
    found = lpm.calibrate(model, counts(model), rounds=4, draws=200, simulations=4, ahead=3, steps=200)
    assert torch.equal(before, torch.get_rng_state()) and dict(pyro.get_param_store().items()) == store
    return model, found


def test_the_posterior_holds_what_the_data_were_made_by(calibrated) -> None:
    _, found = calibrated
    posterior, prior = found["posterior"].to_dataset(), found["prior"].to_dataset()
    for name, value in TRUTH.items():
        draws = posterior[name].to_numpy()
        assert abs(draws.mean() - value) < 3.5 * draws.std(), name
        assert draws.std() < prior[name].to_numpy().std(), name
    assert posterior["beta"].std() < 0.5 * prior["beta"].std()
    assert posterior["beta"].attrs["units"] and posterior["beta"].shape == (2, 200)


def test_the_tree_is_what_arviz_reads(calibrated, tmp_path) -> None:
    import arviz as az

    _, found = calibrated
    seen, predicted = found["observed_data"]["infections"], found["posterior_predictive"]["infections"]
    assert seen.sizes == {"day": DAYS} and predicted.dims == ("chain", "draw", "day")
    assert found["log_likelihood"]["infections"].shape == (2, 200, DAYS)
    assert float(az.rhat(found["posterior"].to_dataset()).to_array().max()) < 1.05
    assert found["predictions"]["infections"].sizes["day"] == DAYS + 3 == found.attrs["days"]
    assert found["predictions"]["infections"].sizes["draw"] == 4
    assert found["forecast"]["day"].values.tolist() == [DAYS, DAYS + 1, DAYS + 2]
    found.to_netcdf(tmp_path / "fit.nc", engine="h5netcdf")
    verdict = json.loads(found.attrs["verdict"])
    assert any("k-hat" in s for s in verdict) and found.attrs["khat"] < 0.7
    assert 0.8 <= found.attrs["coverage"] <= 1.0
    assert 0.0 < found.attrs["chance"] < 0.9 and not any("chance alone" in s for s in verdict)


def test_where_few_begin_it_the_verdict_says_what_chance_does() -> None:
    """One of 4,000 or a few: whether it takes off at all is chance."""
    found = lpm.calibrate(
        lpm.nyc.sir(lpm.nyc.population(4_000)), {"infections": [0, 1] + [0] * 18}, restarts=1, rounds=3, simulations=2
    )
    assert found.attrs["chance"] > 0.9
    assert any("ask lpm.calibrate_exactly" in s for s in json.loads(found.attrs["verdict"]))


def test_rounds_learn_from_the_runs_of_earlier_ones_that_were_near() -> None:
    model = society(2_000)
    observed = Observed.of(model, counts(model), None)
    fixed = {"gamma": TRUTH["gamma"], "initial_infected": TRUTH["initial_infected"]}
    looking = CalibrationRounds(Ensemble(model, observed, 3), Scale(model, ["beta"]), fixed, 16, 3)
    taught = [looking.go(most).rows for most in (1, 2, 3)]
    at = np.array(looking.centres)[:, 0]
    assert taught == [16 * int((abs(at[: k + 1] - at[k]) < 0.5).sum()) for k in range(3)]
    # The first one was far from where the others are.
    assert taught == [16, 16, 32]


def test_the_same_seed_gives_the_same_posterior_also_when_resumed(tmp_path) -> None:
    model = society(2_000)
    data, path = counts(model), tmp_path / "kept.npz"
    asked = {"rounds": 2, "rows": 16, "draws": 20, "simulations": 2, "restarts": 1, "steps": 40}
    whole = lpm.calibrate(model, data, **asked)
    lpm.calibrate(model, data, **{**asked, "rounds": 1}, checkpoint=path)
    resumed = lpm.calibrate(model, data, **asked, checkpoint=path, resume=True)
    assert whole["posterior"].to_dataset().equals(resumed["posterior"].to_dataset())
    assert whole["predictions"].to_dataset().equals(resumed["predictions"].to_dataset())
    assert resumed.attrs["runs"] == whole.attrs["runs"] - 16
    with pytest.raises(InputError, match="belongs to another calibration"):
        lpm.calibrate(model, data, **{**asked, "rows": 18}, checkpoint=path, resume=True)
    with pytest.raises(InputError, match="another calibration"):
        lpm.calibrate(model, data, **asked, before=whole, checkpoint=path, resume=True)
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="damaged"):
        lpm.calibrate(model, data, **asked, checkpoint=path, resume=True)


def test_what_the_data_say_nothing_of_keeps_its_prior_and_the_whole_is_made_up_for() -> None:
    data = counts(society(4_000))
    whole, coarse = (Varying(society(n), knots=(40,)) for n in (4_000, 1_000))
    found = lpm.calibrate(
        whole, {"infections": data["infections"]}, unseen=["transmission_40"], coarse=coarse, rounds=2, draws=100,
        simulations=2, restarts=1, steps=60, set={"gamma": TRUTH["gamma"]},
    )  # fmt: skip
    later = np.log(found["posterior"]["transmission_40"].to_numpy())
    assert abs(later.std() - 0.3) < 0.1 and abs(later.mean()) < 0.15
    assert "gamma" not in found["posterior"] and json.loads(found.attrs["set"])["gamma"] == pytest.approx(0.11)
    # A quarter of the people stands for all of them: that it has a quarter of the infections is no gap.
    gap = found["fit"]["gap_infections"].to_numpy()[:10]
    assert found.attrs["coarse_agents"] == 1_000 and abs(gap.mean()) < 0.3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"guide": "normals"}, "did you mean 'normal'"),
        ({"parameters": ["bta"]}, "did you mean 'beta'"),
        ({"parameters": "beta", "set": {"beta": 0.3}}, "is to be fitted and is set"),
        ({"set": dict(TRUTH)}, "no parameter is left"),
        ({"set": {"beta": -1.0}}, "its prior lives on"),
        ({"rounds": 0}, "rounds=0"),
        ({"rows": 4}, "rows=4"),
        ({"ahead": -1}, "ahead=-1"),
        ({"steps": 0}, "steps=0"),
        ({"simulations": 1}, "simulations=1"),
        ({"coarse": "small"}, "isn't the same model"),
        ({"resume": True}, "no checkpoint"),
        ({"until": "2020-01-01"}, "the number of the last day"),
        ({"unseen": list(TRUTH)}, "leaves no parameter"),
        ({"checkpoint": "/nowhere/kept.npz"}, "there is no folder /nowhere"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_anything_runs(given, said) -> None:
    with pytest.raises(InputError, match=said):
        lpm.calibrate(society(1_000), {"infections": [1.0, 2.0]}, **given)


def test_data_beyond_the_model_and_what_is_no_model_are_refused_in_words() -> None:
    with pytest.raises(LpmError, match="far beyond its prior"):
        lpm.calibrate(society(1_000), {"infections": [1e12] * 5}, **QUICK)
    with pytest.raises(InputError, match="a model is needed, but str"):
        lpm.calibrate("sir", {"infections": [1.0]})


def test_few_days_nothing_seen_and_great_seeds_have_an_answer() -> None:
    model = society(1_000)
    for data in ([3.0], [0.0] * 4, [float("nan")] * 3 + [4.0]):
        found = lpm.calibrate(model, {"infections": data}, **{**QUICK, "draws": 20, "steps": 10}, seed=2**62)
        assert bool(np.isfinite(found["posterior"].to_dataset().to_array()).all())
    assert "too few to judge the guide by" in found.attrs["verdict"]


def test_a_response_is_found_again() -> None:
    rng = np.random.default_rng(0)
    model = society(1_000)
    seen = Observed.of(model, {"infections": np.ones(DAYS)})
    u = rng.normal(size=(80, 2))
    shape = basis(DAYS)
    slopes = np.stack([shape @ rng.normal(size=shape.shape[1]) * 0.3 for _ in range(2)], 1)
    level = 4 + np.sin(np.arange(DAYS) / 5)
    means = rng.poisson(np.exp(level + u @ slopes.T)).astype(float)
    found = Response.learnt(seen, u, means, np.full_like(means, np.inf), 1_000)
    assert np.abs(found.slopes - slopes).max() < 0.08
    assert np.abs(found.level + found.slopes @ -found.middle - level).max() < 0.15
    assert 0.8 < found.own[0] < 1.2 and found.misfit.shape == (DAYS, 0)
    lax = Response.learnt(seen, u, means, np.full_like(means, np.inf), 1_000, misfit=0.3)
    assert np.sqrt((lax.misfit**2).sum(1)) == pytest.approx([0.3] * DAYS)
    eta = torch.cat([torch.zeros(found.latent), torch.ones(lax.misfit.shape[1])]).double()
    here = torch.from_numpy(lax.middle)
    off = torch.log(lax.at(here, eta, 1_000)[0] / lax.at(here, 0 * eta, 1_000)[0]).numpy()
    assert lax.lacking(eta) == pytest.approx(off) and abs(off).max() > 0.3
    shift = 0.4 * np.linspace(-1, 1, DAYS)
    other = rng.poisson(np.exp(level + u[:6] @ slopes.T + shift)).astype(float)
    assert np.abs(found.departure(seen, u[:6], other, 1_000) - shift).max() < 0.2


def test_what_the_model_may_lack_widens_posterior_and_bands() -> None:
    model = society(2_000)
    strict, loose = (lpm.calibrate(model, counts(model), **QUICK, misfit=m) for m in (0.0, 0.3))
    for name in ("beta", "gamma"):
        assert float(loose["posterior"][name].std()) > 1.1 * float(strict["posterior"][name].std())
    assert loose.attrs["misfit"] == 0.3
    with pytest.raises(InputError, match="misfit=-1"):
        lpm.calibrate(model, counts(model), **QUICK, misfit=-1)


def test_what_reports_expect_is_kept_and_the_run_unchanged() -> None:
    model = lpm.nyc.pandemic(lpm.nyc.population(2_000))
    theta, last = {**model.defaults(), "initial_infected": torch.tensor(0.1)}, torch.tensor(12.0)
    expected = Expected()
    with playing(model, 1, 0, [], DiscreteTime(), inside=[expected]) as record:
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), last)
    with playing(model, 1, 0, [], DiscreteTime()) as plain:
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), last)
    assert all(np.array_equal(x.values, plain.series[n].values) for n, x in record.series.items())
    means = expected.means["reported/admissions"]
    assert sorted(means) == list(range(12)) and bool(means[11].sum() > 0)
    assert float(expected.sizes["reported/admissions"][3].max()) == pytest.approx(20.0)


def test_rows_of_an_ensemble_are_the_runs_of_each_by_itself() -> None:
    model = lpm.nyc.pandemic(lpm.nyc.population(2_000))
    seen = Observed.of(model, {"cases": np.ones(12), "admissions": np.ones(12)})
    middle = {n: p.default for n, p in model.parameters.items()} | {"initial_infected": 0.1}
    thetas = [middle | {"initial_infected": x} for x in (0.05, 0.1, 0.15)]
    together, _, _ = Ensemble(model, seen, 0)(thetas, [3, 4, 4])
    for k, (theta, chance) in enumerate(zip(thetas, (3, 4, 4), strict=True)):
        alone, _, _ = Ensemble(model, seen, 0)([theta], [chance])
        assert np.allclose(together[k], alone[0], rtol=1e-4, atol=1e-3)
    assert together[1].sum() != together[2].sum()


def test_a_weekly_stream_is_refused_on_other_days() -> None:
    model = lpm.nyc.pandemic(lpm.nyc.population(2_000))
    seen = Observed.of(model, {"ui_claims": [float("nan"), 5.0, float("nan")]})
    with pytest.raises(InputError, match="'ui_claims' was observed on day 1, but the model counts it on days"):
        Ensemble(model, seen, 0)([{n: p.default for n, p in model.parameters.items()}] * 2, [0, 1])


def test_bands_that_hold_strata_need_not_hold_their_sums() -> None:
    rng = np.random.default_rng(0)
    model = society(1_000)
    shape = (20, 5)
    # All strata are high on one day and low on the next: each within its band, their sum outside.
    y = 100.0 + 12.0 * np.where(np.arange(20) % 2, 1.0, -1.0)[:, None] * np.ones(shape)
    names = list(model.by.dims["borough"])
    data = xr.Dataset({"infections": (("day", "borough"), y)}, {"day": range(20), "borough": names})
    seen = Observed.of(model, data)
    runs = xr.Dataset({"infections": (("chain", "draw", "day", "borough"), rng.poisson(100, (1, 400, *shape)))})
    found = Predicted(model, seen, [], np.zeros((1, 100)), np.zeros((1, 100)), [])
    assert found.coverage(runs) > 0.95
    assert found.coverage(runs, summed=True) < 0.1


@pytest.fixture(scope="module")
def objective():
    model = society(1_000)
    seen = Observed.of(model, {"infections": np.round(20 * np.exp(-np.arange(DAYS) / 20))})
    scale = Scale(model, ["beta", "gamma"])
    rng = np.random.default_rng(1)
    level, slopes = np.full(DAYS, 2.5), np.stack([np.linspace(0, 1, DAYS), -np.linspace(0, 0.8, DAYS)], 1)
    response = Response(
        np.zeros(2), level, slopes, 0.05 * rng.normal(size=(DAYS, 2)), np.full(DAYS, 3.0), np.zeros((DAYS, 2)),
        np.ones(DAYS), 1_000, 100, np.zeros((DAYS, 0)),
    )  # fmt: skip
    return Counts(scale, response, seen, 1_000)


def test_a_mode_is_where_the_slope_vanishes_and_the_program_agrees(objective) -> None:
    at, covariance = objective.mode(torch.zeros(4, dtype=torch.float64))
    slope = torch.func.grad(objective.log_joint)(at)
    assert float(slope.abs().max()) < 1e-3 and bool((torch.linalg.eigvalsh(covariance) > 0).all())
    values = dict(zip(["beta", "gamma"], objective.scale.columns(at[:2]), strict=True))
    conditioned = pyro.condition(objective, data={**values, "chance": at[2:]})
    total = float(pyro.poutine.trace(conditioned).get_trace().log_prob_sum())
    theirs = objective.log_joint(at) - torch.tensor(2 * math.pi).log() - _jacobian(objective.scale, at[:2])
    assert total == pytest.approx(float(theirs), abs=1e-6)


def _jacobian(scale, u):
    """By how much the density on the scale exceeds that of the parameters themselves."""
    priors = sum(p.log_prob(x) for p, x in zip(scale.priors, scale.columns(u), strict=True))
    return scale.log_prior(u) - priors


@pytest.mark.parametrize("name", GUIDES)
def test_guides_come_near_their_programs_posterior(name, objective) -> None:
    at, covariance = objective.mode(torch.zeros(4, dtype=torch.float64))
    mode, width = objective.scale.unbounded(at)
    guide = guide_of(name, objective, mode, covariance * width * width[:, None])
    found = fitted(objective, guide, 150, 0)
    values, _, weight = weighed(objective, found.guide, 2_000, 1)
    exact = np.exp(weight - weight.max())
    exact /= exact.sum()
    for site in ("beta", "gamma"):
        x = values[site].numpy()
        mean = (exact * x).sum()
        sd = math.sqrt((exact * (x - mean) ** 2).sum())
        assert abs(x.mean() - mean) < 0.3 * sd
        if name != "normal":
            assert 0.8 < x.std() / sd < 1.2
    assert found.diverged is None and np.isfinite(found.losses).all()
    if name == "normal":
        both = guide_of("multivariate-normal", objective, mode, covariance * width * width[:, None])
        assert values["beta"].std() < 0.9 * weighed(objective, both, 2_000, 1)[0]["beta"].std()


def test_a_fit_that_diverges_keeps_its_best_and_one_without_a_beginning_is_refused(objective) -> None:
    at, covariance = objective.mode(torch.zeros(4, dtype=torch.float64))
    mode, width = objective.scale.unbounded(at)
    calls = []

    def breaks():
        calls.append(1)
        objective()
        if len(calls) > 40:
            pyro.factor("broken", torch.tensor(float("nan")))

    guide = guide_of("multivariate-normal", objective, mode, covariance * width * width[:, None])
    found = fitted(breaks, guide, 100, 0)
    assert found.diverged is not None and not found.converged
    assert bool(torch.isfinite(found.guide.loc).all())
    calls += [1] * 100
    with pytest.raises(LpmError, match=r"diverged at step 0|no loss at its start"):
        fitted(breaks, guide_of("multivariate-normal", objective, mode, covariance), 10, 0)


def test_any_loss_has_its_posterior_and_a_squared_one_its_warning() -> None:
    model = society(2_000)
    data = counts(model)
    with pytest.warns(UserWarning, match="a squared loss doesn't have the parameters' posterior"):
        squared = lpm.calibrate(model, data, **QUICK, loss="squared")

    def total(expected, observed):
        return (expected["infections"].sum((-1, -2)) - observed["infections"].sum()) ** 2 / 2e3

    by_total = lpm.calibrate(model, data, **QUICK, loss=total)
    flat = lpm.calibrate(model, data, **QUICK, loss=total, weight=1e6)
    spread = {
        n: float(t["posterior"]["beta"].std()) for n, t in {"squared": squared, "total": by_total, "flat": flat}.items()
    }
    assert spread["squared"] < spread["flat"] and spread["total"] < 0.95 * spread["flat"]
    prior = float(flat["prior"]["beta"].std())
    assert abs(spread["flat"] - prior) < 0.3 * prior, "with a great weight the prior is left"
    for loss, said in (("absolute", "give 'squared'"), (3, "give 'squared'")):
        with pytest.raises(InputError, match=said):
            lpm.calibrate(model, data, **QUICK, loss=loss)
    with pytest.raises(InputError, match="weight=0"):
        lpm.calibrate(model, data, **QUICK, loss=total, weight=0)
    with pytest.raises(LpmError, match="one loss for each"):
        lpm.calibrate(model, data, **QUICK, loss=lambda x, y: x["infections"])


def test_a_posterior_goes_on_from_an_earlier_one_and_says_how_far() -> None:
    model = society(2_000)
    data = counts(model)
    fewer = {"infections": data["infections"][:15]}
    before = lpm.calibrate(model, fewer, **{**QUICK, "rounds": 3})
    after = lpm.calibrate(model, data, **QUICK, before=before)
    first = after["fit"]["centre"].isel(round=0)
    for name in TRUTH:
        (here,) = Scale(model, [name]).points({name: torch.tensor([float(before["posterior"][name].mean())])})
        assert float(first.sel(parameter=name)) == pytest.approx(float(here), abs=1e-3)
    assert any(s.startswith("since the posterior before, ") for s in json.loads(after.attrs["verdict"]))
    old, new = before["posterior"]["beta"], after["posterior"]["beta"]
    assert after.attrs["moved"] >= abs(float((new.mean() - old.mean()) / old.std())) - 1e-9
    assert float(new.std()) < float(old.std())
    with pytest.raises(InputError, match="no DataTree with a group 'posterior'"):
        lpm.calibrate(model, data, **QUICK, before=lpm.run(model, 2))
