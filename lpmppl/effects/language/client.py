"""A client of OpenAI-compatible servers: many questions at once, asked again after faults, at a bounded rate."""

from __future__ import annotations

import asyncio
import importlib
import math
import random
import re
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from functools import cached_property
from queue import SimpleQueue
from typing import Any, TypedDict, TypeVar

from lpmppl.errors import InputError, LpmError

__all__ = ["Client", "Options", "package", "sendable"]

T = TypeVar("T")
Q = TypeVar("Q")
BACK_OFF, LONGEST = 0.5, 60.0
"""Seconds before the first retry, each further one waiting twice as long; and the longest that one waits."""
PATIENCE = 600.0
"""Seconds that a server may ask to be left alone; one that asks for more has a quota that is spent."""

_ENDS = "url= should be OpenAI-compatible, and most often ends in /v1"
_OFFLINE = "answers that were kept can be replayed without it"


class Options(TypedDict, total=False):
    """How `Client` asks, whatever it asks."""

    concurrency: int
    retries: int
    timeout: float
    per_minute: float | None


def sendable(key: str) -> bool:
    """Whether a key can stand in a request's header: printed characters of ASCII, and no blank.

    >>> sendable("sk-123"), sendable("sk 123"), sendable("schlüssel")
    (True, False, False)
    """
    return re.fullmatch(r"[!-~]*", key) is not None


class Client:
    """What is asked of an OpenAI-compatible server, apart from the questions themselves.

    Args:
        url: where the server's API begins, such as "http://localhost:8000/v1".
        model: the model's name at the server; "" for the only one that it serves.
        key: the API key, where the server wants one.
        concurrency: at most this many requests in flight.
        retries: further tries after a fault or an unreadable answer, for each question.
        timeout: seconds that one request may take, from its start to the end of its answer.
        per_minute: at most this many requests a minute; None for no limit.
    Raises:
        InputError: for an argument out of its range.
    """

    def __init__(
        self,
        url: str,
        model: str = "",
        key: str = "",
        *,
        concurrency: int = 8,
        retries: int = 4,
        timeout: float = 60.0,
        per_minute: float | None = None,
    ) -> None:
        right = re.fullmatch(r"https?://([^/\s:\[\]]+|\[[\da-fA-F:]+\])(:\d{1,5})?(/[!-~]*)?", url)
        if not right or int((right[2] or ":0")[1:]) > 65_535:
            raise InputError(f"url is '{url}'; give where the server's API begins, such as http://localhost:8000/v1")
        if not sendable(key):
            raise InputError(
                "key has a blank, a line break or a character that isn't ASCII, and can't be sent; give key= the key "
                "alone"
            )
        for what, value, fits, remedy in (
            ("concurrency", concurrency, concurrency >= 1, "give 1 or more requests in flight"),
            ("retries", retries, retries >= 0, "give 0 or more further tries"),
            ("timeout", timeout, timeout > 0, "give a positive number of seconds"),
            ("per_minute", per_minute, per_minute is None or per_minute > 0, "give a positive rate, or None for any"),
        ):
            if not fits or (what in ("concurrency", "retries") and not isinstance(value, int)):
                raise InputError(f"{what} is {value}; {remedy}")
        self.url, self.model, self.key = url.rstrip("/"), model, key
        self.concurrency, self.retries, self.timeout, self.per_minute = concurrency, retries, timeout, per_minute
        self._jitter = random.Random()
        self._next = -math.inf

    async def _each(self, questions: Sequence[Q], ask: Callable[[Q], Awaitable[None]]) -> None:
        """Ask all questions, in their order, so many at once as may be."""
        left = iter(questions)

        async def worker() -> None:
            for question in left:
                await ask(question)

        await _all([worker() for _ in range(min(self.concurrency, len(questions)))])

    @cached_property
    def _model(self) -> str:
        if self.model:
            return self.model

        async def work(client: Any, give: Callable[[list[str] | None], None]) -> None:
            async def ask(unread: int) -> list[str]:
                return [str(model.id) for model in (await client.models.list()).data]

            give(await self._insist(ask))

        listed: list[list[str] | None] = []
        self._run(work, listed.append)
        models = listed[0] or []
        if len(models) != 1:
            raise InputError(
                f"model is '', but the server at {self.url} serves {len(models)} models, not one; "
                + (f"give model= one of: {', '.join(models)}" if models else "load one there, or give model=")
            )
        return models[0]

    def _run(self, work: Callable[[Any, Callable[[T], None]], Awaitable[None]], take: Callable[[T], None]) -> None:
        """Do asynchronous work with a client, and take what it gives in this thread."""
        openai, _ = package("openai"), package("outlines")
        given: SimpleQueue[tuple[T] | tuple[()]] = SimpleQueue()
        begun: Future[Callable[[], Any]] = Future()

        async def main() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            begun.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
            # One policy of retries and one of time-outs: both ours.
            client = openai.AsyncOpenAI(base_url=self.url, api_key=self.key or "none", max_retries=0, timeout=None)
            async with client:
                await work(client, lambda item: given.put((item,)))

        # A thread of its own: the caller's may already run an event loop, as a notebook's does, and what is taken
        # stays in the caller's, as a database's connection must.
        with _interrupted_late(lambda: begun.add_done_callback(_stop)), ThreadPoolExecutor(1) as pool:
            ended = pool.submit(lambda: asyncio.run(main()))
            ended.add_done_callback(lambda _: given.put(()))
            try:
                for item in iter(given.get, ()):
                    take(*item)
            except BaseException as error:
                begun.add_done_callback(_stop)
                # Answers that are there already are paid for; but a `take` that failed would fail again.
                if isinstance(error, KeyboardInterrupt):
                    for item in iter(given.get, ()):
                        take(*item)
                raise
            ended.result()

    async def _insist(self, ask: Callable[[int], Awaitable[T | None]]) -> T | None:
        """Ask, given the number of unreadable answers so far, until the answer isn't None or the retries are spent."""
        faults: tuple[type[Exception], ...] = (package("openai").OpenAIError, TimeoutError)
        # The packages raise the last four on a body that isn't OpenAI's.
        faults += (package("outlines").exceptions.OutlinesError, AttributeError, LookupError, TypeError, ValueError)
        unread = 0
        for attempt in range(self.retries + 1):
            await self._pace()
            pause = 0.0
            try:
                async with asyncio.timeout(self.timeout):
                    answer = await ask(unread)
            except faults as error:
                cause = getattr(error, "original_exception", None) or error
                again, what, remedy = self._diagnosis(cause)
                pause = _asked_to_wait(cause)
                if not again or attempt == self.retries or pause > PATIENCE:
                    what += f", {attempt + 1} times over" if attempt else ""
                    what += f" (it asks to be left alone for {pause:.0f} s)" if pause else ""
                    raise LpmError(f"the language model's server at {self.url} {what}: {remedy}") from cause
            else:
                if answer is not None:
                    return answer
                unread += 1
            if attempt < self.retries:
                back_off = min(BACK_OFF * 2**attempt, LONGEST) * (1 + self._jitter.random())
                await asyncio.sleep(max(pause, back_off))
        return None

    async def _pace(self) -> None:
        if self.per_minute is not None:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + 60 / self.per_minute
            await asyncio.sleep(start - now)

    def _diagnosis(self, error: BaseException) -> tuple[bool, str, str]:
        """Say whether trying again may help, what happened, and the remedy."""
        status, message = getattr(error, "status_code", None), str(getattr(error, "message", error))
        if isinstance(error, TimeoutError):
            remedy = f"raise timeout= or lower concurrency= (now {self.concurrency})"
            return True, f"didn't answer within {self.timeout:g} s", f"{remedy}; {_OFFLINE}"
        if not isinstance(error, package("openai").OpenAIError) or status == 200:
            return False, "speaks another API", _ENDS
        if status is None and type(error.__cause__).__name__ == "ConnectError":
            remedy = "start one, for instance with `vllm serve MODEL` or `ollama serve`, or correct url="
            return True, "is down", f"{remedy}; {_OFFLINE}"
        if status is None:
            return True, "lost the connection before its answer was whole", f"see its log; {_OFFLINE}"
        if status in (401, 403):
            return False, f"refuses the key ({status})", f"{'check' if self.key else 'give'} key=; {message}"
        if status in (404, 405) and "model" not in message.lower():
            return False, f"speaks another API ({status})", _ENDS
        if status in (408, 409, 429) or status >= 500:
            remedy = "lower concurrency= or per_minute=" if status == 429 else "see its log"
            return True, f"fails ({status})", f"{message}; {remedy}; {_OFFLINE}"
        return False, f"refuses the request ({status})", f"{message} (model= is '{self.model}')"


def package(name: str) -> Any:
    """An optional package, imported when it is needed.

    Raises:
        LpmError: where it isn't installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise LpmError(f"a language model's server needs the package {name}: pip install 'lpmppl[llm]'") from e


@contextmanager
def _interrupted_late(stop: Callable[[], None]) -> Iterator[None]:
    """Let a first Ctrl-C only stop the work within, and raise it afterwards; a second one is raised at once.

    Raised at once, it could come between an answer's leaving the queue and its being kept.
    """
    usual = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return
    came = False

    def first(*_: object) -> None:
        nonlocal came
        came = True
        signal.signal(signal.SIGINT, usual)
        stop()

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            raise KeyboardInterrupt


def _stop(begun: Future[Callable[[], Any]]) -> None:
    with suppress(RuntimeError):  # it ended meanwhile
        begun.result()()


async def _all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do all of it at once; where one fails, the others are cancelled and over before its error is raised."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _asked_to_wait(error: BaseException) -> float:
    """Seconds that the server asks for in Retry-After, a number or a date; 0 where it doesn't."""
    response = getattr(error, "response", None)
    asked = response.headers.get("retry-after", "") if response is not None else ""
    with suppress(ValueError):
        return max(0.0, float(asked))
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    return 0.0
