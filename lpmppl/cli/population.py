"""`lpmppl population`: build people, and hold them against the census."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpmppl.cli.machine import check_memory, peak_rss_mb
from lpmppl.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["population"]

population = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Build a synthetic population, and hold it against the figures it was built from.

    [bold]Examples[/]

    [cyan]lpmppl population nyc --agents 100000 --out nyc.zarr[/]

    [cyan]lpmppl population describe nyc.zarr[/]

    [cyan]lpmppl simulate nyc --population nyc.zarr[/]
    """,
)


@population.command("nyc")
def nyc(
    out: Annotated[Path, typer.Option(metavar="P.zarr", help="Save the population here; the path must not exist yet.")],
    agents: Annotated[int, typer.Option(help="How many people, from 1,000 up.")] = 8_400_000,
    seed: Annotated[int, typer.Option(help="Chance of the making. The same seed gives the same people.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on one line.")] = False,
) -> None:
    """Build the people of New York in their households, workplaces, schools and neighbourhoods, and save them as Zarr.

    [bold]Example[/]

    [cyan]lpmppl population nyc --agents 100000 --seed 0 --out nyc.zarr[/]
    """
    if os.path.lexists(out):
        raise InputError(f"--out {out} exists: choose a new path")
    check_memory(agents)
    from lpmppl.cli.waiting import waiting
    from lpmppl.models import nyc as city

    began = time.perf_counter()
    with waiting("Building the population"):
        people = city.population(agents, seed=seed)
        people.save(out)
    outcome = {
        "population": "nyc",
        "agents": int(people.size),
        "seed": seed,
        "seconds": round(time.perf_counter() - began, 3),
        "peak_rss_mb": peak_rss_mb(),
        "out": str(out),
    }
    if as_json:
        print(json.dumps(outcome))
    else:
        print(f"{people.size:,} people in {outcome['seconds']:,.1f} s: {out}")


@population.command("describe")
def describe(
    path: Annotated[
        Path | None, typer.Argument(metavar="[P.zarr]", help="A saved population; without it, New York's.")
    ] = None,
    agents: Annotated[int, typer.Option(help="Without a path: how many people of New York.")] = 8_400_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on one line.")] = False,
) -> None:
    """Print every margin of a population beside its target, with where the target comes from.

    [bold]Examples[/]

    [cyan]lpmppl population describe nyc.zarr[/]

    [cyan]lpmppl population describe --agents 100000 --json[/]
    """
    from lpmppl.cli.waiting import waiting
    from lpmppl.data.describe import margins
    from lpmppl.models import nyc as city
    from lpmppl.models.population import Population

    with waiting("Preparing the population"):
        people = Population.open(path) if path else city.population(agents, seed=0)
        table = margins(people.dataset)
    if as_json:
        print(json.dumps({"agents": int(people.size), "margins": json.loads(table.to_json(orient="records"))}))
    else:
        print_margins(table)


def print_margins(margins: pd.DataFrame) -> None:
    """Print margins as one table each: group, target, what was built, and by how much it is off."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for margin, rows in margins.groupby("margin", sort=False):
        source = "; ".join(dict.fromkeys(f"{row.kind}: {row.source}" for row in rows.itertuples()))
        table = Table(title=str(margin), caption=source, title_justify="left", caption_justify="left")
        table.add_column("group")
        for column in ("target", "built", "difference, %"):
            table.add_column(column, justify="right")
        for row in rows.itertuples():
            table.add_row(str(row.group), plain(row.target), plain(row.built), f"{row.difference_percent:+.2f}")
        console.print(table)


def plain(value: float) -> str:
    """Write a count whole and a mean or share with two decimals.

    >>> plain(12345.0), plain(2.634)
    ('12,345', '2.63')
    """
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:,.2f}"
