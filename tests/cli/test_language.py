"""A language model behind a server, or in this process, decides for a city at the command line."""

import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lpmppl.effects.language.local import Local
from lpmppl.models.prompts import PROMPTS
from tests.effects.language.serving import Served
from tests.effects.language.tiny import saved

Run = Callable[..., Any]
CITY = ("simulate", "nyc", "--model", "pandemic", "--agents", "1000", "--days", "5", "--set", "initial_infected=0.02")
TEXTS = [*PROMPTS.values(), "mask no mask isolate go on seek a test seek none accept refuse"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("lm"), TEXTS)


@pytest.fixture
def served(folder: Path) -> Iterator[Served]:
    """A server behind which a real, tiny model samples its answers."""
    torch.set_num_threads(1)
    local, known, alone = Local(folder), dict[str, list[float]](), threading.Lock()

    def answer(prompt: str, options: list[str], seed: int, temperature: float) -> str:
        # Each of the server's threads would have threads of torch's.
        with alone:
            if prompt not in known:
                known[prompt] = list(local.chances([prompt], options)[0])
        return random.Random(seed).choices(options, known[prompt])[0]

    with Served(answer) as server:
        yield server


def test_a_server_decides_and_its_answers_are_replayed_without_it(here: Run, served: Served, tmp_path: Path) -> None:
    llm = ("--behaviour", "llm", "--llm-url", served.url, "--cache", "kept.sqlite", "--samples", "3", "--json")
    first = here(*CITY, *llm, "--out", "a").json
    assert first["queries"] == len(served.asked) > 100
    assert first["archetypes"].keys() == PROMPTS.keys()
    assert 0 < first["archetypes"]["mask"] < 1152
    assert first["language_model"] == "tiny temperature=1.0"
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["prompts"] == first["prompts"]
    assert record["settings"]["cache"] == str(tmp_path / "kept.sqlite")

    asked = len(served.asked)
    again = here(*CITY, *llm).json
    assert (again["totals"], again["queries"], len(served.asked)) == (first["totals"], 0, asked)
    offline = here(*CITY, *llm, "--offline").json
    assert (offline["totals"], offline["queries"]) == (first["totals"], 0)
    assert "aren't kept in" in here(*CITY, *llm, "--offline", "--seed", "7").refused()


def test_faults_of_a_server_change_nothing(here: Run, served: Served) -> None:
    llm = ("--behaviour", "llm", "--llm-url", served.url, "--samples", "2", "--json")
    calm = here(*CITY, *llm).json
    served.faults[:] = [429, None, 500, "malformed", None, "truncated", "dropped", "other"]
    stormy = here(*CITY, *llm).json
    assert stormy["queries"] == calm["queries"]
    assert served.faults == []


def test_a_model_in_this_process_decides(here: Run, folder: Path) -> None:
    llm = ("--behaviour", "llm", "--llm-model", str(folder), "--cache", "kept.sqlite", "--json")
    first = here(*CITY, *llm).json
    assert first["queries"] > 30
    offline = here(*CITY, "--behaviour", "llm", "--cache", "kept.sqlite", "--offline", "--json").json
    assert (offline["totals"], offline["queries"]) == (first["totals"], 0)


def test_an_interrupted_run_goes_on_with_the_same_language_model(here: Run, folder: Path, tmp_path: Path) -> None:
    llm = ("--behaviour", "llm", "--llm-model", str(folder), "--cache", "kept.sqlite")
    first = here(*CITY, *llm, "--out", "a", "--json").json
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    (tmp_path / "a" / "run.json").write_text(json.dumps({**record, "status": "running"}))
    assert "behaviour llm, not utility" in here("simulate", "--resume", "a", "--behaviour", "utility").refused()
    again = here("simulate", "--resume", "a", "--offline", "--json").json
    assert (again["totals"], again["queries"]) == (first["totals"], 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--behaviour", "lllm"], "behaviour 'lllm'"),
        (["--behaviour", "llm"], "give --llm-url of a server, or --llm-model"),
        (["--llm-url", "http://127.0.0.1:1/v1"], "--llm-url is for a language model"),
        (["--cache", "a.sqlite"], "--cache is for a language model"),
        (["--offline"], "--offline is for a language model"),
        (["--behaviour", "llm", "--offline"], "give --cache FILE"),
        (["--behaviour", "llm", "--offline", "--cache", "none.sqlite"], "isn't there; run once without --offline"),
        (["--behaviour", "llm", "--llm-model", "."], "can't be loaded"),
        (["--behaviour", "llm", "--llm-url", "localhost"], "url is 'localhost'"),
        (["--behaviour", "llm", "--llm-model", "x", "--model", "sir"], "nobody decides anything"),
        (["--behaviour", "llm", "--llm-model", "x", "--samples", "0"], "samples"),
    ],
)
def test_what_can_not_be_asked_is_refused(here: Run, options: list[str], words: str) -> None:
    assert words in here(*CITY, *options).refused()


def test_more_queries_than_allowed_are_refused_before_anything_is_asked(here: Run, served: Served) -> None:
    said = here(*CITY, "--behaviour", "llm", "--llm-url", served.url, "--llm-limit", "5").refused()
    assert "the limit is 5" in said
    assert served.asked == []
