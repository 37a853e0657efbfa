"""The epidemic in lpmppl: SEIRM among a proportional sample of New York, tallied daily by borough and age."""

import lpmppl as lpm
from epidemic import INFECTIOUS, LATENT, SEEDS, Run, measure

PARAMETERS = {
    "beta": 0.05,  # transmissions per contact: as many are infected as in Covasim
    "latent_mean": LATENT[0],
    "latent_spread": LATENT[1],
    "infectious_mean": INFECTIOUS[0],
    "infectious_spread": INFECTIOUS[1],
    "initial_infected": SEEDS,
}


def build(agents: int, days: int, seed: int) -> Run:
    """Load the population, which is built where it isn't cached, and make the model."""
    model = lpm.nyc.seirm(lpm.nyc.population(agents))

    def run() -> dict[str, float]:
        tree = lpm.run(model, days=days, seed=seed, set=PARAMETERS)
        infected = float(tree["prior_predictive"]["infections"].sum())
        return {"attack_rate": infected / agents + SEEDS, "steps": days}

    return run


if __name__ == "__main__":
    measure(f"lpmppl {lpm.__version__}", build)
