"""What a checkpoint is, by its settings and the heads of its files: no weights are read."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from PIL import Image

from lime_mlx.checkpoint.hub import locate
from lime_mlx.checkpoint.load import held, load_processor, open_model, read_weights
from lime_mlx.errors import LimeError
from lime_mlx.files import read_json
from lime_mlx.models import takes
from lime_mlx.models.base import Model
from lime_mlx.prompt import Prompt

from .memory import needed
from .schemes import Scheme
from .tensors import count, packed

QUESTION = "What is in the picture?"
SIDE = 336
TEXT_TOKENS = 64  # of a prompt without a picture, or where the tokenizer is missing
# By our names, the first that is found: what a tensor belongs to.
PARTS = (
    ("head", r"^language_model\.lm_head\."),
    ("embeddings", r"^language_model\.model\.embed_tokens\."),
    ("decoder", r"^language_model\."),
    ("connector", r"projector|connector|merger|image_newline"),
    ("tower", r""),
)


@dataclass(frozen=True)
class Part:
    parameters: int
    size: int


@dataclass(frozen=True)
class Inspection:
    """size: bytes of the weights in the files; dtypes: of the floats; layers: module paths to how they are quantised.

    spelling: "mlx", also where the Hub's is the same, "transformers" (5, as it saves) or "hub". tokens: positions of a
    picture of `picture` (width, height) pixels, None for a model that takes none; positions: of the whole prompt with
    it. memory: bytes, by what is done. problem: why there is no processor, if there is none.
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
    path_or_repo: str | os.PathLike,
    *,
    picture: tuple[int, int] = (SIDE, SIDE),
    revision: str | None = None,
    token: str | None = None,
) -> Inspection:
    """Describe a folder or a repository, and what it needs with a picture of so many pixels (width, height).

    Raises what `load` raises, but for a missing or damaged tokenizer or processor: that is the `problem`.
    """
    folder = locate(path_or_repo, revision=revision, token=token)
    model, weights = open_model(folder)
    kind = model.config["model_type"]
    schemes = packed(model)
    media, tokens, positions, problem = takes(kind), None, TEXT_TOKENS, None
    try:
        prompt = _asked(folder, media, picture)
        positions, tokens = len(prompt), sum(map(len, model.spans(prompt))) if "image" in media else None
    except LimeError as error:
        problem = str(error)
    decoder = model.language_model.config
    return Inspection(
        folder,
        kind,
        tuple(media),
        spelling(model, read_weights(folder)),
        tuple(sorted({str(a.dtype).split(".")[-1] for a in weights.values() if mx.issubdtype(a.dtype, mx.floating)})),
        _parts(weights, schemes),
        schemes,
        _tokenizer(folder),
        decoder.vocab_size,
        picture if "image" in media else None,
        tokens,
        positions,
        needed(decoder, held(weights), positions),
        problem,
    )


def spelling(model: Model, stored: dict[str, mx.array]) -> str:
    """Under which names, and in which layout, the weights are stored."""
    ours = model.sanitize(dict(stored))
    published = {model.publish(name): array.shape for name, array in ours.items()}
    kept = {name: array.shape for name, array in stored.items() if not any(part in name for part in model.drop)}
    if all(published.get(name) == shape for name, shape in kept.items()):
        return "mlx"
    fifth = re.compile(r"^model\.(language_model|vision_tower|visual|audio_tower|multi_modal_projector|text_model)\.")
    return "transformers" if any(fifth.match(name) for name in stored) else "hub"


def part_of(name: str) -> str:
    return next(part for part, pattern in PARTS if re.search(pattern, name))


def _parts(weights: dict[str, mx.array], schemes: dict[str, Scheme]) -> dict[str, Part]:
    found = {}
    for part in dict(PARTS):
        own = {name: array for name, array in weights.items() if part_of(name) == part}
        if own:
            found[part] = Part(count(own, schemes), sum(array.nbytes for array in own.values()))
    return found


def _asked(folder: Path, media: list[str], picture: tuple[int, int]) -> Prompt:
    images = [Image.new("RGB", picture)] if "image" in media else []
    return load_processor(folder).prompt(QUESTION, images=images)


def _tokenizer(folder: Path) -> str | None:
    model = read_json(folder / "tokenizer.json").get("model") or {}
    return model.get("type")
