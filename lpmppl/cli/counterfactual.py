"""`lpmppl counterfactual`: what would policies have done, among the same people with the same chance?"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmppl.cli.folder import RunFolder
from lpmppl.cli.interrupted import Interrupted
from lpmppl.cli.machine import check_memory, peak_rss_mb
from lpmppl.cli.settings import Settings
from lpmppl.cli.simulate import explicitly_given, keep, made, opening, origin, people_for
from lpmppl.cli.spelling import interventions, policies, settings
from lpmppl.errors import InputError, LpmError

if TYPE_CHECKING:
    from xarray import DataTree

    from lpmppl.inference.policies import Policy

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
    model: Annotated[str, typer.Option(help="pandemic, seirm or sir, as for simulate.")] = "pandemic",
    agents: Annotated[int, typer.Option(help="How many people.")] = 8_400_000,
    days: Annotated[int, typer.Option(help="How many days.")] = 90,
    draws: Annotated[
        int | None,
        typer.Option(help="Draw parameters and chance this many times; by default once, at the defaults."),
    ] = None,
    replicates: Annotated[int, typer.Option(help="Draw chance so many times for each draw of parameters.")] = 1,
    posterior: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw parameters from the posterior in this results.nc.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Chance of the run. The same seed gives the same numbers.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Give a parameter this value. Repeat for more."),
    ] = None,
    intervene: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE@DAY", help="What is done in every world. Repeat for more."),
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
    explicit = explicitly_given(context)
    if not do:
        raise InputError("there is no policy: say one, such as --do stimulus=500@30")
    chosen = policies(do)
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
    folder = RunFolder.claim(out, {**opening(asked), "policies": list(do)}) if out else None
    try:
        outcome = compute(asked, chosen, factorial, draws, replicates, posterior, folder)
    except KeyboardInterrupt:
        if folder:
            folder.abandon()
        raise Interrupted("interrupted; a counterfactual keeps nothing until it is done") from None
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
    from lpmppl.cli.waiting import waiting
    from lpmppl.inference.counterfactual import counterfactual as ask
    from lpmppl.report import datatree
    from lpmppl.report.tables import totals

    fitted = datatree.load(posterior) if posterior else None
    began = time.perf_counter()
    with waiting("Preparing the population"):
        people = people_for(asked)
    check_memory(people.size, worlds=1 + (2 ** len(chosen) - 1 if factorial else len(chosen)))
    prepared = time.perf_counter() - began
    if folder:
        folder.write({"settings": replace(asked, agents=people.size).record(), "data": origin(people)})
    tree = ask(
        made(asked, people),
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
    console.print(
        f"simulated in {outcome['seconds']:,.1f} s (population: {outcome['population_seconds']:,.1f} s), "
        f"peak memory {outcome['peak_rss_mb']:,.0f} MB",
        highlight=False,
    )
    if "out" in outcome:
        console.print(f"report: {outcome['out']}/report.html", highlight=False, soft_wrap=True, markup=False)


def amount(value: float) -> str:
    """Write an effect with its sign.

    >>> amount(-1234.5), amount(0.0), amount(0.25)
    ('-1,234', '0', '+0.25')
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    return f"{value:+,.0f}" if abs(value) >= 10 else f"{value:+.2g}"
