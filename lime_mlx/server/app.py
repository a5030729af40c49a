"""The application: routes, and how a request becomes an answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from lime_mlx.errors import LimeError
from lime_mlx.media.fetch import one_line
from lime_mlx.methods import METHODS, parse_method
from lime_mlx.server.access import Access
from lime_mlx.server.answering import End, Json, Piece, answer
from lime_mlx.server.chat import ChatShape
from lime_mlx.server.errors import ApiError, as_api_error
from lime_mlx.server.guard import Guard
from lime_mlx.server.metrics import CONTENT_TYPE, Metrics
from lime_mlx.server.models import Listed, Models
from lime_mlx.server.page import page, page_headers
from lime_mlx.server.question import Question, chat_question, responses_question
from lime_mlx.server.responses import ResponsesShape
from lime_mlx.server.schema import chat_request, responses_request
from lime_mlx.server.settings import Settings
from lime_mlx.server.worker import Job, Worker

# Pictures of so many requests are decoded at the same time.
OPENERS = 2
T = TypeVar("T")
Shape = ChatShape | ResponsesShape

log = logging.getLogger("lime_mlx.server")


class Service:
    """What the routes share: the models, the thread that computes, and the counts."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.models = Models(settings, log.info)
        self.worker = Worker(settings.queue, self.report)
        self.metrics = Metrics(lambda: self.worker.admitted, lambda: len(self.models.in_memory))
        self._openers = asyncio.Semaphore(OPENERS)

    def report(self, error: Exception) -> None:
        """One line in the log about an answer that failed; requests that are wrong themselves are the client's."""
        if as_api_error(error).status >= 500:
            text = one_line(str(error)) if self.settings.log_text or isinstance(error, LimeError) else ""
            log.error("an answer failed: %s %s", type(error).__name__, text)

    async def opened(self, read: Callable[[], T]) -> T:
        """What reading a request gives, in a thread beside the loop. Raises `ApiError`."""
        async with self._openers:
            try:
                return await run_in_threadpool(read)
            except LimeError as error:
                raise as_api_error(error) from error

    def job(self, model: Listed, question: Question) -> Job:
        """Compute a question whose place in the queue is taken."""
        job = Job(lambda job: answer(self.models.get(model.name), question, job), self.settings.seconds)
        self.worker.submit(job)
        return job

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


class Answer(Response):
    """An answer that is made while the client waits; when the client goes away, the computing stops."""

    def __init__(self, service: Service, job: Job, shape: Shape, stream: bool) -> None:
        super().__init__()
        self.service, self.job, self.shape, self.is_stream = service, job, shape, stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        send_answer = self._streamed if self.is_stream else self._whole
        sending = asyncio.ensure_future(send_answer(scope, receive, send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not sending.done():
                self.job.cancel()
            for task in (sending, leaving):
                task.cancel()
            sent, _ = await asyncio.gather(sending, leaving, return_exceptions=True)
        if isinstance(sent, Exception) and not isinstance(sent, OSError):  # an OSError says that the client left
            raise sent

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.service.counted(self.job)) as events:
            try:
                response = JSONResponse(await self.shape.whole(events))
            except ApiError as error:
                response = error_response(error)
        await response(scope, receive, send)

    async def _streamed(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing is sent before the first event, so that a question that cannot be answered has its own status."""
        async with aclosing(self.service.counted(self.job)) as events:
            try:
                first = await anext(events)
            except ApiError as error:
                return await error_response(error)(scope, receive, send)
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with aclosing(self.shape.stream(_with_first(first, events))) as chunks:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def _with_first(first: object, events: AsyncIterator[object]) -> AsyncGenerator[object, None]:
    yield first
    async for event in events:
        yield event


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def error_response(error: ApiError) -> JSONResponse:
    headers = {"Retry-After": "1"} if error.status == 429 else {}
    return JSONResponse(error.body, error.status, headers)


def create_app(settings: Settings) -> FastAPI:
    """The application. Raises `LimeError` where the model or the method that it is to have do not exist."""
    service = Service(settings)
    if settings.method != "default":
        parse_method(settings.method)
    service.models.default  # noqa: B018  # a model that is missing is an error now, not at the first request

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        await run_in_threadpool(service.worker.stop)

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.service = service
    _add_routes(app, service)
    _add_errors(app)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Access, metrics=service.metrics)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.get("/health")
    async def health() -> Json:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/")
    async def shell() -> Response:
        return Response(page(), media_type="text/html", headers=page_headers())

    @app.get("/v1/models")
    async def models() -> Json:
        listed = await run_in_threadpool(service.models.listed)
        default = service.models.default.name
        about = {"method": settings.method, "methods": list(METHODS), "model": default, "tokens": settings.tokens}
        return {"object": "list", "data": [described(service, each) for each in listed.values()], "lime": about}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Json:
        return described(service, await run_in_threadpool(service.models.named, name))

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        data = await request.body()
        parsed = await service.opened(lambda: chat_request(data))
        listed = await run_in_threadpool(service.models.named, parsed.model)
        service.worker.admit()
        job = await _admitted(service, listed, lambda: chat_question(parsed, settings))
        usage = bool(parsed.stream_options and parsed.stream_options.include_usage)
        return Answer(service, job, ChatShape(listed.name, bool(parsed.logprobs), usage), bool(parsed.stream))

    @app.post("/v1/responses")
    async def responses(request: Request) -> Response:
        data = await request.body()
        parsed = await service.opened(lambda: responses_request(data))
        listed = await run_in_threadpool(service.models.named, parsed.model)
        service.worker.admit()
        questions: list[Question] = []

        def question() -> Question:
            questions.append(responses_question(parsed, settings))
            return questions[0]

        job = await _admitted(service, listed, question)
        shape = ResponsesShape(listed.name, questions[0], parsed.instructions)
        return Answer(service, job, shape, bool(parsed.stream))


async def _admitted(service: Service, model: Listed, read: Callable[[], Question]) -> Job:
    """The job of a question whose place is taken; the place is given back where the question cannot be read."""
    try:
        question = await service.opened(read)
        if question.method != "default":
            as_checked(lambda: parse_method(question.method), "lime.method")
    except BaseException:
        service.worker.release()
        raise
    if service.settings.log_text:
        log.info("asked: %s", one_line(question.text))
    return service.job(model, question)


def as_checked(check: Callable[[], object], param: str) -> None:
    """Raise `ApiError` with the field for what a check finds wrong."""
    try:
        check()
    except LimeError as error:
        raise ApiError(400, str(error), param, "invalid_value") from error


def described(service: Service, model: Listed) -> Json:
    """A model as /v1/models has it."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "lime-mlx",
        "lime": {
            "takes": list(model.takes),
            "method": service.settings.method,
            "in_memory": model.name in service.models.in_memory,
        },
    }


def _add_errors(app: FastAPI) -> None:
    """Every error has the shape that clients know."""

    @app.exception_handler(ApiError)
    async def of_api(request: Request, error: ApiError) -> Response:
        return error_response(error)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        messages = {404: "There is no such address here.", 405: "This address does not take this method."}
        return error_response(ApiError(error.status_code, messages.get(error.status_code, str(error.detail))))

    @app.exception_handler(Exception)
    async def of_others(request: Request, error: Exception) -> Response:
        log.error("a request failed: %s", type(error).__name__)
        return error_response(as_api_error(error))
