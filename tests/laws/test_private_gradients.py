"""How tallies move with a parameter in secret, eqs. 8 and 11–13 of the LPM paper: as printed, mended, and over time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

from lpmppl.effects.handlers import SecretShared
from lpmppl.effects.opening import Custodian
from lpmppl.effects.ops import aggregate, tally
from lpmppl.models.networks import Groups

N, DAYS, BETA = 1_200, 30, 0.4
RNG = np.random.default_rng(0)
AREA = Groups("area", torch.from_numpy(RNG.integers(0, 40, N)), 40)
SUSCEPTIBLE = torch.from_numpy(RNG.random(N) < 0.9).double()
ILL = torch.from_numpy(RNG.random(N) < 0.08).double()


def secret():
    return SecretShared(3, opening=Custodian((), least=2), quiet=True)


def derivative(program, at=BETA):
    """What a program of β gives, and how it moves with β, in forward mode."""
    with forward_ad.dual_level():
        beta = forward_ad.make_dual(torch.tensor(at, dtype=torch.float64), torch.ones((), dtype=torch.float64))
        found = program(beta)
        value, tangent = forward_ad.unpack_dual(found)
        return float(value.sum()), float(tangent.sum())


def one_day(beta):
    """Expected infections of a day, eq. 8."""
    p = SUSCEPTIBLE * (1 - torch.exp(-beta * aggregate(ILL, AREA).dense().double()))
    return tally("infections", p, quantum=2.0**-32)


def month(beta):
    """Expected infections of thirty days in which whoever was infected sheds, in expectation, from the next on."""
    ill, susceptible, total = ILL, SUSCEPTIBLE, 0.0
    for _ in range(DAYS):
        p = susceptible * (1 - torch.exp(-beta * aggregate(ill, AREA).dense().double()))
        total = total + tally("infections", p, quantum=2.0**-32)
        susceptible, ill = susceptible - p, (0.85 * ill + p).clamp(max=1.0)
    return total


def by_differences(program, step=1e-4):
    low, high = (float(program(torch.tensor(BETA + s, dtype=torch.float64)).sum()) for s in (-step, step))
    return (high - low) / (2 * step)


def test_the_mended_equation_is_autograds_and_the_printed_one_is_not():
    exposure = AREA.total(ILL.long())[AREA.index.long()] / AREA.size[AREA.index.long()]
    mended = float((SUSCEPTIBLE * exposure * torch.exp(-BETA * exposure)).sum())
    chi = torch.exp(-BETA * SUSCEPTIBLE * exposure)
    printed = float((chi * torch.exp(-chi / BETA)).sum())
    with secret() as handler:
        value, slope = derivative(one_day)
    unit = 2.0**-32
    assert slope * unit == pytest.approx(mended, rel=1e-4)
    assert by_differences(one_day) * unit == pytest.approx(mended, rel=1e-3)
    assert abs(printed / mended - 1) > 0.1
    assert value > 0
    # The sum over the area, the tally, and how the tally moves: nothing else was added up.
    assert handler.opened == 3


def test_one_steps_derivative_is_not_that_of_a_month_and_tangents_make_it_so():
    with secret() as handler:
        value, slope = derivative(month)
    truth = by_differences(month)
    partial, ill, susceptible = 0.0, ILL, SUSCEPTIBLE
    for _ in range(DAYS):
        a = aggregate(ill, AREA).dense().double()
        p = susceptible * (1 - torch.exp(-BETA * a))
        partial += float((susceptible * a * torch.exp(-BETA * a)).sum())
        susceptible, ill = susceptible - p, (0.85 * ill + p).clamp(max=1.0)
    unit = 2.0**-32
    assert slope == pytest.approx(truth, rel=2e-3)
    assert abs(partial / (truth * unit) - 1) > 0.3
    assert value > 0
    # Messages, tallies, and the tangents of both but on the first day, where messages have none.
    assert handler.opened == 4 * DAYS - 1
