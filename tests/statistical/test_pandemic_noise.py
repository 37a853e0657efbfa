"""Law 8 for the composed pandemic: whatever it counts has one law in plain Pyro and under exogenous noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import lpmppl as lpm
from lpmppl.effects.handlers import ExogenousNoise, Utility
from tests.laws.test_pandemic import solve_once
from tests.oracles import RATE, chance, go

pytestmark = pytest.mark.slow

AGENTS, DAYS, RUNS = 20_000, 49, 32
"""Seven weeks, so that weekly substeps have as many turns."""

THETA = {
    "initial_infected": 0.02,
    "fatality": 5.0,
    "severity": 2.0,
    "efficacy_recovered": 0.3,
    "false_positive": 0.01,
    "other_reasons": 0.01,
}
POLICIES = {"doses_per_day": 0.008, "tracing": 0.5, "mask_mandate": 1.0, "capacity": 0.02, "transmission": 1.5}
"""A city where all that the model counts is frequent: second doses, second infections and contacts traced as well."""


@pytest.fixture(scope="module")
def model():
    with pytest.MonkeyPatch.context() as patch:
        solve_once(patch)
        yield lpm.nyc.pandemic(lpm.nyc.population(AGENTS))


def counted(model, *handlers, **changes):
    """What a run counts: every tally over the days up to the middle of the run and over those after it, and states."""
    theta = {**model.defaults(), **{k: torch.tensor(v) for k, v in (THETA | changes).items()}}

    def start():
        return {**model.initial(theta), **{k: torch.full((1,), v) for k, v in POLICIES.items()}}

    state, series = go(model.day(theta), start, DAYS, Utility(model.behaviour), *handlers)
    found = {
        "second infections": int((state["episode"] > 1).sum()),
        "changes of job": int((state["job_changes"] > 1).sum()),
        "benefits": int(state["claiming"].sum()),
        "savings": float(state["savings"].double().sum()),
    }
    for name, x in series.items():
        halves = np.array_split(x.reshape(len(x), -1).sum(-1), 2)
        found |= {f"{name}, {when}": float(half.sum()) for when, half in zip(("early", "late"), halves, strict=True)}
    return found


def runs(model, noise, **changes):
    """The counts of many runs, by name: under noise of as many seeds, or in plain Pyro."""
    with chance(61):
        all_ = [counted(model, *([ExogenousNoise(62 + k)] if noise else []), **changes) for k in range(RUNS)]
    return {name: np.array([each[name] for each in all_]) for name in all_[0]}


@pytest.fixture(scope="module")
def plain(model):
    return runs(model, noise=False)


def same(a, b):
    """The p-value that two samples have one law, by mean and by spread."""
    if np.ptp(a) == np.ptp(b) == 0:
        return float(a[0] == b[0])
    mean = stats.ttest_ind(a, b, equal_var=False).pvalue
    return min(1.0, 2 * min(mean, stats.levene(a, b, center="median").pvalue))


def test_whatever_is_counted_agrees_in_law(model, plain):
    """Failure rate 1e-6, over the mean and the spread of every count: 32 runs each, of seven weeks."""
    noise = runs(model, noise=True)
    frequent = {name.partition(",")[0] for name, x in plain.items() if x.mean() > 20}
    assert frequent >= {*model.tallies, "second infections", "changes of job", "benefits"}
    p = {name: same(x, noise[name]) for name, x in plain.items()}
    assert min(p.values()) > RATE / len(p), {name: x for name, x in p.items() if x < 1e-3}


def test_the_comparison_would_see_a_tenth_less(model, plain):
    less = {name: 0.9 * float(model.parameters[name].default) for name in ("beta", "claim_share")}
    noise = runs(model, noise=True, **less)
    for seen in ("infections, early", "ui_claims, late"):
        assert same(plain[seen], noise[seen]) < RATE / len(plain)
