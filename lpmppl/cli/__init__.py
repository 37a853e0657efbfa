"""The command line: `lpmppl simulate`, `population`, `report`, `doctor`."""

from lpmppl.cli.app import main

__all__ = ["main"]
