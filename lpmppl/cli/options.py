"""The options that commands share, with the help that each has in all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "App",
    "AsJson",
    "By",
    "Days",
    "Device",
    "Model",
    "Out",
    "People",
    "PopulationSeed",
    "Saved",
    "Seed",
    "Start",
]

Model = Annotated[str, typer.Option(help="pandemic, seirm or sir, as for simulate.")]
People = Annotated[int, typer.Option(help="How many people.")]
Days = Annotated[int, typer.Option(help="How many days.")]
Seed = Annotated[int, typer.Option(help="Chance of the run. The same seed gives the same numbers.")]
By = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]VARIABLE",
        help="Break results down by this variable of the population, under its own name or another, instead of by "
        "borough and age. Repeat for more, or join them by commas.",
    ),
]
App = Annotated[bool, typer.Option("--app", help="Let people adopt an app that tells of contacts with positive ones.")]
Start = Annotated[str, typer.Option(metavar="DATE", help="The date of day 0 of the pandemic.")]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Keep results.nc, report.html and run.json in this new folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on one line, and nothing else on stdout.")]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 ...")]
Saved = Annotated[
    Path | None, typer.Option(metavar="P.zarr", help="Use this saved population instead of building one.")
]
PopulationSeed = Annotated[int, typer.Option(help="Chance of the population's making.")]
