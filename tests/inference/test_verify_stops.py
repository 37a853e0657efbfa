"""What stops a model is said with its place, and what stops the caller's own part is the caller's to mend."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from lpmppl.effects.handlers.verify import Invariant
from lpmppl.errors import InputError
from lpmppl.inference.verify import CHECKS, verify
from tests.inference.societies import Town, folk


class Failing(Town):
    """A town in which something is put into the second substep's work: the state to nothing, or an error."""

    def __init__(self, population, fails):
        super().__init__(population)
        self.fails = fails

    def _earn(self, theta, told):
        part = super()._earn(theta, told)
        work = part.transition

        def change(s, action):
            self.fails(s)
            return work(s, action)

        object.__setattr__(part, "transition", change)
        return part


def later(day, act):
    return lambda s: act(s) if float(s["t"]) >= day else None


def test_a_stop_names_the_substep_the_day_the_key_and_the_line():
    found = verify(Failing(folk(), later(3, lambda s: s["monies"])), 6, make=lambda p: Failing(p, later(3, print)))
    (broken,) = [f for f in found.broken if "stops with" in f.words]
    assert broken.where == "substep 'earn'"
    assert "KeyError on day 3, as it was set" in broken.words
    assert "there is no 'monies', did you mean 'money'?" in broken.words
    assert "test_verify_stops.py, line" in broken.words
    # What it read of what isn't there is known of the turn that failed.
    assert any(f.check == "declarations" and "reads 'monies'" in f.words for f in found.broken)


def test_verification_goes_on_with_what_can_be_asked():
    found = verify(Failing(folk(), later(2, lambda s: torch.zeros(3) + torch.zeros(2))), 6, replicates=1)
    assert {f.check for f in found.of("kept")} >= {"writers", "units", "names"}
    # No check is left out without a word, and the same stop is told once.
    assert {f.check for f in found.findings} == set(CHECKS)
    assert len(found.broken) == 1
    assert all("stops there as said above" in f.words for f in found.of("doesn't apply") if f.where == "substep 'earn'")


def test_what_was_broken_before_it_stopped_is_kept():
    def spoil(s):
        if float(s["t"]) >= 1:
            s["money"].mul_(float("nan"))
        if float(s["t"]) >= 2:
            raise ValueError("enough")

    found = verify(Failing(folk(), spoil), 5, checks=["state"])
    assert any("stops with ValueError on day 2" in f.words for f in found.broken)
    assert any("no number" in f.words and "day 1" in f.words for f in found.broken)


def test_the_site_and_the_condition_are_said():
    def levied(s):
        if float(s["levy"]) > 0:
            pyro.sample("tax", dist.Bernoulli(torch.full((240,), 0.5)))

    found = verify(Failing(folk(), levied), 8, checks=["state", "tallies"])
    (broken,) = found.broken
    assert "under transmission=" in broken.words and "levy=" in broken.words and "@2" in broken.words
    assert broken.where == "substep 'earn'" and "at site 'tax'" in broken.words


def test_a_start_or_a_day_that_cant_be_made_is_said():
    class Unborn(Town):
        def initial(self, theta, start=0.0):
            return {**super().initial(theta, start), "age": self.population["age"]}

    (broken,) = verify(Unborn(folk()), 2, checks=["units", "state"]).broken
    assert broken.where == "the start" and "age" in broken.words

    class Dayless(Town):
        def substeps(self, theta):
            return (*super().substeps(theta), theta["rise"])

    found = verify(Dayless(folk()), 2, checks=["writers", "units", "state"])
    assert {f.where for f in found.broken} == {"the substeps", "the day"}
    assert [f.check for f in found.of("kept")] == ["units"]

    class Odd(Town):
        def substeps(self, theta):
            return (*super().substeps(theta), "rise")

    assert "give Substeps" in verify(Odd(folk()), 2, checks=["writers"]).broken[0].words


@pytest.mark.parametrize("dt", [0, -1.0, math.nan, math.inf, "1", True, None, 0.3, 1e-9, 50.0])
def test_an_odd_step_is_the_callers(dt):
    with pytest.raises(InputError, match=r"dt=|steps of"):
        verify(Town(folk()), 4, dt=dt, checks=["units"])


def test_days_that_nobody_can_wait_for_are_the_callers():
    with pytest.raises(InputError, match="give fewer days"):
        verify(Town(folk()), 10**6, checks=["units"])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (3, "give what makes the model"),
        (lambda people: people, "gave Population"),
        (lambda people: Town(folk(30)), "240 agents and made a model of 30"),
        (lambda people: Town(people["nothing"]), "stops with"),
        (lambda: None, "stops with TypeError"),
    ],
)
def test_what_makes_no_such_model_is_the_callers(make, said):
    with pytest.raises(InputError, match=said):
        verify(Town(folk()), 2, make=make, checks=["units"])


@pytest.mark.parametrize(
    "invariants",
    ["money", [1], 5, Invariant("x", lambda b, a: (True, "")), [lambda b, a: True]],
)
def test_what_are_no_invariants_are_the_callers(invariants):
    with pytest.raises(InputError, match="give a list of such"):
        verify(Town(folk()), 2, invariants=invariants, checks=["state"])


def test_an_invariant_that_cant_be_asked_is_the_callers():
    wrong = Invariant("wealth", lambda before, after: (after["monies"].sum() > 0, ""))
    with pytest.raises(InputError, match=r"'wealth' can't be asked.*did you mean 'money'"):
        verify(Town(folk()), 2, invariants=[wrong], checks=["state"])


def test_longer_steps_have_policies_on_their_grid():
    class Slow(Town):
        def substeps(self, theta):
            return super().substeps(theta)[:2]

    class Polled(Slow):
        def __init__(self, population):
            super().__init__(population)
            self.meanings, self.tallies = {}, {n: w for n, w in self.tallies.items() if n != "asked"}

    some = ["state", "null", "worlds", "resumed", "responses", "influence", "spread"]
    found = verify(Polled(folk()), 6, dt=2.0, replicates=1, checks=some)
    assert found.ok, str(found)
