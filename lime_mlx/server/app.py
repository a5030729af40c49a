"""The application: its routes, and its errors in one shape."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from lime_mlx.methods import METHODS, parse_method
from lime_mlx.server.access import Access
from lime_mlx.server.answering import Json
from lime_mlx.server.delivery import Answer, error_response
from lime_mlx.server.errors import ApiError, as_api_error
from lime_mlx.server.guard import Guard
from lime_mlx.server.metrics import CONTENT_TYPE
from lime_mlx.server.models import Listed
from lime_mlx.server.page import page, page_headers
from lime_mlx.server.service import Service
from lime_mlx.server.settings import Settings

log = logging.getLogger("lime_mlx.server")


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
        return Answer(service, *await service.job(lambda: service.chat(data)))

    @app.post("/v1/responses")
    async def responses(request: Request) -> Response:
        data = await request.body()
        return Answer(service, *await service.job(lambda: service.responses(data)))


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
