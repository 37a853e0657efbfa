"""The epidemic in Covasim, on the contacts given, without waning immunity."""

import covasim as cv

from contacts import People
from epidemic import INFECTIOUS, LATENT, Run, measure, seeds
from peer_starsim import Static

LAYERS = {"household": "h", "workplace": "w", "school": "s", "community": "c"}


def build(people: People, beta: float, days: int, seed: int) -> Run:
    """Make the epidemic on one network for each layer; `beta` is per contact, of which pairs have their weight."""
    agents = len(people)
    dur = cv.make_pars()["dur"]
    dur["exp2inf"].update(par1=LATENT[0], par2=LATENT[1])
    for end in ("asym2rec", "mild2rec"):
        dur[end].update(par1=INFECTIOUS[0], par2=INFECTIOUS[1])
    networks = [Static(name=LAYERS[n], p1=x.one, p2=x.other, beta=x.weight) for n, x in people.layers.items()]
    sim = cv.Sim(
        pop_size=agents,
        pop_type="hybrid",
        networks=networks,
        beta_layer=dict.fromkeys(LAYERS.values(), 1.0),
        pop_infected=seeds(agents),
        beta=beta,
        dur=dur,
        start_day="2020-03-01",
        n_days=days - 1,
        rand_seed=seed,
        use_waning=False,
        rescale=False,
        verbose=0,
    )
    sim.init()
    covid = sim.diseases.covid
    # Symptoms, severity and death go by the people's own ages; who was infected first has those of the age it had.
    sim.people.age[:] = people.age
    covid.init_prognoses()
    covid.rel_sus[:] = people.susceptibility

    def run() -> dict[str, float]:
        sim.run()
        infected = float(sum(sim.results["new_infections"]))
        pairs = sum(len(network) for network in sim.networks())
        return {"attack_rate": infected / agents, "steps": len(sim.results["timevec"]), "pairs": pairs / agents}

    return run


if __name__ == "__main__":
    measure(f"Covasim {cv.__version__}", build)
