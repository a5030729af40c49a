"""Qwen2.5-VL: most layers of the tower see square windows of the picture only.

Paper: Bai et al. 2025, "Qwen2.5-VL Technical Report" (arXiv 2502.13923).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import CheckpointError
from lime_mlx.lrp.rules import PLAIN, Rules

from . import decoder
from .layers import RMSNorm
from .qwen_vl import QwenVL
from .towers.qwen_vision import Merger, QwenTower, Segments, VisionConfig, frames, rope_angles


@dataclass(frozen=True, kw_only=True)
class Qwen25Config(VisionConfig):
    """window_size: side of a window in pixels. fullatt_block_indexes: layers that see the whole picture."""

    window_size: int = 112
    fullatt_block_indexes: Sequence[int] = (7, 15, 23, 31)
    mlp_bias: bool = True

    @property
    def side(self) -> int:
        """Tokens along a side of a window."""
        return self.window_size // self.spatial_merge_size // self.patch_size


class MLP(decoder.MLP):
    def __call__(self, x: mx.array, rules: Rules = PLAIN) -> mx.array:
        return super().__call__(x, rules)


def windows(grids: NDArray[np.intp], config: Qwen25Config) -> Segments:
    """Every window of every frame on its own; those at the right and at the bottom are what is left."""
    numbers, first = [], 0
    for time, rows, columns in grids:
        shape = time, rows // config.spatial_merge_size, columns // config.spatial_merge_size
        frame, row, column = np.indices(shape)
        down, across = (-(-length // config.side) for length in shape[1:])
        numbers.append(first + ((frame * down + row // config.side) * across + column // config.side).ravel())
        first += time * down * across
    return Segments(np.repeat(np.concatenate(numbers), config.window))


class Qwen25Tower(QwenTower):
    config_class = Qwen25Config
    config: Qwen25Config

    def __init__(self, config: Qwen25Config) -> None:
        if config.side < 1:
            raise CheckpointError(
                f"window_size of vision_config is {config.window_size}, less than the "
                f"{config.spatial_merge_size * config.patch_size} pixels of a token."
            )
        super().__init__(config, RMSNorm, MLP)
        self.merger = Merger(config, RMSNorm)

    def __call__(self, pixels: mx.array, grids: NDArray[np.intp]) -> list[mx.array]:
        h, angles = self.patch_embed(pixels), rope_angles(grids, self.config)
        whole, parts = frames(grids), windows(grids, self.config)
        for index, block in enumerate(self.blocks):
            h = block(h, angles, whole if index in self.config.fullatt_block_indexes else parts)
        return [self.merger(h)]


class Qwen25VL(QwenVL):
    tower = Qwen25Tower
