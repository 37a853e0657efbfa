"""The epidemic in lpmppl: SEIRM among a proportional sample of New York, tallied daily by borough and age.

Everybody meets everybody of its household, workplace or school, and neighbourhood, as in `lpm.nyc.seirm`.
"""

import lpmppl as lpm
from contacts import People
from epidemic import INFECTIOUS, LATENT, SEEDS, Run, measure
from lpmppl.models.seirm import SEIRM


def running(model: SEIRM, beta: float, days: int, seed: int) -> Run:
    """Run a model, and say how many were infected."""
    parameters = {
        "beta": beta,
        "latent_mean": LATENT[0],
        "latent_spread": LATENT[1],
        "infectious_mean": INFECTIOUS[0],
        "infectious_spread": INFECTIOUS[1],
        "initial_infected": SEEDS,
    }

    def run() -> dict[str, float]:
        tree = lpm.run(model, days=days, seed=seed, set=parameters)
        infected = float(tree["prior_predictive"]["infections"].sum())
        return {"attack_rate": infected / model.population.size + SEEDS, "steps": days}

    return run


def build(people: People, beta: float, days: int, seed: int) -> Run:
    """Load the population, which is built where it isn't cached, and make the model."""
    return running(lpm.nyc.seirm(lpm.nyc.population(len(people))), beta, days, seed)


if __name__ == "__main__":
    measure(f"lpmppl {lpm.__version__}", build)
