"""Runs side by side come to what they come to one after the other, and leave nothing behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import lpmppl as lpm
from lpmppl._compat import Messenger
from lpmppl.errors import InputError, LpmError
from lpmppl.inference import side_by_side as module
from lpmppl.inference.side_by_side import cores, side_by_side
from lpmppl.inference.spread import parts_of
from tests.inference.test_sensitivity import Decay

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


@pytest.fixture
def many(monkeypatch):
    """As on a machine of three cores, and with work enough for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(module, "_WORTH", 0)
    monkeypatch.delitem(sys.modules, "grpc", raising=False)
    yield
    torch.set_num_threads(threads)


def runs(pid):
    """Whether there is a process, and it has not ended; who has ended may wait to be asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children():
    return multiprocessing.active_children()


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_pieces_come_in_order_each_from_a_process_that_isnt_this_one(count):
    found = side_by_side(lambda k: (k, os.getpid(), torch.get_num_threads()), count, at_once=3)
    assert [k for k, _, _ in found] == list(range(count)) and not children()
    if count > 1:
        assert os.getpid() not in {pid for _, pid, _ in found} and {n for _, _, n in found} == {1}


def test_whoever_is_free_takes_the_next():
    slow = lambda k: (time.sleep(1.0 if k == 0 else 0.0), os.getpid())[1]  # noqa: E731
    first, *others = side_by_side(slow, 6, at_once=2)
    assert first not in others


def test_what_a_piece_raises_is_raised_and_the_others_end():
    def piece(k):
        if k == 1:
            raise InputError("parameter x=2 was given")
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(InputError, match="parameter x=2 was given"):
        side_by_side(piece, 3, at_once=3)
    assert time.monotonic() - began < 30 and not children()


class BentError(Exception):
    """An error that can't be made again from its words."""

    def __init__(self, what, where):
        super().__init__(f"{what} at {where}")


def test_errors_of_a_program_say_where_they_were_raised_and_others_what_they_say():
    with pytest.raises(ZeroDivisionError) as raised:
        side_by_side(lambda k: 1 // (k - 1), 3, at_once=2)
    assert "1 // (k - 1)" in raised.value.__notes__[0]

    def bent(_):
        raise BentError("a fork", "the road")

    with pytest.raises(LpmError, match="BentError: a fork at the road"):
        side_by_side(bent, 2, at_once=2)


def test_a_process_that_is_ended_from_outside_is_said():
    with pytest.raises(LpmError, match=r"ended from outside, perhaps for want of memory.*set_num_threads\(1\)"):
        side_by_side(lambda k: os.kill(os.getpid(), signal.SIGKILL) if k else time.sleep(60), 2, at_once=2)
    assert not children()


def test_warnings_are_repeated():
    with pytest.warns(UserWarning, match="piece 1"):
        side_by_side(lambda k: warnings.warn("piece 1", stacklevel=1) if k else None, 2, at_once=2)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_process_that_asked_ends_all_at_once(how):
    program = """
import os, signal, sys, time
from lpmppl.inference.side_by_side import side_by_side
signal.signal(signal.SIGINT, signal.default_int_handler)
def piece(k):
    print(os.getpid(), flush=True)
    time.sleep(120)
try:
    side_by_side(piece, 2, at_once=2)
except KeyboardInterrupt:
    sys.exit(7)
"""
    whole = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", program], **whole) as asked:
        pids = [int(asked.stdout.readline()) for _ in range(2)]
        if how == signal.SIGINT:
            os.killpg(asked.pid, how)
        else:
            os.kill(asked.pid, how)
        assert asked.wait(30) == (7 if how == signal.SIGINT else -how)
    deadline = time.monotonic() + 10
    while any(runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_process_where_more_dont_pay_or_cant_be(many, monkeypatch):
    people = Decay(1_000).population
    assert cores(people, 10) == 3
    assert side_by_side(lambda k: cores(people, 10), 2, at_once=2) == [1, 1]
    monkeypatch.setattr(module, "_WORTH", 1e6)
    assert cores(people, 10) == 1 and cores(people, 1_000) == 3
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "grpc", object())
        assert cores(people, 1_000) == 1
    monkeypatch.setattr(module.sys, "platform", "darwin")
    assert cores(people, 1_000) == 1


@pytest.mark.parametrize("asked", [{"wrt": "all", "draws": 3}, {"wrt": "rate", "draws": 2, "daily": True}])
def test_derivatives_are_the_same_to_the_last_bit(many, monkeypatch, asked):
    ask = {"of": "left", "days": 12, **asked}
    started, process = [], multiprocessing.get_context("fork").Process
    start = process.start
    monkeypatch.setattr(process, "start", lambda self: (started.append(self), start(self)))
    beside = lpm.sensitivity(Decay(4_000), **ask)
    assert len(started) >= 3
    monkeypatch.setattr(module, "_WORTH", np.inf)
    alone = lpm.sensitivity(Decay(4_000), **ask)
    for name in ("value", "se", "difference", "along"):
        assert np.array_equal(beside[name], alone[name], equal_nan=True), name


def test_a_calibration_is_the_same_to_the_last_bit(many, monkeypatch):
    model = lpm.nyc.sir(lpm.nyc.population(2_000))
    made = lpm.run(model, 12, set={"initial_infected": 0.05})["prior_predictive"]["infections"]
    seen = {"infections": made.sum(["borough", "age"])[0, 0].to_numpy().astype(float)}
    ask = {"rounds": 2, "rows": 16, "draws": 50, "simulations": 3, "restarts": 1, "steps": 40, "ahead": 2}
    monkeypatch.setattr(module, "_WORTH", 0)
    beside = lpm.calibrate(model, seen, **ask)
    monkeypatch.setattr(module, "_WORTH", np.inf)
    alone = lpm.calibrate(model, seen, **ask)
    for group in ("posterior", "posterior_predictive", "predictions", "forecast"):
        assert beside[group].to_dataset().identical(alone[group].to_dataset()), group


def test_a_likelihood_is_the_same_to_the_last_bit(many, monkeypatch):
    model = lpm.nyc.sir(lpm.nyc.population(1_000))
    ask = {"observed": {"infection": [3, 2, 4, 5]}, "draws": 7, "set": {"initial_infected": 0.05}}
    beside = lpm.likelihood(model, **ask)
    monkeypatch.setattr(module, "_WORTH", np.inf)
    assert np.isfinite(beside["log_weight"]).all() and lpm.likelihood(model, **ask).equals(beside)


def test_no_more_processes_than_there_is_memory_for(many, monkeypatch):
    people = Decay(1_000).population
    for free, rows, at_once in ((1e12, 1, 3), (2.1 * 400 * 1_000, 1, 2), (2.1 * 400 * 1_000, 2, 1), (0, 1, 1)):
        monkeypatch.setattr(module, "free_memory", lambda free=free: free)
        assert cores(people, 10, rows) == at_once
    monkeypatch.setattr(module, "free_memory", lambda: None)
    assert cores(people, 10) == 3


def test_draws_and_worlds_are_the_same_to_the_last_bit(many, monkeypatch):
    model = lpm.nyc.seirm(lpm.nyc.population(1_500))
    many_ill = lambda s: s["infectious"].sum(-1, keepdim=True) > 4  # noqa: E731
    do = {"closed": [("transmission", 0.2, 4)], "careful": [("transmission", lpm.Trigger(0.5, when=many_ill), 2)]}

    def asked():
        run = lpm.run(model, days=9, draws=5, seed=3)
        worlds = lpm.counterfactual(model, do, days=9, draws=2, replicates=2, seed=3)
        return [(path, part.drop_attrs(deep=True)) for tree in (run, worlds) for path, part in parts_of(tree).items()]

    started, process = [], multiprocessing.get_context("fork").Process
    start = process.start
    monkeypatch.setattr(process, "start", lambda self: (started.append(self), start(self)))
    apart = asked()
    assert len(started) == 6 and not children()
    with Messenger():  # who stands around a run is to see all of it
        lpm.run(model, days=2, draws=5)
    assert len(started) == 6
    monkeypatch.setattr(module, "_WORTH", np.inf)
    alone = asked()
    assert len(started) == 6 and [path for path, _ in apart] == [path for path, _ in alone]
    for (_, part), (_, expected) in zip(apart, alone, strict=True):
        xr.testing.assert_identical(part, expected)
