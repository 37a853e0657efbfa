"""A language model's server: what it is asked, what is kept of its answers, and what happens when it fails."""

from __future__ import annotations

import asyncio
import email.utils
import importlib.util
import os
import random
import signal
import socket
import sys
import threading
import time

import pytest

from lpmppl.effects.language import client as module
from lpmppl.effects.language import server
from lpmppl.effects.language.server import Server
from lpmppl.errors import InputError, LpmError

from .serving import Served

OPTIONS = ["isolate", "go on", "ask — “why?”"]
LOST = ["timeout", "dropped", "reset", 408, 409, 429, 500, 503]
UNREAD = ["truncated", "malformed", "other", "refusal"]


@pytest.fixture(scope="module", autouse=True)
def packages():
    """Imported once, so that no test's time is theirs."""
    import openai
    import outlines

    return openai, outlines


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "BACK_OFF", 0.001)


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises, also where the tests themselves were started to ignore it, as a shell's background jobs are."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def by_prompt(prompt: str, options: list[str], seed: int, temperature: float) -> str:
    return options[int(prompt.split()[-1]) % len(options)]


def slowly(prompt: str, options: list[str], seed: int, temperature: float) -> str:
    time.sleep(0.03)
    return by_prompt(prompt, options, seed, temperature)


def ask(source: Server, wanted: list[list[int]]) -> dict[tuple[int, int], int | None]:
    kept: dict[tuple[int, int], int | None] = {}

    def keep(k: int, ordinal: int, answer: int | None) -> None:
        assert (k, ordinal) not in kept
        kept[k, ordinal] = answer

    source.answers([f"person {k}" for k in range(len(wanted))], OPTIONS, wanted, keep)
    return kept


def seeds(served: Served) -> list[int]:
    return [body["seed"] for body in served.asked]


def test_each_prompt_is_asked_for_each_sample_wanted():
    with Served(by_prompt) as served:
        kept = ask(Server(served.url, "tiny", temperature=0.7), [[0, 1], [], [4], [2, 3, 5]])
    assert kept == {(0, 0): 0, (0, 1): 0, (2, 4): 2, (3, 2): 0, (3, 3): 0, (3, 5): 0}
    assert sorted(body["messages"][0]["content"] for body in served.asked) == [
        *["person 0"] * 2,
        "person 2",
        *["person 3"] * 3,
    ]
    for body in served.asked:
        assert body["temperature"] == 0.7
        assert body["model"] == "tiny"
        assert body["response_format"]["json_schema"]["schema"]["properties"]["choice"]["enum"] == OPTIONS
        assert body["response_format"]["json_schema"]["strict"] is True


def test_the_same_question_has_the_same_seed_again_and_no_other_has_it():
    runs = []
    for _ in range(2):
        with Served(by_prompt) as served:
            ask(Server(served.url, "tiny"), [[0, 1, 2], [0, 1, 7]])
        runs.append({(body["messages"][0]["content"], body["seed"]) for body in served.asked})
    assert runs[0] == runs[1]
    assert len({seed for _, seed in runs[0]}) == 6
    assert all(0 <= seed < 2**31 for _, seed in runs[0])


def test_with_nothing_wanted_nothing_is_asked():
    with Served(by_prompt) as served:
        assert ask(Server(served.url), [[], []]) == {}
    assert served.asked == []


@pytest.mark.parametrize("concurrency", [1, 4])
def test_as_many_requests_are_in_flight_as_allowed(concurrency):
    together = threading.Barrier(concurrency, timeout=10)

    def awaits_the_others(prompt: str, options: list[str], seed: int, temperature: float) -> str:
        together.wait()
        return slowly(prompt, options, seed, temperature)

    with Served(awaits_the_others) as served:
        assert len(ask(Server(served.url, "tiny", concurrency=concurrency), [list(range(12))])) == 12
    assert served.most == concurrency


def test_no_more_requests_a_minute_than_allowed():
    with Served(by_prompt) as served:
        source = Server(served.url, "tiny", per_minute=1200)
        began = time.monotonic()
        ask(source, [[0, 1, 2, 3]])
        ask(source, [[4, 5, 6]])
        assert time.monotonic() - began >= 6 * 0.05


@pytest.mark.parametrize("fault", LOST)
def test_a_question_whose_answer_is_lost_is_asked_again(fault):
    with Served(by_prompt, [fault]) as served:
        assert ask(Server(served.url, "tiny", timeout=0.5 if fault == "timeout" else 60), [[], [3]]) == {(1, 3): 1}
    assert len(served.asked) == 2
    assert seeds(served)[0] == seeds(served)[1]


@pytest.mark.parametrize("fault", UNREAD)
def test_an_answer_that_cannot_be_read_is_asked_again_with_another_seed(fault):
    with Served(by_prompt, [fault]) as served:
        assert ask(Server(served.url, "tiny"), [[], [3]]) == {(1, 3): 1}
    assert len(set(seeds(served))) == 2


@pytest.mark.parametrize("fault", UNREAD)
def test_after_the_retries_what_cannot_be_read_is_none_and_the_rest_is_kept(fault):
    with Served(by_prompt, [fault] * 3) as served:
        kept = ask(Server(served.url, "tiny", retries=2, concurrency=1), [[0], [0], [0]])
    assert kept == {(0, 0): None, (1, 0): 1, (2, 0): 2}
    assert len(served.asked) == 5


@pytest.mark.parametrize(
    ("fault", "words"),
    [("timeout", "timeout="), ("dropped", "lost"), ("reset", "lost"), (429, "429.*per_minute="), (500, "500")],
)
def test_after_the_retries_a_fault_is_an_error_and_what_is_there_is_kept(fault, words):
    kept = {}
    with Served(by_prompt, [None, fault, fault]) as served:
        source = Server(served.url, "tiny", retries=1, timeout=0.5 if fault == "timeout" else 60, concurrency=1)
        with pytest.raises(LpmError, match=words) as caught:
            source.answers(["person 1"], OPTIONS, [[0, 1, 2]], lambda k, n, answer: kept.update({(k, n): answer}))
    assert kept == {(0, 0): 1}
    assert len(served.asked) == 3
    assert served.url in str(caught.value)
    assert "2 times over" in str(caught.value)
    assert "replayed" in str(caught.value)


def test_retries_wait_longer_and_longer_and_not_all_alike(monkeypatch):
    waits = []
    sleep = asyncio.sleep
    monkeypatch.setattr(module, "BACK_OFF", 1.0)
    monkeypatch.setattr(module.asyncio, "sleep", lambda seconds: waits.append(seconds) or sleep(0))
    with Served(by_prompt, [500] * 8) as served:
        ask(Server(served.url, "tiny", retries=8), [[0]])
    assert len(waits) == 8
    for attempt, wait in enumerate(waits):
        least = min(2**attempt, module.LONGEST)
        assert least <= wait <= 2 * least
        assert wait != least


def test_retry_after_is_honoured():
    with Served(by_prompt, [429], retry_after="0.3") as served:
        began = time.monotonic()
        ask(Server(served.url, "tiny"), [[0]])
        assert time.monotonic() - began >= 0.3
    assert len(served.asked) == 2


@pytest.mark.parametrize("way", ["seconds", "date"])
def test_a_server_that_asks_to_be_left_alone_for_long_is_left_alone(way):
    after = "3600" if way == "seconds" else email.utils.formatdate(time.time() + 3600, usegmt=True)
    with Served(by_prompt, [429], retry_after=after) as served, pytest.raises(LpmError, match="left alone for 3"):
        ask(Server(served.url, "tiny"), [[0]])
    assert len(served.asked) == 1


def test_a_slow_answer_is_waited_for_and_one_too_slow_is_asked_again():
    with Served(by_prompt, ["slow"], asleep=0.2) as served:
        assert ask(Server(served.url, "tiny", timeout=60), [[0]]) == {(0, 0): 0}
    assert len(served.asked) == 1
    # No pause between two pieces is as long as the time-out; all of them together are.
    with Served(by_prompt, ["slow"], asleep=3.0) as served:
        assert ask(Server(served.url, "tiny", timeout=1.0), [[0]]) == {(0, 0): 0}
    assert len(served.asked) == 2


def test_a_server_that_is_down():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(LpmError, match=r"is down, 3 times over: start one.*replayed") as caught:
            ask(Server(url, "tiny", retries=2), [[0]])
    assert url in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (401, "refuses the key.*give key="),
        (403, "refuses the key.*give key="),
        (400, "told to fail with 400.*'tiny'"),
        (422, "told to fail with 422"),
        (404, "speaks another API.*/v1"),
        ("html", "speaks another API.*/v1"),
        ("alien", "speaks another API.*/v1"),
    ],
)
def test_what_will_not_pass_is_said_at_once(fault, words):
    with Served(by_prompt, [fault]) as served, pytest.raises(LpmError, match=words) as caught:
        ask(Server(served.url, "tiny"), [[0]])
    assert len(served.asked) == 1
    assert served.url in str(caught.value)


def test_a_url_without_its_end():
    with Served(by_prompt) as served, pytest.raises(LpmError, match=r"speaks another API.*/v1"):
        ask(Server(served.url.removesuffix("/v1"), "tiny"), [[0]])


def test_the_key_is_sent_and_never_said():
    with Served(by_prompt, key="secret") as served:
        assert ask(Server(served.url, "tiny", "secret"), [[0]]) == {(0, 0): 0}
        with pytest.raises(LpmError, match="check key=") as caught:
            ask(Server(served.url, "tiny", "wrong"), [[0]])
    assert "wrong" not in str(caught.value)


def test_a_model_that_is_not_there():
    with Served(by_prompt) as served, pytest.raises(LpmError, match="`huge` does not exist"):
        ask(Server(served.url, "huge"), [[0]])
    assert len(served.asked) == 1


def test_the_only_model_is_taken():
    with Served(by_prompt, [500]) as served:
        source = Server(served.url)
        assert source.name == "tiny temperature=1.0"
        ask(source, [[0]])
    assert served.asked[0]["model"] == "tiny"


@pytest.mark.parametrize(("models", "words"), [(("one", "two"), "one of: one, two"), ((), "0 models")])
def test_of_several_models_or_none_one_must_be_named(models, words):
    with Served(by_prompt, models=models) as served, pytest.raises(InputError, match=words):
        ask(Server(served.url), [[0]])


@pytest.mark.parametrize("fault", ["html", "alien", 404])
def test_models_that_cannot_be_listed(fault):
    with Served(by_prompt, [fault]) as served, pytest.raises(LpmError, match="speaks another API"):
        assert not Server(served.url).name


def test_the_name_is_what_answers_depend_on():
    one = Server("http://here/v1", "tiny", temperature=1)
    assert one.name == Server("https://there/v1", "tiny", "key", concurrency=2, retries=0, timeout=1).name
    assert one.name != Server("http://here/v1", "tiny", temperature=0.5).name
    assert one.name != Server("http://here/v1", "huge").name


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"url": ""}, "url is ''.*http://"),
        ({"url": "localhost:8000/v1"}, "url is 'localhost:8000/v1'.*http://"),
        ({"url": "ftp://here/v1"}, "url is 'ftp://here/v1'"),
        ({"url": "http://"}, "url is 'http://'"),
        ({"url": "http://here:port/v1"}, "url is 'http://here:port/v1'"),
        ({"concurrency": 0}, "concurrency is 0; give 1"),
        ({"retries": -1}, "retries is -1; give 0"),
        ({"timeout": 0}, "timeout is 0; give a positive"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"per_minute": 0}, "per_minute is 0; give a positive"),
        ({"key": "sk-1\n"}, "key has a blank, a line break"),
        ({"key": "schlüssel"}, "isn't ASCII"),
        ({"temperature": -0.1}, "temperature is -0.1; give 0"),
        ({"temperature": float("inf")}, "temperature is inf"),
    ],
)
def test_arguments_out_of_range(given, words):
    with pytest.raises(InputError, match=words) as caught:
        Server(**{"url": "http://here/v1", **given})
    assert given.get("key", "none").strip() not in str(caught.value)


@pytest.mark.parametrize("package", ["openai", "outlines"])
def test_a_missing_package_is_said_when_it_is_needed(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    spec = importlib.util.spec_from_file_location("imported_again", server.__file__)
    again = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "imported_again", again)
    spec.loader.exec_module(again)
    with pytest.raises(LpmError, match=rf"{package}: pip install 'lpmppl\[llm\]'"):
        ask(again.Server("http://127.0.0.1:9/v1", "tiny"), [[0]])


def test_in_a_thread_that_runs_an_event_loop():
    threads = set()

    async def notebook() -> None:
        Server(served.url).answers(["person 0"], OPTIONS, [[0, 1]], lambda *_: threads.add(threading.current_thread()))

    with Served(by_prompt) as served:
        asyncio.run(notebook())
    assert threads == {threading.current_thread()}


def test_answers_are_kept_as_they_come():
    answered, kept = [], threading.Event()

    def once_the_first_is_kept(prompt: str, options: list[str], seed: int, temperature: float) -> str:
        answered.append(len(answered) == 0 or kept.wait(10))
        return options[0]

    with Served(once_the_first_is_kept) as served:
        source = Server(served.url, "tiny", concurrency=1)
        source.answers(["person 0"], OPTIONS, [[0, 1, 2]], lambda *_: kept.set())
    assert answered == [True] * 3


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_the_others_and_loses_nothing():
    kept, answered = [], []

    def interrupts(prompt: str, options: list[str], seed: int, temperature: float) -> str:
        answered.append(seed)
        if len(answered) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            served.closing.wait(10)
        return options[0]

    before = set(threading.enumerate())
    with Served(interrupts) as served, pytest.raises(KeyboardInterrupt):
        Server(served.url, "tiny", concurrency=1).answers(
            ["person 0"], OPTIONS, [list(range(100))], lambda *answer: kept.append(answer)
        )
    assert kept == [(0, 0, 0), (0, 1, 0)]
    assert len(served.asked) == 3
    more = set(threading.enumerate()) - before
    assert not [thread for thread in more if thread.name.startswith("ThreadPool")]
    assert len(more) <= 1  # the server's thread for the request that was cancelled


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_waits_until_an_answer_is_kept_and_a_second_one_does_not(times: int):
    kept = []

    def keep(*answer: int | None) -> None:
        if not kept:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
        kept.append(answer)

    with Served(slowly) as served, pytest.raises(KeyboardInterrupt):
        Server(served.url, "tiny", concurrency=1).answers(["person 0"], OPTIONS, [list(range(100))], keep)
    assert ((0, 0, 0) in kept) is (times == 1)
    assert len(served.asked) < 50
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_keeps_the_answers_that_are_there_already():
    kept, third = [], threading.Event()

    def until_the_third(prompt: str, options: list[str], seed: int, temperature: float) -> str:
        if len(served.asked) == 3:
            third.set()
            served.closing.wait(10)
        return options[0]

    def keep(*answer: int | None) -> None:
        kept.append(answer)
        if len(kept) == 1:
            assert third.wait(10)
            raise KeyboardInterrupt

    with Served(until_the_third) as served, pytest.raises(KeyboardInterrupt):
        Server(served.url, "tiny", concurrency=1).answers(["person 0"], OPTIONS, [[0, 1, 2]], keep)
    assert kept == [(0, 0, 0), (0, 1, 0)]


def test_where_an_answer_cannot_be_kept_the_others_are_stopped():
    def full(*_: object) -> None:
        raise OSError("no space left")

    with Served(slowly) as served, pytest.raises(OSError, match="no space left"):
        Server(served.url, "tiny", concurrency=2).answers(["person 0"], OPTIONS, [list(range(100))], full)
    assert len(served.asked) < 50


def test_one_error_cancels_the_others():
    with Served(slowly, [None, None, 401]) as served, pytest.raises(LpmError, match="refuses the key"):
        ask(Server(served.url, "tiny", concurrency=4), [list(range(100))])
    assert len(served.asked) < 50


def test_the_global_random_numbers_are_left_alone():
    random.seed(1)
    before = random.getstate()
    with Served(by_prompt, [500, "other"]) as served:
        ask(Server(served.url, "tiny"), [[0]])
    assert random.getstate() == before
