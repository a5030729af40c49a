"""The SigLIP vision tower: CLIP's blocks without a class token, and positions that may follow a mask (Idefics3).

Paper: Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training" (arXiv 2303.15343).
"""

import inspect
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from lime_mlx.errors import CheckpointError
from lime_mlx.lrp.rules import RATIOS
from lime_mlx.models.layers import LayerNorm
from lime_mlx.models.towers.clip import Encoder


@dataclass(frozen=True)
class SiglipConfig:
    """`vision_config` of config.json; defaults are those of transformers' siglip_vision_model."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 16
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "SiglipConfig":
        """Raises `CheckpointError` for a variant that is not built."""
        known = {k: v for k, v in values.items() if k in inspect.signature(cls).parameters and v is not None}
        config = cls(**known)
        if config.hidden_act not in RATIOS:
            raise CheckpointError(
                f"config.json asks for the activation {config.hidden_act!r}; supported: {', '.join(sorted(RATIOS))}."
            )
        return config

    @property
    def edge(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size


class Embeddings(nn.Module):
    def __init__(self, config: SiglipConfig):
        super().__init__()
        size = config.patch_size
        self.patch_embedding = nn.Conv2d(config.num_channels, config.hidden_size, size, size)
        self.position_embedding = nn.Embedding(config.edge**2, config.hidden_size)

    def __call__(self, pixels, positions):
        return self.patch_embedding(pixels.transpose(0, 2, 3, 1)).flatten(1, 2) + self.position_embedding(positions)


class SiglipTower(nn.Module):
    def __init__(self, config: SiglipConfig):
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the weights, and so of the pixels."""
        return self.embeddings.patch_embedding.weight.dtype

    def __call__(self, pixels: mx.array, patches: np.ndarray | None = None) -> mx.array:
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
        """The patch kernel in MLX's layout, whichever it was stored in."""
        name, config = f"{prefix}embeddings.patch_embedding.weight", self.config
        kernel = weights.get(name)
        if kernel is not None and kernel.shape[1:] == (config.num_channels, config.patch_size, config.patch_size):
            weights[name] = kernel.transpose(0, 2, 3, 1)
        return weights


def spread(patches: np.ndarray, edge: int) -> np.ndarray:
    """(H * W,) position of each patch of one picture, on a grid of edge x edge; 0 where there is no picture.

    In float32, as transformers computes it: where a patch falls on a boundary, rounding decides.
    """
    step = 1 / edge
    count = int(np.ceil((1.0 - step) / step))
    boundaries = (step + np.arange(count) * step).astype(np.float32)

    def buckets(length: int, filled: int) -> np.ndarray:
        places = np.arange(length, dtype=np.float32) * (np.float32(1) / np.float32(max(filled, 1)))
        return np.searchsorted(boundaries, np.minimum(places, np.float32(1 - 1e-6)), side="right")

    height, width = patches.shape
    rows, columns = buckets(height, int(patches[:, 0].sum())), buckets(width, int(patches[0].sum()))
    return np.where(patches, rows[:, None] * edge + columns[None], 0).reshape(-1).astype(np.int32)
