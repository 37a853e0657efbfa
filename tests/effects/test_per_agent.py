"""Chance that no seed says, and tallies of something else than the agents: refused by name, in every question."""

from __future__ import annotations

import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist

import lpmppl as lpm
from lpmppl.effects.ops import tally
from lpmppl.errors import InputError
from lpmppl.inference.run import run
from lpmppl.models.model import Model, Parameter
from lpmppl.models.population import Population

N = 1_000
PLATE = r"put it in `with population\.plate\(\):`"


class Births(Model):
    """Children by chance, some of which stands where it shouldn't."""

    name, environment, tallies = "births", {"pill": 0.0}, {"children": "children"}

    def __init__(self, first=None, early=None, daily=None, counted=None, within=None):
        self.population = Population.of({"household": torch.arange(N) // 3})
        self.parameters = {"rate": Parameter(dist.LogNormal(-3.0, 0.3), 0.05, "births", "per day", "chosen")}
        self.first, self.early, self.daily, self.counted, self.within = first, early, daily, counted, within

    def initial(self, theta, start=0.0):
        children = torch.zeros(N) if self.first is None else pyro.sample("first", self.first) + torch.zeros(N)
        return {"children": children, "pill": torch.zeros(1)}

    def day(self, theta):
        early = 0.0 if self.early is None else pyro.sample("early", self.early)

        def step(s):
            more = 0.0 if self.daily is None else pyro.sample("daily", self.daily)
            with self.population.plate():
                law = dist.Bernoulli((theta["rate"] + 0.01 * (early + more)).clamp(0.0, 1.0))
                born = pyro.sample("born", law if self.within is None else self.within)
            tally("children", born if self.counted is None else self.counted(born))
            return {**s, "children": s["children"] + born}

        return step


ASKED = {
    "run": lambda m: run(m, 3),
    "counterfactual": lambda m: lpm.counterfactual(m, {"pill": 1.0}, at=1, days=3),
    "sensitivity": lambda m: lpm.sensitivity(m, "children", days=3, draws=2, audit=False),
}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"first": dist.Bernoulli(0.3)}, f"site 'first' stands outside a plate and before the first step.*{PLATE}"),
        ({"first": dist.Bernoulli(0.3).expand([N])}, f"site 'first' has a value for each of 1,000 agents.*{PLATE}"),
        ({"early": dist.LogNormal(-3.0, 1.0)}, f"site 'early' stands outside a plate.*{PLATE}, or make it a parameter"),
        ({"daily": dist.Uniform(torch.zeros(N), 1.0)}, f"site 'daily' has a value for each of 1,000 agents.*{PLATE}"),
        ({"daily": torch.distributions.LogNormal(-3.0, 1.0)}, "'t=0/daily': LogNormal is torch's own.*pyro.distrib"),
        ({"within": torch.distributions.Bernoulli(0.3)}, "'t=0/born': Bernoulli is torch's own.*dist.Bernoulli"),
        (
            {"counted": lambda born: torch.ones(3)},
            r"tally 'children': shape \(3,\) was given, but there are 1,000 agents",
        ),
        ({"counted": lambda born: born[: N // 2]}, r"tally 'children': shape \(500,\) was given"),
        ({"counted": lambda born: torch.ones(1)}, r"tally 'children': shape \(1,\) was given"),
    ],
)
@pytest.mark.parametrize("ask", ASKED)
def test_what_isnt_of_the_agents_is_refused_by_name(ask, wrong, words):
    with pytest.raises(InputError, match=words):
        ASKED[ask](Births(**wrong))


def test_the_global_random_state_is_left_alone_where_it_is_refused():
    before = torch.get_rng_state()
    with pytest.raises(InputError):
        run(Births(first=dist.Bernoulli(0.3)), 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_chance_of_the_environment_in_a_step_is_the_seeds():
    model = Births(daily=dist.LogNormal(-1.0, 1.0))
    one, same, other = (run(model, 5, seed)["prior_predictive"]["children"].values for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_what_is_fixed_or_said_from_outside_is_no_chance():
    assert int(run(Births(first=dist.Delta(torch.tensor(1.0))), 3)["prior_predictive"]["children"].sum()) > 0
    with pyro.condition(data={"first": torch.tensor(1.0)}):
        assert int(run(Births(first=dist.Bernoulli(0.3)), 3)["prior_predictive"]["children"].sum()) > 0
