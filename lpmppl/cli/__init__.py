"""The command line: `lpmppl simulate`, `population`, `report`, `doctor`."""

import sys

from lpmppl.cli.interrupted import forget_interrupt

__all__ = ["main"]


def main() -> None:
    """Run the command line on the program's arguments, and exit; Ctrl-C ends it well while it is still loading, too."""
    try:
        from lpmppl.cli.app import main as loaded
    except KeyboardInterrupt:
        print("lpmppl: interrupted", file=sys.stderr)
        forget_interrupt()
        sys.exit(130)
    loaded()
