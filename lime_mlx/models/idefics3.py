"""Idefics3 and SmolVLM: squares of a picture through SigLIP, neighbouring patches shuffled into one token.

Papers: Laurencon et al. 2024 (arXiv 2408.12637); Marafioti et al. 2025, "SmolVLM" (arXiv 2504.05299).
"""

from collections.abc import Sequence
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.files import Json
from lime_mlx.media.splits import Splits, splits_text
from lime_mlx.processor import AnyMedium, Medium, Prepared, Settings
from lime_mlx.products import product
from lime_mlx.prompt import WHOLE, Grid, Part, Prompt

from .base import Model, Renames, media_array
from .config import TEXTS, DecoderConfig, check_type, token_id
from .decoder import Decoder
from .layers import Module
from .towers.siglip import SiglipConfig, SiglipTower

# The defaults of transformers for what config.json leaves out.
VISION = {"hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32}
TEXT = {"model_type": "llama", "rms_norm_eps": 1e-5}


class Projection(Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(features, width, bias=False)


class Connector(Module):
    """Pixel shuffle: squares of `scale` x `scale` patches become one, `scale` ** 2 times as wide."""

    def __init__(self, scale: int, features: int, width: int) -> None:
        super().__init__()
        self.scale = scale
        self.modality_projection = Projection(features * scale**2, width)

    def __call__(self, x: mx.array) -> mx.array:
        count, patches, width = x.shape
        edge, scale = round(patches**0.5), self.scale
        x = x.reshape(count, edge // scale, scale, edge // scale, scale, width).swapaxes(2, 3)
        return product(self.modality_projection.proj, x.reshape(count, (edge // scale) ** 2, -1))


class Idefics3(Model):
    renames: ClassVar[Renames] = (
        (r"^model\.text_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.(vision_model|connector)\.", r"\1."),
        (r"^language_model\.(embed_tokens|layers|norm)\.", r"language_model.model.\1."),
    )
    published_head = True
    published = ((r"^language_model\.model\.", "language_model."),)
    chat_template = "idefics3"
    # Squares of exact zeros count as padding. This level is not 0, but it vanishes in every sum of the tower.
    blanks = {"image": 1e-30}

    def __init__(self, config: Json) -> None:
        super().__init__(config)
        text, vision = DecoderConfig.from_dict(self.text(config)), vision_config(config)
        check_type(config, "text part", text.model_type, TEXTS)
        self.vision_model = SiglipTower(vision)
        self.connector = Connector(tokens_of(config)[1], vision.hidden_size, text.hidden_size)
        self.language_model = Decoder(text)

    @classmethod
    def text(cls, config: Json) -> Json:
        """The root of config.json decides whether the head is tied."""
        given = config.get("text_config")
        text = TEXT if given is None else {"model_type": "llama", **given}
        return {**text, "tie_word_embeddings": config.get("tie_word_embeddings", False)}

    @classmethod
    def tokens(cls, config: Json) -> dict[str, int]:
        return {"image": token_id(config, ("image_token_id",), 128257, "image")}

    @classmethod
    def media(cls, config: Json, settings: Settings) -> Sequence[AnyMedium]:
        cut, vision = Splits.from_dict(settings.image), vision_config(config)
        if cut.side != (size := vision.image_size):
            raise CheckpointError(
                f"preprocessor_config.json cuts squares of {cut.side}, but the vision tower takes {size} x {size}."
            )
        tokens, scale = tokens_of(config)

        def squares(image: Image.Image, source: int) -> list[Part]:
            rows, columns = cut.grid(image)
            cells = [(x, y) for y in range(rows) for x in range(columns)]
            boxes = [(x / columns, y / rows, (x + 1) / columns, (y + 1) / rows) for x, y in cells]
            grids = [Grid.square(vision.edge // scale, box, vision.covered) for box in [*boxes, WHOLE]]
            return [Part(tokens, source, grid) for grid in grids]

        def prepare(images: Sequence[Image.Image]) -> Prepared:
            parts = [part for source, image in enumerate(images) for part in squares(image, source)]
            return Prepared(cut(images), [splits_text(*cut.grid(image), tokens) for image in images], parts)

        return [Medium("image", cls.tokens(config)["image"], prepare)]

    def features(self, pixels: mx.array, patches: NDArray[np.bool_]) -> mx.array:
        """Projected features (N, tokens, D) of squares (N, 3, S, S); patches (N, S / patch, S / patch) are picture."""
        return self.connector(self.vision_model(pixels, patches))

    def pictures(self, prompt: Prompt) -> mx.array:
        pixels = np.asarray(prompt.media["pixel_values"], dtype=np.float32)
        size, side = pixels.shape[-1], self.vision_model.config.patch_size
        edge = size // side
        if pixels.ndim != 5 or pixels.shape[0] != 1 or pixels.shape[2:] != (3, size, size):
            raise PromptError(f"pixel_values must have shape (1, N, 3, S, S), got {pixels.shape}.")
        if not edge or edge % self.connector.scale:
            raise PromptError(f"Squares of {size} pixels have {edge} x {edge} patches, which do not make whole tokens.")
        mask = np.asarray(prompt.media.get("pixel_attention_mask", np.ones((*pixels.shape[:2], size, size))))
        if mask.shape != (*pixels.shape[:2], size, size):
            raise PromptError(f"pixel_attention_mask must have shape (1, N, {size}, {size}), got {mask.shape}.")
        real = (pixels[0] != 0).any(axis=(1, 2, 3))  # the other squares are padding
        real[0] |= not real.any()
        cells = mask[0][real][:, : edge * side, : edge * side].reshape(-1, edge, side, edge, side)
        pictures = media_array(pixels[0][real], self.vision_model.dtype)
        return self.features(pictures, cells.astype(bool).any(axis=(2, 4))).flatten(0, 1)


def vision_config(config: Json) -> SiglipConfig:
    return SiglipConfig.from_dict({**VISION, **(config.get("vision_config") or {})})


def tokens_of(config: Json) -> tuple[int, int]:
    """Tokens of a square, and how many patches along one side make one token."""
    scale, edge = config.get("scale_factor") or 2, vision_config(config).edge
    if edge % scale:
        raise CheckpointError(f"scale_factor is {scale}, which does not divide {edge} patches.")
    return (edge // scale) ** 2, scale
