"""`lpmppl doctor`: look whether this machine is ready."""

from __future__ import annotations

import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from lpmppl.cli.machine import CITY_BYTES, free_disk
from lpmppl.cli.versions import KNOWN_TO_WORK, installed, required
from lpmppl.inference.memory import free_memory

__all__ = ["Finding", "doctor", "examine"]

CITY = 8_400_000


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was found, whether it is "fine", worth a "note" or a "fault", and the remedy."""

    about: str
    found: str
    verdict: str = "fine"
    remedy: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on one line.")] = False,
) -> None:
    """Look whether lpmppl can work here: versions, devices, cache, memory and disk.

    Exit code 0 if it can, 1 if something is in the way. A note is no fault: it says what differs from the set of
    versions that is known to work, or what won't fit on this machine.

    [bold]Examples[/]

    [cyan]lpmppl doctor[/]

    [cyan]lpmppl doctor --json[/]
    """
    findings = examine()
    usable = all(f.verdict != "fault" for f in findings)
    if as_json:
        print(json.dumps({"usable": usable, "findings": [asdict(f) for f in findings], "versions": installed()}))
    else:
        show(findings, usable)
    raise typer.Exit(0 if usable else 1)


def examine() -> list[Finding]:
    """Look at everything, and never stop at the first fault."""
    return [*stack(), ode(), *devices(), cache(), memory(), disk()]


def stack() -> list[Finding]:
    """Compare the installed versions with what the package requires and with the set that is known to work."""
    needs, found = required(), installed()
    findings = []
    for name, known in KNOWN_TO_WORK.items():
        version, need = found[name], needs.get(name)
        if not version:
            remedy = f"pip install '{need or name}'"
            findings.append(Finding(name, "missing", "fault", remedy))
        elif need is not None and not need.specifier.contains(version, prereleases=True):
            findings.append(Finding(name, version, "fault", f"needs {need.specifier}: pip install '{need}'"))
        elif version.split("+")[0] != known:
            findings.append(Finding(name, version, "note", f"tested with {known}"))
        else:
            findings.append(Finding(name, version))
    return findings


def ode() -> Finding:
    """Solve y' = -y through ChiRho, as an ODE inside a day is solved, and say whether its repair is in force."""
    about, remedy = "ODEs through ChiRho", "install the versions of constraints.txt"
    try:
        import torch

        from lpmppl._compat import chirho_repair_in_force
        from lpmppl.effects.ops import evolve

        path = evolve("decay", lambda s: {"y": -s["y"]}, {"y": torch.ones(1)}, torch.tensor([0.0, 1.0]))
    except (ImportError, TypeError, RuntimeError) as error:
        return Finding(about, f"fail: {error}", "fault", remedy)
    if abs(float(path["y"][0, -1]) - math.exp(-1)) > 1e-4:
        return Finding(about, f"give {float(path['y'][0, -1]):.4f} for {math.exp(-1):.4f}", "fault", remedy)
    return Finding(
        about, "right; the repair is in force" if chirho_repair_in_force() else "right; no repair is in force"
    )


def devices() -> list[Finding]:
    """Name the devices that torch can compute on."""
    try:
        import torch
    except ImportError as error:
        return [Finding("torch", f"can't be imported: {error}", "fault", "reinstall torch")]
    findings = [Finding("cpu", f"{torch.get_num_threads()} threads of {os.cpu_count()} processors")]
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        findings.append(Finding(f"cuda:{i}", f"{about.name}, {about.total_memory / 1e9:.0f} GB"))
    return findings


def cache() -> Finding:
    """Say where built populations are kept, how much lies there, and whether it can be written."""
    from lpmppl.data.cache import folder

    where = folder()
    found = str(where)
    try:
        where.mkdir(parents=True, exist_ok=True)
        found = f"{where}, {sum(p.stat().st_size for p in where.rglob('*') if p.is_file()) / 1e6:,.0f} MB"
        tempfile.TemporaryFile(dir=where).close()
    except OSError as error:
        return Finding(
            "cache", found, "fault", f"can't be written ({error.strerror}): set LPMPPL_CACHE to a folder of yours"
        )
    return Finding("cache", found)


def memory() -> Finding:
    """Say whether the whole of New York fits into memory."""
    free, need = free_memory(), CITY_BYTES * CITY
    city = f"8.4 million people take about {need / 1e9:.1f} GB"
    if free is None:
        return Finding("memory", "unknown", "note", city)
    found = f"{free / 1e9:.1f} GB free"
    if free < need:
        return Finding("memory", found, "note", f"{city}: give a smaller --agents")
    return Finding("memory", f"{found}, and {city}")


def disk() -> Finding:
    """Say whether a population of the whole city and a run fit on the disk."""
    from lpmppl.data.cache import folder

    free, need = free_disk(Path(folder())), 2e9
    verdict, remedy = (
        ("fine", "") if free > need else ("note", f"a cached city and a run take up to {need / 1e9:.0f} GB")
    )
    return Finding("disk", f"{free / 1e9:.0f} GB free", verdict, remedy)


def show(findings: list[Finding], usable: bool) -> None:
    """Print the findings as a table, and the upshot."""
    from rich.console import Console
    from rich.table import Table

    marks = {"fine": "[green]fine[/]", "note": "[yellow]note[/]", "fault": "[red]fault[/]"}
    table = Table()
    for column in ("", "found", "verdict", "remedy"):
        table.add_column(column, overflow="fold")
    for f in findings:
        table.add_row(f.about, f.found, marks[f.verdict], f.remedy)
    console = Console()
    console.print(table)
    console.print(
        "lpmppl can work here" if usable else "something is in the way: see the faults above", highlight=False
    )
