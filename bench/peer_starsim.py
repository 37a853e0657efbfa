"""The epidemic in Starsim, on the contacts given."""

import starsim as ss

from contacts import People
from epidemic import DEATH, INFECTIOUS, LATENT, Run, measure, seeds


class Static(ss.Network):
    """A network of pairs that stay as they are."""

    def step(self) -> None:
        """Do nothing."""


def build(people: People, beta: float, days: int, seed: int) -> Run:
    """Make a SEIR epidemic on one network for each layer; `beta` is per contact, of which pairs have their weight."""
    agents = len(people)
    networks = [Static(name=name, p1=x.one, p2=x.other, beta=x.weight) for name, x in people.layers.items()]
    disease = ss.SEIR(
        beta=ss.perday(beta),
        init_prev=ss.choose_n(seeds(agents)),
        dur_exp=ss.lognorm_ex(mean=ss.days(LATENT[0]), std=ss.days(LATENT[1])),
        dur_inf=ss.lognorm_ex(mean=ss.days(INFECTIOUS[0]), std=ss.days(INFECTIOUS[1])),
        p_death=ss.bernoulli(p=DEATH),
    )
    sim = ss.Sim(
        n_agents=agents,
        diseases=disease,
        networks=networks,
        start=ss.date("2020-03-01"),
        dur=ss.days(days - 1),
        dt=ss.days(1),
        rand_seed=seed,
        verbose=0,
    )
    sim.init()
    sim.people.age[:] = people.age
    sim.diseases.seir.rel_sus[:] = people.susceptibility

    def run() -> dict[str, float]:
        sim.run()
        infected = float(sum(sim.results["seir"]["new_infections"])) + seeds(agents)
        pairs = sum(len(network) for network in sim.networks())
        return {"attack_rate": infected / agents, "steps": len(sim.results["timevec"]), "pairs": pairs / agents}

    return run


if __name__ == "__main__":
    measure(f"Starsim {ss.__version__}", build)
