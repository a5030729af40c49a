"""Answers of /v1/chat/completions, whole or streamed, as clients of OpenAI's API expect them."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from lime_mlx.server.answering import End, Json, Piece, Words
from lime_mlx.server.errors import ApiError

DONE = b"data: [DONE]\n\n"


def new_id(prefix: str) -> str:
    return f"{prefix}{secrets.token_hex(12)}"


def event(value: object, name: str | None = None) -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


def usage(end: End) -> Json:
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.completion_tokens,
        "total_tokens": end.prompt_tokens + end.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": end.cached_tokens},
    }


async def gathered(events: AsyncIterator[object]) -> tuple[str, list[Json], End]:
    """The text of a whole answer, the entries of its tokens, and how it ended. Raises `ApiError`."""
    text, entries, end = "", list[Json](), End("stop", 0, 0, 0, None)
    async for each in events:
        if isinstance(each, Piece):
            text += each.text
            entries += each.entries
        elif isinstance(each, End):
            end = each
    return text, entries, end


@dataclass
class ChatShape:
    """The form of one answer. logprobs: whether they are wanted; include_usage: whether the stream ends with usage."""

    model: str
    logprobs: bool = False
    include_usage: bool = False
    id: str = field(default_factory=lambda: new_id("chatcmpl-"))
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self, events: AsyncIterator[object]) -> Json:
        """The answer at once. Raises `ApiError`."""
        text, entries, end = await gathered(events)
        choice: Json = {
            "index": 0,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": {"content": entries, "refusal": None} if self.logprobs else None,
            "finish_reason": end.finish_reason,
        }
        if end.lime is not None:
            choice["lime"] = end.lime
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(end)}

    async def stream(self, events: AsyncIterator[object]) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events; an error after the first one is the last of them."""
        yield self._chunk({"role": "assistant", "content": "", "refusal": None})
        try:
            async for each in events:
                if isinstance(each, Piece):
                    yield self._chunk({"content": each.text}, entries=each.entries)
                elif isinstance(each, Words):
                    yield self._chunk({}, lime={"words": each.words, "tokens": each.tokens})
                elif isinstance(each, End):
                    yield self._chunk({}, reason=each.finish_reason, lime=each.lime)
                    if self.include_usage:
                        yield event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(each)})
        except ApiError as error:
            yield event(error.body)
        yield DONE

    def _head(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": None,
        }

    def _chunk(
        self, delta: Json, reason: str | None = None, entries: list[Json] | None = None, lime: Json | None = None
    ) -> bytes:
        logprobs = {"content": entries, "refusal": None} if self.logprobs and entries else None
        choice: Json = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        if lime is not None:
            choice["lime"] = lime
        chunk = {**self._head("chat.completion.chunk"), "choices": [choice]}
        return event(chunk | {"usage": None} if self.include_usage else chunk)
