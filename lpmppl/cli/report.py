"""`lpmppl report`: make the page of a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lpmppl.errors import InputError

__all__ = ["report"]


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a finished run, with results.nc in it.")],
    map_: Annotated[bool, typer.Option("--map", help="Also make map.html, for a result by areas (--by puma).")] = False,
    geo: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --map, the dimension of areas, where it isn't known.")
    ] = None,
) -> None:
    """Make report.html again from results.nc, and with --map a map of its areas, day by day.

    Both are one self-contained file: they need no network and read well on a phone. The report prints on A4, and links
    to the map that lies beside it.

    [bold]Examples[/]

    [cyan]lpmppl report runs/nyc[/]

    A map of New York's community districts:

    [cyan]lpmppl simulate nyc --agents 100000 --by puma --out runs/districts[/]

    [cyan]lpmppl report runs/districts --map[/]
    """
    from lpmppl.report import datatree, page

    if geo is not None and not map_:
        raise InputError(f"--geo {geo} is of the map: give --map too, or leave it out")
    tree = datatree.load(folder / "results.nc")
    there, link = folder / "map.html", "map.html"
    print(page.write(tree, folder / "report.html", link if there.exists() else ""), flush=True)
    if map_:
        from lpmppl.report import map as maps

        # The report comes first: a result without areas has it all the same.
        print(maps.write(tree, there, geo, back="report.html"))
        page.write(tree, folder / "report.html", link)
