"""Run the same epidemic in lpmppl, Starsim and Covasim, in turn, each run in a process of its own.

The peers' environments are made once, by pip, under --environments.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from table import markdown

HERE = Path(__file__).resolve().parent
CONSTRAINTS = HERE.parent / "constraints.txt"
STARSIM, COVASIM = "starsim==3.7.2", "covasim==4.0.1"
PEERS = {  # name -> (script, what its environment installs; nothing for our own)
    "lpmppl": ("peer_lpmppl.py", ()),
    "starsim": ("peer_starsim.py", (STARSIM,)),
    "starsim-two-layers": ("peer_starsim_two_layers.py", (STARSIM,)),
    "covasim": ("peer_covasim.py", (COVASIM, STARSIM)),
}
SAMENESS = """
The same: the number of people and of days; steps of one day; susceptible, exposed, infectious, recovered or dead;
log-normal latent (4.5 +- 1.5 days) and infectious (8 +- 2 days) periods; 0.1 % of the people infected on the first day;
households, schools, workplaces and a community; a basic reproduction number of about 2.5 in the peers, in lpmppl the
transmissibility at which as many are infected as in Covasim. The attack rates say how near the epidemics came.

Not the same: the peers hold contacts as fixed lists of pairs drawn at random (18 pairs a person in four layers; 6 in
"two layers", which are households and ten random contacts), where lpmppl mixes everyone within a household, a workplace
or school and a neighbourhood of a synthetic New York. The peers total each day over the population, lpmppl by borough
and age. Death is a constant chance in Starsim and goes by age in lpmppl and in Covasim, which follows symptoms and
severity too. Covasim 4 itself runs on Starsim.

Building the population ("build"; for lpmppl loading it, once it is cached) is timed apart and is not in the ratio. Each
process first makes a small run, so that no compilation is timed.
"""


def interpreter(environments: Path, packages: tuple[str, ...]) -> str:
    """Return the Python that has these packages, making its environment first where it is absent."""
    if not packages:
        return sys.executable
    folder = environments / "+".join(packages)
    python, stamp = folder / "bin" / "python", folder / ".installed"
    if not stamp.exists():
        print(f"Installing {', '.join(packages)} in {folder} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS), *packages]
        subprocess.run(pip, check=True)
        stamp.touch()
    return str(python)


def once(python: str, script: str, agents: int, days: int, seed: int) -> dict[str, Any]:
    """Run one package once and return what it printed last."""
    command = [python, str(HERE / script), "--agents", str(agents), "--days", str(days), "--seed", str(seed)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "STARSIM_INSTALL_FONTS": "0"}
    )
    if done.returncode:
        raise SystemExit(f"{script} failed with exit code {done.returncode}:\n{done.stderr.strip()}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def row(results: list[dict[str, Any]], ours: float | None) -> list[str]:
    """Return one package's row; `ours` is lpmppl's median time of a run in seconds."""
    seconds = [result["run_seconds"] for result in results]
    middle = statistics.median(seconds)
    attack = statistics.mean(result["attack_rate"] for result in results)
    return [
        results[0]["package"],
        f"{min(seconds):.2f}",
        f"{middle:.2f}",
        f"{middle / ours:.1f}" if ours else "",
        f"{statistics.median(result['build_seconds'] for result in results):.1f}",
        f"{max(result['peak_gib'] for result in results):.2f}",
        f"{attack:.3f}",
    ]


def main() -> None:
    """Run every package in turn, as often as asked, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--packages", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "lpmppl-bench")
    args = parser.parse_args()

    pythons = {name: interpreter(args.environments, PEERS[name][1]) for name in args.packages}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in args.packages}
    for repetition in range(args.repetitions):
        for name in args.packages:
            result = once(pythons[name], PEERS[name][0], args.agents, args.days, repetition)
            results[name].append(result)
            print(f"{name}, seed {repetition}: {result['run_seconds']:.2f} s", file=sys.stderr)

    ours = None
    if "lpmppl" in results:
        ours = statistics.median(result["run_seconds"] for result in results["lpmppl"])
    print(f"{args.agents:,} people, {args.days} days, {args.repetitions} repetitions, {os.cpu_count()} cores\n")
    header = ["package", "seconds, least", "seconds, median", "times lpmppl's", "build, s", "peak GiB", "attack rate"]
    print(markdown(header, [row(results[name], ours) for name in args.packages]))
    print(SAMENESS)


if __name__ == "__main__":
    main()
