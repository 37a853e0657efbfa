"""What is differentiable now says so rightly, and what isn't yet is refused rather than silently zero."""

from __future__ import annotations

import pytest
import torch

import lpmppl as lpm
from lpmppl._compat import Messenger
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


class Days(Messenger):
    """Keep every day's exposures to infection."""

    def __init__(self):
        super().__init__()
        self.met = []

    def _pyro_post_happens(self, msg):
        name, exposure = msg["args"]
        if name == "infection":
            self.met.append(exposure)


def expected(beta, days=1):
    """The expected infections of each day given the day before, with who meets how much infection a day of β = 1."""
    model = sir_in_households()
    theta = {**model.defaults(), "initial_infected": torch.tensor(0.01), "beta": beta}
    kept = Days()
    with DiscreteTime(), ExogenousNoise(1), kept:
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(float(days)))
    hazards = [(x.after - x.before)[x.at_risk] for x in kept.met]
    return [-torch.expm1(-h).sum() for h in hazards], [(h / beta).detach() for h in hazards]


def test_the_derivative_of_eq_8_is_not_the_one_printed_as_eqs_11_and_12():
    r"""With :math:`a_i = S_i \Delta t\, n_i^{-1} \sum_j I_j` it is :math:`\sum_i a_i e^{-\beta a_i}`."""
    beta = torch.tensor(0.4, requires_grad=True, dtype=torch.float64)
    (infections,), (a,) = expected(beta)
    (autograd,) = torch.autograd.grad(infections, beta)
    b = beta.detach()
    corrected = (a * torch.exp(-b * a)).sum()
    with torch.no_grad():
        above, below = (expected(torch.tensor(0.4 + e, dtype=torch.float64))[0][0] for e in (1e-4, -1e-4))
    chi = torch.exp(-b * a)
    printed = (chi * torch.exp(-chi / b)).sum()
    assert float(autograd) == pytest.approx(float(corrected), rel=1e-5)
    assert float((above - below) / 2e-4) == pytest.approx(float(corrected), rel=1e-3)
    assert abs(float(printed / corrected) - 1) > 0.5
    # As printed, somebody who meets nobody infectious counts e^(−1/β), and most of the sum is of such people.
    few = a <= a.median()
    assert float((chi * torch.exp(-chi / b))[few].sum()) > float(corrected)


def test_a_days_derivatives_dont_add_up_to_that_of_many_days():
    """They hold the infectious fixed; their number depends on β too, and makes most of the derivative."""
    beta, days = torch.tensor(0.1, dtype=torch.float64), 40
    _, met = expected(beta, days)
    a_day = sum(float((a * torch.exp(-beta * a)).sum()) for a in met)
    total = lpm.sensitivity(
        sir_in_households(),
        "infections",
        "beta",
        days,
        1,
        draws=40,
        audit=False,
        set={"initial_infected": 0.01, "beta": 0.1},
    )
    assert a_day < 0.7 * float(total["value"][0] - 2 * total["se"][0])
