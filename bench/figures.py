"""What the paper's figures 1 and 10 time, here: simulating, calibrating and analysing New York on this machine.

Simulated is the whole pandemic, and SEIRM. Calibrated is the pandemic, to the daily admissions and deaths by borough
and age that a run of its own reports, whose parameters it should find, with rounds of runs of a small sample of the
city and runs of all of it at draws of the posterior. Analysed are the derivatives of all infections by parameters of
SEIRM, along the paths of two runs. The columns of the paper are its own, of other machines and models.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from typing import Any

from table import markdown

PAPER = {  # what the paper's figure 1 has for 8.4 million agents: conventional models, and LPMs
    "simulation": ("50 hours", "5 minutes"),
    "calibration": ("100,000 hours", "20 minutes"),
    "analysis": ("5,000 hours", "10 seconds"),
}
TRUTH = {"beta": 0.6, "initial_infected": 0.002}
STREAMS = {"admissions": "reported_admissions", "deaths": "reported_deaths"}


def timed(job: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a job, and what it gives."""
    start = time.perf_counter()
    found = job()
    return time.perf_counter() - start, found


def main() -> None:
    """Time the three, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=8_400_000)
    parser.add_argument("--coarse", type=int, default=84_000, help="people in the rounds of the calibration")
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--fitted", type=int, default=60, help="days that are fitted")
    args = parser.parse_args()

    import lpmppl as lpm

    people = lpm.nyc.population(args.agents)
    few = lpm.nyc.population(args.coarse)
    pandemic, seirm = lpm.nyc.pandemic(people), lpm.nyc.seirm(people)
    lpm.run(lpm.nyc.pandemic(few), days=2)  # what torch and Numba do on first use
    lpm.run(lpm.nyc.seirm(few), days=2)

    rows = []

    def row(what: str, name: str, seconds: float, found: str) -> None:
        rows.append([what, *PAPER[name], f"{seconds:.1f} s", found])

    seconds, tree = timed(lambda: lpm.run(pandemic, args.days, set=TRUTH, seed=1))
    made = tree["prior_predictive"].to_dataset().isel(chain=0, draw=0, day=slice(args.fitted))
    infected = float(tree["prior_predictive"]["infections"].sum())
    row(f"simulation: the pandemic, {args.days} days", "simulation", seconds, f"{infected:,.0f} infections")
    seconds, tree = timed(lambda: lpm.run(seirm, args.days))
    infected = float(tree["prior_predictive"]["infections"].sum())
    row(f"simulation: SEIRM, {args.days} days", "simulation", seconds, f"{infected:,.0f} infections")

    data = made[list(STREAMS.values())].rename({tally: name for name, tally in STREAMS.items()})
    asked: dict[str, Any] = {"parameters": list(TRUTH), "coarse": lpm.nyc.pandemic(few), "until": args.fitted - 1}
    seconds, fit = timed(lambda: lpm.calibrate(pandemic, data, misfit=0.1, simulations=4, **asked))
    within = []
    for name, value in TRUTH.items():
        low, high = fit["posterior"][name].quantile([0.05, 0.95]).values
        within.append(f"{name} {low:.4g} … {high:.4g}, which {'holds' if low <= value <= high else 'misses'} {value:g}")
    row(f"calibration: {len(TRUTH)} parameters, {args.fitted} days", "calibration", seconds, "; ".join(within))

    by = ["beta", "latent_mean", "infectious_mean"]
    ask: dict[str, Any] = {"estimator": "pathwise", "draws": 2, "audit": False}
    seconds, found = timed(lambda: lpm.sensitivity(seirm, "infections", by, args.days, **ask))
    slopes = ", ".join(f"{name} {float(found['value'].sel(parameter=name)):,.0f}" for name in by)
    row(f"analysis: derivatives by {len(by)} parameters, two draws", "analysis", seconds, slopes)

    print(f"{args.agents:,} agents, rounds of {args.coarse:,}, {os.cpu_count()} cores\n")
    print(markdown(["", "paper: conventional", "paper: LPM", "here", "found"], rows))
    print("\nThe calibration says of itself: " + "; ".join(json.loads(fit.attrs["verdict"])) + ".")


if __name__ == "__main__":
    main()
