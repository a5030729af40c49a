"""The model card: where a checkpoint came from, and how it is run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lime_mlx._version import __version__
from lime_mlx.checkpoint.files import model_type
from lime_mlx.files import section
from lime_mlx.models import takes

PIPELINES = {"image": "image-text-to-text", "audio": "audio-text-to-text"}
USAGE = {"image": " --image photo.jpg", "audio": " --audio sound.wav"}
CARD = "README.md"


def card(source: Path | None, base: str | None, name: str, config: Mapping[str, object]) -> str:
    """README.md of the output; `base` is the repository that it came from, `name` what it is called.

    What the card of the source says in its head, its licence above all, stays.
    """
    from huggingface_hub.repocard_data import ModelCardData

    media = takes(model_type(config)) or ["text"]
    head = {**_head(source), "library_name": "mlx"}
    tags = head.get("tags")
    head.setdefault("pipeline_tag", PIPELINES.get(media[0], "text-generation"))
    head["tags"] = list(dict.fromkeys([*(tags if isinstance(tags, list) else []), "mlx"]))
    if base is not None:
        head["base_model"] = base
    origin = f"[{base}](https://huggingface.co/{base})" if base else "a local checkpoint"
    return f"""---
{ModelCardData(**head).to_yaml()}
---

# {name}
Converted to MLX from {origin} with lime-mlx {__version__}{_how(config)}.

```bash
pip install lime-mlx
lime-mlx generate --model {name}{USAGE.get(media[0], "")} -p "{"What is there?" if media != ["text"] else "Hello"}"
```
"""


def find_card(folder: Path, base: str | None, revision: str | None, token: str | None) -> Path | None:
    """The card of the source, which a download of the model leaves out; None where it cannot be had."""
    from huggingface_hub import hf_hub_download

    if (folder / CARD).is_file() or base is None:
        return folder / CARD
    try:
        return Path(hf_hub_download(base, CARD, revision=revision, token=token))
    except Exception:  # offline, or no card: no reason to fail
        return None


def _head(path: Path | None) -> dict[str, Any]:
    """The metadata of a card; empty where there is none, or none that can be read."""
    from huggingface_hub import ModelCard

    try:
        return {} if path is None else ModelCard.load(path).data.to_dict()
    except Exception:  # whatever YAML makes of it
        return {}


def _how(config: Mapping[str, object]) -> str:
    settings = section(config, "quantization")
    if not settings:
        return ""
    layers = [settings, *(layer for layer in settings.values() if isinstance(layer, dict))]
    bits = sorted({str(layer["bits"]) for layer in layers})
    return f", {'/'.join(bits)}-bit {settings['mode']} in groups of {settings['group_size']}"
