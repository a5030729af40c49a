"""Idefics3 and SmolVLM: squares of a picture through SigLIP, neighbouring patches shuffled into one token.

Papers: Laurencon et al. 2024 (arXiv 2408.12637); Marafioti et al. 2025, "SmolVLM" (arXiv 2504.05299).
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from lime_mlx.errors import CheckpointError, PromptError
from lime_mlx.media.splits import Splits, splits_text
from lime_mlx.models.towers.siglip import SiglipConfig, SiglipTower
from lime_mlx.processor import Medium
from lime_mlx.prompt import Prompt, Span, runs

from .base import Model, media_array, merge
from .decoder import Decoder, DecoderConfig
from .layers import linear

TEXTS = ("llama", "mistral", "qwen2", "qwen3")
IMAGE_TOKEN = 128257
# What transformers assumes of the tower and the text when config.json leaves them out.
VISION = {"hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32}
TEXT = {"model_type": "llama", "rms_norm_eps": 1e-5}
TURNS = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


class Projection(nn.Module):
    def __init__(self, features: int, width: int):
        super().__init__()
        self.proj = nn.Linear(features, width, bias=False)


class Connector(nn.Module):
    """Pixel shuffle: squares of `scale` x `scale` patches become one, `scale` ** 2 times as wide."""

    def __init__(self, scale: int, features: int, width: int):
        super().__init__()
        self.scale = scale
        self.modality_projection = Projection(features * scale**2, width)

    def __call__(self, x):
        count, patches, width = x.shape
        edge, scale = round(patches**0.5), self.scale
        x = x.reshape(count, edge // scale, scale, edge // scale, scale, width).swapaxes(2, 3)
        return linear(self.modality_projection.proj, x.reshape(count, (edge // scale) ** 2, -1))


class Idefics3(Model):
    renames = (
        (r"^model\.text_model\.", "language_model.model."),
        (r"^lm_head\.", "language_model.lm_head."),
        (r"^model\.(vision_model|connector)\.", r"\1."),
        (r"^language_model\.(embed_tokens|layers|norm)\.", r"language_model.model.\1."),
    )
    published_head = True
    published = ((r"^language_model\.model\.", "language_model."),)
    chat_template = TURNS

    def __init__(self, config: dict[str, Any]):
        super().__init__(config)
        text, vision = DecoderConfig.from_dict(self.text(config)), vision_config(config)
        if text.model_type not in TEXTS:
            raise CheckpointError(
                f"This {config['model_type']} checkpoint has a {text.model_type!r} text part; "
                f"supported: {', '.join(TEXTS)}."
            )
        scale = tokens_of(config)[1]
        self.image_token = image_token(config)
        self.vision_model = SiglipTower(vision)
        self.connector = Connector(scale, vision.hidden_size, text.hidden_size)
        self.language_model = Decoder(text)

    @classmethod
    def text(cls, config):
        """The head is tied where the root of config.json says so."""
        given = config.get("text_config")
        own = TEXT if given is None else {"model_type": "llama", **given}
        return {**own, "tie_word_embeddings": config.get("tie_word_embeddings", False)}

    @classmethod
    def media(cls, config, settings):
        cut, size = Splits.from_dict(settings.image), vision_config(config).image_size
        if cut.side != size:
            raise CheckpointError(
                f"preprocessor_config.json cuts squares of {cut.side}, but the vision tower takes {size} x {size}."
            )
        tokens, _ = tokens_of(config)

        def prepare(images):
            return cut(images), [splits_text(*cut.grid(image), tokens) for image in images]

        return [Medium("image", image_token(config), prepare)]

    def sanitize(self, weights):
        return self.vision_model.sanitize(super().sanitize(weights), "vision_model.")

    def features(self, pixels: mx.array, patches: np.ndarray) -> mx.array:
        """Projected features (N, tokens, D) of squares (N, 3, S, S); patches (N, S / patch, S / patch) are picture."""
        return self.connector(self.vision_model(pixels, patches))

    def pictures(self, prompt: Prompt) -> mx.array:
        """What stands in the places of the prompt's pictures, (places, D)."""
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
        real = (pixels[0] != 0).any(axis=(1, 2, 3))  # the others only fill up
        real[0] |= not real.any()
        cells = mask[0][real][:, : edge * side, : edge * side].reshape(-1, edge, side, edge, side)
        pictures = media_array(pixels[0][real], self.vision_model.dtype)
        return self.features(pictures, cells.astype(bool).any(axis=(2, 4))).flatten(0, 1)

    def embed(self, prompt: Prompt) -> mx.array:
        ids = self.ids(prompt)
        places = np.flatnonzero(prompt.input_ids == self.image_token)
        embeds = self.language_model.embed(ids)
        if "pixel_values" not in prompt.media:
            if places.size:
                raise PromptError("The prompt has a place for a picture, but no picture was given.")
            return embeds
        return merge(embeds, self.pictures(prompt), places, "image")

    def spans(self, prompt: Prompt) -> tuple[Span, ...]:
        """One for each square of a picture."""
        if prompt.spans is not None:
            return tuple(prompt.spans)
        return runs(prompt.input_ids, self.image_token, "image")


def vision_config(config: dict[str, Any]) -> SiglipConfig:
    return SiglipConfig.from_dict({**VISION, **(config.get("vision_config") or {})})


def tokens_of(config: dict[str, Any]) -> tuple[int, int]:
    """Tokens of a square, and how many patches along one side make one token."""
    scale, edge = config.get("scale_factor") or 2, vision_config(config).edge
    if edge % scale:
        raise CheckpointError(f"scale_factor is {scale}, which does not divide {edge} patches.")
    return (edge // scale) ** 2, scale


def image_token(config: dict[str, Any]) -> int:
    token = config.get("image_token_id")
    return IMAGE_TOKEN if token is None else token
