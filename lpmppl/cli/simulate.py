"""`lpmppl simulate`: run a model on a population, and keep what comes out."""

from __future__ import annotations

import importlib
import inspect
import json
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmppl.cli import language, options
from lpmppl.cli.folder import RunFolder
from lpmppl.cli.interrupted import Interrupted
from lpmppl.cli.machine import check_device, check_memory, peak_rss_mb
from lpmppl.cli.ranks import joined, launch, restarts, speaks, started
from lpmppl.cli.settings import Settings, plain
from lpmppl.cli.spelling import interventions, settings, strata
from lpmppl.cli.summary import show
from lpmppl.errors import InputError, LpmError

if TYPE_CHECKING:
    from xarray import DataTree

    from lpmppl.effects.ranks import Ranks
    from lpmppl.models.model import Model
    from lpmppl.models.population import Population

__all__ = ["simulate"]

MOST_GROUPS = 20_000
"""In how many groups results are broken down at most."""


def simulate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="POPULATION", help="Whom to simulate.")] = "nyc",
    model: Annotated[
        str,
        typer.Option(
            help="pandemic (disease, testing, vaccination, mobility, work, money and behaviour), seirm (its core: "
            "exposed, infectious, deaths) or sir."
        ),
    ] = "pandemic",
    agents: Annotated[
        int, typer.Option(help="How many people; fewer than the city has are a proportional sample.")
    ] = 8_400_000,
    days: options.Days = 90,
    seed: options.Seed = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Give a parameter this value. Repeat for more."),
    ] = None,
    intervene: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE@DAY", help="From this day on, set a part of the environment. Repeat for more."
        ),
    ] = None,
    start: Annotated[
        str, typer.Option(metavar="DATE", help="The date of day 0 of the pandemic; by default 2020-03-01.")
    ] = "",
    by: options.By = None,
    app: options.App = False,
    out: options.Out = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Go on with an interrupted run in this folder.")
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, metavar="DAYS", help="With --out, days between checkpoints.")
    ] = 30,
    as_json: options.AsJson = False,
    ranks: Annotated[
        int, typer.Option(min=1, help="How many processes share the people; the numbers are the same for any number.")
    ] = 1,
    device: options.Device = "cpu",
    population: options.Saved = None,
    population_seed: options.PopulationSeed = 0,
    behaviour: language.Behaviour = "utility",
    llm_url: language.Url = "",
    llm_model: language.Name = "",
    llm_logprobs: language.Logprobs = False,
    samples: language.Samples = 10,
    cache: language.Cache = None,
    offline: language.Offline = False,
    llm_limit: language.Limit = None,
    llm_price: language.Price = None,
    llm_budget: language.Budget = None,
) -> None:
    """Simulate an epidemic among the people of a city, day by day.

    The population is built once and then cached. Without --out, a summary is printed and nothing is kept. With it, a
    killed or interrupted run leaves its last checkpoint, and --resume goes on to the same numbers.

    [bold]Examples[/]

    A small city first:

    [cyan]lpmppl simulate nyc --agents 100000 --days 60[/]

    All of New York, with a report to open in a browser:

    [cyan]lpmppl simulate nyc --out runs/nyc[/]

    From day 20 on, contacts transmit at 30 % of what they did:

    [cyan]lpmppl simulate nyc --agents 100000 --intervene transmission=0.3@20[/]

    Another value of a parameter, the result as JSON:

    [cyan]lpmppl simulate nyc --agents 100000 --set beta=0.4 --json[/]

    With an app that tells of contacts, installed on the phones of a third of people on day 10:

    [cyan]lpmppl simulate nyc --agents 100000 --app --intervene app_seeds=0.3@10[/]

    By community district and age, for a map of the city (lpmppl report runs/districts --map):

    [cyan]lpmppl simulate nyc --agents 100000 --by puma,age=age_band --out runs/districts[/]

    People decide as a language model says, which is asked by archetype; and once more, of the answers that were kept:

    [cyan]lpmppl simulate nyc --agents 20000 --behaviour llm --llm-url http://localhost:8000/v1 --cache kept.sqlite[/]

    [cyan]lpmppl simulate nyc --agents 20000 --behaviour llm --cache kept.sqlite --offline[/]

    In two processes, here or (with torchrun) on many machines, with the same numbers:

    [cyan]lpmppl simulate nyc --ranks 2[/]

    [cyan]torchrun --nproc-per-node 2 -m lpmppl simulate nyc[/]

    Go on after Ctrl-C, a crash or a power cut:

    [cyan]lpmppl simulate --resume runs/nyc[/]

    With --max-restarts torchrun does that by itself:

    [cyan]torchrun --nproc-per-node 2 --max-restarts 3 -m lpmppl simulate nyc --out runs/nyc[/]
    """
    explicit = explicitly_given(context)
    asked = asked_of(context)
    if ranks > 1 or started() > 1:
        check_ranks(ranks, asked, "ranks" in explicit)
    if started() < ranks:
        raise typer.Exit(launch(ranks, sys.argv[1:]))
    folder = None
    try:
        if resume:
            if out and out.absolute() != resume.absolute():
                raise InputError(f"--resume {resume} keeps its files there: leave --out {out} out")
            folder = RunFolder.reopen(resume) if speaks() else RunFolder.seen(resume)
            kept = Settings.read(folder.record.get("settings", {}), f"--resume {resume}")
            kept.agree(asked, explicit)
            asked = kept
        elif out and restarts():
            if (folder := again(out, asked)) is None:
                return
        elif out:
            folder = RunFolder.claim(out, opening(asked)) if speaks() else RunFolder(out)
        asking = language.Asking(offline, llm_limit, llm_price, llm_budget)
        with joined() as shared:
            outcome = compute(asked, folder, checkpoint_every, asking, shared)
    except KeyboardInterrupt:
        raise Interrupted(farewell(folder)) from None
    except (LpmError, OSError):
        if folder and not resume and speaks():
            folder.abandon()
        raise
    finally:
        if folder:
            folder.unlock()
    if not speaks():
        return
    if as_json:
        print(json.dumps(outcome))
    else:
        show(outcome)


def asked_of(context: typer.Context) -> Settings:
    """What a command line asks for, in the options that all commands share."""
    given, explicit = context.params, explicitly_given(context)
    population = given["population"]
    return Settings(
        **{key: given[key] for key in ("name", "model", "days", "seed", "population_seed", "device", "start")},
        saved=str(population.absolute()) if population else "",
        agents=None if population and "agents" not in explicit else given["agents"],
        set=settings(given["set_"] or []),
        intervene=tuple(interventions(given["intervene"] or [])),
        by=strata(given.get("by") or []),
        app=given["app"],
        **{key: given[key] for key in ("behaviour", "llm_url", "llm_model", "llm_logprobs", "samples") if key in given},
        cache=str(given["cache"].absolute()) if given.get("cache") else "",
    )


def explicitly_given(context: typer.Context) -> set[str]:
    """Name the settings that stand on the command line, as fields of `Settings`."""
    given = {p for p in context.params if getattr(context.get_parameter_source(p), "name", "") == "COMMANDLINE"}
    return {{"set_": "set", "population": "saved"}.get(p, p) for p in given}


def now() -> str:
    """Give the time as ISO text, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command() -> str:
    """Give the command line that runs now."""
    return shlex.join(["lpmppl", *sys.argv[1:]])


def opening(asked: Settings) -> dict[str, Any]:
    """Give what `run.json` says before anything is computed."""
    from lpmppl.cli.versions import installed

    return {
        "status": "running",
        "command": command(),
        "created": now(),
        "seed": asked.seed,
        "settings": asked.record(),
        "versions": installed(),
    }


def again(out: Path, asked: Settings) -> RunFolder | None:
    """The folder of a run that torchrun has started again, with a word of where it goes on; None where it was done.

    Raises InputError where the folder is of another run.
    """
    done = False
    if (out / "run.json").is_file():
        seen = RunFolder.seen(out)
        kept = Settings.read(seen.record.get("settings", {}), f"--out {out}")
        if kept != replace(asked, agents=kept.agents if asked.agents is None else asked.agents):
            raise InputError(f"--out {out} is of another run than torchrun has started again: choose a new folder")
        done = seen.record["status"] == "done"
    folder = None if done else RunFolder.again(out, opening(asked)) if speaks() else RunFolder(out)
    if speaks():
        on = f"going on from the checkpoint in {out}" if folder and folder.checkpoint.exists() else "from day 0"
        how = f"the run in {out} is done" if done else on
        print(f"lpmppl: torchrun's restart {restarts()}: {how}", file=sys.stderr)
    return folder


def farewell(folder: RunFolder | None) -> str:
    """Say what an interrupted run leaves, and how to go on."""
    if folder is None:
        return "interrupted; nothing is kept (give --out DIR to be able to go on)"
    return f"interrupted; go on with: lpmppl simulate --resume {shlex.quote(str(folder.path))}"


def people_for(asked: Settings, ranks: Ranks | None = None) -> Population:
    """Open the saved population, or build or recall the named one.

    Raises InputError where there is no such device, too little memory, or a saved population of another size.
    """
    check_device(asked.device)
    if not asked.saved and asked.agents is not None:
        check_memory(asked.agents)
        city = importlib.import_module(f"lpmppl.models.{asked.name}")
        population: Population = city.population(asked.agents, asked.population_seed, asked.device, ranks)
        return population
    from lpmppl.models.population import Population as Saved

    population = Saved.open(asked.saved, asked.device, ranks)
    if asked.agents not in (None, population.everybody):
        raise InputError(f"--agents {asked.agents}: {asked.saved} holds {population.everybody} people, leave it out")
    return population


def check_ranks(ranks: int, asked: Settings, explicit: bool) -> None:
    """Refuse what a run on ranks can't do, or another number of ranks than torchrun has started."""
    if explicit and 1 < started() != ranks:
        raise InputError(f"--ranks {ranks}: torchrun has started {started()}; give the same number, or leave it out")
    if asked.behaviour != "utility":
        raise InputError(f"--behaviour {asked.behaviour}: a language model is told of everybody together; use one rank")
    if asked.device != "cpu":
        raise InputError(f"--device {asked.device}: ranks compute on the CPU; leave --ranks or --device out")


def people_of(asked: Settings, folder: RunFolder | None, ranks: Ranks | None = None) -> tuple[Population, float]:
    """Get the people ready, note in `folder` what they were built from, and say how long it took."""
    from lpmppl.cli.waiting import waiting

    began = time.perf_counter()
    with waiting("Preparing the population"):
        population = people_for(asked, ranks)
    prepared = time.perf_counter() - began
    if folder and speaks():
        begin(folder, replace(asked, agents=population.everybody), origin(population))
    return population, prepared


def origin(population: Population) -> dict[str, Any]:
    """Give what a population was built from: builder, size, seed, and its tables with their checksum."""
    from lpmppl.data.provenance import provenance

    made = provenance(population.dataset)
    return {k: made[k] for k in ("builder", "agents", "seed", "tables", "tables_sha256") if k in made}


def compute(
    asked: Settings, folder: RunFolder | None, every: int, asking: language.Asking, ranks: Ranks | None = None
) -> dict[str, Any]:
    """Do what was asked, keep it in `folder`, and give the outcome as one JSON object."""
    from lpmppl.report.tables import of_people, tallies, totals

    population, prepared = people_of(asked, folder, ranks)
    tree, said = simulated(asked, population, folder, every, asking)
    outcome = {
        "population": asked.name,
        "model": asked.model,
        "agents": population.everybody,
        "days": asked.days,
        "seed": asked.seed,
        "seconds": round(float(tree.attrs["seconds"]), 3),
        "population_seconds": round(prepared, 3),
        "totals": totals(tree),
        "units": {name: tally.attrs["units"] for name, tally in tallies(tree).items() if not of_people(tally)},
        "set": dict(asked.set),
        "interventions": [list(act) for act in asked.intervene],
        "ranks": 1 if ranks is None else ranks.count,
        **({} if ranks is None else {"bytes_sent": ranks.sent}),
        **said,
    }
    if folder and speaks():
        keep(tree, folder, outcome)
    return {**outcome, "peak_rss_mb": peak_rss_mb(), **({"out": str(folder.path)} if folder else {})}


def begin(folder: RunFolder, asked: Settings, data: Mapping[str, Any]) -> None:
    """Note what the population was built from, or refuse to go on with another one than the run began with."""
    before = folder.record.get("data")
    if before not in (None, data):
        raise InputError(
            f"--resume {folder.path}: the population's data have changed since this run began, start anew with --out"
        )
    folder.write({"settings": asked.record(), "data": dict(data)})


def made(asked: Settings, population: Population) -> Model:
    """Make the model of its people."""
    make = getattr(importlib.import_module(f"lpmppl.models.{asked.name}"), asked.model)
    takes = inspect.signature(make).parameters
    if asked.start and "start" not in takes:
        raise InputError(f"--start {asked.start}: the model {asked.model} has no dates; leave --start out")
    if asked.app and "app" not in takes:
        raise InputError(f"--app: the model {asked.model} has no app; leave --app out")
    start, by = {"start": asked.start} if asked.start else {}, {"by": dict(asked.by)} if asked.by else {}
    app = {"app": True} if asked.app else {}
    model: Model = make(population, **start, **by, **app)
    needs_app(asked)
    if model.by is not None and model.by.count > MOST_GROUPS:
        raise InputError(
            f"--by {plain(asked.by)} makes {model.by.count:,} groups, of which every day is kept: give variables that "
            f"make at most {MOST_GROUPS:,}"
        )
    return model


def needs_app(asked: Settings, more: Iterable[str] = ()) -> None:
    """Refuse a name, asked for or of `more`, that the model has with its app alone, where that isn't turned on."""
    city = importlib.import_module(f"lpmppl.models.{asked.name}")
    takes = inspect.signature(getattr(city, asked.model)).parameters
    names = [*asked.set, *(name for name, _, _ in asked.intervene), *more]
    if not asked.app and "app" in takes and (lone := next((n for n in names if n in city.OF_APP), None)):
        raise InputError(f"'{lone}' is of the app, which nobody has here: turn it on with --app")


def simulated(
    asked: Settings, population: Population, folder: RunFolder | None, every: int, asking: language.Asking
) -> tuple[DataTree, dict[str, Any]]:
    """Run the model, and say what a language model was asked."""
    from lpmppl.inference.run import run

    checkpoint, model = folder.checkpoint if folder else None, made(asked, population)
    with language.deciding(asked, model, asking) as said:
        tree = run(
            model,
            days=asked.days,
            seed=asked.seed,
            set=dict(asked.set),
            interventions=list(asked.intervene),
            # A language model's progress is drawn with that of days.
            progress=sys.stderr.isatty() and asked.behaviour == "utility",
            checkpoint=checkpoint,
            checkpoint_every=every,
            resume=checkpoint if checkpoint and checkpoint.exists() else None,
        )
        return tree, said()


def keep(tree: DataTree, folder: RunFolder, outcome: Mapping[str, Any]) -> None:
    """Write the result and its report, then say that the run is done, then drop the checkpoint."""
    from lpmppl.report import datatree, page

    tree.attrs["command"] = str(folder.record.get("command", command()))
    datatree.save(tree, folder.results)
    page.write(tree, folder.page)
    folder.write({"status": "done", "finished": now(), **outcome, "peak_rss_mb": peak_rss_mb()})
    folder.drop_checkpoint()
