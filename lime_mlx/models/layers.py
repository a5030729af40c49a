"""Building blocks shared by the decoder and the towers: norms and projections that take a rule set."""

import mlx.core as mx
import mlx.nn as nn

from lime_mlx.errors import CheckpointError
from lime_mlx.lrp.rules import PLAIN, RATIOS, Rules


def check_activation(kind: str, where: str = "config.json") -> None:
    """Raises `CheckpointError` for an activation that is not supported."""
    if kind not in RATIOS:
        raise CheckpointError(f"{where} asks for the activation {kind!r}; supported: {', '.join(sorted(RATIOS))}.")


def channels_last(weights: dict[str, mx.array], name: str, stored: tuple[int, ...]) -> dict[str, mx.array]:
    """The weights, with the kernel `name` in MLX's layout. stored: PyTorch's shape of it, without the first axis."""
    kernel = weights.get(name)
    if kernel is None or kernel.shape[1:] != stored:
        return weights
    return {**weights, name: mx.moveaxis(kernel, 1, -1)}


class Module(nn.Module):
    """MLX's module, with a typed constructor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # MLX's own has no annotations


class Tower(Module):
    """Computes features of pictures or sounds."""

    def sanitize(self, weights: dict[str, mx.array], prefix: str) -> dict[str, mx.array]:
        """The weights with those of this tower, whose names start with `prefix`, in MLX's layouts. Idempotent."""
        return weights


class RMSNorm(Module):
    """plus_one: the stored weight lacks 1, which is added when the norm runs (Gemma)."""

    def __init__(self, dims: int, eps: float, plus_one: bool = False) -> None:
        super().__init__()
        self.weight = mx.zeros((dims,)) if plus_one else mx.ones((dims,))
        self.eps, self.plus_one = eps, plus_one

    def __call__(self, x: mx.array, rules: Rules = PLAIN) -> mx.array:
        return rules.rms_norm(x, 1 + self.weight if self.plus_one else self.weight, self.eps)


class LayerNorm(Module):
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
