"""Who may talk to the server, and how much. A local server is open to every web page in the browser; this closes it.

A page that someone else wrote can send requests here: by its own name, which it lets point to this machine (DNS
rebinding), with a form or with `fetch`. So the name in `Host` must be one of ours, `Origin` must be this server, and a
body must say that it is JSON, which a browser sends to another origin only after it asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lime_mlx.server.errors import ApiError
from lime_mlx.server.settings import Settings

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# What needs no key: whether the server lives, and the page's shell, which asks for the key.
OPEN = frozenset({"/", "/health"})
# A body is read within so many seconds; what is refused is still read, up to so many bytes, so that the client, which
# sends first and listens then, gets its answer. Bodies that are read at the same time are limited together.
BODY_SECONDS, DRAIN_SECONDS, DRAIN_BYTES, BODIES = 60.0, 10.0, 256 << 20, 4
WILD = ("0.0.0.0", "::", "")


def is_loopback(host: str) -> bool:
    """Whether a host that a server binds is this machine alone."""
    return host in LOOPBACK


def host_name(value: str) -> str | None:
    """The name or address in a Host header, in one spelling; None where it is none."""
    try:
        name = urlsplit(f"//{value}").hostname
    except ValueError:
        return None
    if not name or any(c in value for c in "/?#@\\ \t"):
        return None
    name = name.rstrip(".")
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


class Guard:
    """ASGI middleware that refuses requests before the application sees them; bodies are read here, within limits."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.settings = app, settings
        self._names = LOOPBACK | {name for host in settings.hosts if (name := host_name(host))}
        self._names |= set() if settings.host in WILD else {host_name(settings.host) or settings.host}
        self._key = None if settings.key is None else _digest(settings.key)
        self._reading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        incoming = _Incoming(receive)
        try:
            self._check(scope, headers)
            body = await self._body(headers, incoming)
        except ApiError as error:
            await incoming.drain()
            await _refuse(send, error)
            return
        await self.app(scope, _replay(body, receive), send)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        """Raise `ApiError` for a request that may not come in."""
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        name = host_name(headers.get("host", ""))
        server = scope.get("server")
        here = {host_name(str(server[0]))} if server and self.settings.host in WILD else set()
        if len(hosts) != 1 or name is None or name not in self._names | here:
            raise ApiError(
                403, "The Host of this request is not a name of this server; see --allow-host.", None, "bad_host"
            )
        origin = headers.get("origin")
        if origin is not None and not self._is_ours(origin, headers["host"], scope):
            raise ApiError(403, "Pages of other origins may not use this server; see --cors.", None, "bad_origin")
        if self._key is not None and scope["path"] not in OPEN and scope["method"] != "OPTIONS":
            self._check_key(headers)
        if scope["method"] not in ("GET", "HEAD", "OPTIONS"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise ApiError(415, "The Content-Type must be application/json.", None, "bad_content_type")

    def _is_ours(self, origin: str, host: str, scope: Scope) -> bool:
        return origin in self.settings.origins or origin.lower() == f"{scope.get('scheme', 'http')}://{host}".lower()

    def _check_key(self, headers: Mapping[str, str]) -> None:
        kind, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(_digest(given.strip()), self._key or b"")
        if kind.lower() != "bearer" or not right:
            raise ApiError(401, "The API key is missing or wrong.", None, "invalid_api_key")

    async def _body(self, headers: Mapping[str, str], incoming: _Incoming) -> bytes:
        """The whole body. Raises `ApiError` for one that is too large or too slow."""
        announced = headers.get("content-length", "0")
        if not announced.isdigit() or int(announced) > self.settings.body:
            raise self._too_large()
        try:
            return await asyncio.wait_for(self._read(incoming), BODY_SECONDS)
        except asyncio.TimeoutError:
            raise ApiError(408, "The body came too slowly.", None, "timeout") from None

    async def _read(self, incoming: _Incoming) -> bytes:
        parts, size = list[bytes](), 0
        try:
            while not incoming.ended:
                part = await incoming.part()
                size += len(part)
                self._reading += len(part)
                if size > self.settings.body:
                    raise self._too_large()
                if self._reading > BODIES * self.settings.body:
                    raise ApiError(429, "Too much is being sent at once; try again soon.", None, "queue_full")
                parts.append(part)
            return b"".join(parts)
        finally:
            self._reading -= size

    def _too_large(self) -> ApiError:
        limit = self.settings.body >> 20
        return ApiError(413, f"The body is larger than {limit} MiB, the limit.", None, "body_too_large")


class _Incoming:
    """The body of a request as it comes. ended: nothing of it follows."""

    def __init__(self, receive: Receive) -> None:
        self._receive, self.ended = receive, False

    async def part(self) -> bytes:
        message = await self._receive()
        self.ended = message["type"] != "http.request" or not message.get("more_body")
        part: bytes = message.get("body", b"")
        return part

    async def drain(self) -> None:
        """Read what the client still sends, within limits, and forget it."""
        try:
            await asyncio.wait_for(self._forget(), DRAIN_SECONDS)
        except asyncio.TimeoutError:
            self.ended = True

    async def _forget(self) -> None:
        size = 0
        while not self.ended and size < DRAIN_BYTES:
            size += len(await self.part())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body that was read, and then what else comes: that the client goes away."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


async def _refuse(send: Send, error: ApiError) -> None:
    body = json.dumps(error.body).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
