"""A language model behind an OpenAI-compatible server: vLLM, llama.cpp, Ollama or OpenAI itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, Unpack

from lpmppl.effects.language.client import Client, Options, package
from lpmppl.effects.language.source import Keep, seed_of
from lpmppl.errors import InputError

__all__ = ["Server"]


class Server(Client):
    """Ask a language model behind an OpenAI-compatible server to choose among options.

    Every answer is constrained by grammar to one of the options, and every question has a seed of its own, so that a
    server that honours seeds gives the same question the same answer.

    Args:
        url: where the server's API begins, such as "http://localhost:8000/v1".
        model: the model's name at the server; "" for the only one that it serves.
        key: the API key, where the server wants one.
        temperature: the temperature of sampling; 1 samples from the model's own probabilities.
        options: concurrency, retries, timeout and per_minute, as for `Client`.
    Raises:
        InputError: for an argument out of its range.
    """

    def __init__(
        self, url: str, model: str = "", key: str = "", *, temperature: float = 1.0, **options: Unpack[Options]
    ) -> None:
        super().__init__(url, model, key, **options)
        if not 0 <= temperature < math.inf:
            raise InputError(f"temperature is {temperature}; give 0 or more; 1 is the model's own")
        self.temperature = float(temperature)

    @cached_property
    def name(self) -> str:
        """What answers depend on: the model and the temperature; asks the server for its model where none was given."""
        return f"{self._model} temperature={self.temperature}"

    def answers(
        self, prompts: Sequence[str], options: Sequence[str], wanted: Sequence[Sequence[int]], keep: Keep
    ) -> None:
        """Ask each prompt for the samples wanted of it, and hand over each answer as soon as it is there.

        Args:
            prompts: what to ask.
            options: what the model chooses among.
            wanted: for each prompt, the ordinal numbers of its samples; they determine the seeds.
            keep: called in the caller's thread with the prompt's index, the ordinal number, and the option's index or
                None where after all retries the answer can't be read.
        Raises:
            LpmError: where the server is down, refuses, speaks another API or keeps failing, or a package is missing.
        """
        questions = [(k, prompt, ordinal) for k, prompt in enumerate(prompts) for ordinal in wanted[k]]
        if not questions:
            return
        model, options = self._model, list(options)
        schema = {
            "type": "object",
            "properties": {"choice": {"type": "string", "enum": options}},
            "required": ["choice"],
            "additionalProperties": False,
        }

        async def work(client: Any, give: Callable[[tuple[int, int, int | None]], None]) -> None:
            outlines = package("outlines")
            source, output = outlines.from_openai(client, model), outlines.types.JsonSchema(schema)

            async def ask(prompt: str, ordinal: int, unread: int) -> int | None:
                seed = seed_of(prompt, ordinal, unread)
                try:
                    text = await source(prompt, output, seed=seed, temperature=self.temperature)
                except outlines.exceptions.GenerationError:  # the model declines to answer
                    return None
                return _read(text, options)

            async def insist(question: tuple[int, str, int]) -> None:
                k, prompt, ordinal = question
                give((k, ordinal, await self._insist(partial(ask, prompt, ordinal))))

            await self._each(questions, insist)

        self._run(work, lambda answer: keep(*answer))


def _read(text: Any, options: Sequence[str]) -> int | None:
    try:
        return options.index(json.loads(text)["choice"])
    except (KeyError, TypeError, ValueError):
        return None
