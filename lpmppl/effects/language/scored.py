"""The probabilities of options by a language model behind a server that says those of a prompt's tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import groupby, takewhile
from typing import Any, TypeAlias

from lpmppl.effects.language.client import Client
from lpmppl.effects.language.source import Choices
from lpmppl.errors import InputError, LpmError

__all__ = ["Scored"]

Line: TypeAlias = list[tuple[str, float | None]]
"""Tokens as they are spelt, each with its log-probability; the first of all has none."""

_OFF = 1e-2
"""By how much a log-probability may be above 0 by rounding."""

_REMEDY = "use Server, which samples answers (at the command line: leave --llm-logprobs out)"


class Scored(Client):
    r"""The probabilities with which a language model behind a server goes on from a prompt with one of the options.

    The prompt is sent with each option after it, with a blank between where the prompt doesn't end in white space, and
    the server says the log-probabilities of what it was sent (`echo`, `logprobs`):

    .. math:: P(a) = \frac{e^{s_a}}{\sum_b e^{s_b}}, \qquad s_a = \sum_{l > l_0} \log p(w^a_l \mid w^a_{<l})

    where w^a are the tokens into which the server splits prompt and option a together, and l_0 is how many of them are
    the same for all options. What comes before the options differ is the same for all, so that it is no matter which of
    the prompt's last letters are in one token with the option's first.

    That is one way to write each option, the tokenizer's own, which has nearly all of the probability of most; `Local`
    follows every way. Nor does the end of the answer count: p("go on") is that of every answer that begins so. An
    instruction's model reads the prompt as a text to go on from, without the template of its chats. vLLM serves this;
    llama.cpp and OpenAI's own chat models don't.

    Args:
        url: where the server's API begins, such as "http://localhost:8000/v1".
        model: the model's name at the server; "" for the only one that it serves.
        key: the API key, where the server wants one.
        options: concurrency, retries, timeout and per_minute, as for `Client`.
    Raises:
        InputError: for an argument out of its range.
    """

    @cached_property
    def name(self) -> str:
        """What probabilities depend on: the model; asks the server for its model where none was given."""
        return f"{self._model} logprobs"

    def readings(self, options: Sequence[str]) -> int:
        """How many times a prompt is read for the probabilities of these options: once for each."""
        return len(options)

    def chances(self, prompts: Sequence[str], options: Sequence[str]) -> list[Choices]:
        """The probability of each option, by prompt.

        Raises:
            InputError: for an empty prompt, or an option that another begins with.
            LpmError: where the server is down, keeps failing, or doesn't say the probabilities of what it was sent.
        """
        for option in options:
            if longer := [o for o in options if o != option and o.startswith(option)]:
                raise InputError(
                    f"option '{option}' begins '{longer[0]}', which has its probability as well; use Server or Local"
                )
        if not all(prompts):
            raise InputError("a prompt is empty; give a language model something to read")
        model = self._model
        questions = [(k, a) for k in range(len(prompts)) for a in range(len(options))]
        lines: dict[tuple[int, int], Line] = {}

        async def work(client: Any, give: Callable[[tuple[int, int, Line]], None]) -> None:
            async def ask(text: str, unread: int) -> Line | None:
                # A model's forward pass always gives a token more, which isn't looked at: some servers refuse 0.
                said = await client.completions.create(
                    model=model, prompt=text, echo=True, logprobs=1, max_tokens=1, temperature=0.0
                )
                return self._line(said, text)

            async def insist(question: tuple[int, int]) -> None:
                k, a = question
                line = await self._insist(partial(ask, _joined(prompts[k], options[a])))
                if line is None:
                    raise LpmError(
                        f"the language model's server at {self.url} gave lists of tokens and log-probabilities that "
                        f"don't fit each other or the prompt, {self.retries + 1} times over: see its log, or {_REMEDY}"
                    )
                give((k, a, line))

            await self._each(questions, insist)

        def take(answer: tuple[int, int, Line]) -> None:
            k, a, line = answer
            lines[k, a] = line

        self._run(work, take)
        return [_softmax([lines[k, a] for a in range(len(options))]) for k in range(len(prompts))]

    def _line(self, said: Any, text: str) -> Line | None:
        """The tokens of what was sent, with their log-probabilities; None where they can't be read."""
        logprobs = said.choices[0].logprobs
        tokens, logs = getattr(logprobs, "tokens", None), getattr(logprobs, "token_logprobs", None)
        if not tokens or not logs or all(log is None for log in logs):
            raise _SilentError
        if len(tokens) != len(logs):
            return None
        # SentencePiece's sign for a blank.
        spelt = [str(token).replace("▁", " ") for token in tokens]
        many = _echoed(spelt, text, getattr(said.usage, "prompt_tokens", None))
        if many is None:
            # One token alone is the one that was made, by a server that takes no notice of `echo`.
            if len(spelt) == 1:
                raise _SilentError
            return None
        line = list(zip(spelt[:many], logs[:many], strict=True))
        right = all(isinstance(log, int | float) and -math.inf < log < _OFF for _, log in line[1:])
        return line if right else None

    def _diagnosis(self, error: BaseException) -> tuple[bool, str, str]:
        if isinstance(error, _SilentError):
            return False, "doesn't say the log-probabilities of a prompt", _REMEDY
        again, what, remedy = super()._diagnosis(error)
        status = getattr(error, "status_code", None)
        lacks = "echo" in remedy or (status in (400, 404, 405, 422, 501) and "does not exist" not in remedy)
        if lacks:
            remedy += f"; where it has no `echo` with `logprobs`, {_REMEDY}"
        return again and not lacks, what, remedy


class _SilentError(ValueError):
    """There are no log-probabilities of a prompt."""


def _joined(prompt: str, option: str) -> str:
    return prompt + option if prompt[-1].isspace() else f"{prompt} {option}"


def _echoed(tokens: Sequence[str], text: str, many: int | None) -> int | None:
    """How many of the tokens are of the text that was sent; the others were made."""
    whole = ""
    for n, token in enumerate(tokens, 1):
        whole += token
        # Some begin with a sign of their own.
        if whole.endswith(text):
            return n
    # A letter that is split among tokens isn't spelt by any of them.
    if many is None or not 1 < many <= len(tokens) or not any(map(_split, tokens[:many])):
        return None
    runs = ["".join(run) for split, run in groupby(tokens[:many], _split) if not split]
    begin = tokens[0] if not _split(tokens[0]) else ""
    ways = [[run.removeprefix(sign) if n == 0 else run for n, run in enumerate(runs)] for sign in ("", begin)]
    return many if any(_in_turn(each, text) for each in ways) else None


def _in_turn(runs: Sequence[str], text: str) -> bool:
    """Whether these stand in a text, one after the other."""
    at = 0
    for run in runs:
        found = text.find(run, at)
        if found < 0:
            return False
        at = found + len(run)
    return True


def _split(token: str) -> bool:
    """Whether a token may be a part of a letter, which may be spelt as another part is."""
    return "\ufffd" in token or token.startswith("bytes:")


def _softmax(lines: Sequence[Line]) -> list[float]:
    """The probabilities of lines of tokens, given that it is one of them."""
    alike = zip(*([token for token, _ in line] for line in lines), strict=False)
    same = sum(1 for _ in takewhile(lambda column: len(set(column)) == 1 and not _split(column[0]), alike))
    scores = [sum(log for _, log in line[max(same, 1) :] if log is not None) for line in lines]
    top = max(scores)
    weights = [math.exp(score - top) for score in scores]
    return [weight / sum(weights) for weight in weights]
