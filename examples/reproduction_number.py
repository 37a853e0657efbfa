"""What reproduction number does the default transmission give New York? From the growth of an unmitigated epidemic."""

from __future__ import annotations

import os

import numpy as np
import torch

import lpmppl as lpm
from lpmppl.models.periods import lognormal

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "1000000"))


def laplace(mean: float, spread: float, rate: float) -> float:
    """E exp(−rate · T) of a log-normal time, by its quantiles."""
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    time = lognormal(torch.tensor(mean, dtype=torch.float64), spread).icdf(u)
    return float(torch.exp(-rate * time).mean())


def main() -> None:
    model = lpm.nyc.seirm(lpm.nyc.population(AGENTS))
    tree = lpm.run(model, days=40, seed=0, set={"initial_infected": 0.001})
    daily = tree["prior_predictive"]["infections"].sum(("chain", "draw", "borough", "age")).values
    days = np.arange(15, 30)
    growth = float(np.polyfit(days, np.log(daily[days]), 1)[0])
    value = {n: tree["prior"][n].item() for n in model.parameters}
    latent = laplace(value["latent_mean"], value["latent_spread"], growth)
    infectious = laplace(value["infectious_mean"], value["infectious_spread"], growth)
    # R = 1 / E exp(−r · generation time), here of a latent and an infectious period: Wallinga and Lipsitch,
    # Proc. R. Soc. B 274 (2007).
    number = growth * value["infectious_mean"] / (latent * (1 - infectious))
    print(f"growth {growth:.3f} per day, doubling in {np.log(2) / growth:.1f} days, reproduction number {number:.2f}")


if __name__ == "__main__":
    main()
