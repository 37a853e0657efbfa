"""Calibration across five institutions' processes beside the same in one place.

    python bench/private_calibration.py [--agents 20000] [--days 40] [--simulations 512]

Each borough is a process with its own people and data, that learns one network with the others by sums in secret among
three helpers; beside it `CalibNN` learns from all five in one process, from the same runs. Prints one JSON object: the
losses of both, by borough, and their means; the largest difference of a posterior mean, in posterior standard
deviations; seconds; and what an institution sends in a round.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import lpmppl as lpm
from lpmppl.inference.calibnn import CalibNN
from lpmppl.models.population import Population
from lpmppl.parties.certificates import issue
from lpmppl.parties.institution import LONGEST, by_borough, fingerprint
from lpmppl.parties.session import COORDINATOR, Session, helper_name
from lpmppl.parties.trial import Processes

TRUTH = {"beta": 0.35, "gamma": 0.12, "initial_infected": 0.01}


def society(people: Population) -> lpm.models.sir.SIR:
    """An institution's society."""
    return lpm.nyc.sir(people, by={"borough": "borough"})


def apart(folder: Path, regions: dict[str, Population], days: int, simulations: int) -> dict[str, Any]:
    """Learn across processes: what each institution says at its end."""
    session = Session.new(
        model=fingerprint(["infections"], days, simulations, 0, 1),
        helpers=3,
        clients=dict.fromkeys(regions, 1),
        least=2,
        deadline=120.0,
        longest=LONGEST,
    )
    session.save(folder / "session.json")
    issue(folder / "certificates", session.parties)
    asked = ("--days", str(days), "--simulations", str(simulations))
    with Processes(folder) as processes:
        ports = [processes.begin(helper_name(k), "aggregator", "--index", str(k), "--port", "0") for k in range(3)]
        helpers = ",".join(f"127.0.0.1:{port}" for port in ports)
        at = processes.begin(COORDINATOR, "coordinator", "--port", "0", "--helpers", helpers)
        where = ("--helpers", helpers, "--coordinator", f"127.0.0.1:{at}")
        for name, people in regions.items():
            people.save(folder / f"{name}.zarr")
            own = ("--people", f"{name}.zarr", "--data", f"{name}.csv", "--out", f"{name}.nc")
            processes.start(name, "calibrate", "--name", name, *own, *where, *asked)
        while not processes.ended(list(regions)):
            time.sleep(0.5)
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in regions}


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=40)
    parser.add_argument("--simulations", type=int, default=512)
    given = parser.parse_args()
    regions = by_borough(lpm.nyc.population(given.agents))
    with tempfile.TemporaryDirectory() as passing:
        folder, data = Path(passing), {}
        for k, (name, people) in enumerate(regions.items()):
            run = lpm.run(society(people), days=given.days, seed=100 + k, set=TRUTH)["prior_predictive"].to_dataset()
            data[name] = {"infections": run["infections"].sum("borough").values[0, 0].tolist()}
            rows = "\n".join(str(int(x)) for x in data[name]["infections"])
            (folder / f"{name}.csv").write_text(f"infections\n{rows}\n")
        began = time.perf_counter()
        found = apart(folder, regions, given.days, given.simulations)
        seconds = time.perf_counter() - began
        fits = {name: xr.open_datatree(folder / f"{name}.nc") for name in regions}
        began = time.perf_counter()
        pooled = CalibNN({name: society(people) for name, people in regions.items()}, "infections", given.days)
        losses = pooled.learn(given.simulations)
        pooled_seconds = time.perf_counter() - began
        far = 0.0
        for name in regions:
            mine, all_in_one = fits[name]["posterior"].to_dataset(), pooled.posterior(data[name], name)["posterior"]
            for p in mine.data_vars:
                spread = float(all_in_one[str(p)].std())
                far = max(far, abs(float(mine[str(p)].mean()) - float(all_in_one[str(p)].mean())) / spread)
    one = next(iter(found.values()))
    print(
        json.dumps(
            {
                "loss_apart": {name: round(each["loss"], 4) for name, each in found.items()},
                "loss_pooled": {name: round(x, 4) for name, x in losses.items()},
                "mean_apart": round(float(np.mean([each["loss"] for each in found.values()])), 4),
                "mean_pooled": round(float(np.mean([*losses.values()])), 4),
                "rounds": one["rounds"],
                "bytes_a_round": round(one["bytes_sent"] / one["rounds"]),
                "posterior_means_differ_by_sd": round(far, 4),
                "seconds_apart": round(seconds, 1),
                "seconds_pooled": round(pooled_seconds, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
