"""The witness: it changes no bit of what it watches, and its ledger is what happened."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise
from lpmppl.effects.handlers.verify import Witness, finite
from lpmppl.effects.ops import happens, simulate, substep
from lpmppl.models.population import Population
from tests.laws.conftest import AGENTS, noise, play, policy


def test_a_witness_changes_nothing_and_counts_what_happens(model):
    witness = Witness(AGENTS)
    watched = play(model, noise(), policy(10, 0.5), witness)
    assert watched.differences(play(model, noise(), policy(10, 0.5))) == []
    assert witness.breaches == [] and witness.strays == set()
    infection = witness.sites["infection"]
    assert infection.events == watched.series["infections"].reshape(len(infection.events), -1).sum(-1).tolist()
    assert all(a - e == b for a, e, b in zip(infection.at_risk, infection.events, infection.at_risk[1:], strict=False))
    assert abs(sum(infection.accrued) - float(watched.state["exposure"].sum())) < 1e-6
    assert set(witness.substeps) == {"sir"} or set(witness.substeps) == {"progression", "transmission"}


PEOPLE = Population.of({"household": torch.arange(400).numpy() // 2})


def played(day, days=6):
    witness = Witness(PEOPLE.size)
    zero = torch.zeros(PEOPLE.size, dtype=torch.float64)
    state = {"x": zero, "on": zero == 0, "episode": torch.zeros(PEOPLE.size, dtype=torch.int32)}
    with torch.no_grad(), DiscreteTime(), ExogenousNoise(1), witness:
        simulate(day, state, torch.tensor(0.0), torch.tensor(float(days)))
    return {breach.what for breach in witness.breaches}


def event(s, **how):
    exposure = Exposure(s["x"], 0.3, s["on"], s["episode"])
    with PEOPLE.plate():
        new, _ = happens("event", exposure)
    kept = {"x": exposure.after, "on": s["on"] & ~new}
    return {**s, **kept, **{key: x(s, exposure, new) for key, x in how.items()}}


def test_a_ledger_in_order_has_no_breach():
    assert played(event) == set()
    again = {
        "x": lambda s, e, n: torch.where(n, 0.0, e.after),
        "on": lambda s, e, n: s["on"],
        "episode": lambda s, e, n: s["episode"] + n.int(),
    }
    assert played(lambda s: event(s, **again)) == set()


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"x": lambda s, e, n: e.before}, "the cumulative hazard of an episode doesn't go on from where it stood"),
        ({"on": lambda s, e, n: s["on"]}, "who had the event is at risk of it again in the same episode"),
        (
            {"on": lambda s, e, n: s["on"], "episode": lambda s, e, n: s["episode"] + n.int()},
            "an episode doesn't begin at a cumulative hazard of 0",
        ),
        ({"episode": lambda s, e, n: s["episode"] + 2 * n.int()}, "an episode doesn't follow the one before it"),
    ],
)
def test_a_breach_of_the_ledger_is_named(how, what):
    assert what in played(lambda s: event(s, **how))


def test_values_that_are_no_numbers_or_change_their_type_are_noted_once():
    witness = Witness(2)
    state = {"x": torch.ones(2), "clock": torch.full((2,), torch.inf)}
    with witness:
        for _ in range(2):
            substep("s", lambda s: {"x": s["x"] / 0, "clock": s["clock"] + 1}, state)
        substep("s", lambda s: {"x": s["x"].double()}, state)
        substep("s", lambda s: {"clock": s["clock"] * torch.nan}, state)
    assert [(b.where, b.what) for b in witness.breaches] == [
        ("s", "'x' is no number"),
        ("s", "'x' changes its type"),
        ("s", "'clock' is no number"),
    ]
    assert not finite("x").holds(state, {"x": torch.tensor([1.0, torch.inf])})[0]
    assert finite("clock").holds(state, {"clock": torch.full((2,), torch.inf)})[0]


def test_agents_chance_outside_their_plate_is_noted():
    witness = Witness(PEOPLE.size)
    with ExogenousNoise(1), witness:
        with PEOPLE.plate():
            pyro.sample("inside", dist.Bernoulli(torch.full((PEOPLE.size,), 0.5)))
        pyro.sample("outside", dist.Bernoulli(torch.full((PEOPLE.size,), 0.5)))
    assert witness.strays == {"outside"}
