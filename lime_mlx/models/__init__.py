"""The families, by the `model_type` of config.json."""

from importlib import import_module

from lime_mlx.errors import CheckpointError

FAMILIES = {
    "llama": "text:Text",
    "mistral": "text:Text",
    "qwen2": "text:Text",
    "qwen3": "text:Text",
    "gemma3_text": "text:Text",
    "llava": "llava:Llava",
    "llava_next": "llava_next:LlavaNext",
    "qwen2_vl": "qwen2_vl:Qwen2VL",
    "qwen2_5_vl": "qwen2_5_vl:Qwen25VL",
    "qwen3_vl": "qwen3_vl:Qwen3VL",
    "idefics3": "idefics3:Idefics3",
    "smolvlm": "idefics3:Idefics3",
    "gemma3": "gemma3:Gemma3",
    "qwen2_audio": "qwen2_audio:Qwen2Audio",
    "qwen2_5_omni": "qwen2_5_omni:Qwen25Omni",
}


def family(model_type: str):
    """The model class of a `model_type`. Raises `CheckpointError` that lists the supported ones."""
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"Models of type {model_type!r} are not supported; supported are {', '.join(sorted(FAMILIES))}."
        )
    module, name = FAMILIES[model_type].split(":")
    return getattr(import_module(f".{module}", __name__), name)
