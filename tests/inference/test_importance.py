"""The posterior by guided runs, against a society whose posterior is a sum over everybody's state."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from lpmppl.effects.distributions import Exposure
from lpmppl.effects.ops import aggregate, happens, tally
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.importance import Weighted, conditioned
from lpmppl.inference.likelihood import Guide
from lpmppl.inference.scales import Scale
from lpmppl.models.model import Model, Parameter
from lpmppl.models.population import Population

AGENTS, SEEN = 12, {"infection": [1, 2, 1, 0, 2]}
DAYS = len(SEEN["infection"])


class Small(Model):
    """Twelve people who meet as one group: who brings the infection, who catches it and who recovers is by chance."""

    name, by = "small", None

    def __init__(self):
        self.population = Population.of({"household": np.arange(AGENTS) // 2})
        self.network = self.population.everyone()
        self.parameters = {
            "initial_infected": Parameter(dist.Beta(2.0, 8.0), 0.2, "", "", ""),
            "beta": Parameter(dist.LogNormal(-0.7, 0.5), 0.5, "", "", ""),
            "gamma": Parameter(dist.LogNormal(-1.5, 0.3), 0.2, "", "", ""),
        }
        self.environment, self.tallies = {}, {"infections": "infections"}

    def initial(self, theta, start=0.0):
        with self.population.plate():
            first = pyro.sample("initial_infection", dist.Bernoulli(theta["initial_infected"])).bool()
        hazard = torch.zeros(AGENTS, dtype=torch.float64)
        return {"susceptible": ~first, "infectious": first, "hazard": hazard, "illness": hazard}

    def day(self, theta):
        def step(s):
            force = aggregate(s["infectious"], self.network) * theta["beta"]
            infection = Exposure(s["hazard"], force, s["susceptible"], dt=s["dt"])
            recovery = Exposure(s["illness"], theta["gamma"], s["infectious"], dt=s["dt"])
            with self.population.plate():
                over, _ = happens("recovery", recovery)
                new, _ = happens("infection", infection)
            tally("infections", new)
            return {
                **s,
                "hazard": infection.after,
                "illness": recovery.after,
                "susceptible": s["susceptible"] & ~new,
                "infectious": (s["infectious"] & ~over) | new,
            }

        return step


def binomial(n, k, p):
    return math.comb(n, k) * p**k * (1 - p) ** (n - k) if 0 <= k <= n else 0.0


def likelihood(share, beta, gamma, series=SEEN["infection"]):
    """The probability of a series, by summing over how many are infectious."""
    states = {(AGENTS - k, k): binomial(AGENTS, k, share) for k in range(AGENTS + 1)}
    q = -math.expm1(-gamma)
    for new in series:
        after: dict[tuple[int, int], float] = {}
        for (well, sick), mass in states.items():
            mass *= binomial(well, new, -math.expm1(-beta * sick / AGENTS))
            if mass:
                for over in range(sick + 1):
                    key = well - new, sick - over + new
                    after[key] = after.get(key, 0.0) + mass * binomial(sick, over, q)
        states = after
    return sum(states.values())


def exact(scale):
    """The mean and standard deviation of each parameter on its scale, on a grid."""
    axis = torch.linspace(-4.5, 4.5, 16, dtype=torch.float64)
    grid = torch.tensor(list(itertools.product(axis.tolist(), repeat=3)), dtype=torch.float64)
    weights = scale.log_prior(grid).exp()
    grid, weights = grid[weights > 1e-6 * weights.max()], weights[weights > 1e-6 * weights.max()]
    columns = torch.stack(scale.columns(grid), -1).tolist()
    weights = weights * torch.tensor([likelihood(*theta) for theta in columns], dtype=torch.float64)
    weights = weights / weights.sum()
    mean = weights @ grid
    return mean, (weights @ (grid - mean).square()).sqrt()


@pytest.fixture(scope="module")
def model():
    return Small()


@pytest.fixture(scope="module")
def scale(model):
    return Scale(model, list(model.parameters))


@pytest.fixture(scope="module")
def found(model, scale):
    return conditioned(model, scale, {}, SEEN, DAYS, evaluations=800, seed=1)


def test_mean_and_spread_are_those_of_the_exact_posterior(found, scale):
    """The seed is fixed; a mean is off by a standard error of 0.05 spreads or so at the least effective size."""
    mean, spread = exact(scale)
    weights = torch.softmax(found.log_weights, 0)
    near = weights @ found.points
    wide = (weights @ (found.points - near).square()).sqrt()
    assert found.effective > 200 and found.khat < 0.7
    assert ((near - mean).abs() < 0.25 * spread).all()
    assert ((wide / spread).log().abs() < 0.2).all()
    draws = found.drawn(4000, 2)
    assert ((draws.mean(0) - mean).abs() < 0.25 * spread).all()
    assert ((draws.std(0) / spread).log().abs() < 0.2).all()


def test_the_mean_weight_is_the_probability_of_what_was_seen(found, scale):
    """The weights' mean is the evidence: the likelihood's mean over draws from the prior."""
    columns = torch.stack(scale.columns(scale.drawn(400, 5)), -1).tolist()
    over_prior = np.array([likelihood(*theta) for theta in columns])
    weights = found.log_weights.exp().numpy()
    se = math.hypot(over_prior.std() / 20, weights.std() / math.sqrt(len(weights)))
    assert abs(weights.mean() - over_prior.mean()) < 5 * se


def test_where_every_event_is_seen_few_runs_are_enough(model, scale):
    seen = {**SEEN, "recovery": [0, 1, 0, 1, 1]}
    found = conditioned(model, scale, {}, seen, DAYS, evaluations=300, seed=0)
    assert found.effective > 90 and found.khat < 0.7


def test_it_is_a_function_of_its_seed_and_leaves_chance_alone(model, scale):
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, same, other = (conditioned(model, scale, {}, SEEN, DAYS, 100, seed) for seed in (3, 3, 4))
    draws = one.drawn(10, 1)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert torch.equal(one.points, same.points) and torch.equal(one.log_weights, same.log_weights)
    assert torch.equal(draws, same.drawn(10, 1)) and not torch.equal(draws, one.drawn(10, 2))
    assert not torch.equal(one.points, other.points)


@pytest.mark.parametrize("evaluations", [100, 137])
def test_no_more_runs_are_made_than_were_asked_for(model, scale, evaluations, monkeypatch):
    runs, draws = [], []
    whole = Guide.__call__
    monkeypatch.setattr(
        Guide,
        "__call__",
        lambda self, values, chance, initial: (
            runs.append(len(values)),
            draws.extend(chance),
            whole(self, values, chance, initial),
        )[2],
    )
    found = conditioned(model, scale, {}, SEEN, DAYS, evaluations, 0)
    assert sum(runs) <= evaluations == len(found.points)
    assert len(set(draws)) == len(draws)  # each has chance of its own


def test_other_parameters_are_as_they_are_set(model):
    """With the number who began and recovery settled, beta's posterior is that of one parameter."""
    scale = Scale(model, ["beta"])
    fixed = {"initial_infected": 0.2, "gamma": 0.3}
    found = conditioned(model, scale, fixed, SEEN, DAYS, 400, 0)
    axis = torch.linspace(-4, 4, 81, dtype=torch.float64)[:, None]
    weights = scale.log_prior(axis).exp() * torch.tensor(
        [likelihood(0.2, b, 0.3) for b in scale.columns(axis)[0].tolist()], dtype=torch.float64
    )
    weights = weights / weights.sum()
    mean = weights @ axis
    spread = (weights @ (axis - mean).square()).sqrt()
    assert abs(float(torch.softmax(found.log_weights, 0) @ found.points - mean)) < 0.25 * float(spread)


def test_what_cannot_have_been_is_refused_in_words(model, scale):
    with pytest.raises(LpmError, match="none of 40 runs from the priors could have the events that were seen"):
        conditioned(model, scale, {}, {"infection": [0, 13]}, 2, 100, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"evaluations": 99}, "evaluations=99 was given; give a whole number, 100 or more"),
        ({"days": 0}, "days=0"),
        ({"series": {"infections": [1]}}, "did you mean 'infection'"),
        ({"series": {}}, "nothing was observed"),
        ({"series": {"infection": [0.5]}}, "0.5 events"),
    ],
)
def test_what_cannot_be_asked_is_refused(model, scale, options, said):
    asked = {"fixed": {}, "series": SEEN, "days": DAYS, "evaluations": 100, **options}
    with pytest.raises(InputError, match=said):
        conditioned(model, scale, **asked)


def test_one_lucky_run_does_not_have_all_draws():
    points = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]
    log_weights = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    log_weights[7] = 9.0
    found = Weighted.of(points, log_weights)
    most, total = float(found.smoothed.max()), float(found.smoothed.sum())
    assert found.effective < 1.5 and found.khat > 0.7
    assert most < 0.6
    assert abs(total - 1) < 1e-9
