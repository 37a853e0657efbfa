"""Run the same epidemic in lpmppl, Starsim, Covasim and Mesa, in turn, each run in a process of its own.

All have the same people and contacts (see contacts.py), and transmissibilities at which as many are infected as in
lpmppl at --beta, found by trying among fewer people first. The peers' environments are made once, by pip, under
--environments.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contacts import NUMBERS
from table import markdown

HERE = Path(__file__).resolve().parent
CONSTRAINTS = HERE.parent / "constraints.txt"
STARSIM, COVASIM, MESA = "starsim==3.7.2", "covasim==4.0.1", "mesa==3.3.1"
OURS = "lpmppl"
SLOPE = 0.5
"""How the attack rate grows with the logarithm of the transmissibility, at a first guess."""

NEAR = 0.02
"""Attack rates that are as near are the same epidemic's."""


@dataclass(frozen=True)
class Peer:
    """A package.

    Args:
        script: what runs the epidemic in it.
        packages: what its environment installs; nothing for our own.
        trying: among how many people its transmissibility is found.
        most: among how many people it is run at most, unless it is asked for.
    """

    script: str
    packages: tuple[str, ...] = ()
    trying: int = 100_000
    most: float = float("inf")


PEERS = {
    OURS: Peer("peer_lpmppl.py"),
    "lpmppl-pairs": Peer("peer_lpmppl_pairs.py"),
    "starsim": Peer("peer_starsim.py", (STARSIM,)),
    "covasim": Peer("peer_covasim.py", (COVASIM, STARSIM)),
    "mesa": Peer("peer_mesa.py", (MESA,), trying=10_000, most=100_000),
}
SAMENESS = """
The same: the people, their ages, households, workplaces, schools and neighbourhoods, and how susceptible each age is;
days, in steps of one; susceptible, exposed, infectious, recovered or dead; log-normal latent (4.5 +- 1.5 days) and
infectious (8 +- 2 days) periods; 0.1 % of the people infected on the first day; all packages but lpmppl's first row
have the same pairs of people with the same weights, contacts a day (contacts.py).

Not the same: lpmppl's first row has everybody meet everybody of its household, workplace or school and neighbourhood,
as often in all. lpmppl tallies each day by borough and age, the others over the population. Death is a constant chance
in Starsim and Mesa and goes by age in lpmppl and Covasim, which follows symptoms, severity, viral load and who spreads
more too, as it does by default. Covasim 4 itself runs on Starsim. lpmppl computes on as many cores as torch is given,
the others on one.

Building the population and its networks ("build"; for lpmppl's first row loading it, once it is cached) is timed apart
and is not in the ratio, which is of the least times. Each process first makes a small run, so that no compilation is
timed.
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


class Bench:
    """The packages, and the people in files."""

    def __init__(self, environments: Path, folder: Path, contacts: str, days: int) -> None:
        self.environments, self.folder, self.contacts, self.days = environments, folder, contacts, days

    def people(self, agents: int) -> Path:
        """The file with so many people, written when it is first asked for."""
        path = self.folder / f"{agents}.npz"
        if not path.exists():
            asked = ["--agents", str(agents), "--contacts", self.contacts, "--out", str(path)]
            subprocess.run([sys.executable, str(HERE / "contacts.py"), *asked], check=True, stdout=sys.stderr)
        return path

    def once(self, name: str, agents: int, beta: float, seed: int) -> dict[str, Any]:
        """Run one package once and return what it printed last."""
        peer = PEERS[name]
        asked = {"people": self.people(agents), "beta": beta, "days": self.days, "seed": seed}
        command = [interpreter(self.environments, peer.packages), str(HERE / peer.script)]
        command += [word for option, value in asked.items() for word in (f"--{option}", str(value))]
        env = {**os.environ, "STARSIM_INSTALL_FONTS": "0"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        if done.returncode:
            raise SystemExit(f"{peer.script} failed with exit code {done.returncode}:\n{done.stderr.strip()}")
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        said = f"{result['run_seconds']:.2f} s, {result['attack_rate']:.3f} infected"
        print(f"{name}, {agents:,} people, beta {beta:.4f}, seed {seed}: {said}", file=sys.stderr, flush=True)
        return result

    def matched(self, name: str, agents: int, target: float, beta: float) -> float:
        """The transmissibility at which a share `target` of so many people is infected, by secants."""
        last = None
        for _ in range(6):
            attack = self.once(name, agents, beta, seed=0)["attack_rate"]
            if abs(attack - target) < NEAR / 4:
                break
            slope = SLOPE if last is None else max(SLOPE / 4, (attack - last[1]) / math.log(beta / last[0]))
            last = beta, attack
            beta *= math.exp(max(-0.5, min(0.5, (target - attack) / slope)))
        return beta


def row(results: list[dict[str, Any]], beta: float, ours: float) -> list[str]:
    """Return one package's row; `ours` is lpmppl's least time of a run in seconds."""
    seconds = [result["run_seconds"] for result in results]
    attack = statistics.mean(result["attack_rate"] for result in results)
    return [
        results[0]["package"],
        f"{beta:.4f}",
        f"{min(seconds):.2f}",
        f"{statistics.median(seconds):.2f}",
        f"{min(seconds) / ours:.1f}",
        f"{statistics.median(result['build_seconds'] for result in results):.1f}",
        f"{max(result['peak_gib'] for result in results):.2f}",
        f"{attack:.3f}",
    ]


def main() -> None:
    """Find every package's transmissibility, run all in turn, as often as asked, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--beta", type=float, default=0.05, help="transmissions per contact in lpmppl")
    parser.add_argument("--contacts", choices=NUMBERS, default="default")
    parser.add_argument("--packages", nargs="+", choices=PEERS, help="besides lpmppl; by default all that aren't slow")
    parser.add_argument("--environments", type=Path, default=Path.home() / ".cache" / "lpmppl-bench")
    args = parser.parse_args()
    asked = args.packages or [name for name, peer in PEERS.items() if args.agents <= peer.most]
    names = [OURS, *(name for name in PEERS if name in asked and name != OURS)]

    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.environments, Path(folder), args.contacts, args.days)
        betas, target = {OURS: args.beta}, dict[int, float]()
        for name in names[1:]:
            few = min(args.agents, PEERS[name].trying)
            if few not in target:
                target[few] = bench.once(OURS, few, args.beta, seed=0)["attack_rate"]
            betas[name] = bench.matched(name, few, target[few], args.beta)
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for repetition in range(args.repetitions):
            for name in names:
                results[name].append(bench.once(name, args.agents, betas[name], repetition))

    ours = min(result["run_seconds"] for result in results[OURS])
    pairs = next((each[0]["pairs"] for each in results.values() if "pairs" in each[0]), float("nan"))
    said = f"{args.repetitions} repetitions, {os.cpu_count()} cores, {pairs:.1f} pairs a person"
    print(f"{args.agents:,} people, {args.days} days, {said}\n")
    header = ["package", "beta", "seconds, least", "seconds, median", "times lpmppl's", "build, s", "peak GiB"]
    rows = [row(results[name], betas[name], ours) for name in names]
    print(markdown([*header, "attack rate"], rows))
    attacks = [float(cells[-1]) for cells in rows]
    apart = max(abs(attack - attacks[0]) for attack in attacks)
    print(
        f"\nAttack rates are within {100 * apart:.1f} points of lpmppl's{'' if apart <= NEAR else ': TOO FAR APART'}."
    )
    print(SAMENESS)


if __name__ == "__main__":
    main()
