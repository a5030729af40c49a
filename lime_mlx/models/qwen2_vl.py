"""Qwen2-VL: a tower for pictures of any shape; its tokens stand in a 3-D grid of positions.

Paper: Wang et al. 2024, "Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution"
(arXiv 2409.12191).
"""

from dataclasses import dataclass

from lime_mlx.models.towers.clip import MLP
from lime_mlx.models.towers.qwen_vision import Merger, Tower, VisionConfig, frames, turns

from .layers import LayerNorm
from .qwen_vl import QwenVL


@dataclass(frozen=True, kw_only=True)
class Qwen2Config(VisionConfig):
    hidden_size: int = 1280
    hidden_act: str = "quick_gelu"

    @classmethod
    def from_dict(cls, values):
        """`hidden_size` of config.json is the width of the output, `embed_dim` that of the tower."""
        width = values.get("embed_dim") or cls.hidden_size
        out = values.get("hidden_size") or cls.out_hidden_size
        ratio = values.get("mlp_ratio") or 4
        sizes = {"hidden_size": width, "out_hidden_size": out, "intermediate_size": int(width * ratio)}
        return super().from_dict({**values, **sizes})


class Qwen2Tower(Tower):
    config_class = Qwen2Config

    def __init__(self, config: Qwen2Config):
        super().__init__(config, LayerNorm, MLP)
        self.merger = Merger(config, LayerNorm)

    def __call__(self, pixels, grids):
        h, turn, segments = self.patch_embed(pixels), turns(grids, self.config), frames(grids)
        for block in self.blocks:
            h = block(h, turn, segments)
        return [self.merger(h)]


class Qwen2VL(QwenVL):
    tower = Qwen2Tower
