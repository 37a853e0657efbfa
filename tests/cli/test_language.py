"""A language model behind a server, or in this process, decides for a city at the command line."""

import io
import json
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import lpmppl as lpm
from lpmppl.cli import language
from lpmppl.cli.settings import Settings
from lpmppl.effects.handlers import LanguageModel
from lpmppl.effects.language.local import Local
from lpmppl.effects.language.spending import said
from lpmppl.models.prompts import OPTIONAL, PROMPTS
from tests.effects.language.serving import Served
from tests.effects.language.sources import Sampled
from tests.effects.language.tiny import saved, scores

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

    def said(text: str) -> tuple[list[str], list[float | None]]:
        with alone:
            return scores(local.model, text)

    with Served(answer, scores=said) as server:
        yield server


def test_a_server_decides_and_its_answers_are_replayed_without_it(here: Run, served: Served, tmp_path: Path) -> None:
    llm = ("--behaviour", "llm", "--llm-url", served.url, "--cache", "kept.sqlite", "--samples", "3", "--json")
    first = here(*CITY, *llm, "--out", "a").json
    assert first["queries"] == len(served.asked) > 100
    assert first["archetypes"].keys() == PROMPTS.keys() - set(OPTIONAL)
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
        (["--llm-logprobs"], "--llm-logprobs is for a language model"),
        (["--llm-limit", "0"], "--llm-limit is for a language model"),
        (["--llm-price", "0"], "--llm-price is for a language model"),
        (["--llm-budget", "0"], "--llm-budget is for a language model"),
        (["--behaviour", "llm", "--llm-model", "x", "--llm-budget", "2"], "--llm-budget 2 needs a price"),
        (["--behaviour", "llm", "--llm-model", "x", "--llm-price", "-2"], "price"),
        (
            ["--behaviour", "llm", "--llm-model", "x", "--llm-logprobs"],
            "--llm-logprobs is for a server: give --llm-url",
        ),
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


def test_exact_probabilities_of_a_server_decide(here: Run, served: Served, tmp_path: Path) -> None:
    llm = ("--behaviour", "llm", "--llm-url", served.url, "--llm-logprobs", "--cache", "kept.sqlite")
    first = here(*CITY, *llm, "--out", "a", "--json").json
    # Each prompt is read once with each of its two options.
    assert len(served.asked) == 2 * first["queries"] > 60
    assert first["language_model"] == "tiny logprobs"
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["settings"]["llm_logprobs"] is True
    offline = here(*CITY, "--behaviour", "llm", "--cache", "kept.sqlite", "--offline", "--json").json
    assert (offline["totals"], offline["queries"]) == (first["totals"], 0)

    (tmp_path / "a" / "run.json").write_text(json.dumps({**record, "status": "running"}))
    asked = len(served.asked)
    again = here("simulate", "--resume", "a", "--json").json
    assert (again["totals"], again["queries"], len(served.asked)) == (first["totals"], 0, asked)
    record["settings"].pop("llm_logprobs")
    (tmp_path / "a" / "run.json").write_text(json.dumps({**record, "status": "running"}))
    assert "llm-logprobs off, not on" in here("simulate", "--resume", "a", "--llm-logprobs").refused()


def test_more_than_the_budget_is_refused_and_what_was_answered_is_kept(here: Run, served: Served) -> None:
    llm = ("--behaviour", "llm", "--llm-url", served.url, "--samples", "2", "--cache", "kept.sqlite", "--json")
    said = here(*CITY, *llm, "--llm-price", "1000000", "--llm-budget", "1").refused()
    assert "for" in said and "the budget is $1.00" in said
    assert served.asked == []
    first = here(*CITY, *llm, "--llm-price", "2").json
    assert first["dollars"] == pytest.approx(first["tokens"] * 2 / 1e6, abs=1e-6)
    half = here(*CITY, *llm, "--seed", "7", "--llm-price", "2", "--llm-budget", "0").refused()
    assert "the budget is $0.00; what was answered is kept" in half
    assert here(*CITY, *llm, "--llm-price", "2", "--llm-budget", "0").json["totals"] == first["totals"]


@pytest.mark.parametrize("key", ["sk-1\n", "schlüssel", "two words"])
def test_a_key_that_can_not_be_sent_is_refused_and_not_said(
    here: Run, served: Served, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("LPMPPL_LLM_KEY", key)
    said = here(*CITY, "--behaviour", "llm", "--llm-url", served.url).refused()
    assert "$LPMPPL_LLM_KEY has a blank, a line break" in said
    assert key.strip() not in said
    assert served.asked == []


def test_the_cost_of_what_is_kept_is_nothing(here: Run, folder: Path) -> None:
    city = ("--agents", "1000", "--days", "5")
    llm = ("--behaviour", "llm", "--llm-model", str(folder), "--cache", "kept.sqlite", "--json")
    here("simulate", "nyc", "--model", "pandemic", *city, *llm)
    cost = ("behaviour", "cost", "nyc", *city, "--json", "--llm-price", "3")
    whole = here(*cost).json
    assert whole["queries"] > 100
    assert whole["dollars"] == pytest.approx(whole["tokens"] * 3 / 1e6, abs=1e-6)
    for named in ((), ("--llm-model", str(folder))):
        rest = here(*cost, "--cache", "kept.sqlite", *named).json
        assert (rest["queries"], rest["tokens"], rest["dollars"]) == (0, 0, 0.0)
    days = ("--agents", "1000", "--days", "9")
    longer = here("behaviour", "cost", "nyc", *days, "--json", "--cache", "kept.sqlite").json
    assert 0 < longer["queries"] < whole["queries"]
    assert "new.sqlite isn't there; leave --cache out" in here(*cost, "--cache", "new.sqlite").refused()
    assert "has answers of these models" in here(*cost, "--cache", "kept.sqlite", "--llm-model", "huge").refused()
    assert "--llm-model x is for answers that were kept" in here(*cost, "--llm-model", "x").refused()
    assert f"about {said(whole['dollars'])}, " in here("behaviour", "cost", "nyc", *city, "--llm-price", "3").out


@pytest.mark.parametrize("price", [None, 2.0])
def test_a_terminal_shows_the_days_and_the_queries_of_a_decision(price: float | None) -> None:
    file = io.StringIO()

    class Watched(Sampled):
        """Goes on after the fifth answer only once that is shown."""

        def answers(self, prompts: Any, options: Any, wanted: Any, keep: Any) -> None:
            def watched(*answer: Any) -> None:
                keep(*answer)
                until = time.monotonic() + 10
                while handler.asked.queries == 5 and "5 in all" not in file.getvalue() and time.monotonic() < until:
                    time.sleep(0.01)

            super().answers(prompts, options, wanted, watched)

    terminal = Console(file=file, force_terminal=True, width=110, color_system=None)
    model = lpm.nyc.pandemic(lpm.nyc.population(1_000))
    with LanguageModel(Watched(), model.prompts, samples=3, price=price) as handler:
        tell = handler.tell
        with language.showing(handler, 4, terminal):
            lpm.run(model, days=4, set={"initial_infected": 0.02})
        assert handler.tell is tell
    paid = "" if price is None else r", \$0\.\d+"
    assert re.search(rf"asking: \w+ .* 5/\d+ +queries; 5 in all{paid}", file.getvalue())
    assert re.search(r"simulating .* 3/4 +days", file.getvalue())


@pytest.mark.parametrize("terminal", [True, False])
def test_only_a_terminal_is_drawn_on(folder: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    shown = []

    @contextmanager
    def noted(handler: LanguageModel, days: int) -> Iterator[None]:
        shown.append((handler.samples, days))
        yield

    monkeypatch.setattr(language, "showing", noted)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    asked = Settings("nyc", "", "pandemic", 1000, 5, 0, 0, "cpu", {}, (), behaviour="llm", llm_model=str(folder))
    model = lpm.nyc.pandemic(lpm.nyc.population(1_000))
    with language.deciding(asked, model, language.Asking()) as what:
        assert what()["queries"] == 0
    assert shown == ([(10, 5)] if terminal else [])
