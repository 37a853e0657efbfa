"""Laws 1 and 2: a null intervention changes nothing, and every world is the single run of that world, bit for bit."""

from __future__ import annotations

import itertools

import pytest
import torch
from chirho.dynamical.handlers.interruption import StaticIntervention

from tests.laws.conftest import noise, play, policy, trigger, worlds


def test_a_null_intervention_changes_nothing(model):
    base = play(model, noise())
    assert base.series["infections"].sum() > 30
    assert play(model, noise(), policy(10, 1.0)).differences(base) == []
    both = play(model, worlds(), noise(), policy(10, 1.0))
    assert list(both.worlds) == ["t=10"]
    for k in (0, 1):
        assert both.world(**{"t=10": k}).differences(base) == []


def test_each_world_of_a_policy_is_its_single_run(model):
    base, single = play(model, noise()), play(model, noise(), policy(10, 0.2))
    assert single.series["infections"].sum() < base.series["infections"].sum()
    both = play(model, worlds(), noise(), policy(10, 0.2))
    assert both.world().differences(base) == []
    assert both.world(**{"t=10": 1}).differences(single) == []


def test_two_policies_make_four_worlds(model):
    both = play(model, worlds(), noise(), policy(8, 0.5), policy(20, 1.5))
    for i, j in itertools.product((0, 1), repeat=2):
        acts = [policy(8, 0.5)] * i + [policy(20, 1.5)] * j
        assert both.world(**{"t=8": i, "t=20": j}).differences(play(model, noise(), *acts)) == [], (i, j)


def test_a_trigger_acts_in_each_world_when_that_world_is_due(model):
    # The static policy delays the trigger in its world, so the two worlds fire on different days, or in one of them
    # never.
    both = play(model, worlds(), noise(), policy(6, 0.6), trigger(model, 60, 0.1))
    fired = both.state["event/0"]
    assert bool(fired.any())
    for i, j in itertools.product((0, 1), repeat=2):
        acts = [policy(6, 0.6)] * i + [trigger(model, 60, 0.1)] * j
        assert both.world(**{"t=6": i, "event/0": j}).differences(play(model, noise(), *acts)) == [], (i, j)


def test_a_policy_with_several_keys_makes_one_index_of_worlds():
    from tests.laws.conftest import sir_in_households

    model = sir_in_households()
    act = StaticIntervention(torch.tensor(10.0), {"transmission": torch.tensor([0.3]), "share": torch.tensor([0.5])})
    both = play(model, worlds(), noise(), act)
    assert list(both.worlds) == ["t=10"]


def test_a_partial_callable_keeps_the_other_keys(model):
    act = lambda s: {"transmission": s["transmission"] * 0.2}  # noqa: E731
    whole = play(model, noise(), policy(10, 0.2))
    assert play(model, noise(), StaticIntervention(torch.tensor(10.0), act)).differences(whole) == []


@pytest.mark.parametrize("handlers", list(itertools.permutations(range(4))))
def test_solver_noise_worlds_and_policies_commute(handlers):
    from lpmppl.effects.handlers import DiscreteTime
    from tests.laws.conftest import seirm_in_layers

    model = seirm_in_layers()
    kinds = (DiscreteTime, noise, worlds, lambda: policy(10, 0.3))
    reference = play(model, worlds(), DiscreteTime(), noise(), policy(10, 0.3), days=20)
    assert play(model, *(kinds[k]() for k in handlers), days=20).differences(reference) == []
