"""What is around every request: a count, one line in the log, and headers of safety."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lime_mlx.media.fetch import one_line
from lime_mlx.server.metrics import Metrics

# Of every answer: a browser takes it for what it says to be, shows it in no frame and tells nobody where it came from.
HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}
PATHS = frozenset({"/", "/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/responses"})
QUIET = frozenset({"/health", "/metrics"})

log = logging.getLogger("lime_mlx.server")


class Access:
    """ASGI middleware: the line in the log holds no secrets and no texts of users, whatever happens inside."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, noted)
        except Exception as error:
            log.error("a request failed: %s", type(error).__name__)
        finally:
            path = scope["path"]
            self.metrics.requests.labels(path if path in PATHS else "other", str(status)).inc()
            if path not in QUIET:
                seconds = time.perf_counter() - began
                log.info("%s %s %s, %.2f s", scope["method"], one_line(path, 80), status or "client left", seconds)
