"""`lpmppl counterfactual`: what would policies have done, among the same people with the same chance?"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmppl.cli import options
from lpmppl.cli.folder import RunFolder, whole_or_nothing
from lpmppl.cli.machine import peak_rss_mb
from lpmppl.cli.settings import Settings
from lpmppl.cli.simulate import asked_of, keep, made, needs_app, opening, people_of
from lpmppl.cli.spelling import policies
from lpmppl.cli.summary import closing
from lpmppl.errors import InputError

if TYPE_CHECKING:
    from xarray import DataTree

    from lpmppl.inference.policies import Policy
    from lpmppl.models.model import Model

__all__ = ["counterfactual"]


def counterfactual(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="POPULATION", help="Whom to ask about.")] = "nyc",
    do: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE@DAY",
            help="A policy; several acts of one are joined by commas, and a label may stand before a colon. Instead of "
            "a day, KEY>HIGH<LOW does it while that is so. Repeat for alternatives.",
        ),
    ] = None,
    factorial: Annotated[bool, typer.Option(help="Combine the policies with each other in every way.")] = False,
    model: options.Model = "pandemic",
    agents: options.People = 8_400_000,
    days: options.Days = 90,
    draws: Annotated[
        int | None,
        typer.Option(help="Draw parameters and chance this many times; by default once, at the defaults."),
    ] = None,
    replicates: Annotated[int, typer.Option(help="Draw chance so many times for each draw of parameters.")] = 1,
    posterior: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw parameters from the posterior in this results.nc.")
    ] = None,
    seed: options.Seed = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Give a parameter this value. Repeat for more."),
    ] = None,
    intervene: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE@DAY", help="What is done in every world. Repeat for more."),
    ] = None,
    start: options.Start = "",
    by: options.By = None,
    app: options.App = False,
    out: options.Out = None,
    as_json: options.AsJson = False,
    device: options.Device = "cpu",
    population: options.Saved = None,
    population_seed: options.PopulationSeed = 0,
) -> None:
    """Say what policies would have done, among the same people with the same chance.

    Every policy is a world beside the world as it was. They share the days before one of them does something, and all
    of everybody's chance, so that what differs is the policy's doing.

    [bold]Examples[/]

    A cheque of $500 on day 30, with what is uncertain about it:

    [cyan]lpmppl counterfactual nyc --agents 100000 --days 120 --do stimulus=500@30 --draws 20[/]

    Two alternatives and both together, with a report:

    [cyan]lpmppl counterfactual nyc --agents 100000 --do "masks: mask_mandate=1@10" --do "tests: test=antigen@0,
    screening=3@0" --factorial --out runs/masks[/]

    A closure while more than 5 in 100,000 are admitted a day, until fewer than 2 are:

    [cyan]lpmppl counterfactual nyc --agents 100000 --do "stringency=80@admissions/week>5<2"[/]
    """
    if not do:
        raise InputError("there is no policy: say one, such as --do stimulus=500@30")
    chosen = policies(do)
    asked = asked_of(context)
    needs_app(asked, [act.name for policy in chosen for act in policy.acts])
    folder = RunFolder.claim(out, {**opening(asked), "policies": list(do)}) if out else None
    with whole_or_nothing(folder, "a counterfactual"):
        outcome = compute(asked, chosen, factorial, draws, replicates, posterior, folder)
    if as_json:
        print(json.dumps(outcome))
    else:
        show(outcome)


def compute(
    asked: Settings,
    chosen: list[Policy],
    factorial: bool,
    draws: int | None,
    replicates: int,
    posterior: Path | None,
    folder: RunFolder | None,
) -> dict[str, Any]:
    """Do what was asked, keep it in `folder`, and give the outcome as one JSON object."""
    from lpmppl.inference.counterfactual import counterfactual as ask
    from lpmppl.report import datatree
    from lpmppl.report.tables import totals

    fitted = datatree.load(posterior) if posterior else None
    people, prepared = people_of(asked, folder)
    tree = ask(
        fitted_as(made(asked, people), fitted),
        chosen,
        days=asked.days,
        seed=asked.seed,
        draws=draws,
        replicates=replicates,
        posterior=fitted,
        set=dict(asked.set),
        interventions=list(asked.intervene),
        factorial=factorial,
        progress=sys.stderr.isatty(),
    )
    found = policy_effects(tree)
    outcome = {
        "population": asked.name,
        "model": asked.model,
        "agents": int(people.size),
        "days": asked.days,
        "seed": asked.seed,
        "draws": int(tree["prior_predictive"].sizes["draw"]),
        "seconds": round(float(tree.attrs["seconds"]), 3),
        "population_seconds": round(prepared, 3),
        "totals": totals(tree),
        "effects": next(iter(found.values())),
        "policies": found,
        "set": dict(asked.set),
        "interventions": [list(act) for act in asked.intervene],
    }
    if folder:
        keep(tree, folder, outcome)
    return {**outcome, "peak_rss_mb": peak_rss_mb(), **({"out": str(folder.path)} if folder else {})}


def fitted_as(model: Model, fitted: DataTree | None) -> Model:
    """Give the model that a posterior is of: one of `lpmppl calibrate` has transmission that varies."""
    from lpmppl.models.varying import Varying

    if fitted is None or "knots" not in fitted.attrs:
        return model
    return Varying(model, knots=json.loads(fitted.attrs["knots"]), within=str(fitted.attrs.get("within", "borough")))


def policy_effects(tree: DataTree) -> dict[str, dict[str, dict[str, float]]]:
    """Give mean, low and high of every effect, by policy and tally."""
    from lpmppl.inference.contrasts import contrast

    found = contrast(tree)

    def estimates(policy: str, name: str) -> dict[str, float]:
        values = found[name].sel(policy=policy)
        return {e: float(values.sel(estimate=e)) for e in ("mean", "low", "high")}

    return {str(p): {str(n): estimates(str(p), str(n)) for n in found.data_vars} for p in found["policy"].values}


def show(outcome: dict[str, Any]) -> None:
    """Print the effects as a table, and where the files are."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    drawn = f", {outcome['draws']} draws" if outcome["draws"] > 1 else ""
    console.print(
        f"{outcome['model']} in {outcome['population']}: {outcome['agents']:,} people, {outcome['days']} days, seed "
        f"{outcome['seed']}{drawn}",
        highlight=False,
    )
    for policy, effects in outcome["policies"].items():
        table = Table(title=escape(policy), title_justify="left")
        table.add_column("tally")
        table.add_column("effect", justify="right")
        if drawn:
            table.add_column("90 % of draws", justify="right")
        for name, x in effects.items():
            span = [f"{amount(x['low'])} to {amount(x['high'])}"] if drawn else []
            table.add_row(name, amount(x["mean"]), *span)
        console.print(table)
    closing(console, outcome)


def amount(value: float) -> str:
    """Write an effect with its sign.

    >>> amount(-1234.5), amount(0.0), amount(0.25)
    ('-1,234', '0', '+0.25')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:+,.0f}" if abs(value) >= 10 else f"{value:+.2g}"
