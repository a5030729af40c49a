"""The Whisper encoder as an audio tower. Paper: Radford et al. 2022 (arXiv 2212.04356)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import CheckpointError
from lime_mlx.files import Json
from lime_mlx.lrp.rules import PLAIN
from lime_mlx.models.config import Config, renamed
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

Count = TypeVar("Count", int, NDArray[np.int32], mx.array)
EPS = 1e-5
# Other names of the same values, which transformers reads too.
ALIASES = {
    "hidden_size": "d_model",
    "num_hidden_layers": "encoder_layers",
    "num_attention_heads": "encoder_attention_heads",
    "intermediate_size": "encoder_ffn_dim",
}


@dataclass(frozen=True)
class WhisperConfig(Config):
    """`audio_config` of config.json; defaults are those of Qwen2-Audio's encoder in transformers.

    scale_embedding is no field: the encoder does not use it.
    """

    num_mel_bins: int = 128
    encoder_layers: int = 32
    encoder_attention_heads: int = 20
    encoder_ffn_dim: int = 5120
    d_model: int = 1280
    activation_function: str = "gelu"
    max_source_positions: int = 1500

    @classmethod
    def from_dict(cls, values: Json) -> Self:
        config = super().from_dict(renamed(values, ALIASES))
        check_activation(config.activation_function)
        if config.d_model % config.encoder_attention_heads or config.d_model % 2:
            raise CheckpointError(
                f"The audio tower is {config.d_model} wide, which cannot be divided by 2 and by its "
                f"{config.encoder_attention_heads} heads."
            )
        return config

    @property
    def frames(self) -> int:
        """The most mel frames that have a position: two to each."""
        return 2 * self.max_source_positions


def sinusoids(length: int, width: int) -> mx.array:
    """(length, width): sines of the position at falling frequencies from 1 to 1/10000, then their cosines."""
    frequencies = mx.exp(mx.arange(width // 2) * (-math.log(10000) / max(width // 2 - 1, 1)))
    angles = mx.arange(length)[:, None] * frequencies
    return mx.concatenate([mx.sin(angles), mx.cos(angles)], axis=1)


class Positions(Module):
    """A table of positions, which is not trained."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.weight = sinusoids(length, width)
        self.freeze()


class Attention(Module):
    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.heads, width = config.encoder_attention_heads, config.d_model
        self.scale = (width // self.heads) ** -0.5
        self.q_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(3))
        self.k_proj = nn.Linear(width, width, bias=False)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        q, k, v = (split_heads(product(part, x), self.heads) for part in (self.q_proj, self.k_proj, self.v_proj))
        return product(self.out_proj, join_heads(PLAIN.attention(q, k, v, self.scale, mask)))


class Block(Module):
    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.activation = config.activation_function
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = LayerNorm(config.d_model, EPS)
        self.fc1 = nn.Linear(config.d_model, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, config.d_model)
        self.final_layer_norm = LayerNorm(config.d_model, EPS)

    def __call__(self, h: mx.array, mask: mx.array) -> mx.array:
        h = h + self.self_attn(self.self_attn_layer_norm(h), mask)
        return h + product(self.fc2, PLAIN.activation(product(self.fc1, self.final_layer_norm(h)), self.activation))


class WhisperTower(Tower):
    """Convolutions, layers, average of each two positions, norm."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, 3, padding=1)
        self.conv2 = nn.Conv1d(config.d_model, config.d_model, 3, stride=2, padding=1)
        self.embed_positions = Positions(config.max_source_positions, config.d_model)
        self.layers = [Block(config) for _ in range(config.encoder_layers)]
        self.layer_norm = LayerNorm(config.d_model, EPS)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the weights, and so of the mel frames."""
        weight: mx.array = self.conv1.weight
        return weight.dtype

    def __call__(self, mel: mx.array, valid: mx.array) -> mx.array:
        """(N, T, D) of mel (N, bins, frames), of which the first `valid` (N,) frames are sound; T is frames / 4.

        No position of the sound attends to the rest, whose output means nothing.
        """
        h = PLAIN.activation(self.conv1(mel.swapaxes(1, 2)), "gelu")
        h = PLAIN.activation(self.conv2(h), "gelu")
        length = h.shape[1]
        h = h + self.embed_positions.weight[:length]
        mask = (mx.arange(length) < positions(valid)[:, None])[:, None, None]
        for layer in self.layers:
            h = layer(h, mask)
        pairs = h[:, : length // 2 * 2].reshape(h.shape[0], length // 2, 2, -1)
        return self.layer_norm(pairs.mean(axis=2))

    def sanitize(self, weights: dict[str, mx.array], prefix: str) -> dict[str, mx.array]:
        """Also adds the positions, which mlx-audio leaves out."""
        weights = laid_out(weights, prefix, self.config)
        if f"{prefix}conv1.weight" in weights:
            weights.setdefault(f"{prefix}embed_positions.weight", self.embed_positions.weight)
        return weights


def laid_out(weights: dict[str, mx.array], prefix: str, config: WhisperConfig) -> dict[str, mx.array]:
    """The kernels of the two convolutions in MLX's layout."""
    for name, channels in (("conv1", config.num_mel_bins), ("conv2", config.d_model)):
        if channels != 3:
            weights = channels_last(weights, f"{prefix}{name}.weight", (channels, 3))
    return dict(weights)


def positions(frames: Count) -> Count:
    """The number of positions after the convolutions, from the number of mel frames."""
    return (frames - 1) // 2 + 1


def pooled(frames: Count) -> Count:
    """The number of features, from the number of mel frames. A last position without a partner is left out."""
    return positions(frames) // 2
