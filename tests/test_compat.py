"""Each semi-private part that the package leans on: these fail when it moves, or when a repair is no longer needed."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch
from chirho.dynamical.handlers.interruption import StaticIntervention
from chirho.dynamical.handlers.solver import TorchDiffEq
from chirho.dynamical.ops import simulate

from lpmppl import _compat


def test_an_intervention_says_what_it_sets():
    static = StaticIntervention(torch.tensor(1.0), {"x": torch.tensor([2.0])})
    assert {n: float(x) for n, x in _compat.acts_of(static).items()} == {"x": 2.0}
    assert _compat.acts_of(StaticIntervention(torch.tensor(1.0), lambda s: s)) == {}


def test_the_repair_of_chirho_is_still_needed():
    assert _compat.chirho_repair_needed(), (
        "ChiRho's own solver works on this torch: delete repair_chirho and what calls it"
    )


def test_the_repair_makes_torchdiffeq_right():
    _compat.repair_chirho()
    assert _compat.chirho_repair_in_force()
    with TorchDiffEq():
        end = simulate(lambda s: {"x": -s["x"]}, {"x": torch.tensor([1.0, 2.0])}, torch.tensor(0.0), torch.tensor(1.0))
    torch.testing.assert_close(end["x"], torch.exp(torch.tensor(-1.0)) * torch.tensor([1.0, 2.0]))


def test_storage_uses_counts_who_shares_a_buffer():
    x = torch.empty(10)
    storage = x.untyped_storage()
    held = _compat.storage_uses(storage)
    view = x[3:]
    assert _compat.storage_uses(storage) == held + 1
    del view, x
    assert _compat.storage_uses(storage) == 1


def test_inside_transform_knows_a_tensor_of_torch_func():
    seen = []
    torch.func.jvp(lambda x: seen.append(_compat.inside_transform(x)) or x, (torch.ones(1),), (torch.ones(1),))
    assert seen == [True]
    assert not _compat.inside_transform(torch.ones(1))


def test_forward_mode_is_where_tensors_may_have_tangents():
    seen = []
    torch.func.jvp(lambda x: seen.append(_compat.forward_mode()) or x, (torch.ones(1),), (torch.ones(1),))
    with torch.autograd.forward_ad.dual_level():
        seen.append(_compat.forward_mode())
    assert seen == [True, True] and not _compat.forward_mode()


def test_broadcast_to_plates_expands_as_a_pyro_plate_does():
    with pyro.plate("n", 3):
        expected = pyro.poutine.trace(lambda: pyro.sample("x", dist.Normal(0.0, 1.0))).get_trace().nodes["x"]
    frame = _compat.CondIndepStackFrame(name="n", dim=-1, size=3, counter=0)
    msg = {
        **expected,
        "fn": dist.Normal(0.0, 1.0),
        "cond_indep_stack": (frame,),
        "value": None,
        "is_observed": False,
        "done": False,
    }
    _compat.broadcast_to_plates(msg)
    assert msg["fn"].batch_shape == (3,)


def test_the_handler_stack_lists_handlers_outermost_first():
    with _compat.Messenger() as a, _compat.Messenger() as b:
        assert _compat.handler_stack()[-2:] == (a, b)


@pytest.mark.parametrize("name", [n for n in _compat.__all__ if n[0].isupper()])
def test_every_borrowed_class_is_still_one(name):
    assert isinstance(getattr(_compat, name), type)


def test_touched_counts_a_change_that_torch_did_not_see():
    x = torch.zeros(3)
    view, version = x[1:], x._version
    x.numpy()[0] = 1.0
    _compat.touched(x)
    assert x._version == view._version == version + 1
    with torch.inference_mode():
        _compat.touched(torch.zeros(3))


def test_every_pass_backwards_has_a_number_of_its_own():
    seen = []
    x = torch.ones(1, requires_grad=True)
    y = x * 1.0
    y.register_hook(lambda _: seen.append(_compat.backward_pass()))
    for _ in range(2):
        torch.autograd.grad(y, x, retain_graph=True)
    assert _compat.backward_pass() == -1
    assert -1 not in seen and len(set(seen)) == 2


def test_handlers_of_another_time_can_be_active_again():
    outer, inner = _compat.Messenger(), _compat.Messenger()
    with outer:
        then = _compat.handler_stack()
    with inner:
        now = _compat.handler_stack()
        with pytest.raises(ZeroDivisionError), _compat.under_handlers(then):
            assert _compat.handler_stack() == then
            raise ZeroDivisionError
        assert _compat.handler_stack() == now
