"""Laws 5, 6, 7 and 9, and the people: what a run leaves alone, and what it may not lose."""

from __future__ import annotations

import random

import numpy as np
import pyro
import pytest
import torch

from lpmppl.effects.handlers import (
    DiscreteTime,
    ExogenousNoise,
    Record,
    Transitions,
    Verified,
    bounded,
    conserved,
    never_falls,
)
from lpmppl.effects.ops import simulate
from tests.laws.conftest import AGENTS, DAYS, noise, play, policy, trigger, worlds


def interrupted_at(model, path, day, *handlers):
    """Run to `day` with checkpoints and stop there as a killed process would."""

    class KilledError(Exception):
        pass

    def stop(done, _):
        if done == day:
            raise KilledError

    with pytest.raises(KilledError):
        play(model, DiscreteTime(progress=stop, checkpoint=path, every=1), *handlers)


@pytest.mark.parametrize("day", [1, 9, 10, 11, 30])
def test_a_resumed_run_equals_the_uninterrupted_one(model, tmp_path, day):
    whole = play(model, noise(), policy(10, 0.5), trigger(model, 80, 0.3))
    interrupted_at(model, tmp_path / "c.npz", day, noise(), policy(10, 0.5), trigger(model, 80, 0.3))
    solver = DiscreteTime(checkpoint=tmp_path / "c.npz", resume=True)
    assert play(model, solver, noise(), policy(10, 0.5), trigger(model, 80, 0.3)).differences(whole) == []


@pytest.mark.parametrize("day", [5, 15, 35])
def test_worlds_that_have_parted_are_resumed_as_worlds(model, tmp_path, day):
    acts = lambda: (policy(6, 0.6), trigger(model, 60, 0.1))  # noqa: E731
    whole = play(model, worlds(), noise(), *acts())
    interrupted_at(model, tmp_path / "c.npz", day, worlds(), noise(), *acts())
    again = play(model, worlds(), DiscreteTime(checkpoint=tmp_path / "c.npz", resume=True), noise(), *acts())
    assert again.worlds == whole.worlds
    assert again.differences(whole) == []


def test_a_step_is_a_function_of_the_state(model):
    # A fresh handler on each day sees the same epidemic: nothing that changes is kept outside the state.
    whole = play(model, noise())
    state = None
    theta = {**model.defaults(), "initial_infected": torch.tensor(0.02), "beta": model.defaults()["beta"] * 2}
    for day in range(DAYS):
        with torch.no_grad(), DiscreteTime(), ExogenousNoise(1):
            from lpmppl.effects.ops import simulate

            start = model.initial(theta) if state is None else state
            state = simulate(model.day(theta), start, torch.tensor(float(day)), torch.tensor(float(day + 1)))
    assert [k for k in whole.state if not torch.equal(whole.state[k], state[k])] == []


def test_handlers_leave_the_global_random_state_untouched(model):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    play(model, worlds(), noise(), policy(10, 0.5), trigger(model, 80, 0.3))
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]
    assert (before[2] == after[2]).all()


def test_renaming_agents_permutes_the_results(make):
    order = np.random.default_rng(2).permutation(AGENTS)
    plain, renamed = play(make(), noise()), play(make(order), noise())
    for key, x in plain.state.items():
        if x.shape[-1] == AGENTS and not key.startswith("graph/"):
            torch.testing.assert_close(renamed.state[key], x[order], rtol=0, atol=0)
    for name, series in plain.series.items():
        np.testing.assert_array_equal(renamed.series[name], series)


def test_agents_stay_out_of_the_trace_unless_asked(model):
    def program(hide):
        with DiscreteTime(), ExogenousNoise(1, hide=hide):
            model(5)

    trace = pyro.poutine.trace(program).get_trace(True)
    assert set(trace.stochastic_nodes) == set(model.parameters)
    shown = pyro.poutine.trace(program).get_trace(False)
    sites = set(shown.stochastic_nodes) - set(model.parameters)
    assert {"t=0/infection", "t=4/infection", "t=4/infection.left"} <= sites
    shown.compute_log_prob()
    assert all(torch.isfinite(shown.nodes[s]["log_prob"]).all() for s in sites)


def test_plain_pyro_gives_a_finite_density_that_conditioning_reproduces(model):
    pyro.set_rng_seed(3)
    theta = {**model.defaults(), "initial_infected": torch.tensor(0.05)}
    program = pyro.condition(lambda: model(8), data=theta)
    with DiscreteTime():
        trace = pyro.poutine.trace(program).get_trace()
        again = pyro.poutine.trace(pyro.poutine.replay(program, trace=trace)).get_trace()
    assert trace.nodes["t=3/infection"]["value"].shape == (AGENTS,)
    total = trace.log_prob_sum()
    assert torch.isfinite(total)
    assert torch.equal(total, again.log_prob_sum())


def test_people_are_conserved_and_totals_never_fall(model):
    if "stage" in model.initial(model.defaults()):
        invariants = [
            bounded("stage", 0, 5),
            never_falls("stage"),
            never_falls("exposure"),
            bounded("transmission", 0, 10),
        ]
        people = conserved("people", lambda s: sum((s["stage"] == k).sum(-1) for k in range(6)))
    else:
        invariants = [never_falls("exposure"), never_falls("illness"), bounded("share", 0, 1)]
        people = conserved("people", lambda s: (s["susceptible"] | s["infectious"] | (s["illness"] > 0)).sum(-1))
    checked = play(model, worlds(), Verified(people, *invariants), noise(), policy(10, 0.5))
    assert checked.differences(play(model, worlds(), noise(), policy(10, 0.5))) == []


def test_prevalence_is_what_entered_less_what_left(model):
    run = play(model, noise())
    if "stage" in run.state:
        infectious = int((run.state["stage"] == 2).sum())
    else:
        infectious = int(run.state["infectious"].sum())
    assert run.series["infectious"][-1].sum() == infectious
    assert run.series["infections"].min() >= 0


def test_a_path_that_was_kept_is_played_again_exactly(model):
    """Whatever the noise and the parameters, the same happens to the same; the probability of it follows these."""

    def run(path, seed, scale=1.0):
        theta = {n: p.default * (scale if n in ("beta", "gamma") else 1.0) for n, p in model.parameters.items()}
        values = {n: torch.tensor(x) for n, x in {**theta, "initial_infected": 0.05}.items()}
        seen = Transitions(path)
        with Record() as record, DiscreteTime(), ExogenousNoise(seed), seen:
            simulate(model.day(values), model.initial(values), torch.tensor(0.0), torch.tensor(20.0))
        return seen, {n: torch.stack([torch.as_tensor(x) for x in t.entries]) for n, t in record.series.items()}

    first, tallies = run(None, 0)
    again, same = run(first.path, 1)
    other, too = run(first.path, 2, scale=0.9)
    assert [n for n in tallies if not (torch.equal(tallies[n], same[n]) and torch.equal(tallies[n], too[n]))] == []
    assert float(again.log_prob) == float(first.log_prob) != float(other.log_prob)
    assert np.isfinite(float(other.log_prob))
