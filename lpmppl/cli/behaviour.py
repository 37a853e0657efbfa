"""`lpmppl behaviour`: what a language model would be asked, before it is asked anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmppl.cli import language, options
from lpmppl.cli.settings import Settings
from lpmppl.cli.simulate import made, people_for
from lpmppl.errors import InputError, nearest

if TYPE_CHECKING:
    from lpmppl.effects.handlers.language import LanguageModel

__all__ = ["behaviour"]

behaviour = typer.Typer(help="What a language model would be asked: prompts, and how many.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="POPULATION", help="Whose behaviour.")]


@behaviour.command("show")
def show(
    name: Name = "nyc",
    decision: Annotated[str, typer.Option(metavar="NAME", help="One decision; all by default.")] = "",
    agents: options.People = 2_000,
    days: options.Days = 15,
    seed: options.Seed = 0,
    most: Annotated[int, typer.Option("--most", min=1, metavar="N", help="So many prompts of each decision.")] = 3,
    as_json: options.AsJson = False,
) -> None:
    """Show the prompts of a small city's run, as the language model would read them.

    [bold]Example[/]

    [cyan]lpmppl behaviour show nyc --decision isolate[/]
    """
    from lpmppl.models.prompts import PROMPTS

    if decision and decision not in PROMPTS:
        raise InputError(nearest("decision", decision, PROMPTS))
    handler = counted(name, agents, days, seed)
    found = {d: prompts[:most] for d, prompts in handler.questions.items() if prompts and decision in ("", d)}
    if not found:
        raise InputError(f"nobody has anything to decide about '{decision}' in these {days} days: give more --days")
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for of, prompts in found.items():
        for text in prompts:
            print(f"── {of} ──\n{text}\n")


@behaviour.command("cost")
def cost(
    name: Name = "nyc",
    agents: options.People = 20_000,
    days: options.Days = 90,
    seed: options.Seed = 0,
    samples: language.Samples = 10,
    seconds: Annotated[float, typer.Option(min=0.0, metavar="S", help="How long one answer takes.")] = 1.0,
    at_once: Annotated[int, typer.Option(min=1, metavar="N", help="How many are asked for at once.")] = 8,
    as_json: options.AsJson = False,
) -> None:
    """Say how much a language model would be asked: queries, tokens and seconds.

    The city runs by its own utilities meanwhile: where a language model decides otherwise, other questions come up.

    [bold]Example[/]

    [cyan]lpmppl behaviour cost nyc --agents 100000 --days 60 --samples 5[/]
    """
    handler = counted(name, agents, days, seed, samples)
    asked = handler.asked
    found: dict[str, Any] = {
        "queries": asked.queries,
        "tokens": asked.tokens,
        "seconds": round(asked.queries * seconds / at_once, 1),
        "archetypes": asked.most,
    }
    if as_json:
        print(json.dumps({**found, "agents": agents, "days": days, "samples": samples}))
        return
    print(
        f"{asked.queries:,} queries with about {asked.tokens:,} tokens of prompts, "
        f"{found['seconds']:,.0f} s where each takes {seconds:g} s and {at_once} are asked at once"
    )
    for decision, each in found["archetypes"].items():
        print(f"  {decision}: {each} archetypes at most at a time, {len(handler.questions[decision])} prompts")


def counted(name: str, agents: int, days: int, seed: int, samples: int = 1) -> LanguageModel:
    """What would be asked of a language model in a run that decides by its own utilities."""
    from lpmppl.effects.handlers.behaviour import Utility
    from lpmppl.effects.handlers.language import LanguageModel
    from lpmppl.inference.run import run

    asked = Settings(name, "", "pandemic", agents, days, seed, 0, "cpu", {}, ())
    model = made(asked, people_for(asked))
    with LanguageModel(None, model.prompts, samples=samples, fallback=Utility(model.behaviour), dry=True) as handler:
        run(model, days, seed)
    return handler
