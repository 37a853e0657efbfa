"""Learn to calibrate several regions with one network, and with one for each, and score runs that neither has seen.

Regions are societies of different sizes who meet as one group for thirty days, with the log-uniform parameters of
bench/calibration.py; daily infections are observed. The score is the mean of -log q(parameters | counts) in nats, over
fresh runs at the priors' parameters: less is better, and least in expectation is the posterior itself. The last region
is one that no network but its own has seen a run of.
"""

from __future__ import annotations

import argparse
import time

import torch

import calibration
from table import markdown

SIZES = (600, 1000, 1700, 3000, 5000)
UNSEEN, FRESH = 2300, 1000


def region(agents):
    """A society of so many people."""
    calibration.AGENTS = agents
    return calibration.society()


def score(network, fresh, task=""):
    """The mean score of fresh runs."""
    u, counts = fresh
    return -float(network.given(counts, task).log_prob(u).mean())


def learnt(models, simulations, seed, guide):
    """A network that has learnt from so many runs of each society, and for how long it did."""
    from lpmppl.inference.calibnn import CalibNN

    began = time.perf_counter()
    network = CalibNN(models, "infections", calibration.DAYS, seed=seed, guide=guide)
    network.learn(simulations)
    return network, time.perf_counter() - began


def new_york(data, simulations, seed, guide):
    """What a network learns of the pandemic in a sample of the city, whose transmission varies by time and place."""
    import lpmppl as lpm
    from lpmppl.cli.counts import counted
    from lpmppl.models import nyc

    model = nyc.varying(nyc.population(84_000), 92, "2020-03-01", within="borough")
    names = [n for n in model.parameters if n in nyc.FITTED or n not in model.model.parameters]
    streams = {"admissions": ["borough"], "deaths": ["borough"]}
    network = lpm.CalibNN(model, streams, 92, parameters=names, seed=seed, guide=guide)
    began = time.perf_counter()
    held_out = network.learn(simulations)[""]
    fit = network.posterior(counted(data, list(streams), ""), simulations=8)
    print(f"mean of -log q of the second half of the runs, before they were learnt from: {held_out:.2f} nats")
    print(f"{simulations} runs, {time.perf_counter() - began:.0f} s: {fit.attrs['verdict']}\n")
    rows = []
    for name in names:
        mine, before = fit["posterior"][name], fit["prior"][name]
        held = float(network.calibration()["coverage"].sel(parameter=name))
        rows.append(
            [name, f"{float(mine.mean()):.3g}", f"{float(mine.std()):.2g}", f"{float(before.std()):.2g}", f"{held:.0%}"]
        )
    print(markdown(["parameter", "mean", "sd", "sd of the prior", "90 % intervals held in runs"], rows))


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1024, help="runs of each region, where it is alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guide", default="spline", help="spline or multivariate-normal")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", help="instead, New York's first 92 days by this file, in a city of 84,000")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.data:
        new_york(args.data, args.simulations, args.seed, args.guide)
        return
    from lpmppl.inference.calibnn import CalibNN

    regions = {f"{n:,} people": region(n) for n in (*SIZES, UNSEEN)}
    *known, unseen = regions
    fresh = {}
    for name, model in regions.items():
        of = CalibNN(model, "infections", calibration.DAYS, seed=10_000 + args.seed)
        fresh[name] = of.simulated("", FRESH)
    together, seconds = learnt({n: regions[n] for n in known}, args.simulations // 2, args.seed, args.guide)
    print(f"together, {args.simulations // 2} runs of each region: {seconds:.0f} s")
    print(f"{'region':>14} {'prior':>7} {'alone':>7} {'alone, half':>12} {'together, half':>15}")
    for name in regions:
        u = fresh[name][0]
        prior = -float(torch.distributions.Normal(u.mean(0), u.std(0)).log_prob(u).sum(-1).mean())
        whole, half = (
            score(learnt(regions[name], n, args.seed, args.guide)[0], fresh[name])
            for n in (args.simulations, args.simulations // 2)
        )
        if name == unseen:
            task = together._task(name, regions[name], ())
            mine = -float(together._network()(task, fresh[name][1]).log_prob(u).mean())
        else:
            mine = score(together, fresh[name], name)
        print(f"{name:>14} {prior:7.2f} {whole:7.2f} {half:12.2f} {mine:15.2f}", flush=True)


if __name__ == "__main__":
    main()
