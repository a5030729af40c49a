"""Multimodal language models on Apple silicon that show where each word came from, and hallucinate less."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lime_mlx._version import __version__

if TYPE_CHECKING:
    from lime_mlx.checkpoint import load, load_model
    from lime_mlx.generate import Answer, Response, decode, generate, stream_generate
    from lime_mlx.lrp.relevance import relevance
    from lime_mlx.prompt import Prompt, Span

__all__ = [
    "Answer",
    "Prompt",
    "Response",
    "Span",
    "__version__",
    "decode",
    "generate",
    "load",
    "load_model",
    "relevance",
    "stream_generate",
]

_HOMES = {
    "Answer": "generate",
    "Prompt": "prompt",
    "Response": "generate",
    "Span": "prompt",
    "decode": "generate",
    "generate": "generate",
    "load": "checkpoint",
    "load_model": "checkpoint",
    "relevance": "lrp.relevance",
    "stream_generate": "generate",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(globals().keys() | _HOMES.keys())


class _Package(ModuleType):
    """Keeps `lime_mlx.generate` the function: importing the submodule of that name would take its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
