"""LLaVA: CLIP features of the picture, through a two-layer projector, at the positions of the image token.

Paper: Liu et al. 2023, "Improved Baselines with Visual Instruction Tuning" (arXiv 2310.03744).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from PIL import Image

from lime_mlx.errors import CheckpointError
from lime_mlx.files import Json
from lime_mlx.lrp.rules import PLAIN
from lime_mlx.media.pixels import Pixels
from lime_mlx.processor import AnyMedium, Medium, Prepared, Settings
from lime_mlx.products import product
from lime_mlx.prompt import WHOLE, Box, Grid, Part, Prompt

from .base import PROJECTED, Model, Renames, check_pixels, media_array, shape_of
from .config import TEXTS, DecoderConfig, check_type, token_id
from .decoder import Decoder
from .layers import Module, check_activation
from .towers.clip import ClipConfig, ClipTower

# The default of transformers when config.json has no tower: CLIP ViT-L/14 at 336 pixels.
SIZES = {"hidden_size": 1024, "intermediate_size": 4096, "image_size": 336, "patch_size": 14}
VISION = {**SIZES, "num_hidden_layers": 24, "num_attention_heads": 16}
STRATEGIES = ("default", "full")


class Projector(Module):
    def __init__(self, features: int, width: int, activation: str, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.linear_1 = nn.Linear(features, width, bias=bias)
        self.linear_2 = nn.Linear(width, width, bias=bias)

    def __call__(self, x: mx.array) -> mx.array:
        return product(self.linear_2, PLAIN.activation(product(self.linear_1, x), self.activation))


class Llava(Model):
    renames: ClassVar[Renames] = PROJECTED
    chat_template = "vicuna"

    def __init__(self, config: Json) -> None:
        super().__init__(config)
        tower, text = tower_config(config), DecoderConfig.from_dict(self.text(config))
        check_type(config, "text part", text.model_type, TEXTS)
        layer, activation = config.get("vision_feature_layer", -2), config.get("projector_hidden_act") or "gelu"
        check_activation(activation)
        self.feature_layers = [layer] if isinstance(layer, int) else list(layer)
        depths = range(-tower.num_hidden_layers - 1, tower.num_hidden_layers + 1)
        if not all(isinstance(depth, int) and depth in depths for depth in self.feature_layers):
            raise CheckpointError(f"vision_feature_layer is {layer}, but the tower has {depths[-1]} layers.")
        self.class_tokens = class_tokens(config)
        sizes = tower.hidden_size * len(self.feature_layers), text.hidden_size
        self.vision_tower = ClipTower(tower)
        self.multi_modal_projector = Projector(*sizes, activation, config.get("multimodal_projector_bias", True))
        self.language_model = Decoder(text)

    @classmethod
    def text(cls, config: Json) -> Json:
        return config.get("text_config") or {}

    @classmethod
    def tokens(cls, config: Json) -> dict[str, int]:
        return {"image": token_id(config, ("image_token_id", "image_token_index"), 32000, "image")}

    @classmethod
    def media(cls, config: Json, settings: Settings) -> Sequence[AnyMedium]:
        tower, first = tower_config(config), class_tokens(config)
        pixels = Pixels.from_dict(settings.image, tower.image_size)

        def prepare(images: Sequence[Image.Image]) -> Prepared:
            parts = [part for i, image in enumerate(images) for part in picture(tower, first, i, pixels.box(image))]
            levels = np.concatenate([pixels(image) for image in images])
            return Prepared({"pixel_values": levels}, [first + tower.patches] * len(images), parts)

        return [Medium("image", cls.tokens(config)["image"], prepare)]

    def parts(self, kind: str, media: Mapping[str, object]) -> Sequence[Part]:
        count, *_ = shape_of(media.get("pixel_values")) or (0,)
        return [part for i in range(count) for part in picture(self.vision_tower.config, self.class_tokens, i)]

    def features(self, pixels: mx.array) -> mx.array:
        """Projected picture features (N, P, D) of pixels (N, 3, S, S)."""
        check_pixels(pixels, self.vision_tower.config.image_size)
        states, start = self.vision_tower(pixels), 1 - self.class_tokens
        chosen = [states[layer][:, start:] for layer in self.feature_layers]
        return self.multi_modal_projector(mx.concatenate(chosen, axis=-1))

    def pictures(self, prompt: Prompt) -> mx.array:
        return self.features(media_array(prompt.media["pixel_values"], self.vision_tower.dtype)).flatten(0, 1)


def tower_config(config: Json) -> ClipConfig:
    vision = VISION if config.get("vision_config") is None else config["vision_config"]
    check_type(config, "tower", vision.get("model_type", "clip_vision_model"), ["clip_vision_model"])
    return ClipConfig.from_dict(vision)


def class_tokens(config: Json) -> int:
    """How many class tokens stand before the patches of a picture: 1 or 0."""
    if (strategy := config.get("vision_feature_select_strategy", "default")) not in STRATEGIES:
        raise CheckpointError(f"vision_feature_select_strategy is {strategy!r}; supported: {', '.join(STRATEGIES)}.")
    return STRATEGIES.index(strategy)


def picture(tower: ClipConfig, class_tokens: int, source: int, box: Box = WHOLE) -> list[Part]:
    """The parts of a picture: its class token, if it has one, and its patches."""
    patches = Part(tower.patches, source, Grid.square(tower.edge, box, tower.covered))
    return [Part(1, source)] * class_tokens + [patches]
