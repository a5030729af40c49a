"""Rotary position embeddings: one counter, or the three coordinates of M-RoPE."""

import math
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from mlx_lm.models.rope_utils import initialize_rope
from numpy.typing import NDArray

from lime_mlx.errors import CheckpointError
from lime_mlx.files import Json

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
# The offset of consecutive positions, or cosines and sines (L, d).
Angles = int | tuple[mx.array, mx.array]


class Rope:
    """Rotates queries and keys (B, H, L, d) by angles that grow with their positions.

    Consecutive positions go to MLX's own rope. Coordinates (3, L) are M-RoPE (arXiv 2409.12191): each of the d / 2
    frequencies follows time, row or column, in chunks as long as `sections` say, or interleaved (Qwen3-VL).
    """

    def __init__(self, dim: int, theta: float, scaling: Json | None, longest: int) -> None:
        scaling = scaling or {}
        rest = {k: v for k, v in scaling.items() if not k.startswith("mrope")}
        self._plain = initialize_rope(dim, theta, False, rest if "type" in rest else None, longest)
        periods = getattr(self._plain, "_freqs", None)
        if periods is None:
            periods = theta ** (mx.arange(0, dim, 2) / dim) / getattr(self._plain, "scale", 1.0)
        self._periods = periods.astype(mx.float32)
        self._size = getattr(self._plain, "mscale", 1.0)
        sections = scaling.get("mrope_section")
        axes = [] if sections is None else _axes(sections, bool(scaling.get("mrope_interleaved")), dim // 2)
        self._axes = mx.array(axes)

    def angles(self, positions: int | mx.array) -> Angles:
        """What `__call__` takes: an offset as it is, or cosines and sines (L, d) of coordinates (3, L)."""
        if isinstance(positions, int):
            return positions
        angles = positions.astype(mx.float32)[self._axes].T / self._periods
        angles = mx.concatenate([angles, angles], axis=-1)
        return mx.cos(angles) * self._size, mx.sin(angles) * self._size

    def __call__(self, x: mx.array, angles: Angles) -> mx.array:
        if isinstance(angles, int):
            y: mx.array = self._plain(x, offset=angles)
            return y
        cosines, sines = angles
        return rotated(x, cosines.astype(x.dtype), sines.astype(x.dtype))


def rotated(x: mx.array, cosines: mx.array, sines: mx.array) -> mx.array:
    """`x` (..., d) rotated, in pairs that are d / 2 apart."""
    first, second = mx.split(x, 2, axis=-1)
    return x * cosines + mx.concatenate([-second, first], axis=-1) * sines


def _axes(sections: Sequence[int], interleaved: bool, half: int) -> NDArray[np.int64]:
    """(half,) which of the three coordinates each frequency follows."""
    if len(sections) != 3 or (sum(sections) != half and not interleaved):
        raise CheckpointError(f"mrope_section in config.json is {sections}; three numbers that add up to {half} fit.")
    if not interleaved:
        return np.repeat(np.arange(3), np.asarray(sections))
    axes = np.zeros(half, dtype=np.int64)
    for axis in (1, 2):
        axes[axis : 3 * sections[axis] : 3] = axis
    return axes


def rope_scaling(rope: Json, longest: int) -> Json | None:
    """`rope_scaling` or `rope_parameters` of config.json as mlx-lm reads it; None for plain rotary embeddings."""
    kind = rope.get("rope_type") or rope.get("type") or "default"
    sections = {k: v for k, v in rope.items() if k.startswith("mrope_")}
    if kind == "mrope" or (kind == "default" and sections):
        return sections
    if kind not in ROPE_TYPES:
        raise CheckpointError(f"config.json asks for {kind!r} rotary embeddings; supported: {', '.join(ROPE_TYPES)}.")
    if kind == "default":
        return None
    given = {k: v for k, v in rope.items() if v is not None}
    scaling = {"original_max_position_embeddings": longest, **given, "type": kind, "rope_type": kind}
    return _yarn(scaling) if kind == "yarn" else scaling


def _yarn(scaling: Json) -> Json:
    """As transformers reads it: the two mscales count together or not at all, and an attention factor before them."""
    if scaling.get("truncate") is False:
        raise CheckpointError("config.json asks for yarn rotary embeddings without truncation, which is not supported.")
    if not (scaling.get("mscale") and scaling.get("mscale_all_dim")):
        scaling |= {"mscale": 1, "mscale_all_dim": 0}
    if "attention_factor" in scaling and scaling["factor"] > 1:
        growth = 0.1 * math.log(scaling["factor"])
        scaling |= {"mscale": (scaling["attention_factor"] - 1) / growth, "mscale_all_dim": 0}
    return scaling
