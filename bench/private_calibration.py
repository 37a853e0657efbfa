"""Calibration across institutions' processes beside the same in one place.

    python bench/private_calibration.py [--agents 20000] [--days 40] [--simulations 512] [--split]

Each borough is a process with its own people and data, that learns one network with the others by sums in secret among
three helpers; beside it `CalibNN` learns from all five in one process, from the same runs. Prints one JSON object: the
losses of both, by borough, and their means; the largest difference of a posterior mean, in posterior standard
deviations; seconds; and what an institution sends in a round.

With --split two institutions, of which hospitals see infections and a registry sees recoveries, read for a server that
has all people, each a process; beside it `SplitCalibNN` in one process. It prints losses, posteriors and seconds,
bytes by kind of message, and what readings tell: of the variance of a day's count, in logarithms, over fresh runs, the
share that ridge regression explains whose server asked for readings of runs that it knows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

import lpmppl as lpm
from lpmppl.inference.calibnn import CalibNN
from lpmppl.inference.split import SplitCalibNN
from lpmppl.models.population import Population
from lpmppl.parties.agreement import SplitAgreement
from lpmppl.parties.certificates import issue
from lpmppl.parties.institution import LONGEST, by_borough, fingerprint
from lpmppl.parties.session import COORDINATOR, Session, helper_name
from lpmppl.parties.trial import Processes

WHOSE = {"hospitals": "infections", "registry": "recoveries"}
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


class Parties(Processes):
    """Processes of split learning: those of institutions answer, and the server's says what it found."""

    def start(self, name: str, command: str, *options: str) -> None:
        """Start a party."""
        common = ("--session", "session.json", "--certificates", "certificates", "--state", f"{name}.state")
        self._ending |= {name} if command == "server" else set()
        with (self.folder / f"{name}.log").open("ab") as log, (self.folder / f"{name}.json").open("wb") as out:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "lpmppl", "party", command, *common, *options],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
                stdout=out,
                stderr=log,
            )


def split_apart(folder: Path, people: Population, days: int, simulations: int) -> dict[str, Any]:
    """Learn across processes: what the server says at its end."""
    session = SplitAgreement(WHOSE, days, simulations).session(society(people), deadline=120.0)
    session.save(folder / "session.json")
    issue(folder / "certificates", session.parties)
    people.save(folder / "city.zarr")
    whose = (part for name, stream in WHOSE.items() for part in ("--institution", f"{name}={stream}"))
    asked = (*whose, "--days", str(days), "--simulations", str(simulations))
    with Parties(folder) as processes:
        at = {
            name: processes.begin(name, "institution", "--name", name, "--data", f"{name}.csv", *asked)
            for name in WHOSE
        }
        where = ",".join(f"{name}=127.0.0.1:{port}" for name, port in at.items())
        own = ("--people", "city.zarr", "--institutions", where, "--out", "fit.nc", "--json")
        processes.start(COORDINATOR, "server", *own, *asked)
        while not processes.ended([COORDINATOR]):
            time.sleep(0.5)
    found: dict[str, Any] = json.loads((folder / f"{COORDINATOR}.json").read_text())
    return found


def told(network: SplitCalibNN, fresh: int = 256) -> dict[str, float]:
    """By institution, which share of the variance of a day's logarithm of counts its readings explain."""
    task, runs = network.tasks[""], network._runs[""]
    known, unknown = runs.counts, network.simulated("", fresh)[1]
    found = {}
    with torch.no_grad():
        reads = [network._readings(task, counts) for counts in (known, unknown)]
    for k, (name, stream) in enumerate(WHOSE.items()):
        x, new = (torch.cat([part[k].flatten(1), torch.ones(len(part[k]), 1)], 1).double() for part in reads)
        y, truth = (
            torch.from_numpy(np.log1p(task.ensemble.observed.only([stream], c.numpy()))) for c in (known, unknown)
        )
        weights = torch.linalg.solve(x.T @ x + 1e-3 * torch.eye(x.shape[1]), x.T @ y)
        left = ((truth - new @ weights) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum()
        found[name] = round(1 - float(left), 3)
    return found


def split(agents: int, days: int, simulations: int) -> dict[str, Any]:
    """Split learning across processes beside one process."""
    torch.set_num_threads(1)
    people = lpm.nyc.population(agents)
    with tempfile.TemporaryDirectory() as passing:
        folder, data = Path(passing), {}
        run = lpm.run(society(people), days=days, seed=100, set=TRUTH)["prior_predictive"].to_dataset()
        for name, stream in WHOSE.items():
            data[name] = {stream: run[stream].sum("borough").values[0, 0].tolist()}
            rows = "\n".join(str(int(x)) for x in data[name][stream])
            (folder / f"{name}.csv").write_text(f"{stream}\n{rows}\n")
        began = time.perf_counter()
        found = split_apart(folder, people, days, simulations)
        seconds = time.perf_counter() - began
        with xr.open_datatree(folder / "fit.nc") as fit:
            mine = fit["posterior"].to_dataset().load()
    began = time.perf_counter()
    network = SplitCalibNN(society(people), WHOSE, days)
    (loss,) = network.learn(simulations).values()
    here = time.perf_counter() - began
    alone = network.posterior(data)["posterior"].to_dataset()
    far = max(abs(float(mine[p].mean() - alone[p].mean())) / float(alone[p].std()) for p in alone.data_vars)
    return {
        "loss_apart": found["loss"],
        "loss_one_process": loss,
        "equal_bit_for_bit": found["loss"] == loss and all(mine[p].equals(alone[p]) for p in alone.data_vars),
        "posterior_means_differ_by_sd": far,
        "steps": found["steps"],
        "bytes": found["bytes"],
        "bytes_a_step": round(sum(found["bytes"].values()) / found["steps"]),
        "seconds_apart": round(seconds, 1),
        "seconds_of_server": found["seconds"],
        "seconds_one_process": round(here, 1),
        "variance_that_readings_explain": told(network),
    }


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=40)
    parser.add_argument("--simulations", type=int, default=512)
    parser.add_argument("--split", action="store_true", help="institutions that have series, and a server")
    given = parser.parse_args()
    if given.split:
        print(json.dumps(split(given.agents, given.days, given.simulations)))
        return
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
