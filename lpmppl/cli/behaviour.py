"""`lpmppl behaviour`: what a language model would be asked, before it is asked anything."""

from __future__ import annotations

import json
import math
from pathlib import Path
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
    from lpmppl.models.prompts import OPTIONAL, PROMPTS

    if decision and decision not in PROMPTS:
        raise InputError(nearest("decision", decision, PROMPTS))
    handler = counted(name, agents, days, seed)
    found = {d: prompts[:most] for d, prompts in handler.questions.items() if prompts and decision in ("", d)}
    if not found:
        why = "it is only decided in models that are made so in Python" if decision in OPTIONAL else "give more --days"
        raise InputError(f"nobody has anything to decide about '{decision}' in these {days} days: {why}")
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
    llm_price: language.Price = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Count only what isn't kept in this file of answers.")
    ] = None,
    llm_model: Annotated[
        str, typer.Option(metavar="NAME", help="With --cache, whose answers; by default the only model's in the file.")
    ] = "",
    as_json: options.AsJson = False,
) -> None:
    """Say how much a language model would be asked: queries, tokens and seconds.

    The city runs by its own utilities meanwhile: where a language model decides otherwise, other questions come up.
    Decisions whose answers are all kept are the language model's.

    [bold]Example[/]

    [cyan]lpmppl behaviour cost nyc --agents 100000 --days 60 --samples 5[/]
    """
    from lpmppl.effects.language.spending import said

    if llm_model and not cache:
        raise InputError(f"--llm-model {llm_model} is for answers that were kept: give --cache FILE, or leave it out")
    if not math.isfinite(seconds):
        raise InputError(f"--seconds {seconds:g} is no time; give the seconds that an answer takes, such as 0.5")
    handler = counted(name, agents, days, seed, samples, cache, llm_model, llm_price)
    asked = handler.asked
    found: dict[str, Any] = {
        "queries": asked.queries,
        "tokens": asked.tokens,
        "seconds": round(asked.queries * seconds / at_once, 1),
        "archetypes": asked.most,
    }
    dollars = handler.spending.dollars
    if dollars is not None:
        found["dollars"] = round(dollars, 6)
    if as_json:
        print(json.dumps({**found, "agents": agents, "days": days, "samples": samples}))
        return
    paid = "" if dollars is None else f"about {said(dollars)}, "
    print(
        f"{asked.queries:,} queries with about {asked.tokens:,} tokens of prompts, {paid}"
        f"{found['seconds']:,.0f} s where each takes {seconds:g} s and {at_once} are asked at once"
    )
    for decision, each in found["archetypes"].items():
        print(f"  {decision}: {each} archetypes at most at a time, {len(handler.questions[decision])} prompts")


def counted(
    name: str,
    agents: int,
    days: int,
    seed: int,
    samples: int = 1,
    cache: Path | None = None,
    llm_model: str = "",
    price: float | None = None,
) -> LanguageModel:
    """What would be asked of a language model in a run that decides by its own utilities where nothing is kept."""
    from lpmppl.effects.handlers.behaviour import Utility
    from lpmppl.effects.handlers.language import LanguageModel
    from lpmppl.inference.run import run

    answers = None if cache is None else language.kept(cache, "leave --cache out, and all is counted")
    asked = Settings(name, "", "pandemic", agents, days, seed, 0, "cpu", {}, ())
    model = made(asked, people_for(asked))
    fallback = Utility(model.behaviour)
    handler = LanguageModel(
        None, model.prompts, samples=samples, answers=answers, price=price, fallback=fallback, dry=True
    )
    if answers is not None and (llm_model or answers.models()):
        handler.model = language.named(answers, llm_model)
    with handler:
        run(model, days, seed)
    return handler
