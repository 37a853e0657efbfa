"""Run the benchmarks that docs/benchmarks.md names, and write there what they print.

    python bench/record.py quick | all | NAME … [--sizes 10000 100000]

A block of the page is

    <!-- bench: NAME quick -->
    ```sh
    command
    ```
    what it printed
    <!-- end of bench -->

of which the command stays and what stands after it is written anew, with the date and the machine, once it has ended
well. `quick` are those that say so, together a quarter of an hour on two cores; `all` are all. With other sizes than
the page's the page stays as it is, and commands that have none are left out.
"""

import argparse
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
BLOCK = re.compile(r"(<!-- bench: ([\w-]+)( quick)? -->\n```sh\n(.*?)\n```\n).*?(<!-- end of bench -->)", re.S)


def machine() -> str:
    """The processor, memory and versions in words."""
    names = {}
    if (info := Path("/proc/cpuinfo")).exists():
        pairs = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        names = {name.strip(): value.strip() for name, value in pairs}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    processor = names.get("model name", platform.processor() or platform.machine())
    said = [f"{os.cpu_count()} cores ({processor})", f"{memory:.0f} GiB", f"Python {platform.python_version()}"]
    return ", ".join([*said, *(f"{name} {version(name)}" for name in ("torch", "numba", "lpmppl"))])


AGENTS = re.compile(r"--agents((?: \d+)+)")


def resized(command: str, sizes: list[int]) -> str:
    """A command with other numbers of agents: as many as it has, the largest."""

    def other(found: re.Match[str]) -> str:
        return f"--agents {' '.join(map(str, sorted(sizes)[-len(found[1].split()) :]))}"

    return AGENTS.sub(other, command) if sizes else command


def size(word: str) -> int:
    """A number of agents that was given."""
    if not word.isdecimal() or int(word) < 1_000:
        raise argparse.ArgumentTypeError(f"{word} is no number of agents of 1000 or more")
    return int(word)


def run(command: str) -> str:
    """What a command prints; its errors go to the terminal."""
    words = [sys.executable if word == ".venv/bin/python" else word for word in shlex.split(command)]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    # Threads that wait for a core that another process has must sleep, not spin.
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    done = subprocess.run(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command} failed with exit code {done.returncode}; {PAGE.name} keeps what it had of it")
    return done.stdout.strip()


def record(name: str, sizes: list[int]) -> None:
    """Run one block's command and write the page anew."""
    command = next(m[4] for m in BLOCK.finditer(PAGE.read_text()) if m[2] == name)
    if sizes and not AGENTS.search(command):
        print(f"{name}: {command} has no sizes: left out", file=sys.stderr, flush=True)
        return
    command = resized(command, sizes)
    print(f"{name}: {command}", file=sys.stderr, flush=True)
    began, load = time.perf_counter(), os.getloadavg()[0]
    out = run(command)
    took = time.perf_counter() - began
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    said = f"*{when}; {machine()}; in {took:.0f} s, the load before it {load:.1f}.*"
    print(f"\n{out}\n\n{said}\n", flush=True)
    if sizes:
        return

    def anew(found: re.Match[str]) -> str:
        if found[2] != name:
            return found[0]
        return f"{found[1]}\n{out}\n\n{said}\n{found[5]}"

    # The page is read again: others may have written it while the command ran.
    aside = PAGE.with_suffix(".part")
    aside.write_text(BLOCK.sub(anew, PAGE.read_text()))
    aside.replace(PAGE)


def main() -> None:
    """Run what is asked for, in the order of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", help="quick, all, or names of blocks")
    parser.add_argument("--sizes", nargs="*", type=size, default=[], help="numbers of agents instead of the page's")
    args = parser.parse_args()
    blocks = {m[2]: bool(m[3]) for m in BLOCK.finditer(PAGE.read_text())}
    if unknown := [name for name in args.names if name not in blocks and name not in ("quick", "all")]:
        raise SystemExit(f"{PAGE.name} has no benchmark {', '.join(unknown)}; it has {', '.join(blocks)}")
    for name, quick in blocks.items():
        if name in args.names or "all" in args.names or (quick and "quick" in args.names):
            record(name, args.sizes)


if __name__ == "__main__":
    main()
