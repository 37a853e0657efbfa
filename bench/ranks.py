"""What ranks cost and save: one city on one and on more processes, of one core each, one run after the other.

    python bench/ranks.py [--model seirm] [--agents 8400000] [--days 30] [--ranks 2] [--times 2]

Prints one JSON object: seconds of the run on one rank and on more, each the best of so many; their ratio; whether all
totals are equal; the bytes that a rank sends a day and million people; and the memory of the first rank.
"""

import argparse
import json
import os
import subprocess
import sys
from typing import Any


def simulated(model: str, agents: int, days: int, ranks: int) -> dict[str, Any]:
    """What `lpmppl simulate` says, with one thread a rank."""
    asked = ["--model", model, "--agents", str(agents), "--days", str(days), "--ranks", str(ranks), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "lpmppl", "simulate", "nyc", *asked],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="seirm")
    parser.add_argument("--agents", type=int, default=8_400_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--times", type=int, default=2)
    asked = parser.parse_args()
    found: dict[int, list[dict[str, Any]]] = {1: [], asked.ranks: []}
    for _ in range(asked.times):
        for ranks, runs in found.items():
            runs.append(simulated(asked.model, asked.agents, asked.days, ranks))
    seconds = {ranks: min(run["seconds"] for run in runs) for ranks, runs in found.items()}
    many = found[asked.ranks][0]
    print(
        json.dumps(
            {
                "model": asked.model,
                "agents": asked.agents,
                "days": asked.days,
                "seconds": seconds,
                "speedup": round(seconds[1] / seconds[asked.ranks], 2),
                "equal": all(run["totals"] == many["totals"] for runs in found.values() for run in runs),
                "bytes_a_day_and_million": round(many["bytes_sent"] / asked.days / (asked.agents / 1e6)),
                "peak_rss_mb": {ranks: runs[0]["peak_rss_mb"] for ranks, runs in found.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
