"""Learn to calibrate where series, or societies, belong to different institutions, beside learning from all at once.

The society is that of bench/calibration.py; daily infections and recoveries are observed. Split: infections belong to
one institution and recoveries to another. Federated: three societies of different sizes, of which daily infections are
observed, belong to one institution each. The score is the mean of -log q(parameters | counts) in nats, over fresh runs
at the priors' parameters.
"""

from __future__ import annotations

import argparse
import time

import torch

import calibration
from calibnn import FRESH, region

SIZES = (600, 1000, 1700)


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1024, help="runs of each society")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    import lpmppl as lpm

    streams, days = ["infections", "recoveries"], calibration.DAYS
    regions = {f"{n:,} people": region(n) for n in SIZES}
    one = region(SIZES[1])
    makers = {
        "pooled, two series": lambda seed: lpm.CalibNN(one, streams, days, seed=seed),
        "split by series": lambda seed: lpm.SplitCalibNN(one, {s: s for s in streams}, days, seed=seed),
        "pooled, three societies": lambda seed: lpm.CalibNN(regions, "infections", days, seed=seed),
        "federated, 1 step a round": lambda seed: lpm.FederatedCalibNN(regions, "infections", days, seed=seed),
        "federated, 10 steps a round": lambda seed: lpm.FederatedCalibNN(
            regions, "infections", days, local=10, seed=seed
        ),
    }
    fresh = {}
    for tasks, of in (({"": one}, streams), (regions, "infections")):
        for name, model in tasks.items():
            fresh[name] = lpm.CalibNN(model, of, days, seed=10_000).simulated("", FRESH)
    print(f"{args.simulations} runs of each society, {len(args.seeds)} seeds")
    print(f"{'learnt':>28} {'seconds':>8} {'MB sent':>8} {'nats, by seed':>14}")
    for name, make in makers.items():
        scores, seconds, sent = [], 0.0, 0.0
        for seed in args.seeds:
            began = time.perf_counter()
            network = make(seed)
            network.learn(args.simulations)
            seconds += time.perf_counter() - began
            sent += sum(getattr(network, "traffic", {}).values())
            found = [-network.given(fresh[t][1], t).log_prob(fresh[t][0]).mean() for t in network.tasks]
            scores.append(float(sum(found)) / len(found))
        each = " ".join(f"{x:.3f}" for x in scores)
        n = len(scores)
        print(f"{name:>28} {seconds / n:8.0f} {sent / n / 1e6:8.0f} {sum(scores) / n:7.3f} ({each})", flush=True)


if __name__ == "__main__":
    main()
