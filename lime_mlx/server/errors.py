"""Errors as clients of OpenAI's API know them."""

from __future__ import annotations

from lime_mlx.errors import (
    BackendError,
    CheckpointError,
    LimeError,
    MediaError,
    MethodError,
    NumericalError,
    PromptError,
)

# The status of an error of the package, where it is not the request's fault.
STATUSES: dict[type[LimeError], int] = {BackendError: 503, CheckpointError: 500, NumericalError: 500}
TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer that is an error: a status of HTTP, a sentence, the field that caused it, and a code."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, object]:
        """{"error": {"message", "type", "param", "code"}}."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def as_api_error(error: Exception, param: str | None = None) -> ApiError:
    """An error of the package as the client sees it; what the client cannot have caused names no file of this machine.

    param: the field of the request that is read; a method is always that of `lime`.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, MediaError | PromptError):
        return ApiError(400, str(error), param or "messages", "invalid_value")
    if isinstance(error, MethodError):
        return ApiError(400, str(error), "lime", "invalid_value")
    if isinstance(error, BackendError):
        return ApiError(503, str(error), param, "not_enough_memory")
    if isinstance(error, MemoryError):
        return ApiError(503, "There is not enough memory: send a smaller picture, or name a smaller model.")
    return ApiError(STATUSES.get(type(error), 500) if isinstance(error, LimeError) else 500, WENT_WRONG)


WENT_WRONG = "The server could not answer: something went wrong that the request did not cause; its log says what."
