"""Derivatives of the attack rate by each estimator: bias, spread and cost, from sparse graphs to a mixed city.

Every cell has differences of many draws as its truth; each estimator's spread is that of one draw, relative to it.
"""

import argparse
import math
import time
import warnings

import numpy as np
import torch

from table import markdown

DAYS, REMOVAL = 60, 0.125
DEGREES = (4, 10, 50)
LEVELS = (0.8, 1.5, 2.5, 5.0)
"""Transmissions by one infected person among nothing but susceptible ones, from subcritical to saturated."""


def graph(degree: int, agents: int, rng: np.random.Generator):
    """A random graph of a mean degree, each edge both ways."""
    from lpmppl.models.networks import Edges

    one, other = (torch.from_numpy(rng.integers(0, agents, agents * degree // 2)) for _ in range(2))
    return Edges("graph", torch.cat((one, other)), torch.cat((other, one)), agents)


def society(kind: str, agents: int):
    """A society of one topology, and over how many networks it transmits."""
    from lpmppl.models.population import Population
    from lpmppl.models.sir import SIR

    rng = np.random.default_rng(0)
    i = np.arange(agents)
    people = Population.of({"household": i // 3, "workplace": rng.integers(0, max(1, agents // 20), agents)})
    if kind.startswith("degree"):
        networks = [graph(int(kind.split()[1]), agents, rng)]
    elif kind == "complete":
        networks = [people.everyone()]
    else:
        networks = [people.network("household"), people.network("workplace"), people.everyone()]
    return SIR(people, networks), len(networks)


def main() -> None:
    """Fill the grid, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=4, help="draws of each estimator")
    parser.add_argument("--flips", type=int, default=96)
    parser.add_argument("--truth", type=int, default=32, help="draws of the differences that are taken for the truth")
    parser.add_argument(
        "--estimators",
        nargs="+",
        default=["differences", "flips", "score", "straight-through", "gumbel-softmax", "mean-field"],
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    import lpmppl as lpm

    rows = []
    for kind in (*(f"degree {d}" for d in DEGREES), "complete", "households, workplaces, community"):
        model, networks = society(kind, args.agents)
        for level in LEVELS:
            at = {"beta": level * REMOVAL / networks, "gamma": REMOVAL, "initial_infected": 0.01}
            ask = {"days": DAYS, "set": at, "audit": False}
            truth = lpm.sensitivity(model, "infections", "beta", seed=1, draws=args.truth, **ask).isel(parameter=0)
            run = lpm.run(model, DAYS, set=at)["prior_predictive"]["infections"]
            cells = [
                kind,
                f"{level:g}",
                f"{float(run.sum()) / args.agents + 0.01:.2f}",
                f"{float(truth['value']):,.0f}",
            ]
            cells[-1] += f" ± {float(truth['se']):,.0f}"
            for estimator in args.estimators:
                began = time.perf_counter()
                found = lpm.sensitivity(
                    model, "infections", "beta", seed=2, draws=args.draws, flips=args.flips, estimator=estimator, **ask
                ).isel(parameter=0)
                seconds = (time.perf_counter() - began) / args.draws
                ratio = float(found["value"] / truth["value"])
                error = abs(ratio) * math.hypot(
                    float(found["se"] / found["value"]), float(truth["se"] / truth["value"])
                )
                spread = float(found["se"]) * math.sqrt(args.draws) / abs(float(truth["value"]))
                cells += [f"{ratio:.3g} ± {error:.2g}", f"{spread:.2g}", f"{seconds:.1f}"]
            rows.append(cells)
            print(cells, flush=True)
    head = ["network", "R", "attack", "truth, infections per unit"]
    head += [f"{e}: {m}" for e in args.estimators for m in ("of the truth", "spread", "s a draw")]
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
