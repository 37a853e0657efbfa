"""`lpmppl report`: make the page of a finished run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a finished run, with results.nc in it.")],
) -> None:
    """Make report.html again from results.nc.

    The page is one self-contained file: it needs no network, reads well on a phone, and prints on A4.

    [bold]Example[/]

    [cyan]lpmppl report runs/nyc[/]
    """
    from lpmppl.report import datatree, page

    print(page.write(datatree.load(folder / "results.nc"), folder / "report.html"))
