"""What a checkpoint is, by its settings and the heads of its files: no weights are read."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from PIL import Image

from lime_mlx.checkpoint.files import model_type
from lime_mlx.checkpoint.hub import locate
from lime_mlx.checkpoint.load import held, load_processor, open_model, read_weights
from lime_mlx.errors import LimeError
from lime_mlx.files import read_json, section
from lime_mlx.kv import DEFAULT, KVOptions
from lime_mlx.memory import memory_needed
from lime_mlx.models import takes
from lime_mlx.models.base import Model

from .schemes import Scheme
from .tensors import count, packed

QUESTION = "What is in the picture?"
SIDE = 336
TEXT_TOKENS = 64  # of a prompt without a picture, or where the tokenizer is missing
# A tensor belongs to the first part whose pattern fits our name of it.
PARTS = (
    ("head", r"^language_model\.lm_head\."),
    ("embeddings", r"^language_model\.model\.embed_tokens\."),
    ("decoder", r"^language_model\."),
    ("connector", r"projector|connector|merger|image_newline"),
    ("tower", r""),
)


@dataclass(frozen=True)
class Part:
    """parameters: how many numbers; size: bytes in the files."""

    parameters: int
    size: int


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is.

    size: bytes of the weights in the files. dtypes: of the floats. layers: module paths to how they are quantised.
    spelling: "mlx", also where the names of the Hub are the same, "transformers" (5, as it saves) or "hub". tokens:
    positions of a picture of `picture` (width, height) pixels, None for a model that takes none. positions: of the
    whole prompt with it. memory: bytes, by what is done. problem: why prompts cannot be made; None where they can.
    """

    folder: Path
    family: str
    takes: tuple[str, ...]
    spelling: str
    dtypes: tuple[str, ...]
    parts: dict[str, Part]
    layers: dict[str, Scheme]
    tokenizer: str | None
    vocabulary: int
    picture: tuple[int, int] | None
    tokens: int | None
    positions: int
    memory: dict[str, int]
    problem: str | None = None

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts.values())

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts.values())


def inspect(
    path_or_repo: str | os.PathLike[str],
    *,
    picture: tuple[int, int] = (SIDE, SIDE),
    revision: str | None = None,
    token: str | None = None,
    kv: KVOptions = DEFAULT,
) -> Inspection:
    """Describe a folder or a repository, and what it needs with a picture of so many pixels (width, height).

    kv: the options of the cache that the memory is for.
    Raises what `load` raises. A tokenizer or a processor that is missing or damaged is not an error but the `problem`.
    """
    folder = locate(path_or_repo, revision=revision, token=token)
    model, weights = open_model(folder)
    family = model_type(model.config)
    media, schemes, decoder = takes(family), packed(model), model.language_model.config
    kv.check_heads(decoder.dim)
    tokens, positions, problem = _prompt_size(folder, model, picture if "image" in media else None)
    return Inspection(
        folder,
        family,
        tuple(media),
        spelling(model, read_weights(folder)),
        tuple(sorted({str(a.dtype).split(".")[-1] for a in weights.values() if mx.issubdtype(a.dtype, mx.floating)})),
        _parts(weights, schemes),
        schemes,
        _tokenizer_kind(folder),
        decoder.vocab_size,
        picture if "image" in media else None,
        tokens,
        positions,
        memory_needed(decoder, held(weights), positions, kv=kv),
        problem,
    )


def _prompt_size(folder: Path, model: Model, picture: tuple[int, int] | None) -> tuple[int | None, int, str | None]:
    """Positions of the picture and of a prompt with it, and why there is none."""
    images = [Image.new("RGB", picture)] if picture else []
    try:
        prompt = load_processor(folder).prompt(QUESTION, images=images)
        return sum(map(len, model.spans(prompt))) if picture else None, len(prompt), None
    except LimeError as error:
        return None, TEXT_TOKENS, str(error)


def spelling(model: Model, stored: Mapping[str, mx.array]) -> str:
    """Under which names, and in which layout, the weights are stored."""
    ours = model.sanitize(dict(stored))
    published = {model.publish(name): array.shape for name, array in ours.items()}
    kept = {name: array.shape for name, array in stored.items() if not any(part in name for part in model.drop)}
    if all(published.get(name) == shape for name, shape in kept.items()):
        return "mlx"
    fifth = re.compile(r"^model\.(language_model|vision_tower|visual|audio_tower|multi_modal_projector|text_model)\.")
    return "transformers" if any(fifth.match(name) for name in stored) else "hub"


def part_of(name: str) -> str:
    """The part that a tensor of our name belongs to."""
    return next(part for part, pattern in PARTS if re.search(pattern, name))


def _parts(weights: Mapping[str, mx.array], schemes: Mapping[str, Scheme]) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for part in dict(PARTS):
        arrays = {name: array for name, array in weights.items() if part_of(name) == part}
        if arrays:
            parts[part] = Part(count(arrays, schemes), sum(array.nbytes for array in arrays.values()))
    return parts


def _tokenizer_kind(folder: Path) -> str | None:
    kind = section(read_json(folder / "tokenizer.json"), "model").get("type")
    return kind if isinstance(kind, str) else None
