"""Qwen2-VL: a tower for pictures of any shape; its tokens stand in a 3-D grid of positions.

Paper: Wang et al. 2024, "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution"
(arXiv 2409.12191).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.files import Json

from .layers import LayerNorm
from .qwen_vl import QwenVL
from .towers.clip import MLP
from .towers.qwen_vision import Merger, QwenTower, VisionConfig, frames, rope_angles

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class Qwen2Config(VisionConfig):
    hidden_size: int = 1280
    hidden_act: str = "quick_gelu"

    @classmethod
    def from_dict(cls, values: Json) -> Self:
        """`hidden_size` of config.json is the width of the output, `embed_dim` that of the tower."""
        width = values.get("embed_dim") or cls.hidden_size
        out = values.get("hidden_size") or cls.out_hidden_size
        ratio = values.get("mlp_ratio") or 4
        sizes = {"hidden_size": width, "out_hidden_size": out, "intermediate_size": int(width * ratio)}
        return super().from_dict({**values, **sizes})


class Qwen2Tower(QwenTower):
    config_class = Qwen2Config

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config, LayerNorm, MLP)
        self.merger = Merger(config, LayerNorm)

    def __call__(self, pixels: mx.array, grids: NDArray[np.intp]) -> list[mx.array]:
        h, angles, segments = self.patch_embed(pixels), rope_angles(grids, self.config), frames(grids)
        for block in self.blocks:
            h = block(h, angles, segments)
        return [self.merger(h)]


class Qwen2VL(QwenVL):
    tower = Qwen2Tower
