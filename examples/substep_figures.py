"""What do the pandemic's substeps do? One figure each for progression, transmission, testing, vaccination, observation.

`python examples/substep_figures.py docs/figures` draws them as SVG into that folder; without one nothing is kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import lpmppl as lpm
from lpmppl.effects.handlers import DiscreteTime, ExogenousNoise, Utility
from lpmppl.effects.ops import simulate
from lpmppl.models import immunity, observation, testing, within_host
from lpmppl.models.pandemic import PARTS, Pandemic
from lpmppl.models.progression import Stage, fatality_by_age
from lpmppl.typing import State

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "200000"))
START, DAYS = date(2020, 3, 1), 122
DISEASE = ("immunity", "progression", "transmission")
LAYERS = {
    "home": ("household", "group quarters"),
    "work": ("workplace",),
    "school": ("school",),
    "community": ("community",),
}


def main() -> None:
    people = lpm.nyc.population(AGENTS)
    with tempfile.TemporaryDirectory() as nowhere:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else nowhere)
        course(people, folder / "progression.svg")
        spring, layers = epidemic(people)
        contacts(layers, spring, folder / "transmission.svg")
        tests(spring, folder / "testing.svg")
        doses(people, folder / "vaccination.svg")
        reports(spring, folder / "observation.svg")
        largest = max(folder.glob("*.svg"), key=lambda path: path.stat().st_size)
        print(f"largest file {largest.name}, {largest.stat().st_size / 1000:.0f} kB")


def only(people: lpm.nyc.Population, *kept: str, start: str = "2020-03-01") -> Pandemic:
    """The pandemic with these substeps and no other."""
    return lpm.nyc.pandemic(people, start=start, without=[part.name for part in PARTS if part.name not in kept])


def watch(model: Pandemic, days: int, see: Callable[[State], object], given: dict[str, float], **theta: float) -> None:
    """Simulate with a look at the state of every evening."""
    values = {**model.defaults(), **{name: torch.tensor(value) for name, value in theta.items()}}
    day = model.day(values)

    def watched(s: State) -> State:
        after = day(s)
        see(after)
        return after

    with torch.no_grad(), DiscreteTime(), ExogenousNoise(0), Utility(model.behaviour):
        begin = model.initial(values) | {name: torch.tensor([value]) for name, value in given.items()}
        simulate(watched, begin, torch.tensor(0.0), torch.tensor(float(days)))


def course(people: lpm.nyc.Population, path: Path) -> None:
    """Progression: everybody is infected on day 0, and nobody after."""
    model, days = only(people, *DISEASE), 60
    band = people["age_band"].long()
    stages, ever = [], {key: torch.zeros(people.size, dtype=torch.bool) for key in ("onset", "admitted", "died")}

    def see(s: State) -> None:
        stages.append(torch.bincount(s["stage"].long(), minlength=len(Stage)) / people.size)
        for key in ever:
            ever[key] |= s[key]

    watch(model, days, see, {"transmission": 0.0}, initial_infected=1.0)
    infected = torch.bincount(band, minlength=9)
    risk = {key: torch.bincount(band[x], minlength=9) / infected for key, x in ever.items()}
    mean = {key: float(x.float().mean()) for key, x in ever.items()}
    print(f"of all infected {mean['onset']:.1%} have symptoms, {mean['admitted']:.2%} are admitted", end=", ")
    print(f"{mean['died']:.2%} die; at 80 and over {risk['died'][-1]:.1%}")

    figure, (left, right) = two()
    for stage in list(Stage)[1:]:
        share = np.array([float(x[stage]) for x in stages])
        left.plot(np.arange(1, days + 1), np.where(share > 0, share, np.nan), label=stage.name.lower())
    left.set(yscale="log", ylim=(1e-5, 1.5), xlabel="days since infection", ylabel="share of the infected")
    left.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    middle = [float(people["age"][band == k].float().mean()) for k in range(9)]
    for key, name in (("onset", "with symptoms"), ("admitted", "admitted"), ("died", "died")):
        right.plot(middle, [float(x) if x > 0 else np.nan for x in risk[key]], "o", ms=4, label=name)
    years = torch.arange(0.0, 96.0)
    right.plot(years, fatality_by_age(years), color="C2", lw=1, label="Levin et al.")
    right.set(yscale="log", xlabel="age", ylabel="per infection", ylim=(1e-5, 1.5))
    right.legend(frameon=False, fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def epidemic(people: lpm.nyc.Population) -> tuple[xr.Dataset, dict[str, np.ndarray]]:
    """The spring of 2020, with the infections of each day from each layer of contact."""
    model = lpm.nyc.pandemic(people, start=START.isoformat())
    tree = lpm.run(model, days=DAYS, seed=0, sources={"age": "age_band"})
    run, sent = tree["prior_predictive"].to_dataset(), tree["sources"]["infection"]
    strata = [dim for dim in run.dims if dim not in ("day",)]
    by_layer = sent.sum([dim for dim in sent.dims if dim not in ("day", "layer")])
    layers = {name: by_layer.sel(layer=[*parts]).sum("layer").values for name, parts in LAYERS.items()}
    return run.sum(strata) * (1e5 / people.size), layers


def contacts(layers: dict[str, np.ndarray], spring: xr.Dataset, path: Path) -> None:
    """Transmission: how infectious people are, and where they infect others."""
    for when in (date(2020, 3, 2), date(2020, 4, 13)):
        week = slice((when - START).days, (when - START).days + 7)
        print(f"infections in the week from {when:%-d %B}:", end=" ")
        whole = sum(x[week].sum() for x in layers.values())
        print(", ".join(f"{name} {x[week].sum() / whole:.0%}" for name, x in layers.items()))
    scale = 1e5 / AGENTS

    figure, (left, right) = two()
    days, load = loads()
    shed = immunity.infectiousness(load[:, 0]).mean(0)
    print(f"infectiousness: sum {float(shed.mean(0).sum()) * 0.1:.2f}, mean day", end=" ")
    print(f"{float((shed.mean(0) * days).sum() / shed.mean(0).sum()):.1f}")
    for k, name in enumerate(("fastest fifth", "", "median", "", "slowest fifth")):
        left.plot(days, shed[k], color="C0", lw=0.7, alpha=0.3 + 0.15 * k, label=name)
    left.plot(days, shed.mean(0), color="black", label="mean")
    left.set(xlim=(0, 15), xlabel="days since infection", ylabel="infectiousness per day")
    left.legend([left.lines[0], left.lines[-1]], ["fifths by incubation period", "mean"], frameon=False, fontsize=8)
    right.stackplot(calendar(), *(x * scale for x in layers.values()), labels=list(layers))
    right.set_ylabel("infections a day per 100,000")
    right.legend(frameon=False, fontsize=8)
    months(right)
    figure.savefig(path, metadata={"Date": None})


def tests(spring: xr.Dataset, path: Path) -> None:
    """Testing: what a test finds on which day, and what the capacity allowed in the spring of 2020."""
    days, load = loads()
    figure, (left, right) = two()
    for kind, level in zip(testing.KINDS, testing.DETECTION, strict=True):
        found = (load[:, 0] >= level).double().mean((0, 1))
        left.plot(days, found, label=f"{kind}, 10{'³⁵'[level > 4]} copies/ml")
        print(f"{kind} finds an infection on {float(found.sum()) * 0.1:.1f} days")
    left.set(xlabel="days since infection", ylabel="share detected")
    left.legend(frameon=False, fontsize=8, loc="center right")
    april = slice(31, 61)
    total = {name: float(spring[name][april].mean()) for name in ("tests_sought", "tests", "cases", "infections")}
    print("April 2020, a day per 100,000:", ", ".join(f"{name} {value:.0f}" for name, value in total.items()))
    for name, words in (("tests_sought", "sought"), ("tests", "done"), ("cases", "positive results")):
        right.plot(calendar(), spring[name], label=words)
    right.plot(calendar(), [1e5 * testing.capacity(day) for day in calendar()], "k--", lw=1, label="capacity")
    right.set(ylabel="a day per 100,000", ylim=(0, 520))
    right.legend(frameon=False, fontsize=8, ncols=2, loc="upper center")
    months(right)
    figure.savefig(path, metadata={"Date": None})


def doses(people: lpm.nyc.Population, path: Path) -> None:
    """Vaccination: who has how many doses under either schedule, and how well the city is protected."""
    figure, (left, right) = two()
    for k, schedule in enumerate(("standard", "delayed")):
        seen: list[tuple[float, float, float]] = []

        def see(s: State, seen: list[tuple[float, float, float]] = seen) -> None:
            n, protection = s["doses"], s["protection"]
            seen.append((float((n > 0).float().mean()), float((n > 1).float().mean()), 1 - float(protection.mean())))

        model = only(people, *DISEASE, "behaviour", "vaccination", start="2020-12-14")
        given = {"transmission": 0.0, "second_dose": float(k), "schools": 0.0}
        watch(model, 180, see, given, initial_infected=0.0)
        one, two_, protected = np.array(seen).T
        print(f"{schedule:>8}: after 84 days one dose or more {one[83]:.1%}, two {two_[83]:.1%}", end=", ")
        print(f"mean protection {protected[83]:.1%}; after 180 days {one[-1]:.1%}, {two_[-1]:.1%}, {protected[-1]:.1%}")
        day = np.arange(1, 181)
        left.plot(day, one, color=f"C{k}", label=f"{schedule}, one or two")
        left.plot(day, two_, "--", color=f"C{k}", label=f"{schedule}, two")
        right.plot(day, protected, color=f"C{k}", label=schedule)
    left.set(xlabel="days since 14 December 2020", ylabel="share with doses", ylim=(0, 0.45))
    right.set(xlabel="days since 14 December 2020", ylabel="mean protection against infection")
    left.legend(frameon=False, fontsize=8)
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def reports(spring: xr.Dataset, path: Path) -> None:
    """Observation: how late a report is, and what is reported beside what happened."""
    figure, (left, right) = two()
    mean = torch.tensor(observation.PART.parameters["report_delay"].default)
    share = observation.delays(mean)
    print(f"reported on the day itself {float(share[0]):.0%}, within three days {float(share[:4].sum()):.0%}")
    left.bar(np.arange(len(share)), share)
    left.set(xlabel="days from event to report", ylabel="share of events", xlim=(-0.7, 9.7))
    happened = spring["admissions"]
    reported = spring["reported_admissions"] * (AGENTS / lpm.nyc.RESIDENTS)
    print(f"admissions to 30 June per 100,000: {float(happened.sum()):.0f}, reported {float(reported.sum()):.0f}")
    right.plot(calendar(), happened, label="admissions")
    right.plot(calendar(), reported, "k.", ms=3, label="as reported")
    right.set_ylabel("a day per 100,000")
    right.legend(frameon=False, fontsize=8)
    months(right)
    figure.savefig(path, metadata={"Date": None})


def loads() -> tuple[torch.Tensor, torch.Tensor]:
    """Viral loads every 0.1 day, of shape (age, prior, class, time), linear between days as the model reads them."""
    theta = {name: torch.tensor(parameter.default) for name, parameter in immunity.PART.parameters.items()}
    table = immunity.loads(theta, torch.zeros(1)).reshape(9, 4, within_host.VARIATIONS, within_host.DAYS)
    days = torch.arange(0.0, within_host.DAYS - 1, 0.1)
    first = days.floor().long()
    return days, table[..., first] + (days - first) * (table[..., first + 1] - table[..., first])


def calendar() -> list[date]:
    return [START + timedelta(days=k) for k in range(DAYS)]


def two():
    """A figure with two panels."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "lpmppl", "svg.fonttype": "none", "font.size": 9})
    return pyplot.subplots(1, 2, figsize=(8, 2.9), layout="constrained")


def months(axes) -> None:
    from matplotlib import dates

    axes.xaxis.set_major_locator(dates.MonthLocator())
    axes.xaxis.set_major_formatter(dates.DateFormatter("%b"))


if __name__ == "__main__":
    main()
