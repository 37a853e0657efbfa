"""The one epidemic that every package runs, and how a run of it is timed."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from contacts import People

LATENT = (4.5, 1.5)  # days from infection to infectiousness, log-normal: mean, standard deviation
INFECTIOUS = (8.0, 2.0)  # days of infectiousness, log-normal: mean, standard deviation
DEATH = 0.006  # probability that an infection kills
SEEDS = 0.001  # fraction of the population infected on the first day
FEW = 2000  # people of the run that comes before

Run = Callable[[], dict[str, float]]
Build = Callable[[People, float, int, int], Run]


def seeds(agents: int) -> int:
    """Return how many people are infected on the first day."""
    return max(1, round(SEEDS * agents))


def measure(package: str, build: Build) -> None:
    """Time `build(people, beta, days, seed)` and the run that it returns, and print one JSON line.

    A small run beforehand keeps compilation out of the times.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--people", type=Path, required=True, help="what contacts.py wrote")
    parser.add_argument("--beta", type=float, required=True, help="transmissions per contact")
    for name in ("days", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    people = People.load(args.people)
    build(people.first(FEW), args.beta, 10, 0)()
    start = time.perf_counter()
    run = build(people, args.beta, args.days, args.seed)
    built = time.perf_counter()
    outcome = run()
    ended = time.perf_counter()
    unit = 2**30 if sys.platform == "darwin" else 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    times = {"build_seconds": built - start, "run_seconds": ended - built, "peak_gib": peak}
    print(json.dumps({"package": package, **times, **outcome}))
