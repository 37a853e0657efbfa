"""Law 10: epidemics of two and three against their enumerated Markov chains, under every meaning of chance."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate

from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers import ExogenousNoise
from lpmppl.effects.ops import aggregate, happens, tally
from lpmppl.models.networks import Edges, Groups
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from tests.oracles import RATE, chance, chi_square, escape_from_fresh, go, play, sir_law

BETA, GAMMA, INITIAL, DAYS = 1.1, 0.4, 0.45, 3

# How much j's message counts for i.
CHAINS = {
    "pair": np.full((2, 2), 1 / 2),
    "triple": np.full((3, 3), 1 / 3),
    "line": np.array([[0, 1, 0], [1 / 2, 0, 1 / 2], [0, 1, 0]]),
}


def copies(chain, n):
    """People in n copies of a chain side by side, their network, and the copy each belongs to."""
    k = len(CHAINS[chain])
    people = Population.of({"copy": np.arange(n * k) // k})
    if chain == "line":
        pairs = torch.tensor([[0, 1], [1, 0], [1, 2], [2, 1]])
        edges = (torch.arange(n)[:, None, None] * 3 + pairs).reshape(-1, 2)
        network = Edges("line", edges[:, 0], edges[:, 1], n * k)
    else:
        network = people.network("copy")
    return people, network, people.strata(copy="copy")


def start_of_day(people, network, by):
    """SIR in which all who are infectious at the start of a day send the same, of ops alone: the day and the start."""

    def initial():
        with people.plate():
            infectious = pyro.sample("initial_infection", dist.Bernoulli(INITIAL)).bool()
        zero = torch.zeros(people.size, dtype=torch.float64)
        return {"susceptible": ~infectious, "infectious": infectious, "exposure": zero, "illness": zero}

    def day(s):
        force = aggregate(s["infectious"], network) * BETA
        infection = Exposure(s["exposure"], force, at_risk=s["susceptible"], dt=s["dt"])
        recovery = Exposure(s["illness"], GAMMA, at_risk=s["infectious"], dt=s["dt"])
        with people.plate():
            recovered, _ = happens("recovery", recovery)
            infected, _ = happens("infection", infection)
        tally("infections", infected, by=by)
        return {
            "susceptible": s["susceptible"] & ~infected,
            "infectious": (s["infectious"] & ~recovered) | infected,
            "exposure": infection.after,
            "illness": recovery.after,
        }

    return day, initial


def simulated(program, people, network, by, dt, *handlers):
    if program == "flags":
        return go(*start_of_day(people, network, by), DAYS, *handlers, dt=dt)
    model = SIR(people, [network], by={"copy": "copy"} if isinstance(by, Groups) else None)
    return play(model, DAYS, *handlers, dt=dt, beta=BETA, gamma=GAMMA, initial_infected=INITIAL)


def outcomes(state, series, chain):
    """How often each outcome came: everyone's last stage and each step's infections, a row per copy or draw."""
    k, steps = len(CHAINS[chain]), series["infections"].shape[0]
    s, i = state["susceptible"].reshape(-1, k), state["infectious"].reshape(-1, k)
    stage = torch.where(s, 0, torch.where(i, 1, 2)).numpy()
    infections = series["infections"].reshape(steps, -1).T
    return Counter((tuple(a), tuple(b)) for a, b in zip(stage.tolist(), infections.tolist(), strict=True))


def over_copies(program, chain, dt, *handlers):
    return outcomes(*simulated(program, *copies(chain, 20_000), dt, *handlers), chain)


def plain_copies(program, chain, dt):
    with chance(11):
        return over_copies(program, chain, dt)


def plain_draws(program, chain, dt):
    people, network, _ = copies(chain, 1)
    with chance(12):
        return outcomes(*simulated(program, people, network, None, dt, pyro.plate("draws", 2_000, dim=-2)), chain)


def noise_copies(program, chain, dt):
    return over_copies(program, chain, dt, ExogenousNoise(13))


def noise_draws(program, chain, dt):
    people, network, _ = copies(chain, 1)
    noise = ExogenousNoise(14, torch.arange(2_000).unsqueeze(-1))
    return outcomes(*simulated(program, people, network, None, dt, noise), chain)


def noise_seeds(program, chain, dt):
    people, network, _ = copies(chain, 1)
    seen: Counter = Counter()
    for seed in range(400):
        seen += outcomes(*simulated(program, people, network, None, dt, ExogenousNoise(seed)), chain)
    return seen


MEANINGS = [plain_copies, plain_draws, noise_copies, noise_draws, pytest.param(noise_seeds, marks=pytest.mark.slow)]


def p_values(program, chain, meaning, dt):
    law = sir_law(CHAINS[chain], BETA, GAMMA, INITIAL, round(DAYS / dt), dt, left=program == "sir")
    return chi_square(meaning(program, chain, dt), law)


@pytest.mark.parametrize("meaning", MEANINGS)
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("program", ["flags", "sir"])
def test_small_epidemics_follow_their_exact_law(program, chain, meaning):
    """Failure rate 1e-6 each."""
    assert p_values(program, chain, meaning, 1.0) > RATE


@pytest.mark.parametrize("meaning", [plain_copies, noise_copies])
@pytest.mark.parametrize("program", ["flags", "sir"])
def test_half_steps_follow_the_law_of_half_steps(program, meaning):
    """Failure rate 1e-6 each."""
    assert p_values(program, "triple", meaning, 0.5) > RATE


@pytest.mark.parametrize("meaning", [plain_copies, noise_copies])
def test_the_exact_laws_can_be_told_apart(meaning):
    """The power of the test: with the weight of the first step left out, or a tenth more transmission, it fails."""
    seen = meaning("sir", "triple", 1.0)
    assert chi_square(seen, sir_law(CHAINS["triple"], BETA, GAMMA, INITIAL, DAYS, left=False)) < RATE
    assert chi_square(seen, sir_law(CHAINS["triple"], BETA * 1.1, GAMMA, INITIAL, DAYS)) < RATE


def test_the_escape_from_somebody_fresh_is_the_integral_over_what_is_left():
    for pull, h in [(0.3, 0.7), (0.7, 0.3), (1.1 / 3, 1.1 / 3), (0.2, 3.0)]:

        def density(x, h=h):
            return h * np.exp(-h * (1 - x)) / -np.expm1(-h)

        assert integrate.quad(density, 0, 1)[0] == pytest.approx(1, abs=1e-12)
        expected = integrate.quad(lambda x, k=pull, d=density: np.exp(-k * x) * d(x), 0, 1)[0]
        assert escape_from_fresh(pull, h) == pytest.approx(expected, abs=1e-12)


def test_one_step_of_the_pair_by_hand():
    law = sir_law(CHAINS["pair"], BETA, GAMMA, INITIAL, 1)
    assert law[((1, 1), (1,))] == pytest.approx(2 * INITIAL * (1 - INITIAL) * (1 - np.exp(-BETA / 2)) * np.exp(-GAMMA))
