"""The laws for the whole composed pandemic, and for what is left of it when substeps are taken out."""

from __future__ import annotations

import itertools

import numpy as np
import pyro
import pytest
import torch
from chirho.dynamical.handlers.interruption import StaticIntervention

import lpmppl as lpm
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, Utility, Verified, bounded, conserved, never_falls
from lpmppl.errors import InputError
from lpmppl.models import immunity
from lpmppl.models.pandemic import PARTS
from lpmppl.models.population import Population
from lpmppl.models.within_host import PARAMETERS
from tests.laws.conftest import noise, play, renamed, worlds
from tests.randomness import states

AGENTS, DAYS = 1_000, 45
NAMES = tuple(part.name for part in PARTS)


def people(order: np.ndarray | None = None) -> Population:
    return renamed(lpm.nyc.population(AGENTS), order)


@pytest.fixture(scope="module")
def model():
    return lpm.nyc.pandemic(people())


def theta(model, **more):
    wanted = {"initial_infected": 0.05, "beta": 0.6, **more}
    return {**model.defaults(), **{k: torch.tensor(v) for k, v in wanted.items() if k in model.parameters}}


def go(model, *handlers, days=DAYS, begin=0):
    return play(model, Utility(model.behaviour), *handlers, days=days, theta=theta(model), begin=begin)


def act(day, **values):
    return StaticIntervention(torch.tensor(float(day)), {k: torch.tensor([float(v)]) for k, v in values.items()})


POLICIES = {
    "transmission": 0.5, "schools": 1.0, "stringency": 0.0, "stimulus": 500.0, "test": 1.0, "screening": 3.0,
    "tracing": 0.8, "capacity": 0.05, "doses_per_day": 0.02, "second_dose": 1.0, "mask_mandate": 1.0, "treatment": 0.8,
    "isolation_pay": 200.0,
}  # fmt: skip


def test_every_part_of_the_environment_is_under_law(model):
    assert set(POLICIES) == set(model.environment)


def test_null_interventions_change_nothing(model):
    base = go(model, noise())
    assert base.series["infections"].sum() > 100
    null = act(10, **model.environment)
    assert go(model, noise(), null).differences(base) == []
    both = go(model, worlds(), noise(), act(10, **model.environment))
    for k in (0, 1):
        assert both.world(**{"t=10": k}).differences(base) == []


@pytest.mark.parametrize("name", POLICIES)
def test_each_world_of_a_policy_is_its_single_run(model, name):
    policy = {name: POLICIES[name]}
    extra = {"doses_per_day": 0.02} if name == "second_dose" else {}
    base, single = (go(model, noise(), act(2, **extra, transmission=1.0), *acts) for acts in ((), (act(12, **policy),)))
    both = go(model, worlds(), noise(), act(2, **extra, transmission=1.0), act(12, **policy))
    assert both.world(**{"t=2": 1}).differences(base) == []
    assert both.world(**{"t=2": 1, "t=12": 1}).differences(single) == []


def test_the_policies_do_something(model):
    base = go(model, noise())
    idle = {"second_dose", "mask_mandate", "treatment"}  # nothing for them to act on, or too little among a thousand
    for name in set(POLICIES) - idle:
        changed = go(model, noise(), act(12, **{name: POLICIES[name]}))
        assert any((changed.series[k] != base.series[k]).any() for k in base.series), name


@pytest.mark.parametrize("day", [6, 7, 8, 20])
def test_a_resumed_run_equals_the_uninterrupted_one(model, tmp_path, day):
    acts = lambda: (Utility(model.behaviour), noise(), act(10, transmission=0.5, stimulus=500.0))  # noqa: E731
    values = theta(model)
    whole = play(model, *acts(), days=30, theta=values)

    class KilledError(Exception):
        pass

    def stop(done, _):
        if done == day:
            raise KilledError

    file = tmp_path / "c.npz"
    with pytest.raises(KilledError):
        play(model, DiscreteTime(progress=stop, checkpoint=file, every=1), *acts(), days=30, theta=values)
    again = play(model, DiscreteTime(checkpoint=file, resume=True), *acts(), days=30, theta=values)
    assert again.differences(whole) == []


def test_handlers_leave_the_global_random_state_untouched(model):
    before = states()
    go(model, noise(), days=20)
    assert states() == before


def test_renaming_agents_permutes_the_results(model):
    order = np.random.default_rng(2).permutation(AGENTS)
    plain, renamed = go(model, noise()), go(lpm.nyc.pandemic(people(order)), noise())
    for key, x in plain.state.items():
        if x.shape[-1] == AGENTS:
            torch.testing.assert_close(renamed.state[key], x[..., order], rtol=0, atol=0, msg=key)
    for name, series in plain.series.items():
        np.testing.assert_array_equal(renamed.series[name], series, err_msg=name)


def test_agents_stay_out_of_the_trace(model):
    def program():
        with DiscreteTime(), ExogenousNoise(1), Utility(model.behaviour):
            model(9)

    trace = pyro.poutine.trace(program).get_trace()
    agents = [
        n for n, site in trace.nodes.items() if site["type"] == "sample" and site["infer"].get("agents") is not None
    ]
    assert agents == []
    assert "t=3/reported/deaths" in trace.nodes


def test_people_are_conserved_and_what_is_read_and_written_is_declared(model):
    checks = Verified(
        conserved("people", lambda s: sum((s["stage"] == k).sum(-1) for k in range(9))),
        bounded("stage", 0, 8),
        bounded("protection", 0, 1),
        bounded("mobility/retail", 0, 5),
        never_falls("episode"),
        never_falls("doses"),
    )
    acts = (act(5, doses_per_day=0.02, screening=3.0, tracing=0.5, stimulus=500.0),)
    assert go(model, checks, noise(), *acts).differences(go(model, noise(), *acts)) == []


def subsets(most):
    return [out for n in range(most + 1) for out in itertools.combinations(NAMES, n)]


def solve_once(patch):
    """Solve the course of an infection once for each set of its parameters, rather than once a run."""
    solve, known = immunity.loads, {}

    def loads(theta, treatment):
        key = (*(float(theta[name]) for name in PARAMETERS), *treatment.tolist())
        if key not in known:
            known[key] = solve(theta, treatment)
        return known[key]

    patch.setattr(immunity, "loads", loads)


@pytest.fixture
def one_course(monkeypatch):
    solve_once(monkeypatch)


def plays_or_refuses(folk, without):
    try:
        model = lpm.nyc.pandemic(folk, without=without)
    except InputError as e:
        assert "reads" in str(e) or "without any" in str(e), e
        return False
    run = play(model, Utility(model.behaviour), noise(), days=8, theta=theta(model))
    assert set(model.tallies) <= set(run.series)
    return True


def test_any_one_or_two_substeps_left_out_play_or_are_refused_by_name(model, one_course):
    played = [out for out in subsets(2) if plays_or_refuses(model.population, out)]
    # The economy, behaviour, testing, vaccination, mobility and observation can each be left out.
    for name in set(NAMES) - {"immunity", "progression", "transmission"}:
        assert ((name,) in played) == (name != "labour"), name
    assert ("stimulus", "labour") in played or ("labour", "stimulus") in played  # who pays must know who earns
    with pytest.raises(InputError, match="substep 'testing' reads viral_load"):
        lpm.nyc.pandemic(people(), without=["immunity"])
    with pytest.raises(InputError, match="did you mean 'mobility'"):
        lpm.nyc.pandemic(people(), without=["mobilty"])


@pytest.mark.slow
def test_every_subset_of_substeps_plays_or_is_refused_by_name(model, one_course):
    assert sum(plays_or_refuses(model.population, out) for out in subsets(len(NAMES) - 1)) > 300
