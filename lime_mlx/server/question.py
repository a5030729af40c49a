"""From a request to what a model is asked: texts, opened pictures and sounds, and options, all checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from lime_mlx.errors import LimeError
from lime_mlx.media.audio import Sound
from lime_mlx.prompt import Turn
from lime_mlx.server import media
from lime_mlx.server.errors import ApiError, as_api_error
from lime_mlx.server.schema import (
    AudioPart,
    ChatRequest,
    FlatImagePart,
    ImagePart,
    Lime,
    Message,
    Request,
    ResponsesRequest,
    TextPart,
)
from lime_mlx.server.settings import Settings

MAX_STOPS = 16


@dataclass
class Block:
    """The texts of messages in a row that have one role, and the kinds of their pictures and sounds in order."""

    role: str
    texts: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n\n".join(self.texts)


@dataclass
class Question:
    """What a model is asked. lime: None where the request does not ask for more than the API of others has.

    top_logprobs: None without log-probabilities. The others are as for `stream_generate`.
    """

    text: str
    system: str | None
    history: Sequence[Turn]
    images: Sequence[Image.Image]
    sounds: Sequence[Sound]
    method: str
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: Sequence[str] = ()
    top_logprobs: int | None = None
    lime: Lime | None = None


def chat_question(request: ChatRequest, settings: Settings) -> Question:
    """The question of /v1/chat/completions. Opens its pictures and sounds, and so takes a while. Raises `ApiError`."""
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    if len(stops) > MAX_STOPS:
        raise ApiError(400, f"There are {len(stops)} stop texts; at most {MAX_STOPS} are taken.", "stop")
    if request.top_logprobs is not None and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs to be true.", "top_logprobs")
    question = _question(request, request.messages, "messages", settings)
    question.stop = stops
    question.max_tokens = request.max_completion_tokens or request.max_tokens or settings.tokens
    question.top_logprobs = request.top_logprobs or 0 if request.logprobs else None
    return question


def responses_question(request: ResponsesRequest, settings: Settings) -> Question:
    """The question of /v1/responses. Raises `ApiError`."""
    given = request.input
    messages = [Message.model_validate({"role": "user", "content": given})] if isinstance(given, str) else given
    question = _question(request, messages, "input", settings)
    instructions = _text(request.instructions or "", "instructions")
    question.system = "\n\n".join(filter(None, [instructions, question.system])) or None
    question.max_tokens = request.max_output_tokens or settings.tokens
    if request.include or request.top_logprobs is not None:
        question.top_logprobs = request.top_logprobs or 0
    return question


def _question(request: Request, messages: Sequence[Message], param: str, settings: Settings) -> Question:
    if len(messages) > settings.messages:
        raise ApiError(400, f"There are {len(messages):,} messages; at most {settings.messages:,} are taken.", param)
    images: list[Image.Image] = []
    sounds: list[Sound] = []
    blocks = _blocks(messages, param, images, sounds, settings)
    system = blocks.pop(0).text if blocks and blocks[0].role == "system" else None
    if not blocks:
        raise ApiError(400, "There is no message of the user.", param)
    history = _history(blocks, param)
    last = blocks[-1]
    if not last.text.strip():
        raise ApiError(400, "The last message has no text: say what the model should do.", param)
    check_risk(request)
    return Question(
        text=last.text,
        system=system,
        history=history,
        images=images,
        sounds=sounds,
        method=(request.lime and request.lime.method) or settings.method,
        max_tokens=settings.tokens,
        temperature=request.temperature or 0.0,
        top_p=1.0 if request.top_p is None else request.top_p,
        top_k=request.top_k or 0,
        min_p=request.min_p or 0.0,
        repetition_penalty=request.repetition_penalty,
        seed=None if request.seed is None else request.seed % 2**64,
        lime=request.lime,
    )


# What would make an answer unlike those of the calibration.
FIXED = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop"),
    *("max_tokens", "max_completion_tokens", "max_output_tokens"),
)


def check_risk(request: Request) -> None:
    """Refuse options that do not go with a promise."""
    if request.lime is None or request.lime.risk is None:
        return
    for name in FIXED:
        if getattr(request, name, None) is not None:
            raise ApiError(400, f"lime.risk is about answers as they were calibrated: leave {name} out.", name)
    if request.lime.method is not None:
        raise ApiError(400, "lime.risk chooses the method: leave lime.method out.", "lime.method")


def _history(blocks: Sequence[Block], param: str) -> list[Turn]:
    """The earlier turns. Raises `ApiError` where user and assistant do not alternate."""
    for number, each in enumerate(blocks):
        if each.role != ("assistant" if number % 2 else "user"):
            problem = "The system text stands at the beginning." if each.role == "system" else "The user begins."
            raise ApiError(400, f"The order of the messages cannot be used. {problem}", param)
    if len(blocks) % 2 == 0:
        raise ApiError(400, "The last message must be of the user: an answer is not continued.", param)
    return [
        Turn(question.text, answer.text, tuple(question.kinds))
        for question, answer in zip(blocks[:-1:2], blocks[1:-1:2], strict=True)
    ]


def _blocks(
    messages: Sequence[Message], param: str, images: list[Image.Image], sounds: list[Sound], settings: Settings
) -> list[Block]:
    """Messages, those in a row with one role together; pictures and sounds are opened and appended to the lists."""
    blocks: list[Block] = []
    for number, message in enumerate(messages):
        role = "system" if message.role == "developer" else message.role
        if not blocks or blocks[-1].role != role:
            blocks.append(Block(role))
        if isinstance(message.content, str):
            blocks[-1].texts.append(_text(message.content, f"{param}[{number}].content"))
            continue
        if message.content is None:
            raise ApiError(400, "The message has no content.", f"{param}[{number}].content")
        texts = []
        for place, part in enumerate(message.content):
            where = f"{param}[{number}].content[{place}]"
            if isinstance(part, TextPart):
                texts.append(_text(part.text, f"{where}.text"))
            elif role != "user":
                raise ApiError(400, "Only messages of the user have pictures and sounds.", where)
            else:
                blocks[-1].kinds.append(_open(part, where, images, sounds, settings))
        blocks[-1].texts.append("\n".join(texts))
    return blocks


def _open(
    part: ImagePart | FlatImagePart | AudioPart,
    where: str,
    images: list[Image.Image],
    sounds: list[Sound],
    settings: Settings,
) -> str:
    """Open a picture or a sound; returns its kind."""
    try:
        if isinstance(part, AudioPart):
            where += ".input_audio.data"
            sounds.append(media.sound(part.input_audio.data, settings))
            return "audio"
        where += ".image_url"
        if isinstance(part, ImagePart):
            images.append(media.picture(part.image_url.url, part.image_url.detail, settings))
        else:
            images.append(media.picture(part.image_url, part.detail, settings))
        return "image"
    except LimeError as error:
        raise as_api_error(error, where) from error


def _text(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ApiError(400, "The text holds half of a surrogate pair.", where) from None
    return text
