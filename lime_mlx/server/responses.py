"""Answers of /v1/responses, whole or streamed, as clients of OpenAI's API expect them."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from itertools import count

from lime_mlx.server.answering import End, Json, Piece, Words
from lime_mlx.server.chat import event, gathered, new_id
from lime_mlx.server.errors import ApiError
from lime_mlx.server.question import Question


@dataclass
class ResponsesShape:
    """The form of one answer to a question."""

    model: str
    question: Question
    instructions: str | None = None
    id: str = field(default_factory=lambda: new_id("resp_"))
    item: str = field(default_factory=lambda: new_id("msg_"))
    created: int = field(default_factory=lambda: int(time.time()))

    async def whole(self, events: AsyncIterator[object]) -> Json:
        """The answer at once. Raises `ApiError`."""
        text, entries, end = await gathered(events)
        return self._response(end, [self._message(text, entries, "completed")])

    async def stream(self, events: AsyncIterator[object]) -> AsyncGenerator[bytes, None]:
        """The answer as server-sent events; an error after the first one is the last of them."""
        numbers = count()

        def sent(kind: str, **values: object) -> bytes:
            return event({"type": kind, "sequence_number": next(numbers), **values}, kind)

        where: Json = {"item_id": self.item, "output_index": 0, "content_index": 0}
        for kind in ("response.created", "response.in_progress"):
            yield sent(kind, response=self._response(None, []))
        opened = {**self._message("", [], "in_progress"), "content": []}
        yield sent("response.output_item.added", output_index=0, item=opened)
        yield sent("response.content_part.added", **where, part=self._part("", []))
        text, entries, end = "", list[Json](), End("stop", 0, 0, 0, None)
        try:
            async for each in events:
                if isinstance(each, Piece):
                    text += each.text
                    entries += each.entries
                    yield sent("response.output_text.delta", **where, delta=each.text, logprobs=each.entries)
                elif isinstance(each, Words):
                    yield sent("response.lime.words", **where, words=each.words, tokens=each.tokens)
                elif isinstance(each, End):
                    end = each
        except ApiError as error:
            problem: Json = {"code": error.code or "server_error", "message": error.message}
            yield sent("response.failed", response={**self._response(None, []), "status": "failed", "error": problem})
            return
        yield sent("response.output_text.done", **where, text=text, logprobs=entries)
        yield sent("response.content_part.done", **where, part=self._part(text, entries))
        message = self._message(text, entries, "completed")
        yield sent("response.output_item.done", output_index=0, item=message)
        whole = self._response(end, [message])
        yield sent(f"response.{whole['status']}", response=whole)

    def _part(self, text: str, entries: list[Json]) -> Json:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": entries}

    def _message(self, text: str, entries: list[Json], status: str) -> Json:
        part = self._part(text, entries)
        return {"id": self.item, "type": "message", "role": "assistant", "status": status, "content": [part]}

    def _response(self, end: End | None, output: list[Json]) -> Json:
        """The response so far; end: how it ended, None while it goes on."""
        cut = end is not None and end.finish_reason == "length"
        response: Json = {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": "in_progress" if end is None else "incomplete" if cut else "completed",
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": self.instructions,
            "max_output_tokens": self.question.max_tokens,
            "model": self.model,
            "output": output,
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": self.question.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": self.question.top_p,
            "truncation": "disabled",
            "usage": None,
            "metadata": {},
        }
        if end is not None:
            response["usage"] = {
                "input_tokens": end.prompt_tokens,
                "input_tokens_details": {"cached_tokens": end.cached_tokens},
                "output_tokens": end.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": end.prompt_tokens + end.completion_tokens,
            }
            if end.lime is not None:
                response["lime"] = end.lime
        return response
