"""Events that were seen by stratum: as likely, and as telling, as each stratum's by themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import lpmppl as lpm
from lpmppl.effects.handlers import DiscreteTime, Guided, Record
from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError
from lpmppl.inference.run import playing
from lpmppl.inference.seen import by_stratum

AT = {"initial_infected": 0.05, "beta": 0.3}


@pytest.fixture(scope="module")
def model():
    return lpm.nyc.sir(lpm.nyc.population(1_000))


@pytest.fixture(scope="module")
def seen(model):
    made = lpm.run(model, days=6, seed=3, set=AT)["prior_predictive"]["infections"]
    return made.isel(chain=0, draw=0).drop_vars(["chain", "draw"])


def infections(model, observed):
    series = Guided(by_stratum(model, {"infection": observed}))
    with torch.no_grad(), Record() as record, playing(model, 5, 0, (), DiscreteTime(), inside=[series]):
        theta = {**model.defaults(), **{n: torch.tensor(x) for n, x in AT.items()}}
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(6.0))
    sizes = [len(x) for x in model.by.dims.values()]
    return xr.DataArray(record.series["infections"].values.reshape(6, *sizes), dims=("day", *model.by.dims))


@pytest.mark.parametrize("over", [[], ["age"], ["borough"], ["borough", "age"]])
def test_a_run_has_as_many_events_in_each_stratum_as_were_seen(model, seen, over):
    """In whichever order the labels come."""
    observed = seen.sum(over)
    for dim in [d for d in ("borough", "age") if d not in over]:
        observed = observed.isel({dim: slice(None, None, -1)})
    made = infections(model, observed.transpose(..., "day")).sum(over)
    expected = seen.sum(over)
    np.testing.assert_array_equal(made.values, expected.transpose("day", ...).values)


def test_strata_that_were_not_seen_are_left_to_chance(model, seen):
    some = seen.sum("age").sel(borough=["Queens", "Bronx"])
    made = infections(model, some)
    labels = list(model.by.dims["borough"])
    for name in ("Queens", "Bronx"):
        np.testing.assert_array_equal(made.sum("age")[:, labels.index(name)], some.sel(borough=name))
    assert not np.array_equal(made.sum("age").values, seen.sum("age").transpose("day", ...).values)


def test_that_all_were_of_one_borough_is_less_likely_than_that_there_were_so_many(model):
    whole = lpm.likelihood(model, {"infection": [9]}, draws=16, set=AT)
    split = xr.DataArray([[9, 0, 0, 0, 0]], dims=("day", "borough"), coords={"borough": list(model.by.dims["borough"])})
    lopsided = lpm.likelihood(model, {"infection": split}, draws=16, set=AT)
    assert lopsided.attrs["log_likelihood"] < whole.attrs["log_likelihood"] - 3


def test_an_exact_posterior_takes_strata_and_gives_them_back(model, seen):
    observed = seen.sum("age")
    fit = lpm.calibrate_exactly(
        model, {"infection": observed}, evaluations=100, parameters=["beta"], set={"initial_infected": 0.05}, draws=50
    )
    back = fit["observed_data"]["infection"]
    assert back.dims == ("day", "borough")
    np.testing.assert_array_equal(back.values, observed.transpose("day", ...).values)
    assert "infection of Bronx" in fit.attrs["observed"]
    assert 0.1 < float(fit["posterior"]["beta"].mean()) < 0.9


def test_a_counterfactual_of_strata_has_them_in_the_world_as_it_was(model, seen):
    observed = seen.sum("age").isel(day=slice(4))
    found = lpm.counterfactual(
        model, {"transmission": 0.2}, 2, days=6, observed={"infection": observed}, draws=2, guided=150, set=AT
    )
    infections = found["prior_predictive"]["infections"].isel(day=slice(4)).sum("age")
    was, would = (infections.sel(policy=policy) for policy in infections["policy"].values)
    for draw in range(was.sizes["draw"]):
        one = was.isel(chain=0, draw=draw).transpose("day", "borough")
        np.testing.assert_array_equal(one.values, observed.transpose("day", "borough").values)
    assert float(would.sum()) < float(was.sum())


@pytest.mark.parametrize(
    ("observed", "said"),
    [
        (xr.DataArray([[1]], dims=("day", "burough"), coords={"burough": ["Bronx"]}), "did you mean 'borough'"),
        (xr.DataArray([[1]], dims=("day", "borough"), coords={"borough": ["Bronks"]}), "did you mean 'Bronx'"),
        (xr.DataArray([[1, 2]], dims=("day", "borough"), coords={"borough": ["Bronx"] * 2}), "borough twice"),
        (xr.DataArray([[1]], dims=("day", "borough")), "no labels of 'borough'"),
        (xr.DataArray([1], dims=("borough",), coords={"borough": ["Bronx"]}), "the dimension 'day'"),
        (xr.DataArray([[-1]], dims=("day", "borough"), coords={"borough": ["Bronx"]}), "-1 events"),
        (xr.DataArray(np.zeros((0, 1)), dims=("day", "borough"), coords={"borough": ["Bronx"]}), "has no counts"),
        (xr.DataArray([[1j]], dims=("day", "borough"), coords={"borough": ["Bronx"]}), "of complex128: give numbers"),
        (
            xr.DataArray([[1]], dims=("day", "borough"), coords={"borough": ["Bronx"], "day": [10]}),
            "from 0 on in order",
        ),
        (
            xr.DataArray([1, 2], dims="day", coords={"day": np.array(["2020-03-01", "2020-03-03"], "datetime64[ns]")}),
            "aren't one day apart",
        ),
        (xr.DataArray([[np.nan]], dims=("day", "borough"), coords={"borough": ["Bronx"]}), "nothing was seen"),
        ([np.nan, np.nan], "nothing was seen of 'infection'"),
        (xr.DataArray([["x"]], dims=("day", "borough"), coords={"borough": ["Bronx"]}), "can't be read"),
    ],
)
def test_strata_that_the_model_does_not_have_are_refused(model, observed, said):
    with pytest.raises(InputError, match=said):
        lpm.likelihood(model, {"infection": observed}, draws=2, set=AT)
