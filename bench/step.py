"""Time and memory of a step of the New York epidemic through `lpmppl.run`, each size in a process of its own.

A step is compared with copying one float32 per agent from one tensor to another, timed between the runs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from memory import forget_peak, peak, resident
from table import markdown


def copy_times(agents: int, repetitions: int = 11) -> list[float]:
    """Return the seconds that copies of one float32 per agent take."""
    import torch

    source, target = torch.ones(agents), torch.ones(agents)
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(agents: int, days: int, repetitions: int, name: str) -> dict[str, list[float] | float]:
    """Run the epidemic `repetitions` times and return its times in seconds and its memory in bytes."""
    import lpmppl as lpm

    make = getattr(lpm.nyc, name)
    lpm.run(make(lpm.nyc.population(1000)), days=2)  # imports, and what torch does on first use
    population = lpm.nyc.population(agents)
    forget_peak()
    loaded = resident()
    model = make(population)
    runs, copies, above = [], [], 0
    for seed in range(repetitions):
        start = time.perf_counter()
        lpm.run(model, days=days, seed=seed)
        runs.append(time.perf_counter() - start)
        above = max(above, peak() - loaded)
        copies += copy_times(agents)
        forget_peak()
    return {"runs": runs, "copies": copies, "loaded": loaded, "above": above}


def main() -> None:
    """Measure every size in a subprocess and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[100_000, 1_000_000, 8_400_000])
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--model", choices=("seirm", "pandemic"), default="seirm")
    parser.add_argument("--one", action="store_true", help="measure one size here and print it as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.agents[0], args.days, args.repetitions, args.model)))
        return

    # A population that isn't cached yet is built here, so that its building isn't in the memory measured.
    rows = []
    for agents in args.agents:
        build = f"import lpmppl as lpm; lpm.nyc.population({agents})"
        subprocess.run([sys.executable, "-c", build], check=True)
        command = [sys.executable, __file__, "--one", "--agents", str(agents), "--days", str(args.days)]
        command += ["--repetitions", str(args.repetitions), "--model", args.model]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        seconds, copy = statistics.median(found["runs"]), statistics.median(found["copies"])
        rows.append(
            [
                f"{agents:,}",
                f"{min(found['runs']):.2f}",
                f"{seconds:.2f}",
                f"{seconds / (args.days * agents) * 1e9:.1f}",
                f"{seconds / args.days * 1e3:.1f}",
                f"{copy * 1e3:.2f}",
                f"{seconds / args.days / copy:.0f}",
                f"{found['above'] / agents:.0f}",
                f"{found['above'] / 2**30:.2f}",
                f"{found['loaded'] / 2**30:.2f}",
            ]
        )
    print(f"{args.model}, {args.days} days, {args.repetitions} repetitions, {os.cpu_count()} cores\n")
    header = ["agents", "seconds, least", "seconds, median", "ns per agent-step", "ms per step", "ms per copy"]
    header += ["step / copy", "bytes per agent", "GiB above the population", "GiB with the population"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
