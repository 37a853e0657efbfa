"""The figures of docs/evidence.md: `python examples/evidence.py --figures docs/figures` draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence import ANTIGEN, BMJ, LOST, Results, mean, week_mean

Interval = tuple[float, float, float]


def draw(claim: str, found: Results, people: int, folder: Path) -> None:
    """Draw what was found for a claim into `evidence_<claim>.svg` of a folder."""
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lpmppl", "font.size": 8})
    figure = plt.figure(figsize=(8, 2.8), layout="constrained")
    DRAWN[claim](figure, found, people)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"evidence_{claim}.svg", metadata={"Date": None})
    plt.close(figure)


def spread(figure: Any, found: Results, people: int) -> None:
    first, second, third, fourth = figure.subplots(1, 4, width_ratios=(1.1, 1.1, 1.3, 1.5))
    model = {"index cases": mean(found["R0"]), "by growth": mean(found["by growth"])}
    beside(first, "R0", model, {"Billah et al.": (2.87, 2.39, 3.44)}, (2.5, 3.5))
    published = {
        "Madewell et al.": (16.6, 14.0, 19.3),
        "Koh et al.": (18.1, 15.7, 20.6),
        "Thompson et al.": (21.1, 17.4, 24.8),
    }
    beside(
        second, "infected of the household, %", {"model": mean(100 * np.array(found["attack"]))}, published, (15, 25)
    )
    for x in found["infections"]:
        third.semilogy(np.arange(2, 30), np.maximum(x[2:], 0.5) / people * 1e5, color="C0", lw=0.8)
    days = np.arange(8, 22)
    for time in (2.5, 4.0):
        third.semilogy(days, 25 * 2 ** ((days - 8) / time), color="0.5", ls="--", lw=0.8)
        third.annotate(f"{time:g} days", (21.5, 25 * 2 ** (13 / time)), fontsize=7, color="0.4", va="center")
    third.set(xlabel="day", ylabel="infections a day per 100,000")
    every = np.concatenate(found["interval"])
    fourth.hist(every, bins=np.arange(0, 15.5, 0.5), density=True, color="C0", alpha=0.6, label="model")
    fourth.axvline(every.mean(), color="C0", label=f"its mean, {every.mean():.1f} days")
    fourth.axvspan(5, 6, color="0.9", zorder=0, label="claimed for the mean")
    fourth.set_xlabel("days from infection to infection")
    fourth.legend(frameon=False, fontsize=7)


def beside(
    axes: Any,
    what: str,
    model: Mapping[str, tuple[float, float]],
    published: Mapping[str, Interval],
    claim: Sequence[float],
) -> None:
    """A model's means with two standard errors, published means with 95 % intervals, and the band claimed."""
    axes.axhspan(*claim, color="0.9", zorder=0)
    for k, (value, error) in enumerate(model.values()):
        axes.errorbar(k, value, 2 * error, fmt="C0o", ms=4, capsize=3)
    for k, (middle, low, high) in enumerate(published.values(), len(model)):
        axes.errorbar(k, middle, [[middle - low], [high - middle]], fmt="ko", ms=3, lw=1, mfc="w")
    names = [*model, *published]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_ylabel(what)
    axes.set_ylim(0)


def course(figure: Any, found: Results, _: int) -> None:
    middle, right = figure.subplots(1, 2)
    every, days = np.concatenate(found["incubation"]), np.arange(0.25, 16, 0.25)
    middle.hist(every, bins=np.arange(0, 16.5, 0.5), density=True, color="C0", alpha=0.6, label="model")
    curve = np.exp(-((np.log(days / 5.1) / 0.418) ** 2) / 2) / (days * 0.418 * (2 * np.pi) ** 0.5)
    middle.plot(days, curve, "k", lw=1, label="Lauer et al.")
    middle.set_xlabel("days from infection to symptoms")
    middle.legend(frameon=False)
    infected, dead, levin = (found[name].sum(0) for name in ("infected", "dead", "levin"))
    age, some = np.arange(5, 95), dead > 0
    line = 10 ** (-3.27 + 0.0524 * age)
    right.fill_between(age, 0.7 * line, 1.3 * line, color="0.85", label="Levin et al. ± 30 %")
    at = (np.log10(100 * levin[some] / infected[some]) + 3.27) / 0.0524
    rate = 100 * dead[some] / infected[some]
    right.errorbar(at, rate, 2 * rate / dead[some] ** 0.5, fmt="C0o", ms=3, lw=1, label="model")
    right.set(xlabel="age", ylabel="deaths of the infected, %", yscale="log", ylim=(5e-4, 60))
    right.legend(frameon=False, loc="upper left")


def spring(figure: Any, found: Results, _: int) -> None:
    for axes, (name, (model, seen)) in zip(figure.subplots(1, 2), found.items(), strict=True):
        days = np.arange(len(seen) - 6) + 3
        for x in model:
            axes.plot(days, week_mean(x), color="C0", lw=0.5, alpha=0.5)
        axes.plot(days, week_mean(model.mean(0)), "C0", label="model")
        axes.plot(days, week_mean(seen), "k.", ms=2, label="recorded")
        axes.set_xticks([0, 31, 61, 92], ["1 Mar", "1 Apr", "1 May", "1 Jun"])
        axes.set_ylabel(f"{name} a day, mean of seven days")
        axes.legend(frameon=False)


def economy(figure: Any, found: Results, _: int) -> None:
    left, right = figure.subplots(1, 2)
    place = np.arange(4)
    left.bar(place - 0.2, 100 * found["wage"].mean(0), 0.38, color="C0", label="model")
    left.bar(place + 0.2, 100 * np.array(LOST), 0.38, color="0.4", label="recorded")
    left.set_xticks(place, ("lowest", "second", "third", "highest"))
    left.set(xlabel="quartile of wage", ylabel="employment, 17 April, change in %")
    left.legend(frameon=False)
    weeks = np.arange(found["spending"].shape[1])
    for k, colour, name in ((0, "C0", "bottom"), (3, "C3", "top")):
        right.plot(weeks, 100 * found["spending"].mean(0)[:, k], color=colour, label=f"{name} quartile of income")
        right.plot(weeks, 100 * found["none"].mean(0)[:, k], color=colour, ls=":")
    right.axvline(6.4, color="0.7", lw=1)
    right.set_xticks(weeks[1::2], ("8 Mar", "22 Mar", "5 Apr", "19 Apr"))
    right.set(xlabel="week from", ylabel="spending, change in %")
    right.legend(frameon=False)


def screening(figure: Any, found: Results, _: int) -> None:
    axes = figure.subplots()
    for k, (kind, x) in enumerate(found.items()):
        axes.barh(k, mean(x)[0], xerr=2 * mean(x)[1], color="C1" if kind == ANTIGEN else "C0")
    axes.set_yticks(range(len(found)), list(found))
    axes.invert_yaxis()
    axes.set_xlabel("infected in 60 days, % of people")


def doses(figure: Any, found: Results, _: int) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    model = {arm: x[:2, :, 0].mean(1) for arm, x in found.items()}
    for axes, values, title in ((left, BMJ, "Romero-Brufau et al. 2021"), (right, model, "model")):
        for k, (standard, delayed) in enumerate(values.values()):
            axes.bar((k - 0.2, k + 0.2), (standard, delayed), 0.38, color=("0.6", "C0"))
            axes.annotate(f"{100 * (delayed / standard - 1):+.0f} %", (k, max(standard, delayed) + 4), ha="center")
        axes.set_xticks(range(len(values)), [f"{first:.0%}\n{100 * rate:g} %/day" for rate, first in values])
        axes.set_title(title, fontsize=8)
        axes.margins(y=0.12)
    left.set_ylabel("deaths per 100,000 in 180 days")
    figure.legend(right.patches[:2], ("standard", "delayed"), frameon=False, loc="outside lower center", ncols=2)


DRAWN = {
    "spread": spread,
    "course": course,
    "spring": spring,
    "economy": economy,
    "screening": screening,
    "doses": doses,
}
