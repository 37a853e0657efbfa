"""Fit two parameters to a society's daily counts by gradient descent, with the gradients of each estimator.

The counts are a mean over draws of everybody's chance at known parameters; every fit begins at the same others and sees
draws of its own, the same in every step. What differs is the gradient, and for mean-field what comes out too.
"""

import argparse
import time

import torch

from gradients import REMOVAL, society
from table import markdown

DAYS, LEVEL, STEPS = 40, 2.5, 40
START = 1.5
"""Where a fit begins, over the truth."""


def main() -> None:
    """Fit, and print where each estimator ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="degree 4")
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--estimators", nargs="+", default=["differences", "straight-through", "mean-field"])
    args = parser.parse_args()
    torch.set_num_threads(1)

    import lpmppl as lpm

    model, networks = society(args.network, args.agents)
    truth = {"reproduction number": LEVEL, "removal": REMOVAL}

    def parameters(reproduction, removal):
        return {"beta": reproduction * removal / networks, "gamma": removal}

    settings = {"days": DAYS, "set": {"initial_infected": 0.03}}
    tallies = ["infections", "infectious"]
    chance = lpm.Simulator(model, tallies, **settings)
    seen = sum(chance(parameters(*truth.values()), draw=1000 + d) for d in range(16)) / 16

    def misfit(simulator, at):
        expected = sum(simulator(parameters(*at), draw=d) for d in range(args.draws)) / args.draws
        return ((expected - seen) ** 2 / (seen + 1)).mean()

    def row(name, at, seconds):
        ends = [*(f"{x:.3f}" for x in at), f"{float(misfit(chance, at)):.3g}", f"{seconds:.0f}"]
        print([name, *ends], flush=True)
        return [name, *ends]

    begin = [START * x for x in truth.values()]
    rows = [row("the truth", list(truth.values()), 0), row("the beginning", begin, 0)]
    for estimator in args.estimators:
        simulator = lpm.Simulator(model, tallies, estimator=estimator, reverse=True, **settings)
        began = time.perf_counter()
        free = torch.tensor(begin, dtype=torch.float64).log().requires_grad_()
        descent = torch.optim.Adam([free], lr=0.1)
        slower = torch.optim.lr_scheduler.CosineAnnealingLR(descent, STEPS)
        for _ in range(STEPS):
            descent.zero_grad()
            misfit(simulator, free.exp()).backward()
            descent.step()
            slower.step()
        rows.append(row(estimator, free.detach().exp().tolist(), time.perf_counter() - began))
    print(markdown(["gradient", *truth, "misfit", "seconds"], rows))


if __name__ == "__main__":
    main()
