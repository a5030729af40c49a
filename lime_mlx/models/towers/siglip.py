"""The SigLIP vision tower: CLIP's blocks without a class token, and positions that may follow a mask (Idefics3).

Paper: Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training" (arXiv 2303.15343).
"""

from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from lime_mlx.models.layers import LayerNorm, Tower, channels_last
from lime_mlx.models.towers.clip import ClipConfig, Encoder


@dataclass(frozen=True)
class SiglipConfig(ClipConfig):
    """`vision_config` of config.json; defaults are those of transformers' siglip_vision_model."""

    patch_size: int = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6


class Embeddings(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        size = config.patch_size
        self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, size, size)
        self.position_embedding = nn.Embedding(config.edge**2, config.hidden_size)

    def __call__(self, pixels: mx.array, positions: mx.array) -> mx.array:
        embeds: mx.array = self.patch_embedding(pixels.transpose(0, 2, 3, 1)).flatten(1, 2) + self.position_embedding(
            positions
        )
        return embeds


class SiglipTower(Tower):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the weights, and so of the pixels."""
        weight: mx.array = self.embeddings.patch_embedding.weight
        return weight.dtype

    def __call__(self, pixels: mx.array, patches: NDArray[np.bool_] | None = None) -> mx.array:
        """Hidden states (N, P, D) of pixels (N, 3, H, W), row by row.

        patches (N, H / patch, W / patch) bool: which patches are picture; the others are not seen, and a picture that
        fills fewer than the tower was made for has its positions spread over all of them.
        """
        edge = self.config.edge
        if patches is None or (patches.all() and patches.shape[1:] == (edge, edge)):
            positions, mask = mx.arange(edge * edge), None
        else:
            positions = mx.array(np.stack([spread(picture, edge) for picture in patches]))
            mask = mx.array(patches.reshape(len(patches), 1, 1, -1))
        h = self.embeddings(pixels, positions)
        for layer in self.encoder.layers:
            h = layer(h, mask)
        return self.post_layernorm(h)

    def sanitize(self, weights: dict[str, mx.array], prefix: str) -> dict[str, mx.array]:
        size = self.config.patch_size
        return channels_last(
            weights, f"{prefix}embeddings.patch_embedding.weight", (self.config.num_channels, size, size)
        )


def spread(patches: NDArray[np.bool_], edge: int) -> NDArray[np.int32]:
    """(H * W,) position of each patch of one picture, on a grid of edge x edge; 0 where there is no picture.

    In float32, as transformers computes it: where a patch falls on a boundary, rounding decides.
    """
    step = 1 / edge
    count = int(np.ceil((1.0 - step) / step))
    boundaries = (step + np.arange(count) * step).astype(np.float32)

    def buckets(length: int, filled: int) -> NDArray[np.intp]:
        ends = np.arange(length, dtype=np.float32) * (np.float32(1) / np.float32(max(filled, 1)))
        return np.searchsorted(boundaries, np.minimum(ends, np.float32(1 - 1e-6)), side="right")

    height, width = patches.shape
    rows, columns = buckets(height, int(patches[:, 0].sum())), buckets(width, int(patches[0].sum()))
    return np.where(patches, rows[:, None] * edge + columns[None], 0).reshape(-1).astype(np.int32)
