"""Behaviour: who decides what and when, that a person stays itself, and that worlds are their single runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from datetime import date
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from chirho.counterfactual.handlers import MultiWorldCounterfactual
from chirho.dynamical.handlers.interruption import StaticIntervention
from torch import Tensor

from lpmppl.data import cache
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, Record, Tabulated, Utility, Verified, bounded
from lpmppl.effects.ops import decide, simulate
from lpmppl.errors import InputError, LpmError
from lpmppl.models import behaviour, masking
from lpmppl.models.behaviour import PART, UTILITY, archetypes
from lpmppl.models.masking import mandated
from lpmppl.models.model import Model
from lpmppl.models.part import Setting
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep, compose
from lpmppl.typing import Dynamics, State, Theta

AGENTS, DAYS, ILL_FOR = 2000, 40, 10
OCCUPATIONS = (
    "none",
    "management, business, science and arts",
    "service",
    "sales and office",
    "natural resources, construction and maintenance",
    "production, transportation and material moving",
)
SAVINGS = torch.linspace(0.0, 5000.0, AGENTS)[torch.randperm(AGENTS, generator=torch.Generator().manual_seed(0))[::2]]
"""Of every household, dollars."""
NEVER = torch.tensor([0.0, 1.0])
ALWAYS = torch.tensor([1.0, 0.0])
ALONE = {"households_as_one": torch.tensor(0.0)}


def people(n: int = AGENTS) -> Population:
    rng = np.random.default_rng(0)
    homes, i = n // 2, np.arange(n)
    income = np.where(rng.random(homes) < 0.1, np.nan, rng.lognormal(11.0, 0.8, homes))
    jobs = {"labels": ["not in labour force", "unemployed", "employed"]}
    return Population(
        xr.Dataset(
            {
                "age": ("agent", rng.integers(0, 90, n).astype(np.uint8)),
                "household": ("agent", (i // 2).astype(np.int32)),
                "borough": ("agent", (i * 2 // n).astype(np.uint8)),
                "occupation": ("agent", rng.integers(0, 6, n).astype(np.uint8), {"labels": list(OCCUPATIONS)}),
                "employment": ("agent", rng.integers(0, 3, n).astype(np.uint8), jobs),
                "income": ("household", income.astype(np.float32)),
            }
        )
    )


class Society(Model):
    """People who fall ill, the less the more of them isolate and wear masks; whoever seeks a test is positive.

    Args:
        catching: whether how many fall ill depends on what others do.
        risk: admissions a day per 100,000; those who fall ill per 1,000 by default.
    """

    name = "society"
    parameters = PART.parameters
    environment = {"mask_mandate": -1.0}
    tallies = {**PART.tallies, **masking.PART.tallies}

    def __init__(self, start: str = "2020-04-13", catching: bool = True, risk: float | None = None) -> None:
        self.population, self.catching, self.risk = people(), catching, risk
        by = self.population.strata(borough="borough")
        self.setting = Setting(self.population, date.fromisoformat(start), by)

    def illness(self) -> Substep:
        def fall(s: State) -> Tensor:
            risk = torch.tensor([0.03])
            if self.catching:
                careful = s["masked"] * 0.5 + s["isolating"]
                risk = risk * (1.0 - 0.6 * careful.float().mean(-1, keepdim=True))
            with self.population.plate():
                return pyro.sample("falls_ill", dist.Bernoulli(risk)).bool()

        def change(s: State, ill: Tensor) -> State:
            onset = ill & ~s["symptomatic"]
            at = torch.where(onset, s["t"], s["onset_at"])
            admitted = onset.float().mean(-1, keepdim=True) * 1000.0 if self.risk is None else s["admissions/week"]
            return {
                "onset": onset,
                "onset_at": at,
                "symptomatic": s["t"] < at + ILL_FOR,
                "episode": s["episode"] + onset.int(),
                "learnt": s["seeks_test"],
                "positive_at": torch.where(s["seeks_test"], s["t"], s["positive_at"]),
                "admissions/week": admitted,
            }

        writes = ("onset", "onset_at", "symptomatic", "episode", "learnt", "positive_at", "admissions/week")
        return Substep("illness", (*writes, "masked", "isolating", "seeks_test"), writes, fall, change)

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        n, nobody = self.population.size, torch.zeros(self.population.size, dtype=torch.bool)
        state = {
            "onset": nobody,
            "onset_at": torch.full((n,), -math.inf),
            "symptomatic": nobody,
            "learnt": nobody,
            "admitted": nobody,
            "episode": torch.zeros(n, dtype=torch.int32),
            "positive_at": torch.full((n,), -math.inf),
            "admissions/week": torch.tensor([self.risk or 0.0]),
            "employed": self.population["employment"] == 2,
            "savings": SAVINGS,
            "mask_mandate": torch.tensor([-1.0]),
        }
        for part in (PART, masking.PART):
            state |= part.start(self.setting, theta, start)
        return state

    def day(self, theta: Theta) -> Dynamics:
        given = self.initial_keys()
        return compose(
            self.illness(), *(part.substep(self.setting, theta) for part in (PART, masking.PART)), given=given
        )

    def initial_keys(self) -> set[str]:
        with Utility(UTILITY), ExogenousNoise(0):
            return set(self.initial(self.defaults()))


def play(model: Model, *handlers: Any, days: int = DAYS, behave: Any = None, noise: Any = None) -> Any:
    """The state day by day under the handlers and, unless another chance is given, keyed noise."""
    theta, path = model.defaults(), []

    def day(s: State, step: Dynamics = model.day(theta)) -> State:  # noqa: B008
        path.append(s := step(s))
        return s

    with torch.no_grad(), ExitStack() as stack:
        for handler in (Record(), DiscreteTime(), noise or ExogenousNoise(1), behave or Utility(UTILITY), *handlers):
            stack.enter_context(handler)
        simulate(day, model.initial(theta), torch.tensor(0.0), torch.tensor(float(days)))
    return path


def tables(**given: Tensor) -> Tabulated:
    return Tabulated({"mask": NEVER, "isolate": NEVER, "test": NEVER, "vaccinate": NEVER, **given})


def within(count: Tensor, chance: Tensor) -> bool:
    """Whether a count of independent events is within five standard errors of what their chances say."""
    return abs(float(count.sum() - chance.sum())) <= 5.0 * math.sqrt(float((chance * (1 - chance)).sum()))


def kinds_by_hand(model: Society, s: Mapping[str, Tensor]) -> Tensor:
    """Everybody's archetype when nobody is ill, in the order age, income, occupation, employment, savings, health."""
    p, codes = model.population, []
    for i in range(p.size):
        age, income = int(p["age"][i]), float(p["income"][i // 2])
        bracket = 3 if math.isnan(income) else (income >= 40e3) + (income >= 80e3)
        low = float(s["savings"][i // 2]) < 2000
        code = (age >= 18) + (age >= 40) + (age >= 65)
        for value, radix in ((bracket, 4), (int(p["occupation"][i]), 6), (int(s["employed"][i]), 2), (int(low), 2)):
            code = code * radix + value
        codes.append(code * 3)
    return torch.tensor(codes)


class TestMasks:
    def test_the_share_of_maskers_is_what_their_archetypes_say(self):
        model = Society(catching=False, risk=0.0)
        size = archetypes(model.population).size
        p = torch.rand(size, generator=torch.Generator().manual_seed(0))
        table = torch.stack((p, 1 - p), -1)
        first = play(model, days=1, behave=tables(mask=table))[0]
        well = ~first["symptomatic"]
        chance = p[kinds_by_hand(model, first)]
        assert within(first["masked"][well], chance[well])
        # Those with the likelier archetypes do: an agent apart from its archetype would follow the mean.
        keen = chance > 0.5
        assert within(first["masked"][well & keen], chance[well & keen])

    def test_a_person_keeps_its_inclination(self):
        model = Society(catching=False, risk=0.0)
        some, more = (play(model, days=30, behave=tables(mask=torch.tensor([p, 1 - p]))) for p in (0.3, 0.6))
        assert all(torch.equal(s["masked"], some[0]["masked"]) for s in some)
        assert bool((some[0]["masked"] <= more[0]["masked"]).all())
        assert some[0]["masked"].sum() < more[0]["masked"].sum()

    def test_the_decision_is_weekly(self):
        path = play(Society(start="2020-04-15"), days=22)
        changes = [t for t in range(1, 22) if not torch.equal(path[t]["masked"], path[t - 1]["masked"])]
        assert changes == [7, 14, 21]

    def test_they_are_rare_before_advice_and_common_under_a_mandate(self):
        share = lambda path, t: float(path[t]["masked"].float().mean())  # noqa: E731
        path = play(Society(start="2020-03-02", catching=False, risk=10.0), days=120)
        assert share(path, 28) < 0.12
        assert share(path, 28) < share(path, 42) - 0.1 < share(path, 119) - 0.3
        assert share(path, 119) > 0.8

    def test_the_mandate_is_as_recorded_unless_a_policy_says_otherwise(self):
        setting = Society(start="2020-04-10").setting
        assert [mandated(setting, t) for t in (6, 7, 396 + 7, 396 + 8)] == [False, True, True, False]
        last = {
            m: float(play(Society(start="2020-05-01"), policy(0, "mask_mandate", m))[-1]["masked"].float().mean())
            for m in (-1.0, 0.0, 1.0)
        }
        assert last[-1.0] == last[1.0] > last[0.0] + 0.2

    def test_a_start_under_a_mandate_finds_masks_worn(self):
        for start, share in (("2020-04-16", 0.0), ("2020-11-01", 0.84)):
            with ExogenousNoise(0):
                state = masking.PART.start(Society(start=start).setting, ALONE, 0.0)
            assert within(state["masked"], torch.full((AGENTS,), share))
            assert int(state["masked"].sum()) == int(state["masked/total"].sum()) == int(state["masked/borough"].sum())

    def test_neighbours_are_those_of_the_borough(self):
        # With a mandate for nobody, a borough in which all began with masks keeps more of them.
        model = Society(start="2020-05-01", catching=False, risk=1.0)
        first = (model.population["borough"] == 0).clone()
        theta = model.defaults()
        with ExogenousNoise(0), Utility(UTILITY), Record():
            s = {**model.initial(theta), "t": torch.tensor(0.0), "dt": torch.tensor(1.0)}
            s |= {"masked": first, "masked/borough": torch.tensor([int(first.sum()), 0])}
            s |= {"mask_mandate": torch.zeros(1)}
            after = masking.PART.substep(model.setting, theta)(s)
        shares = [float(after["masked"][model.population["borough"] == b].float().mean()) for b in (0, 1)]
        assert shares[0] > shares[1] + 0.3
        counts = [int(after["masked"][model.population["borough"] == b].sum()) for b in (0, 1)]
        assert after["masked/borough"].tolist() == counts

    def test_the_tally_counts_them(self):
        record = Record()
        path = play(Society(), record, days=20)
        counted = record.series["masked"]
        assert counted.stock
        assert counted.days == [0.0, 7.0, 14.0]
        borough = Society().population["borough"]
        for t, row in zip((0, 7, 14), counted.values, strict=True):
            assert row.tolist() == [int(path[t]["masked"][borough == b].sum()) for b in (0, 1)]


class TestIsolation:
    def test_it_lasts_ten_days_from_onset(self):
        path = play(Society(catching=False, risk=0.0), behave=tables(isolate=ALWAYS))
        onset = torch.stack([s["onset"] for s in path])
        isolating = torch.stack([s["isolating"] for s in path])
        for t in range(DAYS):
            assert torch.equal(isolating[t], onset[max(t - 9, 0) : t + 1].any(0)), t

    def test_a_positive_test_makes_more_people_isolate_and_nobody_fewer(self):
        chance = {"isolate": {"isolate": {"intercept": -0.5, "health=tested positive": 1.5}}}
        sure = {"mask": {}, "test": {"seek a test": {"intercept": 100.0}}, "vaccinate": {}}
        path = play(Society(catching=False, risk=0.0), behave=Utility({**chance, **sure}), days=12)
        low, high = (1 / (1 + math.exp(-v)) for v in (-0.5, 1.0))
        # Day 10: who fell ill on day 9 learns today; who fell ill for the first time today doesn't know yet.
        before, after = path[9], path[10]
        ill = before["onset"] & (before["episode"] == 1)
        assert within(before["isolating"][ill], torch.full((int(ill.sum()),), low))
        assert within(after["isolating"][ill], torch.full((int(ill.sum()),), high))
        assert bool((after["isolating"] | ~before["isolating"])[ill].all())
        assert after["isolating"][ill].sum() > before["isolating"][ill].sum()

    def test_who_has_symptoms_and_a_job_and_does_not_isolate_works_ill(self):
        model = Society(catching=False)
        employed = model.population["employment"] == 2
        path = play(model, Verified(bounded("masked", 0, 1)))
        seen = 0
        for s in path:
            assert torch.equal(s["works_ill"], s["symptomatic"] & employed & ~s["isolating"])
            seen += int(s["works_ill"].sum())
        assert seen > 100

    def test_whoever_loses_its_job_stops_working_ill(self):
        model = Society(catching=False)
        lay_off = policy(20, "employed", torch.zeros(model.population.size, dtype=torch.bool))
        path = play(model, lay_off, behave=tables())
        assert path[19]["works_ill"].sum() > 10
        assert path[20]["works_ill"].sum() == 0

    def test_whoever_is_admitted_stops_working_ill(self):
        model = Society(catching=False)
        admit = policy(20, "admitted", torch.ones(model.population.size, dtype=torch.bool))
        path = play(model, admit, behave=tables())
        assert path[19]["works_ill"].sum() > 10
        assert torch.equal(path[20]["works_ill"], path[20]["onset"] & path[20]["employed"])

    def test_the_tally_counts_who_isolates(self):
        record = Record()
        path = play(Society(), record, behave=tables(isolate=torch.tensor([0.6, 0.4]), test=ALWAYS))
        borough = Society().population["borough"]
        expected = [[int(s["isolating"][borough == b].sum()) for b in (0, 1)] for s in path]
        assert record.series["isolating"].values.tolist() == expected
        assert max(map(sum, expected)) > 100

    def test_the_length_is_a_parameter(self):
        model = Society(catching=False)
        theta = {**ALONE, "isolation_days": torch.tensor(4.0)}
        with ExogenousNoise(0), tables(isolate=ALWAYS), Record():
            s = {**model.initial(theta), "t": torch.tensor(3.0), "dt": torch.tensor(1.0)}
            s["onset"] = torch.arange(model.population.size) == 5
            s |= PART.substep(model.setting, theta)(s)
        assert s["isolate_until"][5] == 7.0


class TestTestsAndVaccines:
    def test_who_falls_ill_seeks_a_test_on_that_day_only(self):
        path = play(Society(catching=False, risk=0.0), behave=tables(test=torch.tensor([0.4, 0.6])))
        assert all(bool((s["onset"] | ~s["seeks_test"]).all()) for s in path)
        onsets, tests = (torch.stack([s[key] for s in path]).sum() for key in ("onset", "seeks_test"))
        assert within(tests, torch.full((int(onsets),), 0.4))

    def test_a_new_illness_is_a_new_question(self):
        path = play(Society(catching=False, risk=0.0), behave=tables(test=torch.tensor([0.5, 0.5])))
        sought = [torch.zeros(AGENTS), torch.zeros(AGENTS)]
        for s in path:
            for k in (0, 1):
                here = s["onset"] & (s["episode"] == k + 1)
                sought[k] = torch.where(here, s["seeks_test"].float(), sought[k])
        twice = path[-1]["episode"] >= 2
        assert within((sought[0] != sought[1])[twice], torch.full((int(twice.sum()),), 0.5))

    def test_the_willing_are_as_many_as_their_archetypes_say_and_stay(self):
        model = Society(catching=False)
        kinds = archetypes(model.population)
        p = torch.rand(kinds.size, generator=torch.Generator().manual_seed(0))
        path = play(model, behave=tables(vaccinate=torch.stack((p, 1 - p), -1)))
        start = {"employed": model.population["employment"] == 2, "savings": torch.full((AGENTS // 2,), 1e9)}
        chance = p[kinds_by_hand(model, start)]
        assert within(path[0]["willing"], chance)
        assert within(path[0]["willing"][chance > 0.5], chance[chance > 0.5])
        assert path[0]["willing"] is path[-1]["willing"]


class TestUtility:
    """What New York's coefficients say."""

    def chance(self, decision: str, option: str, **observed: float) -> tuple[Tensor, Any]:
        kinds = archetypes(people())
        context = {"risk": 1.0, "fatigue": 0.5, "mandate": 0.0, "advice": 1.0, "neighbours": 0.5, "pay": 0.0}
        options = {"mask": behaviour.MASK, "isolate": behaviour.ISOLATE, "test": behaviour.TEST}[decision]
        with Utility(UTILITY):
            p = decide(decision, kinds.table, options, {**context, **observed, "attributes": kinds.labels})
        assert torch.allclose(p.sum(-1), torch.ones(kinds.size))
        return p[:, options.index(option)], kinds

    @pytest.mark.parametrize(
        ("decision", "feature", "sign"),
        [
            ("isolate", "risk", 1),
            ("isolate", "fatigue", -1),
            ("test", "risk", 1),
            ("test", "fatigue", -1),
            ("mask", "risk", 1),
            ("mask", "mandate", 1),
            ("mask", "advice", 1),
            ("mask", "neighbours", 1),
        ],
    )
    def test_everybody_responds_in_the_direction_the_evidence_says(self, decision, feature, sign):
        option = {"isolate": "isolate", "test": "seek a test", "mask": "mask"}[decision]
        low, _ = self.chance(decision, option, **{feature: 0.2})
        high, _ = self.chance(decision, option, **{feature: 0.9})
        assert bool((sign * (high - low) > 0).all())

    def test_need_keeps_workers_from_isolating_and_a_positive_test_brings_them_to(self):
        p, kinds = self.chance("isolate", "isolate")
        names = list(kinds.labels)
        by = {tuple(row): float(x) for row, x in zip(kinds.table.tolist(), p, strict=True)}
        savings, health, job = (names.index(n) for n in ("savings", "health", "employment"))

        def but(row: tuple[int, ...], column: int, value: int) -> float:
            return by[*row[:column], value, *row[column + 1 :]]

        for row in by:
            enough, low = but(row, savings, 0), but(row, savings, 1)
            assert low < enough if row[job] == 1 else low == enough
            assert but(row, health, 2) > but(row, health, 1)

    def test_a_decision_that_the_coefficients_lack_is_refused_by_name(self):
        with pytest.raises(InputError, match="unknown decision 'mask': did you mean 'masks'"):
            play(Society(), behave=Utility({**{k: v for k, v in UTILITY.items() if k != "mask"}, "masks": {}}))

    def test_without_a_behaviour_it_says_what_to_do(self):
        with ExogenousNoise(0), pytest.raises(LpmError, match="decision 'vaccinate' among accept, refuse: no beh"):
            PART.start(Society().setting, ALONE, 0.0)


def policy(day: int, key: str, value: float | Tensor) -> StaticIntervention:
    value = value if isinstance(value, Tensor) else torch.tensor([value])
    return StaticIntervention(torch.tensor(float(day)), {key: value})


def worlds() -> MultiWorldCounterfactual:
    return MultiWorldCounterfactual(first_available_dim=-3)


def differences(a: Mapping[str, Tensor], b: Mapping[str, Tensor], world: int) -> list[str]:
    """The keys whose values in a world aren't those of a single run, bit for bit."""
    take = lambda x: x[min(world, x.shape[0] - 1)].squeeze() if x.dim() > 2 else x.squeeze()  # noqa: E731
    return [k for k in b if k not in ("t", "dt") and not torch.equal(take(a[k]), b[k].squeeze())]


ACTS = {
    "mask_mandate": lambda value: policy(10, "mask_mandate", value),
    "savings": lambda value: policy(10, "savings", SAVINGS * value),
    "risk": lambda value: policy(10, "admissions/week", 2.0 + 10.0 * value),
}


class TestWorlds:
    @pytest.mark.parametrize("what", ACTS)
    def test_each_world_of_a_policy_is_its_single_run(self, what):
        model = Society(start="2020-04-20", risk=3.0 if what == "risk" else None)
        base, single = play(model)[-1], play(model, ACTS[what](0.0))[-1]
        both = play(model, worlds(), ACTS[what](0.0))[-1]
        assert not torch.equal(base["isolating"], single["isolating"])
        assert differences(both, base, 0) == []
        assert differences(both, single, 1) == []

    def test_a_null_intervention_changes_nothing(self):
        model = Society(start="2020-04-20")
        base = play(model)[-1]
        both = play(model, worlds(), ACTS["mask_mandate"](-1.0))[-1]
        assert differences(both, base, 0) == differences(both, base, 1) == []

    def test_a_person_for_whom_nothing_changed_chooses_the_same(self):
        # The households of one borough lose their savings, and nothing that others do reaches the other borough.
        model = Society(catching=False, risk=2.0)
        homes = model.population["borough"][::2]
        poor = policy(10, "savings", torch.where(homes == 1, 0.0, SAVINGS))
        base, other = play(model), play(model, poor)
        there = model.population["borough"] == 1
        for a, b in zip(base, other, strict=True):
            for key in ("isolating", "works_ill", "seeks_test", "masked", "isolate_until"):
                assert torch.equal(a[key][~there], b[key][~there]), key
        assert any(not torch.equal(a["isolating"], b["isolating"]) for a, b in zip(base, other, strict=True))

    def test_each_draw_of_the_noise_is_its_single_run(self):
        model = Society(start="2020-04-20")
        both = play(model, days=15, noise=ExogenousNoise(1, torch.tensor([[0], [1]])))[-1]
        for draw in (0, 1):
            single = play(model, days=15, noise=ExogenousNoise(1, draw))[-1]
            here = {k: v[draw] if v.dim() > 1 else v for k, v in both.items()}
            assert [k for k in single if k not in ("t", "dt") and not torch.equal(here[k], single[k])] == []

    def test_it_declares_what_it_reads_and_writes(self):
        play(Society(), Verified(bounded("isolating", 0, 1)))

    def test_plain_chance_agrees_in_law_and_a_person_still_keeps_its_inclination(self):
        model = Society(catching=False, risk=0.0)
        table = tables(mask=torch.tensor([0.3, 0.7]), isolate=torch.tensor([0.6, 0.4]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            path = play(model, behave=table, noise=nullcontext())
        assert within(path[-1]["masked"], torch.full((AGENTS,), 0.3))
        assert torch.equal(path[0]["masked"], path[-1]["masked"])
        fresh = path[0]["onset"]
        assert within(path[0]["isolating"], torch.full((int(fresh.sum()),), 0.6))


SURVEY = {"18–29": (0.804, 301), "30–44": (0.801, 357), "45–64": (0.856, 521), "65+": (0.893, 317)}
INCOMES = {"under 40k": (0.823, 515), "40–80k": (0.859, 418), "over 80k": (0.855, 365)}
"""Share who wear a mask every time when entering a business, and respondents: the YouGov survey of November 2020."""


@pytest.mark.slow
def test_masks_of_november_2020_are_as_surveyed():
    """By age and by income within 2.5 standard errors of the survey; the noise of 100,000 agents is a tenth of it."""
    city = Population(cache.population(100_000, 0))
    setting = Setting(city, date(2020, 4, 1))
    record = Record()
    with torch.no_grad(), record, ExogenousNoise(0), Utility(UTILITY):
        s: dict[str, Tensor] = dict(masking.PART.start(setting, ALONE, 0.0))
        s["employed"] = city["employment"] == 2
        s["savings"] = torch.full((city.dataset.sizes["household"],), 1e9)
        s["symptomatic"], s["positive_at"] = torch.zeros_like(s["employed"]), torch.full((city.size,), -math.inf)
        s["mask_mandate"], s["dt"] = torch.tensor([-1.0]), torch.tensor(1.0)
        # Daily admissions of November 2020, New York City Health: 108 in 8.44 million.
        s["admissions/week"] = torch.tensor([1.28])
        weekly = masking.PART.substep(setting, {})
        for t in range(0, 230, 7):
            s |= {"t": torch.tensor(float(t))}
            s |= weekly(s)
    age, income = city["age"], city["income"][city["household"].long()]
    adult = age >= 18
    groups = {
        "18–29": adult & (age < 30),
        "30–44": (age >= 30) & (age < 45),
        "45–64": (age >= 45) & (age < 65),
        "65+": age >= 65,
        "under 40k": adult & (income < 40e3),
        "40–80k": adult & (income >= 40e3) & (income < 80e3),
        "over 80k": adult & (income >= 80e3),
    }
    for name, (share, n) in {**SURVEY, **INCOMES}.items():
        model = float(s["masked"][groups[name]].float().mean())
        assert abs(model - share) < 2.5 * math.sqrt(share * (1 - share) / n), (name, model, share)
