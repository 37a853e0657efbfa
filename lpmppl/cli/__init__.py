"""The command line: `lpmppl simulate`, `population`, `report`, `doctor`."""

import sys

from lpmppl.cli.interrupted import CTRL_C, leave, wait_for_imports

__all__ = ["main"]


def main() -> None:
    """Run the command line on the program's arguments, and exit; Ctrl-C ends it well while it is still loading, too."""
    wait_for_imports()
    try:
        from lpmppl.cli.app import main as loaded
    except KeyboardInterrupt:
        print("lpmppl: interrupted", file=sys.stderr)
        leave(CTRL_C)
    loaded()
