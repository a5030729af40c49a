"""Downloads files: with a limit on requests, resumed where they stopped, and in place only once they are whole."""

import http.client
import os
import ssl
import threading
import time
import urllib.error
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from email.message import Message
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from lime_mlx.errors import DataError, LimeError, MediaError
from lime_mlx.media.fetch import MAX_DOWNLOAD_BYTES, network_errors, open_url

CHUNK = 1 << 16
LONGEST_PAUSE = 60.0

T = TypeVar("T")


class Downloader:
    """Downloads files; several threads share one.

    timeout: seconds that a server may be silent. slowest: bytes a second that it must send on average. attempts: for
    one file; the second one comes after `pause` seconds, and the pause doubles each time. rate: requests a second over
    all threads. connections: open at once.
    """

    def __init__(
        self,
        timeout: float = 30.0,
        slowest: float = 1000.0,
        attempts: int = 5,
        pause: float = 1.0,
        rate: float = 20.0,
        connections: int = 8,
    ):
        self.timeout, self.slowest = timeout, slowest
        self.attempts, self.pause = attempts, pause
        self.rate, self.connections = rate, connections
        self._turn, self._lock = 0.0, threading.Lock()

    def fetch(
        self,
        url: str,
        path: Path,
        check: Callable[[Path], None],
        size: int | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Download `url` to `path`. The file appears there after `check` has accepted it.

        Until then the bytes are in `path`.part. The next call continues there, if the server's ETag says that the file
        is the same. size: in bytes, where it is known. progress: called with the bytes so far.

        Raises:
            DataError: the server cannot be reached or answers wrongly in all `attempts`, or it sends more than `size`
                bytes. Errors of `check` pass through; nothing is kept then.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part")
        for attempt in range(1, self.attempts + 1):
            self._wait()
            try:
                self._receive(url, part, size, progress)
                break
            except MediaError as error:
                if attempt == self.attempts or not _may_pass(error):
                    raise DataError(str(error)) from error
                time.sleep(_server_pause(error) or self.pause * 2 ** (attempt - 1))
        try:
            check(part)
        except LimeError:
            _drop(part)
            raise
        os.replace(part, path)
        _tag(part).unlink(missing_ok=True)

    def each(self, work: Callable[[T], None], jobs: Iterable[T]) -> Generator[tuple[T, Exception | None], None, None]:
        """Do `work` on the jobs, several at once. Yields each job at its end, with the error that it raised or None."""
        waiting = deque(jobs)
        ended: SimpleQueue[tuple[T, Exception | None]] = SimpleQueue()

        def run() -> None:
            while True:
                try:
                    job = waiting.popleft()
                except IndexError:
                    return
                try:
                    work(job)
                    ended.put((job, None))
                except Exception as error:
                    ended.put((job, error))

        count = len(waiting)
        for _ in range(min(self.connections, count)):
            threading.Thread(
                target=run, daemon=True
            ).start()  # daemons, so that an interrupt does not wait for a server
        try:
            for _ in range(count):
                yield ended.get()
        finally:
            waiting.clear()

    def _wait(self) -> None:
        """Sleep until the next request may be sent."""
        with self._lock:
            now = time.monotonic()
            self._turn = max(self._turn + 1 / self.rate, now)
            left = self._turn - now
        time.sleep(left)

    def _receive(self, url: str, part: Path, size: int | None, progress: Callable[[int], None]) -> None:
        done, headers = _resumed(part)
        if size is not None and done == size:
            return
        limit = MAX_DOWNLOAD_BYTES if size is None else size
        try:
            response = open_url(url, time.monotonic() + self.timeout, headers=headers)
        except MediaError as error:
            if _status(error) == 416:  # the file has no bytes from here on: it is another file
                _drop(part)
            raise
        with response:
            if done and not _continues(response, done):
                done = 0
            announced = response.length  # None where the server does not say
            expected = size if size is not None or announced is None else done + announced
            with part.open("r+b" if done else "wb") as file:
                if not done:
                    _remember(part, response)
                file.seek(done)
                for chunk in self._chunks(response, url):
                    file.write(chunk)
                    done += len(chunk)
                    progress(done)
                    if done > limit:
                        break
                file.flush()
                os.fsync(file.fileno())
        if done > limit:
            _drop(part)
            raise DataError(f"{url} sends more than the {limit} bytes that it should have; try again later.")
        if expected is not None and done < expected:
            with network_errors(url):
                raise http.client.IncompleteRead(b"", expected - done)

    def _chunks(self, response: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
        """The bytes as they arrive. Raises TimeoutError for a server that is slower than `slowest`."""
        began, count = time.monotonic(), 0
        while True:
            with network_errors(url):
                chunk = response.read1(CHUNK)
                if time.monotonic() > began + self.timeout + count / self.slowest:
                    raise TimeoutError
            if not chunk:
                return
            count += len(chunk)
            yield chunk


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag(part).unlink(missing_ok=True)


def _resumed(part: Path) -> tuple[int, dict[str, str]]:
    """The number of bytes that are on the disk, and the headers that ask for the others."""
    try:
        done, tag = part.stat().st_size, _tag(part).read_text()
    except FileNotFoundError:
        return 0, {}
    return (done, {"Range": f"bytes={done}-", "If-Range": tag}) if done else (0, {})


def _remember(part: Path, response: http.client.HTTPResponse) -> None:
    """Keep the ETag. Without a strong one, nothing is resumed."""
    tag = response.headers.get("ETag", "")
    if tag.startswith('"'):
        _tag(part).write_text(tag)
    else:
        _tag(part).unlink(missing_ok=True)


def _continues(response: http.client.HTTPResponse, done: int) -> bool:
    return response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")


def _status(error: MediaError) -> int | None:
    return getattr(error.__cause__, "code", None)


def _may_pass(error: MediaError) -> bool:
    """Whether another attempt may succeed."""
    if (status := _status(error)) is not None:
        return status in (408, 416, 429) or status >= 500
    cause: object = error.__cause__
    cause = cause.reason if isinstance(cause, urllib.error.URLError) else cause
    wrong = (ssl.SSLCertVerificationError, http.client.InvalidURL)
    return isinstance(cause, (OSError, http.client.HTTPException)) and not isinstance(cause, wrong)


def _server_pause(error: MediaError) -> float | None:
    """The seconds that a busy server asks for."""
    headers = getattr(error.__cause__, "headers", None)
    pause = headers.get("Retry-After") if isinstance(headers, Message) else None
    return min(float(pause), LONGEST_PAUSE) if pause and pause.isdecimal() else None
