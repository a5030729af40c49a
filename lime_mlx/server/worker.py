"""One thread computes, for one request after the other; what it makes goes back to the requests as it comes."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable

import mlx.core as mx

from lime_mlx.server.errors import ApiError, as_api_error


class GoneAway(Exception):
    """The client no longer waits for its answer."""


class Job:
    """A request that waits or computes. `compute` runs in the worker's thread and calls `send`; `events` reads that."""

    def __init__(self, compute: Callable[[Job], None], seconds: float) -> None:
        self.compute = compute
        self.deadline = time.monotonic() + seconds
        self.done = False
        self._gone = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[object] = asyncio.Queue()

    def cancel(self) -> None:
        """Stop: the client went away."""
        self._gone.set()

    @property
    def gone(self) -> bool:
        return self._gone.is_set()

    def check(self) -> None:
        """Raise `GoneAway` where nobody waits any more, `ApiError` where it took too long."""
        if self.gone:
            raise GoneAway
        if time.monotonic() > self.deadline:
            raise ApiError(504, "The answer took longer than this server allows.", None, "timeout")

    def send(self, event: object) -> None:
        """Hand an event to the request. Raises as `check`."""
        self.check()
        self._put(event)

    def finish(self, error: ApiError | None) -> None:
        """No event follows; `error` is raised where the events are read."""
        self._put(error or _END)

    def _put(self, event: object) -> None:
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the server is going down, and its loop is closed
            self._gone.set()

    async def events(self) -> AsyncIterator[object]:
        """The events as they come. Raises the `ApiError` of the computation."""
        while (event := await self._events.get()) is not _END:
            if isinstance(event, ApiError):
                raise event
            yield event


_END = object()


class Worker:
    """The thread that computes, and the requests that wait for it: at most `waiting` beside the one that computes."""

    def __init__(self, waiting: int, report: Callable[[Exception], None]) -> None:
        self._report = report
        self._limit, self._admitted = waiting + 1, 0
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._current: Job | None = None
        self._thread = threading.Thread(target=self._work, name="lime-mlx worker", daemon=True)

    @property
    def admitted(self) -> int:
        """How many requests wait or compute."""
        return self._admitted

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Give up what is computed, and end the thread."""
        self._jobs.put(None)
        if self._current is not None:
            self._current.cancel()
        self._thread.join(10)

    def admit(self) -> None:
        """Take a place in the queue, which `release` or the end of a job gives back. Raises `ApiError`, 429."""
        with self._lock:
            if self._admitted >= self._limit:
                raise ApiError(429, "The queue of this server is full; try again soon.", None, "queue_full")
            self._admitted += 1

    def release(self) -> None:
        with self._lock:
            self._admitted -= 1

    def submit(self, job: Job) -> None:
        """Compute a job whose place in the queue is taken."""
        self._jobs.put(job)

    def _work(self) -> None:
        self._compute_all()
        mx.clear_streams()  # where a thread ends and leaves streams behind, MLX aborts the process at its end

    def _compute_all(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._current = job
            error: ApiError | None = None
            try:
                job.check()
                job.compute(job)
            except GoneAway:
                pass
            except Exception as problem:  # one request's failure must not end the thread for the others
                error = as_api_error(problem)
                self._report(problem)
            finally:
                self._current, job.done = None, True
                self.release()
                job.finish(error)
            del job
