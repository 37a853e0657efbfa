"""A society among parties: each client's people live with everybody's, as they would in one place."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import lpmppl as lpm
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, FixedPoint, Pathwise, Record, SecretShared
from lpmppl.effects.opening import Custodian, Noised
from lpmppl.effects.ops import ring_sum, simulate
from lpmppl.errors import InputError, LpmError
from lpmppl.models.networks import Edges, Groups
from lpmppl.models.population import Population
from lpmppl.parties.client import Opened
from lpmppl.parties.remote import Remote
from lpmppl.parties.session import Session
from lpmppl.parties.society import Dropouts, Known, central, fingerprint, lived, parted, society, sums_a_day, tallies_of
from lpmppl.parties.terms import PLAIN, Rule, Terms

PEOPLE = lpm.nyc.population(1_000)
ILL = {"initial_infected": 0.05}


class WaitingError(Exception):
    """Others haven't given what a round needs."""


class Together:
    """Clients of one session whose rounds are added up in the clear, in one process: each begins anew until it is done.

    Pyro's handlers are a process's, so that clients can't be threads.
    """

    def __init__(self) -> None:
        self.given = {}

    def rounds(self, session: Session, name: str) -> InOneRoom:
        return InOneRoom(self, session, name)


class InOneRoom:
    """One client's rounds."""

    def __init__(self, room: Together, session: Session, name: str) -> None:
        self.room, self.session, self.name, self.agents, self.round = room, session, name, session.agents(name), 0
        self.terms = []

    def sum(self, values, lost=None, terms=PLAIN):
        assert values.dtype == torch.int64
        terms.check(self.session, values.shape[1])
        if self.session.proofs:
            terms.circuit(values.shape[1]).check(values)
        self.terms.append(terms)
        kept = torch.ones(self.agents, dtype=torch.bool) if lost is None else ~lost
        mine = values[kept].sum(0), int(kept.sum())
        before = self.room.given.setdefault((self.round, self.name), mine)
        assert torch.equal(before[0], mine[0])
        parts = [self.room.given.get((self.round, name)) for name in self.session.clients]
        if None in parts:
            raise WaitingError
        self.round += 1
        return Opened(sum(p[0] for p in parts), sum(p[1] for p in parts), kept, self.round - 1, values.numel() * 8)


def live(clients, days, dropout=0.0, seed=3, proofs=False):
    parts = parted(PEOPLE, clients)
    names = [f"pool-{k}" for k in range(clients)]
    sizes = {name: part.size for name, part in zip(names, parts, strict=True)}
    session = Session.new(model=fingerprint(days, seed, ILL), helpers=3, clients=sizes, proofs=proofs)
    room, found = Together(), {}
    a_day = sums_a_day(PEOPLE)
    for _ in range(days * a_day + 1):
        for k, part in enumerate(parts):
            lost = Dropouts(dropout, a_day, k) if dropout else None
            with contextlib.suppress(WaitingError):
                found[k] = lived(part, room.rounds(session, names[k]), days, seed, ILL, lost)
    assert len(found) == clients
    return parts, [found[k] for k in range(clients)], a_day


def test_parts_are_whole_households_with_everybodys_ids_and_sizes():
    parts = parted(PEOPLE, 3)
    ids = torch.cat([part.ids for part in parts])
    assert sorted(ids.tolist()) == list(range(PEOPLE.size))
    home = PEOPLE["household"]
    for part in parts:
        mine, others = set(home[part.ids.long()].tolist()), home[np.setdiff1d(np.arange(1000), part.ids.numpy())]
        assert not mine & set(others.tolist())
        together = part["household"][:, None] == part["household"][None]
        assert torch.equal(together, home[part.ids.long()][:, None] == home[part.ids.long()][None])
        assert torch.equal(part.network("borough").size, torch.bincount(PEOPLE["borough"].long(), minlength=5))


@pytest.mark.parametrize(("clients", "proofs"), [(1, False), (2, True), (3, False)])
def test_every_clients_tallies_are_those_of_one_place(clients, proofs):
    parts, found, a_day = live(clients, days=6, proofs=proofs)
    alone = tallies_of(lpm.run(society(PEOPLE), days=6, seed=3, set=ILL))
    assert alone["infections"].sum() > 5
    for tree, remote in found:
        mine = tallies_of(tree)
        assert all(torch.equal(mine[name], alone[name]) for name in alone)
        assert remote.everybody == [1000] * 6 * a_day
    assert sum(part.size for part in parts) == 1000


def test_without_who_is_lost_they_are_those_of_one_place_without_them():
    parts, found, a_day = live(2, days=6, dropout=0.2)
    included = torch.zeros((6 * a_day, 1000), dtype=torch.bool)
    for part, (_, remote) in zip(parts, found, strict=True):
        included[:, part.ids.long()] = torch.stack(remote.included)
    lost_a_day = 1 - included.reshape(6, a_day, -1).all(1).double().mean()
    assert 0.15 < lost_a_day < 0.25
    without = tallies_of(central(PEOPLE, 6, 3, included, ILL))
    whole = tallies_of(central(PEOPLE, 6, 3, torch.ones_like(included), ILL))
    for tree, _ in found:
        assert all(torch.equal(tallies_of(tree)[name], without[name]) for name in without)
    assert any(not torch.equal(whole[name], without[name]) for name in whole)


def test_tangents_are_summed_among_parties_too():
    """How everybody's infections move with β, from two clients who each have half of the people."""
    parts, names = parted(PEOPLE, 2), ("pool-0", "pool-1")
    sizes = {name: part.size for name, part in zip(names, parts, strict=True)}
    session = Session.new(model="tangents", helpers=3, clients=sizes)

    def slope(people, handler):
        model, paths = society(people), Pathwise(tallies=["infections"], forward=True)
        with forward_ad.dual_level(), DiscreteTime(), Record(), ExogenousNoise(1), paths, handler:
            theta = {**model.defaults(), "initial_infected": torch.tensor(0.05)}
            theta["beta"] = forward_ad.make_dual(theta["beta"], torch.ones_like(theta["beta"]))
            simulate(model.day(theta), model.initial(theta), torch.tensor(0.0), torch.tensor(4.0))
            moved = paths.crossing["infections"].values()
            return torch.stack([forward_ad.unpack_dual(x).tangent.reshape(-1) for x in moved])

    opening = Custodian(("household",), least=2)
    alone, room, found = slope(PEOPLE, FixedPoint(opening=opening)), Together(), {}
    for _ in range(100):
        for name, part in zip(names, parts, strict=True):
            with contextlib.suppress(WaitingError):
                remote = Remote(room.rounds(session, name))
                found[name] = slope(part, SecretShared(remote, opening=opening, quiet=True))
        if len(found) == 2:
            break
    assert float(alone.abs().max()) > 0
    assert all(torch.equal(each, alone) for each in found.values())


def test_whoever_dies_is_gone_for_the_rest_of_the_day_and_back_the_next():
    lost = Dropouts(0.3, sums=4, seed=1)
    days = torch.stack([lost(turn, 500) for turn in range(8)]).reshape(2, 4, 500).int()
    assert bool((days.diff(dim=1) >= 0).all())
    assert bool((days[0, 3] > days[1, 0]).any())
    assert 0.2 < float(days[:, 3].double().mean()) < 0.4


def test_what_a_client_knows_comes_back_from_a_file(tmp_path):
    _, found, _ = live(1, days=2)
    known = Known.of(*found[0])
    known.save(tmp_path / "a.lived")
    again = Known.open(tmp_path / "a.lived")
    assert torch.equal(again.included, known.included)
    assert torch.equal(again.everybody, known.everybody)
    assert again.bytes_sent == known.bytes_sent > 0
    assert all(torch.equal(again.tallies[name], x) for name, x in known.tallies.items())
    (tmp_path / "b.lived").write_text("no")
    with pytest.raises(InputError, match=r"b\.lived is damaged"):
        Known.open(tmp_path / "b.lived")


@pytest.mark.parametrize("clients", [0, 10_000])
def test_more_clients_than_households_are_refused(clients):
    with pytest.raises(InputError, match=f"{clients} clients can't share"):
        parted(PEOPLE, clients)


def test_people_without_boroughs_are_refused():
    with pytest.raises(InputError, match="lack 'borough'"):
        society(Population.of({"household": [0, 0, 1]}))


def alone(agents=1000, proofs=False):
    session = Session.new(model="m", helpers=2, clients={"a": agents}, proofs=proofs)
    return Remote(Together().rounds(session, "a"))


def test_what_can_not_be_summed_among_parties_is_refused_by_name():
    graph = Edges("graph", torch.arange(1000), torch.arange(1000), 1000)
    x = torch.ones(1000, dtype=torch.long)
    with SecretShared(alone(), opening=Custodian((), least=2), quiet=True), pytest.raises(LpmError, match="'graph'"):
        ring_sum(x, Edges("graph", *(torch.arange(1000).repeat(2),) * 2, 1000))
    with SecretShared(alone(999), quiet=True), pytest.raises(InputError, match="has 999 agents in the session"):
        ring_sum(x, None)
    assert graph.reach == 1
    with SecretShared(alone(proofs=True), quiet=True):
        with pytest.raises(LpmError, match="'everybody': a message is negative"):
            ring_sum(-x, None)
        with pytest.raises(LpmError, match="'everybody': derivatives have no range"):
            ring_sum(x, None, None, 0)


def test_helpers_are_told_the_noise_and_what_is_proved():
    """By a message's largest value: a tally of cases is of ones, and a mean of what is shed of sixteenths of bits."""
    area = Groups("area", torch.arange(1000) % 4, 4)
    for proofs, rule in ((False, Rule.NOTHING), (True, Rule.AT_MOST_ONE)):
        remote = alone(proofs=proofs)
        with SecretShared(remote, opening=Noised(sigma=3.0), quiet=True):
            ring_sum(torch.ones(2, 1000, dtype=torch.long), area)
        assert remote.rounds.terms == [Terms(3.0, rule, 0, 2 if proofs else 1)]
    with SecretShared(remote, quiet=True):
        ring_sum(torch.full((1000,), 5), area, None, 9)
    assert remote.rounds.terms[1] == Terms(0.0, Rule.AT_MOST_ONE_BOUNDED, 4, 1)


def test_worlds_are_added_up_side_by_side():
    area = Groups("area", torch.arange(1000) % 4, 4)
    x = torch.arange(3000).reshape(3, 1, 1000)
    with SecretShared(alone(), quiet=True):
        found = ring_sum(x, area)
    assert torch.equal(found, ring_sum(x, area))


def test_people_who_live_alone_need_enough_of_them():
    with FixedPoint(opening=Custodian((), least=2)), pytest.raises(LpmError, match="'household' has"):
        lpm.run(society(PEOPLE), days=1)
