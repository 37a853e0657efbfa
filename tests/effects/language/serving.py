"""A small OpenAI-compatible server that answers by a function, and fails when told to."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

__all__ = ["Answer", "Fault", "Scores", "Served"]

Answer: TypeAlias = Callable[[str, list[str], int, float], str]
"""A prompt, the options, a seed and a temperature to the text of an option."""

Scores: TypeAlias = Callable[[str], tuple[list[str], list[float | None]]]
"""A text to the tokens of it, and of one that is made after it, with their log-probabilities."""

Fault: TypeAlias = int | str | None
"""A status to fail with; "timeout", "truncated", "malformed", "other", "dropped", "reset", "slow", "refusal", "html"
or "alien"; of log-probabilities also "silent", "nulls", "made alone" or "no choices"; or None for no fault."""


class Served:
    """Serve on a free port of this machine while in `with`.

    Args:
        answer: which option is the answer.
        faults: what goes wrong, one per request, in the order of their arrival; nothing after the last.
        models: what it says it serves; a request for another is refused.
        key: the key that it wants; "" for none.
        retry_after: what a 429 says under Retry-After.
        asleep: seconds that the fault "timeout" waits, and "slow" in all.
        scores: the log-probabilities of a text's tokens; by default there is no such endpoint.
    """

    def __init__(
        self,
        answer: Answer,
        faults: list[Fault] | None = None,
        *,
        models: tuple[str, ...] = ("tiny",),
        key: str = "",
        retry_after: str = "0",
        asleep: float = 5.0,
        scores: Scores | None = None,
    ) -> None:
        self.scores = scores
        self.answer, self.models, self.key = answer, models, key
        self.faults = list(faults or [])
        self.retry_after, self.asleep = retry_after, asleep
        self.asked: list[dict[str, Any]] = []
        self.most = 0
        self.in_flight = 0
        self.errors: list[BaseException] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.http = _Server(self)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def __enter__(self) -> Served:
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()
        if self.errors:
            raise self.errors[0]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, served: Served) -> None:
        self.served = served
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        # Clients that give up hang up; anything else is the test's to see.
        if error is not None and not isinstance(error, ConnectionError):
            self.served.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    counted = False

    def do_GET(self) -> None:
        assert self.path == "/v1/models", self.path
        if not self._fails(self._fault()):
            models = [
                {"id": model, "object": "model", "created": 0, "owned_by": "us"} for model in self.server.served.models
            ]
            self._reply(200, {"object": "list", "data": models})

    def do_POST(self) -> None:
        served = self.server.served
        whole = int(self.headers["Content-Length"])
        content = self.rfile.read(whole)
        if len(content) < whole:  # the client gave up
            self.close_connection = True
            return
        body = json.loads(content)
        with served.lock:
            served.asked.append(body)
            served.in_flight += 1
            served.most = max(served.most, served.in_flight)
            self.counted = True
        try:
            if self.path == "/v1/chat/completions":
                self._complete(body)
            elif self.path == "/v1/completions" and served.scores:
                self._score(body, served.scores)
            else:
                self._reply(404, {"detail": "Not Found"})
        finally:
            self._leave()

    def _leave(self) -> None:
        with self.server.served.lock:
            self.server.served.in_flight -= self.counted
            self.counted = False

    def _refused(self, body: dict[str, Any]) -> tuple[bool, Fault]:
        """Whether a request has failed already, and what else is to go wrong."""
        served, fault = self.server.served, self._fault()
        if served.key and self.headers["Authorization"] != f"Bearer {served.key}":
            fault = 401
        if self._fails(fault):
            return True, fault
        if body["model"] not in served.models:
            self._reply(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
            return True, fault
        return False, fault

    def _score(self, body: dict[str, Any], scores: Scores) -> None:
        failed, fault = self._refused(body)
        if failed:
            return
        assert (body["echo"], body["logprobs"], body["max_tokens"]) == (True, 1, 1)
        tokens, logs = scores(body["prompt"])
        many = len(tokens) - 1
        if fault == "truncated":
            logs = logs[:-2]
        elif fault == "malformed":
            logs = [*logs[:-2], None, logs[-1]]
        elif fault == "other":
            tokens = [*tokens[:2], "else", *tokens[3:]]
        elif fault == "nulls":
            logs = [None] * len(logs)
        elif fault == "made alone":
            tokens, logs = tokens[-1:], logs[-1:]
        offsets = [sum(map(len, tokens[:n])) for n in range(len(tokens))]
        found = {"tokens": tokens, "token_logprobs": logs, "text_offset": offsets, "top_logprobs": None}
        choice = {"index": 0, "finish_reason": "length", "text": "".join(tokens), "logprobs": found}
        if fault == "silent":
            choice["logprobs"] = None
        completion = {
            "id": "1",
            "object": "text_completion",
            "created": 0,
            "model": body["model"],
            "choices": [] if fault == "no choices" else [choice],
            "usage": {"prompt_tokens": many, "completion_tokens": 1, "total_tokens": many + 1},
        }
        self._reply(200, completion, fault)

    def _complete(self, body: dict[str, Any]) -> None:
        served = self.server.served
        failed, fault = self._refused(body)
        if failed:
            return
        schema = body["response_format"]["json_schema"]["schema"]
        assert body["response_format"]["type"] == "json_schema"
        assert schema["required"] == ["choice"]
        options = schema["properties"]["choice"]["enum"]
        choice = served.answer(body["messages"][0]["content"], options, body["seed"], body["temperature"])
        assert choice in options
        content = json.dumps({"choice": choice})
        if fault == "truncated":
            content = content[: len(content) // 2]
        elif fault == "malformed":
            content = f"I choose {choice}."
        elif fault == "other":
            content = json.dumps({"choice": "none of these"})
        message = {"role": "assistant", "content": content}
        if fault == "refusal":
            message = {"role": "assistant", "content": None, "refusal": "I'd rather not."}
        reason = "length" if fault == "truncated" else "stop"
        completion = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": reason, "message": message}],
        }
        self._reply(200, completion, fault)

    def _fault(self) -> Fault:
        served = self.server.served
        with served.lock:
            return served.faults.pop(0) if served.faults else None

    def _fails(self, fault: Fault) -> bool:
        """Whether the fault is one that needs no answer; then it has happened."""
        if isinstance(fault, int):
            self._reply(fault, {"error": {"message": f"told to fail with {fault}"}})
        elif fault == "html":
            self._send(200, b"<html><body>Welcome</body></html>", "text/html")
        elif fault == "alien":
            self._reply(200, {"greeting": "hello"})
        elif fault == "timeout":
            self.server.served.closing.wait(self.server.served.asleep)
            self.close_connection = True
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        else:
            return False
        return True

    def _reply(self, status: int, content: Any, fault: Fault = None) -> None:
        self._send(status, json.dumps(content).encode(), "application/json", fault)

    def _send(self, status: int, content: bytes, kind: str, fault: Fault = None) -> None:
        # Before the client knows: it may send its next request ere this thread runs again.
        self._leave()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if status == 429:
            self.send_header("Retry-After", self.server.served.retry_after)
        self.end_headers()
        if fault == "dropped":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif fault == "slow":
            for at in range(0, len(content), 20):
                self.wfile.write(content[at : at + 20])
                self.server.served.closing.wait(self.server.served.asleep * 20 / len(content))
        else:
            self.wfile.write(content)
