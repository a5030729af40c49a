"""Building blocks shared by the decoder and the towers: norms and projections that take a rule set."""

import mlx.core as mx
import mlx.nn as nn

from lime_mlx.errors import CheckpointError
from lime_mlx.lrp.rules import PLAIN, RATIOS, Rules

# Rows from which, on the CPU, unpacking a quantised matrix once beats multiplying it packed.
UNPACK_ROWS = 8


def linear(layer: nn.Module, x: mx.array) -> mx.array:
    """`layer(x)` for an `nn.Linear` or `nn.QuantizedLinear`, whichever way is fast on this device."""
    if not isinstance(layer, nn.QuantizedLinear) or not _unpack(x):
        y: mx.array = layer(x)
        return y
    y = x @ unpacked(layer, x.dtype).T
    return y + layer.bias if "bias" in layer else y


def unpacked(layer: nn.Module, dtype: mx.Dtype) -> mx.array:
    """The dequantised weight (O, I) of a quantised linear or embedding layer."""
    weight = mx.dequantize(
        layer.weight,
        layer.scales,
        layer.get("biases"),
        group_size=layer.group_size,
        bits=layer.bits,
        mode=layer.mode,
    )
    return weight.astype(dtype)


def _unpack(x: mx.array) -> bool:
    return x.size >= UNPACK_ROWS * x.shape[-1] and mx.default_device() == mx.cpu


def check_activation(kind: str, where: str = "config.json") -> None:
    """Raises `CheckpointError` for an activation that is not built."""
    if kind not in RATIOS:
        raise CheckpointError(f"{where} asks for the activation {kind!r}; supported: {', '.join(sorted(RATIOS))}.")


def channels_last(weights: dict[str, mx.array], name: str, stored: tuple[int, ...]) -> dict[str, mx.array]:
    """The weights with the kernel `name` in MLX's layout; `stored` is its shape behind the first axis in PyTorch's."""
    kernel = weights.get(name)
    if kernel is None or kernel.shape[1:] != stored:
        return weights
    return {**weights, name: mx.moveaxis(kernel, 1, -1)}


class Tower(nn.Module):
    """What makes features of pictures or sounds."""

    def sanitize(self, weights: dict[str, mx.array], prefix: str) -> dict[str, mx.array]:
        """The weights of this tower, whose names begin with `prefix`, in MLX's layouts, from any they are stored in."""
        return weights


class RMSNorm(nn.Module):
    """`plus_one`: the weight is stored without the 1 that is added to it (Gemma)."""

    def __init__(self, dims: int, eps: float, plus_one: bool = False) -> None:
        super().__init__()
        self.weight = mx.zeros((dims,)) if plus_one else mx.ones((dims,))
        self.eps, self.plus_one = eps, plus_one

    def __call__(self, x: mx.array, rules: Rules = PLAIN) -> mx.array:
        return rules.rms_norm(x, 1 + self.weight if self.plus_one else self.weight, self.eps)


class LayerNorm(nn.Module):
    def __init__(self, dims: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.ones((dims,))
        self.bias = mx.zeros((dims,))
        self.eps = eps

    def __call__(self, x: mx.array, rules: Rules = PLAIN) -> mx.array:
        return rules.layer_norm(x, self.weight, self.bias, self.eps)


def split_heads(x: mx.array, heads: int) -> mx.array:
    """(B, T, heads * d) to (B, heads, T, d)."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def join_heads(x: mx.array) -> mx.array:
    """(B, heads, T, d) to (B, T, heads * d)."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)
