"""How does behaviour adapt? Fatigue, incentives by income, social influence, and households that decide as one.

`python examples/adaptation_figures.py docs/figures` draws the figures of docs/adaptation.md as SVG into that folder,
and prints its tables; without a folder nothing is kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

import lpmppl as lpm
from lpmppl._compat import Message, Messenger
from lpmppl.effects.choices import Choices
from lpmppl.effects.handlers import Decided, ExogenousNoise, Utility
from lpmppl.models.behaviour import UTILITY, archetypes
from lpmppl.models.inclination import inclination
from lpmppl.models.networks import Groups
from lpmppl.models.pandemic import Pandemic
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR
from lpmppl.typing import State

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "100000"))
QUICK = AGENTS < 50_000
START = date(2020, 3, 1)
YEAR, SPRING, LONG = (50, 28, 60) if QUICK else (306, 120, 200)
SEEDS = 2 if QUICK else 6
FEW = {"initial_infected": 0.02} if QUICK else {}
LEFT_OUT = ("vaccination", "observation", "claims")
NEED = "savings=under $2,000 × employment=employed"
CHEQUE = ("stimulus", 2000.0, (date(2020, 3, 14) - START).days)
INCOMES = ("under $40,000", "$40,000–80,000", "over $80,000")


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as nowhere:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else nowhere)
        model = lpm.nyc.pandemic(lpm.nyc.population(AGENTS), without=LEFT_OUT)
        fatigue(folder / "adaptation_fatigue.svg")
        incentives(model, folder / "adaptation_incentives.svg")
        influence(model, folder / "adaptation_masks.svg")
        households(model, folder / "adaptation_households.svg")


def changed(**decisions: dict[str, float]) -> dict[str, Any]:
    """The pandemic's coefficients with some others in place of them, by decision."""
    behaviour = {name: {option: dict(of) for option, of in options.items()} for name, options in UTILITY.items()}
    for name, features in decisions.items():
        for option in behaviour[name].values():
            option |= features
    return behaviour


class Evening(Messenger):
    """Keep the state of the last evening."""

    def __init__(self) -> None:
        super().__init__()
        self.state: State = {}

    def _pyro_post_substep(self, msg: Message) -> None:
        self.state = msg["value"]


@dataclass
class Run:
    """A run's tallies, decisions and last state."""

    tallies: xr.Dataset
    decided: Decided
    state: State

    def day(self, tally: str, *over: str) -> np.ndarray:
        """A tally day by day, summed over its strata except some: shape (days, …)."""
        x = self.tallies[tally].isel(chain=0, draw=0)
        return x.sum([dim for dim in x.dims if dim not in ("day", *over)]).to_numpy()

    @cached_property
    def ill(self) -> Choices:
        """Decisions to isolate of those who fall ill and haven't tested positive."""
        all_ = self.decided["isolate"]
        return all_.rows(all_.codes[:, [*all_.attributes].index("health")] == 1)

    def infected(self, model: Pandemic) -> Tensor:
        return model.outcomes["infected"](self.state).reshape(-1)


def simulate(
    model: Pandemic, behaviour: Mapping[str, Any], days: int, seed: int, *acts: tuple[str, float, int], **theta: float
) -> Run:
    """A run under a behaviour."""
    with Evening() as evening, Decided() as decided, Utility(behaviour):
        # Among few people nobody may fall ill otherwise.
        tree = lpm.run(model, days=days, seed=seed, interventions=acts, set={**FEW, **theta})
    return Run(tree["prior_predictive"].to_dataset(), decided, evening.state)


def share(runs: Sequence[Choices], who: Callable[[Choices], Tensor] = lambda c: c.weight > 0) -> float:
    """The share of those who decide, in all runs, who choose the first option; NaN where nobody does."""
    chosen = sum(float((c.weight * c.chance[:, 0])[who(c)].sum()) for c in runs)
    weight = sum(float(c.weight[who(c)].sum()) for c in runs)
    return chosen / weight if weight else float("nan")


def period(m: int) -> Callable[[Choices], Tensor]:
    return lambda c: c.observed["weeks"] // 4 == m


def of_income(k: int) -> Callable[[Choices], Tensor]:
    return lambda c: c.codes[:, 1] == k


def mean(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The mean and its standard error."""
    x = np.asarray(values, dtype=float)
    return float(x.mean()), float(x.std(ddof=1) / len(x) ** 0.5) if len(x) > 1 else float("nan")


def fatigue(path: Path) -> None:
    """Who isolates when ill, and infections, with and without fatigue, for a virus of spring and one of autumn."""
    arms = {"as it is": changed(), "nobody tires": changed(isolate={"fatigue": 0.0}, test={"fatigue": 0.0})}
    people, parts = lpm.nyc.population(AGENTS), SPRING // 28
    figure, both = panels(2)
    for axes, start in zip(both, (date(2020, 3, 1), date(2020, 9, 1)), strict=True):
        model = lpm.nyc.pandemic(people, start=start.isoformat(), without=LEFT_OUT)
        runs = {name: [simulate(model, b, SPRING, seed) for seed in range(SEEDS)] for name, b in arms.items()}
        isolate = {
            name: [100 * share([r.ill for r in each], period(m)) for m in range(parts)] for name, each in runs.items()
        }
        infections = {name: np.array([r.day("infections") for r in each]) * 1e5 / AGENTS for name, each in runs.items()}
        print(f"fatigue: {AGENTS:,} people, {SPRING} days from {start:%-d %B %Y}, {SEEDS} pairs; of those who fall ill")
        print("four weeks from    isolate, %: as it is  nobody tires    infections per 100,000: as it is  nobody tires")
        for m in range(parts):
            first, four = start + timedelta(days=28 * m), slice(28 * m, 28 * m + 28)
            a, b = (x[m] for x in isolate.values())
            c, d = (x[:, four].sum(1).mean() for x in infections.values())
            print(f"{first:%d %b %Y} {a:>30.1f} {b:>13.1f} {c:>32.0f} {d:>13.0f}")
        of_all = {name: 100 * share([r.ill for r in each]) for name, each in runs.items()}
        with_, without = (x.sum(1) for x in infections.values())
        print("isolate, of all who fall ill: {:.1f} and {:.1f} %".format(*of_all.values()), end="; ")
        print(f"infections {with_.mean():.0f} and {without.mean():.0f}, fatigue adds", end=" ")
        print("{:.0f} ± {:.0f} per 100,000".format(*mean(with_ - without)))

        calendar = [start + timedelta(days=d) for d in range(SPRING)]
        other = axes.twinx()
        for k, name in enumerate(arms):
            middle = [start + timedelta(days=28 * m + 14) for m in range(parts)]
            axes.plot(middle, isolate[name], f"C{k}o-", ms=4, label=f"{name}: isolate (dots), infections (line)")
            average = np.convolve(infections[name].mean(0), np.ones(7) / 7, "valid")
            other.plot(calendar[6:], average, f"C{k}", lw=0.9, ls=("-", "--")[k])
        axes.set(ylim=(0, 100), title=f"from {start:%-d %B %Y}")
        axes.set_ylabel("isolate, % of those who fall ill")
        other.set(ylabel="infections a day per 100,000", ylim=(0, None))
    by_month(1, *both)
    figure.legend(*both[0].get_legend_handles_labels(), frameon=False, fontsize=8, loc="outside upper center", ncols=2)
    figure.savefig(path, metadata={"Date": None})


def incentives(model: Pandemic, path: Path) -> None:
    """Who isolates when ill by income, and infections averted, by a cheque and by paid sick leave."""
    people, kinds = model.population, archetypes(model.population)
    nobody = torch.zeros(people.size, dtype=torch.uint8)
    income = kinds.table[kinds.code(employment=nobody, savings=nobody, health=nobody).long(), 1]
    arms: dict[str, tuple[dict[str, Any], list[tuple[str, float, int]]]] = {
        "as it is": (changed(), []),
        "cheque of $2,000": (changed(), [CHEQUE]),
        "paid sick leave": (changed(isolate={NEED: 0.0}), []),
    }
    isolate, needy, infected = ({name: np.zeros((SEEDS, 3)) for name in arms} for _ in range(3))
    total = {name: np.zeros(SEEDS) for name in arms}
    for name, (behaviour, acts) in arms.items():
        for seed in range(SEEDS):
            run = simulate(model, behaviour, SPRING, seed, *acts)
            ill = run.ill
            # After the day of the cheque, whatever the policy.
            ill = ill.rows(ill.observed["weeks"] > CHEQUE[2] // 7)
            band, needs = ill.codes[:, 1], (ill.codes[:, 3] == 1) & (ill.codes[:, 4] == 1)
            fell = run.infected(model)
            total[name][seed] = 1e5 * float(fell.float().mean())
            for k in range(3):
                isolate[name][seed, k] = 100 * share([ill], of_income(k))
                needy[name][seed, k] = 100 * float(ill.weight[(band == k) & needs].sum() / ill.weight[band == k].sum())
                infected[name][seed, k] = 1e5 * float(fell[income == k].float().mean())
    print(f"\nincentives: {AGENTS:,} people, {SPRING} days, {SEEDS} seeds; of those who fall ill from 15 March on")
    print("                  income             isolate, %  employed with under $2,000, %  averted per 100,000")
    for name in arms:
        for k, band_name in enumerate(INCOMES):
            averted = mean(infected["as it is"][:, k] - infected[name][:, k])
            values = (isolate[name][:, k].mean(), needy[name][:, k].mean(), *averted)
            print("{:>17} {:<16} {:>12.1f} {:>30.1f} {:>14.0f} ± {:.0f}".format(name, band_name, *values))
        print(f"{name:>17} all: infected {total[name].mean():.0f} per 100,000, averted", end=" ")
        print("{:.0f} ± {:.0f}".format(*mean(total["as it is"] - total[name])))

    figure, (left, right) = panels(2)
    for j, name in enumerate(arms):
        at = np.arange(3) + 0.27 * (j - 1)
        left.bar(at, isolate[name].mean(0), 0.26, color=f"C{j}", label=name)
        if j:
            off = infected["as it is"] - infected[name]
            middle, error = np.transpose([mean(off[:, k]) for k in range(3)])
            right.bar(at, middle, 0.26, yerr=2 * error, color=f"C{j}", capsize=3)
    for axes in (left, right):
        axes.set_xticks(range(3), [name.replace("$", r"\$") for name in INCOMES])
    left.set(ylabel="isolate, % of those who fall ill", xlabel="household income", ylim=(0, 100))
    right.set(ylabel="infections averted per 100,000", xlabel="household income")
    figure.legend(*relabelled(left), frameon=False, fontsize=8, loc="outside upper center", ncols=3)
    figure.savefig(path, metadata={"Date": None})


def influence(model: Pandemic, path: Path) -> None:
    """Masks where neighbours matter not at all, as they do, and three times as much."""
    lifted = (date(2020, 8, 1) - START).days
    # Where neighbours matter otherwise, the intercept gives the same chances at the 84 % of November, or, where
    # they matter so much that there are two levels, lies between these two.
    coefficients = {"no influence": (0.0, -3.3 + 2.0 * 0.84), "as it is, 2": (2.0, -3.3), "three times, 6": (6.0, -5.1)}
    acts: dict[str, list[tuple[str, float, int]]] = {
        "mandate as it was": [],
        "lifted on 1 August": [("mask_mandate", 0.0, lifted)],
        "never a mandate": [("mask_mandate", 0.0, 0)],
    }
    residents = torch.bincount(model.population["borough"].long()).numpy()
    masks, total = {}, {}
    for name, (neighbours, intercept) in coefficients.items():
        behaviour = changed(mask={"neighbours": neighbours, "intercept": intercept})
        for policy, act in acts.items():
            run = simulate(model, behaviour, YEAR, 0, *(a for a in act if a[2] < YEAR))
            masks[name, policy] = 100 * run.day("masked", "borough") / residents
            total[name, policy] = 100 * run.day("masked") / AGENTS
    boroughs = [str(b) for b in run.tallies["borough"].values]
    print(f"\ninfluence: {AGENTS:,} people, {YEAR} days from 1 March 2020, one run each; wear a mask, %")
    weeks = [d for d in range(35, 106, 7) if d < YEAR]
    print(" " * 36 + " ".join(f"{START + timedelta(days=d):%d %b}" for d in weeks), "  1 Aug 29 Aug 15 Nov 31 Dec")
    late = [min(d, YEAR - 1) for d in (lifted, lifted + 28, 259, 305)]
    for (name, policy), x in total.items():
        print(f"{name:>15} {policy:<19}", " ".join(f"{x[d]:6.1f}" for d in weeks), end="  ")
        print(" ".join(f"{x[d]:6.1f}" for d in late))
    for name in coefficients:
        x = masks[name, "mandate as it was"]
        print(
            f"{name}: by borough on 14 June",
            ", ".join(f"{b} {y:.1f}" for b, y in zip(boroughs, x[min(105, YEAR - 1)], strict=True)),
        )

    figure, (left, middle, right) = panels(3)
    calendar = [START + timedelta(days=d) for d in range(YEAR)]
    for k, name in enumerate(("no influence", "as it is, 2")):
        lines = left.plot(calendar[21:110], masks[name, "mandate as it was"][21:110], f"C{k}", lw=0.8)
        lines[0].set_label(name)
    left.set(ylabel="wear a mask in public, %", title="each borough, neighbours …")
    for what, day in (("advice", date(2020, 4, 3)), ("mandate", date(2020, 4, 17))):
        left.axvline(day, color="0.7", lw=0.8, zorder=0)
        left.annotate(what, (day, 2), rotation=90, fontsize=7, ha="right", color="0.4")
    for axes, name in ((middle, "as it is, 2"), (right, "three times, 6")):
        for k, policy in enumerate(acts):
            axes.plot(calendar, total[name, policy], f"C{k + 2}", label=policy, ls=("-", "--", "-.")[k])
        axes.set_title(f"neighbours {name}")
    for axes in (left, middle, right):
        axes.set_ylim(0, 100)
    left.legend(frameon=False, fontsize=8, loc="lower right")
    right.legend(frameon=False, fontsize=8, loc="center right")
    by_month(1, left)
    by_month(3, middle, right)
    figure.savefig(path, metadata={"Date": None})


def alike(network: Groups, does: Tensor) -> float:
    """The correlation of a choice between two members of a household, over all pairs of them."""
    size, many = network.size.double(), network.total(does.long()).double()
    some = (size > 1) & (size < 20)
    size, many = size[some], many[some]
    pairs = (size * (size - 1)).sum()
    p = float((many * (size - 1)).sum() / pairs)
    both = float((many * (many - 1)).sum() / pairs)
    return (both - p * p) / (p * (1 - p)) if 0 < p < 1 else float("nan")


def attack(network: Groups, fell: Tensor) -> float:
    """The share of the others who were infected in households in which somebody was, in percent."""
    size, many = network.size.double(), network.total(fell.long()).double()
    some = (size > 1) & (size < 20) & (many > 0)
    return float(100 * (many[some] - 1).sum() / (size[some] - 1).sum())


def households(model: Pandemic, path: Path) -> None:
    """The pandemic, and a plain epidemic in which half isolate, where households decide alone or as one."""
    shares, home = (0.0, 0.5, 1.0), model.population.network("household")
    pandemic = np.zeros((len(shares), SEEDS, 5))
    for k, rho in enumerate(shares):
        for seed in range(SEEDS):
            run = simulate(model, changed(), SPRING, seed, households_as_one=rho)
            fell, masked = run.infected(model), run.state["masked"].reshape(-1)
            pandemic[k, seed] = (
                100 * float(fell.float().mean()),
                attack(home, fell),
                100 * float(masked.float().mean()),
                alike(home, masked),
                100 * share([run.ill]),
            )
    plain = np.array([[sir(rho, seed) for seed in range(SEEDS)] for rho in shares])
    print(f"\nhouseholds as one: {AGENTS:,} people, {SEEDS} seeds; the pandemic, {SPRING} days")
    print("share  infected, %  of others at home, %  masks at the end, %  correlation of masks  isolate, %")
    show(shares, pandemic)
    print(f"SIR in households of three, {LONG} days, half isolate from the start")
    print("share  infected, %  of those who isolate, %  of others, %  of others at home, %  isolate, %  correlation")
    show(shares, plain)

    figure, axes = panels(3)
    for one, (title, x, most) in zip(
        axes,
        (
            ("the pandemic, infected", pandemic[..., 0], None),
            ("the pandemic, of others at home", pandemic[..., 1], None),
            ("plain SIR, half isolate", plain[..., 0], None),
        ),
        strict=True,
    ):
        value, error = np.transpose([mean(row) for row in x])
        one.errorbar(shares, value, 2 * error, fmt="C0o-", ms=4, capsize=3)
        one.set(xlabel="households that decide as one", title=title, ylim=(0, most or 1.15 * value.max()))
    axes[0].set_ylabel("%, ± 2 s.e.")
    figure.savefig(path, metadata={"Date": None})


def show(shares: Sequence[float], found: np.ndarray) -> None:
    for rho, rows in zip(shares, found, strict=True):
        print(f"{rho:5.1f}  " + "   ".join("{:.3f} ± {:.3f}".format(*mean(column)) for column in rows.T))
    off = found[-1] - found[0]
    print("1 − 0  " + "   ".join("{:+.3f} ± {:.3f}".format(*mean(column)) for column in off.T))


def sir(rho: float, seed: int) -> tuple[float, ...]:
    """Households of three, of whom half meet nobody but their household; the others meet each other as before."""
    count = AGENTS // 3
    people = Population.of({"household": np.arange(3 * count) // 3})
    with torch.no_grad(), ExogenousNoise(seed):
        isolates = inclination(people, "inclination", torch.tensor(rho)) < 0.5
    home, town = people.network("household"), Groups("town", isolates.long(), 2, nowhere=1)
    model = SIR(people, [home, town])
    with Evening() as evening:
        lpm.run(model, days=LONG, seed=seed)
    fell = ~evening.state["susceptible"].reshape(-1)
    parts = (fell, fell[isolates], fell[~isolates])
    infected = (100 * float(x.float().mean()) for x in parts)
    return (*infected, attack(home, fell), 100 * float(isolates.float().mean()), alike(home, isolates))


def panels(many: int) -> tuple[Any, Sequence[Any]]:
    """A figure with some panels."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "lpmppl", "svg.fonttype": "none", "font.size": 9})
    pyplot.rcParams.update({"axes.titlesize": 9})
    return pyplot.subplots(1, many, figsize=(8, 2.9), layout="constrained")


def relabelled(axes: Any) -> tuple[list[Any], list[str]]:
    """What a legend needs, with dollars as they are."""
    handles, labels = axes.get_legend_handles_labels()
    return handles, [label.replace("$", r"\$") for label in labels]


def by_month(every: int, *axes: Any) -> None:
    from matplotlib import dates

    for one in axes:
        one.xaxis.set_major_locator(dates.MonthLocator(interval=every))
        one.xaxis.set_major_formatter(dates.DateFormatter("%b"))


if __name__ == "__main__":
    main()
