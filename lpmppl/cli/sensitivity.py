"""`lpmppl sensitivity`: on which parameters does a tally hang, and how sure is that?"""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmppl.cli import options
from lpmppl.cli.folder import RunFolder, whole_or_nothing
from lpmppl.cli.machine import peak_rss_mb
from lpmppl.cli.settings import Settings
from lpmppl.cli.simulate import asked_of, keep, made, needs_app, opening, people_for, people_of
from lpmppl.cli.summary import closing
from lpmppl.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["sensitivity"]

_LONG, _LEAST = 200_000_000, 100_000
"""Agents times runs from which derivatives are taken in a smaller city, and how many it has at least."""

_OF_WHOLE = ("within_agents", "ratio_to_whole", "ratio_to_whole_se")


def sensitivity(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="POPULATION", help="Whom to ask about.")] = "nyc",
    of: Annotated[str, typer.Option(metavar="TALLY", help="The tally whose derivatives are wanted.")] = "deaths",
    wrt: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A parameter, or all. Repeat for more.")] = None,
    model: options.Model = "pandemic",
    agents: options.People = 8_400_000,
    days: options.Days = 90,
    draws: Annotated[int, typer.Option(help="How many times everybody's chance is drawn.")] = 4,
    precision: Annotated[
        float | None, typer.Option(help="Draw on until every standard error is this share of the largest derivative.")
    ] = None,
    estimator: Annotated[
        str,
        typer.Option(
            help="auto, differences, pathwise, flips or score; or straight-through, gumbel-softmax or mean-field, "
            "which are biased."
        ),
    ] = "auto",
    within: Annotated[
        int | None,
        typer.Option(
            metavar="AGENTS",
            help="Take derivatives in a smaller city, held against the whole one; 0 for not. By default where "
            "differences of the whole would take long.",
        ),
    ] = None,
    audit: Annotated[
        bool, typer.Option(help="Hold the largest derivatives against differences of other draws.")
    ] = True,
    seed: options.Seed = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Take derivatives at this value. Repeat for more."),
    ] = None,
    intervene: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE@DAY", help="What is done in every run. Repeat for more."),
    ] = None,
    start: options.Start = "",
    app: options.App = False,
    out: options.Out = None,
    as_json: options.AsJson = False,
    device: options.Device = "cpu",
    population: options.Saved = None,
    population_seed: options.PopulationSeed = 0,
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
    names = wrt or ["all"]
    asked = asked_of(context)
    needs_app(asked, [of, *names])
    wanted = "all" if names == ["all"] else names
    question = {"of": of, "wrt": wanted, "draws": draws, "precision": precision, "estimator": estimator}
    folder = RunFolder.claim(out, {**opening(asked), "sensitivity": question}) if out else None
    with whole_or_nothing(folder, "a sensitivity"):
        outcome = compute(asked, {**question, "within": within, "audit": audit}, folder)
    if as_json:
        print(json.dumps(outcome))
    else:
        show(outcome)


def compute(asked: Settings, question: dict[str, Any], folder: RunFolder | None) -> dict[str, Any]:
    """Do what was asked, keep it in `folder`, and give the outcome as one JSON object."""
    import xarray as xr

    from lpmppl.cli.waiting import waiting
    from lpmppl.inference.audit import AUDITED
    from lpmppl.inference.run import run
    from lpmppl.inference.sensitivity import numbers_of
    from lpmppl.inference.sensitivity import sensitivity as ask
    from lpmppl.report.tables import totals

    people, prepared = people_of(asked, folder)
    model = made(asked, people)
    runs = 2 * len(numbers_of(model, question["wrt"])) * max(question["draws"], 2)
    wanted, automatic = question["within"], question["estimator"] == "auto" and not model.timed
    if asked.saved and wanted:
        raise InputError(f"--within {wanted}: a smaller {asked.saved} can't be built; leave --within out")
    if wanted is None and automatic and not asked.saved and runs * people.size >= _LONG:
        wanted = min(max(people.size // runs, _LEAST), AUDITED)
    question = {**question, "within": made(asked, people_for(replace(asked, agents=wanted))) if wanted else None}
    if question["audit"] and not wanted and people.size > AUDITED and not asked.saved:
        question = {**question, "audit": made(asked, people_for(replace(asked, agents=AUDITED)))}
    given: dict[str, Any] = {"set": dict(asked.set), "interventions": list(asked.intervene)}
    began = time.perf_counter()
    with waiting("Running either side of every parameter"):
        found = ask(model, days=asked.days, seed=asked.seed, **question, **given)
        tree = run(model, days=asked.days, seed=asked.seed, **given)
    seconds, audit = time.perf_counter() - began, found.attrs.get("audit_seconds", 0.0)
    outcome = {
        "population": asked.name,
        "model": asked.model,
        "agents": int(people.size),
        "days": asked.days,
        "seed": asked.seed,
        "of": question["of"],
        "draws": found.attrs["draws"],
        "seconds": round(seconds - audit, 3),
        "audit_seconds": round(audit, 3),
        "audited_agents": found.attrs.get("audited_agents", int(wanted or people.size) if audit else 0),
        **{name: finite(found.attrs[name]) for name in _OF_WHOLE if name in found.attrs},
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
    return {name: finite(value) for name, value in values.items()}


def finite(value: float) -> float | None:
    """Give a number as JSON has them: None for what isn't finite."""
    return value if math.isfinite(value) else None


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
    if "within_agents" in outcome:
        ratio, error = outcome["ratio_to_whole"], outcome["ratio_to_whole_se"]
        beside = f"; the whole city's are {ratio:.2f} ± {error:.2f} times theirs, where steepest" if ratio else ""
        console.print(f"elasticities of {outcome['within_agents']:,} people{beside}", highlight=False)
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
    closing(console, outcome, "computed")
