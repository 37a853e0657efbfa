"""`run`: the tree it gives, and what it refuses."""

from __future__ import annotations

import math

import arviz as az
import numpy as np
import pytest
import torch
import xarray as xr

import lpmppl as lpm
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.run import run
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from tests.laws.conftest import policy, seirm_in_layers, sir_on_a_graph, worlds

SEEDED = {"initial_infected": 0.02}


@pytest.fixture(scope="module")
def model():
    return seirm_in_layers()


def test_the_tree_holds_parameters_tallies_and_residents(model):
    tree = run(model, days=20, seed=3, set={"initial_infected": 0.05})
    assert set(tree.children) == {"prior", "prior_predictive", "constant_data"}
    assert tree["prior"]["initial_infected"].item() == 0.05
    assert tree["prior"]["beta"].item() == model.parameters["beta"].default
    infections = tree["prior_predictive"]["infections"]
    assert infections.dims == ("chain", "draw", "day", "borough", "age")
    assert infections.sizes["day"] == 20
    assert infections.sum() > 0
    assert {k: v.attrs["kind"] for k, v in tree["prior_predictive"].items()} == {
        "infections": "flow",
        "deaths": "flow",
        "infectious": "stock",
    }
    assert int(tree["constant_data"]["people"].sum()) == model.population.size
    assert tree.attrs["seed"] == 3


def test_it_goes_to_netcdf_and_into_arviz(model, tmp_path):
    tree = run(model, days=5)
    tree.to_netcdf(tmp_path / "r.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "r.nc", engine="h5netcdf") as again:
        xr.testing.assert_equal(again["prior_predictive"].load().dataset, tree["prior_predictive"].dataset)
    data = az.InferenceData.from_datatree(tree)
    assert data.prior_predictive["infections"].shape == tree["prior_predictive"]["infections"].shape


def test_the_seed_decides_and_nothing_else(model):
    one, two, other = (run(model, days=30, seed=s, set=SEEDED)["prior_predictive"] for s in (0, 0, 1))
    assert one.dataset.identical(two.dataset)
    assert not one.dataset.equals(other.dataset)


def test_draws_differ_in_parameters_and_in_chance(model):
    state = torch.get_rng_state()
    tree = run(model, days=25, draws=3, set={"beta": 0.1, **SEEDED})
    assert torch.equal(state, torch.get_rng_state())
    assert tree["prior"]["beta"].values.tolist() == [[0.1] * 3]
    assert len(set(tree["prior"]["latent_mean"].values.ravel())) == 3
    totals = tree["prior_predictive"]["infections"].sum(("day", "borough", "age")).values.ravel()
    assert len(set(totals)) == 3


def test_an_intervention_lowers_transmission_and_a_null_one_changes_nothing(model):
    strong = {"beta": 0.1, "initial_infected": 0.02}
    base = run(model, days=40, set=strong)["prior_predictive"]["infections"]
    null = run(model, days=40, set=strong, interventions=[("transmission", 1.0, 10)])["prior_predictive"]["infections"]
    less = run(model, days=40, set=strong, interventions=[("transmission", 0.1, 10)])["prior_predictive"]["infections"]
    assert null.equals(base)
    assert less.sum() < base.sum()
    assert less.isel(day=slice(0, 10)).equals(base.isel(day=slice(0, 10)))


def test_worlds_around_a_run_become_a_dimension(model):
    with worlds(), policy(10, 0.1):
        tree = run(model, days=30, set={"beta": 0.1, **SEEDED})
    infections = tree["prior_predictive"]["infections"]
    assert infections.dims == ("chain", "draw", "t=10", "day", "borough", "age")
    for k, acts in enumerate(([], [("transmission", 0.1, 10)])):
        single = run(model, days=30, set={"beta": 0.1, **SEEDED}, interventions=acts)["prior_predictive"]["infections"]
        np.testing.assert_array_equal(infections.isel({"t=10": k}), single)


def test_a_model_without_strata(model):
    infections = run(sir_on_a_graph(), days=5)["prior_predictive"]["infections"]
    assert infections.dims == ("chain", "draw", "day")


def test_resumed_it_is_the_same(model, tmp_path):
    whole = run(model, days=30, seed=2, set={"beta": 0.1, **SEEDED})
    run(model, days=30, seed=2, set={"beta": 0.1, **SEEDED}, checkpoint=tmp_path / "c.npz", checkpoint_every=7)
    again = run(model, days=30, seed=2, set={"beta": 0.1, **SEEDED}, resume=tmp_path / "c.npz")
    assert again["prior_predictive"].dataset.identical(whole["prior_predictive"].dataset)
    with pytest.raises(InputError, match="another run"):
        run(model, days=30, seed=2, set={"beta": 0.2, **SEEDED}, resume=tmp_path / "c.npz")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"days": 0}, "days=0"),
        ({"days": 2.5}, "days=2.5"),
        ({"seed": -1}, "seed=-1"),
        ({"draws": 0}, "draws=0"),
        ({"set": {"betta": 1.0}}, "did you mean 'beta'"),
        ({"set": {"beta": math.nan}}, "beta=nan"),
        ({"set": {"beta": -1.0}}, "beta=-1"),
        ({"interventions": [("transmision", 0.3, 5)]}, "did you mean 'transmission'"),
        ({"interventions": [("beta", 0.3, 5)]}, "unknown part of the environment 'beta'"),
        ({"interventions": [("transmission", math.inf, 5)]}, "finite number"),
        ({"interventions": [("transmission", 0.3, 20)]}, "outside the run"),
        ({"interventions": [("transmission", 0.3, -1)]}, "transmission=-1"),
        ({"interventions": [("transmission", 1e39, 5)]}, "single precision"),
        ({"interventions": [("transmission", 1.0, 5), ("transmission", 0.0, 5)]}, "two interventions set transmission"),
        ({"interventions": [("transmission", 0.3)]}, "give (name, value, day)"),
        ({"interventions": [("transmission", -1.0, 5)]}, "transmission=-1 can't be: give 0 to 1000"),
        ({"set": {"beta": 1e39}}, "single precision"),
        ({"set": {"beta": 1e-50}}, "single precision"),
        ({"set": {"beta": "x"}}, "is no number"),
        ({"set": {"initial_infected": 2.0}}, "its prior lives on 0 to 1"),
        ({"seed": 2**63}, "below 2**63"),
        ({"checkpoint_every": 0}, "checkpoint_every=0"),
        ({"checkpoint": "nowhere/c.npz"}, "no folder nowhere"),
        ({"resume": "nowhere.npz"}, "no checkpoint nowhere.npz"),
        ({"resume": "a.npz", "checkpoint": "b.npz"}, "leave checkpoint=b.npz out"),
        ({"start": 20200301}, "no date"),
        ({"start": "1 March"}, "no date"),
        ({"draws": 2, "checkpoint": "c.npz"}, "leave one of them out"),
    ],
)
def test_bad_input_is_refused_in_one_line(model, options, said):
    with pytest.raises(InputError) as e:
        run(model, **{"days": 20, **options})
    assert said in str(e.value)
    assert "\n" not in str(e.value)


def test_extreme_but_possible_values_stay_finite(model):
    for extreme in ({"latent_mean": 1e-30}, {"latent_spread": 1e30}, {"infectious_mean": 1e38}, {"beta": 1e30}):
        tree = run(model, days=20, set={**SEEDED, **extreme})
        assert np.isfinite(tree["prior_predictive"]["infections"].values).all()
    assert int(run(model, days=20, set={**SEEDED, "beta": 1e30})["prior_predictive"]["infections"].sum()) > 400


def test_interventions_around_act_on_every_draw_and_every_run(model):
    def treated(*handlers):
        from contextlib import ExitStack

        with ExitStack() as stack:
            for handler in handlers:
                stack.enter_context(handler)
            twice = [run(model, days=30, draws=2, set={"beta": 0.1, **SEEDED}) for _ in range(2)]
        assert twice[0]["prior_predictive"].dataset.identical(twice[1]["prior_predictive"].dataset)
        return twice[0]["prior_predictive"]["infections"]

    base, less = treated(), treated(policy(10, 0.1))
    assert (less.sum(("day", "borough", "age")) < base.sum(("day", "borough", "age"))).all()
    both = treated(worlds(), policy(10, 0.1))
    np.testing.assert_array_equal(both.isel({"t=10": 0}), base)
    np.testing.assert_array_equal(both.isel({"t=10": 1}), less)


def test_worlds_may_start_further_left(model):
    from chirho.counterfactual.handlers import MultiWorldCounterfactual

    def go(dim):
        with MultiWorldCounterfactual(first_available_dim=dim), policy(10, 0.1):
            return run(model, days=20, set={"beta": 0.1, **SEEDED})["prior_predictive"]["infections"]

    np.testing.assert_array_equal(go(-3), go(-5))


def test_a_checkpoint_is_resumed_among_the_same_people(model, tmp_path):
    from lpmppl.models.population import Population

    run(model, days=20, set=SEEDED, checkpoint=tmp_path / "c.npz", checkpoint_every=7)
    other = Population(model.population.dataset.assign(age_band=model.population.dataset["age_band"][::-1]))
    changed = seirm_in_layers()
    changed.population = other
    with pytest.raises(InputError, match="another run"):
        run(changed, days=20, set=SEEDED, resume=tmp_path / "c.npz")


class Weekly(seirm_in_layers().__class__):
    """Counts who is infectious every third day, under a name of its own."""

    def day(self, theta):
        from lpmppl.effects.ops import tally

        day = super().day(theta)

        def step(s):
            new = day(s)
            if int(s["t"]) % 3 == 0:
                tally("thirds", new["stage"] == 2, stock=True)
                tally("visits", new["stage"] == 2)
            return new

        return step


def test_tallies_that_come_every_few_days_are_filled():
    base = seirm_in_layers()
    model = Weekly(base.population, base.layers)
    tallies = run(model, days=10, set={"beta": 0.1, **SEEDED})["prior_predictive"]
    whole = tallies["infectious"].values.ravel()
    thirds = tallies["thirds"].values.ravel()
    np.testing.assert_array_equal(thirds, whole[[0, 0, 0, 3, 3, 3, 6, 6, 6, 9]])
    assert tallies["visits"].values.ravel()[[1, 2, 4, 5]].sum() == 0
    model.tallies = {**model.tallies, "never": "never counted"}
    with pytest.raises(LpmError, match="'never', but counted deaths"):
        run(model, days=10)


class Faulty(SIR):
    """SIR with one thing wrong."""

    def __init__(self, people, parts=None, start=None, missing=()):
        super().__init__(people, [people.everyone()])
        for name, value in (parts or {}).items():
            setattr(self, name, value)
        self.start_with, self.missing = start or {}, missing

    def initial(self, theta, start=0.0):
        state = {**super().initial(theta, start), **self.start_with}
        return {name: x for name, x in state.items() if name not in self.missing}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"parts": {"tallies": ["infections"]}}, r"Faulty.tallies must be a Mapping, but list was given"),
        ({"parts": {"parameters": None}}, r"Faulty.parameters must be a Mapping, but nothing was given"),
        ({"parts": {"parameters": {"beta": 0.3}}}, r"parameters\['beta'\] is float; make it a Parameter"),
        ({"parts": {"by": "household"}}, r"Faulty.by is str; make it population.strata"),
        ({"start": {"transmission": torch.ones(1, dtype=torch.long)}}, r"'transmission' as torch.int64"),
        ({"missing": ["transmission"]}, r"gave no 'transmission', a part of the environment"),
        ({"start": {"infectious": [True]}}, r"gave list for 'infectious'; give a tensor"),
        ({"start": {"exposure": torch.zeros(60, dtype=torch.int32)}}, r"site 'infection': its cumulative hazard is"),
        ({"parts": {"tallies": {"infecions": "typed wrongly"}}}, r"'infecions', but counted infections, infectious"),
    ],
)
@pytest.mark.parametrize(
    "ask", [lpm.run, lambda m, days: lpm.counterfactual(m, {"transmission": 0.5}, at=1, days=days)]
)
def test_what_is_wrong_with_a_model_is_said_in_its_words(wrong, words, ask):
    model = Faulty(Population.of({"household": np.arange(60) // 3}), **wrong)
    with pytest.raises(LpmError, match=words):
        ask(model, days=3)
