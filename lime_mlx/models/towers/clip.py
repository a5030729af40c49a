"""The CLIP vision tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import mlx.core as mx
import mlx.nn as nn

from lime_mlx.errors import CheckpointError
from lime_mlx.files import Json
from lime_mlx.lrp.rules import PLAIN
from lime_mlx.models.config import Config
from lime_mlx.models.layers import (
    LayerNorm,
    Module,
    Tower,
    channels_last,
    check_activation,
    join_heads,
    split_heads,
)
from lime_mlx.products import product

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class ClipConfig(Config):
    """`vision_config` of config.json; defaults are CLIP ViT-B/32's, which transformers leaves out."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5

    @classmethod
    def from_dict(cls, values: Json) -> Self:
        config = super().from_dict(values)
        check_activation(config.hidden_act)
        width, heads = config.hidden_size, config.num_attention_heads
        if not heads or width % heads:
            raise CheckpointError(f"The {heads} heads of vision_config do not divide its width of {width:,}.")
        return config

    @property
    def edge(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        return self.edge**2

    @property
    def covered(self) -> float:
        """The share of each side that the patches cover. The rest, at the right and at the bottom, is not used."""
        return self.edge * self.patch_size / self.image_size


class Attention(Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        width = config.hidden_size
        self.scale = (width // self.heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))

    def __call__(self, x: mx.array, mask: mx.array | None = None) -> mx.array:
        q, k, v = (split_heads(product(part, x), self.heads) for part in (self.q_proj, self.k_proj, self.v_proj))
        return product(self.out_proj, join_heads(PLAIN.attention(q, k, v, self.scale, mask)))


class Widths(Protocol):
    """The config of the two layers after the attention."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def intermediate_size(self) -> int: ...

    @property
    def hidden_act(self) -> str: ...


class MLP(Module):
    def __init__(self, config: Widths) -> None:
        super().__init__()
        self.activation = config.hidden_act
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        return product(self.fc2, PLAIN.activation(product(self.fc1, x), self.activation))


class Block(Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.layer_norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.layer_norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def __call__(self, h: mx.array, mask: mx.array | None = None) -> mx.array:
        h = h + self.self_attn(self.layer_norm1(h), mask)
        return h + self.mlp(self.layer_norm2(h))


class Embeddings(Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        size = config.patch_size
        self.class_embedding = mx.zeros((config.hidden_size,))
        self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, size, size, bias=False)
        self.position_embedding = nn.Embedding(config.patches + 1, config.hidden_size)

    def __call__(self, pixels: mx.array) -> mx.array:
        patches = self.patch_embedding(pixels.transpose(0, 2, 3, 1)).flatten(1, 2)
        first = mx.broadcast_to(self.class_embedding, (patches.shape[0], 1, patches.shape[2]))
        embeds: mx.array = self.position_embedding(mx.arange(patches.shape[1] + 1))
        return mx.concatenate([first, patches], axis=1) + embeds


class Encoder(Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layers = [Block(config) for _ in range(config.num_hidden_layers)]


class VisionModel(Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.pre_layrnorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.encoder = Encoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)


class ClipTower(Tower):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_model = VisionModel(config)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the weights, and so of the pixels."""
        weight: mx.array = self.vision_model.embeddings.patch_embedding.weight
        return weight.dtype

    def sanitize(self, weights: dict[str, mx.array], prefix: str) -> dict[str, mx.array]:
        size = self.config.patch_size
        name = f"{prefix}vision_model.embeddings.patch_embedding.weight"
        return channels_last(weights, name, (self.config.num_channels, size, size))

    def __call__(self, pixels: mx.array) -> list[mx.array]:
        """Hidden states (N, 1 + P, D), CLS first, before the first layer and after each; pixels are (N, 3, S, S)."""
        model = self.vision_model
        states = [model.pre_layrnorm(model.embeddings(pixels))]
        for layer in model.encoder.layers:
            states.append(layer(states[-1]))
        return states
