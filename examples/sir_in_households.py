"""How much of an epidemic happens at home? SIR in households and a well-mixed city, from nothing to a policy."""

from __future__ import annotations

import os

import numpy as np

import lpmppl as lpm
from lpmppl.models.population import Population
from lpmppl.models.sir import SIR

AGENTS = int(os.environ.get("LPMPPL_EXAMPLE_AGENTS", "200000"))


def main() -> None:
    household = np.arange(AGENTS) // 3
    people = Population.of({"household": household, "borough": (np.arange(AGENTS) * 2 // AGENTS).astype("uint8")})
    layers = {"at home only": [people.network("household")], "in town only": [people.everyone()]}
    layers["both"] = [network for networks in layers.values() for network in networks]
    for name, networks in layers.items():
        tree = lpm.run(SIR(people, networks, by={"borough": "borough"}), days=120, seed=0)
        infected = int(tree["prior_predictive"]["infections"].sum())
        print(f"{name:>13}: {infected / AGENTS:6.1%} infected")


if __name__ == "__main__":
    main()
