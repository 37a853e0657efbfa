"""What is differentiable now says so rightly, and what isn't yet is refused rather than silently zero."""

from __future__ import annotations

import pytest
import torch

from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise
from lpmppl.effects.ops import simulate
from tests.laws.conftest import seirm_in_layers, sir_in_households


def one_day(model, beta):
    theta = {**model.defaults(), "initial_infected": torch.tensor(0.1), "beta": beta}
    with DiscreteTime(), ExogenousNoise(1):
        return simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(1.0))["exposure"].sum()


def test_a_days_hazard_has_the_derivative_of_eq_8():
    model = sir_in_households()
    beta = torch.tensor(0.4, requires_grad=True)
    total = one_day(model, beta)
    total.backward()
    # The hazard is β · a, so its derivative is a itself.
    torch.testing.assert_close(beta.grad.double(), (total / 0.4).detach(), rtol=1e-5, atol=0)
    with torch.no_grad():
        assert one_day(model, torch.tensor(0.4)).item() == pytest.approx(total.item(), rel=1e-6)


def test_forward_mode_agrees():
    model = sir_in_households()
    total, tangent = torch.func.jvp(lambda b: one_day(model, b), (torch.tensor(0.4),), (torch.tensor(1.0),))
    torch.testing.assert_close(tangent, total / 0.4, rtol=1e-5, atol=0)


def test_the_exposed_of_a_later_period_infect_later():
    """A period reaches the hazards through a running total: its derivative is that of differences with the same chance.

    Everybody's events stay as they are under so small a change.
    """
    model = seirm_in_layers()
    theta = {**model.defaults(), "initial_infected": torch.tensor(0.1), "latent_spread": torch.tensor(0.2)}

    def hazard(mean):
        with DiscreteTime(), ExogenousNoise(1):
            state = simulate(
                model.day({**theta, "latent_mean": mean}), model.initial(theta), torch.tensor(0.0), torch.tensor(5.0)
            )
        return state["exposure"].sum()

    mean = torch.tensor(2.5, requires_grad=True)
    hazard(mean).backward()
    with torch.no_grad():
        apart = (hazard(torch.tensor(2.502)) - hazard(torch.tensor(2.498))) / 4e-3
    assert float(mean.grad) < -0.1
    assert float(mean.grad) == pytest.approx(float(apart), rel=0.005)
