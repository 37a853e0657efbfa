"""Derivatives along paths: what they cost in a whole city, and on which contacts they are right.

Each figure is beside a run without derivatives, or beside differences, of the same process.
"""

import argparse
import time
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from gradients import graph
from memory import forget_peak, peak, resident
from table import markdown


def daily(base):
    """The same model with a factor on each layer's contacts on each day, `rates` of shape (layers, days)."""
    from lpmppl.models.seirm import SEIRM, progression, transmission
    from lpmppl.models.substep import compose

    class Daily(SEIRM):
        def day(self, theta):
            today = [SimpleNamespace(network=layer.network) for layer in self.layers]
            first = progression(self.population, [layer.network for layer in self.layers], theta, self.by)
            whole = compose(first, transmission(self.population, today, theta, self.by))

            def step(s):
                for layer, now, rate in zip(self.layers, today, theta["rates"][:, int(s["t"])], strict=True):
                    now.contacts = layer.contacts * rate
                return whole(s)

            return step

    model = Daily(base.population, base.layers)
    model.by = base.by
    return model


def costs(agents: int, days: int) -> None:
    """A run, derivatives by 3 parameters, and by one for each layer and day."""
    import lpmppl as lpm
    from lpmppl.effects.handlers import Pathwise
    from lpmppl.inference.flipping import Question
    from lpmppl.inference.pathwise import along_paths, carried
    from lpmppl.inference.readings import reading_of

    model = lpm.nyc.seirm(lpm.nyc.population(agents))
    rows, population = [], resident()

    def timed(what: str, many: int, job) -> None:
        forget_peak()
        began = time.perf_counter()
        job()
        seconds = time.perf_counter() - began
        rows.append([what, f"{many}", f"{seconds:.1f}", f"{(peak() - population) / 2**30:.2f}"])

    lpm.run(model, 2)
    timed("a run", 0, lambda: lpm.run(model, days))
    theta = {n: p.default for n, p in model.parameters.items()}
    names = ["beta", "latent_mean", "infectious_mean"]
    question = Question(model, theta, names, "infections", reading_of(model, "infections", theta, days), days, 0)
    timed("a draw, looking for what it doesn't see", 3, lambda: along_paths(question, 0))
    timed("a draw", 3, lambda: along_paths(question, 1, look=False))
    each_day = replace(question, read=reading_of(model, "infections", theta, days, daily=True))
    timed("a draw, each day by itself", 3, lambda: along_paths(each_day, 1, look=False))
    many = daily(model)

    def by_layer_and_day() -> None:
        rates = torch.ones(len(model.layers), days, requires_grad=True)
        values = question.values() | {"rates": rates}
        paths = Pathwise(tallies=["infections"])
        with question.playing(2, paths) as record:
            replace(question, model=many).days_from(values, many.initial(values), 0, days)
        (total,) = carried(question, paths, question.series(record))
        (found,) = torch.autograd.grad(total, rates)
        assert bool((found[:, : days - 2] != 0).any(1).all())

    timed("a draw", len(model.layers) * days, by_layer_and_day)
    timed("a run", 0, lambda: lpm.run(model, days))
    print(f"{agents:,} agents, {days} days\n")
    print(markdown(["", "parameters", "seconds", "GiB above the population"], rows))


def contacts(agents: int, draws: int) -> None:
    """Infections by β in SEIRM on graphs, among everybody, and in New York."""
    import lpmppl as lpm
    from lpmppl.models.contacts import Layer
    from lpmppl.models.seirm import SEIRM

    people, rng = lpm.nyc.population(agents), np.random.default_rng(0)

    cases = {
        "graph of degree 4": [Layer(graph(4, agents, rng), 8.0)],
        "graph of degree 10": [Layer(graph(10, agents, rng), 8.0)],
        "graph of degree 50": [Layer(graph(50, agents, rng), 8.0)],
        "degree 4, 2.5 % of contacts with everybody": [
            Layer(graph(4, agents, rng), 7.8),
            Layer(people.everyone(), 0.2),
        ],
        "everybody with everybody": [Layer(people.everyone(), 8.0)],
        "New York": lpm.nyc.seirm(people).layers,
    }
    rows = []
    for name, layers in cases.items():
        model, found = SEIRM(people, layers), []
        for estimator in ("pathwise", "differences"):
            ask = {"draws": draws, "audit": False, "set": {"initial_infected": 0.01}}
            found.append(lpm.sensitivity(model, "infections", ["beta"], 60, estimator=estimator, **ask))
        values = [x.isel(parameter=0) for x in found]
        cells = [f"{float(x['value']):,.0f} ± {float(x['se']):,.0f}" for x in values]
        ratio = float(values[0]["value"] / values[1]["value"])
        rows.append([name, *cells, f"{ratio:.2f}", f"{float(found[0]['plateau'].sel(site='infection')):.3f}"])
    print(markdown(["contacts", "along paths", "differences", "ratio", "plateau"], rows))


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=0, help="8,400,000 for costs and 10,000 for contacts by default")
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--contacts", action="store_true", help="on which contacts they are right, not what they cost")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.contacts:
        torch.set_num_threads(1)
        contacts(args.agents or 10_000, args.draws)
    else:
        costs(args.agents or 8_400_000, args.days)


if __name__ == "__main__":
    main()
