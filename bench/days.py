"""What a day of the pandemic costs as a run goes on, with many infected and with few, through `lpmppl.run`."""

import argparse
import time

import numpy as np
from pyro.poutine.messenger import Messenger

from table import markdown


class Clock(Messenger):
    """Note when the first substep of every day begins."""

    def __init__(self, first: str) -> None:
        super().__init__()
        self.first, self.began = first, []

    def _pyro_substep(self, msg: dict) -> None:
        if msg["args"][0] == self.first:
            self.began.append(time.perf_counter())


def main() -> None:
    """Run both epidemics and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=2_100_000)
    parser.add_argument("--days", type=int, default=168)
    args = parser.parse_args()

    import lpmppl as lpm

    model = lpm.nyc.pandemic(lpm.nyc.population(args.agents))
    lpm.run(model, days=2)  # what torch and Numba do on first use
    rows = []
    for name, acts in (("as it was", ()), ("transmission at a third", (("transmission", 1 / 3, 0),))):
        with Clock(model.parts[0].name) as clock:
            result = lpm.run(model, days=args.days, interventions=acts)
        infections = result["prior_predictive"]["infections"].sum(("chain", "draw", "borough", "age")).values
        for low in range(14, args.days - 27, 28):
            days = np.diff(clock.began)[low : low + 27]
            per_day = infections[low : low + 28].mean() / args.agents * 1e5
            rows.append([name, f"{low}–{low + 27}", f"{per_day:.1f}", f"{np.mean(days) * 1e3:.0f}"])
    print(f"{args.agents:,} agents\n")
    print(markdown(["epidemic", "days", "infections a day per 100,000", "ms per day"], rows))


if __name__ == "__main__":
    main()
