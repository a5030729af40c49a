"""What all requests share, and how one becomes a question that waits for its answer."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from lime_mlx.errors import LimeError
from lime_mlx.media.fetch import one_line
from lime_mlx.methods import parse_method
from lime_mlx.server.answering import End, Piece, answer
from lime_mlx.server.chat import ChatShape
from lime_mlx.server.errors import ApiError, as_api_error
from lime_mlx.server.metrics import Metrics
from lime_mlx.server.models import Listed, Models
from lime_mlx.server.question import Question, chat_question, responses_question
from lime_mlx.server.responses import ResponsesShape
from lime_mlx.server.schema import chat_request, responses_request
from lime_mlx.server.settings import Settings
from lime_mlx.server.worker import Job, Worker

log = logging.getLogger("lime_mlx.server")


@dataclass
class Call:
    """What a request asks of which model, and the form of its answer."""

    model: Listed
    question: Question
    shape: ChatShape | ResponsesShape
    stream: bool


class Service:
    """What the routes share: the models, the thread that computes, and the counts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = Models(settings, log.info)
        self.worker = Worker(settings.queue, self.report)
        self.metrics = Metrics(lambda: self.worker.admitted, lambda: len(self.models.in_memory))

    def report(self, error: Exception) -> None:
        """One line in the log about an answer that failed; requests that are wrong themselves are the client's."""
        if as_api_error(error).status >= 500:
            text = one_line(str(error)) if self.settings.log_text or isinstance(error, LimeError) else ""
            log.error("an answer failed: %s %s", type(error).__name__, text)

    async def job(self, read: Callable[[], Call]) -> tuple[Call, Job]:
        """Let a request wait for the thread that computes; there is a place in the queue for it before it is read.

        read: gives what is call, and runs beside the loop, as it opens pictures. Raises `ApiError`.
        """
        self.worker.admit()
        try:
            call = await run_in_threadpool(read)
        except BaseException:
            self.worker.release()
            raise
        if self.settings.log_text:
            log.info("question: %s", one_line(call.question.text))
        job = Job(lambda job: answer(self.models.get(call.model.name), call.question, job), self.settings.seconds)
        self.worker.submit(job)
        return call, job

    def chat(self, data: bytes) -> Call:
        """What the body of /v1/chat/completions asks. Raises `ApiError`."""
        request = chat_request(data)
        model = self.models.named(request.model)
        question = chat_question(request, self.settings)
        check_method(question.method)
        usage = bool(request.stream_options and request.stream_options.include_usage)
        return Call(model, question, ChatShape(model.name, bool(request.logprobs), usage), bool(request.stream))

    def responses(self, data: bytes) -> Call:
        """What the body of /v1/responses asks. Raises `ApiError`."""
        request = responses_request(data)
        model = self.models.named(request.model)
        question = responses_question(request, self.settings)
        check_method(question.method)
        return Call(model, question, ResponsesShape(model.name, question, request.instructions), bool(request.stream))

    async def counted(self, job: Job) -> AsyncGenerator[object, None]:
        """The events of a job, counted; the job is given up when nobody reads them any more."""
        began, first = time.perf_counter(), True
        try:
            async for event in job.events():
                if isinstance(event, Piece) and first:
                    self.metrics.first.observe(time.perf_counter() - began)
                    first = False
                if isinstance(event, End):
                    self.metrics.seconds.observe(time.perf_counter() - began)
                    self.metrics.tokens.labels("prompt").inc(event.prompt_tokens)
                    self.metrics.tokens.labels("cached").inc(event.cached_tokens)
                    self.metrics.tokens.labels("completion").inc(event.completion_tokens)
                yield event
        finally:
            if not job.done:
                self.metrics.gone.inc()
            job.cancel()


def check_method(spec: str) -> None:
    """Raise `ApiError` for a spec of no method. "default" is none of them, and right."""
    try:
        if spec != "default":
            parse_method(spec)
    except LimeError as error:
        raise ApiError(400, str(error), "lime.method", "invalid_value") from error
