"""Global measures where they are known, and beside Sobol indices by SALib."""

from __future__ import annotations

import math

import numpy as np
import pyro.distributions as dist
import pytest

import lpmppl as lpm
from lpmppl.errors import InputError
from lpmppl.inference.flipping import Question
from lpmppl.models.model import Parameter
from tests.inference.test_sensitivity import AGENTS, RATE, Decay
from tests.laws.conftest import MODELS


def test_the_measure_is_the_mean_square_of_the_derivative():
    """Failure rate 1e-4: within five standard errors of what quadrature over the prior gives."""
    days, spread = 10, 0.3
    found = lpm.global_sensitivity(Decay(), "left", ["rate", "idle"], days, points=60, step=0.2)
    z = np.linspace(-6, 6, 4001)
    weight = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    rates = RATE * np.exp(spread * z)
    slope = AGENTS * days * np.exp(-rates * days) * rates * spread
    left = AGENTS * (1 - np.exp(-rates * days))
    measure, variance = (weight * slope**2).sum(), (weight * left**2).sum() - (weight * left).sum() ** 2
    rate = found.sel(parameter="rate")
    assert abs(float(rate["measure"]) - measure) < 5 * float(rate["se"]) < 0.5 * measure
    assert found.attrs["variance"] == pytest.approx(variance, rel=0.5)
    assert 0.8 < float(rate["bound"]) < 1.4
    assert float(found["measure"].sel(parameter="idle")) == 0.0
    assert found["measure"].attrs["units"] == "(people)²"


def test_what_is_noise_is_no_measure():
    """The square of one estimate would be its variance; the product of two is about zero either way."""
    model = MODELS["sir_on_a_graph"]()
    model.parameters = {**model.parameters, "gamma": Parameter(dist.LogNormal(-2.0, 1e-4), 0.135, "", "", "")}
    found = lpm.global_sensitivity(
        model, "infections", "gamma", 20, points=20, step=1.0, set={"initial_infected": 0.02}
    )
    assert abs(float(found["measure"][0])) < 4 * float(found["se"][0]) + 1e-9


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"of": "lef"}, "did you mean 'left'"),
        ({"wrt": "rat"}, "did you mean 'rate'"),
        ({"points": 1}, "points=1"),
        ({"step": -1.0}, "step=-1"),
        ({"set": {"rate": 0.1}}, "parameter rate is set and asked for"),
    ],
)
def test_what_cant_be_is_refused(options, said):
    with pytest.raises(InputError, match=said):
        lpm.global_sensitivity(Decay(), **{"of": "left", "wrt": "rate", "days": 2, "points": 2, **options})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "of", "wrt", "days"),
    [
        (lambda: lpm.nyc.seirm(lpm.nyc.population(4000)), "infections", "all", 30),
        (
            lambda: lpm.nyc.pandemic(lpm.nyc.population(4000)),
            "infections",
            ["beta", "home", "crowding", "local", "season", "mask_source", "mask_wearer", "incubation_median"],
            30,
        ),
    ],
    ids=["seirm", "pandemic"],
)
def test_the_ranking_is_that_of_sobol_indices(make, of, wrt, days):
    """Wherever SALib's intervals of two total indices lie apart, and the measures' do, they are in the same order."""
    from SALib.analyze import sobol
    from SALib.sample import sobol as sampling
    from scipy import stats

    model, fixed = make(), {"initial_infected": 0.02}
    names = [n for n in (model.parameters if wrt == "all" else wrt) if n != "initial_infected"]
    found = lpm.global_sensitivity(model, of, names, days, points=48, set=fixed)
    problem = {"num_vars": len(names), "names": names, "bounds": [[0.0, 1.0]] * len(names)}
    sample = sampling.sample(problem, 128, calc_second_order=False, seed=0)
    theta = {n: p.default for n, p in model.parameters.items()} | fixed
    priors = [model.parameters[n].prior for n in names]
    points = [dict(zip(names, _at(priors, u, stats), strict=True)) for u in sample]
    read = lambda series: series.sum(keepdims=True).reshape(-1).astype(float)  # noqa: E731
    question = Question(model, theta, names, of, read, days, 0)
    from lpmppl.inference.differences import _together

    levels = np.concatenate([_together([question], 0, points[k : k + 64])[0][:, 0] for k in range(0, len(points), 64)])
    total = sobol.analyze(problem, levels, calc_second_order=False, seed=0)
    apart = 0
    for i, one in enumerate(names):
        for j, other in enumerate(names):
            gap = total["ST"][i] - total["ST"][j]
            mine = float(found["measure"].sel(parameter=one) - found["measure"].sel(parameter=other))
            if gap > total["ST_conf"][i] + total["ST_conf"][j]:
                apart += 1
                reach = 1.96 * sum(float(found["se"].sel(parameter=n)) for n in (one, other))
                assert mine > -reach, (one, other)
    assert apart >= len(names) - 1


def _at(priors, u, stats):
    """Values of the priors at quantiles."""
    out = []
    for prior, q in zip(priors, np.clip(u, 1e-6, 1 - 1e-6), strict=True):
        if isinstance(prior, dist.LogNormal):
            out.append(float(math.exp(float(prior.loc) + float(prior.scale) * stats.norm.ppf(q))))
        else:
            a, b = float(prior.concentration1), float(prior.concentration0)
            out.append(float(stats.beta.ppf(q, a, b)))
    return out
