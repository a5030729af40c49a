"""Multimodal language models on Apple silicon that show where each word came from, and hallucinate less."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lime_mlx._version import __version__

if TYPE_CHECKING:
    from lime_mlx.answer import Answer, Response
    from lime_mlx.chat import Chat
    from lime_mlx.checkpoint.load import load, load_model
    from lime_mlx.decoding import decode
    from lime_mlx.explanation import Explanation, explain
    from lime_mlx.generation import generate, stream_generate
    from lime_mlx.kv import KVOptions
    from lime_mlx.lrp.relevance import relevance
    from lime_mlx.prefixes import Prefixes
    from lime_mlx.prompt import Prompt, Span
    from lime_mlx.words import Word

__all__ = [
    "Answer",
    "Chat",
    "Explanation",
    "KVOptions",
    "Prefixes",
    "Prompt",
    "Response",
    "Span",
    "Word",
    "__version__",
    "decode",
    "explain",
    "generate",
    "load",
    "load_model",
    "relevance",
    "stream_generate",
]

_HOMES = {
    "Answer": "answer",
    "Chat": "chat",
    "Explanation": "explanation",
    "explain": "explanation",
    "Word": "words",
    "KVOptions": "kv",
    "Prefixes": "prefixes",
    "Prompt": "prompt",
    "Response": "answer",
    "Span": "prompt",
    "decode": "decoding",
    "generate": "generation",
    "load": "checkpoint.load",
    "load_model": "checkpoint.load",
    "relevance": "lrp.relevance",
    "stream_generate": "generation",
}


if not TYPE_CHECKING:  # a type checker would take every name for one of the package

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _HOMES.keys())
