"""What a server counts, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The counts of one server."""

    def __init__(self, admitted: Callable[[], int], in_memory: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("lime_requests", "Requests by path and status.", ["path", "status"], registry=registry)
        self.tokens = Counter("lime_tokens", "Tokens by kind: prompt, cached, completion.", ["kind"], registry=registry)
        self.gone = Counter("lime_clients_gone", "Answers that were given up: the client went away.", registry=registry)
        self.seconds = Histogram(
            "lime_answer_seconds",
            "Seconds of an answer, with the time in the queue.",
            buckets=(0.1, 0.3, 1, 3, 10, 30, 100, 300),
            registry=registry,
        )
        self.first = Histogram(
            "lime_first_token_seconds",
            "Seconds until the first token.",
            buckets=(0.03, 0.1, 0.3, 1, 3, 10, 30),
            registry=registry,
        )
        Gauge("lime_queue", "Requests that wait or compute.", registry=registry).set_function(admitted)
        Gauge("lime_models", "Models in memory.", registry=registry).set_function(in_memory)

    def text(self) -> bytes:
        return bytes(generate_latest(self._registry))
