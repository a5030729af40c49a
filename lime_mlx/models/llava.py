"""LLaVA: CLIP features of the picture, through a two-layer projector, in the places of the image token.

Paper: Liu et al. 2023, "Improved Baselines with Visual Instruction Tuning" (arXiv 2310.03744).
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.lrp.rules import PLAIN, RATIOS
from lime_mlx.media.pixels import Pixels
from lime_mlx.models.towers.clip import ClipConfig, ClipTower
from lime_mlx.processor import Medium
from lime_mlx.prompt import Prompt, Span, runs

from .base import Model, media_array, merge
from .decoder import Decoder, DecoderConfig
from .layers import linear

# What transformers assumes when config.json leaves the tower out: CLIP ViT-L/14 at 336 pixels.
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
STRATEGIES = ("default", "full")
TEXTS = ("llama", "mistral", "qwen2", "qwen3")
IMAGE_TOKEN = 32000
VICUNA = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}"
    "{% endfor %}ASSISTANT:"
)


class Projector(nn.Module):
    def __init__(self, features: int, width: int, activation: str, bias: bool):
        super().__init__()
        self.activation = activation
        self.linear_1 = nn.Linear(features, width, bias=bias)
        self.linear_2 = nn.Linear(width, width, bias=bias)

    def __call__(self, x):
        return linear(self.linear_2, PLAIN.activation(linear(self.linear_1, x), self.activation))


class Llava(Model):
    renames = (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
        (r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
    )

    chat_template = VICUNA

    def __init__(self, config: dict[str, Any]):
        super().__init__(config)
        vision, name = tower_config(config), config["model_type"]
        kind = vision.get("model_type", "clip_vision_model")
        if kind != "clip_vision_model":
            raise CheckpointError(f"This {name} checkpoint has a {kind!r} tower; only clip_vision_model is supported.")
        layer = config.get("vision_feature_layer", -2)
        self.feature_layers = [layer] if isinstance(layer, int) else list(layer)
        self.strategy = config.get("vision_feature_select_strategy", "default")
        if self.strategy not in STRATEGIES:
            raise CheckpointError(
                f"vision_feature_select_strategy is {self.strategy!r}; supported: {', '.join(STRATEGIES)}."
            )
        self.image_token = image_token(config)
        text = DecoderConfig.from_dict(self.text(config))
        if text.model_type not in TEXTS:
            raise CheckpointError(
                f"This {name} checkpoint has a {text.model_type!r} text part; supported: {', '.join(TEXTS)}."
            )
        tower = ClipConfig.from_dict(vision)
        depth = tower.num_hidden_layers
        if not all(isinstance(layer, int) and -depth - 1 <= layer <= depth for layer in self.feature_layers):
            raise CheckpointError(f"vision_feature_layer is {layer}, but the tower has {depth} layers.")
        activation = config.get("projector_hidden_act") or "gelu"
        for kind in (tower.hidden_act, activation):
            if kind not in RATIOS:
                raise CheckpointError(
                    f"config.json asks for the activation {kind!r}; supported: {', '.join(sorted(RATIOS))}."
                )
        self.vision_tower = ClipTower(tower)
        self.multi_modal_projector = Projector(
            tower.hidden_size * len(self.feature_layers),
            text.hidden_size,
            activation,
            config.get("multimodal_projector_bias", True),
        )
        self.language_model = Decoder(text)

    @classmethod
    def text(cls, config):
        return config.get("text_config") or {}

    @classmethod
    def media(cls, config, settings):
        tower = ClipConfig.from_dict(tower_config(config))
        pixels = Pixels.from_dict(settings.image, tower.image_size)
        count = tower.patches + (config.get("vision_feature_select_strategy") == "full")

        def prepare(images):
            return {"pixel_values": np.concatenate([pixels(image) for image in images])}, [count] * len(images)

        return [Medium("image", image_token(config), prepare, seen=pixels.seen)]

    def sanitize(self, weights):
        weights = super().sanitize(weights)
        name = "vision_tower.vision_model.embeddings.patch_embedding.weight"
        kernel = weights.get(name)
        config = self.vision_tower.config
        side = config.patch_size
        if kernel is not None and kernel.shape[1:] == (config.num_channels, side, side):
            weights[name] = kernel.transpose(0, 2, 3, 1)
        return weights

    def features(self, pixels: mx.array) -> mx.array:
        """Projected picture features (N, P, D) of pixels (N, 3, S, S)."""
        size = self.vision_tower.config.image_size
        if pixels.ndim != 4 or pixels.shape[1:] != (3, size, size):
            raise PromptError(f"pixel_values must have shape (N, 3, {size}, {size}), got {tuple(pixels.shape)}.")
        states = self.vision_tower(pixels)
        first = 1 if self.strategy == "default" else 0
        chosen = mx.concatenate([states[layer][:, first:] for layer in self.feature_layers], axis=-1)
        return self.multi_modal_projector(chosen)

    def pictures(self, prompt: Prompt) -> mx.array:
        """What stands in the places of the prompt's pictures, (places, D)."""
        return self.features(media_array(prompt.media["pixel_values"], self.vision_tower.dtype)).flatten(0, 1)

    def embed(self, prompt: Prompt) -> mx.array:
        ids = self.ids(prompt)
        positions = np.flatnonzero(prompt.input_ids == self.image_token)
        embeds = self.language_model.embed(ids)
        if "pixel_values" not in prompt.media:
            if positions.size:
                raise PromptError("The prompt has a place for a picture, but no picture was given.")
            return embeds
        return merge(embeds, self.pictures(prompt), positions, "image")

    def spans(self, prompt: Prompt) -> tuple[Span, ...]:
        if prompt.spans is not None:
            return tuple(prompt.spans)
        return runs(prompt.input_ids, self.image_token, "image")


def tower_config(config: dict[str, Any]) -> dict[str, Any]:
    vision = config.get("vision_config")
    return VISION if vision is None else vision


def image_token(config: dict[str, Any]) -> int:
    ids = (config.get("image_token_id"), config.get("image_token_index"), IMAGE_TOKEN)
    token = next(token for token in ids if token is not None)
    if not isinstance(token, int) or token < 0:
        raise CheckpointError(f"The image token of config.json is {token!r}, which is no token id.")
    return token
