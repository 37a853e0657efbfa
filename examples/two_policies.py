"""What would one policy, the other, or both have done? Four worlds of New York in one run, by ChiRho's own handlers."""

from __future__ import annotations

import os

import torch
from chirho.counterfactual.handlers import MultiWorldCounterfactual
from chirho.dynamical.handlers.interruption import DynamicIntervention, StaticIntervention

import lpmppl as lpm

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "200000"))


def main() -> None:
    model = lpm.nyc.seirm(lpm.nyc.population(AGENTS))
    masks = StaticIntervention(torch.tensor(20.0), {"transmission": torch.tensor([0.8])})
    # Closing waits until one in fifty is infectious, in each world on the day on which that world gets there.
    closing = DynamicIntervention(
        lambda _, s: s["infectious"].sum(-1, keepdim=True) - AGENTS / 50, {"transmission": torch.tensor([0.4])}
    )
    with MultiWorldCounterfactual(first_available_dim=-3), masks, closing:
        tree = lpm.run(model, days=90, seed=0, set={"initial_infected": 0.002})
    infections = tree["prior_predictive"]["infections"].sum(("chain", "draw", "day", "borough", "age"))
    for closed in (0, 1):
        for masked in (0, 1):
            total = int(infections.isel({"event/0": closed, "t=20": masked}))
            policy = " and ".join(n for n, on in (("masks", masked), ("closing", closed)) if on) or "nothing"
            print(f"{policy:>17}: {total / AGENTS:6.1%} infected")


if __name__ == "__main__":
    main()
