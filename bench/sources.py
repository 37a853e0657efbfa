"""What recording who infected whom adds to a run of the pandemic, in turn in one process."""

import argparse
import time

from table import markdown

DAYS = 60


def main() -> None:
    """Time runs with and without the record, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, nargs="+", default=[200_000, 2_000_000])
    args = parser.parse_args()

    import lpmppl as lpm

    rows = []
    for agents in args.agents:
        model = lpm.nyc.pandemic(lpm.nyc.population(agents))
        lpm.run(model, days=2)  # what torch and Numba do on first use
        seconds = []
        for sources in (None, {"age": "age_band"}):
            start = time.perf_counter()
            lpm.run(model, days=DAYS, sources=sources)
            seconds.append(time.perf_counter() - start)
        rows.append([f"{agents:,}", *(f"{s:.1f}" for s in seconds), f"{seconds[1] / seconds[0]:.2f}"])
    print(markdown(["agents", "run, s", "with nine ages as sources, s", "times"], rows))


if __name__ == "__main__":
    main()
