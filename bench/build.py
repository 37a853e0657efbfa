"""Time and memory of building, saving and loading the population of New York, and the time of `import lpmppl`.

Building and loading run in processes of their own; the imports of lpmppl and of pyro alternate, each in a new process.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import peak
from table import markdown


def build(agents: int, path: Path) -> dict[str, float]:
    """Build and save a population; return seconds and the process's peak in bytes."""
    from lpmppl.data import nyc, store

    start = time.perf_counter()
    dataset = nyc.build(agents, seed=0)
    built = time.perf_counter()
    most = peak()
    store.save(dataset, path)
    return {"build": built - start, "build_peak": most, "save": time.perf_counter() - built}


def load(path: Path) -> dict[str, float]:
    """Load a saved population; return seconds and the process's peak in bytes."""
    from lpmppl.models.population import Population

    start = time.perf_counter()
    Population.open(path)
    return {"load": time.perf_counter() - start, "load_peak": peak()}


def apart(phase: str, agents: int, path: Path) -> dict[str, float]:
    """Run one phase in a process of its own and return what it found."""
    command = [sys.executable, __file__, "--phase", phase, "--agents", str(agents), "--path", str(path)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


PYRO = "import pyro"
IMPORTS = (PYRO, "import lpmppl", "from lpmppl import nyc, run")


def import_times(repetitions: int) -> dict[str, list[float]]:
    """Return the seconds that a process with each of IMPORTS takes, in turn, after one warm-up."""
    seconds: dict[str, list[float]] = {statement: [] for statement in IMPORTS}
    for repetition in range(repetitions + 1):
        for statement in IMPORTS:
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            if repetition:
                seconds[statement].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measure every size and the imports, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, nargs="+", default=[100_000, 1_000_000, 8_400_000])
    parser.add_argument("--imports", type=int, default=7, help="how many times each package is imported")
    parser.add_argument("--phase", choices=["build", "load"], help="measure one phase here and print it as JSON")
    parser.add_argument("--path", type=Path)
    args = parser.parse_args()
    if args.phase:
        found = build(args.agents[0], args.path) if args.phase == "build" else load(args.path)
        print(json.dumps(found))
        return

    rows = []
    for agents in args.agents:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "population.zarr"
            found = {**apart("build", agents, path), **apart("load", agents, path)}
            size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        rows.append(
            [
                f"{agents:,}",
                f"{found['build']:.1f}",
                f"{found['build_peak'] / 2**30:.2f}",
                f"{found['save']:.1f}",
                f"{size / 2**20:.0f}",
                f"{found['load']:.2f}",
                f"{found['load_peak'] / 2**30:.2f}",
            ]
        )
    print(f"{os.cpu_count()} cores\n")
    print(markdown(["agents", "build, s", "peak, GiB", "save, s", "on disk, MiB", "load, s", "peak, GiB"], rows))

    times = import_times(args.imports)
    theirs = statistics.median(times[PYRO])
    rows = []
    for statement, seconds in times.items():
        middle = statistics.median(seconds)
        rows.append([f"`{statement}`", f"{min(seconds):.2f}", f"{middle:.2f}", f"{middle / theirs:.2f}"])
    print(f"\n{args.imports} times each, alternating\n")
    print(markdown(["", "seconds, least", "seconds, median", "times pyro's"], rows))


if __name__ == "__main__":
    main()
