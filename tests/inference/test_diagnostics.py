"""Checks of posteriors find right ones right and wrong ones wrong."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

import lpmppl as lpm
from lpmppl.errors import InputError, LpmError
from lpmppl.inference import diagnostics
from lpmppl.inference.diagnostics import simulation_based_calibration

MODEL = lpm.nyc.sir(lpm.nyc.population(1_000))
HELD = {"gamma": 0.12, "initial_infected": 0.02}


def pretending(monkeypatch, width, shift=0.0, fails=()):
    """A fit that knows the truth, up to an error of its own: right where it says how large that is."""
    rng = np.random.default_rng(0)
    truths = diagnostics.Scale(MODEL, ["beta"]).drawn(60, 5)[:, 0].numpy()
    calls = []

    def fit(model, data, **options):
        k = len(calls)
        calls.append(options)
        if k in fails:
            raise LpmError("no fit")
        # The prior is about standard normal: a measurement with error 1 halves its variance.
        seen = truths[k] + rng.normal()
        u = seen / 2 + shift + width * np.sqrt(0.5) * rng.normal(size=400)
        values = diagnostics.Scale(MODEL, ["beta"]).columns(torch.from_numpy(u)[:, None])[0].numpy()
        return xr.DataTree.from_dict({"posterior": xr.Dataset({"beta": (("chain", "draw"), values[None])})})

    monkeypatch.setattr(diagnostics, "calibrate", fit)
    return simulation_based_calibration(MODEL, "infections", 3, 60, parameters=["beta"], set=HELD, seed=5)


def test_a_right_posterior_has_uniform_ranks_and_covers(monkeypatch) -> None:
    found = pretending(monkeypatch, 1.0)
    assert float(found["p_value"][0]) > 0.01 and 0.8 <= float(found["coverage"][0]) <= 1.0
    assert json.loads(found.attrs["verdict"]) == ["ranks are uniform as far as this many data sets can tell"]
    assert found["rank"].sizes == {"dataset": 60, "parameter": 1} and found.attrs["failed"] == 0


def test_a_narrow_one_is_too_confident_and_a_shifted_one_isnt_uniform(monkeypatch) -> None:
    narrow = pretending(monkeypatch, 0.3)
    assert "beta: too confident" in json.loads(narrow.attrs["verdict"])[0] and float(narrow["coverage"][0]) < 0.6
    assert "aren't uniform" in json.loads(pretending(monkeypatch, 1.0, shift=1.5).attrs["verdict"])[0]


def test_fits_without_a_result_are_counted(monkeypatch) -> None:
    found = pretending(monkeypatch, 1.0, fails=(1, 7))
    assert found.attrs["failed"] == 2 and int(np.isnan(found["rank"]).sum()) == 2


def test_it_runs_on_a_model_and_says_where_there_are_too_few() -> None:
    exact = {"exactly": True, "evaluations": 100, "draws": 50}
    found = simulation_based_calibration(
        MODEL, {"infection": "infections"}, 4, 2, parameters=["beta"], set=HELD, **exact
    )
    assert json.loads(found.attrs["verdict"]) == ["2 data sets are too few to judge: give 20 or more"]
    assert bool((found["sd"] > 0).all())


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'infections'"):
        simulation_based_calibration(MODEL, "infection", 3)
    with pytest.raises(InputError, match="datasets=1"):
        simulation_based_calibration(MODEL, "infections", 3, 1)
    with pytest.raises(InputError, match="names nothing"):
        simulation_based_calibration(MODEL, [], 3)
