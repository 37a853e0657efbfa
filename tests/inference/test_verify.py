"""Verification: sound models are found sound, and each fault by the check that is for it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lpmppl as lpm
from lpmppl.effects.handlers import DiscreteTime, conserved
from lpmppl.effects.ops import tally
from lpmppl.errors import InputError
from lpmppl.inference.findings import SEVERITIES
from lpmppl.inference.verify import CHECKS, verify
from lpmppl.models.model import Meant, Model, Parameter
from lpmppl.models.pandemic import PARTS, Pandemic
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep, compose
from tests.inference.societies import FAULTS, Town, folk
from tests.laws.conftest import seirm_in_layers, sir_in_households
from tests.laws.test_pandemic import solve_once
from tests.randomness import states


def told(fault: str = "", **how):
    found = verify(Town(folk(), fault), 8, replicates=1, make=lambda p: Town(p, fault), **how)
    return found, {f.check for f in found.broken}


def test_a_sound_town_is_found_sound_by_every_check():
    before = states()
    found, broken = told()
    assert broken == set() and found.ok, str(found)
    assert states() == before
    said = {f.check for f in found.findings}
    assert said == set(CHECKS)
    # Nothing may be left out without a word, and here everything applies.
    assert [str(f) for f in found.of("doesn't apply") if "leave one order" not in f.words] == []
    # The well earn and the ill don't, so that the order of a day's falling ill and earning is felt.
    assert [(f.check, f.where) for f in found.of("warning")] in ([], [("order", "'catch' and 'earn'")])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_by_the_check_that_is_for_it(fault):
    check = FAULTS[fault]
    found, _ = told(fault, checks=[check])
    assert [f for f in found.broken if f.check == check and "stops with" not in f.words], str(found)


def test_what_a_model_lacks_is_said():
    class Bare(Town):
        spreads = ""

        def __init__(self, population):
            super().__init__(population)
            self.balances, self.accounts, self.responses, self.environment, self.limits = {}, {}, {}, {}, {}
            self.meanings = {}

        def substeps(self, theta):
            return ()

        def day(self, theta):
            return compose(*super().substeps(theta))

    found = verify(Bare(folk()), 3, replicates=1)
    silent = {
        "balances",
        "meanings",
        "declarations",
        "writers",
        "order",
        "null",
        "worlds",
        "spread",
        "responses",
        "relabelled",
        "doubled",
    }
    assert silent <= {f.check for f in found.of("doesn't apply")}
    assert all(f.words for f in found.of("doesn't apply"))
    assert found.ok, str(found)


def test_meanings_are_held_within_chance_and_over_the_run():
    """Sound at twenty seeds: 6 in 100,000 sums that are right lie further off than what is allowed."""
    for seed in range(20):
        found = verify(Town(folk()), 14, seed, checks=["meanings"])
        assert found.ok, str(found)
    wrong = verify(Town(folk(), "misdrawn"), 14, checks=["meanings"]).broken[0]
    assert wrong.where == "'polled is the share asked'"
    seen, meant, error = (wrong.numbers[name] for name in ("seen", "meant", "error"))
    assert meant == 240 and error == pytest.approx(120**0.5)
    assert 120 < seen < 170


def test_what_none_of_a_models_meanings_knows_of_is_said():
    class Elsewhere(Town):
        def __init__(self, population):
            super().__init__(population)
            self.meanings = {"what isn't there": lambda theta, b, a, counted: Meant(a["nothing"], a["nothing"])}

    found = verify(Elsewhere(folk()), 2, checks=["meanings"])
    said = [f.words for f in found.of("doesn't apply") if f.check == "meanings"]
    assert said == ["none of them was met"]


def test_every_meaning_of_the_pandemic_is_met_and_is_so():
    with pytest.MonkeyPatch.context() as patch:
        solve_once(patch)
        model = lpm.nyc.pandemic(lpm.nyc.population(1_000), "2020-12-24")
        given = {"initial_infected": 0.1, "severity": 2.0, "fatality": 8.0, "interval": 7.0, "isolation_days": 5.0}
        found = verify(model, 22, set=given, checks=["meanings"])
        assert found.ok, str(found)
        (kept,) = [f.words for f in found.of("kept") if f.check == "meanings"]
        assert [name for name in model.meanings if name not in kept] == []


def test_a_part_with_options_of_its_own_isnt_held_to_the_equations_of_the_others():
    people = lpm.nyc.population(1_000)
    met = torch.full((9, 9), 0.3)
    own = [replace(p, substep=partial(p.substep, matrix=met)) if p.name == "transmission" else p for p in PARTS]
    equation = "the hazard of infection is that of equation 8"
    assert equation in lpm.nyc.pandemic(people).meanings
    assert equation not in Pandemic(people, parts=own).meanings


def test_a_step_that_is_too_long_is_warned_of():
    found, _ = told("long step", checks=["scales"])
    assert [f.where for f in found.of("warning")] == ["site 'catch'"]
    assert dict(next(found.of("warning")).numbers)["share"] > 0.01
    odd = verify(Town(folk()), 6, dt=2.0, checks=["scales"])
    assert any("no multiple" in f.words and f.where == "substep 'ask'" for f in odd.broken)


def test_an_invariant_of_ones_own_is_held():
    total = conserved("money", lambda s: s["money"].sum(-1))
    found, broken = told(checks=["state"], invariants=[total])
    assert broken == {"state"}
    assert any("money is conserved no longer" in f.words and f.where == "substep 'earn'" for f in found.broken)


def test_people_beyond_their_number_are_noticed():
    class Twice(Town):
        def day(self, theta):
            day = super().day(theta)

            def step(s):
                after = day(s)
                tally("both", torch.full((self.population.size,), 2))
                return after

            return step

        def __init__(self, population):
            super().__init__(population)
            self.tallies["both"] = "everybody twice"

    found = verify(Twice(folk()), 2, checks=["tallies"])
    assert [f.words for f in found.broken if "more than there are people" in f.words]


def test_the_laws_models_are_sound_and_the_report_says_so():
    for make in (sir_in_households, seirm_in_layers):
        few = [c for c in CHECKS if c not in ("influence", "halving", "spread", "doubled")]
        found = verify(make(), 5, set={"initial_infected": 0.05}, replicates=1, checks=few)
        assert found.ok, str(found)
        text, page, frame = str(found), found._repr_html_(), found.to_frame()
        assert text.startswith(f"{found.model}: 0 broken")
        assert all(f.check in text for f in found.findings)
        assert len(frame) == len(found.findings) == page.count("<tr><td>")
        assert set(frame["severity"]) <= set(SEVERITIES)


def test_every_draw_of_the_parameters_is_watched():
    class Touchy(Town):
        def day(self, theta):
            day = super().day(theta)
            return lambda s: {**day(s), "money": s["money"] / (theta["wage"] > 0.95)}

    assert verify(Touchy(folk()), 2, checks=["state"]).ok
    found = verify(Touchy(folk()), 2, checks=["state"], draws=6)
    assert any("draw" in f.words for f in found.broken)


def test_what_stops_a_model_is_a_finding():
    class Stops(Town):
        def day(self, theta):
            return lambda s: s["nothing"]

    found = verify(Stops(folk()), 2)
    assert any("stops with KeyError" in f.words for f in found.broken)


def test_bad_input_is_refused_with_the_nearest_name():
    town = Town(folk())
    with pytest.raises(InputError, match="did you mean 'state'"):
        verify(town, checks=["stat"])
    with pytest.raises(InputError, match="give a list of names"):
        verify(town, checks="state")
    with pytest.raises(InputError, match="did you mean 'pull'"):
        verify(town, set={"pul": 1.0})
    with pytest.raises(InputError, match="replicates"):
        verify(town, replicates=0)
    with DiscreteTime(), pytest.raises(InputError, match="verify has a solver of its own"):
        verify(town, 2)


KEYS = ("a", "b", "c", "d", "e")


class Woven(Model):
    """A society of substeps that each mix some keys into one: as many compositions as there are plans."""

    name = "woven"

    def __init__(self, population, plan, sly=None):
        self.population, self.plan, self.sly = population, plan, sly
        self.parameters = {"rate": Parameter(torch.distributions.Uniform(0.0, 1.0), 0.3, "pace", "per day", "chosen")}
        self.environment, self.tallies, self.units = {"pull": 0.5}, {}, {}
        self.limits = {"pull": (0.0, 1.0)}
        self.tallies = {f"sum_{key}": key for key, _, _ in plan}
        self.units = dict.fromkeys(self.tallies, "points")

    def initial(self, theta, start=0.0):
        ids = self.population.ids.float()
        return {k: torch.sin(ids + n) for n, k in enumerate(KEYS)} | {"pull": torch.full((1,), 0.5)}

    def substeps(self, theta):
        return tuple(self._part(k, *part, theta) for k, part in enumerate(self.plan))

    def day(self, theta):
        return compose(*self.substeps(theta))

    def _part(self, number, key, reads, every, theta):
        def mix(s):
            others = sum(torch.tanh(s[r]) for r in reads) if reads else torch.zeros(1)
            new = s[key] + s["dt"] * theta["rate"] * s["pull"] * (others - s[key])
            if self.sly == number:
                new = new + 0.01 * s[next(k for k in KEYS if k not in (*reads, key))]
            tally(f"sum_{key}", new, bound=1e3)
            return {key: new}

        return Substep(f"mix_{key}", (*reads, key, "pull"), (key,), lambda s: s, lambda s, _: mix(s), every=every)


@st.composite
def plans(draw):
    keys = draw(st.permutations(KEYS).map(lambda ks: ks[: draw(st.integers(2, 5))]))
    some = st.sets(st.sampled_from(KEYS), max_size=2)
    return [(k, tuple(sorted(draw(some) - {k})), draw(st.sampled_from((1, 1, 2)))) for k in keys]


STRUCTURE = ("writers", "units", "state", "declarations", "chance", "null", "worlds", "resumed", "relabelled", "order")


@given(plans(), st.integers(0, 4))
@settings(max_examples=5, deadline=None, derandomize=True)
def test_random_compositions_are_sound_and_a_hidden_read_is_found(plan, which):
    make = lambda p: Woven(p, plan)  # noqa: E731
    assert verify(make(folk(30)), 4, checks=STRUCTURE, make=make).broken == []
    sly = Woven(folk(30), plan, sly=which % len(plan))
    found = verify(sly, 4, checks=["declarations"])
    assert [f.where for f in found.broken] == [f"substep 'mix_{plan[sly.sly][0]}'"]


REMOVABLE = tuple(p.name for p in PARTS if p.name not in ("immunity", "progression", "transmission", "labour"))


@pytest.mark.slow
@given(st.sets(st.sampled_from(REMOVABLE), max_size=5))
@settings(max_examples=6, deadline=None, derandomize=True)
def test_what_is_left_of_the_pandemic_is_sound(without):
    with pytest.MonkeyPatch.context() as patch:
        solve_once(patch)
        people = lpm.nyc.population(1_000)
        make = lambda p: lpm.nyc.pandemic(p, "2020-04-13", without)  # noqa: E731
        checks = [c for c in STRUCTURE if c != "units"]
        found = verify(make(people), 8, set={"initial_infected": 0.1}, checks=checks, make=make)
        assert found.broken == [], str(found)


@pytest.mark.slow
def test_the_whole_pandemic_is_sound_by_every_check():
    with pytest.MonkeyPatch.context() as patch:
        solve_once(patch)
        model = lpm.nyc.pandemic(lpm.nyc.population(1_000))
        given = {"initial_infected": 0.1, "severity": 2.0, "fatality": 8.0}
        found = verify(model, 15, set=given, replicates=2, make=lpm.nyc.pandemic)
        assert found.ok, str(found)
        assert {f.check for f in found.findings} == set(CHECKS)


def test_a_population_is_doubled_with_groups_of_its_own():
    from lpmppl.inference.relabelled import _twice

    both = _twice(
        Population.of({"household": [0, 0, 1], "work": [0, 5, 5], "age": [3, 40, 50]}), {"household": None, "work": 0}
    )
    assert both["household"].tolist() == [0, 0, 1, 2, 2, 3]
    assert both["work"].tolist() == [0, 5, 5, 0, 11, 11]
    assert both["age"].tolist() == [3, 40, 50] * 2
    assert both.ids.unique().shape == (6,)


def test_counts_that_dont_grow_with_the_people_are_found():
    class Fixed(Town):
        def day(self, theta):
            day = super().day(theta)

            def step(s):
                after = day(s)
                tally("few", torch.arange(self.population.size) < 40)
                return after

            return step

        def __init__(self, population):
            super().__init__(population)
            self.tallies["few"] = "the first forty"

    found = verify(Fixed(folk()), 6, checks=["doubled"], make=Fixed)
    assert [f.where for f in found.broken] == ["tally 'few'"]


def test_names_of_checks_may_come_from_anywhere_but_must_be_some():
    model = lpm.nyc.sir(lpm.nyc.population(1_000))
    found = lpm.verify(model, days=2, checks=(name for name in ["units", "null"]))
    assert {f.check for f in found.findings} == {"units", "null"}
    for none in ([], 5):
        with pytest.raises(InputError, match="give some of writers, units"):
            lpm.verify(model, days=2, checks=none)
