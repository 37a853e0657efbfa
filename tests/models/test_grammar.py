"""Substeps and their composition."""

from __future__ import annotations

import pytest
import torch
from chirho.dynamical.ops import simulate

from lpmppl.effects.handlers import DiscreteTime, Verified
from lpmppl.errors import InputError, LpmError
from lpmppl.models.substep import Substep, compose


def adds(name: str, reads: list[str], writes: str, amount: float = 1.0, **more) -> Substep:
    return Substep(
        name,
        reads,
        [writes],
        observe=lambda s: s[reads[0]],
        policy=lambda seen: seen + amount,
        transition=lambda s, action: {writes: action},
        **more,
    )


def days(dynamics, n, dt=1.0):
    with DiscreteTime(dt):
        return simulate(dynamics, {"x": torch.zeros(1), "y": torch.zeros(1)}, torch.tensor(0.0), torch.tensor(float(n)))


def test_observe_policy_transition_in_the_order_given():
    end = days(compose(adds("first", ["x"], "x"), adds("second", ["x"], "y", 10.0)), 3)
    assert (end["x"].item(), end["y"].item()) == (3, 13)


def test_every_k_days():
    assert days(compose(adds("weekly", ["x"], "x", every=7)), 15)["x"].item() == 3
    assert days(compose(adds("weekly", ["x"], "x", every=7)), 15, dt=0.25)["x"].item() == 3


def test_two_writers_of_a_key_are_refused_by_name():
    with pytest.raises(InputError, match="'first' and 'second' both write 'x'"):
        compose(adds("first", ["x"], "x"), adds("second", ["y"], "x"))


def test_a_read_that_nobody_provides_is_refused_by_name():
    with pytest.raises(InputError, match="'first' reads z, which neither"):
        compose(adds("first", ["z"], "x"), given=["x", "y"])
    compose(adds("first", ["x"], "z"), adds("second", ["z"], "y"), given=["x", "y"])
    with pytest.raises(InputError, match="'first' reads z"):
        compose(adds("first", ["z"], "y"), adds("second", ["x"], "z"), given=["x", "y"])


def test_names_scales_and_periods_are_checked():
    with pytest.raises(InputError, match="two substeps are called 'first'"):
        compose(adds("first", ["x"], "x"), adds("first", ["x"], "y"))
    with pytest.raises(InputError, match="scale 'town'"):
        adds("first", ["x"], "x", scale="town")
    with pytest.raises(InputError, match="every 0 days"):
        adds("first", ["x"], "x", every=0)


def test_verified_sees_through_a_composition():
    sly = Substep("sly", ["x"], ["x"], policy=lambda s: s["x"] + s["y"], transition=lambda s, a: {"x": a})
    with Verified(), pytest.raises(LpmError, match="substep 'sly' on day 0 read y"):
        days(compose(sly), 1)


@pytest.mark.parametrize("kind", ["seirm_in_layers", "seirm_on_a_graph"])
def test_the_models_declare_what_they_do(kind):
    from tests.laws.conftest import MODELS, noise, play

    model = MODELS[kind]()
    theta = model.defaults()
    compose(*model.substeps(theta), given=model.initial(theta))
    play(model, Verified(), noise())
