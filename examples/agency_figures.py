"""Who must be asked? Few individuals, everybody alike, or archetypes of many people, against a known truth.

`python examples/agency_figures.py docs/figures` draws the figures of docs/adaptation.md as SVG into that folder, and
prints its tables; without a folder nothing is kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import lpmppl as lpm
from lpmppl._compat import Message, Messenger
from lpmppl.effects.handlers import Utility
from lpmppl.inference.error_budget import error_budget
from lpmppl.models.behaviour import UTILITY, archetypes
from lpmppl.models.pandemic import Pandemic
from lpmppl.models.population import Population

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "200000"))
QUICK = AGENTS < 100_000
DAYS, TRUTHS, RUNS, SMALL_RUNS, SAMPLES = (40, 2, 1, 2, 10) if QUICK else (100, 10, 4, 12, 10)
SMALL = [1_000] if QUICK else [1_000, 10_000]
INFECTED = 0.01
"""The share infected on day 0: an outbreak to which masks and isolation matter."""

SHARPER = 3.0
"""By how much coefficients of what people are, not of their health, are multiplied, so that people differ clearly."""

COARSER = {
    "nothing": (),
    "age": ("age",),
    "and income": ("age", "income"),
    "and job and savings": ("age", "income", "employment", "savings"),
    "all attributes": ("age", "income", "occupation", "employment", "savings", "health"),
}
"""Attributes by which archetypes are told apart, from few to all."""


def sharper() -> dict[str, Any]:
    """The truth: the pandemic's behaviour with clearer differences between people."""
    of_people = ("age", "income", "occupation", "savings")
    return {
        decision: {
            option: {f: v * (SHARPER if f.split("=")[0] in of_people else 1.0) for f, v in features.items()}
            for option, features in options.items()
        }
        for decision, options in UTILITY.items()
    }


class Asked(Messenger):
    """Replace the truth's probabilities by the shares of M answers to each coarser archetype's question.

    A question is a decision in a week in a place, as an archetype asks it; its answers stay the same all week.

    Args:
        coarse: the coarser archetype of each archetype, int64 of shape (K,).
        samples: M, or None for the mean probability itself of everybody in all places.
        seed: of the answers.
    """

    def __init__(self, coarse: Tensor, samples: int | None, seed: int) -> None:
        super().__init__()
        self.coarse, self.samples, self.seed = coarse, samples, seed
        self.questions: set[tuple[object, ...]] = set()
        self.kept: dict[str, list[tuple[Tensor, ...]]] = {}

    def _pyro_decide(self, msg: Message) -> None:
        name, _, _, context = msg["args"]
        due = context["due"]().double()
        chance = msg["value"][..., 0].double().expand(due.shape)
        many = int(self.coarse.max()) + 1
        total, does = (torch.zeros(*due.shape[:-1], many).double() for _ in range(2))
        total.index_add_(-1, self.coarse, due)
        does.index_add_(-1, self.coarse, due * chance)
        share = does / total.clamp(min=1.0)
        if self.samples is None:
            share[...] = does.sum() / total.sum().clamp(min=1.0)
        else:
            week = int(context.get("weeks", -1))
            key = (self.seed, zlib.crc32(name.encode()), week + 1)
            answer = np.random.default_rng(key).random((*share.shape, self.samples))
            share = (torch.from_numpy(answer) < share.unsqueeze(-1)).double().mean(-1)
            self.questions |= {(name, week, *cell) for cell in total.nonzero().tolist()}
        given = share[..., self.coarse]
        self.kept.setdefault(name, []).append((chance, given, due))
        msg["value"] = torch.stack((given, 1.0 - given), -1).to(msg["value"].dtype)

    def budget(self, decision: str) -> tuple[float, float, float]:
        """The mean squared error of the probabilities given, and what is predicted, within and by sampling."""
        p, q, w = (torch.stack(x) for x in zip(*self.kept[decision], strict=True))
        cells = torch.arange(p[..., 0].numel()).reshape(*p.shape[:-1], 1) * (int(self.coarse.max()) + 1) + self.coarse
        some = w > 0
        _, code = cells[some].unique(return_inverse=True)
        found = error_budget(p[some], code, self.samples, w[some])
        measured = float(((q - p)[some] ** 2 * w[some]).sum() / w[some].sum())
        return measured, float(found.within), float(found.sampling)


class Seen(Messenger):
    """Count who wears a mask, week by week, and who isolates of those who decide, by age and by income."""

    def __init__(self, people: Population) -> None:
        super().__init__()
        kinds = archetypes(people)
        nobody = torch.zeros(people.size, dtype=torch.uint8)
        code = kinds.table[kinds.code(employment=nobody, savings=nobody, health=nobody).long(), :2]
        self.groups = (code[:, 0], code[:, 1] + 4)
        self.did = {"mask": torch.zeros(8), "isolate": torch.zeros(8)}
        self.could = {"mask": torch.zeros(8), "isolate": torch.zeros(8)}
        self.decisions = people.size

    def _pyro_post_substep(self, msg: Message) -> None:
        state = msg["value"]
        if msg["args"][0] == "masking":
            self._count("mask", torch.ones_like(state["masked"]), state["masked"])
        elif msg["args"][0] == "behaviour":
            ill = state["onset"].reshape(-1)
            self.decisions += int(ill.sum())
            self._count("isolate", ill | state["learnt"].reshape(-1), state["isolating"])

    def _count(self, what: str, who: Tensor, do: Tensor) -> None:
        who, do = who.reshape(-1), do.reshape(-1)
        self.decisions += int(who.sum())
        for group in self.groups:
            self.could[what] += torch.bincount(group[who], minlength=8)
            self.did[what] += torch.bincount(group[who & do], minlength=8)

    def share(self, what: str) -> np.ndarray:
        """The share of each group, first ages, then incomes, shape (8,)."""
        return (self.did[what] / self.could[what]).numpy()


@dataclass
class Runs:
    """What was seen in the runs of one way to decide: a row for each seed."""

    people: int
    queries: list[int] = field(default_factory=list)
    infections: list[np.ndarray] = field(default_factory=list)
    unemployed: list[np.ndarray] = field(default_factory=list)
    ages: list[np.ndarray] = field(default_factory=list)
    mask: list[np.ndarray] = field(default_factory=list)
    isolate: list[np.ndarray] = field(default_factory=list)
    budgets: list[list[tuple[float, float, float]]] = field(default_factory=list)

    def add(self, model: Pandemic, seed: int, asked: Asked | None = None) -> None:
        """Simulate once more; whoever isn't asked by archetypes decides by the truth."""
        seen = Seen(model.population)
        # Of two behaviours the outer one has the last word.
        with seen, asked or nullcontext(), Utility(sharper()):
            tree = lpm.run(model, days=DAYS, seed=seed, set={"initial_infected": INFECTED})
        run, residents = tree["prior_predictive"], tree["constant_data"]["people"].sum("borough").values
        self.infections.append(run["infections"].sum(("borough", "age")).to_numpy().reshape(-1) * 1e5 / self.people)
        self.unemployed.append(run["unemployed"].sum(("borough", "age")).to_numpy().reshape(-1) * 100 / self.people)
        self.ages.append(run["infections"].sum(("day", "borough")).to_numpy().reshape(-1) / residents)
        self.mask.append(seen.share("mask"))
        self.isolate.append(seen.share("isolate"))
        self.queries.append(seen.decisions if asked is None else SAMPLES * len(asked.questions))
        if asked is not None:
            self.budgets.append([asked.budget(name) for name in ("mask", "isolate")])

    def error(self, name: str, truth: Runs) -> float:
        """The root mean squared error of a course, in standard deviations of the truth between seeds."""
        known = np.stack(getattr(truth, name))
        off = ((np.stack(getattr(self, name)) - known.mean(0)) ** 2).mean()
        return float((off / known.var(0, ddof=1).mean()) ** 0.5)

    def points(self, name: str, truth: Runs) -> float:
        """The root mean squared error of shares of groups, in percentage points."""
        off = np.stack(getattr(self, name)) - np.stack(getattr(truth, name)).mean(0)
        return float(100 * np.nanmean(off**2) ** 0.5)

    def change(self, truth: Runs) -> tuple[float, float, float]:
        """Infections in percent of people, and how far they are from those of the truth, with a standard error."""
        mine, known = (np.stack(x.infections).sum(1) / 1e3 for x in (self, truth))
        # Runs of as many people share their chance with the truth's.
        off = mine - (known[: len(mine)] if self.people == truth.people else known.mean())
        return float(mine.mean()), float(off.mean()), float(off.std(ddof=1) / len(off) ** 0.5) if len(off) > 1 else 0.0


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as nowhere:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else nowhere)
        found = compare()
        tables(found)
        course(found, folder / "agency_course.svg")
        price(found, folder / "agency_error.svg")


def city(agents: int, seed: int = 0) -> Pandemic:
    return lpm.nyc.pandemic(lpm.nyc.population(agents, seed), without=["vaccination", "observation", "claims"])


def compare() -> dict[str, Runs]:
    """The truth, the same for few individuals, all alike, and archetypes of several sizes."""
    model = city(AGENTS)
    found = {"truth": Runs(AGENTS)}
    for seed in range(TRUTHS):
        found["truth"].add(model, seed)
    for agents in SMALL:
        # Another sample of the city each time: who happens to be in it is part of what few people can't tell.
        few = found[f"{agents:,} individuals"] = Runs(agents)
        for seed in range(SMALL_RUNS):
            few.add(city(agents, seed), seed)
    kinds = archetypes(model.population)
    alike = found["all alike"] = Runs(AGENTS)
    for seed in range(RUNS):
        alike.add(model, seed, Asked(torch.zeros(kinds.size, dtype=torch.int64), None, seed))
    for names in COARSER.values():
        coarse, many = torch.zeros(kinds.size, dtype=torch.int64), 1
        for column, (name, labels) in zip(kinds.table.T, kinds.labels.items(), strict=True):
            if name in names:
                coarse, many = coarse * len(labels) + column, many * len(labels)
        asked = found[f"{many:,} archetype{'s' * (many > 1)}"] = Runs(AGENTS)
        for seed in range(RUNS):
            asked.add(model, seed, Asked(coarse, SAMPLES, seed))
    return found


def tables(found: Mapping[str, Runs]) -> None:
    truth = found["truth"]
    print(
        f"{AGENTS:,} people, {DAYS} days, {TRUTHS} runs of the truth, {RUNS} of each other, {SMALL_RUNS} of few people"
    )
    print("                      queries  infected, %     off the truth  infections  jobs   mask  isolate  infected")
    for name, runs in found.items():
        mean, off, se = runs.change(truth)
        errors = [runs.error(x, truth) for x in ("infections", "unemployed")]
        points = [runs.points(x, truth) for x in ("mask", "isolate", "ages")]
        queries = 0 if name == "all alike" else np.mean(runs.queries)
        print(f"{name:>18} {queries:>10,.0f} {mean:>12.2f} {off:>+9.2f} ± {se:.2f}", end=" ")
        print(f"{errors[0]:>10.2f} {errors[1]:>6.2f} {points[0]:>6.1f} {points[1]:>8.1f} {points[2]:>8.2f}")
    print("mean squared error of probabilities, × 1,000: measured; predicted: within archetypes, by sampling, in all")
    for name, runs in found.items():
        for k, decision in enumerate(("mask", "isolate")):
            if runs.budgets:
                measured, within, sampling = 1e3 * np.array(runs.budgets)[:, k].mean(0)
                print(f"{name:>18} {decision:>8} {measured:8.2f};", end=" ")
                print(f"{within:8.2f} {sampling:8.2f} {within + sampling:8.2f}")
    for what in ("mask", "isolate"):
        kinds = ["age 0–17", "18–39", "40–64", "65+", "under $40,000", "$40,000–80,000", "over", "unknown"]
        print(f"{what}, %:  " + "  ".join(kinds))
        for name, runs in found.items():
            mean = np.ma.masked_invalid(np.stack(getattr(runs, what))).mean(0).filled(np.nan)
            print(f"{name:>18} " + " ".join(f"{100 * x:6.1f}" for x in mean))


def course(found: Mapping[str, Runs], path: Path) -> None:
    """Infections and unemployment day by day."""
    figure, panels = two()
    days, truth = np.arange(1, DAYS + 1), found["truth"]
    few = f"{SMALL[0]:,} individuals"
    others = [name for name, runs in found.items() if name != "truth" and runs.people == AGENTS]
    for axes, what, label in (
        (panels[0], "infections", "infections a day per 100,000"),
        (panels[1], "unemployed", "unemployed, % of people"),
    ):
        known = np.stack(getattr(truth, what))
        mean, sd = known.mean(0), known.std(0, ddof=1)
        for k, one in enumerate(getattr(found[few], what)[:3]):
            axes.plot(days, one, color="0.7", lw=0.7, label="" if k else f"{few}, three runs")
        axes.fill_between(days, mean - 2 * sd, mean + 2 * sd, color="black", alpha=0.3, lw=0, label="truth, ± 2 sd")
        for k, name in enumerate(others):
            axes.plot(days, getattr(found[name], what)[0], color=f"C{k}", lw=0.9, label=f"{name}, a run")
        axes.set(xlabel="day", ylabel=label, ylim=(0, None))
    panels[0].set_xlim(0, 60)
    panels[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def price(found: Mapping[str, Runs], path: Path) -> None:
    """The error of totals and of groups against how many queries it takes."""
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure, (left, right) = two()
    truth = found["truth"]
    for axes, label, error in (
        (left, "error of daily infections, truth's sd", {n: r.error("infections", truth) for n, r in found.items()}),
        (right, "error of who isolates, points", {n: r.points("isolate", truth) for n, r in found.items()}),
    ):
        for kind, style in (
            ("archetype", {"color": "C0", "marker": "o"}),
            ("individual", {"color": "0.5", "marker": "s"}),
        ):
            some = [name for name in found if kind in name]
            at = [float(np.mean(found[name].queries)) for name in some]
            axes.plot(at, [error[name] for name in some], **style, ms=4, lw=1, label=f"{kind}s")
            for x, name in zip(at, some, strict=True):
                axes.annotate(name.split()[0], (x, error[name]), (4, 4), textcoords="offset points", fontsize=7)
        axes.plot(np.mean(truth.queries), error["truth"], "k*", ms=7, label="truth, everybody asked")
        axes.axhline(error["all alike"], color="C3", lw=1, ls="--", label="all alike, by the mean")
        axes.set(xscale="log", yscale="log", xlabel="queries in a run", ylabel=label)
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(NullFormatter())
        ticks = [x for x in (0.2, 0.5, 1, 2, 5, 10, 20) if min(error.values()) / 2 < x < 2 * max(error.values())]
        axes.set_yticks(ticks)
    left.legend(frameon=False, fontsize=7)
    figure.savefig(path, metadata={"Date": None})


def two() -> tuple[Any, Sequence[Any]]:
    """A figure with two panels."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "lpmppl", "svg.fonttype": "none", "font.size": 9})
    return pyplot.subplots(1, 2, figsize=(8, 3.1), layout="constrained")


if __name__ == "__main__":
    main()
