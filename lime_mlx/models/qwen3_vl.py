"""Qwen3-VL: learned positions beside the rotary ones, and features of several layers of the tower (DeepStack).

Papers: Bai et al. 2025, "Qwen3-VL Technical Report" (arXiv 2511.21631); Meng et al. 2024, "DeepStack: Deeply Stacking
Visual Tokens is Surprisingly Simple and Effective for LMMs" (arXiv 2406.04334).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from lime_mlx.lrp.rules import PLAIN
from lime_mlx.products import product

from .layers import LayerNorm, Module
from .qwen_vl import QwenVL
from .towers.qwen_vision import EPS, QwenTower, VisionConfig, cells_of, frames, rope_angles


@dataclass(frozen=True, kw_only=True)
class Qwen3Config(VisionConfig):
    """num_position_embeddings: cells of a square grid. deepstack_visual_indexes: layers whose output is also merged."""

    depth: int = 27
    hidden_size: int = 1152
    intermediate_size: int = 4304
    hidden_act: str = "gelu_pytorch_tanh"
    patch_size: int = 16
    num_position_embeddings: int = 2304
    deepstack_visual_indexes: Sequence[int] = (8, 16, 24)


class Perceptron(Module):
    """Two layers, `sizes` (in, hidden, out)."""

    def __init__(self, sizes: tuple[int, int, int], activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.linear_fc1 = nn.Linear(*sizes[:2])
        self.linear_fc2 = nn.Linear(*sizes[1:])

    def __call__(self, x: mx.array) -> mx.array:
        return product(self.linear_fc2, PLAIN.activation(product(self.linear_fc1, x), self.activation))


class MLP(Perceptron):
    def __init__(self, config: Qwen3Config) -> None:
        super().__init__((config.hidden_size, config.intermediate_size, config.hidden_size), config.hidden_act)


class Merger(Perceptron):
    """Merges the patches of a window into one token. together: the norm is over all patches of a window."""

    def __init__(self, config: Qwen3Config, together: bool) -> None:
        self.width = config.window * config.hidden_size
        super().__init__((self.width, self.width, config.out_hidden_size), "gelu")
        self.together = together
        self.norm = LayerNorm(self.width if together else config.hidden_size, EPS)

    def __call__(self, h: mx.array) -> mx.array:
        windows = (-1, self.width)
        return super().__call__(self.norm(h.reshape(windows)) if self.together else self.norm(h).reshape(windows))


def corners(grids: NDArray[np.intp], config: Qwen3Config) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The 4 cells (N, 4) of the learned grid around each patch, and their weights. Both grids share their corners."""
    side = math.isqrt(config.num_position_embeddings)
    ends = np.repeat(grids[:, 1:], grids.prod(axis=1), axis=0).T - 1
    where = cells_of(grids, config.spatial_merge_size) * (side - 1) / np.maximum(ends, 1)
    low = where.astype(np.int64)
    near = np.stack([low, np.minimum(low + 1, side - 1)], axis=-1)
    share = np.stack([1 - (where - low), where - low], axis=-1)
    (rows, columns), (down, across) = near, share
    cells = rows[:, :, None] * side + columns[:, None]
    return cells.reshape(-1, 4), (down[:, :, None] * across[:, None]).reshape(-1, 4)


class Qwen3Tower(QwenTower):
    config_class = Qwen3Config
    bias = True
    config: Qwen3Config

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__(config)
        self.pos_embed = nn.Embedding(config.num_position_embeddings, config.hidden_size)
        self.merger = Merger(config, together=False)
        self.deepstack_merger_list = [Merger(config, together=True) for _ in config.deepstack_visual_indexes]

    def mlp(self) -> MLP:
        return MLP(self.config)

    def __call__(self, pixels: mx.array, grids: NDArray[np.intp]) -> list[mx.array]:
        cells, weights = corners(grids, self.config)
        learned = (self.pos_embed(mx.array(cells)) * mx.array(weights.astype(np.float32))[..., None]).sum(axis=1)
        h = self.patch_embed(pixels)
        h, angles, segments = h + learned.astype(h.dtype), rope_angles(grids, self.config), frames(grids)
        indexes, later = list(self.config.deepstack_visual_indexes), []
        for index, block in enumerate(self.blocks):
            h = block(h, angles, segments)
            if index in indexes:
                later.append(self.deepstack_merger_list[indexes.index(index)](h))
        return [self.merger(h), *later]


class Qwen3VL(QwenVL):
    chat_template = "qwen3_vl"
    tower = Qwen3Tower
    sections = (24, 20, 20)
    interleaved = True
