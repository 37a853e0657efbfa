"""What a counterfactual costs beside a run, and what shared chance saves beside runs of their own seeds.

Two worlds that part on day 30 of 90, `transmission` at 0.7, in the New York epidemic or pandemic; for the pandemic's
spread also a cheque of $500.
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

PART, DAYS = 30, 90


def costs(agents: int, repetitions: int, name: str) -> dict[str, list[float]]:
    """Time a run and a counterfactual in turn, and measure what each adds to the loaded population."""
    import lpmppl as lpm

    make = getattr(lpm.nyc, name)
    lpm.run(make(lpm.nyc.population(1000)), days=2)  # imports, and what torch does on first use
    model = make(lpm.nyc.population(agents))
    loaded = resident()
    found: dict[str, list[float]] = {"run": [], "both": [], "run memory": [], "both memory": []}
    for seed in range(repetitions):
        forget_peak()
        start = time.perf_counter()
        lpm.run(model, days=DAYS, seed=seed)
        found["run"].append(time.perf_counter() - start)
        found["run memory"].append(float(peak() - loaded))
        forget_peak()
        start = time.perf_counter()
        lpm.counterfactual(model, {"transmission": 0.7}, at=PART, days=DAYS, seed=seed)
        found["both"].append(time.perf_counter() - start)
        found["both memory"].append(float(peak() - loaded))
    return found


def spreads(agents: int, draws: int, name: str, do: dict[str, float]) -> dict[str, tuple[float, float, float]]:
    """By tally, the mean effect and its standard deviation over draws of chance: with shared chance, and without."""
    import numpy as np

    import lpmppl as lpm
    from lpmppl.inference.contrasts import amounts

    model = getattr(lpm.nyc, name)(lpm.nyc.population(agents))
    tree = lpm.counterfactual(model, do, at=PART, days=DAYS, seed=0, replicates=2 * draws)
    found: dict[str, tuple[float, float, float]] = {}
    for tally, values in amounts(tree).items():
        x = values.isel(chain=0).transpose("draw", "policy").to_numpy().astype(float)
        shared = (x[:draws, 1] - x[:draws, 0]).std(ddof=1)
        # Two seeds subtracted: the policy in some draws, none in others.
        apart = (x[draws:, 1] - x[:draws, 0]).std(ddof=1)
        if np.isfinite(apart) and apart > 0:
            found[str(tally)] = (float((x[:, 1] - x[:, 0]).mean()), float(shared), float(apart))
    return found


def main() -> None:
    """Measure in subprocesses and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--draws", type=int, default=50, help="draws of chance for the spread of an effect")
    parser.add_argument("--spread-agents", type=int, default=20_000)
    parser.add_argument("--model", choices=("seirm", "pandemic"), default="pandemic")
    parser.add_argument("--one", action="store_true", help="measure one size here and print it as JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(costs(args.agents[0], args.repetitions, args.model)))
        return
    rows = []
    for agents in args.agents:
        build = f"import lpmppl as lpm; lpm.nyc.population({agents})"
        subprocess.run([sys.executable, "-c", build], check=True)
        command = [sys.executable, __file__, "--one", "--agents", str(agents), "--model", args.model]
        command += ["--repetitions", str(args.repetitions)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        pairs = [b / a for a, b in zip(found["run"], found["both"], strict=True)]
        memory = max(found["both memory"]) / max(found["run memory"])
        rows.append(
            [
                f"{agents:,}",
                f"{statistics.median(found['run']):.2f}",
                f"{statistics.median(found['both']):.2f}",
                f"{statistics.median(pairs):.2f}",
                f"{max(found['run memory']) / 2**30:.2f}",
                f"{max(found['both memory']) / 2**30:.2f}",
                f"{memory:.2f}",
            ]
        )
    print(f"{args.model}, worlds that part on day {PART} of {DAYS}, {os.cpu_count()} cores\n")
    header = ["agents", "run, s", "two worlds, s", "times", "run, GiB", "two worlds, GiB", "times"]
    print(markdown(header, rows))
    for do in ({"stimulus": 500.0}, {"transmission": 0.7}) if args.model == "pandemic" else ({"transmission": 0.7},):
        rows = [
            [
                name,
                f"{mean:,.1f}",
                f"{shared:,.2f}",
                f"{apart:,.2f}",
                f"{shared / apart:.2f}",
                f"{(apart / shared) ** 2:.0f}" if shared > 0 else "–",
            ]
            for name, (mean, shared, apart) in spreads(args.spread_agents, args.draws, args.model, do).items()
        ]
        policy = ", ".join(f"{name}={value:g}@{PART}" for name, value in do.items())
        print(f"\n{policy}: {args.spread_agents:,} people, {args.draws} draws of chance\n")
        print(markdown(["tally", "effect", "sd, shared chance", "sd, own seeds", "ratio", "runs saved, times"], rows))


if __name__ == "__main__":
    main()
