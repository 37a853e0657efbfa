"""What a simulated day costs on any number of ranks: a model of it, fitted to measurements here, and held to others.

    python bench/cost.py [--model seirm] [--agents 250000 500000 1000000 2000000 4000000] [--days 60]

The seconds of a day of N people on R ranks are taken to be

    a + b N / R + g N + m (R - 1) l + s B

with a the day's own overhead, b the seconds of a rank for each of its people, g those for each person of the city, of
whose workplaces each rank keeps the totals that cross ranks, m the messages a day, l the latency of one (in a ring of
R), B the bytes that a rank sends and s the seconds of each. l and s come from messages of several sizes between two
processes; a, b and g from what runs took outside of messages, on one rank, with another core as busy, and on two; m and
B are counted in runs on two and three, with B = 512 m (R - 1) + c W (R - 1) / R for W workplaces with people on several
ranks, which are counted in the people's partition for any number of ranks. What is held out isn't fitted to. A rank has
one core. What a run takes in messages beyond the model is its waiting for the other rank.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from table import markdown

WORKER = str(Path(__file__).with_name("cost_worker.py"))
SIZES = [512 * 4**k for k in range(8)]
COUNTRY, FAR = 330_000_000, (16, 64)
LOIMOS = "1.5 s a day of the United States, on a supercomputer"
"""Kitson et al., Pandemics In Silico: Scaling an Agent-Based Simulation on Realistic Social Contact Networks (2024)."""

Row = dict[str, Any]


def workers(ranks: int, asked: Sequence[object], beside: int = 1) -> list[Row]:
    """What a worker says, on so many ranks; or the mean of what `beside` workers of one rank say at the same time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    many = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", str(port)]
    command = [sys.executable, *(many if ranks > 1 else []), WORKER, *map(str, asked)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GLOO_SOCKET_IFNAME": "lo"}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        for _ in range(beside)
    ]
    said = [process.communicate() for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{' '.join(command)} failed:\n{said[0][1]}")
    found = [[json.loads(line) for line in out.splitlines() if line.startswith("{")] for out, _ in said]
    return [
        {k: v if isinstance(v, dict) else statistics.mean(each[k] for each in rows) for k, v in rows[0].items()}
        for rows in zip(*found, strict=True)
    ]


def fastest(rows: Sequence[Row]) -> Row:
    """The row with the least seconds."""
    return min(rows, key=lambda row: float(row["seconds"]))


def fitted(features: Sequence[Sequence[float]], measured: Sequence[float]) -> list[float]:
    """Factors of features, 0 or more, with the least squares of relative errors."""
    x, y = np.array(features, float), np.array(measured, float)
    scale = (x / y[:, None]).max(0)
    found, _ = nnls(x / y[:, None] / scale, np.ones(len(y)))
    return [float(v) for v in found / scale]


def residual(measured: float, said: float) -> str:
    """How much more the model says than was measured."""
    return f"{100 * (said / measured - 1):+.0f} %"


@dataclass
class Cost:
    """The model, with everything that it was fitted to."""

    latency: float
    per_byte: float
    told: float
    per_crossing: float
    share: dict[int, float]
    day: float = 0.0
    own: float = 0.0
    city: float = 0.0

    def bytes(self, agents: float, ranks: int) -> float:
        """Bytes that a rank sends a day."""
        crossing = self.share[ranks] * agents if ranks > 1 else 0.0
        return 512 * self.told * (ranks - 1) + self.per_crossing * crossing * (ranks - 1) / ranks

    def messages(self, agents: float, ranks: int) -> float:
        """Seconds a day that messages take."""
        return self.told * (ranks - 1) * self.latency + self.per_byte * self.bytes(agents, ranks)

    def seconds(self, agents: float, ranks: int) -> float:
        """Seconds of a day."""
        return self.day + self.own * agents / ranks + self.city * agents + self.messages(agents, ranks)

    def learn(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Fit what a rank takes for its people and the city's, to what runs took besides messages, by their ranks."""
        features = [[1.0, row["agents"] / ranks, row["agents"]] for ranks, row in rows]
        left = [row["seconds"] - row["waited"] for _, row in rows]
        self.day, self.own, self.city = fitted(features, left)


def told_table(cost: Cost, spoken: Mapping[int, Sequence[Row]]) -> str:
    """What messages take, by their bytes, between two processes and among more."""
    rows = []
    for k, row in enumerate(spoken[2]):
        said = cost.latency + cost.per_byte * row["bytes"]
        cells = [f"{row['bytes']:,.0f}", f"{row['seconds'] * 1e3:.2f}", f"{said * 1e3:.2f}"]
        cells += [residual(row["seconds"], said), "held out" if k % 2 else "fitted"]
        rows.append(cells + [f"{spoken[ranks][k]['seconds'] * 1e3:.2f}" for ranks in (3, 4)])
    header = [
        "bytes to each other rank",
        "2 ranks, ms",
        "model, ms",
        "model's excess",
        "",
        "3 ranks, ms",
        "4 ranks, ms",
    ]
    return markdown(header, rows)


def runs_table(cost: Cost, runs: Mapping[int, Sequence[Row]], held: Sequence[int]) -> str:
    """Days as they were measured, and as the model has them."""
    rows = []
    for ranks, found in runs.items():
        for row in found:
            agents = row["agents"]
            said, sent = cost.seconds(agents, ranks), cost.bytes(agents, ranks)
            # More ranks than cores wait for each other: of those only what they send is fitted to.
            role = "held out" if agents in held else "fitted" if ranks < 3 else "bytes fitted"
            cells = [f"{agents:,.0f} on {ranks}", f"{row['seconds'] * 1e3:.1f}", f"{said * 1e3:.1f}"]
            cells += [residual(row["seconds"], said), role]
            cells += [f"{row['waited'] * 1e3:.1f}", f"{cost.messages(agents, ranks) * 1e3:.1f}"] if ranks > 1 else []
            if ranks > 1:
                cells += [f"{row['messages']:.1f}", f"{row['bytes'] / 1e3:.1f}", f"{sent / 1e3:.1f}"]
                cells += [residual(row["bytes"], sent)]
            rows.append(cells + [""] * (11 - len(cells)))
    header = ["people on ranks", "ms a day", "model, ms", "model's excess", "", "in messages, ms", "model, ms"]
    header += ["messages a day", "kB a day and rank"]
    return markdown([*header, "model, kB", "model's excess"], rows)


def scaling_table(alone: Sequence[Row], two: Sequence[Row]) -> str:
    """The same people on one and on two ranks, and as many on each."""
    by = {row["agents"]: row["seconds"] for row in alone}
    rows = []
    for row in two:
        agents, seconds = row["agents"], row["seconds"]
        cells = [f"{agents:,.0f}", f"{by[agents] * 1e3:.1f}", f"{seconds * 1e3:.1f}", f"{by[agents] / seconds:.2f}"]
        rows.append([*cells, f"{by[agents / 2] / seconds:.2f}" if agents / 2 in by else ""])
    header = ["people", "one rank alone, ms a day", "two ranks, ms a day", "strong: times as fast"]
    return markdown([*header, "weak: half as many on one rank / on two"], rows)


def predicted(cost: Cost, people: int) -> str:
    """A day of a country, by what it is made of."""
    rows = []
    for ranks in FAR:
        sent = cost.bytes(people, ranks)
        parts = [cost.own * people / ranks, cost.city * people, cost.told * (ranks - 1) * cost.latency]
        cells = [f"{seconds:.2f}" for seconds in (*parts, cost.per_byte * sent)]
        rows.append([f"{ranks}", *cells, f"{sent / 1e6:.0f}", f"{cost.seconds(people, ranks):.2f}"])
    header = ["ranks", "own people, s", "the country's, s", "latency, s", "bytes, s", "MB a day and rank", "a day, s"]
    return markdown(header, rows)


def main() -> None:
    """Measure, fit, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("seirm", "pandemic"), default="seirm")
    parser.add_argument("--agents", type=int, nargs="+", default=[250_000, 500_000, 1_000_000, 2_000_000, 4_000_000])
    parser.add_argument("--held", type=int, nargs="*", help="sizes to hold out; by default every other one")
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    sizes = sorted(args.agents)
    held = sizes[1::2] if args.held is None else args.held
    asked = ["--model", args.model, "--days", args.days, "--times", 1, "--agents", *sizes]

    parts = workers(1, ["--crossing", 2, 3, *FAR, "--agents", *sizes])
    crossing = {int(row["agents"]): {int(r): n for r, n in row["crossing"].items()} for row in parts}
    spoken = {ranks: workers(ranks, ["--messages", *SIZES, "--times", args.times]) for ranks in (2, 3, 4)}
    # In turn, so that none has a quieter hour than the others.
    turns = [
        (workers(1, asked), workers(1, asked, beside=2), workers(2, asked), workers(3, asked))
        for _ in range(args.times)
    ]
    alone, *shared = ([fastest(rows) for rows in zip(*found, strict=True)] for found in zip(*turns, strict=True))
    runs = dict(zip((1, 2, 3), shared, strict=True))

    latency, per_byte = fitted([[1.0, row["bytes"]] for row in spoken[2][::2]], [r["seconds"] for r in spoken[2][::2]])
    told = statistics.mean(row["messages"] for row in runs[2] if row["agents"] not in held)
    learnt = [(ranks, row) for ranks in (2, 3) for row in runs[ranks] if row["agents"] not in held]
    content = [row["bytes"] - 512 * told * (ranks - 1) for ranks, row in learnt]
    spread = [[crossing[int(row["agents"])][ranks] * (ranks - 1) / ranks] for ranks, row in learnt]
    largest = crossing[sizes[-1]]
    share = {ranks: many / sizes[-1] for ranks, many in largest.items()}
    cost = Cost(latency, per_byte, told, fitted(spread, content)[0], share)
    cost.learn([(ranks, row) for ranks in (1, 2) for row in runs[ranks] if row["agents"] not in held])

    print(f"{args.model}, {args.days} days, {os.cpu_count()} cores, one a rank; the least of {args.times} runs\n")
    print(told_table(cost, spoken), "\n")
    print(runs_table(cost, runs, held), "\n")
    print(scaling_table(alone, runs[2]), "\n")
    print(f"A day takes {cost.day * 1e3:.2f} ms, and")
    print(f"{cost.own * 1e9:.2f} ns for each person of a rank and {cost.city * 1e9:.2f} ns for each of the city;")
    print(f"{told:.1f} messages a day take {latency * 1e3:.3f} ms each and {per_byte * 1e9:.2f} ns a byte; and")
    print(f"a workplace with people on several of many ranks is {cost.per_crossing:.1f} bytes a day on each.\n")
    print(f"Predicted, not measured: a day of {COUNTRY:,} people. Loimos has taken {LOIMOS}.\n")
    print(predicted(cost, COUNTRY))


if __name__ == "__main__":
    main()
