"""Does the composed pandemic show what was published? The numbers and figures of docs/evidence.md.

`python examples/evidence.py [claim …] [--figures docs/figures]` measures spread, course, spring, economy, screening and
doses, or those that are named. What was recorded in spring 2020 is `nyc_data_by_day.csv` in the folder LPMPPL_DATA.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from pyro.poutine.messenger import Messenger

import lpmppl as lpm
from lpmppl.data import nyc_health
from lpmppl.models import labour, stimulus
from lpmppl.models.nyc import RESIDENTS
from lpmppl.models.pandemic import PARTS, Pandemic
from lpmppl.models.population import Population
from lpmppl.models.progression import Stage

QUICK = "LPMPPL_EXAMPLE_AGENTS" in os.environ
AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "200000"))
FILE = "nyc_data_by_day.csv"
DISEASE = ("immunity", "progression", "transmission")
BEFORE = "2020-02-03"
"""The start of runs as before the pandemic: schools are in session, and activity is as it was."""

Results = dict[str, Any]


class after(Messenger):
    """Look at the state after every turn of a substep, and put what is returned into it."""

    def __init__(self, substep: str, look: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor] | None]):
        super().__init__()
        self.substep, self.look = substep, look

    def _pyro_post_substep(self, msg: dict[str, Any]) -> None:
        if msg["args"][0] == self.substep:
            msg["value"] = {**msg["value"], **(self.look(msg["value"]) or {})}


def only(people: Population, *kept: str, start: str = BEFORE) -> Pandemic:
    """The pandemic with these substeps and no other."""
    return lpm.nyc.pandemic(people, start=start, without=[part.name for part in PARTS if part.name not in kept])


def daily(run: Any, name: str) -> np.ndarray:
    """A tally of the whole city, day by day."""
    values = run["prior_predictive"][name].values[0, 0]
    return values.reshape(len(values), -1).sum(1)


def mean(values: Any) -> tuple[float, float]:
    """The mean of independent values and its standard error."""
    x = np.asarray(values, float)
    return float(x.mean()), float(x.std(ddof=1) / len(x) ** 0.5) if len(x) > 1 else float("nan")


def said(values: Any, digits: int = 2) -> str:
    """A mean and its standard error, in words; of one value there is no error."""
    value, error = mean(values)
    return f"{value:.{digits}f}" + ("" if np.isnan(error) else f" ± {error:.{digits}f}")


# Spread: the first generation, whose infectors are known.


def first_generation(
    people: Population, seed: int, imported: float, at_home: bool = False, start: str = BEFORE, **policy: float
) -> torch.Tensor:
    """Everybody's time of infection, 0 for the index cases, where nobody but the index cases sheds virus.

    Args:
        people: the population.
        seed: the seed.
        imported: the share of index cases.
        at_home: whether people meet in their households alone.
        start: the date of day 0.
        policy: parts of the environment, from day 0 on.
    """
    nowhere = {f"mobility/{place}": torch.zeros(1) for place in ("workplaces", "retail", "transit")}
    last: dict[str, torch.Tensor] = {}

    def only_index_cases(s: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"active": s["active"] & (s["infected_at"] <= 0), **(nowhere if at_home else {})}

    acts = [(name, value, 0) for name, value in {"schools": 0.0 if at_home else 1.0, **policy}.items()]
    with after("progression", only_index_cases), after("transmission", last.update):
        model = only(people, *DISEASE, start=start)
        lpm.run(model, days=30, seed=seed, set={"initial_infected": imported}, interventions=acts)
    return last["infected_at"]


def secondary_attack_rate(people: Population, seed: int) -> float:
    """The share of the others infected by the index case in private households with one index case."""
    at = first_generation(people, seed, 0.02, at_home=True)
    home, index = people["household"].long(), at == 0
    cases = torch.zeros(people.dataset.sizes["household"]).index_add(0, home, index.float())
    contacts = (cases[home] == 1) & (people["household_kind"][home] == 0) & ~index
    return float((at > 0)[contacts].double().mean())


def spread(people: Population, seeds: Sequence[int]) -> Results:
    """By seed: R0 of index cases, of growth, the household attack rate, infections a day and generation intervals."""
    times = [first_generation(people, seed, 0.005) for seed in seeds]
    interval = [t[t > 0].double().numpy() for t in times]
    epidemics = [epidemic(people, seed, 30) for seed in seeds]
    rates = [np.log(2) / doubling(x, people.size) for x in epidemics]
    return {
        "R0": [float((t > 0).sum() / (t == 0).sum()) for t in times],
        # Lotka and Euler's equation: Wallinga and Lipsitch, Proc. R. Soc. B 274 (2007), 599.
        "by growth": [float(1 / np.exp(-r * t).mean()) for r, t in zip(rates, interval, strict=True)],
        "attack": [secondary_attack_rate(people, seed) for seed in seeds],
        "infections": np.array(epidemics),
        "interval": interval,
    }


def epidemic(people: Population, seed: int, days: int) -> np.ndarray:
    """Infections a day as before the pandemic, from forty index cases."""
    imported, schools = {"initial_infected": 40 / people.size}, [("schools", 1.0, 0)]
    return daily(
        lpm.run(only(people, *DISEASE), days=days, seed=seed, set=imported, interventions=schools), "infections"
    )


def doubling(infections: np.ndarray, people: int) -> float:
    """The doubling time in days, from day 10 until 3 % of people have been infected."""
    days = np.arange(10, max(16, int((np.cumsum(infections) < 0.03 * people).sum())))
    return float(np.log(2) / np.polyfit(days, np.log(infections[days]), 1)[0])


# The course of the disease.


def course(people: Population, seeds: Sequence[int]) -> Results:
    """By seed: incubation periods in days, and who was infected, has died and should have, by age band."""
    band, age = people["age_band"].long(), people["age"].double()
    published = 10 ** (-3.27 + 0.0524 * age) / 100
    found: Results = {"incubation": [], "infected": [], "dead": [], "levin": []}
    for seed in seeds:
        onset, last = torch.full((people.size,), torch.nan), {}

        def to_come(s: Mapping[str, torch.Tensor], onset: torch.Tensor = onset) -> None:
            sick = s["stage"] == Stage.PRESYMPTOMATIC
            onset[sick] = (s["due"] - s["infected_at"])[sick]

        with after("progression", to_come), after("transmission", last.update):
            epidemic(people, seed, 100)
        ever = last["episode"] > 0
        found["incubation"].append(onset[~onset.isnan()].double().numpy())
        found["infected"].append(torch.bincount(band[ever], minlength=9).numpy())
        found["dead"].append(torch.bincount(band[last["stage"] == Stage.DEAD], minlength=9).numpy())
        found["levin"].append(torch.bincount(band[ever], published[ever], minlength=9).numpy())
    return {name: np.array(x) if name != "incubation" else x for name, x in found.items()}


# Spring 2020.


def recorded() -> Path | None:
    """The file of what was recorded in New York, if it is here."""
    path = Path(os.environ.get("LPMPPL_DATA", "data")) / FILE
    return path if path.is_file() else None


def spring(people: Population, seeds: Sequence[int], path: Path) -> Results:
    """Admissions and deaths a day from 1 March to 30 June 2020: of the model by seed, and as recorded."""
    seen = nyc_health.read(path).sel(day=slice("2020-03-01", "2020-06-30"))
    runs = [lpm.run(lpm.nyc.pandemic(people), days=122, seed=seed) for seed in seeds]
    return {
        name: (np.array([daily(run, name) for run in runs]) * RESIDENTS / people.size, seen[name].values)
        for name in ("admissions", "deaths")
    }


def week_mean(series: np.ndarray) -> np.ndarray:
    """Means of seven days; entry k is of the week in whose middle day k + 3 is."""
    return np.convolve(series, np.ones(7) / 7, "valid")


def peak(series: np.ndarray) -> tuple[float, int]:
    """The greatest mean of seven days, and the day in its middle."""
    smooth = week_mean(series)
    return float(smooth.max()), int(smooth.argmax()) + 3


# Work and money.

LOST = (-0.442, -0.385, -0.285, -0.229)
"""Recorded change of employment by quartile of wage, lowest first: Opportunity Insights, see docs/labour.md."""


def economy(people: Population, seed: int, cheques: bool = True) -> Results:
    """Change of employment on 17 April 2020, of all and by quartile, and of weekly spending from normal by quartile."""
    _, wage = people.derived("wages", lambda: labour.wages(people))
    home, groups = people["household"].long(), stimulus.income_quartiles(people)
    kinds = {"all": torch.zeros_like(home), "wage": wage.long()[home], "income": groups.index.long()[home]}
    before, april = people["employment"] == labour.EMPLOYED, {}

    def look(s: Mapping[str, torch.Tensor]) -> None:
        if float(s["t"]) == 42:  # the week from 12 April
            april["employed"] = s["employed"]

    paid = stimulus.CHEQUES if cheques else ()
    with mock.patch.object(stimulus, "CHEQUES", paid), after("labour", look):
        run = lpm.run(lpm.nyc.pandemic(people), days=63, seed=seed)
    weekly = run["prior_predictive"]["spending"].values[0, 0].reshape(9, 7, 4).sum(1)
    normal = groups.total(stimulus.normal_spending(people).double()).numpy()
    change = {
        name: (torch.bincount(kind[april["employed"]]) / torch.bincount(kind[before]) - 1).numpy()
        for name, kind in kinds.items()
    }
    return {"employment": change, "spending": weekly / normal - 1}


# Screening.

NONE, WAIT, ANTIGEN = "nothing", "PCR, two days' wait", "antigen, at once"
SCREENING: Mapping[str, tuple[float, str, float]] = {
    NONE: (0.0, "pcr", 2.0),
    WAIT: (3.0, "pcr", 2.0),
    "PCR, a day's wait": (3.0, "pcr", 1.0),
    "PCR, at once": (3.0, "pcr", 0.01),
    ANTIGEN: (3.0, "antigen", 2.0),
}
"""Days between two tests of everybody, what test, and days from a PCR test to its result where nobody queues."""


def screening(people: Population, seeds: Sequence[int], kinds: Collection[str] = tuple(SCREENING)) -> Results:
    """Infections in sixty days from 1 March 2020 by kind of screening from day 0 on, and by seed.

    Laboratories have room for all: otherwise who is screened would wait for those who seek a test.
    """

    def infections(seed: int, every: float, test: str, wait: float) -> int:
        acts = [("screening", every, 0), ("test", test, 0), ("capacity", 1.0, 0)]
        run = lpm.run(lpm.nyc.pandemic(people), days=60, seed=seed, set={"pcr_delay": wait}, interventions=acts)
        return int(daily(run, "infections").sum())

    return {kind: [infections(seed, *SCREENING[kind]) for seed in seeds] for kind in kinds}


# The second dose.

BMJ = {(0.003, 0.9): (226, 179), (0.003, 0.8): (233, 207), (0.003, 0.7): (235, 236)}
"""By doses a day and person, and the first's efficacy: deaths per 100,000 with the standard and the delayed second."""

ARMS = (*BMJ, (0.001, 0.8), (0.01, 0.8))
SCHEDULES = ("standard", "delayed", "delayed_under_65")
CHRISTMAS = "2020-12-15"
WAVE, OTHERS = 0.38, (0.34, 0.42, 0.5)
"""The environment's `transmission` in a winter's wave, and in slower and faster ones (chosen)."""

STERILISING = {"efficacy_two": 0.95, "efficacy_severe": 0.0, "breakthrough_symptoms": 1.0, "waning_days": 1e6}
"""A vaccine that does all it does against infection, and doesn't wane, as in the BMJ's model."""


def second_dose(
    people: Population, seed: int, rate: float, first: float, schedule: str, wave: float = WAVE
) -> tuple[float, float]:
    """Deaths per 100,000 in 180 days from 15 December 2020: to be expected of the infections' ages, and as drawn."""
    risk = (10 ** (-3.27 + 0.0524 * people["age"].double()) / 100).clamp(max=0.65)
    expected = [0.0]

    def count(s: Mapping[str, torch.Tensor]) -> None:
        expected[0] += float(risk[s["infected"]].sum())

    acts = [("transmission", wave, 0), ("doses_per_day", rate, 0), ("second_dose", schedule, 0)]
    values = {**STERILISING, "efficacy_one": first, "initial_infected": 0.002}
    with after("transmission", count):
        model = only(people, *DISEASE, "vaccination", start=CHRISTMAS)
        run = lpm.run(model, days=180, seed=seed, set=values, interventions=acts)
    return expected[0] / people.size * 1e5, daily(run, "deaths").sum() / people.size * 1e5


def doses(
    people: Population,
    seeds: Sequence[int],
    arms: Sequence[tuple[float, float]] = ARMS,
    schedules: Sequence[str] = SCHEDULES,
    wave: float = WAVE,
) -> dict[tuple[float, float], np.ndarray]:
    """Deaths per 100,000 by arm: of shape (schedules, seeds, 2), expected and drawn."""
    return {
        arm: np.array([[second_dose(people, seed, *arm, schedule, wave) for seed in seeds] for schedule in schedules])
        for arm in arms
    }


# What is printed.


def say_spread(people: Population, seeds: Sequence[int]) -> Results:
    found = spread(people, seeds)
    every = np.concatenate(found["interval"])
    print(f"R0 {said(found['R0'])} (2.5–3.5), by growth {said(found['by growth'])}")
    print(f"doubling time {said([doubling(x, people.size) for x in found['infections']])} days (2.5–4)")
    print(f"generation interval {said([x.mean() for x in found['interval']])} days (5–6), sd {every.std():.2f}")
    print(f"household secondary attack rate {said(100 * np.array(found['attack']), 1)} % (15–25)")
    return found


def say_course(people: Population, seeds: Sequence[int]) -> Results:
    found = course(people, seeds)
    infected, dead, levin = (found[name].sum(0) for name in ("infected", "dead", "levin"))
    every = np.concatenate(found["incubation"])
    print(f"incubation: median {np.median(every):.2f} days (5.1), 97.5 % within {np.quantile(every, 0.975):.1f} (11.5)")
    for band, label in enumerate(people.labels("age_band")):
        rate, error, due = (100 * x / infected[band] for x in (dead[band], dead[band] ** 0.5, levin[band]))
        print(f"deaths of infected aged {label:>5}: {rate:7.4f} ± {error:.4f} %, Levin et al. {due:7.4f}")
    return found


def say_spring(people: Population, seeds: Sequence[int]) -> Results:
    path = recorded()
    if path is None:
        print(f"{FILE} is not here: set LPMPPL_DATA to its folder to compare spring 2020 with what was recorded")
        return {}
    found = spring(people, seeds, path)
    for name, (model, seen) in found.items():
        (top, day), (most, when) = peak(model.mean(0)), peak(seen)
        print(f"{name}: peak {top:.0f} a day on day {day}, recorded {most:.0f} on day {when} (a factor 1.5, 10 days)")
        print(f"  to 30 June {said(model.sum(1), 0)}, recorded {seen.sum()}")
    return found


def say_economy(people: Population, seeds: Sequence[int]) -> Results:
    runs, without = ([economy(people, seed, cheques) for seed in seeds] for cheques in (True, False))
    found: Results = {k: np.array([run["employment"][k] for run in runs]) for k in ("all", "wage", "income")}
    found["spending"], found["none"] = (np.array([run["spending"] for run in x]) for x in (runs, without))
    print(f"employment on 17 April 2020: {said(100 * found['all'][:, 0], 1)} % (recorded −33.5)")
    for kind in ("wage", "income"):
        print(f"  by quartile of {kind}, lowest first: {', '.join(said(100 * x, 1) for x in found[kind].T)} %")
    print(f"  recorded, by quartile of wage: {', '.join(f'{100 * x:.1f}' for x in LOST)} %")
    spent = found["spending"]
    for k, week in ((5, "5 to 11 April"), (7, "19 to 25 April")):
        print(f"spending, {week}: {', '.join(said(100 * x, 1) for x in spent[:, k].T)} %")
    rise, effect = spent[:, 7] - spent[:, 5], (spent - found["none"])[:, 7]
    print(f"  rise: {', '.join(said(100 * x, 1) for x in rise.T)} points (recorded +14.1 lowest, +4.8 highest)")
    print(f"  of which by the cheques: {', '.join(said(100 * x, 1) for x in effect.T)} points")
    return found


def say_screening(people: Population, seeds: Sequence[int]) -> Results:
    kinds = (NONE, WAIT, ANTIGEN) if QUICK else tuple(SCREENING)
    found = {kind: 100 * np.array(x) / people.size for kind, x in screening(people, seeds, kinds).items()}
    for kind, x in found.items():
        print(
            f"screening by {kind}: {said(x)} % infected in 60 days, {said(100 * x / found[NONE], 1)} % of those without"
        )
    print(
        f"antigen instead of PCR with two days' wait: {said(found[WAIT] - found[ANTIGEN])} % of people fewer infected"
    )
    return found


def say_doses(people: Population, seeds: Sequence[int]) -> Results:
    def reproduction(wave: float) -> list[float]:
        policy = {"schools": -1.0, "transmission": wave}
        times = [first_generation(people, seed, 0.005, start=CHRISTMAS, **policy) for seed in seeds]
        return [float((t > 0).sum() / (t == 0).sum()) for t in times]

    def say(name: str, x: np.ndarray, standard: np.ndarray) -> None:
        by, drawn = (f"{said(x[:, k], 1)} ({said((x - standard)[:, k], 1)})" for k in (0, 1))
        print(f"  {name:16} {by}, drawn {drawn}")

    arms, schedules, others = (((0.003, 0.8),), SCHEDULES[:2], ()) if QUICK else (ARMS, SCHEDULES, OTHERS)
    found = doses(people, seeds, arms, schedules)
    print("deaths per 100,000 in 180 days, as the ages of the infected say and as drawn, and the change from standard")
    print(f"in a wave with a reproduction number of {said(reproduction(WAVE))} at its start")
    for (rate, first), x in found.items():
        print(f"{100 * rate:g} % a day, first dose {first:.0%} (BMJ: {BMJ.get((rate, first), 'not in the summary')})")
        for name, y in zip(schedules, x, strict=True):
            say(name, y, x[0])
    for wave in others:
        print(f"0.3 % a day, first dose 80 %, in a wave with {said(reproduction(wave))}")
        ((standard, delayed),) = doses(people, seeds, ((0.003, 0.8),), SCHEDULES[:2], wave).values()
        say("standard", standard, standard)
        say("delayed", delayed, standard)
    return found


REPORTS = {
    "spread": say_spread,
    "course": say_course,
    "spring": say_spring,
    "economy": say_economy,
    "screening": say_screening,
    "doses": say_doses,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("claims", nargs="*", metavar="claim", help=f"some of {', '.join(REPORTS)}; all by default")
    parser.add_argument("--figures", type=Path, help="a folder to draw into, such as docs/figures")
    parser.add_argument("--seeds", type=int, default=1 if QUICK else 4, help="runs of each kind")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.claims) - set(REPORTS)):
        parser.error(f"there is no claim {', '.join(unknown)}; give some of {', '.join(REPORTS)}")
    people = lpm.nyc.population(AGENTS)
    for claim in given.claims or REPORTS:
        found = REPORTS[claim](people, range(given.seeds))
        if given.figures and found:
            import evidence_figures

            evidence_figures.draw(claim, found, people.size, given.figures)


if __name__ == "__main__":
    main()
