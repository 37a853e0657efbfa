"""Law 3: on any number of ranks every agent fares as in one process, bit for bit."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from unittest.mock import patch

import numpy as np
import pytest
import torch

import lpmppl as lpm
from lpmppl.effects.handlers import DiscreteTime, Sharded, sharded
from lpmppl.effects.ops import simulate
from lpmppl.inference.run import drawn, playing
from lpmppl.models import partition
from tests.ranks import on_ranks

AGENTS, DAYS = 3000, 25
ILL = {"initial_infected": 0.03, "interval": 8.0, "delayed_interval": 8.0}
ACTS = {
    "sir": [("transmission", 0.5, 10)],
    "seirm": [("transmission", 0.5, 10)],
    "pandemic": [
        ("transmission", 0.7, 15),
        ("doses_per_day", 0.011, 5),
        ("second_dose", 1.0, 8),
        ("tracing", 0.5, 3),
        ("screening", 7.0, 12),
        ("stimulus", 1200.0, 9),
        ("mask_mandate", 1.0, 6),
    ],
}


def last(model, days, acts, handlers=()):
    """The last state and the tallies of a run."""
    where = model.population.device
    theta = {name: torch.tensor(x, device=where) for name, x in drawn(model, ILL, None, 0)[0].items()}
    with torch.no_grad(), ExitStack() as stack:
        for handler in handlers:
            stack.enter_context(handler)
        record = stack.enter_context(playing(model, 0, 0, acts, DiscreteTime()))
        state = simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(float(days)))
    tallies = {name: series.values for name, series in record.series.items()}
    return {name: torch.as_tensor(x).cpu().numpy() for name, x in state.items()}, tallies


def lived(ranks, name, crossing):
    """One rank's people: their ids, their last state and the tallies; with all networks whole, or only small ones."""
    few = 120 if crossing else 10**9
    with patch.object(sharded, "_FEW", few), patch.object(partition, "_FEW", few):
        people = lpm.nyc.population(AGENTS).shard(ranks)
        handler = Sharded(ranks)
        state, tallies = last(getattr(lpm.nyc, name)(people), DAYS, ACTS[name], [handler])
        crossed = {each.network.name: len(each.groups) for each in handler._known.values()}
    return people.ids.numpy(), people.size, state, tallies, crossed


@functools.cache
def alone(name):
    return last(getattr(lpm.nyc, name)(lpm.nyc.population(AGENTS)), DAYS, ACTS[name])


@pytest.mark.parametrize(
    ("name", "ranks", "crossing"),
    [("sir", 3, False), ("seirm", 2, True), ("seirm", 3, False), ("pandemic", 2, True), ("pandemic", 3, False)],
)
def test_every_agent_fares_as_in_one_process(tmp_path, name, ranks, crossing):
    """All that is known of each agent on the last day, and all tallies on every day, on every rank."""
    state, tallies = alone(name)
    found = on_ranks(tmp_path, ranks, lived, name, crossing)
    ids = np.concatenate([ids for ids, *_ in found])
    assert sorted(ids.tolist()) == list(range(AGENTS))
    assert min(size for _, size, *_ in found) > AGENTS / ranks - 20
    mine = [key for key, x in state.items() if x.shape and x.shape[-1] == AGENTS]
    assert "exposure" in mine
    for key in mine:
        parts = np.concatenate([own[key] for _, _, own, _, _ in found], -1)
        np.testing.assert_array_equal(parts, state[key][..., ids], err_msg=key)
    for _, _, _, told, crossed in found:
        assert bool(crossed.get("workplace")) == crossing
        assert told.keys() == tallies.keys()
        for key, x in tallies.items():
            np.testing.assert_array_equal(told[key], x, err_msg=key)
    assert tallies["infections"].sum() > 50
    if name == "pandemic":
        assert min(tallies[key].sum() for key in ("doses", "second_doses", "tests", "payments", "masked")) > 0


def worlds(ranks):
    people = lpm.nyc.population(AGENTS)
    with ExitStack() as stack:
        if ranks is not None:
            people = people.shard(ranks)
            stack.enter_context(Sharded(ranks))
        model = lpm.nyc.seirm(people)
        ill = {"initial_infected": 0.03}
        tree = lpm.counterfactual(model, {"transmission": 0.4}, 5, days=15, set=ill, by={"borough": "borough"})
    return {group.path: group.to_dataset(inherit=False).load() for group in tree.subtree if group.data_vars}


def test_worlds_are_those_of_one_process(tmp_path):
    one, (first, second) = worlds(None), on_ranks(tmp_path, 2, worlds)
    assert one.keys() == first.keys()
    for name, each in one.items():
        for of in (first, second):
            assert each.equals(of[name]), name


def kept(ranks, name, path, days, resume, first=None):
    """Live to a day, keeping checkpoints, from the start or from what is kept."""
    people = lpm.nyc.population(AGENTS)
    with ExitStack() as stack:
        if ranks is not None:
            stack.enter_context(patch.object(sharded, "_FEW", 120))
            stack.enter_context(patch.object(partition, "_FEW", 120))
            people = people.shard(ranks)
            assert people["workplace_ids"].shape[0] < people.dataset["workplace_ids"].attrs["groups"]
            stack.enter_context(Sharded(ranks))
        where = {"resume": path} if resume else {"checkpoint": path}
        values = ILL if name == "pandemic" else {"initial_infected": 0.03}
        stop = None if first is None else stack.enter_context(pytest.raises(StopIteration))
        if first is not None:
            stack.enter_context(patch.object(DiscreteTime, "_events", stopping(first)))
        tree = lpm.run(
            getattr(lpm.nyc, name)(people), days, set=values, interventions=ACTS[name], checkpoint_every=4, **where
        )
    return None if stop is not None else tree["prior_predictive"].to_dataset(inherit=False).load()


def stopping(day):
    """Stop a run as it comes to a day, as a power cut would."""
    events = DiscreteTime._events

    def stop(self, dynamics, state, dynamic, now, splits):
        if now == day:
            raise StopIteration
        return events(self, dynamics, state, dynamic, now, splits)

    return stop


@pytest.mark.parametrize("name", ["seirm", pytest.param("pandemic", marks=pytest.mark.slow)])
def test_a_run_goes_on_with_any_number_of_ranks(tmp_path, name):
    """From two to three, to one, to two, each a few days further, and the end is that of a run that never stopped."""
    path = tmp_path / "kept"
    path.mkdir()
    path = path / "checkpoint.npz"
    whole = kept(None, name, tmp_path / "whole.npz", 22, False)
    on_ranks(tmp_path, 2, kept, name, path, 22, False, 6)
    there = sorted(file.name for file in path.parent.iterdir())
    assert there == [path.name, f"{path.name}.4.0-of-2", f"{path.name}.4.1-of-2"]
    on_ranks(tmp_path, 3, kept, name, path, 22, True, 13)
    assert len(list(path.parent.glob(f"{path.name}.12.*-of-3"))) == 3
    kept(None, name, path, 22, True, 19)
    for found in on_ranks(tmp_path, 2, kept, name, path, 22, True):
        assert found.equals(whole)
