"""Rule sets of Layer-wise Relevance Propagation, written as gradient x input.

A rule set changes how an operation treats the gradient and never what it computes: forward values are equal within
rounding for all of them. The model takes one as an argument. Sources: AttnLRP (Achtibat et al. 2024, arXiv 2402.05602),
CP-LRP (Ali et al. 2022, arXiv 2202.07304).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import mlx.core as mx
import mlx.nn as nn

from lime_mlx.attention import QUERIES, in_blocks, weighted
from lime_mlx.errors import MethodError
from lime_mlx.products import product

if TYPE_CHECKING:
    from typing_extensions import Self

ERF_SCALE = 1 / math.sqrt(2)
TANH_SCALE = math.sqrt(2 / math.pi)

# f(z) / z in closed form: no division, so nothing to protect at z = 0.
RATIOS: dict[str, Callable[[mx.array], mx.array]] = {
    "silu": mx.sigmoid,
    "gelu": lambda z: 0.5 * (1 + mx.erf(z * ERF_SCALE)),
    "gelu_pytorch_tanh": lambda z: 0.5 * (1 + mx.tanh(TANH_SCALE * (z + 0.044715 * z * z * z))),
    "quick_gelu": lambda z: mx.sigmoid(1.702 * z),
    "relu": lambda z: (z > 0).astype(z.dtype),
}
RATIOS["swish"] = RATIOS["silu"]
RATIOS["gelu_new"] = RATIOS["gelu_fast"] = RATIOS["gelu_pytorch_tanh"]

# A linear or embedding layer and rows (..., I), to rows (..., O).
Linear = Callable[[nn.Module, mx.array], mx.array]


def divide(x: mx.array, by: float) -> mx.array:
    """`x` to the last bit, with its gradient divided by `by` (uniform rule for a product of `by` factors)."""
    part = x * (1 / by)
    return mx.stop_gradient(x) + (part - mx.stop_gradient(part))


class Rules:
    """Plain gradients through ordinary operations; the base of the other rule sets.

    `key_share` and `value_share` are the factors by which a rule divides what reaches a key and a value entry.
    """

    name = "plain"
    key_share = 1.0
    value_share = 1.0

    def __init__(self, linear: Linear = product, stages: list[mx.array] | None = None) -> None:
        self.linear, self.stages = linear, stages

    def using(self, linear: Linear) -> Self:
        """The same rules, with products of weights that `linear` computes."""
        return type(self)(linear, self.stages)

    def paced(self, stages: list[mx.array]) -> Self:
        """The same rules for a first derivative alone, whose long attentions say what is to be computed first.

        stages: gets that, see `lime_mlx.attention.in_blocks`.
        """
        return type(self)(self.linear, stages)

    def rms_norm(self, x: mx.array, weight: mx.array, eps: float) -> mx.array:
        return x * mx.rsqrt(mx.mean(x * x, axis=-1, keepdims=True) + eps) * weight

    def layer_norm(self, x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
        centred = x - mx.mean(x, axis=-1, keepdims=True)
        variance = mx.mean(centred * centred, axis=-1, keepdims=True)
        return centred * mx.rsqrt(variance + eps) * weight + bias

    def activation(self, z: mx.array, kind: str) -> mx.array:
        return z * RATIOS[kind](z)

    def gate(self, activated: mx.array, up: mx.array) -> mx.array:
        return activated * up

    def softcap(self, z: mx.array, cap: float) -> mx.array:
        """cap * tanh(z / cap)."""
        return cap * mx.tanh(z / cap)

    def operands(self, q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        """Queries, keys and values as attention uses them."""
        return q, k, v

    def attention(self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
        """(B, H, L, d) from queries (B, H, L, d) and keys, values (B, H or fewer, T, d)."""
        if self.stages is not None and q.shape[2] > QUERIES:
            return in_blocks(q, k, v, scale, mask, self.stages)
        return weighted(q, k, v, scale, mask)


class Fused(Rules):
    """The same plain gradients through MLX's fused operations: the fast forward."""

    def rms_norm(self, x: mx.array, weight: mx.array, eps: float) -> mx.array:
        return mx.fast.rms_norm(x, weight, eps)

    def layer_norm(self, x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
        return mx.fast.layer_norm(x, weight, bias, eps)

    def attention(self, q: mx.array, k: mx.array, v: mx.array, scale: float, mask: mx.array | None) -> mx.array:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)


class AttnLRP(Rules):
    """AttnLRP: identity rule on norms and activations, uniform rule on products (arXiv 2402.05602, Prop. 3.1-3.4)."""

    name = "attnlrp"
    key_share = 0.25
    value_share = 0.5

    def rms_norm(self, x: mx.array, weight: mx.array, eps: float) -> mx.array:
        return x * mx.stop_gradient(mx.rsqrt(mx.mean(x * x, axis=-1, keepdims=True) + eps)) * weight

    def layer_norm(self, x: mx.array, weight: mx.array, bias: mx.array, eps: float) -> mx.array:
        centred = x - mx.mean(x, axis=-1, keepdims=True)
        variance = mx.mean(centred * centred, axis=-1, keepdims=True)
        return centred * mx.stop_gradient(mx.rsqrt(variance + eps)) * weight + bias

    def activation(self, z: mx.array, kind: str) -> mx.array:
        return z * mx.stop_gradient(RATIOS[kind](z))

    def softcap(self, z: mx.array, cap: float) -> mx.array:
        u = z / cap
        ratio = mx.where(mx.abs(u) < 1e-3, 1 - u * u / 3, mx.tanh(u) / mx.where(u == 0, 1, u))
        return z * mx.stop_gradient(ratio)

    def gate(self, activated: mx.array, up: mx.array) -> mx.array:
        return divide(activated * up, 2)

    def operands(self, q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        return divide(q, 4), divide(k, 4), divide(v, 2)


class MLPLRP(AttnLRP):
    """AttnLRP outside attention, and plain gradients through it: what LIME's released code for Qwen2-Audio computes.

    It is there to compare with that code; the paper (arXiv 2605.01766) means `attnlrp`.
    """

    name = "mlplrp"
    key_share = value_share = 1.0
    operands = Rules.operands


class CPLRP(AttnLRP):
    """CP-LRP: no relevance through queries, keys and gates (arXiv 2202.07304)."""

    name = "cplrp"
    key_share = 0.0
    value_share = 1.0

    def gate(self, activated: mx.array, up: mx.array) -> mx.array:
        return mx.stop_gradient(activated) * up

    def operands(self, q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        return mx.stop_gradient(q), mx.stop_gradient(k), v


PLAIN = Fused()
GRADIENT = Rules()
ATTN_LRP = AttnLRP()
CP_LRP = CPLRP()
MLP_LRP = MLPLRP()

_BY_NAME = {chosen.name: chosen for chosen in (ATTN_LRP, CP_LRP, MLP_LRP, GRADIENT)}
NAMES = tuple(_BY_NAME)


def rules(name: str) -> Rules:
    """The rule set to differentiate with: `attnlrp`, `cplrp`, `mlplrp` or `plain`.

    Raises `MethodError` for another name.
    """
    if name not in _BY_NAME:
        raise MethodError(f"Unknown rules {name!r}; choose one of {', '.join(sorted(_BY_NAME))}.")
    return _BY_NAME[name]
