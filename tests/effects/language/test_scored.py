"""Probabilities by a server that says those of a prompt's tokens are those of the model behind it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from lpmppl.effects.handlers import LanguageModel
from lpmppl.effects.language import client as module
from lpmppl.effects.language.local import Local
from lpmppl.effects.language.scored import Scored
from lpmppl.effects.ops import decide
from lpmppl.errors import InputError, LpmError

from .serving import Served
from .tiny import scores, tiny

PROMPTS = ("You are 18–39. Do you isolate?\nAnswer:", "You are old, and have been ill for a week. Do you isolate?")
OPTIONS = ("isolate", "go on")
LOST = ["timeout", "dropped", "reset", 408, 409, 429, 500, 503]
UNREAD = ["truncated", "malformed", "other"]
NEVER = "there is no chat here"


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny([*PROMPTS, "isolate go on", "Answer: isolate Answer: go on"], sharp=3.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACK_OFF", 0.001)


@pytest.fixture
def serve(model: Any) -> Callable[..., Served]:
    alone = threading.Lock()

    def said(text: str) -> tuple[list[str], list[float | None]]:
        with alone:
            return scores(model, text)

    def serve(faults: list[Any] | None = None, of: Any = said, **options: Any) -> Served:
        return Served(lambda *_: NEVER, faults, scores=of, **options)

    return serve


def direct(model: Any, prompt: str, options: tuple[str, ...]) -> list[float]:
    """The probabilities of whole lines, by the model itself: what comes before the options is the same in all."""
    found = []
    for option in options:
        ids = torch.tensor([model.hf_tokenizer(f"{prompt} {option}")["input_ids"]])
        with torch.no_grad():
            loss = model.model(ids, labels=ids).loss
        found.append(-float(loss) * (ids.shape[1] - 1))
    return torch.tensor(found, dtype=torch.float64).softmax(-1).tolist()


@pytest.mark.parametrize("options", [OPTIONS, ("go on", "go off", "no"), ("😀", "😁"), ("yes — “why?”", "no")])
def test_probabilities_are_those_of_the_model_behind_the_server(model, serve, options):
    with serve() as served:
        found = Scored(served.url).chances(PROMPTS, options)
    for prompt, row in zip(PROMPTS, found, strict=True):
        assert row == pytest.approx(direct(model, prompt, options), abs=1e-4)
        assert sum(row) == pytest.approx(1.0)
    assert found[0] != found[1]
    asked = [f"{prompt} {option}" for prompt in PROMPTS for option in options]
    assert sorted(body["prompt"] for body in served.asked) == sorted(asked)


def test_of_options_that_are_one_token_each_they_are_those_of_a_model_in_this_process():
    """Where there is one way to write an option and its beginning is no other's, the two sources agree."""
    texts = ["Do you? A", "Do you? B"]
    model = tiny([*texts, "A B"], size=257, sharp=3.0)  # bytes alone
    with Served(lambda *_: NEVER, scores=partial(scores, model)) as served:
        scored = Scored(served.url, concurrency=1).chances(["Do you?\n"], ("A", "B"))
    assert scored[0] == pytest.approx(list(Local(model).chances(["Do you?\n"], ("A", "B"))[0]), abs=1e-4)


def test_a_blank_stands_between_unless_the_prompt_ends_in_one(serve):
    with serve() as served:
        Scored(served.url).chances(["Do you?", "Do you? ", "Do you?\n"], ("yes", "no"))
    expected = {f"Do you?{between}{option}" for between in (" ", "\n") for option in ("yes", "no")}
    assert {body["prompt"] for body in served.asked} == expected


def tokens_of(text: str, *spelt: str, begin: str = "") -> tuple[list[str], list[float | None]]:
    """Tokens spelt so at the end of a text, each of the probability of its length, and one that is made after it."""
    head = text.removesuffix("".join(spelt))
    tokens = [*([begin] if begin else []), head, *spelt, " and"]
    return tokens, [None, *(-0.1 * len(token) for token in tokens[1:])]


def test_tokens_that_hold_the_end_of_the_prompt_and_the_beginning_of_an_option_count(serve):
    """`e? y` | `es` against `e?` | ` no`: whatever isn't the same in all lines belongs to the options."""

    def of(text: str) -> tuple[list[str], list[float | None]]:
        return tokens_of(text, "e? y", "es") if text.endswith("yes") else tokens_of(text, "e?", " no")

    with serve(of=of) as served:
        found = Scored(served.url).chances(["Are you safe?"], ("yes", "no"))[0]
    yes, no = math.exp(-0.6), math.exp(-0.5)
    assert found == pytest.approx([yes / (yes + no), no / (yes + no)])


@pytest.mark.parametrize("begin", ["", "<s>", "<|begin_of_text|>", "▁"])
def test_signs_of_the_tokenizer_at_the_beginning_do_not_matter(serve, begin):
    def of(text: str) -> tuple[list[str], list[float | None]]:
        return tokens_of(text, *(("▁yes",) if text.endswith("yes") else (" n", "o")), begin=begin)

    def spelt(text: str) -> tuple[list[str], list[float | None]]:
        tokens, logs = of(text)
        return ([t if t != text else text.removesuffix(" yes") for t in tokens], logs)

    with serve(of=spelt) as served:
        found = Scored(served.url).chances(["Do you"], ("yes", "no"))[0]
    yes, no = math.exp(-0.4), math.exp(-0.3)
    assert found == pytest.approx([yes / (yes + no), no / (yes + no)])


@pytest.mark.parametrize("fault", [*LOST, *UNREAD])
def test_faults_that_pass_change_nothing(serve, fault):
    with serve() as served:
        calm = Scored(served.url, "tiny").chances(PROMPTS, OPTIONS)
    with serve([None, fault]) as served:
        source = Scored(served.url, "tiny", timeout=1.0 if fault == "timeout" else 60)
        assert source.chances(PROMPTS, OPTIONS) == calm
    assert len(served.asked) == 5


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("timeout", "timeout="),
        ("dropped", "lost"),
        (429, "429.*per_minute="),
        (500, "500"),
        ("truncated", "don't fit each other or the prompt, 2 times over.*Server, which samples"),
        ("other", "don't fit each other or the prompt"),
    ],
)
def test_faults_that_stay_are_said(serve, fault, words):
    with serve([fault] * 2) as served, pytest.raises(LpmError, match=words):
        timeout = 0.5 if fault == "timeout" else 60
        Scored(served.url, "tiny", retries=1, concurrency=1, timeout=timeout).chances(PROMPTS, OPTIONS)
    assert len(served.asked) == 2


@pytest.mark.parametrize("fault", ["silent", "nulls", "made alone", 400, 404, 422, 501])
def test_a_server_that_does_not_say_log_probabilities_is_left_with_a_remedy(serve, fault):
    with serve([fault]) as served, pytest.raises(LpmError, match=r"use Server, which samples.*--llm-logprobs"):
        Scored(served.url, "tiny", concurrency=1).chances(PROMPTS, OPTIONS)
    assert len(served.asked) == 1


def test_a_server_without_completions_is_left_with_a_remedy():
    with Served(lambda *_: NEVER) as served, pytest.raises(LpmError, match=r"speaks another API.*use Server"):
        Scored(served.url, "tiny").chances(PROMPTS, OPTIONS)


@pytest.mark.parametrize("fault", ["html", "alien", "no choices"])
def test_another_api_is_said(serve, fault):
    with serve([fault]) as served, pytest.raises(LpmError, match="speaks another API"):
        Scored(served.url, "tiny", concurrency=1).chances(PROMPTS, OPTIONS)


def test_the_key_is_sent_and_a_model_that_is_not_there_is_named(serve):
    with serve(key="secret") as served:
        assert Scored(served.url, "tiny", "secret").chances(PROMPTS[:1], OPTIONS)
        with pytest.raises(LpmError, match="check key="):
            Scored(served.url, "tiny", "wrong").chances(PROMPTS, OPTIONS)
        with pytest.raises(LpmError, match="`huge` does not exist") as caught:
            Scored(served.url, "huge", "secret").chances(PROMPTS, OPTIONS)
    assert "which samples" not in str(caught.value)


def test_what_can_not_be_scored_is_refused(serve):
    with serve() as served:
        with pytest.raises(InputError, match="'mask' begins 'mask on'"):
            Scored(served.url).chances(PROMPTS, ("mask on", "mask"))
        with pytest.raises(InputError, match="a prompt is empty"):
            Scored(served.url).chances([""], OPTIONS)
    assert served.asked == []


def test_as_many_requests_are_in_flight_as_allowed(serve):
    together = threading.Barrier(3, timeout=10)

    def of(text: str) -> tuple[list[str], list[float | None]]:
        together.wait()
        return tokens_of(text, " " + text.split()[-1])

    with serve(of=of) as served:
        Scored(served.url, "tiny", concurrency=3).chances(["a", "b", "c"], ("yes", "no"))
    assert served.most == 3


def test_a_city_is_asked_and_pays_for_each_option_that_is_read(serve, tmp_path):
    prompts = {"isolate": "You are {{ age }}. Do you?"}
    context = {"attributes": {"age": ("young", "old")}}
    with serve() as served:
        source = Scored(served.url)
        with LanguageModel(source, prompts, answers=tmp_path / "a.sqlite") as handler:
            found = decide("isolate", torch.arange(2), OPTIONS, context)
        texts = ["You are young. Do you?", "You are old. Do you?"]
        assert found.tolist() == [pytest.approx(row, abs=1e-6) for row in source.chances(texts, OPTIONS)]
    assert (handler.model, handler.asked.queries) == ("tiny logprobs", 2)
    assert handler.asked.tokens == 2 * sum(math.ceil(len(text) / 4) for text in texts)
    with LanguageModel(None, prompts, answers=tmp_path / "a.sqlite") as again:
        assert torch.equal(decide("isolate", torch.arange(2), OPTIONS, context), found)
    assert again.exact
