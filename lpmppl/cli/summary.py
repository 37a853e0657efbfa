"""The outcome of a simulation, for a reader at a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["closing", "show"]


def closing(console: Console, outcome: Mapping[str, Any], done: str = "simulated") -> None:
    """Print what an outcome took, and where its files are."""
    console.print(
        f"{done} in {outcome['seconds']:,.1f} s (population: {outcome['population_seconds']:,.1f} s), "
        f"peak memory {outcome['peak_rss_mb']:,.0f} MB",
        highlight=False,
    )
    if "out" in outcome:
        console.print(f"report: {outcome['out']}/report.html", highlight=False, soft_wrap=True, markup=False)


def show(outcome: Mapping[str, Any]) -> None:
    """Print the outcome of a simulation as a short table, and where its files are."""
    from rich.console import Console
    from rich.table import Table

    agents = int(outcome["agents"])
    what = f"{outcome['model']} in {outcome['population']}"
    table = Table()
    table.add_column("tally")
    table.add_column("total", justify="right")
    table.add_column("per 100,000", justify="right")
    for name, value in outcome["totals"].items():
        unit = str(outcome["units"].get(name, "people")).removesuffix(" per day")
        rate = f"{1e5 * value / agents:,.1f}" if unit == "people" else ""
        table.add_row(str(name), f"{value:,.0f} {unit}", rate)
    console = Console()
    console.print(f"{what}: {agents:,} people, {outcome['days']} days, seed {outcome['seed']}", highlight=False)
    console.print(table)
    closing(console, outcome)
