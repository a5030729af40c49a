"""Every field that clients send: which are honoured, which are ignored, and which are refused.

Nothing that changes the answer is ignored: such a field is refused, unless its value asks for what happens anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lime_mlx.server.errors import ApiError

NOTHING_STORED = "Nothing is stored, whatever it says."
ACCOUNT = "It is about the account and its bookkeeping."
SHARED_BEGINNINGS = "Prompts that begin alike share their beginnings anyway."
NO_TOOLS = "There are no tools."
# What both routes ignore.
IGNORED = {
    "user": ACCOUNT,
    "safety_identifier": ACCOUNT,
    "metadata": ACCOUNT,
    "service_tier": ACCOUNT,
    "store": NOTHING_STORED,
    "prompt_cache_key": SHARED_BEGINNINGS,
    "prompt_cache_retention": SHARED_BEGINNINGS,
    "parallel_tool_calls": NO_TOOLS,
}
# What chat apps keep beside a message or a part of it, and send along.
BESIDE_MESSAGES = {
    "cache_control": SHARED_BEGINNINGS,
    "created": "It says when a message was written.",
    "created_at": "It says when a message was written.",
    "metadata": "It is what an app notes about a message.",
    "options": "It is what an app offered below a message.",
    "timestamp": "It says when a message was written.",
}


@dataclass(frozen=True)
class Fields:
    """Of one route. ignored: fields with the reason. refused: fields with the values that are not refused, and why."""

    ignored: Mapping[str, str]
    refused: Mapping[str, tuple[Sequence[object], str]]

    def without_extras(self, body: Mapping[str, object]) -> dict[str, object]:
        """The other fields. Raises `ApiError` for a field that would change the answer and is not supported."""
        for name, (neutral, reason) in self.refused.items():
            value = body.get(name)
            if value is not None and not any(type(value) is type(same) and value == same for same in neutral):
                raise ApiError(400, f"{name} is not supported with this value. {reason}", name, "unsupported_parameter")
        return {name: value for name, value in body.items() if name not in self.ignored and name not in self.refused}


CHAT = Fields(
    ignored=IGNORED | {"prediction": "It makes an answer faster elsewhere, and does not change it."},
    refused={
        "n": ([1], "One answer is made to a question; ask again for a second one."),
        "tools": ([[]], "The models answer in text and call no tools."),
        "tool_choice": (["none", "auto"], "The models call no tools."),
        "functions": ([[]], "The models call no functions."),
        "function_call": (["none", "auto"], "The models call no functions."),
        "response_format": ([{"type": "text"}], "Answers are free text; no grammar is enforced."),
        "frequency_penalty": ([0, 0.0], "Use repetition_penalty."),
        "presence_penalty": ([0, 0.0], "Use repetition_penalty."),
        "logit_bias": ([{}], "Logits are not changed by hand."),
        "modalities": ([["text"]], "Answers are text."),
        "audio": ([], "Answers are text."),
        "reasoning_effort": (["none"], "There is no such switch."),
        "verbosity": (["medium"], "There is no such switch."),
        "web_search_options": ([], "Nothing is searched."),
        "previous_response_id": ([], "Nothing is stored; send the earlier turns."),
    },
)

RESPONSES = Fields(
    ignored=IGNORED | {"max_tool_calls": NO_TOOLS},
    refused={
        "previous_response_id": ([], "Nothing is stored; send the earlier turns."),
        "conversation": ([], "Nothing is stored; send the earlier turns."),
        "tools": ([[]], "The models answer in text and call no tools."),
        "tool_choice": (["none", "auto"], "The models call no tools."),
        "text": ([{}, {"format": {"type": "text"}}], "Answers are free text; no grammar is enforced."),
        "reasoning": ([{}], "There is no such switch."),
        "truncation": (["disabled"], "A prompt that is too long is refused."),
        "background": ([False], "An answer is made while the client waits."),
        "prompt": ([], "No prompts are stored; send the text."),
    },
)
