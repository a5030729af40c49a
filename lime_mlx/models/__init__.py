"""The registry: from the `model_type` of config.json to the family that runs it, and what that takes beside text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from lime_mlx.errors import CheckpointError, short

if TYPE_CHECKING:
    from .base import Model


@dataclass(frozen=True)
class Family:
    """One family: its module and class, and what it takes beside text ("image", "audio").

    towers: the families of checkpoints that have another tower, by the `model_type` of their `vision_config`.
    """

    module: str
    name: str
    takes: tuple[str, ...] = ()
    towers: Mapping[str, Family] = field(default_factory=dict)


TEXT = Family("text", "Text")
IDEFICS3 = Family("idefics3", "Idefics3", ("image",))
QWEN2_5_OMNI = Family("qwen2_5_omni", "Qwen25Omni", ("image", "audio"))
FAMILIES: dict[str, Family] = {
    "llama": TEXT,
    "mistral": TEXT,
    "qwen2": TEXT,
    "qwen3": TEXT,
    "gemma3_text": TEXT,
    "llava": Family("llava", "Llava", ("image",)),
    "llava_next": Family("llava_next", "LlavaNext", ("image",)),
    "qwen2_vl": Family("qwen2_vl", "Qwen2VL", ("image",)),
    "qwen2_5_vl": Family("qwen2_5_vl", "Qwen25VL", ("image",)),
    "qwen3_vl": Family("qwen3_vl", "Qwen3VL", ("image",)),
    "idefics3": IDEFICS3,
    "smolvlm": IDEFICS3,
    "gemma3": Family("gemma3", "Gemma3", ("image",)),
    "qwen2_audio": Family("qwen2_audio", "Qwen2Audio", ("audio",)),
    "qwen2_5_omni": QWEN2_5_OMNI,
    "qwen2_5_omni_thinker": QWEN2_5_OMNI,
}


def family(model_type: str, tower: object = None) -> type[Model]:
    """The model class of a `model_type`. `tower` chooses where a family has another class for another vision tower.

    Raises `CheckpointError`, which lists the supported types.
    """
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"Models of type {short(model_type)!r} are not supported; supported are {', '.join(sorted(FAMILIES))}."
        )
    chosen = FAMILIES[model_type]
    if isinstance(tower, str):
        chosen = chosen.towers.get(tower, chosen)
    cls: type[Model] = getattr(import_module(f".{chosen.module}", __name__), chosen.name)
    return cls


def tower_type(config: Mapping[str, object]) -> object:
    """The `model_type` of a config.json's `vision_config`, if it says one."""
    vision = config.get("vision_config")
    return vision.get("model_type") if isinstance(vision, Mapping) else None


def takes(model_type: str) -> list[str]:
    """What a supported `model_type` takes beside text: "image", "audio", both or nothing."""
    return list(FAMILIES[model_type].takes)
