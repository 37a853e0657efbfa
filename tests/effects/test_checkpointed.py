"""Days that are simulated again on the way back: the same numbers, less kept, and nothing counted twice."""

from __future__ import annotations

import weakref

import pyro
import pyro.distributions as dist
import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.handlers import Checkpointed, DiscreteTime, ExogenousNoise, Pathwise, Record
from lpmppl.effects.ops import simulate, tally
from lpmppl.errors import InputError, LpmError
from lpmppl.models.population import Population
from tests.laws.conftest import seirm_in_layers, sir_in_households

PEOPLE = Population.of({"household": torch.arange(50).numpy() // 5})
DAYS = 9


def walk(theta, kept=None):
    """A state that moves by a chance of its own and by what depends on a parameter."""

    def day(s):
        with PEOPLE.plate():
            u = pyro.sample("u", dist.Uniform(0.0, 1.0))
        turned = s["x"] * theta
        grown = turned.sin() + 1.0  # the sine keeps what it was taken of for the way back
        if kept is not None:
            kept.append(weakref.ref(turned))
        tally("total", grown.clamp(max=1.0))
        return {**s, "x": (grown * u).tanh()}

    return day


def slope(*handlers, seed=0, kept=None):
    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with DiscreteTime(), Record() as record:
            for h in handlers:
                h.__enter__()
            state = simulate(
                walk(theta, kept), {"x": torch.full((50,), 0.3)}, torch.tensor(0.0), torch.tensor(float(DAYS))
            )
            for h in reversed(handlers):
                h.__exit__(None, None, None)
        alive = sum(r() is not None for r in kept or ())
        before = torch.random.get_rng_state()
        state["x"].sum().backward()
        assert torch.equal(torch.random.get_rng_state(), before)
    return state["x"].detach(), theta.grad, record.series["total"].values, alive


@pytest.mark.parametrize("every", [1, 2, 4, DAYS, 100, None])
@pytest.mark.parametrize("noise", [(), (ExogenousNoise(1),)], ids=["Pyro's own chance", "exogenous noise"])
def test_values_and_derivatives_are_those_without_it(every, noise):
    """The chance that is drawn again is the same, from the global random state or not, and that is left alone."""
    with_it, without = slope(*noise, Checkpointed(every)), slope(*noise)
    assert torch.equal(with_it[0], without[0])
    assert torch.equal(with_it[1], without[1])
    assert float(without[1]) != 0.0


def test_no_day_is_counted_twice():
    (_, _, series, _), (_, _, plain, _) = slope(Checkpointed(3)), slope()
    assert series.shape == plain.shape == (DAYS, 1)
    assert (series == plain).all()


def test_what_a_day_would_keep_is_gone_before_the_way_back():
    plain, few = [], []
    assert slope(kept=plain)[3] == DAYS
    assert slope(Checkpointed(3), kept=few)[3] == 0
    assert len(plain) == DAYS
    assert len(few) == 2 * DAYS


def test_a_society_has_the_same_gradient_under_it():
    simulator = lpm.Simulator(
        sir_in_households(), "infections", 12, estimator="straight-through", reverse=True, set={"initial_infected": 0.1}
    )
    slopes = []
    for every in (None, 1, 5):
        beta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
        if every is None:
            x = simulator({"beta": beta})
        else:
            with Checkpointed(every):
                x = simulator({"beta": beta})
        x.sum().backward()
        slopes.append((x.detach(), beta.grad))
    for x, g in slopes[1:]:
        assert torch.equal(x, slopes[0][0])
        assert torch.equal(g, slopes[0][1])


def test_without_derivatives_every_day_is_simulated_once():
    kept = []
    with torch.no_grad(), DiscreteTime(), Checkpointed(2), ExogenousNoise(1):
        simulate(walk(torch.tensor(0.7), kept), {"x": torch.ones(50)}, torch.tensor(0.0), torch.tensor(5.0))
    assert len(kept) == 5


def test_along_paths_it_is_refused():
    model = seirm_in_layers()
    theta = model.defaults()
    with (
        pytest.raises(LpmError, match="Checkpointed stands around Pathwise"),
        DiscreteTime(),
        Checkpointed(),
        ExogenousNoise(0),
        Pathwise(),
    ):
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(2.0))


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
def test_a_number_of_steps_that_is_none_is_refused(every):
    with pytest.raises(InputError, match="every="):
        Checkpointed(every)
