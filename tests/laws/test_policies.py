"""The laws for policies: a world of a counterfactual is the single run of its policy, whatever the policy."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import xarray as xr
from chirho.counterfactual.handlers import MultiWorldCounterfactual
from xarray.testing import assert_identical

import lpmppl as lpm
from lpmppl.inference.counterfactual import counterfactual
from lpmppl.inference.policies import FACTUAL, Act, Policy, Trigger, policies
from lpmppl.inference.run import simulated
from lpmppl.inference.worlds import UnderPolicies
from tests.laws.conftest import AGENTS, DAYS, MODELS

INFECTED = {"initial_infected": 0.05}


def pandemic():
    return lpm.nyc.pandemic(lpm.nyc.population(1_000))


def tallies(tree: xr.DataTree, policy: str | None = None) -> xr.Dataset:
    found = tree["prior_predictive"].to_dataset().drop_vars("parameters", errors="ignore")
    return found if policy is None else found.sel(policy=policy, drop=True)


def single(model, plan: Policy, days: int, **fixed: float) -> xr.Dataset:
    """The run of one policy, in a society that knows no worlds."""
    theta = {name: fixed.get(name, p.default) for name, p in model.parameters.items()}
    return tallies(simulated(UnderPolicies(model, [plan], only=1), [theta], [0], days, 0))


EVERY = [
    Policy("early", (Act("transmission", 0.3, 5),)),
    Policy("late and back", (Act("transmission", 0.2, 12), Act("transmission", 1.0, 20))),
    Policy("nothing", (Act("transmission", 1.0, 8),)),
]


@pytest.mark.parametrize("name", MODELS)
def test_worlds_are_single_runs(name):
    model = MODELS[name]()
    tree = counterfactual(model, {p.name: p for p in EVERY}, days=DAYS, set=INFECTED)
    base = tallies(lpm.run(model, days=DAYS, set=INFECTED))
    assert_identical(tallies(tree, FACTUAL), base)
    assert_identical(tallies(tree, "nothing"), base)
    for plan in EVERY:
        assert_identical(tallies(tree, plan.name), single(model, plan, DAYS, **INFECTED))
    acts = [("transmission", 0.2, 12), ("transmission", 1.0, 20)]
    assert_identical(
        tallies(tree, "late and back"), tallies(lpm.run(model, days=DAYS, set=INFECTED, interventions=acts))
    )
    infections = tallies(tree)["infections"]
    # The worlds part as their policies differ: on day 5 first.
    assert bool((infections.sel(policy="early") == infections.sel(policy=FACTUAL)).isel(day=slice(5)).all())
    assert float(infections.sel(policy="early").sum()) < float(infections.sel(policy=FACTUAL).sum())


def test_worlds_of_the_pandemic_are_single_runs():
    model = pandemic()
    plans = policies(
        {
            "closing": [("stringency", Trigger(90.0, ("admissions/week", 8.0), ("admissions/week", 4.0)), 3)],
            "cheque": [
                Act("stimulus", 500.0, 9, {"income_band": "0–30 % AMI (three people: up to $38,000)"}),
                ("mask_mandate", 1.0, 10),
            ],
            "antigen": [("test", "antigen", 14), ("screening", 3.0, 14)],
            "borough": [Act("transmission", 0.2, 9, {"borough": ["Queens", "Bronx"], "age_band": "20–29"})],
        }
    )
    tree = counterfactual(model, {p.name: p for p in plans}, days=40, set={"initial_infected": 0.05})
    assert_identical(tallies(tree, FACTUAL), tallies(lpm.run(model, days=40, set={"initial_infected": 0.05})))
    for plan in plans:
        assert_identical(tallies(tree, plan.name), single(model, plan, 40, initial_infected=0.05))
        assert not tallies(tree, plan.name).equals(tallies(tree, FACTUAL)), plan.name


def test_a_null_policy_moves_nobody():
    model = pandemic()
    tree = counterfactual(model, {"stimulus": [0.0, 500.0]}, at=10, days=30, draws=2)
    flows = tree["flows"].to_dataset()
    null, cheque = (flows.sel(policy=f"stimulus={x}@10") for x in (0, 500))
    assert_identical(tallies(tree, "stimulus=0@10"), tallies(tree, FACTUAL))
    for name in flows.data_vars:
        assert int(null[name].sum()) == 2 * 1_000
        assert int(null[name].sel(was="yes", would="no").sum() + null[name].sel(was="no", would="yes").sum()) == 0
    spent = tallies(tree)["spending"].sum(("day", "quartile"))
    assert bool((spent.sel(policy="stimulus=500@10") > spent.sel(policy=FACTUAL)).all())
    assert int(cheque["infected"].sum()) == 2 * 1_000


@pytest.mark.parametrize("name", ["sir_in_households", "seirm_in_layers"])
def test_flows_add_up_to_the_tallies(name):
    model = MODELS[name]()
    tree = counterfactual(model, {"transmission": 0.3}, at=5, days=DAYS, set=INFECTED, replicates=2)
    flows, new = tree["flows"]["infected"], tallies(tree)["infections"].sum("day")
    assert "borough" in flows.dims and int(flows.sum()) == 2 * AGENTS
    label = "transmission=0.3@5"
    imported = flows.sum([d for d in flows.dims if d not in ("draw", "was", "would")]) - 0
    factual = imported.sel(was="yes").sum("would") - new.sel(policy=FACTUAL).sum(
        [d for d in new.dims if d in ("chain", "borough", "age")]
    )
    other = imported.sel(would="yes").sum("was") - new.sel(policy=label).sum(
        [d for d in new.dims if d in ("chain", "borough", "age")]
    )
    # Who was infected at the start is no new infection, and is the same in both worlds.
    assert (factual.values == other.values).all() and (factual.values > 0).all()


def test_a_trigger_holds_between_its_thresholds():
    model = MODELS["sir_in_households"]()
    share = lambda x: lambda s: s["infectious"].sum(-1, keepdim=True) > x * AGENTS  # noqa: E731
    few = lambda s: s["infectious"].sum(-1, keepdim=True) < 0.02 * AGENTS  # noqa: E731
    plans = {
        "hysteresis": [("transmission", Trigger(0.1, share(0.1), few), 0)],
        "for good": [("transmission", Trigger(0.1, share(0.1)), 0)],
        "never": [("transmission", Trigger(0.1, share(2.0)), 0)],
    }
    tree = counterfactual(model, plans, days=80, set=INFECTED)
    found = tallies(tree)["infections"].sum("borough").isel(chain=0, draw=0)
    assert bool((found.sel(policy="never") == found.sel(policy=FACTUAL)).all())
    total = found.sum("day")
    assert (
        float(total.sel(policy="for good")) <= float(total.sel(policy="hysteresis")) < float(total.sel(policy=FACTUAL))
    )
    for plan in policies(plans):
        assert_identical(tallies(tree, plan.name), single(model, plan, 80, **INFECTED))


def test_what_lies_beneath_a_trigger_comes_back():
    """From day 5 to 11 a trigger holds 0.1, above it from 7 to 8 another 0.5; beneath them acts of their days."""
    model = MODELS["sir_in_households"]()
    between = lambda a, b: (lambda s: s["t"] == a, lambda s: s["t"] == b)  # noqa: E731
    acts = [
        Act("transmission", Trigger(0.1, *between(5, 12)), 0),
        Act("transmission", Trigger(0.5, *between(7, 9)), 0),
        Act("transmission", 0.7, 10),
    ]
    always = [Act("transmission", 0.9, 3), Act("transmission", 0.8, 8)]
    for only in (None, 1):
        seen: list[tuple[float, list[float]]] = []

        class Watched(type(model)):
            def day(self, theta, seen=seen):
                step = super().day(theta)
                return lambda s: (seen.append((float(s["t"]), s["transmission"].flatten().tolist())), step(s))[1]

        watched = Watched(model.population, [model.population.network("household")])
        under = UnderPolicies(watched, [Policy("p", tuple(acts))], always, only=only)
        theta = {name: p.default for name, p in model.parameters.items()}
        with MultiWorldCounterfactual(first_available_dim=-3) if only is None else nullcontext():
            simulated(under, [theta], [0], 15, 0)
        held = [0.9] * 2 + [0.1] * 2 + [0.5] * 2 + [0.1] * 3 + [0.7] * 3
        expected = [1.0] * 3 + held
        factual = [1.0] * 3 + [0.9] * 5 + [0.8] * 7
        assert [round(x[-1], 6) for _, x in seen] == expected
        if only is None:
            assert [round(x[0], 6) for _, x in seen] == factual


def test_draws_of_chance_are_those_of_runs():
    model = MODELS["seirm_in_layers"]()
    tree = counterfactual(model, {"transmission": 0.3}, at=9, days=25, draws=2, replicates=2, seed=3, set=INFECTED)
    assert (
        tree["prior"]["beta"].values[0].tolist()[::2]
        == lpm.run(model, days=1, draws=2, seed=3)["prior"]["beta"].values[0].tolist()
    )
    assert tree["prior_predictive"]["parameters"].values.tolist() == [0, 0, 1, 1]
    infections = tallies(tree)["infections"].sum(("borough", "age", "day", "chain"))
    assert len(np.unique(infections.sel(policy=FACTUAL))) == 4


@pytest.mark.slow
def test_laws_hold_at_the_size_of_the_city():
    """8.4 million people: a policy that changes nothing has no effect, and a world is the run of its policy."""
    model = lpm.nyc.pandemic(lpm.nyc.population(8_400_000))
    plans = {"nothing": [("transmission", 1.0, 14)], "masks": [("mask_mandate", 1.0, 20)]}
    tree = counterfactual(model, plans, days=36)
    assert_identical(tallies(tree, FACTUAL), base := tallies(lpm.run(model, days=36)))
    assert_identical(tallies(tree, "nothing"), base)
    for name, effect in lpm.contrast(tree, by=("borough", "age"), daily=True).sel(policy="nothing").items():
        assert float(abs(effect.sel(estimate=["mean", "low", "high"])).max()) == 0, name
    masked = tallies(lpm.run(model, days=36, interventions=plans["masks"]))
    assert_identical(tallies(tree, "masks"), masked)
    assert float(masked["infections"].sum()) < float(base["infections"].sum())
