"""Counts of a party's work as Prometheus reads them, and its health."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from lpmppl.errors import InputError

__all__ = ["Metrics"]

_HELP = {
    "messages_total": "Messages that were accepted, by kind.",
    "refused_total": "Messages that were refused, by reason.",
    "received_bytes_total": "Bytes of messages received.",
    "rounds_total": "Rounds that are past, by outcome.",
    "agents_included_total": "Agents in all sums that were opened.",
    "held_bytes": "Bytes of parts that are held.",
    "open_round": "The round that is open.",
}


class Metrics:
    """A party's counts.

    Args:
        party: its name, a label of every count.
    """

    def __init__(self, party: str) -> None:
        self._party, self._lock = party, threading.Lock()
        self._values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            values = self._values.setdefault(name, {})
            values[tuple(labels.items())] = values.get(tuple(labels.items()), 0) + by

    def set(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._values[name] = {(): value}

    @property
    def text(self) -> str:
        """All counts in Prometheus' text format, version 0.0.4.

        >>> metrics = Metrics("helper-0")
        >>> metrics.count("refused_total", reason="late")
        >>> print(metrics.text, end="")
        # HELP lpmppl_party_refused_total Messages that were refused, by reason.
        # TYPE lpmppl_party_refused_total counter
        lpmppl_party_refused_total{party="helper-0",reason="late"} 1
        """
        lines: list[str] = []
        with self._lock:
            for name, values in self._values.items():
                kind = "counter" if name.endswith("_total") else "gauge"
                lines += [f"# HELP lpmppl_party_{name} {_HELP[name]}", f"# TYPE lpmppl_party_{name} {kind}"]
                for labels, value in values.items():
                    pairs = ",".join(f'{key}="{of}"' for key, of in (("party", self._party), *labels))
                    lines.append(f"lpmppl_party_{name}{{{pairs}}} {value:.15g}")
        return "\n".join(lines) + "\n"

    @contextmanager
    def served(self, port: int | None, health: Callable[[], dict[str, object]]) -> Iterator[int | None]:
        """Answer /metrics and /health on a port of this machine, where one is given; 0 takes a free one.

        Raises:
            InputError: for a port that is in use.
        """
        if port is None:
            yield None
            return
        metrics = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = {
                    "/metrics": lambda: ("text/plain; version=0.0.4; charset=utf-8", metrics.text),
                    "/health": lambda: ("application/json", json.dumps(health()) + "\n"),
                }
                if self.path not in known:
                    self.send_error(404, "There is /metrics and /health")
                    return
                kind, text = known[self.path]()
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: a party's log is of its rounds."""

        try:
            server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as e:
            raise InputError(f"metrics port {port} can't be used ({e}); give another, or 0 for any free one") from e
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="metrics", daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
