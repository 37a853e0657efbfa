"""Labour: employment stays in normal times, falls and recovers with activity, and claims follow layoffs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import date

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import lpmppl as lpm
from lpmppl.data import cache
from lpmppl.data.recorded import shipped
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, Record
from lpmppl.effects.handlers.verify import Verified
from lpmppl.effects.ops import simulate
from lpmppl.errors import InputError
from lpmppl.models import labour
from lpmppl.models.model import Model
from lpmppl.models.networks import Groups
from lpmppl.models.part import Part, Setting
from lpmppl.models.population import Population
from lpmppl.models.substep import Substep, compose
from lpmppl.typing import Dynamics, State, Theta
from tests.oracles import chance, far

CITY = 8_480_225
"""Residents of the population's base, ACS 2020–2024."""


class Town(Model):
    """Some parts in a town whose activity is given by day: the same in workplaces and retail, or one each."""

    name = "town"

    def __init__(
        self,
        people: Population,
        parts: Sequence[Part],
        activity: Callable[[int], tuple[float, float]],
        start: str = "2020-03-01",
        by: Groups | None = None,
    ) -> None:
        self.population, self.parts, self.activity, self.by = people, tuple(parts), activity, by
        self.setting = Setting(people, date.fromisoformat(start), by)
        self.parameters = {k: v for part in parts for k, v in part.parameters.items()}
        self.environment = {k: v for part in parts for k, v in part.environment.items()}
        self.tallies = {k: v for part in parts for k, v in part.tallies.items()}

    def initial(self, theta: Theta, start: float = 0.0) -> State:
        state: dict[str, Tensor] = {key: torch.full((1,), value) for key, value in self.environment.items()}
        state |= {"mobility/workplaces": torch.ones(1), "mobility/retail": torch.ones(1)}
        for part in self.parts:
            state |= part.start(self.setting, theta, start)
        return state

    def day(self, theta: Theta) -> Dynamics:
        def go_out(s: State) -> State:
            work, retail = self.activity(int(s["t"]))
            return {"mobility/workplaces": torch.tensor([work]), "mobility/retail": torch.tensor([retail])}

        written = ("mobility/workplaces", "mobility/retail")
        mobility = Substep("mobility", (), written, go_out, lambda _, activity: activity, scale="city")
        return compose(mobility, *(part.substep(self.setting, theta) for part in self.parts))


def constant(level: float) -> Callable[[int], tuple[float, float]]:
    return lambda _: (level, level)


def falls(to: float, on: int) -> Callable[[int], tuple[float, float]]:
    return lambda t: (to, to) if t >= on else (1.0, 1.0)


def recorded(start: str) -> Callable[[int], tuple[float, float]]:
    """New York's own activity in 2020."""
    record = shipped()
    first = int((np.datetime64(start) - record.days[0]).astype(int))
    work, retail = record.activity["workplaces"], record.activity["retail"]
    return lambda t: (float(work[first + t]), float(retail[first + t])) if first + t >= 0 else (1.0, 1.0)


def play(model: Model, days: int, theta: Mapping[str, float] | None = None, *handlers: object) -> tuple[State, Record]:
    """The last state and the tallies; under noise unless handlers are given."""
    values = model.defaults() | {k: torch.tensor(v) for k, v in (theta or {}).items()}
    record = Record()
    with torch.no_grad(), ExitStack() as stack:
        stack.enter_context(DiscreteTime())
        stack.enter_context(record)
        for handler in handlers or (ExogenousNoise(1),):
            stack.enter_context(handler)  # type: ignore[arg-type]
        end = torch.tensor(float(days))
        return simulate(model.day(values), model.initial(values), torch.tensor(0.0), end), record


@pytest.fixture(scope="session")
def people() -> Population:
    return Population(cache.population(20_000, 0))


@pytest.fixture
def town(people: Population) -> Callable[..., Town]:
    return lambda activity, **options: Town(people, [labour.PART], activity, **options)


def test_employment_and_claims_stay_in_normal_times(people, town):
    weeks = 26
    state, record = play(town(constant(1.0)), 7 * weeks)
    at_work = people["employment"] == labour.EMPLOYED
    layoffs = float(at_work.sum()) * 0.00028 * 7 * weeks
    change = float(state["employed"].sum() - at_work.sum())
    # Layoffs and hires are Poisson of one mean, to first order in their share of the workers.
    assert abs(change) < 4 * np.sqrt(2 * layoffs)
    claims = record.series["ui_claims"].values.sum()
    assert abs(claims - 0.945 * layoffs) < 4 * np.sqrt(layoffs)
    weekly = claims / weeks * CITY / people.size
    assert 5_500 < weekly < 8_500  # the weeks of January and February 2020 had 5,510 to 8,190, and one of 13,500


def test_layoffs_of_a_week_have_the_probability_of_their_hazard(people, town):
    drop = 0.4
    before, after = (play(town(falls(1.0 - drop, 7)), days)[0]["employed"].numpy() for days in (7, 8))
    work = {name: people[name].numpy() for name in ("employment", "industry", "occupation", "household")}
    _, quartile = (x.numpy() for x in labour.wages(people))
    factor = np.array(
        [
            labour.INDUSTRY[i] * labour.OCCUPATION[o] * labour.WAGE[q]
            for i, o, q in zip(work["industry"], work["occupation"], quartile[work["household"]], strict=True)
        ]
    )
    factor /= factor[work["employment"] == 2].mean()
    hazard = factor * (0.73 * (1 - np.exp(-7 / 6.6)) * drop + 7 * 0.0011 * drop) + 7 * 0.00028
    p = -np.expm1(-hazard)
    left = before & ~after
    for industry in range(1, 14):
        who = before & (work["industry"] == industry)
        assert abs(left[who].sum() - p[who].sum()) < 4.5 * np.sqrt((p[who] * (1 - p[who])).sum())
    share = [left[before & (work["industry"] == i)].mean() for i in (11, 8)]
    assert share[0] > 4 * share[1]


def test_labour_takes_its_turn_once_a_week(town):
    activity = falls(0.5, 7)
    states = [play(town(activity), days)[0] for days in (8, 9, 14, 15)]
    keys = ("employed", "job_hazard", "claim_due", "unemployed", "labour/activity")
    assert all(torch.equal(states[0][key], states[k][key]) for key in keys for k in (1, 2))
    assert not torch.equal(states[2]["employed"], states[3]["employed"])


def test_what_is_counted_is_what_is(people):
    by = people.strata(borough="borough", age="age_band")
    model = Town(people, [labour.PART], lambda t: (0.4 + 0.01 * t, 0.4) if t > 6 else (1.0, 1.0), by=by)
    state, record = play(model, 50, {"turnover": 0.01, "claim_delay": 5.0}, ExogenousNoise(2), Verified())
    employed, claiming = state["employed"].numpy(), state["claiming"].numpy()
    home, jobless = people["household"].numpy(), people["employment"].numpy() > 0
    assert (state["job_changes"] > 3).any() and claiming.sum() > 500
    assert not (employed & claiming).any()
    assert (state["earners"].numpy() == np.bincount(home[employed], minlength=state["earners"].shape[0])).all()
    assert (state["claimants"].numpy() == np.bincount(home[claiming], minlength=state["claimants"].shape[0])).all()
    cells = people["borough"].numpy().astype(int) * 9 + people["age_band"].numpy()
    now = np.bincount(cells[jobless & ~employed], minlength=45)
    assert (state["unemployed"].numpy() == now).all()
    assert (record.series["unemployed"].values[-1] == now).all() and record.series["unemployed"].stock


def test_jobs_come_and_go_alike_with_and_without_shared_resistances(people, town):
    # An event that comes again needs a fresh resistance and a hazard from zero; otherwise the two laws differ.
    theta = {"turnover": 0.02}
    jobs = []
    for noise in ((ExogenousNoise(3),), (ExogenousNoise(4, hide=True),), ()):
        torch.manual_seed(5)
        handlers = noise or (Verified(),)
        state, _ = play(town(constant(1.0)), 7 * 20, theta, *handlers)
        jobs.append(state["job_changes"].double())
    labour_force = people["employment"] > 0
    error = [float(x[labour_force].std()) / np.sqrt(int(labour_force.sum())) for x in jobs]
    mean = [float(x[labour_force].mean()) for x in jobs]
    assert mean[2] > 2
    for k in (0, 1):
        assert abs(mean[k] - mean[2]) < 4 * np.hypot(error[k], error[2])


def chain(people, weeks, turnover, share, delay):
    """What is expected of a labour market in normal times, week by week: claims, unemployed and hires.

    A worker is at work or not, and has a claim waiting or none; waits are exponential, so no more need be known.
    """
    at_work, jobless = (float((people["employment"] == code).sum()) for code in (labour.EMPLOYED, labour.UNEMPLOYED))
    laid_off, hired = (-np.expm1(-7 * turnover * x) for x in (1.0, at_work / jobless))
    files = -np.expm1(-7 / delay)
    waiting = min(1.0, share * turnover * delay * at_work / jobless)
    work, out = np.array([at_work, 0.0]), jobless * np.array([1 - waiting, waiting])  # without and with a claim
    expected = []
    for _ in range(weeks):
        claims, hires = files * (work[1] + out[1]), hired * out.sum()
        work, out = (np.array([x[0] + files * x[1], (1 - files) * x[1]]) for x in (work, out))
        leavers = laid_off * work.sum() * np.array([1 - share, share])
        work, out = work * (1 - laid_off) + out * hired, out * (1 - hired) + leavers
        expected.append((claims, out.sum(), hires))
    return np.array(expected).T


@pytest.mark.parametrize("handlers", [(), (ExogenousNoise(7),)], ids=["plain", "noise"])
def test_a_normal_labour_market_is_the_markov_chain_it_should_be(people, town, handlers):
    """Failure rate 1e-6: weekly claims and unemployment, all claims and hires; variances are no more than Poisson's."""
    theta = {"turnover": 0.02, "claim_share": 0.8, "claim_delay": 3.0}
    with chance(8):
        state, record = play(town(constant(1.0)), 7 * 26, theta, *(handlers or (Verified(),)))
    claims, unemployed, hires = chain(people, 26, *theta.values())
    assert hires.sum() > 20_000
    counts = [record.series[name].values[:, 0] for name in ("ui_claims", "unemployed")]
    hired = (state["job_changes"].long() + (people["employment"] == labour.UNEMPLOYED)) // 2
    expected = np.concatenate((claims, unemployed, [claims.sum(), hires.sum()]))
    found = np.concatenate((*counts, [counts[0].sum(), float(hired.sum())]))
    assert (np.abs(found - expected) / np.sqrt(expected)).max() < far(len(expected))


def test_claims_come_after_a_week_and_an_exponential_wait(people, town):
    calm = {"turnover": 1e-9, "layoff_closure": 0.0, "layoff_delay": 1e-3, "rehiring": 1e-9}
    state, record = play(town(falls(0.3, 0)), 7 * 12, calm)
    claims = record.series["ui_claims"].values[:, 0]
    laid_off = int(((people["employment"] == labour.EMPLOYED) & ~state["employed"]).sum())
    assert laid_off > 2000 and claims[0] == 0
    for week in (1, 2, 5, 11):
        p = 0.945 * -np.expm1(-7 * week / 31.5)
        assert abs(claims[: week + 1].sum() - p * laid_off) < 4 * np.sqrt(laid_off * p * (1 - p))


def test_hiring_waits_for_activity_to_rise(people, town):
    def activity(t: int) -> tuple[float, float]:
        level = 1.0 if t < 7 else 0.4 if t < 28 else 0.6
        return level, level

    theta = {"turnover": 1e-9}
    low, high = (play(town(activity), days, theta)[0]["employed"] for days in (28, 29))
    jobless = int(((people["employment"] > 0) & ~low).sum())
    hired = int((high & ~low).sum())
    p = -np.expm1(-1.16 * 0.2)
    assert abs(hired - p * jobless) < 4 * np.sqrt(jobless * p * (1 - p)) + 2


def families(**changes: object) -> Population:
    """Four households: two workers, one worker and a child, a pensioner, and group quarters with a worker."""
    variables = {
        "age": [40, 41, 35, 5, 70, 30],
        "role": [0, 1, 0, 2, 0, 6],
        "employment": [2, 2, 2, 0, 0, 2],
        "industry": [11, 8, 5, 0, 0, 6],
        "occupation": [2, 1, 3, 0, 0, 5],
    } | changes
    income = ("household", np.array([208_000.0, 7_800.0, 26_000.0, np.nan], dtype=np.float32))
    agents = {k: ("agent", np.array(v, dtype=np.uint8)) for k, v in variables.items() if v is not None}
    return Population(xr.Dataset({**agents, "income": income}, {"household": ("agent", np.array([0, 0, 1, 1, 2, 3]))}))


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        # Wages of 2,000 (benefit 504, the most) and of 150 a week (benefit 104, the least); 600 on top in CARES weeks.
        ("2020-03-29", [2_504.0, 104.0, 500.0, 0.0]),
        ("2020-03-30", [3_104.0, 704.0, 500.0, 0.0]),
        ("2020-07-26", [3_104.0, 704.0, 500.0, 0.0]),
        ("2020-07-27", [2_504.0, 104.0, 500.0, 0.0]),
    ],
)
def test_income_is_wages_and_benefits(day, expected):
    setting = Setting(families(), date(2020, 3, 1))
    state = {"t": torch.tensor(float(setting.day(day))), "earners": torch.tensor([1, 0, 0, 0])}
    income = labour.weekly_income(setting)(state | {"claimants": torch.tensor([1, 1, 0, 1])})
    assert income.tolist() == pytest.approx(expected)


def test_a_benefit_between_its_bounds_is_half_the_wage():
    people = families(employment=[2, 2, 2, 2, 0, 2], industry=[11, 8, 5, 1, 0, 6])
    people.dataset["income"][1] = 52_000.0
    income = labour.weekly_income(Setting(people, date(2020, 3, 1)))
    state = {"t": torch.zeros(1), "earners": torch.tensor([2, 1, 0, 1]), "claimants": torch.tensor([0, 1, 0, 0])}
    assert income(state).tolist() == pytest.approx([4_000.0, 750.0, 500.0, 0.0])


def test_quartiles_hold_a_quarter_of_the_workers_each_by_wage(people):
    wage, quartile = labour.wages(people)
    home = people["household"].long()
    workers = (people["employment"] == 2) & (wage[home] > 0)
    count = torch.bincount(quartile[home][workers].long(), minlength=4).double() / int(workers.sum())
    assert count.tolist() == pytest.approx([0.25] * 4, abs=0.001)
    for q in range(3):
        assert wage[(quartile == q) & (wage > 0)].max() <= wage[(quartile == q + 1) & (wage > 0)].min()


def test_layoffs_are_relative_to_the_average_worker(people):
    kinds, factor = labour.relative_layoffs(people)
    workers = people["employment"] == 2
    assert float(factor[kinds.index.long()][workers].mean()) == pytest.approx(1.0, abs=1e-5)


def test_a_population_without_industries_is_refused_by_name():
    people = families(industry=None)
    with pytest.raises(InputError, match="industry"):
        labour.labour(Setting(people, date(2020, 3, 1)), {k: torch.tensor(1.0) for k in labour.PARAMETERS})


@pytest.mark.slow
def test_spring_2020_comes_out_as_recorded():
    """With the activity recorded in New York: employment and claims of the Opportunity Insights tracker.

    Employment in the week to 17 April 2020 was −33.5 % and −22.9 % in the top quartile, and −23.6 % on 26 June. The
    tracker's quartiles are those of wages in the nation; its totals below and above the median say that they hold 6,
    30, 31 and 33 % of New York's workers, so that the city's own quartiles lost 44, 38, 29 and 23 %. Weekly initial
    claims were highest in the week to 11 April, 184,530. One draw of 100,000 agents is good to half a point of
    employment (3 standard errors) and 8,000 claims.
    """
    people = Population(cache.population(100_000, 0))
    _, quartile = labour.wages(people)
    people.dataset["quartile"] = ("agent", quartile[people["household"].long()].numpy(), {"labels": list("1234")})
    by = people.strata(quartile="quartile")
    tree = lpm.run(Town(people, [labour.PART], recorded("2020-03-01"), by=by), days=123, seed=0, start="2020-03-01")
    outcome = tree["prior_predictive"].to_dataset().isel(chain=0, draw=0)

    def count(mask: Tensor) -> np.ndarray:
        return np.bincount(by.index[mask].numpy(), minlength=4)

    workers, idle = count(people["employment"] == 2), count(people["employment"] == 1)
    loss = (outcome["unemployed"].to_numpy() - idle) / workers
    city = (outcome["unemployed"].to_numpy().sum(-1) - idle.sum()) / workers.sum()
    april, june = (date(2020, 4, 17) - date(2020, 3, 1)).days, (date(2020, 6, 26) - date(2020, 3, 1)).days
    assert city[april] == pytest.approx(0.335, abs=0.01)
    assert city[june] == pytest.approx(0.236, abs=0.02)
    assert city.argmax() // 7 == april // 7
    assert loss[april].tolist() == pytest.approx([0.442, 0.385, 0.285, 0.229], abs=0.015)
    weekly = outcome["ui_claims"].to_numpy().sum(-1).reshape(-1)[:119].reshape(-1, 7).sum(-1) * CITY / people.size
    assert weekly.argmax() == 5  # the week from 5 to 11 April
    assert weekly[5] == pytest.approx(184_530, rel=0.08)
    assert weekly[0] == pytest.approx(6_000, rel=0.35)
