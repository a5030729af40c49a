"""What the towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL share: patches, 2-D rotary positions, packed attention.

The patches of all pictures stand in one row, (N, D), those that become one token side by side. Grids are (pictures, 3):
time, rows and columns of each picture, in patches. Wang et al. 2024, "Qwen2-VL: Enhancing Vision-Language Model's
Perception of the World at Any Resolution" (arXiv 2409.12191).
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import CheckpointError
from lime_mlx.files import Json
from lime_mlx.lrp.rules import PLAIN
from lime_mlx.models.config import Config, renamed
from lime_mlx.models.layers import LayerNorm, Module, RMSNorm, Tower, channels_last, check_activation
from lime_mlx.models.rope import rotated
from lime_mlx.products import product

if TYPE_CHECKING:
    from typing_extensions import Self

Angles = tuple[mx.array, mx.array]
Norm = type[LayerNorm] | type[RMSNorm]
EPS = 1e-6
ALIASES = {"num_attention_heads": "num_heads", "num_hidden_layers": "depth"}
ROPE_TYPES = ("default", "axial")


@dataclass(frozen=True, kw_only=True)
class VisionConfig(Config):
    """`vision_config` of config.json; defaults are what transformers assumes for Qwen2.5-VL."""

    depth: int = 32
    hidden_size: int = 3584
    intermediate_size: int = 3420
    out_hidden_size: int = 3584
    num_heads: int = 16
    hidden_act: str = "silu"
    in_channels: int = 3
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    rope_theta: float = 1e4

    @classmethod
    def from_dict(cls, values: Json) -> Self:
        given = renamed(values, ALIASES)
        rope = given.get("rope_parameters") or given.get("rope_scaling") or {}
        kind = rope.get("rope_type") or rope.get("type") or "default"
        if kind not in ROPE_TYPES:
            raise CheckpointError(f"vision_config asks for {kind!r} rotary embeddings; only plain ones are supported.")
        config = super().from_dict(given | {k: v for k, v in rope.items() if k == "rope_theta"})
        check_activation(config.hidden_act, "vision_config")
        if config.hidden_size % (4 * config.num_heads):
            raise CheckpointError(
                f"vision_config has {config.num_heads} heads for a width of {config.hidden_size}; "
                f"a multiple of {4 * config.num_heads} is needed."
            )
        return config

    @property
    def window(self) -> int:
        """Patches that become one token."""
        return self.spatial_merge_size**2

    @property
    def kernel(self) -> tuple[int, int, int]:
        return self.temporal_patch_size, self.patch_size, self.patch_size


class PatchEmbed(Module):
    """A convolution whose kernel is its stride, on flattened patches (N, C * T * P * P): one product of matrices."""

    def __init__(self, config: VisionConfig, bias: bool) -> None:
        super().__init__()
        self.proj = nn.Conv3d(config.in_channels, config.hidden_size, config.kernel, config.kernel, bias=bias)

    def __call__(self, pixels: mx.array) -> mx.array:
        kernel: mx.array = self.proj.weight.transpose(0, 4, 1, 2, 3).flatten(1)
        embeds = pixels @ kernel.T
        return embeds + self.proj.bias if "bias" in self.proj else embeds


class Segments:
    """Patches that see each other: those of one number in `numbers` (N,). Segments of one length run together."""

    def __init__(self, numbers: NDArray[np.intp]) -> None:
        _, lengths = np.unique(numbers, return_counts=True)
        members = np.split(np.argsort(numbers, kind="stable"), np.cumsum(lengths)[:-1])
        groups = [np.stack([m for m in members if len(m) == length]) for length in np.unique(lengths)]
        self._groups = [mx.array(group) for group in groups]
        self._back = mx.array(np.argsort(np.concatenate([group.ravel() for group in groups])))

    def attention(self, q: mx.array, k: mx.array, v: mx.array, scale: float) -> mx.array:
        """(N, heads, d) of queries, keys and values (N, heads, d)."""
        parts = []
        for group in self._groups:
            queries, keys, values = (x[group].swapaxes(1, 2) for x in (q, k, v))
            parts.append(PLAIN.attention(queries, keys, values, scale, None).swapaxes(1, 2).flatten(0, 1))
        return mx.concatenate(parts)[self._back]


def frames(grids: NDArray[np.intp]) -> Segments:
    """Every frame of every picture on its own."""
    return Segments(np.repeat(np.arange(grids[:, 0].sum()), np.repeat(grids[:, 1] * grids[:, 2], grids[:, 0])))


def cells_of(grids: NDArray[np.intp], merge: int) -> NDArray[np.intp]:
    """(2, N) row and column of every patch."""
    patches = []
    for time, rows, columns in grids:
        cells = np.indices((rows, columns)).reshape(2, rows // merge, merge, columns // merge, merge)
        patches.append(np.tile(cells.transpose(0, 1, 3, 2, 4).reshape(2, -1), time))
    return np.concatenate(patches, axis=1)


def rope_angles(grids: NDArray[np.intp], config: VisionConfig) -> Angles:
    """Cosines and sines (N, 1, d): a quarter of the pairs' periods for rows, the same again for columns."""
    quarter = config.hidden_size // config.num_heads // 4
    periods = config.rope_theta ** (np.arange(quarter) / quarter)
    angles = cells_of(grids, config.spatial_merge_size)[..., None] / periods
    angles = np.tile(np.concatenate(list(angles), axis=-1), 2)[:, None]
    return mx.array(np.cos(angles).astype(np.float32)), mx.array(np.sin(angles).astype(np.float32))


class Attention(Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, self.heads = config.hidden_size, config.num_heads
        self.scale = (width // self.heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def __call__(self, x: mx.array, angles: Angles, segments: Segments) -> mx.array:
        q, k, v = product(self.qkv, x).reshape(x.shape[0], 3, self.heads, -1).swapaxes(0, 1)
        q, k = (rotated(part.astype(mx.float32), *angles).astype(x.dtype) for part in (q, k))
        return product(self.proj, segments.attention(q, k, v, self.scale).flatten(1))


class Block(Module):
    """One layer, with the norms and the MLP of its family."""

    def __init__(self, config: VisionConfig, norm: Norm, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1 = norm(config.hidden_size, EPS)
        self.norm2 = norm(config.hidden_size, EPS)
        self.attn = Attention(config)
        self.mlp = mlp

    def __call__(self, h: mx.array, angles: Angles, segments: Segments) -> mx.array:
        h = h + self.attn(self.norm1(h), angles, segments)
        y: mx.array = self.mlp(self.norm2(h))
        return h + y


class Merger(Module):
    """The patches of a window to one token: (N, D) to (tokens, out_hidden_size)."""

    def __init__(self, config: VisionConfig, norm: Norm) -> None:
        super().__init__()
        self.width = config.window * config.hidden_size
        self.ln_q = norm(config.hidden_size, EPS)
        self.mlp = [nn.Linear(self.width, self.width), nn.GELU(), nn.Linear(self.width, config.out_hidden_size)]

    def __call__(self, h: mx.array) -> mx.array:
        first, activation, last = self.mlp
        return product(last, activation(product(first, self.ln_q(h).reshape(-1, self.width))))


class QwenTower(Tower):
    """`config_class` reads `vision_config`; `__call__` runs the blocks between patches and merger.

    norm: of all blocks. bias: whether the patches have one.
    """

    config_class: ClassVar[type[VisionConfig]] = VisionConfig
    norm: ClassVar[Norm] = LayerNorm
    bias: ClassVar[bool] = False

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config, self.bias)
        self.blocks = [Block(config, self.norm, self.mlp()) for _ in range(config.depth)]

    @abstractmethod
    def mlp(self) -> nn.Module:
        """The layers behind the attention of one block, by `config`."""

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the weights, and so of the pixels."""
        weight: mx.array = self.patch_embed.proj.weight
        return weight.dtype

    def sanitize(self, weights: dict[str, mx.array], prefix: str) -> dict[str, mx.array]:
        return channels_last(
            weights, f"{prefix}patch_embed.proj.weight", (self.config.in_channels, *self.config.kernel)
        )

    @abstractmethod
    def __call__(self, pixels: mx.array, grids: NDArray[np.intp]) -> list[mx.array]:
        """Picture features (tokens, D) for the embeddings, then those for the first layers of the decoder, if any.

        pixels (N, C * T * P * P): flattened patches of all pictures; grids (pictures, 3).
        """
