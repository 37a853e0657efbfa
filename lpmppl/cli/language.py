"""A language model that decides for people, at the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpmppl.cli.settings import Settings
from lpmppl.errors import InputError

if TYPE_CHECKING:
    from lpmppl.effects.handlers.language import LanguageModel
    from lpmppl.models.model import Model

__all__ = ["Behaviour", "Cache", "Limit", "Name", "Offline", "Samples", "Url", "asker", "deciding", "said_of"]

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
Samples = Annotated[int, typer.Option(min=1, metavar="M", help="Answers for each archetype, where a server samples.")]
Cache = Annotated[Path | None, typer.Option(metavar="FILE", help="Keep the language model's answers in this file.")]
Offline = Annotated[bool, typer.Option("--offline", help="Ask nothing: take all answers from --cache.")]
Limit = Annotated[int | None, typer.Option(min=0, metavar="N", help="Stop where more queries than this are needed.")]


@contextmanager
def deciding(asked: Settings, model: Model, offline: bool, limit: int | None) -> Iterator[Callable[[], dict[str, Any]]]:
    """Let a language model decide where that is asked for, and give what says what it was asked.

    Raises InputError for options that don't go together.
    """
    if asked.behaviour == "utility":
        given = {
            "--llm-url": asked.llm_url,
            "--llm-model": asked.llm_model,
            "--cache": asked.cache,
            "--offline": offline,
        }
        if wrong := [option for option, value in given.items() if value]:
            raise InputError(f"{wrong[0]} is for a language model that decides: add --behaviour llm, or leave it out")
        yield dict
        return
    with asker(asked, model, offline, limit) as handler:
        yield lambda: said_of(handler)


def asker(asked: Settings, model: Model, offline: bool, limit: int | None) -> LanguageModel:
    """The handler that asks the language model of a command line.

    Raises InputError where the society decides nothing, or the language model isn't named.
    """
    from lpmppl.effects.handlers.language import LanguageModel
    from lpmppl.effects.language.answers import Answers
    from lpmppl.effects.language.local import Local
    from lpmppl.effects.language.server import Server

    if not model.prompts:
        raise InputError(f"--behaviour llm: in the model {asked.model} nobody decides anything; take --model pandemic")
    if offline and not asked.cache:
        raise InputError("--offline takes answers from a file: give --cache FILE")
    if offline and not Path(asked.cache).exists():
        raise InputError(f"--cache {asked.cache} isn't there; run once without --offline")
    answers = Answers(asked.cache or None)
    if offline:
        handler = LanguageModel(None, model.prompts, samples=asked.samples, answers=answers)
        # A folder's model is kept under the folder's name.
        name = asked.llm_model
        handler.model = answers.model(Path(name).name if Path(name).is_dir() else name)
        return handler
    if not (asked.llm_url or asked.llm_model):
        raise InputError("--behaviour llm: give --llm-url of a server, or --llm-model of a model that is here")
    source = (
        Server(asked.llm_url, asked.llm_model, os.environ.get(KEY, "")) if asked.llm_url else Local(asked.llm_model)
    )
    return LanguageModel(source, model.prompts, samples=asked.samples, answers=answers, limit=limit)


def said_of(handler: LanguageModel) -> dict[str, Any]:
    """What a language model was asked: for `--json` and `run.json`."""
    asked = handler.asked
    return {
        "queries": asked.queries,
        "answers_kept": asked.kept,
        "tokens": asked.tokens,
        "archetypes": asked.most,
        "language_model": handler.model,
        "prompts": handler.versions,
    }
