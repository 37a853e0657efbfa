"""Time and memory of a day of the New York epidemic through `lpmppl.run`, each size in a process of its own.

A day is compared with copying memory in the same process, timed between the runs: with copying one float32 per agent
from one tensor to another, and with copying the bytes that a day must read and write at least (see floor.py). Memory is
what a run adds to the loaded population, and the most that the process ever held, with its imports, the population and
what loading it took.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from memory import forget_peak, peak, resident
from table import markdown


def measure(agents: int, days: int, repetitions: int, name: str) -> dict[str, Any]:
    """Run the epidemic `repetitions` times and return its times in seconds, and memory and copying in bytes."""
    import lpmppl as lpm
    from floor import bandwidth, pieces

    make = getattr(lpm.nyc, name)
    lpm.run(make(lpm.nyc.population(1000)), days=2)  # imports, and what torch does on first use
    population = lpm.nyc.population(agents)
    most, loaded = peak(), resident()
    forget_peak()
    model = make(population)
    runs, above = [], 0
    speeds: list[float] = []
    for seed in range(repetitions):
        start = time.perf_counter()
        lpm.run(model, days=days, seed=seed)
        runs.append(time.perf_counter() - start)
        above, most = max(above, peak() - loaded), max(most, peak())
        speeds += bandwidth(agents)
        forget_peak()
    return {"runs": runs, "speeds": speeds, "most": most, "above": above, "pieces": pieces(model)}


def apart(agents: int, days: int, repetitions: int, name: str) -> dict[str, Any]:
    """Measure one size in a process of its own; a population that isn't cached yet is built in another before."""
    build = f"import lpmppl as lpm; lpm.nyc.population({agents})"
    subprocess.run([sys.executable, "-c", build], check=True)
    command = [sys.executable, __file__, "--one", "--agents", str(agents), "--days", str(days)]
    command += ["--repetitions", str(repetitions), "--model", name]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def row(agents: int, days: int, found: dict[str, Any]) -> list[str]:
    """Return one size's row."""
    # Of copies the fastest: a floor is what the machine can do, however busy it was at times.
    day, speed = statistics.median(found["runs"]) / days, max(found["speeds"])
    least = sum(found["pieces"].values())
    return [
        f"{agents:,}",
        f"{min(found['runs']):.2f}",
        f"{day * days:.2f}",
        f"{day / agents * 1e9:.1f}",
        f"{day * 1e3:.1f}",
        f"{speed / 1e9:.1f}",
        f"{day / (8 * agents / speed):.0f}",
        f"{least:.0f}",
        f"{day / (least * agents / speed):.1f}",
        f"{found['above'] / agents:.0f}",
        f"{found['above'] / 2**30:.2f}",
        f"{found['most'] / 2**30:.2f}",
    ]


def main() -> None:
    """Measure every size in a subprocess and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 8_400_000])
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--model", choices=("seirm", "pandemic"), default="seirm")
    parser.add_argument("--one", action="store_true", help="measure one size here and print it as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.agents[0], args.days, args.repetitions, args.model)))
        return

    found = {agents: apart(agents, args.days, args.repetitions, args.model) for agents in args.agents}
    print(f"{args.model}, {args.days} days, {args.repetitions} repetitions, {os.cpu_count()} cores\n")
    header = ["agents", "seconds, least", "seconds, median", "ns per agent-day", "ms per day", "copied, GB/s"]
    header += ["day / copy", "floor, bytes", "day / floor", "bytes per agent", "GiB above", "GiB in all"]
    print(markdown(header, [row(agents, args.days, each) for agents, each in found.items()]))
    largest = found[max(found)]["pieces"]
    print(f"\nWhat a day must read and write at least, bytes per agent, among {max(found):,}:\n")
    print(markdown(["", "bytes"], [[what, f"{size:.1f}"] for what, size in largest.items()]))


if __name__ == "__main__":
    main()
