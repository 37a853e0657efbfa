"""`lpmppl calibrate`: which parameters agree with what was observed, and how sure is that?"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from lpmppl.cli import options
from lpmppl.cli.counts import counted, eight_days_before
from lpmppl.cli.folder import RunFolder
from lpmppl.cli.interrupted import Interrupted
from lpmppl.cli.machine import peak_rss_mb
from lpmppl.cli.network import CALIBNN, LEARN, check, read
from lpmppl.cli.settings import Settings
from lpmppl.cli.simulate import explicitly_given, keep, needs_app, opening, people_for, people_of
from lpmppl.cli.spelling import interventions, settings
from lpmppl.cli.summary import closing
from lpmppl.errors import InputError, LpmError

__all__ = ["calibrate"]

COARSE = 84_000


def calibrate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="POPULATION", help="Whom to calibrate.")] = "nyc",
    data: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The Health Department's trends/data-by-day.csv, or versions of it."),
    ] = None,
    vintage: Annotated[
        str,
        typer.Option(metavar="DATE", help="Fit what was known of the whole city on this day, by a file of versions."),
    ] = "",
    until: Annotated[
        str,
        typer.Option(
            metavar="DATE",
            help="The last day that is fitted: 2020-05-31, or eight days before --vintage, as the last are partial.",
        ),
    ] = "",
    stream: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="admissions, deaths or cases; the first two by default. Repeat for more."),
    ] = None,
    fit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A parameter to fit, or all. Repeat for more; by default those that the data show."
        ),
    ] = None,
    agents: options.People = 8_400_000,
    coarse: Annotated[
        int, typer.Option(help="How many people there are in the rounds that look for the parameters; 0 for all.")
    ] = COARSE,
    rounds: Annotated[int, typer.Option(help="Rounds of runs at most.")] = 5,
    guide: Annotated[
        str, typer.Option(help="multivariate-normal, normal, iaf or spline; or calibnn, a network that reads counts.")
    ] = "multivariate-normal",
    learn: Annotated[
        int, typer.Option(help="From how many runs in all the network of --guide calibnn learns, those kept included.")
    ] = LEARN,
    network: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep what that network learns here, or go on from it.")
    ] = None,
    misfit: Annotated[
        float, typer.Option(help="How far the model itself may be off, smooth in time, as a share.")
    ] = 0.1,
    simulations: Annotated[int, typer.Option(help="Runs of all the people at draws of the posterior.")] = 16,
    ahead: Annotated[int, typer.Option(help="Days that these go on after the last that is fitted.")] = 0,
    before: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Go on from the posterior in this results.nc, of fewer weeks.")
    ] = None,
    seed: options.Seed = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Hold a parameter at this value. Repeat for more."),
    ] = None,
    intervene: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE@DAY", help="What was done. Repeat for more.")
    ] = None,
    start: options.Start = "2020-03-01",
    app: options.App = False,
    out: options.Out = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with an interrupted calibration in this folder.")
    ] = None,
    as_json: options.AsJson = False,
    device: options.Device = "cpu",
    population: options.Saved = None,
    population_seed: options.PopulationSeed = 0,
) -> None:
    """Fit the pandemic to daily counts by borough, with transmission that varies over time and place.

    Runs of a small sample of the city teach how counts follow the parameters; what the whole city does differently is
    measured and made up for; a guide is fitted by variational inference; and the whole city is run at draws of the
    posterior. The report says whether to believe it.

    [bold]Examples[/]

    A small city:

    [cyan]lpmppl calibrate nyc --agents 20000 --coarse 0 --data data-by-day.csv --out runs/fit[/]

    All of New York, with two months after the last day that is fitted:

    [cyan]lpmppl calibrate nyc --data data-by-day.csv --until 2020-05-31 --ahead 61 --out runs/fit[/]

    What was known of the city on 1 June, and four weeks more:

    [cyan]lpmppl calibrate nyc --data vintages.csv --vintage 2020-06-01 --ahead 28 --out runs/june[/]

    A network that reads the counts, and reads later ones without another run:

    [cyan]lpmppl calibrate nyc --guide calibnn --learn 4096 --network nyc.npz --data data-by-day.csv --out runs/read[/]

    [cyan]lpmppl calibrate nyc --guide calibnn --network nyc.npz --data newer.csv --out runs/again[/]

    Go on after Ctrl-C:

    [cyan]lpmppl calibrate --resume runs/fit[/]
    """
    explicit = explicitly_given(context)
    until = until or (eight_days_before(vintage) if vintage else "2020-05-31")
    question: dict[str, Any] = {
        "data": str(data.absolute()) if data else "",
        "vintage": vintage,
        "until": until,
        "streams": stream or ["admissions", "deaths"],
        "fit": fit or [],
        "coarse": coarse,
        "rounds": rounds,
        "guide": guide,
        "misfit": misfit,
        "simulations": simulations,
        "ahead": ahead,
        "before": str(before.absolute()) if before else "",
        "learn": learn,
        "network": str(network.absolute()) if network else "",
    }
    folder = None
    try:
        if resume:
            folder = RunFolder.reopen(resume, "calibration")
            if extra := explicit - {"resume", "as_json"}:
                raise InputError(
                    f"--resume goes on with what it began with: leave --{min(extra).replace('_', '-')} out"
                )
            question = dict(folder.record["calibration"])
            asked = Settings.read(folder.record.get("settings", {}), f"--resume {resume}")
        else:
            check(question, explicit)
            if data is None:
                raise InputError("--data: give the file of daily counts that is to be fitted")
            asked = Settings(
                name=name, model="pandemic", days=days_to(until, start) + max(0, ahead), seed=seed, start=start,
                population_seed=population_seed, device=device, saved=str(population.absolute()) if population else "",
                agents=None if population and "agents" not in explicit else agents,
                set=settings(set_ or []), intervene=tuple(interventions(intervene or [])), app=app,
            )  # fmt: skip
            folder = RunFolder.claim(out, {**opening(asked), "calibration": question}) if out else None
        outcome = compute(asked, question, folder, bool(resume))
    except KeyboardInterrupt:
        go_on = f"go on with: lpmppl calibrate --resume {shlex.quote(str(folder.path))}" if folder else ""
        raise Interrupted(f"interrupted; {go_on or 'nothing is kept (give --out DIR to be able to go on)'}") from None
    except (LpmError, OSError):
        if folder and not resume:
            folder.abandon()
        raise
    finally:
        if folder:
            folder.unlock()
    if as_json:
        print(json.dumps(outcome))
    else:
        show(outcome)


def days_to(until: str, start: str) -> int:
    """How many days there are from the start to the last day."""
    try:
        days = (date.fromisoformat(until) - date.fromisoformat(start)).days + 1
    except ValueError as error:
        raise InputError(f"--until {until}, --start {start}: write both as dates such as 2020-05-31") from error
    if days < 1:
        raise InputError(f"--until {until} comes before --start {start}")
    return days


def compute(asked: Settings, question: dict[str, Any], folder: RunFolder | None, again: bool) -> dict[str, Any]:
    """Do what was asked, keep it in `folder`, and give the outcome as one JSON object."""
    from lpmppl.inference.calibrate import calibrate as ask
    from lpmppl.models import nyc
    from lpmppl.report.datatree import load
    from lpmppl.report.tables import totals

    vintage = question.get("vintage", "")
    data = counted(question["data"], question["streams"], vintage)
    if vintage and question["until"] > (last := str(data["day"].values[-1])[:10]):
        raise InputError(f"--until {question['until']}: on {vintage} no day after {last} was known")
    before = load(question["before"]) if question.get("before") else None
    needs_app(asked, question["fit"])
    people, prepared = people_of(asked, folder)
    fitted = days_to(question["until"], asked.start)
    ahead = question["ahead"]
    within = "" if vintage else "borough"
    model = nyc.varying(people, fitted, asked.start, ahead=ahead, within=within, app=asked.app)
    small = None
    if 0 < question["coarse"] < people.size and not asked.saved:
        few = people_for(replace(asked, agents=question["coarse"]))
        small = nyc.varying(few, fitted, asked.start, ahead=ahead, within=within, app=asked.app)
    # What comes after the data is unknown, and the walk rests where they end.
    rests, later = (model.steps(fitted - 1, fitted - 1), model.steps(fitted, fitted + 2 * ahead)) if ahead else ([], [])
    shown = [n for n in model.parameters if n in nyc.FITTED or n not in model.model.parameters]
    chosen = [n for n in question["fit"] or shown if n not in rests and n not in later]
    began = time.perf_counter()
    looked_for = "all" if chosen == ["all"] else [n for n in chosen if n not in asked.set]
    unseen = [n for n in later if n not in asked.set]
    kept = folder.checkpoint if folder else None
    if question["guide"] == CALIBNN:
        every = looked_for if isinstance(looked_for, str) else [*looked_for, *unseen]
        file = Path(question["network"]) if question["network"] else kept
        tree = read({**question, "fitted": fitted}, asked, (model, small), data, every, telling(), file)
    else:
        tree = ask(
            model,
            data,
            question["until"],
            parameters=looked_for,
            unseen=unseen,
            set=dict(asked.set),
            interventions=list(asked.intervene),
            coarse=small,
            rounds=question["rounds"],
            guide=question["guide"],
            misfit=question["misfit"],
            simulations=question["simulations"],
            ahead=ahead,
            before=before,
            seed=asked.seed,
            checkpoint=kept,
            resume=bool(folder and again and folder.checkpoint.exists()),
            progress=telling(),
        )
    posterior = tree["posterior"].to_dataset()
    outcome = {
        "population": asked.name,
        "model": asked.model,
        "agents": int(people.size),
        "days": int(tree.attrs["days"]),
        "fitted_days": int(tree.attrs["fitted_days"]),
        "seed": asked.seed,
        "seconds": round(time.perf_counter() - began, 3),
        "seconds_by_part": json.loads(tree.attrs.get("seconds_by_part", "{}")),
        "population_seconds": round(prepared, 3),
        "totals": totals(tree),
        "posterior": {
            str(n): {"mean": float(x.mean()), "low": float(x.quantile(0.05)), "high": float(x.quantile(0.95))}
            for n, x in posterior.data_vars.items()
        },
        "coverage": tree.attrs.get("coverage"),
        "khat": tree.attrs.get("khat"),
        "verdict": json.loads(tree.attrs["verdict"]),
        "set": dict(asked.set),
        "interventions": [list(act) for act in asked.intervene],
    }
    if folder:
        tree.attrs["knots"], tree.attrs["within"] = json.dumps(model.knots), within
        tree.attrs["data_sha256"] = str(data.attrs.get("sha256", ""))
        keep(tree, folder, outcome)
    return {**outcome, "peak_rss_mb": peak_rss_mb(), **({"out": str(folder.path)} if folder else {})}


def telling() -> Callable[[str], None]:
    """Say what is done next, with the time since the start, where stderr is a terminal."""
    began = time.perf_counter()

    def tell(words: str) -> None:
        if sys.stderr.isatty():
            print(f"{time.perf_counter() - began:6.0f} s  {words}", file=sys.stderr)

    return tell


def show(outcome: dict[str, Any]) -> None:
    """Print the posterior as a table, the verdict, and where the files are."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{outcome['model']} in {outcome['population']}: {outcome['agents']:,} people, {outcome['fitted_days']} days "
        f"fitted, seed {outcome['seed']}",
        highlight=False,
    )
    table = Table()
    table.add_column("parameter")
    table.add_column("mean", justify="right")
    table.add_column("90 %", justify="right")
    for name, x in outcome["posterior"].items():
        table.add_row(name, f"{x['mean']:.4g}", f"{x['low']:.3g} to {x['high']:.3g}")
    console.print(table)
    for sentence in outcome["verdict"]:
        console.print(f"- {sentence}", highlight=False)
    closing(console, outcome, "calibrated")
