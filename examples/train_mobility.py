"""How well does a small network know New York's mobility? Train it on 2020, and test it on weeks it hasn't seen.

`python examples/train_mobility.py [WEIGHTS.json [FIGURE.svg]]` writes the weights and draws what they say.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial

import numpy as np

from lpmppl.data.recorded import ACTIVITIES, Recorded, shipped
from lpmppl.models.mobility import Network, train

EPOCHS = 30 if "LPMPPL_EXAMPLE_AGENTS" in os.environ else 3000

BLOCK, GAP = 28, 4  # days held out together, and days beside them that share a week with them


def main() -> None:
    record = shipped()
    network = train(record, seed=0, epochs=EPOCHS)
    print("on the days it learnt from ", scores(record, expected(network, record)))
    unseen = held_out(record, partial(train, epochs=EPOCHS))
    print("on blocks of weeks held out", scores(record, unseen))
    error = np.abs(record.table - unseen).mean(1)
    print("error of each block        ", *(f"{error[k : k + BLOCK].mean():.3f}" for k in range(0, len(error), BLOCK)))
    print("a linear one, held out     ", scores(record, held_out(record, linear)))
    april = record.days == np.datetime64("2020-04-02")
    for what, factors in (
        ("network", {}),
        ("stringency 0", {"stringency": 0.0}),
        ("no admissions", {"admissions": 0.0}),
    ):
        print(f"2 April 2020, {what:13}", *(f"{a:.2f}" for a in expected(network, record, **factors)[april][0]))
    if len(sys.argv) > 1:
        network.save(sys.argv[1])
    if len(sys.argv) > 2:
        draw(record, network, sys.argv[2])


def expected(network: Network, record: Recorded, **factors: float) -> np.ndarray:
    """The activity that the network expects, days × places."""
    return network.on(record, **factors).exp().numpy()


def held_out(record: Recorded, learn: Callable[..., Network | np.ndarray] = train) -> np.ndarray:
    """The activity of each block of four weeks as expected by who has learnt from the rest."""
    day = np.arange(len(record.days))
    guess = np.empty_like(record.table)
    for begin in range(0, len(day), BLOCK):
        end = min(begin + BLOCK, len(day))
        rest = (day < begin - GAP) | (day >= end + GAP)
        model = learn(record, only=rest)
        guess[begin:end] = (expected(model, record) if isinstance(model, Network) else model)[begin:end]
    return guess


def linear(record: Recorded, only: np.ndarray) -> np.ndarray:
    """The rival: the logarithm of activity linear in stringency, in the logarithm of admissions, and through 0."""
    x = np.stack([record.stringency, np.log1p(record.smoothed())], axis=-1)
    return np.exp(x @ np.linalg.lstsq(x[only], np.log(record.table[only]), rcond=None)[0])


def scores(record: Recorded, guess: np.ndarray) -> str:
    error, spread = record.table - guess, record.table - record.table.mean(0)
    r2, mae = 1 - (error**2).sum(0) / (spread**2).sum(0), np.abs(error).mean(0)
    return "  ".join(f"{k}: R² {r:.2f}, error {e:.3f}" for k, r, e in zip(ACTIVITIES, r2, mae, strict=True))


def draw(record: Recorded, network: Network, path: str) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import dates, pyplot

    pyplot.rcParams.update({"svg.hashsalt": "mobility", "svg.fonttype": "none"})
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3), sharey=True, layout="constrained")
    weekly = slice(3, None, 7)
    kept, free = expected(network, record), expected(network, record, stringency=0.0)
    for k, (name, ax) in enumerate(zip(ACTIVITIES, axes, strict=True)):
        ax.plot(record.days[weekly], record.table[weekly, k], "o", ms=3, color="black", label="recorded")
        ax.plot(record.days, kept[:, k], color="tab:blue", label="network")
        ax.plot(record.days, free[:, k], "--", color="tab:orange", label="network, stringency 0")
        ax.set(title=name, ylim=(0, 1.15))
        ax.xaxis.set_major_formatter(dates.DateFormatter("%b"))
        ax.xaxis.set_major_locator(dates.MonthLocator(bymonth=range(3, 13, 2)))
    axes[0].set_ylabel("activity (1 = before)")
    axes[-1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
