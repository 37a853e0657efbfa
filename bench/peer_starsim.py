"""The epidemic in Starsim, with Covasim's four layers of contacts."""

import starsim as ss

from epidemic import BETA, DEATH, INFECTIOUS, LATENT, Run, measure, seeds


def simulation(agents: int, days: int, seed: int, networks: list[ss.Network], beta: float) -> Run:
    """Make a SEIR epidemic on the given networks; `beta` is per day and contact of weight 1."""
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

    def run() -> dict[str, float]:
        sim.run()
        infected = float(sum(sim.results["seir"]["new_infections"])) + seeds(agents)
        edges = sum(len(network) for network in sim.networks())
        return {"attack_rate": infected / agents, "steps": len(sim.results["timevec"]), "edges": edges / agents}

    return run


def build(agents: int, days: int, seed: int) -> Run:
    """Make the epidemic on households, schools, workplaces and community."""
    return simulation(agents, days, seed, [ss.HybridNet()], BETA)


if __name__ == "__main__":
    measure(f"Starsim {ss.__version__}", build)
