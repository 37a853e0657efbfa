"""What a counterfactual can't be asked, or whom: a line that names the value and the remedy."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr
from chirho.counterfactual.handlers import MultiWorldCounterfactual
from chirho.dynamical.handlers import DynamicIntervention, LogTrajectory, StaticIntervention
from chirho.dynamical.handlers.solver import TorchDiffEq
from chirho.interventional.handlers import do
from pyro import condition

import lpmppl as lpm
from lpmppl.errors import InputError

S = {"initial_infected": 0.03}


@pytest.fixture(scope="module")
def model():
    return lpm.nyc.seirm(lpm.nyc.population(1_000))


@pytest.fixture(scope="module")
def tree(model):
    return lpm.counterfactual(model, {"transmission": 0.5}, 2, 6, draws=3, set=S)


def refused(said: str, ask) -> None:
    with pytest.raises(InputError, match=said) as error:
        ask()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "condition",
    [
        lambda s: s["infectious"].sum() > 40,
        lambda s: torch.ones(50, 1) > 0,
        lambda s: torch.ones(3, 1, 1) > 0,
        lambda s: s["infectious"].sum(-1) > 40,
    ],
)
def test_a_trigger_that_is_not_of_one_world_is_refused(model, condition) -> None:
    trigger = lpm.Trigger(0.1, condition)
    refused(r"one Boolean for each world", lambda: lpm.counterfactual(model, {"transmission": trigger}, 0, 6, set=S))


def test_a_trigger_sees_its_own_world_alone(model) -> None:
    trigger = lpm.Trigger(0.1, lambda s: s["infectious"].sum(-1, keepdim=True) > 60)
    acts = {"other": [("transmission", 3.0, 1)], "mine": [("transmission", trigger, 0)]}
    both, alone = (
        lpm.counterfactual(model, each, days=15, set=S)["prior_predictive"]["infections"]
        for each in (acts, {"mine": acts["mine"]})
    )
    assert (both.sel(policy="mine") == alone.sel(policy="mine")).all()


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (lambda t, s: s["infectious"].float().sum() - 40.0, "one number per world"),
        (lambda t, s: s["nothing"] - 1.0, "a dynamic event can't be evaluated: KeyError"),
        (lambda t, s: torch.zeros(7, 1), "one number per world"),
    ],
)
def test_an_event_that_is_not_of_one_world_is_refused(model, event, said: str) -> None:
    def ask() -> None:
        with (
            MultiWorldCounterfactual(first_available_dim=-3),
            StaticIntervention(torch.tensor(1.0), {"transmission": torch.tensor([3.0])}),
            DynamicIntervention(event, {"transmission": torch.tensor([0.1])}),
        ):
            lpm.run(model, 6, set=S)

    refused(said, ask)


def test_an_event_of_the_only_world_may_be_a_number_alone(model) -> None:
    for event in (lambda t, s: s["infectious"].float().sum() - 5.0, lambda t, s: t - 3.0):
        with DynamicIntervention(event, {"transmission": torch.tensor([0.0])}):
            stopped = lpm.run(model, 8, set=S)["prior_predictive"]["infections"]
        assert int(stopped.isel(day=slice(4, None)).sum()) == 0


def test_values_for_other_people_than_there_are_are_refused(model) -> None:
    for value in (torch.ones(7), torch.ones(7) > 0):
        key = "transmission" if value.dtype == torch.float32 else "susceptible"

        def ask(key=key, value=value) -> None:
            with (
                MultiWorldCounterfactual(first_available_dim=-3),
                StaticIntervention(torch.tensor(2.0), {key: value}),
            ):
                lpm.run(model, 5, set=S)

        refused(f"an intervention sets '{key}' to 7 numbers", ask)


def test_each_persons_own_value_is_the_same_in_a_world_as_alone(model) -> None:
    mine = torch.linspace(0.0, 1.0, model.population.size)
    act = {"transmission": mine}
    with StaticIntervention(torch.tensor(2.0), act):
        alone = lpm.run(model, 8, set=S)["prior_predictive"]["infections"]
    with MultiWorldCounterfactual(first_available_dim=-3), StaticIntervention(torch.tensor(2.0), act):
        worlds = lpm.run(model, 8, set=S)["prior_predictive"]["infections"]
    (index,) = (d for d in worlds.dims if d not in alone.dims)
    assert (worlds.isel({index: 1}) == alone).all() and (worlds.isel({index: 0}) != alone).any()


def test_a_state_is_logged_around_a_run(model) -> None:
    with LogTrajectory(torch.arange(0.0, 5.0)) as log:
        lpm.run(model, 5, set=S)
    assert log.trajectory["susceptible"].shape[-2:] == (1_000, 5)
    never = log.trajectory["susceptible"].float().mean(-2)
    assert bool((never.diff() <= 0).all()) and float(never[-1]) < float(never[0])


def test_handlers_that_say_nothing_around_it_are_refused(model) -> None:
    ask = {"transmission": 0.5}
    for handler in (do(actions={"beta": torch.tensor(0.9)}), condition(data={"beta": torch.tensor(0.9)})):

        def under(handler=handler) -> None:
            with handler:
                lpm.counterfactual(model, ask, 2, 4)

        refused(r"around a run says what beta is.* say it in set=", under)

    def solved() -> None:
        with TorchDiffEq():
            lpm.counterfactual(model, ask, 2, 4)

    refused("has a solver of its own, but stands under TorchDiffEq", solved)


def test_plans_without_a_finite_objective_are_refused(model) -> None:
    plans = {"a": [("transmission", 0.5, 3)], "b": [("transmission", 0.1, 2)]}

    def but(x: xr.Dataset) -> xr.DataArray:
        return x["infections"].astype(float).where(x["policy"] != "b")

    refused("the objective of 'b' is nan", lambda: lpm.search(model, plans, but, days=6, set=S))
    refused("can't be evaluated: KeyError", lambda: lpm.search(model, plans, lambda x: x["nope"], days=6, set=S))
    refused("unknown tally 'nope'", lambda: lpm.search(model, plans, "infections", days=6, cost="nope", set=S))


def test_as_much_as_nobody_can_hold_is_refused_at_once(model) -> None:
    refused("draws=10000000", lambda: lpm.counterfactual(model, {"transmission": 0.5}, 2, 6, draws=10_000_000))
    refused("replicates=10000000 each", lambda: lpm.counterfactual(model, {"transmission": 0.5}, 2, replicates=10**7))
    many = {f"p{k}": [("transmission", 0.5, k)] for k in range(30)}
    refused("30 policies have", lambda: lpm.counterfactual(model, many, days=40, factorial=True))
    named = {"a + b": [("transmission", 0.5, 1)], "c": [("transmission", 0.6, 2)]}
    refused("can't be called 'a . b'", lambda: lpm.counterfactual(model, named, days=4, factorial=True))


@pytest.mark.parametrize("bad", [None, {}, xr.Dataset(), 5])
def test_what_is_no_result_is_refused(bad) -> None:
    for ask in (lpm.contrast, lambda x: lpm.fates(x, "infected"), lambda x: lpm.cost_per(x, "infections"),
                lpm.attribute, lambda x: lpm.weigh(x, {"infections": [1]})):  # fmt: skip
        refused(f"{type(bad).__name__} was given in place of a result", lambda ask=ask: ask(bad))


def test_names_and_numbers_of_another_kind_are_refused(tree) -> None:
    refused("no draws", lambda: lpm.contrast(tree.sel(draw=0)))
    for by in (None, 5, [5]):
        refused("give names of strata", lambda by=by: lpm.contrast(tree, by))
    refused("unknown outcome '5'", lambda: lpm.fates(tree, 5))
    refused("unknown tally 'None'", lambda: lpm.cost_per(tree, None))
    refused("least=nan", lambda: lpm.weigh(tree, {"infections": [1]}, least=float("nan")))
    refused("size=inf", lambda: lpm.weigh(tree, {"infections": [1]}, size=float("inf")))
    refused("no number on any day", lambda: lpm.weigh(tree, {"infections": [np.nan] * 3}))
    refused("can't be read", lambda: lpm.weigh(tree, {"infections": "abc"}))
    refused("nothing was observed", lambda: lpm.weigh(tree, 5))
    refused("first=1.5", lambda: lpm.weigh(tree, {"infections": [1]}, first=1.5))


def test_settings_of_another_kind_are_refused(model) -> None:
    for bad, said in (({"set": [1]}, r"set=\[1\]"), ({"interventions": 5}, "interventions=5")):
        refused(said, lambda bad=bad: lpm.counterfactual(model, {"transmission": 0.5}, 2, 4, **bad))
        refused(said, lambda bad=bad: lpm.run(model, 4, **bad))
    refused("by=None", lambda: lpm.attribute_groups(model, "infections", None, days=4))
    refused(r"layers=\[5\]", lambda: lpm.attribute_layers(model, "infections", [5], days=4))


def test_what_a_posterior_held_must_be_possible(model) -> None:
    beta = xr.Dataset({"gamma": (("chain", "draw"), [[0.1, 0.2]])})
    for held, said in (({"beta": "x"}, "held beta at 'x'"), ({"beta": -1}, "held beta at -1")):
        fit = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"set": json.dumps(held)}), "posterior": beta})
        refused(said, lambda fit=fit: lpm.counterfactual(model, {"transmission": 0.5}, 2, 4, posterior=fit))


def test_a_trigger_that_ends_above_where_it_begins_is_refused(model) -> None:
    trigger = lpm.Trigger(0.5, ("admissions/week", 5.0), ("admissions/week", 7.0))
    refused("begins above 5 and would end below 7", lambda: lpm.counterfactual(model, {"transmission": trigger}, 0, 4))


def test_households_are_chosen_by_what_their_members_have_in_common() -> None:
    pandemic = lpm.nyc.pandemic(lpm.nyc.population(1_000))
    boroughs = pandemic.population.labels("borough")
    acts = {b: [lpm.Act("stimulus", 500.0, 1, {"borough": b})] for b in boroughs}
    acts["all"] = [lpm.Act("stimulus", 500.0, 1)]
    paid = lpm.counterfactual(pandemic, acts, days=3)["prior_predictive"]["payments"].sum(["day", "quartile"])
    each = paid.sel(policy=boroughs)
    assert bool((each > 0).all()) and float(each.sum()) == pytest.approx(float(paid.sel(policy="all").sum()))
    older = lpm.Act("stimulus", 500.0, 1, {"age_band": "80+"})
    refused("whose members differ in age_band", lambda: lpm.counterfactual(pandemic, [older], days=3))
