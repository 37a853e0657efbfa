"""`lpmppl sensitivity`: on which parameters does a tally hang, and how sure is that?"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmppl.cli.folder import RunFolder
from lpmppl.cli.interrupted import Interrupted
from lpmppl.cli.machine import peak_rss_mb
from lpmppl.cli.settings import Settings
from lpmppl.cli.simulate import explicitly_given, keep, made, opening, origin, people_for
from lpmppl.cli.spelling import interventions, settings
from lpmppl.errors import LpmError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["sensitivity"]


def sensitivity(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="POPULATION", help="Whom to ask about.")] = "nyc",
    of: Annotated[str, typer.Option(metavar="TALLY", help="The tally whose derivatives are wanted.")] = "deaths",
    wrt: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A parameter, or all. Repeat for more.")] = None,
    model: Annotated[str, typer.Option(help="pandemic, seirm or sir, as for simulate.")] = "pandemic",
    agents: Annotated[int, typer.Option(help="How many people.")] = 8_400_000,
    days: Annotated[int, typer.Option(help="How many days.")] = 90,
    draws: Annotated[int, typer.Option(help="How many times everybody's chance is drawn.")] = 4,
    estimator: Annotated[str, typer.Option(help="auto, differences, flips or score.")] = "auto",
    audit: Annotated[
        bool, typer.Option(help="Hold the largest derivatives against differences of other draws.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Chance of the run. The same seed gives the same numbers.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Take derivatives at this value. Repeat for more."),
    ] = None,
    intervene: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE@DAY", help="What is done in every run. Repeat for more."),
    ] = None,
    start: Annotated[str, typer.Option(metavar="DATE", help="The date of day 0 of the pandemic.")] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep results.nc, report.html and run.json in this new folder.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on one line, and nothing else on stdout.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1 ...")] = "cpu",
    population: Annotated[
        Path | None, typer.Option(metavar="P.zarr", help="Use this saved population instead of building one.")
    ] = None,
    population_seed: Annotated[int, typer.Option(help="Chance of the population's making.")] = 0,
) -> None:
    """Say how a tally moves with each parameter, with standard errors, and how right that is.

    Every run has the same chance for everybody on either side of a parameter, so that what differs is the parameter's
    doing. The largest derivatives are held against others of fresh chance and half the step.

    [bold]Examples[/]

    All parameters, a small city, with a report:

    [cyan]lpmppl sensitivity nyc --agents 20000 --days 60 --of infections --wrt all --out runs/what-matters[/]

    Two parameters, as JSON:

    [cyan]lpmppl sensitivity nyc --agents 100000 --of deaths --wrt beta --wrt home --json[/]
    """
    explicit = explicitly_given(context)
    names = wrt or ["all"]
    asked = Settings(
        name=name,
        saved=str(population.absolute()) if population else "",
        model=model,
        agents=None if population and "agents" not in explicit else agents,
        days=days,
        seed=seed,
        population_seed=population_seed,
        device=device,
        set=settings(set_ or []),
        intervene=tuple(interventions(intervene or [])),
        start=start,
    )
    question = {"of": of, "wrt": "all" if names == ["all"] else names, "draws": draws, "estimator": estimator}
    folder = RunFolder.claim(out, {**opening(asked), "sensitivity": question}) if out else None
    try:
        outcome = compute(asked, {**question, "audit": audit}, folder)
    except KeyboardInterrupt:
        if folder:
            folder.abandon()
        raise Interrupted("interrupted; a sensitivity keeps nothing until it is done") from None
    except (LpmError, OSError):
        if folder:
            folder.abandon()
        raise
    finally:
        if folder:
            folder.unlock()
    if as_json:
        print(json.dumps(outcome))
    else:
        show(outcome)


def compute(asked: Settings, question: dict[str, Any], folder: RunFolder | None) -> dict[str, Any]:
    """Do what was asked, keep it in `folder`, and give the outcome as one JSON object."""
    import xarray as xr

    from lpmppl.cli.waiting import waiting
    from lpmppl.inference.run import run
    from lpmppl.inference.sensitivity import sensitivity as ask
    from lpmppl.report.tables import totals

    began = time.perf_counter()
    with waiting("Preparing the population"):
        people = people_for(asked)
    prepared = time.perf_counter() - began
    if folder:
        folder.write({"settings": replace(asked, agents=people.size).record(), "data": origin(people)})
    model = made(asked, people)
    given: dict[str, Any] = {"set": dict(asked.set), "interventions": list(asked.intervene)}
    began = time.perf_counter()
    with waiting("Running either side of every parameter"):
        found = ask(model, days=asked.days, seed=asked.seed, **question, **given)
        tree = run(model, days=asked.days, seed=asked.seed, **given)
    seconds = time.perf_counter() - began
    outcome = {
        "population": asked.name,
        "model": asked.model,
        "agents": int(people.size),
        "days": asked.days,
        "seed": asked.seed,
        "of": question["of"],
        "draws": question["draws"],
        "seconds": round(seconds, 3),
        "population_seconds": round(prepared, 3),
        "totals": totals(tree),
        "sensitivities": {str(n): measures(found.sel(parameter=n)) for n in found["parameter"].values},
        "without_effect": found.attrs["without_effect"],
        "set": dict(asked.set),
        "interventions": [list(act) for act in asked.intervene],
    }
    if folder:
        attrs = {k: json.dumps(v) if isinstance(v, list) else v for k, v in found.attrs.items()}
        tree["sensitivity"] = xr.DataTree(found.assign_attrs(attrs))
        keep(tree, folder, outcome)
    return {**outcome, "peak_rss_mb": peak_rss_mb(), **({"out": str(folder.path)} if folder else {})}


def measures(found: xr.Dataset) -> dict[str, float | None]:
    """Give a parameter's measures; None where there is none."""
    names = ("value", "se", "low", "high", "elasticity", "elasticity_se", "at", "difference", "difference_se")
    values = {name: float(found[name]) for name in names}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def show(outcome: dict[str, Any]) -> None:
    """Print the derivatives as a table, the greatest elasticity first, and where the files are."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{outcome['of']} of {outcome['model']} in {outcome['population']}: {outcome['agents']:,} people, "
        f"{outcome['days']} days, seed {outcome['seed']}, {outcome['draws']} draws",
        highlight=False,
    )
    table = Table()
    table.add_column("parameter")
    for head in ("derivative", "90 %", "% per %", "audit"):
        table.add_column(head, justify="right")
    moving = [n for n in outcome["sensitivities"] if n not in outcome["without_effect"]]
    for name in sorted(moving, key=lambda n: -abs(outcome["sensitivities"][n]["elasticity"] or 0.0)):
        x = outcome["sensitivities"][name]
        table.add_row(
            name,
            f"{x['value']:.4g}",
            f"{x['low']:.3g} to {x['high']:.3g}",
            "" if x["elasticity"] is None else f"{x['elasticity']:+.2f}",
            "" if x["difference"] is None else f"{x['difference']:.4g} ± {x['difference_se']:.2g}",
        )
    console.print(table)
    if outcome["without_effect"]:
        console.print(f"without effect: {', '.join(outcome['without_effect'])}", highlight=False)
    console.print(
        f"computed in {outcome['seconds']:,.1f} s (population: {outcome['population_seconds']:,.1f} s), "
        f"peak memory {outcome['peak_rss_mb']:,.0f} MB",
        highlight=False,
    )
    if "out" in outcome:
        console.print(f"report: {outcome['out']}/report.html", highlight=False, soft_wrap=True, markup=False)
