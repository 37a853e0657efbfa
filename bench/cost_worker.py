"""One process of cost.py's measurements, alone or as a rank that torchrun has started; the first prints JSON lines."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

import torch

import lpmppl as lpm
from lpmppl.effects.ranks import Ranks


def timed(job: Callable[[], object], times: int) -> list[float]:
    """Seconds of a job, so many times."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        job()
        found.append(time.perf_counter() - start)
    return found


def messages(ranks: Ranks, sizes: list[int], times: int) -> list[dict[str, float]]:
    """Seconds of telling every other rank so many bytes, by how many."""
    rows = []
    for size in sizes:
        tell = partial(ranks.rows, torch.ones(size // 8, dtype=torch.int64))
        timed(tell, 3)
        rows.append({"bytes": size, "seconds": statistics.median(timed(tell, times))})
    return rows


def crossing(agents: int, parts: list[int]) -> dict[int, int]:
    """How many workplaces have people on several ranks, by how many ranks share the population."""
    import numpy as np

    from lpmppl.models.partition import parted

    people = lpm.nyc.population(agents)
    place = people["workplace"].numpy().astype(np.int64)
    found = {}
    for ranks in parts:
        part = parted(lambda name: people.dataset[name].to_numpy() if name in people.dataset else None, ranks)
        pairs = np.unique(place * ranks + part) // ranks
        found[ranks] = int((np.bincount(pairs)[1:] > 1).sum())
    return found


def epidemic(ranks: Ranks | None, model: str, agents: int, days: int, times: int) -> dict[str, Any]:
    """Seconds, those that messages took with waiting for others, bytes and messages a day of the fastest run."""
    people = lpm.nyc.population(agents, ranks=ranks)
    make = getattr(lpm.nyc, model)
    calls: list[float] = []
    tell = Ranks._told

    def counted(self: Ranks, call: Callable[[], object]) -> None:
        calls.extend(timed(lambda: tell(self, call), 1))

    def once() -> dict[str, Any]:
        calls.clear()
        before = 0 if ranks is None else ranks.sent
        with ExitStack() as stack:
            if ranks is not None:
                stack.enter_context(lpm.Sharded(ranks))
                stack.enter_context(patch.object(Ranks, "_told", counted))
            (seconds,) = timed(lambda: lpm.run(make(people), days=days), 1)
        sent = 0 if ranks is None else ranks.sent - before
        found = {"seconds": seconds, "waited": sum(calls), "bytes": sent, "messages": len(calls)}
        return {"agents": agents, **{name: value / days for name, value in found.items()}}

    once()  # what is compiled or loaded on first use
    return min((once() for _ in range(times)), key=lambda run: float(run["seconds"]))


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="seirm")
    parser.add_argument("--agents", type=int, nargs="*", default=[])
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--times", type=int, default=2)
    parser.add_argument("--messages", type=int, nargs="*", default=[], help="bytes of messages to time")
    parser.add_argument("--crossing", type=int, nargs="*", default=[], help="numbers of ranks to part people among")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ranks = Ranks.begin() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else None
    found: list[dict[str, Any]] = []
    if args.messages and ranks is not None:
        found += messages(ranks, args.messages, 10 * args.times)
    if args.crossing:
        found += [{"agents": n, "crossing": crossing(n, args.crossing)} for n in args.agents]
    elif args.agents:
        found += [epidemic(ranks, args.model, n, args.days, args.times) for n in args.agents]
    if ranks is None or ranks.rank == 0:
        for each in found:
            print(json.dumps(each), flush=True)
    if ranks is not None:
        ranks.end()


if __name__ == "__main__":
    main()
