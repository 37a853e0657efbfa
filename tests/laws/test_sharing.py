"""Law 4: under secret sharing a society is the same society, and nobody adds up what they can read."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import forward_ad

import lpmppl as lpm
from lpmppl._compat import Message, Messenger
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, FixedPoint, Pathwise, SecretShared, Utility
from lpmppl.effects.handlers.record import Record
from lpmppl.effects.hidden import Hidden
from lpmppl.effects.internals import in_process
from lpmppl.effects.opening import Compared, Custodian
from lpmppl.effects.ops import simulate
from lpmppl.models.networks import Groups
from tests.laws.conftest import noise, play, policy, trigger, worlds
from tests.randomness import states

KEEP = ("household", "workplace", "graph")
SMALL = Custodian(KEEP, least=2)
"""Strata of borough and age have few members here."""


def secret(parties: int = 3, **options):
    return SecretShared(parties, opening=SMALL, quiet=True, **options)


class Counting(Messenger):
    """Counts the sums that aren't kept at home, whatever else handles them."""

    def __init__(self) -> None:
        super().__init__()
        self.sums = 0

    def _pyro_ring_sum(self, msg: Message) -> None:
        network = msg["args"][1]
        self.sums += not (getattr(network, "public", False) or (network is not None and network.name in KEEP))


@pytest.mark.parametrize("parties", [2, 3, 5])
def test_it_is_the_plain_run_bit_for_bit(model, parties):
    base = play(model, noise())
    assert play(model, noise(), secret(parties)).differences(base) == []


@pytest.mark.parametrize("inside", [False, True])
def test_it_is_the_plain_run_in_every_world(model, inside):
    acts = policy(5, 0.3), trigger(model, 60, 0.5)
    base = play(model, worlds(), noise(), *acts)
    handlers = (noise(), secret()) if inside else (secret(), noise())
    assert play(model, worlds(), *handlers, *acts).differences(base) == []


def test_every_sum_that_was_opened_had_been_shared(model, monkeypatch):
    shared = 0
    in_clear = in_process.InProcess.total

    def total(self, *args):
        nonlocal shared
        shared += 1
        return in_clear(self, *args)

    monkeypatch.setattr(in_process.InProcess, "total", total)
    counting, handler = Counting(), secret()
    play(model, noise(), handler, counting)
    assert counting.sums == handler.opened == shared > 0


def test_what_is_added_up_looks_like_chance_to_whoever_adds_it(monkeypatch):
    """Of 640,000 top bits, as many are 1 as 0 within five standard errors; fails once in a million by chance."""
    city = lpm.nyc.seirm(lpm.nyc.population(1_000), by={"borough": "borough"})
    seen: dict[str, list[torch.Tensor]] = {}
    total, back = Groups.total, in_process.send_back

    def watched(self, integers, onto=None):
        if isinstance(integers, torch.Tensor) and onto is None:
            seen.setdefault(self.name, []).append(integers.clone())
        return total(self, integers, onto)

    def sent_back(out, index, values):
        seen.setdefault("blocks", []).append(values.clone())
        back(out, index, values)

    monkeypatch.setattr(Groups, "total", watched)
    monkeypatch.setattr(in_process, "send_back", sent_back)
    handler = SecretShared(3, opening=Custodian(least=2), quiet=True)
    play(city, handler, noise(), days=60)
    sizes = {name for name, all_ones in seen.items() if all(bool((x == 1).all()) for x in all_ones)}
    assert set(seen) - sizes - {"household", "workplace"} == {"blocks"}
    shares = torch.cat(seen["blocks"])
    ones = float((shares < 0).double().mean())
    assert len(shares) > 500_000
    assert abs(ones - 0.5) < 5 * 0.5 / len(shares) ** 0.5
    assert int((shares.abs() < 2**40).sum()) < 50


def test_the_whole_pandemic_is_the_plain_run():
    city = lpm.nyc.pandemic(lpm.nyc.population(4_000), by={"borough": "borough"})
    theta = {**city.defaults(), "initial_infected": torch.tensor(0.05)}
    opening = Custodian(least=2)
    base = play(city, noise(), Utility(city.behaviour), days=40, theta=theta)
    assert base.series["infections"].sum() > 200
    counting, handler = Counting(), SecretShared(3, opening=opening, quiet=True)
    found = play(city, noise(), Utility(city.behaviour), handler, counting, days=40, theta=theta)
    assert found.differences(base) == []
    assert handler.opened == counting.sums > 300
    assert handler.kept > 40


def tangents(model, *handlers, days=25):
    theta = {**model.defaults(), "initial_infected": torch.tensor(0.02)}
    record, paths = Record(), Pathwise(forward=True)
    with forward_ad.dual_level():
        beta = model.defaults()["beta"] * 2
        theta["beta"] = forward_ad.make_dual(beta, torch.ones_like(beta))
        with DiscreteTime(), record, ExogenousNoise(1), paths:
            for handler in handlers:
                handler.__enter__()
            try:
                simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(float(days)))
            finally:
                for handler in reversed(handlers):
                    handler.__exit__(None, None, None)
        entries = [x for kind in (paths.crossing, paths.direct) for days_ in kind.values() for x in days_.values()]
        found = [forward_ad.unpack_dual(x).tangent for x in entries]
        return [torch.zeros(1) if t is None else t.reshape(-1).clone() for t in found]


def test_tangents_are_shared_too_and_equal_those_of_the_same_arithmetic(model):
    plain = tangents(model)
    fixed = FixedPoint(opening=SMALL)
    clear = tangents(model, fixed)
    handler = secret()
    hidden = tangents(model, handler)
    assert any(bool((t != 0).any()) for t in plain)
    assert all(torch.equal(a, b) for a, b in zip(clear, hidden, strict=True))
    assert handler.opened == fixed.opened
    # Rounding: 600 people's tangents to 2⁻³², through 25 days of feedback.
    assert all(torch.allclose(a.double(), b.double(), rtol=1e-6, atol=1e-5) for a, b in zip(plain, hidden, strict=True))


def test_more_sums_are_opened_with_tangents(model):
    with_tangents, without = secret(), secret()
    tangents(model, with_tangents)
    theta = {**model.defaults(), "initial_infected": torch.tensor(0.02), "beta": model.defaults()["beta"] * 2}
    play(model, noise(), without, days=25, theta=theta)
    assert with_tangents.opened > without.opened


def test_the_global_random_state_is_left_alone(model):
    before = states()
    play(model, noise(), secret(), days=5)
    assert states() == before


def test_who_is_lost_is_missing_and_from_the_same_sums_in_the_clear(model):
    """One in ten is lost in each sum: the same hole in the same arithmetic, and another epidemic than without."""

    def lost(turn, agents):
        return torch.rand(agents, generator=torch.Generator().manual_seed(turn)) < 0.1

    base = play(model, noise(), FixedPoint(opening=SMALL, lost=lost))
    assert play(model, noise(), secret(lost=lost)).differences(base) == []
    assert base.differences(play(model, noise())) != []


def test_comparisons_among_parties_are_those_in_the_clear(model):
    """What nobody has isn't compared here, but everything that follows from it is."""
    opening = Compared(("household",), least=2)
    base, found = (
        play(model, noise(), handler, days=20)
        for handler in (FixedPoint(opening=opening), SecretShared(3, opening=opening, quiet=True))
    )
    hidden = {key for key, x in found.state.items() if isinstance(x, Hidden)}
    for outcome in (base, found):
        outcome.state = {key: x for key, x in outcome.state.items() if key not in hidden}
    assert found.differences(base) == []
    assert base.series["infections"].sum() > 20
