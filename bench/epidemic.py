"""The one epidemic that every package runs, and how a run of it is timed."""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable

LATENT = (4.5, 1.5)  # days from infection to infectiousness, log-normal: mean, standard deviation
INFECTIOUS = (8.0, 2.0)  # days of infectiousness, log-normal: mean, standard deviation
CONTACTS = 19.4  # contacts a day, weighted by layer, of Covasim's households, schools, workplaces and community
BETA = 0.016  # transmissions per day and contact of weight 1: R0 = CONTACTS x BETA x INFECTIOUS[0], about 2.5
DEATH = 0.006  # probability that an infection kills
SEEDS = 0.001  # fraction of the population infected on the first day

Run = Callable[[], dict[str, float]]


def seeds(agents: int) -> int:
    """Return how many people are infected on the first day."""
    return max(1, round(SEEDS * agents))


def measure(package: str, build: Callable[[int, int, int], Run]) -> None:
    """Time `build(agents, days, seed)` and the run that it returns, and print one JSON line.

    A small run beforehand keeps compilation out of the times.
    """
    parser = argparse.ArgumentParser()
    for name in ("agents", "days", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    args = parser.parse_args()
    build(2000, 10, 0)()
    start = time.perf_counter()
    run = build(args.agents, args.days, args.seed)
    built = time.perf_counter()
    outcome = run()
    ended = time.perf_counter()
    unit = 2**30 if sys.platform == "darwin" else 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    times = {"build_seconds": built - start, "run_seconds": ended - built, "peak_gib": peak}
    print(json.dumps({"package": package, **times, **outcome}))
