"""Law 3 of derivatives: on any number of ranks they are those of one process, to rounding."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import lpmppl as lpm
from lpmppl.effects.cohorts import Cohort
from lpmppl.effects.handlers import DiscreteTime, Pathwise, Sharded, sharded
from lpmppl.effects.ops import aggregate, simulate, tally
from lpmppl.effects.tape import taping
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.run import drawn, playing
from lpmppl.models.networks import Groups
from tests.ranks import on_ranks

AGENTS, DAYS = 1500, 14
ILL = {"initial_infected": 0.015}
WRT = {"sir": ("beta", "gamma"), "seirm": ("beta", "latent_mean", "infectious_mean")}
CITIES = [
    ("sir", 2),
    ("seirm", 3),
    *(pytest.param(*more, marks=pytest.mark.slow) for more in (("sir", 3), ("seirm", 2))),
]
"""Models and numbers of ranks."""
DIRECTION = torch.tensor([1.0, -0.5], dtype=torch.float64)


def model_of(ranks, name, stack):
    """The model of everybody, or of a rank's people among the others, with the handler that adds up."""
    people, handler = lpm.nyc.population(AGENTS), None
    if ranks is not None:
        people = people.shard(ranks)
        stack.enter_context(patch.object(sharded, "_FEW", 120))
        handler = stack.enter_context(Sharded(ranks))
    return getattr(lpm.nyc, name)(people, by={"borough": "borough"}), handler


def played(model, theta, paths):
    """Run it, and give what the tallies count and what carries their derivatives."""
    with playing(model, 0, 0, [("transmission", 1.5, 3)], DiscreteTime(), inside=[paths]) as record:
        simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(float(DAYS)))
    moved = {
        (name, kind, day): x
        for kind in ("crossing", "direct")
        for name, days in getattr(paths, kind).items()
        for day, x in days.items()
    }
    return {name: series.values for name, series in record.series.items()}, moved


def forwards(ranks, name):
    """Tallies, and their tangents by parameter, tally, kind and day."""
    found = {}
    with ExitStack() as stack:
        model, _ = model_of(ranks, name, stack)
        for wrt in WRT[name]:
            theta = {n: torch.tensor(x) for n, x in drawn(model, ILL, None, 0)[0].items()}
            with forward_ad.dual_level():
                theta[wrt] = forward_ad.make_dual(theta[wrt], torch.ones_like(theta[wrt]))
                tallies, moved = played(model, theta, Pathwise(forward=True))
                for key, x in moved.items():
                    tangent = forward_ad.unpack_dual(x).tangent
                    found[wrt, *key] = None if tangent is None else tangent.double().numpy()
    return tallies, found


@functools.cache
def alone(name):
    return forwards(None, name)


@pytest.mark.parametrize(("name", "count"), CITIES)
def test_tangents_are_those_of_one_process(tmp_path, name, count):
    tallies, tangents = alone(name)
    ranks = on_ranks(tmp_path, count, forwards, name)
    for told, found in ranks:
        for key, x in tallies.items():
            np.testing.assert_array_equal(told[key], x, err_msg=key)
        assert found.keys() == tangents.keys()
        for key, x in tangents.items():
            assert (found[key] is None) == (x is None), key
            if x is not None:
                np.testing.assert_allclose(found[key], x, rtol=1e-9, atol=1e-9 * np.abs(x).max(), err_msg=str(key))
                np.testing.assert_array_equal(found[key], ranks[0][1][key])
    for wrt in WRT[name]:
        assert any(x is not None and np.abs(x).max() > 0.1 for (by, *_), x in tangents.items() if by == wrt)


def backwards(ranks, name):
    """Derivatives of two numbers that all ranks compute alike, each by a pass backwards, of a run in float64.

    Where agents' values are float32 so are their adjoints, which another order of sums rounds otherwise. Some adjoints
    are so in any case, and are those of one process where each of R ranks derives an R-th of the number.
    """
    count, names = 1 if ranks is None else ranks.count, WRT[name]
    torch.set_default_dtype(torch.float64)
    try:
        with ExitStack() as stack:
            model, handler = model_of(ranks, name, stack)
            at = drawn(model, ILL, None, 0)[0]
            theta = {n: torch.tensor(x, requires_grad=n in names) for n, x in at.items()}
            given = theta if handler is None else stack.enter_context(handler.backwards(theta))
            _, moved = played(model, given, Pathwise())
        kept = {key: x for key, x in sorted(moved.items()) if x.requires_grad}
        found = []
        for more in (0, 1):
            whole = sum(((1 + more * day) * x * torch.arange(1, x.numel() + 1)).sum() for (*_, day), x in kept.items())
            for n in names:
                theta[n].grad = None
            (whole / count).backward(retain_graph=True)
            found.append([count * float(theta[n].grad) for n in names])
        return list(kept), found
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("name", "count"), CITIES)
def test_adjoints_are_those_of_one_process(tmp_path, name, count):
    """On ranks to which nothing has happened for days, too."""
    kept, one = backwards(None, name)
    assert np.abs(one).min() > 0
    for mine, found in on_ranks(tmp_path, count, backwards, name):
        assert mine == kept
        np.testing.assert_allclose(found, one, rtol=1e-8 if name == "sir" else 1e-9)


def program(ranks, cases, forward):
    """Totals that go on from earlier ones, several from the same, read by agents; on each rank, some agents'."""
    found = []
    for seed in range(cases):
        random = np.random.default_rng(seed)
        agents, groups, few = 40, int(random.integers(1, 9)), int(random.choice([0, 100]))
        of, rank = random.integers(0, groups, agents), random.integers(0, 3, agents)
        mine = np.flatnonzero(rank == ranks.rank) if ranks is not None else np.arange(agents)
        network = Groups("town", torch.from_numpy(of[mine]), groups, quantum=2.0**-8)
        leaf = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=not forward)
        with ExitStack() as stack:
            stack.enter_context(patch.object(sharded, "_FEW", few))
            handler = None if ranks is None else stack.enter_context(Sharded(ranks))
            stack.enter_context(taping(forward))
            if forward:
                stack.enter_context(forward_ad.dual_level())
                theta = forward_ad.make_dual(leaf, DIRECTION)
            else:
                theta = leaf if handler is None else stack.enter_context(handler.backwards({"a": leaf}))["a"]
            totals, counted = [torch.zeros(groups, dtype=torch.int64)], torch.zeros((), dtype=torch.float64)
            for k in range(10):
                before = totals[random.integers(max(0, len(totals) - 3), len(totals))]
                some, weigh = random.random(agents) < random.choice([0.05, 0.3]), random.random(agents)
                which, power, slope = random.integers(2), random.integers(1, 3), random.random() < 0.7
                cohort = Cohort.of(torch.from_numpy(some[mine]))
                weight = cohort.read(torch.from_numpy(weigh[mine]))
                # Who has nobody, or has it not from the parameters, has no derivative to send.
                value = weight * (theta if slope and len(cohort) else leaf.detach())[which]
                field = aggregate(cohort.carrying(value), network, onto=before, reduce="sum")
                totals.append(field.total)
                read = Cohort.of(torch.from_numpy((random.random(agents) < 0.4)[mine]))
                got = read.carrying((read.read(field) ** power).clamp(-100, 100).double())
                counted = counted + tally(f"read {k}", got, quantum=2.0**-8, bound=100.0).sum() * (k + 1)
            if forward:
                derived = forward_ad.unpack_dual(counted).tangent
                found.append((float(counted.detach()), None if derived is None else derived.clone()))
        if not forward:
            if counted.requires_grad:
                counted.backward()
            found.append((float(counted.detach()), leaf.grad))
    return found


@pytest.mark.parametrize("forward", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_any_program_of_totals_has_the_derivative_of_one_process(tmp_path, forward):
    one = program(None, 10, forward)
    for found in on_ranks(tmp_path, 3, program, 10, forward):
        for seed, ((value, slope), (mine, derived)) in enumerate(zip(one, found, strict=True)):
            assert value == mine, seed
            torch.testing.assert_close(derived, slope, rtol=1e-6, atol=1e-6, msg=lambda m, seed=seed: f"{seed}: {m}")
    assert sum(slope is not None and bool((slope != 0).all()) for _, slope in one) > 5
    for (_, slope), (_, other) in zip(one, program(None, 10, not forward), strict=True):
        if slope is not None and other is not None:
            gradient, tangent = (other, slope) if forward else (slope, other)
            torch.testing.assert_close(gradient @ DIRECTION, tangent, rtol=1e-6, atol=1e-6)


def sensitivities(ranks, estimator, asked):
    """Derivatives of a tally as a user asks for them, within `Sharded`."""
    with ExitStack() as stack:
        model, _ = model_of(ranks, "seirm", stack)
        ask = {"wrt": WRT["seirm"], "days": 12, "draws": 2, "set": ILL, "audit": False} | asked
        return lpm.sensitivity(model, estimator=estimator, **ask)


@pytest.mark.parametrize(
    ("estimator", "asked"),
    [
        ("pathwise", {"of": "infections", "by": "borough"}),
        ("pathwise", {"of": "infectious", "daily": True, "by": "borough", "wrt": ["beta"]}),
        ("differences", {"of": "infections", "by": "borough"}),
    ],
)
def test_a_sensitivity_is_that_of_one_process(tmp_path, estimator, asked):
    """Backwards, whose adjoints are float32 where states are; forwards, for many numbers; and by differences."""
    one, ranks = sensitivities(None, estimator, asked), on_ranks(tmp_path, 2, sensitivities, estimator, asked)
    assert float(np.abs(one["value"]).max()) > 0
    for found in ranks:
        np.testing.assert_allclose(
            found["value"], one["value"], rtol=1e-5, atol=1e-6 * float(np.abs(one["value"]).max())
        )
        assert found.equals(ranks[0])
        assert found.attrs["cuts"] == one.attrs["cuts"]
        if estimator == "pathwise":
            np.testing.assert_allclose(found["plateau"], one["plateau"])


def refusals(ranks):
    said = []
    with ExitStack() as stack:
        model, handler = model_of(ranks, "seirm", stack)
        at = {n: torch.tensor(x) for n, x in drawn(model, ILL, None, 0)[0].items()}
        beta = at["beta"].clone().requires_grad_()
        other = at["latent_mean"].clone().requires_grad_()
        with pytest.raises(InputError) as caught, handler.backwards(at):
            pass
        said.append(str(caught.value))
        with pytest.raises(LpmError) as caught:
            played(model, at | {"beta": beta}, Pathwise())
        said.append(str(caught.value))
        with pytest.raises(LpmError) as caught, handler.backwards(at | {"beta": beta}) as given:
            played(model, given | {"latent_mean": other}, Pathwise())
        said.append(str(caught.value))
        with pytest.raises(LpmError) as caught, handler.backwards(at | {"beta": beta}) as given:
            played(model, given, Pathwise({"beta": beta}))
        said.append(str(caught.value))
        ask = {"wrt": ["beta", "fatality"], "days": 10, "draws": 2, "set": ILL, "audit": False}
        for more in ({"estimator": "pathwise"}, {"estimator": "flips"}, {"within": model}):
            with pytest.raises((InputError, LpmError)) as caught:
                lpm.sensitivity(model, "deaths", **(ask | more))
            said.append(str(caught.value))
    return said


def test_what_would_be_of_a_rank_alone_is_refused(tmp_path):
    ranks = on_ranks(tmp_path, 2, refusals)
    for said in ranks:
        for words, found in zip(
            (
                "has requires_grad",
                "would be of a rank's own people alone",
                "isn't among the parameters of backwards",
                "Pathwise would find each of them",
                "parameter fatality enters a decision at site 'fatal'",
                "reads agents one by one",
                "ranks share the people",
            ),
            said,
            strict=True,
        ):
            assert words in found
