"""The families, by the `model_type` of config.json."""

from importlib import import_module

from lime_mlx.errors import CheckpointError

FAMILIES = {
    "llama": "text:Text",
    "qwen2": "text:Text",
    "qwen3": "text:Text",
    "llava": "llava:Llava",
}


def family(model_type: str):
    """The model class of a `model_type`. Raises `CheckpointError` that lists the supported ones."""
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"Models of type {model_type!r} are not supported; supported are {', '.join(sorted(FAMILIES))}."
        )
    module, name = FAMILIES[model_type].split(":")
    return getattr(import_module(f".{module}", __name__), name)
