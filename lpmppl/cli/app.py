"""The `lpmppl` program: its commands, and how it ends when something is wrong."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer
from typer import TyperException

from lpmppl.cli.behaviour import behaviour
from lpmppl.cli.calibrate import calibrate
from lpmppl.cli.counterfactual import counterfactual
from lpmppl.cli.doctor import doctor
from lpmppl.cli.forecast import forecast
from lpmppl.cli.interrupted import CTRL_C, Interrupted, leave
from lpmppl.cli.party import party
from lpmppl.cli.population import population
from lpmppl.cli.ranks import started
from lpmppl.cli.report import report
from lpmppl.cli.sensitivity import sensitivity
from lpmppl.cli.simulate import simulate
from lpmppl.cli.split import institution, server
from lpmppl.cli.trial import demo, leakage
from lpmppl.errors import InputError, LpmError

__all__ = ["app", "invoke", "main"]

BAD_INPUT = 2

_DEEPEST = 200
"""How many folders a path may have in one another: Python makes and lists them recursively."""

app = typer.Typer(
    name="lpmppl",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("simulate")(simulate)
app.command("counterfactual")(counterfactual)
app.command("sensitivity")(sensitivity)
app.command("calibrate")(calibrate)
app.command("forecast")(forecast)
app.add_typer(population, name="population")
app.add_typer(behaviour, name="behaviour")
party.command("institution")(institution)
party.command("server")(server)
party.command("demo")(demo)
party.command("leakage")(leakage)
app.add_typer(party, name="party")
app.command("report")(report)
app.command("doctor")(doctor)


@app.callback()
def about(context: typer.Context) -> None:
    """Simulate whole societies, person by person, as probabilistic programs.

    Start with:

    [bold]lpmppl doctor[/]  is this machine ready?

    [bold]lpmppl simulate nyc --agents 100000 --days 60 --out runs/first[/]  a small New York

    [bold]lpmppl simulate nyc --out runs/nyc[/]  all 8.4 million people, 90 days

    [bold]lpmppl counterfactual nyc --agents 100000 --do stimulus=500@30[/]  what would a cheque have done?

    [bold]lpmppl sensitivity nyc --agents 20000 --of deaths[/]  on which parameters do deaths hang?

    [bold]lpmppl calibrate nyc --agents 100000 --data data-by-day.csv[/]  which parameters agree with what was seen?

    Bad input ends with one line and exit code 2, Ctrl-C with 130.
    """
    if context.invoked_subcommand != "simulate" and started() > 1:
        raise InputError(
            f"`lpmppl {context.invoked_subcommand}` runs in one process, but torchrun has started {started()}: leave "
            "torchrun out, or ask in Python, within lpm.Sharded"
        )


def main() -> None:
    """Run the command line on the program's arguments, and exit."""
    ready()
    if not sys.warnoptions:
        # So ends a read of Zarr chunks that Ctrl-C cut short.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    leave(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str]) -> int:
    """Run the command line and give its exit code: 0, 1 (`doctor` finds a fault), 2 for bad input, 130 for Ctrl-C."""
    try:
        check(arguments)
        with warnings.catch_warnings():
            if not sys.warnoptions:
                quiet()
            # An exit code comes back from `typer.Exit`, and 130 from a Ctrl-C that no command caught.
            code = app(args=list(arguments), prog_name="lpmppl", standalone_mode=False) or 0
            sys.stdout.flush()
            return refuse("interrupted", CTRL_C) if code == CTRL_C else int(code)
    except Interrupted as stop:
        return refuse(str(stop), CTRL_C)
    except KeyboardInterrupt:
        return refuse("interrupted", CTRL_C)
    except TyperException as error:
        return refuse(spelled(error)) if error.format_message() else BAD_INPUT
    except LpmError as error:
        return refuse(str(error))
    except OSError as error:
        drop()
        return refuse(f"{error.filename or 'reading or writing failed'}: {error.strerror or error}")


def ready() -> None:
    """Make stdout and stderr take any text: a closed one drops it, another escapes what its encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  open to the end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def check(arguments: Sequence[str]) -> None:
    """Raise InputError for an argument that isn't text, which no file kept could repeat, or is too deep a path."""
    for argument in arguments:
        if (depth := argument.count(os.sep)) > _DEEPEST:
            raise InputError(f"the path {argument[:20]}… has {depth:,} folders in one another: choose a shorter one")
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InputError(f"the argument {argument!a} isn't valid UTF-8: choose another name") from None


def drop() -> None:
    """Let go of what stdout still holds where it can't be written, or Python tries it once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def spelled(error: TyperException) -> str:
    """Say what is wrong with the spelling of a command, with the value that was given where there is one."""
    message = error.format_message()
    faults: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    given = f"Invalid value '{faults[0]['input']}' for " if faults else "Invalid value for "
    return message.replace("Invalid value for ", given, 1)


def refuse(message: str, code: int = BAD_INPUT) -> int:
    """Say why the program stops, in one line."""
    with suppress(OSError):
        print(f"lpmppl: {' '.join(message.split())}", file=sys.stderr)
    return code


def quiet() -> None:
    """Show warnings as one line each, and none that are meant for developers."""

    def line(message: Warning | str, *_: object) -> str:
        return f"lpmppl: warning: {' '.join(str(message).split())}\n"

    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    warnings.formatwarning = line  # type: ignore[assignment]
