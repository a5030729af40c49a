"""Bytes from a path, an http(s) URL or standard input."""

import http.client
import importlib.metadata
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from threading import Thread
from typing import IO, Any, BinaryIO
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from ..errors import MediaError
from .addresses import Private, Reach

# A path, an http(s) URL, "-" for standard input, or the bytes themselves.
Source = str | os.PathLike[str] | bytes
MAX_FILE_BYTES = 1 << 30
MAX_DOWNLOAD_BYTES = 100 << 20
TIMEOUT = 60.0
MAX_REDIRECTS = 5

_CHUNK = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)
_NETWORK_ERRORS = (OSError, http.client.HTTPException, ValueError)


def fetch(
    url: str,
    *,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
    timeout: float = TIMEOUT,
    max_redirects: int = MAX_REDIRECTS,
    private: Private = "typed",
) -> bytes:
    """Download an http(s) URL.

    `timeout` is in seconds and holds for the whole download, redirects included. `private` says whether addresses of
    this machine and its networks are read, see `addresses`; the address that was judged is the one connected to.

    Raises:
        MediaError: the URL is not http(s), leads to an address that `private` forbids, cannot be reached, answers
            with an error status, redirects in a loop, more than `max_redirects` times or to another scheme, is larger
            than `max_bytes`, takes longer than `timeout`, or ends before the length that the server announced.
    """
    return download(url, max_bytes=max_bytes, timeout=timeout, max_redirects=max_redirects, private=private)[0]


def download(
    url: str,
    *,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
    timeout: float = TIMEOUT,
    max_redirects: int = MAX_REDIRECTS,
    private: Private = "typed",
) -> tuple[bytes, str]:
    """`fetch`, with the content type that the server gave ("" when it gave none)."""
    deadline = time.monotonic() + timeout
    result: Future[tuple[bytes, str]] = Future()

    def work() -> None:
        try:
            result.set_result(_follow(url, max_bytes, deadline, max_redirects, private))
        except MediaError as error:
            result.set_exception(error)

    # A socket's own timeout starts anew with every byte, so a second thread keeps the overall deadline.
    worker = Thread(target=work, daemon=True)
    worker.start()
    worker.join(timeout)
    if worker.is_alive():
        raise _error(url, f"the server did not finish within {timeout:g} s; try again, or download it first")
    return result.result(timeout=0)


def read_source(source: Source, *, stdin: BinaryIO | None = None, private: Private = "typed") -> tuple[bytes, str]:
    """The bytes of a path, an http(s) URL, `-` (standard input) or bytes, and the content type of a URL ("").

    `private` is as for `fetch`.

    Raises:
        MediaError: the source is missing, a directory, not readable, empty or too large, or `fetch` failed.
    """
    content_type = ""
    if isinstance(source, bytes):
        data = source
    elif source == "-":
        data = _read_stdin(stdin)
    elif isinstance(source, str) and is_url(source):
        data, content_type = download(source, private=private)
    else:
        data = _read_file(source)
    if not data:
        raise _error(source, "it is empty (0 bytes); copy or download it again")
    return data, content_type


def is_url(source: str) -> bool:
    """Whether `source` has a URL scheme, http(s) or not."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", source) is not None


def source_name(source: Source) -> str:
    """What messages call the source: short, one line, and without the password of a URL."""
    if isinstance(source, bytes):
        return "the given bytes"
    if source == "-":
        return "standard input"
    name = os.fspath(source)
    name = name.decode(errors="replace") if isinstance(name, bytes) else name
    return one_line(re.sub(r"://[^/?#]*@", "://", name))


def one_line(text: str, limit: int = 200) -> str:
    """`text` for a message: no control characters, and its middle left out when it is longer than `limit`."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= limit else f"{text[: limit // 2]}...{text[3 - limit // 2 :]}"


def _error(source: Source, problem: str) -> MediaError:
    return MediaError(f"Cannot read {source_name(source)}: {problem}.")


def _read_file(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise _error(path, "there is no such file; check the path") from None
    except IsADirectoryError:
        raise _error(path, "it is a directory; give a file inside it") from None
    except PermissionError:
        raise _error(path, "permission denied; make the file readable for you") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _error(path, f"{reason}; check the path") from error
    if len(data) > MAX_FILE_BYTES:
        raise _error(path, f"it is larger than {_size(MAX_FILE_BYTES)}, the limit; give a smaller file")
    return data


def _read_stdin(stdin: BinaryIO | None) -> bytes:
    stream = stdin or getattr(sys.stdin, "buffer", None)
    if stream is None or stream.isatty():
        raise _error("-", "nothing is piped into it; use `... < FILE`, or give a path")
    data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise _error("-", f"it is larger than {_size(MAX_FILE_BYTES)}, the limit; give a smaller file")
    return data


class _KeepRedirects(urllib.request.HTTPRedirectHandler):
    """Returns a redirect as an answer, since urllib's own limits cannot be set per call."""

    def http_error_302(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage
    ) -> IO[bytes]:
        return fp

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


class _Request(urllib.request.Request):
    """A request that remembers, when it is sent through a proxy, which host it is for."""

    behind_proxy: str | None = None

    def set_proxy(self, host: str, type: str) -> None:
        self.behind_proxy = self.host
        super().set_proxy(host, type)


class _Direct(http.client.HTTPConnection):
    """A connection to the very address that was judged."""

    reach = Reach()

    def connect(self) -> None:
        self.sock = self.reach.connect(self.host, self.port, self.timeout)


class _DirectSecure(http.client.HTTPSConnection, _Direct):
    """The same under TLS, which HTTPSConnection puts around the socket that `_Direct` opens."""


class _Judging(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Judges where each request goes. A proxy of the environment resolves names itself; `never` goes around it."""

    def __init__(self, reach: Reach) -> None:
        super().__init__()
        self.reach = reach

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self._open(req, http.client.HTTPConnection, _Direct)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self._open(req, http.client.HTTPSConnection, _DirectSecure)

    def _open(
        self, req: urllib.request.Request, proxied: type[http.client.HTTPConnection], direct: type[_Direct]
    ) -> http.client.HTTPResponse:
        if isinstance(req, _Request) and req.behind_proxy is not None:
            self.reach.judge_proxied(urlsplit(f"//{req.behind_proxy}").hostname or "")
            return self.do_open(proxied, req)

        def connection(host: str, **options: Any) -> _Direct:
            made = direct(host, **options)
            made.reach = self.reach
            return made

        return self.do_open(connection, req)


def _opener(reach: Reach) -> urllib.request.OpenerDirector:
    handlers: list[urllib.request.BaseHandler] = [_KeepRedirects(), _Judging(reach)]
    if reach.private == "never":
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def open_url(
    url: str,
    deadline: float,
    max_redirects: int = MAX_REDIRECTS,
    headers: Mapping[str, str] | None = None,
    private: Private = "typed",
) -> http.client.HTTPResponse:
    """The answer to a request with `headers`, redirects followed; who asks closes it.

    deadline: by `time.monotonic`; what is left of it is also the longest silence while the answer is read.
    Raises `MediaError` as `fetch` does; its cause is the error of the network.
    """
    opener = _opener(Reach(private))
    visited: list[str] = []
    target = url
    while len(visited) <= max_redirects:
        visited.append(target)
        with network_errors(url):
            response: http.client.HTTPResponse = opener.open(_request(target, headers or {}), timeout=_left(deadline))
            if response.status not in _REDIRECTS:
                return response
            with response:
                target = urljoin(target, response.headers.get("Location", ""))
        if target in visited:
            raise _error(url, "the server redirects in a loop; check the URL")
    raise _error(url, f"the server redirects more than {max_redirects} times; give the final URL")


@contextmanager
def network_errors(url: str) -> Iterator[None]:
    """What goes wrong with the network inside becomes a `MediaError` with that as its cause."""
    try:
        yield
    except _NETWORK_ERRORS as error:
        raise _error(url, _reason(error)) from error


def _follow(url: str, max_bytes: int, deadline: float, max_redirects: int, private: Private) -> tuple[bytes, str]:
    with open_url(url, deadline, max_redirects, private=private) as response, network_errors(url):
        return _body(response, url, max_bytes, deadline), response.headers.get("Content-Type", "")


def _request(url: str, headers: Mapping[str, str]) -> _Request:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise _error(url, "only http and https URLs are read; download it and give its path")
    safe = "%/:=&?~#+!$,;'@()*[]"
    parts = parts._replace(path=quote(parts.path, safe), query=quote(parts.query, safe), fragment="")
    return _Request(urlunsplit(parts), headers={"User-Agent": _user_agent(), **headers})


def _body(response: http.client.HTTPResponse, url: str, max_bytes: int, deadline: float) -> bytes:
    announced = response.length  # None when the server does not say
    body = bytearray()
    chunk = b"" if announced is not None and announced > max_bytes else response.read1(_CHUNK)
    while chunk and len(body) <= max_bytes:
        body += chunk
        _left(deadline)
        chunk = response.read1(_CHUNK)
    if max(len(body), announced or 0) > max_bytes:
        raise _error(url, f"it is larger than {_size(max_bytes)}, the limit; download it and make it smaller")
    if announced is not None and len(body) < announced:
        raise _error(url, f"the connection ended after {len(body)} of {announced} bytes; try again")
    return bytes(body)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"the server answered {error.code} {one_line(str(error.reason))}; check the URL"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if isinstance(error, ssl.SSLCertVerificationError):  # a ValueError too
        return f"its https certificate is not trusted ({error.verify_message}); check the URL and the clock"
    if isinstance(error, TimeoutError):
        return "the server was too slow; try again, or download it first"
    if isinstance(error, (http.client.InvalidURL, ValueError)):
        return "the URL is not valid; check its spelling"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection ended too early; try again"
    if isinstance(error, http.client.HTTPException):
        return f"the server does not answer in http ({type(error).__name__}); check the URL"
    detail = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the server cannot be reached ({one_line(detail)}); check the URL"


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count} bytes"


def _user_agent() -> str:
    try:
        return f"lime-mlx/{importlib.metadata.version('lime-mlx')}"
    except importlib.metadata.PackageNotFoundError:
        return "lime-mlx/0"
