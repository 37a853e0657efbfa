"""What a model declares of what it doesn't have is broken, and chances are held to what they are drawn from."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import pytest
import torch

import lpmppl as lpm
from lpmppl.inference.trials import Trials
from lpmppl.inference.verify import verify
from lpmppl.models.bookkeeping import BOOKS
from lpmppl.models.model import Meant
from lpmppl.models.substep import Substep
from tests.inference.societies import Town, folk


def named(**declared):
    town = Town(folk())
    for name, what in declared.items():
        setattr(town, name, what)
    return verify(town, 4, replicates=1, checks=["balances", "names", "responses", "spread"])


@pytest.mark.parametrize(
    ("declared", "meant"),
    [
        ({"responses": {"pul": {"caught": 1}}}, "'pul', which the model doesn't have, did you mean 'pull'?"),
        ({"responses": {"pull": {"caught_2": 1}}}, "'caught_2', which the model doesn't have, did you mean 'caught'?"),
        ({"responses": {"pull": {"caught": 2}}}, "'caught' has 2"),
        ({"responses": [1]}, "list"),
        ({"accounts": {"caught_2": lambda b, a: a["new"]}}, "did you mean 'caught'?"),
        ({"accounts": {"caught": lambda b, a: a["now"]}}, "there is no 'now', did you mean 'new'?"),
        ({"balances": {"money is there": lambda b, a: a["monies"]}}, "there is no 'monies', did you mean 'money'?"),
        ({"balances": {"money is there": lambda b, a: a["money"] + torch.zeros(3)}}, "stops with RuntimeError"),
        ({"balances": [1]}, "`balances`: it is list; give a mapping by name"),
        ({"balances": {"money is there": 1}}, "'money is there' is int"),
        ({"spreads": "cache"}, "site 'cache', which the model doesn't have, did you mean 'catch'?"),
        ({"limits": {"levi": (0.0, 1.0)}}, "did you mean 'levy'?"),
        ({"pulses": ["levi"]}, "did you mean 'levy'?"),
        ({"outcomes": {"rich": lambda s: s["monies"] > 5}}, "there is no 'monies', did you mean 'money'?"),
        ({"meanings": {"money": lambda theta, b, a, counted: Meant(a["money"], torch.zeros(3))}}, "stops with"),
        ({"meanings": {"money": lambda theta, b, a, counted: a["money"]}}, "give Meant"),
    ],
)
def test_a_mistyped_name_is_found_with_what_was_meant(declared, meant):
    found = named(**declared)
    assert [f for f in found.broken if meant in f"{f}"], str(found)


def test_what_is_rightly_named_is_kept():
    found = named()
    assert found.ok
    assert [f.check for f in found.of("kept") if f.check == "names"] == ["names"]


def test_a_meaning_of_what_isnt_there_is_said():
    meanings = {
        "a part that was left out": lambda theta, b, a, counted: Meant(a["vaccine"], a["vaccine"]),
        "a site that doesn't come up": lambda theta, b, a, counted: Meant(counted["poll: men"], torch.zeros(1)),
        "nobody": lambda theta, b, a, counted: Meant(a["money"][:0], a["money"][:0]),
    }
    found = named(meanings=meanings)
    said = {f.where: (f.severity, f.words) for f in found.findings if f.check == "meanings" and f.where}
    assert said["'a part that was left out'"][0] == "warning" and "'vaccine'" in said["'a part that was left out'"][1]
    assert "did you mean 'poll: mean'?" in said["'a site that doesn't come up'"][1]
    assert said["'nobody'"] == ("doesn't apply", "nothing came up that it could be said of")


def test_a_meaning_that_is_met_every_week_is_held_in_the_second():
    """What is missing on one day is asked for on the next."""

    class Later(Town):
        def __init__(self, population):
            super().__init__(population)
            self.meanings = {
                "polled is the chance": lambda theta, b, a, counted: Meant(
                    counted["poll: mean"].flatten()[:1], theta["polled"].reshape(1) if b["t"] < 7 else torch.zeros(1)
                )
            }

    assert verify(Later(folk()), 7, checks=["meanings"]).ok
    (broken,) = {
        f.words.partition(":")[0] for f in verify(Later(folk()), 8, checks=["meanings"]).broken if "at" not in f.where
    }
    assert broken.startswith("it isn't so on day 7")


def test_a_chance_is_held_to_its_equation_exactly():
    """A hundredth off what is meant is far below what the draws of 240 people show."""

    class Polled(Town):
        def __init__(self, population, factor):
            super().__init__(population)
            self.factor = factor
            mean = lambda theta, b, a, counted: Meant(counted["poll: mean"], theta["polled"].expand(240))  # noqa: E731
            self.meanings = {**self.meanings, "polled is the chance": mean}

        def _ask(self, theta, told):
            return super()._ask({**theta, "polled": theta["polled"] * self.factor}, told)

    assert verify(Polled(folk(), 1.0), 8, checks=["meanings"]).ok
    found = verify(Polled(folk(), 0.99), 8, checks=["meanings"])
    assert {f.where for f in found.broken} == {"'polled is the chance'"}


def test_a_witness_knows_for_whom_and_from_what_is_drawn():
    class Some(Town):
        def _ask(self, theta, told):
            def ask(s):
                some = self.population.cohort(self.population.ids < 5)
                with some.plate():
                    pyro.sample("poll", dist.LogNormal(torch.zeros(5), 0.5))
                return {"asked": s["asked"]}

            return Substep("ask", ("asked",), ("asked",), lambda s: s, lambda s, _: ask(s))

    town = Some(folk())
    witness = Trials(town, {n: p.default for n, p in town.parameters.items()}, 2, 0).witnessed().witness
    law = dist.LogNormal(torch.zeros(5), 0.5)
    assert witness.observed["poll: who"].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(witness.observed["poll: mean"], law.mean)
    assert torch.equal(witness.observed["poll: variance"], law.variance)
    assert {"poll", "catch"} <= witness.sampled


def test_what_a_whole_step_hides_half_a_step_shows():
    """A rate that isn't multiplied by the step is right at steps of a day."""

    class Daily(Town):
        def _earn(self, theta, told):
            part = super()._earn(theta, told)
            work = part.transition
            object.__setattr__(part, "transition", lambda s, x: work({**s, "dt": torch.ones(1)}, x))
            return part

    assert verify(Town(folk()), 4, checks=["meanings"]).ok
    broken = verify(Daily(folk()), 4, checks=["meanings"]).broken
    assert broken and all(f.words.endswith("at steps of 0.5 days") for f in broken)


def test_the_pandemics_books_name_what_it_has():
    """The composed model leaves out what a part that isn't there would respond to: here nothing may be left out."""
    model = lpm.nyc.pandemic(lpm.nyc.population(1_000))
    known = {*model.parameters, *model.environment}
    said = [(name, tally) for book in BOOKS.values() for name, signs in book.responses.items() for tally in signs]
    assert [x for x in said if x[0] not in known or x[1] not in model.tallies] == []
    assert {tally for book in BOOKS.values() for tally in book.accounts} <= {*model.tallies}
