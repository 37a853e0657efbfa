"""`DiscreteTime`: ChiRho's `simulate` over steps, its interruptions and its refusals."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from chirho.dynamical.handlers.interruption import DynamicIntervention, StaticIntervention, StaticObservation
from chirho.dynamical.handlers.trajectory import LogTrajectory
from chirho.dynamical.ops import simulate
from chirho.observational.handlers.condition import condition

from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise
from lpmppl.errors import InputError, LpmError


def grow(s):
    return {**s, "x": s["x"] + s["dt"] * s["rate"]}


def go(days=10.0, start=0.0, dt=1.0, **more):
    state = {"x": torch.zeros(1), "rate": torch.ones(1)}
    with DiscreteTime(dt, **more):
        return simulate(grow, state, torch.tensor(start), torch.tensor(days))


def at(day, value):
    return StaticIntervention(torch.tensor(float(day)), {"rate": torch.tensor([value])})


def over(level, value):
    return DynamicIntervention(lambda t, s: s["x"] - level, {"rate": torch.tensor([value])})


def test_steps_add_up():
    assert go()["x"].item() == 10
    assert go(dt=0.25)["x"].item() == 10
    assert set(go()) == {"x", "rate"}


def test_interventions_act_from_the_start_of_their_day():
    with at(4, 0.0):
        assert go()["x"].item() == 4
    with at(0, 3.0):
        assert go()["x"].item() == 30
    with at(6, 0.0), at(2, 2.0):
        assert go()["x"].item() == 2 + 4 * 2
    with at(10, 7.0):
        assert go()["rate"].item() == 7


def test_a_dynamic_event_acts_once_and_says_so_in_the_state():
    with over(3.5, 0.0):
        end = go()
    assert end["x"].item() == 4
    assert end["event/0"].item() is True
    with over(99.0, 0.0):
        assert go()["event/0"].item() is False


def test_an_event_that_is_due_at_the_start_acts_at_the_start():
    with over(-1.0, 5.0):
        assert go()["x"].item() == 50


def test_the_trajectory_logger_of_chirho_sees_every_day():
    with LogTrajectory(torch.arange(0.0, 11.0)) as log:
        go()
    assert log.trajectory["x"].flatten().tolist() == list(range(11))


def test_observations_within_the_run():
    def look(s):
        pyro.sample("seen", dist.Normal(s["x"], 1.0))

    with StaticObservation(torch.tensor(3.0), condition(look, data={"seen": torch.tensor([2.5])})):
        trace = pyro.poutine.trace(go).get_trace()
    assert trace.nodes["t=3.0/seen"]["is_observed"]
    assert trace.nodes["t=3.0/seen"]["fn"].loc.item() == 3


def test_sites_are_named_by_step():
    def toss(s):
        pyro.sample("coin", dist.Bernoulli(0.5))
        return s

    with DiscreteTime(0.5):
        trace = pyro.poutine.trace(simulate).get_trace(
            toss, {"x": torch.zeros(1)}, torch.tensor(1.0), torch.tensor(2.0)
        )
    assert list(trace.stochastic_nodes) == ["t=1/coin", "t=1.5/coin"]


@pytest.mark.parametrize("day", [2.5, -1.0])
def test_times_off_the_grid_or_before_the_start_are_refused(day):
    with pytest.raises(InputError, match="off the grid" if day > 0 else "before the start"), at(day, 0.0):
        go()


def test_an_intervention_after_the_end_warns():
    with pytest.warns(UserWarning, match="no effect"), at(20, 0.0):
        assert go()["x"].item() == 10


def test_an_event_per_agent_is_refused():
    event = DynamicIntervention(lambda t, s: s["x"] + torch.zeros(3), {"rate": torch.zeros(1)})
    with pytest.raises(InputError, match="one number per world"), event:
        go()


@pytest.mark.parametrize("dt", [0.0, -1.0, float("nan")])
def test_a_step_must_be_positive(dt):
    with pytest.raises(InputError, match="positive"):
        DiscreteTime(dt)


def test_orders_that_would_be_wrong_in_silence_are_refused():
    with (
        pytest.raises(LpmError, match="TraceMessenger stands inside ExogenousNoise"),
        ExogenousNoise(0),
        pyro.poutine.trace(),
    ):
        go()
    with (
        pytest.raises(LpmError, match="BlockMessenger stands inside ExogenousNoise"),
        ExogenousNoise(0),
        pyro.poutine.block(),
    ):
        go()
    with (
        pytest.raises(LpmError, match="put it inside ExogenousNoise"),
        pyro.condition(data={"t=0/x": torch.ones(1)}),
        ExogenousNoise(0),
    ):
        go()
    with pytest.raises(LpmError, match="inside another"), ExogenousNoise(0), ExogenousNoise(1):
        go()
    with pytest.raises(LpmError, match="inside another"), DiscreteTime():
        go()
    with pyro.condition(data={"beta": torch.ones(1)}), ExogenousNoise(0), pyro.condition(data={"t=0/x": torch.ones(1)}):
        go()


class TestCheckpoints:
    def test_a_damaged_file_is_refused_in_one_line(self, tmp_path):
        path = tmp_path / "c.npz"
        go(checkpoint=path, every=4)
        for damage in (path.read_bytes()[:100], b"", b"not a checkpoint", path.read_bytes()[:-200]):
            path.write_bytes(damage)
            with pytest.raises(InputError, match="damaged") as e:
                go(checkpoint=path, resume=True)
            assert "\n" not in str(e.value)

    def test_another_runs_file_is_refused(self, tmp_path):
        go(checkpoint=tmp_path / "c.npz", every=4, tag="one")
        with pytest.raises(InputError, match="another run"):
            go(checkpoint=tmp_path / "c.npz", resume=True, tag="two")

    def test_nothing_half_written_is_left(self, tmp_path):
        go(checkpoint=tmp_path / "c.npz", every=1)
        assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]

    def test_an_intervention_that_the_checkpoint_never_saw_is_refused(self, tmp_path):
        go(checkpoint=tmp_path / "c.npz", every=4)
        with pytest.raises(InputError, match="before the start"), at(2, 0.0):
            go(checkpoint=tmp_path / "c.npz", resume=True)

    def test_without_a_file_it_starts_at_the_start(self, tmp_path):
        assert go(checkpoint=tmp_path / "none.npz", resume=True)["x"].item() == 10
