"""A language model that decides for people, at the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmppl.cli.settings import Settings
from lpmppl.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from lpmppl._compat import Message
    from lpmppl.effects.handlers.language import LanguageModel
    from lpmppl.effects.language.answers import Answers
    from lpmppl.models.model import Model

__all__ = [
    "Asking",
    "Behaviour",
    "Budget",
    "Cache",
    "Limit",
    "Logprobs",
    "Name",
    "Offline",
    "Price",
    "Samples",
    "Url",
    "asker",
    "deciding",
    "kept",
    "named",
    "said_of",
    "showing",
]

KEY = "LPMPPL_LLM_KEY"
"""The environment's variable with the server's key, which has no place on a command line that is kept."""

Behaviour = Annotated[
    str, typer.Option(help="By what people decide: utility (the model's own) or llm (a language model).")
]
Url = Annotated[
    str,
    typer.Option(
        metavar="URL",
        help=f"An OpenAI-compatible server's API, such as http://127.0.0.1:8000/v1; its key is in ${KEY}.",
    ),
]
Name = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="The model at that server; without --llm-url, a model that transformers loads here."
    ),
]
Logprobs = Annotated[
    bool,
    typer.Option(
        "--llm-logprobs",
        help="Take exact probabilities from a server that says its prompts' log-probabilities, as vLLM does.",
    ),
]
Samples = Annotated[
    int, typer.Option(min=1, max=100_000, metavar="M", help="Answers for each archetype, where a server samples.")
]
Cache = Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the language model's answers in this file.")]
Offline = Annotated[bool, typer.Option("--offline", help="Ask nothing: take all answers from --cache.")]
Limit = Annotated[int | None, typer.Option(min=0, metavar="N", help="Stop where more queries than this are needed.")]
Price = Annotated[float | None, typer.Option(min=0.0, metavar="DOLLARS", help="What a million tokens of prompts cost.")]
Budget = Annotated[
    float | None,
    typer.Option(min=0.0, metavar="DOLLARS", help="Stop where more than this would be spent, by --llm-price."),
]


@dataclass(frozen=True)
class Asking:
    """How a language model is asked: what a run's numbers don't depend on."""

    offline: bool = False
    limit: int | None = None
    price: float | None = None
    budget: float | None = None


@contextmanager
def deciding(asked: Settings, model: Model, asking: Asking) -> Iterator[Callable[[], dict[str, Any]]]:
    """Let a language model decide where that is asked for, and give what says what it was asked.

    Raises InputError for options that don't go together.
    """
    if asked.behaviour == "utility":
        given = {
            "--llm-url": asked.llm_url,
            "--llm-model": asked.llm_model,
            "--llm-logprobs": asked.llm_logprobs,
            "--llm-limit": asking.limit is not None,
            "--llm-price": asking.price is not None,
            "--llm-budget": asking.budget is not None,
            "--cache": asked.cache,
            "--offline": asking.offline,
        }
        if wrong := [option for option, value in given.items() if value]:
            raise InputError(f"{wrong[0]} is for a language model that decides: add --behaviour llm, or leave it out")
        yield dict
        return
    with ExitStack() as stack:
        handler = stack.enter_context(asker(asked, model, asking))
        if sys.stderr.isatty():
            stack.enter_context(showing(handler, asked.days))
        yield lambda: said_of(handler)


def asker(asked: Settings, model: Model, asking: Asking) -> LanguageModel:
    """The handler that asks the language model of a command line.

    Raises InputError where the society decides nothing, or the language model isn't named.
    """
    from lpmppl.effects.handlers.language import LanguageModel
    from lpmppl.effects.language.answers import Answers
    from lpmppl.effects.language.local import Local
    from lpmppl.effects.language.scored import Scored
    from lpmppl.effects.language.server import Server

    if not model.prompts:
        raise InputError(f"--behaviour llm: in the model {asked.model} nobody decides anything; take --model pandemic")
    if asking.offline and not asked.cache:
        raise InputError("--offline takes answers from a file: give --cache FILE")
    if asking.budget is not None and asking.price is None:
        raise InputError(
            f"--llm-budget {asking.budget:g} needs a price: give --llm-price, of a million tokens of prompts"
        )
    if asking.offline:
        answers = kept(asked.cache, "run once without --offline")
        handler = LanguageModel(None, model.prompts, samples=asked.samples, answers=answers)
        handler.model = named(answers, asked.llm_model)
        return handler
    if not (asked.llm_url or asked.llm_model):
        raise InputError("--behaviour llm: give --llm-url of a server, or --llm-model of a model that is here")
    if asked.llm_logprobs and not asked.llm_url:
        raise InputError(
            "--llm-logprobs is for a server: give --llm-url, or leave it out: a model that is here is exact"
        )
    source: Local | Scored | Server
    if asked.llm_url:
        source = (Scored if asked.llm_logprobs else Server)(asked.llm_url, asked.llm_model, key())
    else:
        source = Local(asked.llm_model)
    return LanguageModel(
        source,
        model.prompts,
        samples=asked.samples,
        answers=Answers(asked.cache or None),
        limit=asking.limit,
        price=asking.price,
        budget=asking.budget,
    )


def key() -> str:
    """The server's key; InputError for one that can't be sent."""
    from lpmppl.effects.language.client import sendable

    given = os.environ.get(KEY, "")
    if not sendable(given):
        raise InputError(
            f"${KEY} has a blank, a line break or a character that isn't ASCII, and can't be sent: set it to the key "
            "alone"
        )
    return given


def kept(file: str | Path, remedy: str) -> Answers:
    """The answers that were kept in a file; InputError where there is none."""
    from lpmppl.effects.language.answers import Answers

    if not Path(file).exists():
        raise InputError(f"--cache {file} isn't there; {remedy}")
    return Answers(file)


def named(answers: Answers, name: str) -> str:
    """The model of which there are answers, as it is named on a command line."""
    # A folder's model is kept under the folder's name.
    return answers.model(Path(name).name if Path(name).is_dir() else name)


@contextmanager
def showing(handler: LanguageModel, days: int, console: Console | None = None) -> Iterator[None]:
    """Draw a run's days, and below them how many queries of the decision at hand are done, and how many in all.

    It draws both, as two that draw by themselves would write over each other.

    Args:
        handler: what asks.
        days: how many days the run has.
        console: where to draw; stderr by default.
    """
    from rich.console import Console as Terminal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from lpmppl._compat import Messenger
    from lpmppl.effects.language.spending import said

    text = TextColumn("{task.description}"), TextColumn("{task.fields[unit]}")
    columns = (text[0], BarColumn(), MofNCompleteColumn(), text[1], TimeRemainingColumn())
    with Progress(*columns, console=console or Terminal(stderr=True), transient=True) as bar:
        run = bar.add_task("simulating", total=days, unit="days")
        asking = bar.add_task("asking", total=None, visible=False, unit="")

        def tell(decision: str, done: int, total: int) -> None:
            spent = handler.spending.dollars
            unit = f"queries; {handler.asked.queries:,} in all" + ("" if spent is None else f", {said(spent)}")
            what = f"asking: {decision}"
            bar.update(asking, description=what, completed=done, total=total, unit=unit, visible=done < total)

        class Days(Messenger):
            def _pyro_post_tally(self, msg: Message) -> None:
                time, _, _ = msg["args"][0].partition("/")
                if time.startswith("t="):
                    bar.update(run, completed=float(time[2:]))

        before, handler.tell = handler.tell, tell
        try:
            with Days():
                yield
        finally:
            handler.tell = before


def said_of(handler: LanguageModel) -> dict[str, Any]:
    """What a language model was asked: for `--json` and `run.json`."""
    asked = handler.asked
    return {
        "queries": asked.queries,
        "answers_kept": asked.kept,
        "tokens": asked.tokens,
        **({} if handler.spending.dollars is None else {"dollars": round(handler.spending.dollars, 6)}),
        "archetypes": asked.most,
        "language_model": handler.model,
        "prompts": handler.versions,
    }
