"""How does an infection run inside a person? Fit the within-host ODE to the viral loads of 46 acute infections.

`python examples/within_host_fit.py [ct_nba_2021.csv] [--figure within_host.svg]`. The file is `data/ct_dat_clean.csv`
of github.com/gradlab/CtTrajectories; without the argument it is looked for in the folder LPMPPL_DATA.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.autograd.forward_ad as forward
from scipy.optimize import minimize
from scipy.stats import norm
from torch import Tensor

from lpmppl.models import within_host as body

QUICK = "LPMPPL_EXAMPLE_AGENTS" in os.environ
FILE = "ct_nba_2021.csv"
DETECTED, LEVEL = (
    2.658,
    3.0,
)  # log10 copies/ml of Ct 40, and the level between which and the peak durations are measured
PEAK_BEFORE_ONSET = 0.5  # days: He et al., Nature Medicine 26 (2020), infectiousness peaks at onset or before
NOTHING = 0.01  # share of tests that say nothing, as Kissler et al. take it
QUARTILES = (0.25, 0.5, 0.75)
FITTED = ("infectivity", "production", "cell_loss", "inoculum")

Episode = tuple[np.ndarray, np.ndarray]
"""Days since the highest load, and log10 copies/ml, of one person's tests."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", default=str(Path(os.environ.get("LPMPPL_DATA", "data")) / FILE))
    parser.add_argument("--figure", help="where to draw the fit, such as docs/figures/within_host.svg")
    given = parser.parse_args(arguments)
    if not Path(given.file).is_file():
        print(f"there is no {given.file}: give the path of {FILE}, or set LPMPPL_DATA to its folder; nothing to fit")
        return
    data = episodes(given.file)
    people = population(data)
    theta = fit({name: people[name][1] for name in ("peak", "rise", "fall")})
    print(f"{len(data)} acute infections, {sum(len(day) for day, _ in data)} tests; medians (quartiles)")
    for what, found in (
        ("as sampled", as_sampled(data)),
        ("people's courses", people),
        ("simulated, as sampled", as_sampled(simulated(data, people))),
        ("fitted ODE", of_model(theta)),
        ("shipped ODE", of_model(defaults())),
    ):
        print(
            f"{what:22}", *(f"{name} {q[1]:5.2f} ({q[0]:.2f}–{q[2]:.2f})" for name, q in found.items() if len(q) == 3)
        )
    print("parameters", *(f"{name}={float(theta[name]):.3g}" for name in FITTED))
    if given.figure:
        draw(data, theta, given.figure)


def episodes(file: str | Path) -> list[Episode]:
    """Those newly infected whose Ct fell to 35 at least, as in Kissler et al., PLOS Biology 19 (2021), e3001333."""
    table = pd.read_csv(file).drop_duplicates(["Person.ID", "Date.Index"]).sort_values("Date.Index")
    table = table[table["Novel.Persistent.Infection"] == "Novel"]
    acute = (own for _, own in table.groupby("Person.ID") if own["CT.Mean"].min() <= 35)
    return [(own["Date.Index"].to_numpy(float), own["log10_GEperML"].to_numpy(float)) for own in acute]


def as_sampled(data: Sequence[Episode]) -> dict[str, tuple[float, ...]]:
    """Quartiles of the highest load seen, and of the days between it and the level, known only to lie between tests.

    Two tests in a row below the level end an episode; whoever wasn't tested that long is censored, and durations are
    log-normal by maximum likelihood.
    """
    peak, rise, fall = [], [], []
    for day, load in data:
        top = int(load.argmax())
        peak.append(load[top])
        rise.append(_between(top - np.arange(top + 1), day[top] - day, load))
        fall.append(_between(np.arange(top, len(day)), day - day[top], load))
    return {"peak": tuple(np.quantile(peak, QUARTILES)), "rise": _durations(rise), "fall": _durations(fall)}


def _between(order: np.ndarray, days: np.ndarray, load: np.ndarray) -> tuple[float, float]:
    """The days from the peak to the last test above the level and to the next one, going through tests in an order."""
    below = load[order] < LEVEL
    for k in range(1, len(order)):
        if below[k] and (k + 1 == len(order) or below[k + 1]):
            return float(days[order[k - 1]]), float(days[order[k]])
    return float(days[order[-1]]), np.inf


def _durations(between: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    low, high = np.array(between).T

    def surprise(q: np.ndarray) -> float:
        reached = [norm.cdf(np.log(np.maximum(x, 1e-9)), q[0], np.exp(q[1])) for x in (low, high)]
        return -float(np.log(np.maximum(reached[1] - reached[0], 1e-12)).sum())

    mean, spread = minimize(surprise, [1.2, -0.5], method="Nelder-Mead").x
    return tuple(float(q) for q in np.exp(norm.ppf(QUARTILES, mean, np.exp(spread))))


def population(data: Sequence[Episode]) -> dict[str, tuple[float, ...]]:
    """Quartiles of the peaks and durations of people's courses, in log10 copies/ml and days.

    Each person's log load rises and falls along straight lines, and peaks within days of the highest one seen; peaks
    are normal and durations log-normal over people (Kissler et al. 2021). A test below detection says only that, and a
    share of tests says nothing. The likelihood of a person is a mean over courses, from a quasi-random sequence.
    """
    day, load, real = _padded(data)
    below = load <= DETECTED + 1e-3
    number, rounds = (128, 20) if QUICK else (512, 200)
    draws = torch.quasirandom.SobolEngine(4, scramble=True, seed=0).draw(number, dtype=torch.float64)
    z = torch.special.ndtri(draws.clamp(1e-6, 1 - 1e-6))[:, :, None, None]
    q = torch.tensor([7.3, 0.1, 1.1, -0.6, 2.0, -0.6, -0.3], dtype=torch.float64, requires_grad=True)
    steps = torch.optim.Adam([q], lr=0.05)
    for k in range(rounds):
        steps.param_groups[0]["lr"] = 0.05 * (1 - k / rounds)
        top, rise, fall, shift = _people(q, z)
        mean = tent(day - shift, top, rise, fall)
        noise = q[6].exp()
        seen = torch.exp(-(((load - mean) / noise) ** 2) / 2) / (noise * 2.5066)
        chance = (1 - NOTHING) * torch.where(below, torch.special.ndtr((DETECTED - mean) / noise), seen)
        chance = chance + NOTHING * torch.where(below, 1.0, torch.exp(DETECTED - load))
        each = (chance.log() * real).sum(-1).logsumexp(0)
        steps.zero_grad()
        (-each.sum()).backward()
        steps.step()
    q = q.detach()
    at = torch.tensor(norm.ppf(QUARTILES))
    return {
        "peak": tuple((q[0] + q[1].exp() * at).tolist()),
        "rise": tuple((q[2] + q[3].exp() * at).exp().tolist()),
        "fall": tuple((q[4] + q[5].exp() * at).exp().tolist()),
        "all": tuple(q.tolist()),
    }


def _people(q: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Peak, rise, fall and the day of the peak of people at the normal scores z."""
    top, rise, fall = (q[2 * k] + q[2 * k + 1].exp() * z[:, k] for k in range(3))
    return top.clamp(min=LEVEL + 0.1), rise.exp(), fall.exp(), 2.0 * z[:, 3]


def tent(day: Tensor, top: Tensor, rise: Tensor, fall: Tensor) -> Tensor:
    """A log load that peaks on day 0, and is at the level `rise` days before and `fall` days after it."""
    return LEVEL + (top - LEVEL) * (1 - torch.where(day < 0, -day / rise, day / fall))


def _padded(data: Sequence[Episode]) -> tuple[Tensor, Tensor, Tensor]:
    """Days, loads and whether there is such a test, from ten days before the highest load to twenty after it."""
    near = [(day[keep], load[keep]) for day, load in data for keep in [(day >= -10) & (day <= 20)]]
    longest = max(len(day) for day, _ in near)
    pad = [[np.pad(x, (0, longest - len(x))) for x in (day, load, np.ones_like(day))] for day, load in near]
    day, load, real = torch.from_numpy(np.array(pad)).unbind(1)
    return day, load, real


def simulated(data: Sequence[Episode], people: Mapping[str, tuple[float, ...]]) -> list[Episode]:
    """Twenty people drawn from the fitted population for each one in the data, tested on the same days."""
    random = np.random.default_rng(0)
    q = torch.tensor(people["all"], dtype=torch.float64)
    out: list[Episode] = []
    for day, load in data:
        top = int(load.argmax())
        gap = max(day[top] - day[top - 1] if top else 1.0, 1.0) / 2
        for _ in range(20):
            z = torch.from_numpy(random.standard_normal((1, 4)))
            true = tent(torch.from_numpy(day + random.uniform(-gap, gap)), *_people(q, z)[:3]).numpy()
            seen = true + float(q[6].exp()) * random.standard_normal(len(day))
            blank = random.random(len(day)) < NOTHING
            seen = np.where((seen < DETECTED) | blank, DETECTED, seen)
            if seen.max() >= 4.04:  # Ct 35
                out.append((day - day[int(seen.argmax())], seen))
    return out


def defaults() -> dict[str, Tensor]:
    return {name: torch.tensor(p.default, dtype=torch.float64) for name, p in body.PARAMETERS.items()}


def of_model(theta: Mapping[str, Tensor]) -> dict[str, tuple[float, ...]]:
    """Quartiles over the classes of variation of an untreated first infection in one's forties."""
    peak, _, rise, fall = _milestones(theta, torch.arange(body.VARIATIONS))
    return {
        name: tuple(x.quantile(torch.tensor(QUARTILES, dtype=x.dtype)).tolist())
        for name, x in (("peak", peak), ("rise", rise), ("fall", fall))
    }


def _milestones(theta: Mapping[str, Tensor], variation: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    times = torch.arange(0.0, 30.01, 0.25, dtype=torch.float64)
    age, prior = torch.full_like(variation, 4), torch.zeros_like(variation)
    path = body.courses(theta, torch.zeros(1, dtype=torch.float64), age, prior, variation, times)
    return body.milestones(body.log_load(path), times, LEVEL)


def fit(target: Mapping[str, float]) -> dict[str, Tensor]:
    """The parameters with which the median class peaks, rises and falls as people do, half a day before its symptoms.

    Gauss–Newton; one forward-mode pass over as many copies of the ODE as there are parameters gives the Jacobian.
    """
    wanted = torch.tensor(
        [target["peak"], body.INCUBATION[0] - PEAK_BEFORE_ONSET, target["rise"], target["fall"]], dtype=torch.float64
    )
    theta = defaults()
    log = torch.stack([theta[name] for name in FITTED]).log()
    for _ in range(2 if QUICK else 8):
        with torch.no_grad(), forward.dual_level():
            copies = forward.make_dual(log.expand(len(FITTED), -1).clone(), torch.eye(len(FITTED), dtype=log.dtype))
            now = {**theta, **{name: copies[:, k : k + 1].exp() for k, name in enumerate(FITTED)}}
            found = torch.stack([x.squeeze(-1) for x in _milestones(now, torch.tensor([2]))])
            value, slope = forward.unpack_dual(found)
            log = log + torch.linalg.solve(slope, wanted - value[:, 0]).clamp(-0.7, 0.7)
    return {**theta, **{name: log[k].exp() for k, name in enumerate(FITTED)}}


def draw(data: Sequence[Episode], theta: Mapping[str, Tensor], file: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "within_host", "svg.fonttype": "none"})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    day = np.concatenate([own for own, _ in data])
    load = np.concatenate([own for _, own in data])
    near, seen = (day >= -8) & (day <= 20), load > DETECTED
    left.plot(day[near & seen], load[near & seen], "o", ms=2.5, color="0.6", mew=0, rasterized=True, label="tests")
    left.plot(
        day[near & ~seen], load[near & ~seen] - 0.15, "|", ms=3, color="0.8", rasterized=True, label="not detected"
    )
    times = torch.arange(0.0, 30.01, 0.25, dtype=torch.float64)
    rows = torch.cartesian_prod(torch.arange(len(body.PRIORS)), torch.arange(body.VARIATIONS))
    prior, variation = rows.T
    curve = {
        treated: body.log_load(body.courses(theta, torch.tensor([treated]).double(), 0 * prior + 4, *rows.T, times))
        for treated in (0.0, 1.0)
    }
    _, peak, _, _ = body.milestones(curve[0.0], times)
    for k in (prior == 0).nonzero().squeeze(-1).tolist():
        middle = k == body.VARIATIONS // 2
        style = {"lw": 2.0, "label": "ODE, median class"} if middle else {"lw": 0.8}
        left.plot(times - peak[k], curve[0.0][k], color="tab:blue", **style)
    median = (variation == body.VARIATIONS // 2).nonzero().squeeze(-1).tolist()
    for k, name in zip(median, body.PRIORS, strict=True):
        right.plot(times, curve[0.0][k], label="no immunity" if name == "none" else name)
    right.plot(times, curve[1.0][median[0]], "--", color="tab:blue", label="no immunity, treated")
    right.axvline(body.INCUBATION[0], color="0.7", lw=0.8)
    right.text(body.INCUBATION[0] + 0.2, 9, "symptoms", color="0.5", fontsize=8, va="top")
    left.set(xlabel="days since the highest load", ylabel="log10 copies/ml", xlim=(-8, 20), ylim=(2, 9.2))
    right.set(xlabel="days since infection", xlim=(0, 20))
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8, loc="upper right")
    figure.savefig(file, dpi=150, metadata={"Date": None})


if __name__ == "__main__":
    main(sys.argv[1:])
