"""The `lpmppl` program: its commands, and how it ends when something is wrong."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import typer
from typer import TyperException

from lpmppl.cli.doctor import doctor
from lpmppl.cli.interrupted import Interrupted
from lpmppl.cli.population import population
from lpmppl.cli.report import report
from lpmppl.cli.simulate import simulate
from lpmppl.errors import LpmError

__all__ = ["app", "invoke", "main"]

BAD_INPUT = 2
CTRL_C = 130

app = typer.Typer(
    name="lpmppl",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("simulate")(simulate)
app.add_typer(population, name="population")
app.command("report")(report)
app.command("doctor")(doctor)


@app.callback()
def about() -> None:
    """Simulate whole societies, person by person, as probabilistic programs.

    Start with:

    [bold]lpmppl doctor[/]  is this machine ready?

    [bold]lpmppl simulate nyc --agents 100000 --days 60 --out runs/first[/]  a small New York

    [bold]lpmppl simulate nyc --out runs/nyc[/]  all 8.4 million people, 90 days

    Bad input ends with one line and exit code 2, Ctrl-C with 130.
    """


def main() -> None:
    """Run the command line on the program's arguments, and exit."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str]) -> int:
    """Run the command line and give its exit code: 0, 1 (`doctor` finds a fault), 2 for bad input, 130 for Ctrl-C."""
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                quiet()
            # An exit code comes back from `typer.Exit`, and 130 from a Ctrl-C that no command caught.
            code = app(args=list(arguments), prog_name="lpmppl", standalone_mode=False) or 0
            return refuse("interrupted", CTRL_C) if code == CTRL_C else int(code)
    except Interrupted as stop:
        return refuse(str(stop), CTRL_C)
    except KeyboardInterrupt:
        return refuse("interrupted", CTRL_C)
    except TyperException as error:
        return refuse(error.format_message()) if error.format_message() else BAD_INPUT
    except LpmError as error:
        return refuse(str(error))


def refuse(message: str, code: int = BAD_INPUT) -> int:
    """Say why the program stops, in one line."""
    print(f"lpmppl: {' '.join(message.split())}", file=sys.stderr)
    return code


def quiet() -> None:
    """Show warnings as one line each, and none that are meant for developers."""

    def line(message: Warning | str, *_: object) -> str:
        return f"lpmppl: warning: {' '.join(str(message).split())}\n"

    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    warnings.formatwarning = line  # type: ignore[assignment]
