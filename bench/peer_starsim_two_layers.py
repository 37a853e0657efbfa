"""The epidemic in Starsim with two layers: households and one random network of Starsim's default ten contacts."""

import starsim as ss

from epidemic import BETA, CONTACTS, Run, measure
from peer_starsim import simulation

RANDOM_CONTACTS = 10.0  # a day
HOUSEHOLD_WEIGHT = 3.0  # Covasim's weight of a household contact
HOUSEHOLD_CONTACTS = 2.0  # a day


def build(agents: int, days: int, seed: int) -> Run:
    """Make the epidemic with the transmissibility scaled up to the same R0 in a well-mixed population."""
    households = ss.ClusterNet(cluster_size=ss.poisson(lam=HOUSEHOLD_CONTACTS), beta=HOUSEHOLD_WEIGHT)
    community = ss.RandomNet(n_contacts=ss.poisson(lam=RANDOM_CONTACTS), dynamic=False)
    weight = HOUSEHOLD_CONTACTS * HOUSEHOLD_WEIGHT + RANDOM_CONTACTS
    return simulation(agents, days, seed, [households, community], BETA * CONTACTS / weight)


if __name__ == "__main__":
    measure(f"Starsim {ss.__version__}, two layers", build)
