"""Gemma 3: SigLIP features, pooled to few tokens, that see each other both ways.

Paper: Gemma Team 2025, "Gemma 3 Technical Report" (arXiv 2503.19786).
"""

from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.media.crops import Crops, crops_text
from lime_mlx.models.towers.siglip import SiglipConfig, SiglipTower
from lime_mlx.positions import Positions
from lime_mlx.processor import Medium
from lime_mlx.prompt import Prompt, Span, runs

from .base import Inputs, Model, media_array, merge
from .decoder import Decoder, DecoderConfig
from .layers import RMSNorm

IMAGE_TOKEN, BEGIN_TOKEN, TOKENS = 262144, 255999, 256
TURNS = (
    "{{ bos_token }}{% set told = namespace(system='') %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% for part in message['content'] %}"
    "{% set told.system = told.system + part['text'] + '\n\n' %}{% endfor %}"
    "{% else %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ told.system }}{% set told.system = '' %}"
    "{% for part in message['content'] %}"
    "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] | trim }}{% endfor %}<end_of_turn>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


class VisionTower(nn.Module):
    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.vision_model = SiglipTower(config)


class Projector(nn.Module):
    """Means of neighbouring patches, normed, times a matrix (vision, text)."""

    def __init__(self, config: SiglipConfig, side: int, width: int):
        super().__init__()
        self.edge, self.side = config.edge, side
        self.mm_input_projection_weight = mx.zeros((config.hidden_size, width))
        self.mm_soft_emb_norm = RMSNorm(config.hidden_size, config.layer_norm_eps, plus_one=True)

    def __call__(self, x):
        pool = self.edge // self.side
        count, _, width = x.shape
        grid = x.reshape(count, self.edge, self.edge, width)[:, : pool * self.side, : pool * self.side]
        means = grid.reshape(count, self.side, pool, self.side, pool, width).mean(axis=(2, 4))
        return self.mm_soft_emb_norm(means.flatten(1, 2)) @ self.mm_input_projection_weight


class Gemma3(Model):
    renames = (
        (r"^model\.language_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.(vision_tower|multi_modal_projector)\.", r"\1."),
        (r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
    )
    published_head = True
    drop = (*Model.drop, "vision_model.head.", "vision_tower.head.")  # pools for a task of SigLIP's own
    chat_template = TURNS
    framed = True

    def __init__(self, config: dict[str, Any]):
        super().__init__(config)
        vision, text = vision_config(config), DecoderConfig.from_dict(self.text(config))
        side = tokens_of(config)[1]
        self.image_token = image_token(config)
        self.vision_tower = VisionTower(vision)
        self.multi_modal_projector = Projector(vision, side, text.hidden_size)
        self.language_model = Decoder(text)

    @classmethod
    def text(cls, config):
        """As transformers: the head is tied by the root of config.json, and soft caps are not used with pictures."""
        own = {"model_type": "gemma3_text", **(config.get("text_config") or {})}
        tied = config.get("tie_word_embeddings")
        return {**own, "final_logit_softcapping": None, "tie_word_embeddings": True if tied is None else tied}

    @classmethod
    def media(cls, config, settings):
        cut = Crops.from_dict(settings.image, vision_config(config).image_size)
        tokens, _ = tokens_of(config)

        def prepare(images):
            arrays = cut(images)
            return arrays, [crops_text(int(crops), tokens) for crops in arrays["num_crops"]]

        begin = config.get("boi_token_index")
        return [Medium("image", BEGIN_TOKEN if begin is None else begin, prepare)]

    def sanitize(self, weights):
        return self.vision_tower.vision_model.sanitize(super().sanitize(weights), "vision_tower.vision_model.")

    def features(self, pixels: mx.array) -> mx.array:
        """Projected picture features (N, tokens, D) of pixels (N, 3, S, S)."""
        size = self.vision_tower.vision_model.config.image_size
        if pixels.ndim != 4 or pixels.shape[1:] != (3, size, size):
            raise PromptError(f"pixel_values must have shape (N, 3, {size}, {size}), got {tuple(pixels.shape)}.")
        return self.multi_modal_projector(self.vision_tower.vision_model(pixels))

    def embed(self, prompt: Prompt) -> mx.array:
        here = prompt.input_ids == self.image_token
        if here.any() and "pixel_values" not in prompt.media:
            raise PromptError("The prompt has a place for a picture, but no picture was given.")
        # The vocabulary may end before the image token.
        embeds = self.language_model.embed(self.ids(replace(prompt, input_ids=np.where(here, 0, prompt.input_ids))))
        if "pixel_values" not in prompt.media:
            return embeds
        pixels = media_array(prompt.media["pixel_values"], self.vision_tower.vision_model.dtype)
        return merge(embeds, self.features(pixels).flatten(0, 1), np.flatnonzero(here), "image")

    def inputs(self, prompt: Prompt) -> Inputs:
        blocks = np.zeros(len(prompt), dtype=np.int32)
        for number, span in enumerate(runs(prompt.input_ids, self.image_token, "image"), start=1):
            blocks[span.start : span.stop] = number
        return Inputs(self.embed(prompt), Positions(blocks=blocks))

    def spans(self, prompt: Prompt) -> tuple[Span, ...]:
        if prompt.spans is not None:
            return tuple(prompt.spans)
        return runs(prompt.input_ids, self.image_token, "image")


def vision_config(config: dict[str, Any]) -> SiglipConfig:
    vision = config.get("vision_config") or {}
    kind = vision.get("model_type", "siglip_vision_model")
    if kind != "siglip_vision_model":
        raise CheckpointError(f"This gemma3 checkpoint has a {kind!r} tower; only siglip_vision_model is supported.")
    return SiglipConfig.from_dict(vision)


def tokens_of(config: dict[str, Any]) -> tuple[int, int]:
    """Tokens of a picture, and along one side of it. Raises `CheckpointError` where the patches cannot be pooled so."""
    count = config.get("mm_tokens_per_image") or TOKENS
    side, edge = int(count**0.5), vision_config(config).edge
    if side * side != count or side > edge or edge // (edge // side) != side:
        raise CheckpointError(f"mm_tokens_per_image is {count}, which does not fit {edge} x {edge} patches.")
    return count, side


def image_token(config: dict[str, Any]) -> int:
    ids = (config.get("image_token_index"), config.get("image_token_id"), IMAGE_TOKEN)
    return next(token for token in ids if token is not None)
