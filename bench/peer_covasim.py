"""The epidemic in Covasim, with its hybrid population and without waning immunity."""

import covasim as cv

from epidemic import BETA, INFECTIOUS, LATENT, Run, measure, seeds


def build(agents: int, days: int, seed: int) -> Run:
    """Make the epidemic on households, schools, workplaces and community."""
    dur = cv.make_pars()["dur"]
    dur["exp2inf"].update(par1=LATENT[0], par2=LATENT[1])
    for end in ("asym2rec", "mild2rec"):
        dur[end].update(par1=INFECTIOUS[0], par2=INFECTIOUS[1])
    sim = cv.Sim(
        pop_size=agents,
        pop_type="hybrid",
        pop_infected=seeds(agents),
        beta=BETA,
        dur=dur,
        start_day="2020-03-01",
        n_days=days - 1,
        rand_seed=seed,
        use_waning=False,
        rescale=False,
        verbose=0,
    )
    sim.init()

    def run() -> dict[str, float]:
        sim.run()
        infected = float(sum(sim.results["new_infections"]))
        edges = sum(len(network) for network in sim.networks())
        return {"attack_rate": infected / agents, "steps": len(sim.results["timevec"]), "edges": edges / agents}

    return run


if __name__ == "__main__":
    measure(f"Covasim {cv.__version__}", build)
