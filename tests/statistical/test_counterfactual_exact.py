"""Counterfactual quantities of societies of two and three people against their exact enumeration.

A society is a household; twenty thousand of them are one run. Each test fails by chance once in 10,000 (|z| < 4 in
every one of some quantities), and seeds are fixed.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import NamedTuple

import numpy as np
import pyro
import pytest
import torch
from chirho.counterfactual.handlers import MultiWorldCounterfactual
from chirho.dynamical.handlers.interruption import StaticIntervention

import lpmppl as lpm
from lpmppl.effects.distributions import Exposure
from lpmppl.effects.handlers import Abduct, Abducted, ExogenousNoise
from lpmppl.effects.ops import aggregate, happens, tally
from lpmppl.models.model import Model
from lpmppl.models.population import Population
from tests.oracles import RATE, chi_square, go

SOCIETIES, DAYS, BETA, GAMMA = 20_000, 5, 0.35, 0.3


class Few(Model):
    """Societies of a few people, in each of which the first is infectious at the start."""

    name = "few"

    def __init__(self, size: int, societies: int = SOCIETIES) -> None:
        i = np.arange(size * societies)
        self.size, self.population = size, Population.of({"household": i // size, "first": (i % size == 0)})
        self.parameters, self.environment = {}, {"transmission": 1.0}
        self.tallies = {"infections": "new infections"}
        self.outcomes = {
            "infected": lambda s: ~s["susceptible"],
            "well again": lambda s: ~s["susceptible"] & ~s["infectious"],
        }

    def initial(self, theta, start=0.0):
        first, nothing = self.population["first"].bool(), torch.zeros(self.population.size, dtype=torch.float64)
        return {
            "infectious": first, "susceptible": ~first, "exposure": nothing, "illness": nothing,
            "transmission": torch.ones(1),
        }  # fmt: skip

    def day(self, theta):
        home = self.population.network("household")

        def step(s):
            force = aggregate(s["infectious"] * 1.0, home, reduce="sum") * (BETA * s["transmission"])
            infection = Exposure(s["exposure"], force, at_risk=s["susceptible"], dt=s["dt"])
            recovery = Exposure(s["illness"], GAMMA, at_risk=s["infectious"], dt=s["dt"])
            with self.population.plate():
                new, _ = happens("infection", infection)
                out, _ = happens("recovery", recovery)
            tally("infections", new)
            return {
                **s, "exposure": infection.after, "illness": recovery.after,
                "susceptible": s["susceptible"] & ~new, "infectious": (s["infectious"] & ~out) | new,
            }  # fmt: skip

        return step


class Clock(NamedTuple):
    """What is known of one resistance: that it lies in (low, high]; and how far each world's hazard has come."""

    low: float
    high: float
    met: tuple[float, ...]

    @property
    def chance(self) -> float:
        return math.exp(-self.low) - math.exp(-self.high)

    def after(self, hazards):
        """Every way in which a day can go: the clock after it, and in which worlds it struck."""
        ends = tuple(m + h for m, h in zip(self.met, hazards, strict=True))
        cuts = sorted({self.low, self.high, *(e for e in ends if self.low < e < self.high)})
        for low, high in itertools.pairwise(cuts):
            struck = tuple(m <= low and high <= e and e > m for m, e in zip(self.met, ends, strict=True))
            yield Clock(low, high, ends), struck


def enumerated(
    size: int,
    transmission: list[list[float]],
    seen: list[int] | None = None,
    course: list[tuple[str, ...]] | None = None,
) -> Counter:
    """The probability of every end of a society in all worlds at once: each one's stage by world.

    With `seen`, of those ends alone before which so many were infected in world 0 on the first days; with `course`, of
    those before which everybody was in these stages in world 0 at the end of the first days.
    """
    worlds = len(transmission)
    fresh = Clock(0.0, math.inf, (0.0,) * worlds)
    person = lambda ill: (fresh, fresh, ("I" if ill else "S",) * worlds)  # noqa: E731
    states = {tuple(person(i == 0) for i in range(size))}
    for day in range(DAYS):
        following = set()
        for state in states:
            ill = [sum(p[2][w] == "I" for p in state) for w in range(worlds)]
            ways = []
            for infection, recovery, stage in state:
                met = [BETA * transmission[w][day] * ill[w] if stage[w] == "S" else 0.0 for w in range(worlds)]
                ending = [GAMMA if stage[w] == "I" else 0.0 for w in range(worlds)]
                each = []
                for (a, caught), (b, well) in itertools.product(infection.after(met), recovery.after(ending)):
                    new = tuple("I" if c else "R" if r else s for s, c, r in zip(stage, caught, well, strict=True))
                    each.append((a, b, new))
                ways.append(each)
            for end in itertools.product(*ways):
                new = sum(p[2][0] != "S" for p in end) - sum(p[2][0] != "S" for p in state)
                if seen is not None and day < len(seen) and new != seen[day]:
                    continue
                if course is None or day >= len(course) or tuple(p[2][0] for p in end) == course[day]:
                    following.add(end)
        states = following
    found: Counter = Counter()
    for state in states:
        chance = math.prod(p[0].chance * p[1].chance for p in state)
        found[tuple(p[2] for p in state)] += chance
    assert seen is not None or course is not None or sum(found.values()) == pytest.approx(1.0)
    return found


PLANS = {"less": [("transmission", 0.2, 2)], "more": [("transmission", 3.0, 1)], "nothing": [("transmission", 1.0, 3)]}
COURSE = [[1.0] * 5, [1.0, 1.0, 0.2, 0.2, 0.2], [1.0, 3.0, 3.0, 3.0, 3.0], [1.0] * 5]


def spread(exact: Counter, count) -> tuple[float, float]:
    """Mean and four standard errors, over all societies together, of a number that each end of one has."""
    mean = sum(c * count(end) for end, c in exact.items())
    variance = sum(c * (count(end) - mean) ** 2 for end, c in exact.items())
    return SOCIETIES * mean, 4 * (SOCIETIES * variance) ** 0.5 + 1e-9


@pytest.mark.parametrize("size", [2, 3])
def test_effects_and_fates_are_those_of_the_enumeration(size):
    tree = lpm.counterfactual(Few(size), PLANS, days=DAYS, seed=11)
    for k, name in enumerate(PLANS, 1):
        exact = enumerated(size, [COURSE[0], COURSE[k]])
        for outcome, stages in (("infected", "IR"), ("well again", "R")):
            flows = tree["flows"][outcome].isel(chain=0, draw=0).sel(policy=name)
            pairs = {}
            for was, would in itertools.product((False, True), repeat=2):

                def people(end, pair=(was, would), stages=stages):
                    return sum((f in stages, c in stages) == pair for f, c in end)

                pairs[was, would], error = spread(exact, people)
                count = int(flows.isel(was=int(was), would=int(would)))
                assert abs(count - pairs[was, would]) <= error, (name, outcome, was, would)
            found = lpm.fates(tree, outcome).sel(policy=name, estimate="mean")
            gone, come = pairs[True, False], pairs[False, True]
            assert float(found["necessity"]) == pytest.approx(gone / (gone + pairs[True, True]), abs=0.015)
            assert float(found["sufficiency"]) == pytest.approx(come / (come + pairs[False, False]), abs=0.015)
        effect = float(lpm.contrast(tree)["infections"].sel(policy=name, estimate="mean"))
        expected, error = spread(exact, lambda end: sum((c != "S") - (f != "S") for f, c in end))
        assert abs(effect - expected) <= error
        assert (effect == 0) == (name == "nothing")


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_conditioned_effects_and_fates_are_those_of_the_enumeration(size):
    """What was seen of one society's factual world, on two days, weights its draws: their noise is conditioned."""
    draws = 1_500
    tree = lpm.counterfactual(Few(size, 1), {"more": PLANS["more"]}, days=DAYS, seed=5, replicates=draws)
    tally = tree["prior_predictive"]["infections"].sel(policy="as it was").isel(chain=0).to_numpy().reshape(draws, DAYS)
    seen = [0, 0] if size == 2 else [0, 1]
    conditioned = lpm.weigh(tree, {"infections": seen}, size=None)
    agree = (tally[:, :2] == seen).all(-1)
    assert conditioned.attrs["effective_draws"] == pytest.approx(agree.sum())
    exact = enumerated(size, [COURSE[0], COURSE[2]], seen=seen)
    share = sum(exact.values())
    assert agree.mean() == pytest.approx(share, abs=4 * (share * (1 - share) / draws) ** 0.5)
    change = [(chance / share, sum((c != "S") - (f != "S") for f, c in end)) for end, chance in exact.items()]
    expected = sum(p * d for p, d in change)
    error = (sum(p * (d - expected) ** 2 for p, d in change) / agree.sum()) ** 0.5
    effect = float(lpm.contrast(conditioned)["infections"].sel(policy="more", estimate="mean"))
    assert abs(effect - expected) <= 4 * error + 1e-9
    # Without what was seen the effect is another: the test can fail.
    plain = enumerated(size, [COURSE[0], COURSE[2]])
    unconditioned = sum(p * sum((c != "S") - (f != "S") for f, c in end) for end, p in plain.items())
    assert abs(unconditioned - expected) > 0.02


COURSES = {
    "caught on the second day": [("I", "S", "S"), ("I", "I", "S"), ("R", "I", "S")],
    "escaped": [("I", "S", "S"), ("R", "S", "S"), ("R", "S", "S")],
}


def following(course):
    """Data that give each of twenty thousand societies of three the same course, by site."""
    events = {}
    for day, (was, now) in enumerate(itertools.pairwise([("I", "S", "S"), *course])):
        for site, (a, b) in {"infection": "SI", "recovery": "IR"}.items():
            one = torch.tensor([x == a and y == b for x, y in zip(was, now, strict=True)])
            events[f"t={day}/{site}"] = one.repeat(SOCIETIES)
    return events


def ends_of(*handlers, days=DAYS, worlds=1):
    """How often societies of three come to each end: everyone's stage by world."""
    model = Few(3)
    state, _ = go(model.day({}), lambda: model.initial({}), days, *handlers)
    stage = torch.where(state["susceptible"], 0, torch.where(state["infectious"], 1, 2))
    each = stage.reshape(worlds, SOCIETIES, 3).permute(1, 2, 0)
    return Counter(tuple(tuple("SIR"[k] for k in one) for one in society) for society in each.tolist())


def given(exact):
    share = sum(exact.values())
    return {end: chance / share for end, chance in exact.items() if chance > 0}


@pytest.mark.parametrize(
    ("course", "policy"), [("caught on the second day", "less"), *((course, "more") for course in COURSES)]
)
def test_the_noise_of_a_known_course_has_the_law_of_the_enumeration(course, policy):
    """Everybody's course is known for three days; failure rate RATE."""
    events, noise = following(COURSES[course]), Abducted(7)
    ends_of(noise, pyro.condition(data=events), Abduct(noise), days=3)
    worlds = MultiWorldCounterfactual(first_available_dim=-3)
    acts = [StaticIntervention(torch.tensor(float(day)), {n: torch.tensor([x])}) for n, x, day in PLANS[policy]]
    exact = enumerated(3, [COURSE[0], COURSE[1 + list(PLANS).index(policy)]], course=COURSES[course])
    assert chi_square(ends_of(worlds, noise, *acts, worlds=2), given(exact)) > RATE


def test_after_a_known_course_the_noise_of_before_is_of_another_law():
    course = COURSES["caught on the second day"]
    exact, events, noise = given(enumerated(3, [COURSE[0]], course=course)), following(course), Abducted(7)
    ends_of(noise, pyro.condition(data=events), Abduct(noise), days=3)
    assert chi_square(ends_of(noise), exact) > RATE
    assert chi_square(ends_of(ExogenousNoise(7), pyro.condition(data=events)), exact) < RATE


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_effects_given_the_counts_of_days_are_those_of_the_enumeration(size):
    """Guided runs in which as many were infected on the first days as was seen, replayed in both worlds."""
    seen, draws = [0, 1] if size == 2 else [0, 1, 0], 600
    tree = lpm.counterfactual(
        Few(size, 1),
        {"more": PLANS["more"]},
        days=DAYS,
        seed=5,
        replicates=draws,
        observed={"infection": seen},
        guided=4,
    )
    factual = tree["prior_predictive"]["infections"].sel(policy="as it was")
    assert (factual.isel(day=slice(0, len(seen))) == seen).all()
    assert "weight" not in tree["prior"].coords
    caught = tree["prior_predictive"]["infections"].sum("day").to_numpy().reshape(draws, 2)
    exact = given(enumerated(size, [COURSE[0], COURSE[2]], seen=seen))
    for number, mine in (
        (lambda end: sum(would != "S" for _, would in end) - 1, caught[:, 1]),
        (lambda end: sum(would != was for was, would in end if "S" in (was, would)), caught[:, 1] - caught[:, 0]),
    ):
        expected = sum(p * number(end) for end, p in exact.items())
        error = (sum(p * (number(end) - expected) ** 2 for end, p in exact.items()) / draws) ** 0.5
        assert abs(mine.mean() - expected) <= 4 * error + 1e-9


def test_worlds_apart_are_told_by_the_enumeration():
    """The oracle itself: without a policy nobody's fate differs, with more transmission none is averted."""
    same, more = enumerated(2, [COURSE[0], COURSE[3]]), enumerated(2, [COURSE[0], COURSE[2]])
    assert all(was == would for end in same for was, would in end)
    assert all((was, would) != ("I", "S") and (was, would) != ("R", "S") for end in more for was, would in end)
