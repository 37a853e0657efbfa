"""The peak memory and time of full reverse mode through a society, with checkpoints every so many days and without."""

import argparse
import subprocess
import sys
import time

import torch

from gradients import REMOVAL, society
from memory import forget_peak, peak, resident
from table import markdown

MIXED = "households, workplaces, community"


def measure(every: str, agents: int, days: int) -> None:
    """One run with derivatives and a pass backwards, in a process of its own."""
    from contextlib import nullcontext

    import lpmppl as lpm
    from lpmppl.effects.handlers import Checkpointed

    torch.set_num_threads(1)
    model, networks = society(MIXED, agents)
    simulator = lpm.Simulator(
        model, "infections", days, estimator="straight-through", reverse=True, set={"initial_infected": 0.01}
    )
    theta = {"beta": 2.5 * REMOVAL / networks, "gamma": REMOVAL}
    simulator(theta)
    forget_peak()
    before, began = resident(), time.perf_counter()
    free = {n: torch.tensor(x, requires_grad=True) for n, x in theta.items()}
    with nullcontext() if every == "none" else Checkpointed(None if every == "root" else int(every)):
        simulator(free).sum().backward()
    seconds = time.perf_counter() - began
    print(f"{(peak() - before) / 2**20:.0f} {seconds:.1f} {float(free['beta'].grad).hex()}")


def main() -> None:
    """Measure each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--every", nargs="+", default=["none", "1", "3", "root", "15", "30"])
    parser.add_argument("--one", action="store_true", help="measure the first of --every here")
    args = parser.parse_args()
    if args.one:
        return measure(args.every[0], args.agents, args.days)
    rows = []
    for every in args.every:
        command = [sys.executable, __file__, "--one", "--every", every]
        command += ["--agents", str(args.agents), "--days", str(args.days)]
        rows.append([every, *subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()])
        print(rows[-1], flush=True)
    print(markdown(["checkpoint every", "MiB above a run", "seconds", "derivative"], rows))
    return None


if __name__ == "__main__":
    main()
