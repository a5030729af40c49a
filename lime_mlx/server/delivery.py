"""How an answer goes out: whole or as a stream, until it is done or the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fastapi.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from lime_mlx.server.errors import ApiError
from lime_mlx.server.service import Call, Service
from lime_mlx.server.worker import Job


class Answer(Response):
    """An answer that is made while the client waits; when the client goes away, the computing stops."""

    def __init__(self, service: Service, call: Call, job: Job) -> None:
        super().__init__()
        self.service, self.call, self.job = service, call, job

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        send_answer = self._streamed if self.call.stream else self._whole
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
                response = JSONResponse(await self.call.shape.whole(events))
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
            async with aclosing(self.call.shape.stream(_with_first(first, events))) as chunks:
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
