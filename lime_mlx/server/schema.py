"""Requests: their fields, checked strictly, and what was wrong with one in words."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lime_mlx.errors import short
from lime_mlx.server.errors import ApiError
from lime_mlx.server.fields import BESIDE_MESSAGES, CHAT, RESPONSES, Fields

NAME = 200
MANY = 10**9
Body = TypeVar("Body", bound="Request")


class Strict(BaseModel):
    """Unknown fields and other types are errors; a number is not a text."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Noted(Strict):
    """A message or a part of one: what an app notes beside it is ignored, and so is an unknown field that is null."""

    @model_validator(mode="before")
    @classmethod
    def without_notes(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        known = cls.model_fields
        return {k: v for k, v in value.items() if k in known or not (k in BESIDE_MESSAGES or v is None)}


class ImageUrl(Strict):
    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class Audio(Strict):
    data: str
    format: Literal["wav", "mp3", "flac"] | None = None


class TextPart(Noted):
    type: Literal["text", "input_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class ImagePart(Noted):
    type: Literal["image_url"]
    image_url: ImageUrl


class FlatImagePart(Noted):
    """As /v1/responses has it."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class AudioPart(Noted):
    type: Literal["input_audio"]
    input_audio: Audio


Part = Annotated[TextPart | ImagePart | FlatImagePart | AudioPart, Field(discriminator="type")]


class Message(Noted):
    """One message; the fields below `content` come back from clients that send our answers again."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None
    name: str | None = Field(None, max_length=NAME)
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: list[Any] | None = Field(None, max_length=0)
    annotations: list[Any] | None = Field(None, max_length=0)
    reasoning_content: str | None = None
    type: Literal["message"] | None = None
    id: str | None = None
    status: str | None = None
    lime: dict[str, Any] | None = None


class Lime(Strict):
    """What a request asks of this server beyond the API of others.

    method: a spec. risk: the answer is made as the promise of the model says. words: the words with shares and
    verdicts; maps: with their maps, as arrays or as PNG.
    """

    method: str | None = Field(None, max_length=1000)
    risk: float | None = Field(None, gt=0, lt=1)
    words: bool = True
    maps: bool | Literal["arrays", "png"] = False


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Request(Strict):
    """What both routes have in common."""

    model: str | None = Field(None, max_length=1000)
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    seed: int | None = Field(None, ge=-(2**63), lt=2**64)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    stream_options: StreamOptions | None = None
    lime: Lime | None = None


class ChatRequest(Request):
    messages: list[Message] = Field(min_length=1)
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(None, ge=1, le=MANY)
    max_completion_tokens: int | None = Field(None, ge=1, le=MANY)
    logprobs: bool | None = None


class ResponsesRequest(Request):
    input: str | list[Message] = Field(min_length=1)
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1, le=MANY)
    include: list[Literal["message.output_text.logprobs"]] | None = None


def chat_request(data: bytes) -> ChatRequest:
    """The body of /v1/chat/completions. Raises `ApiError`."""
    return _read(data, ChatRequest, CHAT)


def responses_request(data: bytes) -> ResponsesRequest:
    """The body of /v1/responses. Raises `ApiError`."""
    return _read(data, ResponsesRequest, RESPONSES)


def _read(data: bytes, kind: type[Body], fields: Fields) -> Body:
    try:
        body = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ApiError(400, "The body is not valid JSON.", None, "invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object.", None, "invalid_json")
    try:
        return kind.model_validate(fields.without_extras(body))
    except ValidationError as error:
        raise described(error, body) from None
    except RecursionError:
        raise ApiError(400, "The body is nested too deeply.", None, "invalid_json") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def described(error: ValidationError, body: object) -> ApiError:
    """The most telling of the problems, short and without control characters."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    problem = max(problems, key=lambda each: len(_path(each["loc"], body)))
    path = _path(problem["loc"], body)
    param = short("".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix("."))
    if problem["type"] == "extra_forbidden":
        return ApiError(400, f"Unknown field: {param}.", param, "unknown_parameter")
    if problem["type"] == "missing":
        return ApiError(400, f"The field {param} is missing.", param, "missing_required_parameter")
    return ApiError(400, f"{param}: {short(problem['msg'], 300)}.", param, "invalid_value")


def _path(location: tuple[int | str, ...], body: object) -> list[int | str]:
    """The steps of a location that are in the body; pydantic names the branches of its unions among them."""
    path: list[int | str] = []
    place = body
    for number, step in enumerate(location, start=1):
        if isinstance(place, dict) and step in place or isinstance(place, list) and isinstance(step, int):
            path.append(step)
            place = place[step]  # type: ignore[index]  # a list has a number here, as was checked
        elif isinstance(place, dict) and number == len(location) and str(step).isidentifier():
            path.append(step)
    return path
