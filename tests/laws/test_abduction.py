"""Abduction: under the noise that a guided run must have had, the world as it was is that run, and worlds share it."""

from __future__ import annotations

import math

import pyro
import pytest
import torch

from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers import Abduct, Abducted, ExogenousNoise, Guided
from lpmppl.effects.ops import happens
from lpmppl.errors import InputError, LpmError
from tests.laws.conftest import MODELS, play, policy, worlds
from tests.oracles import go
from tests.statistical.test_episodes import people_of_towns, sis

SEEN, BEFORE, AFTER = [math.nan] * 6 + [3, 4, math.nan, 6], 10, 25


@pytest.fixture
def abducted(model):
    """The noise of a guided run, and that run."""
    found = Abducted(1)
    guided = play(model, found, Guided({"infection": SEEN}, seed=1), Abduct(found), days=BEFORE)
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
    state, guided = go(*program, days, found, Guided(seen, seed=2), Abduct(found))
    again, series = go(*program, days, found)
    assert (guided["infections"].sum(-1) == 20).all()
    assert all(torch.equal(state[k], again[k]) for k in state)
    assert (series["infections"] == guided["infections"]).all()
    episodes = {site: len(known.exact) for site, known in found.known.items()}
    assert set(episodes) == {"infection", "recovery"} and min(episodes.values()) >= 3


def test_many_runs_or_other_people_are_refused():
    model = MODELS["sir_in_households"]()
    with pytest.raises(InputError, match="one run at a time"):
        Abducted(0, torch.tensor([[0], [1]]))
    with pytest.raises(InputError, match="ExogenousNoise was given"):
        Abduct(ExogenousNoise(0))
    found = Abducted(1)
    play(model, found, Guided({"infection": SEEN}), Abduct(found), days=BEFORE)
    others = people_of_towns(11)
    with pytest.raises(LpmError, match="600 agents"):
        go(*sis(others, others.network("town")), 1, found)
    with pytest.raises(LpmError, match="new Abducted for each"):
        play(model, found, Guided({"infection": SEEN}), Abduct(found), days=BEFORE)
    data = {f"t={k}/infection": torch.zeros(600, dtype=torch.bool) for k in (7, 8)}
    again = Abducted(1)
    with pytest.raises(LpmError, match="one world of one draw"):
        # Worlds have parted before the first day that is given.
        play(model, worlds(), again, policy(6, 0.2), _Given(data), Abduct(again), days=BEFORE)


class _Given(pyro.poutine.messenger.Messenger):
    """Events of some steps, alike in all worlds, where nothing was asked for before."""

    def __init__(self, data):
        super().__init__()
        self.data = data

    def _pyro_sample(self, msg):
        if msg["name"].endswith("/infection"):
            zero = torch.zeros(msg["fn"].batch_shape, dtype=torch.bool)
            msg["value"], msg["done"] = self.data.get(msg["name"], zero) | zero, True


def test_orders_in_which_nothing_would_be_learnt_are_refused():
    model, seen = MODELS["sir_in_households"](), {"infection": SEEN}
    for order in (
        lambda n: (n, Abduct(n), Guided(seen)),
        lambda n: (Abduct(n), n, Guided(seen)),
        lambda n: (Guided(seen), n, Abduct(n)),
        lambda n: (n, Abduct(n)),
    ):
        with pytest.raises(LpmError, match="saw no hazard event"):
            play(model, *order(Abducted(1)), days=BEFORE)
    for other in ((), (ExogenousNoise(1),)):
        with pytest.raises(LpmError, match="noise that the run isn't under"):
            play(model, *other, Guided(seen), Abduct(Abducted(1)), days=BEFORE)
    noise = Abducted(1)
    late = {"t=3/infection": torch.zeros(600, dtype=torch.bool)}
    with pytest.raises(LpmError, match="after steps that weren't"):
        play(model, noise, pyro.condition(data=late), Abduct(noise), days=BEFORE)


def test_a_hazard_lost_in_what_came_before_is_refused():
    population = people_of_towns(1)
    risk, noise = torch.ones(population.size, dtype=torch.bool), Abducted(0)
    start = {"exposure": torch.ones(population.size), "risk": risk}

    def day(s):
        exposure = Exposure(s["exposure"], 1e-9, s["risk"])
        with population.plate():
            new, _ = happens("infection", exposure)
        return {**s, "exposure": exposure.after, "risk": s["risk"] & ~new}

    with pytest.raises(LpmError, match=r"lost beside 1 in torch\.float32"):
        go(day, lambda: start, 1, noise, Guided({"infection": [2]}), Abduct(noise))
