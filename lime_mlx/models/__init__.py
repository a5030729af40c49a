"""The families, by the `model_type` of config.json: module, class, and what they take beside text."""

from importlib import import_module

from lime_mlx.errors import CheckpointError

FAMILIES = {
    "llama": "text:Text",
    "mistral": "text:Text",
    "qwen2": "text:Text",
    "qwen3": "text:Text",
    "gemma3_text": "text:Text",
    "llava": "llava:Llava:image",
    "llava_next": "llava_next:LlavaNext:image",
    "qwen2_vl": "qwen2_vl:Qwen2VL:image",
    "qwen2_5_vl": "qwen2_5_vl:Qwen25VL:image",
    "qwen3_vl": "qwen3_vl:Qwen3VL:image",
    "idefics3": "idefics3:Idefics3:image",
    "smolvlm": "idefics3:Idefics3:image",
    "gemma3": "gemma3:Gemma3:image",
    "qwen2_audio": "qwen2_audio:Qwen2Audio:audio",
    "qwen2_5_omni": "qwen2_5_omni:Qwen25Omni:image:audio",
    "qwen2_5_omni_thinker": "qwen2_5_omni:Qwen25Omni:image:audio",
}


def family(model_type: str):
    """The model class of a `model_type`. Raises `CheckpointError` that lists the supported ones."""
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"Models of type {model_type!r} are not supported; supported are {', '.join(sorted(FAMILIES))}."
        )
    module, name, *_ = FAMILIES[model_type].split(":")
    return getattr(import_module(f".{module}", __name__), name)


def takes(model_type: str) -> list[str]:
    """What a supported `model_type` takes beside text: "image", "audio", both or nothing."""
    return FAMILIES[model_type].split(":")[2:]
