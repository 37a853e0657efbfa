"""Abduction: under the noise that a guided run must have had, the world as it was is that run, and worlds share it."""

from __future__ import annotations

import math

import pytest
import torch

from lpmppl.effects.handlers import Abduct, Abducted, ExogenousNoise, Guided
from lpmppl.errors import InputError, LpmError
from tests.laws.conftest import MODELS, play, policy, worlds
from tests.oracles import go
from tests.statistical.test_episodes import people_of_towns, sis

SEEN, BEFORE, AFTER = [math.nan] * 6 + [3, 4, math.nan, 6], 10, 25


@pytest.fixture
def abducted(model):
    """The noise of a guided run, and that run."""
    found = Abducted(1)
    guided = play(model, found, Guided({"infection": SEEN}, seed=1), Abduct(found, ["infection"]), days=BEFORE)
    return found, guided


def test_its_replay_is_the_guided_run_bit_for_bit(model, abducted):
    found, guided = abducted
    counts = guided.series["infections"].reshape(BEFORE, -1).sum(-1)
    assert all(math.isnan(y) or x == y for x, y in zip(counts, SEEN, strict=True))
    assert play(model, found, days=BEFORE).differences(guided) == []
    # The prior's noise is of another course.
    assert play(model, ExogenousNoise(1), days=BEFORE).differences(guided) != []


def test_worlds_under_it_are_their_single_runs(model, abducted):
    found, guided = abducted
    both = play(model, worlds(), found, policy(7, 0.2), days=AFTER)
    single, factual = play(model, found, policy(7, 0.2), days=AFTER), play(model, found, days=AFTER)
    assert both.world().differences(factual) == []
    assert both.world(**{"t=7": 1}).differences(single) == []
    assert (factual.series["infections"][:BEFORE] == guided.series["infections"]).all()
    assert single.series["infections"].sum() < factual.series["infections"].sum()
    null = play(model, worlds(), found, policy(7, 1.0), days=AFTER)
    assert null.world(**{"t=7": 1}).differences(factual) == []


def test_events_that_come_again_are_abducted_in_each_episode():
    days, seen = 12, {"infection": [20.0] * 12, "recovery": [15.0] * 8}
    people = people_of_towns(10)
    program, found = sis(people, people.network("town")), Abducted(2)
    state, guided = go(*program, days, found, Guided(seen, seed=2), Abduct(found, seen))
    again, series = go(*program, days, found)
    assert (guided["infections"].sum(-1) == 20).all()
    assert all(torch.equal(state[k], again[k]) for k in state)
    assert (series["infections"] == guided["infections"]).all()
    assert {site: len(known.exact) for site, known in found.known.items()} == {"infection": 3, "recovery": 3}


def test_many_runs_or_other_people_are_refused():
    model = MODELS["sir_in_households"]()
    with pytest.raises(InputError, match=r"shape \(2, 1\)"):
        Abducted(0, torch.tensor([[0], [1]]))
    found = Abducted(1)
    play(model, found, Guided({"infection": SEEN}), Abduct(found, ["infection"]), days=BEFORE)
    others = people_of_towns(11)
    with pytest.raises(LpmError, match="600 agents"):
        go(*sis(others, others.network("town")), 1, found)
    with pytest.raises(LpmError, match="one world of one draw"):
        play(model, worlds(), found, policy(7, 0.2), Abduct(found, ["infection"]), days=BEFORE)
