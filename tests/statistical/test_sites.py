"""Law 8, site by site: agents' chance has one law in plain Pyro and under noise, and it is the exact one."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.poutine.messenger import Messenger
from scipy import stats

from lpmppl.effects.cohorts import dense
from lpmppl.effects.distributions import Exposure, Left
from lpmppl.effects.handlers import ExogenousNoise
from lpmppl.effects.ops import happens
from lpmppl.models.contacts import Layer
from lpmppl.models.population import Population
from lpmppl.models.seirm import DEATH_DELAY, INFECTION_FATALITY, SEIRM
from tests.oracles import RATE, chance, chi_square, go, play, two_sided

N = 60_000


def meanings():
    return pytest.mark.parametrize("handlers", [(), (ExogenousNoise(31),)], ids=["plain", "noise"])


class Sites(Messenger):
    """Keep what every agents' site gave, under its name without the step, with the ids of the agents."""

    def __init__(self):
        super().__init__()
        self.values, self.ids = defaultdict(list), defaultdict(list)

    def _pyro_post_sample(self, msg):
        if "agents" in (msg["infer"] or {}):
            site = msg["name"].rpartition("/")[2]
            self.values[site].append(dense(msg["value"]))
            self.ids[site].append(msg["infer"]["agents"])

    def of(self, site):
        """Every value of a site, in the order of the agents' ids."""
        values, ids = torch.cat(self.values[site]), torch.cat(self.ids[site])
        return values[ids.argsort()].double().numpy()


def people(n=N, **variables):
    return Population.of({"house": np.arange(n), **variables})


def exposed(hazards, handlers, at_risk=None, n=N):
    """Expose everybody to a hazard for each step: the step of each agent's event, −1 for none, and what was left."""
    folk = people(n)
    when, remains = torch.full((n,), -1), torch.zeros(n)

    def day(s):
        step = int(s["t"])
        risk = s["free"] if at_risk is None else s["free"] & at_risk(step)
        exposure = Exposure(s["before"], hazards[step], at_risk=risk)
        with folk.plate():
            event, left = happens("event", exposure)
        left = dense(left)
        assert bool((left[~event] == 0).all())
        assert bool((left >= 0).all() and (left < 1).all())
        when[event], remains[event] = step, left[event]
        return {"before": exposure.after, "free": s["free"] & ~event}

    start = {"before": torch.zeros(n, dtype=torch.float64), "free": torch.ones(n, dtype=torch.bool)}
    with chance(32):
        go(day, lambda: start, len(hazards), *handlers)
    return when.numpy(), remains.double().numpy()


def of_the_step(x, h):
    """The distribution function of what is left of a step after an event of hazard h."""
    return (np.exp(-h * (1 - x)) - np.exp(-h)) / -np.expm1(-h)


@meanings()
@pytest.mark.parametrize("hazards", [(0.3, 0.0, 1.2, 0.05), (0.002, 0.001, 0.004), (3.0, 2.0)])
def test_events_come_in_each_step_as_often_as_hazards_say(hazards, handlers):
    """Failure rate 1e-6 each."""
    when, _ = exposed(hazards, handlers)
    total = np.concatenate(([0.0], np.cumsum(hazards)))
    law = {k: np.exp(-total[k]) - np.exp(-total[k + 1]) for k in range(len(hazards))} | {-1: np.exp(-total[-1])}
    assert chi_square(Counter(when.tolist()), law) > RATE


@meanings()
@pytest.mark.parametrize("h", [0.02, 0.5, 4.0])
def test_what_is_left_of_a_step_is_a_truncated_exponential(h, handlers):
    """Failure rate 1e-6 each, over the two steps; whether hazard came before is no matter."""
    when, left = exposed((h, 2 * h), handlers, n=400_000 if h < 0.1 else N)
    assert min((when == 0).sum(), (when == 1).sum()) > 500
    for step, hazard in enumerate((h, 2 * h)):
        assert stats.kstest(of_the_step(left[when == step], hazard), "uniform").pvalue > RATE / 2


@meanings()
def test_hazard_counts_only_while_at_risk(handlers):
    """Failure rate 1e-6: agents who miss a step meet the next one as if it were their first."""
    away = torch.arange(N) % 2 == 0
    when, left = exposed(
        (0.8, 0.5), handlers, at_risk=lambda step: ~away if step == 0 else torch.ones(N, dtype=torch.bool)
    )
    missed = when[away.numpy()]
    p = [two_sided(((missed == 1).mean() - -np.expm1(-0.5)) * np.sqrt(len(missed) / (np.exp(-0.5) * -np.expm1(-0.5))))]
    assert not (missed == 0).any()
    p.append(stats.kstest(of_the_step(left[away.numpy()][missed == 1], 0.5), "uniform").pvalue)
    assert min(p) > RATE / 2


@pytest.mark.parametrize("h", [1e-3, 0.5, 4.0])
def test_the_densities_are_those_of_the_laws(h):
    before, risk = torch.full((2,), 0.7, dtype=torch.float64), torch.tensor([True, False])
    exposure = Exposure(before, h, risk)
    happened, not_ = (exposure.log_prob(torch.full((2,), e)).exp().numpy() for e in (True, False))
    np.testing.assert_allclose(happened, [-np.expm1(-h), 0.0], rtol=1e-6)
    np.testing.assert_allclose(not_, [np.exp(-h), 1.0], rtol=1e-6)
    x = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    one = Exposure(torch.zeros(1, dtype=torch.float64), h, torch.ones(1, dtype=torch.bool))
    density = np.array([float(Left(one, torch.ones(1, dtype=torch.bool)).log_prob(at.reshape(1)).exp()) for at in x])
    below = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) / 2 * 1e-4)))
    np.testing.assert_allclose(below, of_the_step(x.numpy(), h), atol=1e-6)
    assert float(Left(one, torch.zeros(1, dtype=torch.bool)).log_prob(torch.zeros(1))) == 0.0


def lognormal(mean, spread):
    variance = np.log1p((spread / mean) ** 2)
    return stats.lognorm(np.sqrt(variance), scale=mean * np.exp(-variance / 2))


def course(handlers, n=N):
    """Everybody infected at day 0 and followed to the end: what every site of progression gave, and the ages."""
    ages = np.random.default_rng(33).integers(0, 9, n).astype(np.uint8)
    folk, sites = people(n, age_band=ages), Sites()
    theta = {"latent_mean": 3.0, "latent_spread": 1.0, "infectious_mean": 5.0, "infectious_spread": 2.0}
    with chance(34):
        model = SEIRM(folk, [Layer(folk.network("house"), 1.0)])
        play(model, 45, *handlers, sites, initial_infected=1.0, fatality=8.0, **theta)
    return {site: sites.of(site) for site in ("latent_period", "infectious_period", "fatal", "death_delay")}, ages


@meanings()
def test_the_course_of_the_disease_has_its_declared_laws(handlers):
    """Failure rate 1e-6, over twelve comparisons."""
    sites, ages = course(handlers)
    assert {len(sites[s]) for s in ("latent_period", "infectious_period", "fatal")} == {N}
    assert len(sites["death_delay"]) == sites["fatal"].sum()
    p = [
        stats.kstest(sites["latent_period"], lognormal(3.0, 1.0).cdf).pvalue,
        stats.kstest(sites["infectious_period"], lognormal(5.0, 2.0).cdf).pvalue,
        stats.kstest(sites["death_delay"], lognormal(*DEATH_DELAY).cdf).pvalue,
    ]
    for age, risk in enumerate(INFECTION_FATALITY):
        fatal = sites["fatal"][ages == age]
        p.append(stats.binomtest(int(fatal.sum()), len(fatal), min(1.0, 8 * risk)).pvalue)
    assert min(p) > RATE / len(p)


@meanings()
def test_the_parts_of_a_course_are_independent(handlers):
    """Failure rate 1e-6, over the three pairs of sites that all old people have, and the delay with the periods."""
    sites, ages = course(handlers)
    delay, dead = sites.pop("death_delay"), sites["fatal"].astype(bool)
    p = []
    for some, values in (
        (ages == 7, list(sites.values())),
        (dead, [sites["latent_period"], sites["infectious_period"]]),
    ):
        columns = [stats.rankdata(x[some]) for x in values]
        columns += [stats.rankdata(delay)] if some is dead else []
        correlation = np.corrcoef(columns)[np.triu_indices(len(columns), 1)]
        p += two_sided(correlation * np.sqrt(some.sum())).tolist()
    assert min(p) > RATE / len(p)


@meanings()
@pytest.mark.parametrize(
    ("site", "law"),
    [
        (dist.Bernoulli(torch.tensor(0.3)), {0.0: 0.7, 1.0: 0.3}),
        (dist.Categorical(torch.tensor([0.2, 0.0, 0.5, 0.3])), {0.0: 0.2, 2.0: 0.5, 3.0: 0.3}),
        (dist.Normal(torch.tensor(2.0), torch.tensor(3.0)), stats.norm(2, 3).cdf),
        (dist.Exponential(torch.tensor(0.5)), stats.expon(scale=2).cdf),
        (dist.Weibull(torch.tensor(2.0), torch.tensor(1.5)), stats.weibull_min(1.5, scale=2).cdf),
        (dist.Uniform(torch.tensor(-1.0), torch.tensor(2.0)), stats.uniform(-1, 3).cdf),
    ],
    ids=["Bernoulli", "Categorical", "Normal", "Exponential", "Weibull", "Uniform"],
)
def test_other_sites_have_their_declared_laws(site, law, handlers):
    """Failure rate 1e-6 each."""
    folk, sites = people(), Sites()

    def day(s):
        with folk.plate():
            pyro.sample("site", site)
        return s

    with chance(35):
        go(day, lambda: {"x": torch.zeros(1)}, 2, *handlers, sites)
    value = torch.cat(sites.values["site"]).double().numpy()
    assert len(value) == 2 * N
    p = chi_square(Counter(value.tolist()), law) if isinstance(law, dict) else stats.kstest(value, law).pvalue
    assert p > RATE
