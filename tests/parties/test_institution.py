"""Institutions that calibrate together: the update of one place, from what stays apart."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

import lpmppl as lpm
from lpmppl.errors import InputError, LpmError
from lpmppl.inference.calibnn import CalibNN
from lpmppl.parties.client import Opened
from lpmppl.parties.institution import LONGEST, Institution, by_borough, fingerprint, seen
from lpmppl.parties.session import Session

DAYS, NAMES = 8, ("bronx", "queens", "brooklyn")
REGIONS = by_borough(lpm.nyc.population(2_000))


def society(name):
    return lpm.nyc.sir(REGIONS[name], by={"borough": "borough"})


class Meeting:
    """Rounds of institutions in threads: each waits for all, and gets the sum modulo 2⁶⁴."""

    def __init__(self, names, longest=LONGEST):
        self.session = Session.new(model="m", helpers=2, clients=dict.fromkeys(names, 1), least=2, longest=longest)
        self.gate, self.given = threading.Barrier(len(names)), {}
        self.round, self.bytes_sent = 0, 0

    def of(self, name):
        return Seat(self, name)


class Seat:
    def __init__(self, meeting, name):
        self.meeting, self.session, self.name, self.agents, self.round = meeting, meeting.session, name, 1, 0

    def sum(self, values):
        assert values.dtype == torch.int64
        assert values.shape[0] == 1
        self.meeting.given[self.round, self.name] = values[0]
        self.meeting.gate.wait(60)
        total = sum(self.meeting.given[self.round, name] for name in self.session.clients)
        self.round += 1
        return Opened(total, len(self.session.clients), torch.ones(1, dtype=torch.bool), self.round - 1, 8)


def together(institutions, steps):
    """Let each take its rounds, in threads; their runs are made before, as handlers belong to the process."""
    for each in institutions:
        for runs in each._runs.values():
            runs.more(8, each._network())
    threads = [threading.Thread(target=each._steps, args=(steps,)) for each in institutions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def weights(network):
    return parameters_to_vector(network._trained.network.parameters()).detach()


def test_the_update_is_that_of_one_place_within_the_rounding():
    meeting = Meeting(NAMES)
    apart = [Institution(name, society(name), "infections", DAYS, meeting.of(name), seed=5) for name in NAMES]
    pooled = CalibNN({name: society(name) for name in NAMES}, "infections", DAYS, seed=5)
    assert all(torch.equal(weights(each), weights(pooled)) for each in apart)
    before = weights(pooled)
    for runs in pooled._runs.values():
        runs.more(8, pooled._network())
    pooled._steps(6)
    together(apart, 6)
    assert float((weights(pooled) - before).abs().max()) > 1e-3
    # Adam's first step is its rate, whatever the size of a gradient: where one is nothing but rounding there is no law.
    for each in apart:
        off = (weights(each) - weights(pooled)).abs()
        assert float((off > 1e-6).double().mean()) < 1e-3
        assert float(off.max()) < 1e-3
    assert all(torch.equal(weights(each), weights(apart[0])) for each in apart)
    np.testing.assert_allclose(apart[0].losses, pooled.losses, atol=1e-6)


def test_steps_of_ones_own_are_averaged():
    meeting = Meeting(NAMES[:2])
    apart = [Institution(n, society(n), "infections", DAYS, meeting.of(n), local=3, seed=5) for n in NAMES[:2]]
    together(apart, 6)
    assert meeting.of(NAMES[0]).session.clients
    assert len(apart[0].losses) == 2
    assert torch.equal(weights(apart[0]), weights(apart[1]))


def test_institutions_runs_have_chances_of_their_own():
    meeting = Meeting(NAMES)
    found = [Institution(n, society(n), "infections", DAYS, meeting.of(n)) for n in NAMES]
    seeds = [runs.seed for each in found for runs in each._runs.values()]
    assert len(set(seeds)) == 3


def test_a_session_of_people_or_of_short_vectors_is_refused():
    meeting = Meeting(NAMES, longest=10)
    with pytest.raises(InputError, match="at most 10 numbers"):
        Institution("bronx", society("bronx"), "infections", DAYS, meeting.of("bronx"))
    meeting.session = Session.new(model="m", helpers=2, clients={"bronx": 20, "queens": 1})
    with pytest.raises(InputError, match="each client has one agent"):
        Institution("bronx", society("bronx"), "infections", DAYS, meeting.of("bronx"))


def test_an_update_that_nobody_else_is_in_is_not_taken():
    meeting = Meeting(NAMES[:1] + NAMES[1:2])
    one = Institution("bronx", society("bronx"), "infections", DAYS, meeting.of("bronx"))
    next(iter(one._runs.values())).more(4, one._network())
    one.rounds.sum = lambda x: Opened(x[0], 1, torch.ones(1, dtype=torch.bool), 0, 8)
    before = weights(one)
    with pytest.raises(LpmError, match="has the update of 1 institution"):
        one._steps(1)
    assert torch.equal(weights(one), before)


def test_boroughs_are_all_people_by_the_names_they_have_in_the_city():
    city = lpm.nyc.population(2_000)
    ids = np.sort(np.concatenate([people.ids.numpy() for people in REGIONS.values()]))
    assert ids.tolist() == list(range(2_000))
    assert set(REGIONS) == {"bronx", "brooklyn", "manhattan", "queens", "staten-island"}
    bronx = REGIONS["bronx"]
    assert set(city["borough"][bronx.ids.long()].tolist()) == {city.labels("borough").index("Bronx")}


def test_what_an_institution_saw_is_read_by_column(tmp_path):
    file = tmp_path / "bronx.csv"
    file.write_text("day,infections\n0,3\n1,\n2,5\n3,9\n")
    found = seen(file, ["infections"], 3)["infections"]
    assert found[0] == 3
    assert np.isnan(found[1])
    assert len(found) == 3
    with pytest.raises(InputError, match=r"unknown column of .* 'infectionz'"):
        seen(file, ["infectionz"], 3)
    file.write_text("infections\nmany\n")
    with pytest.raises(InputError, match="has what is no number"):
        seen(file, ["infections"], 3)
    with pytest.raises(InputError, match="can't be read as a table"):
        seen(tmp_path / "none.csv", ["infections"], 3)


def test_the_fingerprint_tells_every_setting():
    base = fingerprint(["infections"], 40, 512, 0, 1)
    others = [
        fingerprint(["deaths"], 40, 512, 0, 1),
        fingerprint(["infections"], 41, 512, 0, 1),
        fingerprint(["infections"], 40, 513, 0, 1),
        fingerprint(["infections"], 40, 512, 1, 1),
        fingerprint(["infections"], 40, 512, 0, 2),
    ]
    assert len({base, *others}) == 6
