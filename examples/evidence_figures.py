"""The figures of docs/evidence.md: `python examples/evidence.py --figures docs/figures` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence import BMJ, LOST, NONE, SCHEDULES, Results, mean, week_mean

Interval = tuple[float, float, float]
HEIGHT = {"spread": 4.6, "doses": 3.2}
"""Of figures that are not 2.8 inches high."""

BOTTOM = (0.0, 0.8, -10.4, -27.9, -25.0, -25.6, -16.8, -15.4, -11.7)
TOP = (-0.4, -1.4, -17.5, -35.5, -34.3, -34.0, -34.4, -29.3, -26.6)
"""Card spending in the United States in the weeks from 1 March to 2 May 2020, by quartile of ZIP codes' income, change
in percent: Opportunity Insights' Economic Tracker, see docs/stimulus.md."""


def draw(claim: str, found: Results, people: int, folder: Path) -> None:
    """Draw what was found for a claim into `evidence_<claim>.svg` of a folder."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lpmppl", "font.size": 9})
    figure = plt.figure(figsize=(8, HEIGHT.get(claim, 2.8)), layout="constrained")
    DRAWN[claim](figure, found, people)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"evidence_{claim}.svg", metadata={"Date": None})
    plt.close(figure)


def spread(figure: Any, found: Results, people: int) -> None:
    (first, second), (third, fourth) = figure.subplots(2, 2, height_ratios=(1, 1.5))
    model = {"model, index cases": mean(found["R0"]), "model, by growth": mean(found["by growth"])}
    beside(first, "reproduction number", model, {"Billah et al. 2020": (2.87, 2.39, 3.44)}, (2.5, 3.5))
    published = {
        "Madewell et al. 2020": (16.6, 14.0, 19.3),
        "Koh et al. 2020": (18.1, 15.7, 20.6),
        "Thompson et al. 2021": (21.1, 17.4, 24.8),
    }
    attack = {"model": mean(100 * np.array(found["attack"]))}
    beside(second, "infected of the household, %", attack, published, (15, 25))
    figure.legend(*first.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=3)

    rate = np.array(found["infections"]) / people * 1e5
    for x in rate:
        third.semilogy(np.arange(5, 30), np.maximum(x[5:], 0.5), color="C0", lw=0.8, label="model, a run")
    days = np.arange(10, 26)
    slow, fast = (rate[:, 9:12].mean() * 2 ** ((days - 10) / time) for time in (4.0, 2.5))
    third.fill_between(days, slow, fast, color="0.85", zorder=0, label="doubling in 2.5 to 4 days")
    third.set(xlabel="day", ylabel="infections a day per 100,000")
    third.legend(*last_of_each(third), frameon=False, loc="lower right")

    every = np.concatenate(found["interval"])
    fourth.hist(every, bins=np.arange(1, 12.5, 0.5), density=True, color="C0", alpha=0.6)
    fourth.axvline(every.mean(), color="C0")
    fourth.axvspan(5, 6, color="0.85", zorder=0)
    fourth.annotate(f"mean {every.mean():.1f} days,\nclaimed 5 to 6", (6.2, 0.25), va="center")
    fourth.set(xlabel="days from infection to infection", ylabel="share a day", xlim=(0, 12), ylim=(0, 0.28))


def beside(
    axes: Any,
    what: str,
    model: Mapping[str, tuple[float, float]],
    published: Mapping[str, Interval],
    claim: Sequence[float],
) -> None:
    """A model's means with two standard errors, published means with 95 % intervals, and the band claimed."""
    axes.axvspan(*claim, color="0.85", zorder=0, label="claimed")
    for k, (value, error) in enumerate(model.values()):
        axes.errorbar(value, k, xerr=2 * error, fmt="C0o", ms=4, capsize=3, label="" if k else "model, ± 2 s.e.")
    for k, (middle, low, high) in enumerate(published.values()):
        label, span = "" if k else "published, 95 % interval", [[middle - low], [high - middle]]
        axes.errorbar(middle, len(model) + k, xerr=span, fmt="ko", ms=4, lw=1, mfc="w", label=label)
    names = [*model, *published]
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=what, xlim=(0.85 * claim[0], 1.15 * claim[1]), ylim=(len(names) - 0.5, -0.5))


def last_of_each(axes: Any) -> tuple[list[Any], list[str]]:
    """What a legend needs, without repeating a label."""
    labels = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    return list(labels.values()), list(labels)


def course(figure: Any, found: Results, _: int) -> None:
    left, right = figure.subplots(1, 2)
    every, days = np.concatenate(found["incubation"]), np.arange(0.25, 16, 0.25)
    left.hist(every, bins=np.arange(0, 16.5, 0.5), density=True, color="C0", alpha=0.6, label="model")
    curve = np.exp(-((np.log(days / 5.1) / 0.418) ** 2) / 2) / (days * 0.418 * (2 * np.pi) ** 0.5)
    left.plot(days, curve, "k", lw=1, label="Lauer et al. 2020")
    left.set(xlabel="days from infection to symptoms", ylabel="share a day", xticks=range(0, 17, 2))
    left.legend(frameon=False)
    infected, dead, levin = (found[name].sum(0) for name in ("infected", "dead", "levin"))
    age, some = np.arange(2, 96), dead > 0
    line = 10 ** (-3.27 + 0.0524 * age)
    right.plot(age, line, "k", lw=1, label="Levin et al. 2020")
    right.fill_between(age, 0.7 * line, 1.3 * line, color="0.85", label="± 30 %")
    at = (np.log10(100 * levin[some] / infected[some]) + 3.27) / 0.0524
    rate = 100 * dead[some] / infected[some]
    right.errorbar(at, rate, 2 * rate / dead[some] ** 0.5, fmt="C0o", ms=4, lw=1, label="model, ± 2 s.e.")
    right.set(xlabel="age", ylabel="deaths of the infected, %", yscale="log", ylim=(4e-4, 60))
    right.legend(frameon=False, loc="upper left")


def spring(figure: Any, found: Results, _: int) -> None:
    for axes, (name, (model, seen)) in zip(figure.subplots(1, 2), found.items(), strict=True):
        days = np.arange(len(seen) - 6) + 3
        for x in model:
            axes.plot(days, week_mean(x), color="C0", lw=0.5, alpha=0.6, label="a run")
        axes.plot(days, week_mean(model.mean(0)), "C0", label="model, mean of runs")
        axes.plot(days, week_mean(seen), "k.", ms=2.5, label="recorded")
        axes.set_xticks([0, 31, 61, 92, 121], ["1 Mar", "1 Apr", "1 May", "1 Jun", "30 Jun"])
        axes.set_ylabel(f"{name} a day")
        axes.set_ylim(0)
        axes.legend(*last_of_each(axes), frameon=False)


def economy(figure: Any, found: Results, _: int) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    place = np.arange(4)
    bars = (
        ("wage, model", found["wage"].mean(0), "C0"),
        ("wage, recorded", np.array(LOST), "0.4"),
        ("household income, model", found["income"].mean(0), "C2"),
    )
    for k, (name, lost, colour) in enumerate(bars):
        left.bar(place + 0.27 * (k - 1), 100 * lost, 0.26, color=colour, label=f"by {name}")
    left.set_xticks(place, ("lowest", "second", "third", "highest"))
    left.set(xlabel="quartile", ylabel="employment, 17 April, change in %", ylim=(-72, 0))
    left.legend(frameon=False, loc="lower right", fontsize=8)
    days = 7 * np.arange(found["spending"].shape[1]) + 3
    for k, colour, name, seen in ((0, "C0", "lowest", BOTTOM), (3, "C3", "highest", TOP)):
        right.plot(days, 100 * found["spending"].mean(0)[:, k], color=colour, label=f"{name} quartile of income")
        right.plot(days, 100 * found["none"].mean(0)[:, k], color=colour, ls=":")
        right.plot(days, seen, f"{colour}.")
    right.plot([], [], "k:", label="without the cheques")
    right.plot([], [], "k.", label="recorded, United States")
    right.axvline(45, color="0.7", lw=1, zorder=0)
    right.annotate("cheques", (46, 1), fontsize=8, color="0.4", va="bottom")
    right.set_xticks([0, 14, 31, 45, 61], ["1 Mar", "15 Mar", "1 Apr", "15 Apr", "1 May"])
    right.set(ylabel="spending, change in %", ylim=(-62, 7))
    right.legend(frameon=False, loc="lower left", fontsize=8)


def screening(figure: Any, found: Results, _: int) -> None:
    axes = figure.subplots()
    for k, (kind, x) in enumerate(found.items()):
        value, error = mean(x)
        axes.barh(k, value, xerr=2 * error, color="0.6" if kind == NONE else "C0", capsize=2, error_kw={"lw": 1})
        share = f"{mean(100 * x / found[NONE])[0]:.1f} % of those without"
        if kind != NONE:
            axes.annotate(share, (value + 2 * error, k), (5, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set_xlabel("infected in 60 days, % of people")


def doses(figure: Any, found: Results, _: int) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1, 2.2), sharey=True)
    model = {arm: x[..., 0].mean(1) for arm, x in found.items()}
    for axes, values, title in ((left, BMJ, "Romero-Brufau et al. 2021"), (right, model, "model")):
        for k, deaths in enumerate(values.values()):
            for j, (height, colour) in enumerate(zip(deaths, ("0.6", "C0", "C1"), strict=False)):
                at = k + 0.27 * (j - (len(deaths) - 1) / 2)
                axes.bar(at, height, 0.26, color=colour)
                if j:
                    change = f"{round(100 * (height / deaths[0] - 1)) or 0:+d}".replace("-", "−").replace("+0", "0")
                    axes.annotate(change, (at, height), (0, 2), textcoords="offset points", ha="center", fontsize=8)
        axes.set_xticks(range(len(values)), [f"{100 * first:g} %\n{100 * rate:g} %" for rate, first in values])
        axes.set_title(title, fontsize=9)
        axes.margins(y=0.1)
    left.set(ylabel="deaths per 100,000 in 180 days", xlabel="efficacy of the first dose, doses a day")
    right.set_xlabel("above the bars: change from the standard schedule in %")
    names = [name.replace("_", " ") for name in SCHEDULES[: len(next(iter(model.values())))]]
    figure.legend(right.patches[: len(names)], names, frameon=False, loc="outside lower center", ncols=3)


DRAWN = {
    "spread": spread,
    "course": course,
    "spring": spring,
    "economy": economy,
    "screening": screening,
    "doses": doses,
}
