"""Gemma 3: SigLIP features, pooled to few tokens. The tokens of a picture attend to each other in both directions.

Paper: Gemma Team 2025, "Gemma 3 Technical Report" (arXiv 2503.19786).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import mlx.core as mx
import numpy as np
from PIL import Image

from lime_mlx.errors import CheckpointError
from lime_mlx.files import Json
from lime_mlx.media.crops import Crops, crops_text
from lime_mlx.positions import Positions
from lime_mlx.processor import AnyMedium, Medium, Prepared, Settings
from lime_mlx.prompt import WHOLE, Box, Grid, Part, Prompt, runs

from .base import PROJECTED, Features, Inputs, Model, Renames, check_pixels, media_array, shape_of
from .config import DecoderConfig, check_type, token_id
from .decoder import Decoder
from .layers import Module, RMSNorm
from .towers.siglip import SiglipConfig, SiglipTower

TOKENS = 256


class VisionTower(Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.vision_model = SiglipTower(config)


class Projector(Module):
    """Means of neighbouring patches, normed, times a matrix (vision, text)."""

    def __init__(self, config: SiglipConfig, side: int, width: int) -> None:
        super().__init__()
        self.edge, self.side = config.edge, side
        self.mm_input_projection_weight = mx.zeros((config.hidden_size, width))
        self.mm_soft_emb_norm = RMSNorm(config.hidden_size, config.layer_norm_eps, plus_one=True)

    def __call__(self, x: mx.array) -> mx.array:
        pool = self.edge // self.side
        count, _, width = x.shape
        grid = x.reshape(count, self.edge, self.edge, width)[:, : pool * self.side, : pool * self.side]
        means = grid.reshape(count, self.side, pool, self.side, pool, width).mean(axis=(2, 4))
        return self.mm_soft_emb_norm(means.flatten(1, 2)) @ self.mm_input_projection_weight


class Gemma3(Model):
    renames: ClassVar[Renames] = PROJECTED
    published_head = True
    drop = (*Model.drop, "vision_model.head.", "vision_tower.head.")  # a pooling head that Gemma 3 does not use
    chat_template = "gemma3"
    framed = True

    def __init__(self, config: Json) -> None:
        super().__init__(config)
        vision, text = vision_config(config), DecoderConfig.from_dict(self.text(config))
        self.vision_tower = VisionTower(vision)
        self.multi_modal_projector = Projector(vision, tokens_of(config)[1], text.hidden_size)
        self.language_model = Decoder(text)

    @classmethod
    def text(cls, config: Json) -> Json:
        """As in transformers: the root of config.json ties the head, and the logits have no soft cap."""
        text = {"model_type": "gemma3_text", **(config.get("text_config") or {})}
        tied = config.get("tie_word_embeddings")
        return {**text, "final_logit_softcapping": None, "tie_word_embeddings": True if tied is None else tied}

    @classmethod
    def tokens(cls, config: Json) -> dict[str, int]:
        return {"image": token_id(config, ("image_token_index", "image_token_id"), 262144, "image")}

    @classmethod
    def media(cls, config: Json, settings: Settings) -> Sequence[AnyMedium]:
        vision, (tokens, _) = vision_config(config), tokens_of(config)
        cut = Crops.from_dict(settings.image, vision.image_size)

        def crops(image: Image.Image, source: int) -> list[Part]:
            boxes = cut.boxes(*image.size)
            width, height = image.size
            fractions = [(a / width, b / height, c / width, d / height) for a, b, c, d in boxes]
            return [Part(tokens, source, pooled_grid(config, box)) for box in [WHOLE, *fractions]]

        def prepare(images: Sequence[Image.Image]) -> Prepared:
            arrays = cut(images)
            parts = [part for source, image in enumerate(images) for part in crops(image, source)]
            return Prepared(arrays, [crops_text(int(count), tokens) for count in arrays["num_crops"]], parts)

        return [Medium("image", token_id(config, ("boi_token_index",), 255999, "begin-of-image"), prepare)]

    def parts(self, kind: str, media: Mapping[str, object]) -> Sequence[Part]:
        """num_crops gives the number of crops of each picture, but not where they lie on it."""
        count, *_ = shape_of(media.get("pixel_values")) or (0,)
        tokens, whole = tokens_of(self.config)[0], pooled_grid(self.config)
        crops = np.asarray(media.get("num_crops", np.zeros(count, dtype=int))).ravel().tolist()
        grids = [(source, grid) for source, more in enumerate(crops) for grid in [whole, *[None] * more]]
        return [Part(tokens, source, grid) for source, grid in grids]

    def features(self, pixels: mx.array) -> mx.array:
        """Projected picture features (N, tokens, D) of pixels (N, 3, S, S)."""
        check_pixels(pixels, self.vision_tower.vision_model.config.image_size)
        return self.multi_modal_projector(self.vision_tower.vision_model(pixels))

    def pictures(self, prompt: Prompt) -> mx.array:
        pixels = media_array(prompt.media["pixel_values"], self.vision_tower.vision_model.dtype)
        return self.features(pixels).flatten(0, 1)

    def inputs(self, prompt: Prompt, features: Features | None = None) -> Inputs:
        blocks = np.zeros(len(prompt), dtype=np.int32)
        for number, span in enumerate(runs(prompt.input_ids, self.image_token, "image"), start=1):
            blocks[span.start : span.stop] = number
        return Inputs(self.embed(prompt, features), Positions(blocks=blocks))


def vision_config(config: Json) -> SiglipConfig:
    vision = config.get("vision_config") or {}
    check_type(config, "tower", vision.get("model_type", "siglip_vision_model"), ["siglip_vision_model"])
    return SiglipConfig.from_dict(vision)


def tokens_of(config: Json) -> tuple[int, int]:
    """Tokens of a picture, and along one side of it. Raises `CheckpointError` when the patches cannot be pooled so."""
    count = config.get("mm_tokens_per_image") or TOKENS
    side, edge = int(count**0.5), vision_config(config).edge
    if side * side != count or side > edge or edge // (edge // side) != side:
        raise CheckpointError(f"mm_tokens_per_image is {count}, which does not fit {edge} x {edge} patches.")
    return count, side


def pooled_grid(config: Json, box: Box = WHOLE) -> Grid:
    """The grid of a picture or a crop. Patches at the right and at the bottom may be left out by the pooling."""
    vision, (_, side) = vision_config(config), tokens_of(config)
    pooled = vision.edge // side * side / vision.edge
    return Grid.square(side, box, vision.covered * pooled)
