"""Law 10: the well-mixed epidemic nears its mean field as 1/N, and ends at the final size."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from scipy import integrate, stats
from torch.func import jacrev

from lpmppl.effects.handlers import ExogenousNoise
from lpmppl.models.contacts import SUSCEPTIBILITY, Layer
from lpmppl.models.population import Population
from lpmppl.models.seirm import SEIRM
from lpmppl.models.sir import SIR
from tests.oracles import RATE, chance, far, final_size, mean_field, play

BETA, GAMMA, INITIAL, DAYS = 0.6, 0.2, 0.2, 10


def everyone(n, age_band=4):
    return Population.of({"age_band": np.full(n, age_band, dtype=np.uint8)})


def path(n, *handlers, days=DAYS, dt=1.0):
    """A well-mixed SIR's (susceptible, infectious, sent) shares day by day: shape (T + 1, …, 3)."""
    people, seen = everyone(n), []

    def watch(s):
        shares = (s["susceptible"].double(), s["infectious"].double(), (s["infectious"] * s["share"]).double())
        seen.append(torch.stack([x.mean(-1) for x in shares], -1))

    play(
        SIR(people, [people.everyone()]),
        days,
        *handlers,
        dt=dt,
        watch=watch,
        beta=BETA,
        gamma=GAMMA,
        initial_infected=INITIAL,
    )
    return torch.stack(torch.broadcast_tensors(*seen))


def deterministic(days=DAYS, dt=1.0):
    """The mean-field path, and for each step the weight of a deviation then in the share susceptible at the end."""
    step, x = mean_field(BETA, GAMMA, dt), [torch.tensor([1 - INITIAL, INITIAL, INITIAL], dtype=torch.float64)]
    for _ in range(round(days / dt)):
        x.append(step(x[-1]))
    weights = [torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)]
    for before in reversed(x[:-1]):
        weights.insert(0, jacrev(step)(before).T @ weights[0])
    return torch.stack(x), torch.stack(weights), step


def gaps(paths, dt=1.0):
    """Each run's gap to the mean field in the last share susceptible, less a martingale that explains most of it.

    What a step does beyond its conditional expectation has mean zero, and so has what the linearised mean field makes
    of it by the end.
    """
    x, weights, step = deterministic(dt=dt)
    surprise = torch.cat(((paths[0] - x[0]).unsqueeze(0), paths[1:] - step(paths[:-1])))
    explained = (surprise * weights.reshape(-1, *(1,) * (paths.dim() - 2), 3)).sum(-1).sum(0)
    return ((paths[-1, ..., 0] - x[-1, 0]) - explained).flatten().numpy()


def measured(n, runs, plain):
    """Gaps of many runs, as draws of as many at a time as make two million agents."""
    parts, size = [], min(runs, max(1, 2_000_000 // n))
    for first in range(0, runs, size):
        if plain:
            with chance(n + first):
                parts.append(gaps(path(n, pyro.plate("draws", size, dim=-2))))
        else:
            parts.append(gaps(path(n, ExogenousNoise(5, torch.arange(first, first + size).unsqueeze(-1)))))
    return np.concatenate(parts)


@pytest.mark.slow
@pytest.mark.parametrize("plain", [False, True], ids=["noise", "plain"])
def test_the_gap_to_the_mean_field_shrinks_as_one_over_n(plain):
    """Failure rate 1e-6: the slope of log gap on log N is −1 within 4.9 standard errors, which are below 0.02."""
    sizes, runs = np.array([100, 1_000, 10_000, 100_000]), [3_000, 1_500, 500, 100]
    samples = [measured(n, k, plain) for n, k in zip(sizes, runs, strict=True)]
    gap = np.array([g.mean() for g in samples])
    assert (gap > 0).all()
    weight = np.array([len(g) * g.mean() ** 2 / g.var(ddof=1) for g in samples])
    x = np.log(sizes) - np.average(np.log(sizes), weights=weight)
    slope, error = (weight * x * np.log(gap)).sum() / (weight * x**2).sum(), (weight * x**2).sum() ** -0.5
    assert error < 0.02
    assert abs(slope + 1) < far() * error


@pytest.mark.parametrize("dt", [1.0, 0.25])
def test_a_large_epidemic_is_the_mean_field_of_its_own_step(dt):
    """Failure rate 1e-6 for the mean of the runs, beyond a bias of 3/N."""
    gap = gaps(path(10_000, ExogenousNoise(6, torch.arange(40).unsqueeze(-1)), dt=dt), dt)
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    assert error < 1e-4
    assert abs(gap.mean()) < far() * error + 3e-4


def test_the_mean_field_of_ever_smaller_steps_is_the_differential_equation():
    def ode(_, x):
        return -BETA * x[0] * x[1], BETA * x[0] * x[1] - GAMMA * x[1]

    exact = integrate.solve_ivp(ode, (0, DAYS), (1 - INITIAL, INITIAL), rtol=1e-11, atol=1e-12).y[:, -1]
    off = np.array([abs(deterministic(dt=dt)[0][-1, :2].numpy() - exact).max() for dt in (1 / 16, 1 / 32, 1 / 64)])
    assert off[-1] < 2e-3
    # First order: the weight of the first step mends the start of infectiousness, not its end within a step.
    np.testing.assert_allclose(off[:-1] / off[1:], 2, rtol=0.1)


def cities(count, n, age_band=4):
    """Cities of n people that meet nobody outside them: as many epidemics in one run."""
    size = count * n
    people = Population.of({"city": np.arange(size) // n, "age_band": np.full(size, age_band, dtype=np.uint8)})
    return people, people.network("city")


def final_sizes(model, days, *handlers, dt=1.0, **theta):
    """The shares of each city that were infected at the start and ever."""
    shares = []

    def watch(s):
        hit = s["infected_at"] >= 0 if "infected_at" in s else ~s["susceptible"]
        shares.append(hit.double().reshape(COUNT, -1).mean(-1).numpy())

    _, series = play(model, days, *handlers, dt=dt, watch=watch, **theta)
    assert series["infections"][-1].sum() == 0
    return shares[0], shares[-1]


COUNT, SIZE = 30, 3_000


@pytest.mark.parametrize("plain", [False, True], ids=["noise", "plain"])
def test_sir_ends_at_the_final_size(plain):
    """Failure rate 1e-6."""
    beta, gamma, dt = 0.8, 0.32, 0.5
    people, network = cities(COUNT, SIZE)
    with chance(7):
        handlers = () if plain else (ExogenousNoise(7),)
        sizes = final_sizes(
            SIR(people, [network]), 100, *handlers, dt=dt, beta=beta, gamma=gamma, initial_infected=0.03
        )
    # A whole number of steps for who is infectious at the start; half a step first, on average, for who is later.
    later = np.exp(-gamma * dt) / -np.expm1(-gamma * dt)
    off = [
        ever - final_size(beta * dt * (0.5 + later), first, beta * dt * (1 + later))
        for first, ever in zip(*sizes, strict=True)
    ]
    assert stats.sem(off) < 2.5e-3
    assert stats.ttest_1samp(off, 0).pvalue > RATE


@pytest.mark.parametrize(
    ("plain", "band", "dt"),
    [
        (False, 6, 1.0),
        pytest.param(False, 1, 0.5, marks=pytest.mark.slow),
        pytest.param(True, 6, 0.5, marks=pytest.mark.slow),
        pytest.param(True, 1, 1.0, marks=pytest.mark.slow),
    ],
)
def test_seirm_ends_at_the_final_size_of_any_infectious_period(plain, band, dt):
    """Failure rate 1e-6 each: the size depends on the mean infectious period alone, and on no step."""
    beta, contacts, mean = 0.05, 25.0, 4.0
    people, network = cities(COUNT, SIZE, band)
    theta = {"latent_mean": 2.0, "latent_spread": 0.5, "infectious_mean": mean, "infectious_spread": 1.0}
    with chance(8):
        handlers = () if plain else (ExogenousNoise(8),)
        model = SEIRM(people, [Layer(network, contacts)])
        sizes = final_sizes(model, 150, *handlers, dt=dt, beta=beta, initial_infected=0.03, **theta)
    r0 = beta * contacts * SUSCEPTIBILITY[band] * mean
    off = [ever - final_size(r0, first) for first, ever in zip(*sizes, strict=True)]
    assert stats.sem(off) < 4e-3
    assert stats.ttest_1samp(off, 0).pvalue > RATE
