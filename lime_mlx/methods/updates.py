"""Step rules: what is made of a gradient. `lr` is about the size of an entry's change in each of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import mlx.core as mx

# One dict a layer, from names to arrays.
Deltas = list[dict[str, mx.array]]


class Squared(Protocol):
    """An array, or what stands for one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def square(self) -> mx.array: ...


Squares = Sequence[Mapping[str, Squared]]


class Update(Protocol):
    """A step rule with its step size, and what it remembers of earlier steps."""

    def update(self, gradient: Deltas, values: Deltas) -> Deltas:
        """The values after one step down the gradient; both have the same layers and names."""


class Adam:
    """Adam with bias correction in double precision: MLX's is float32 there and 6e-6 off at the first update."""

    def __init__(self, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        self.lr, self.betas, self.eps = lr, betas, eps
        self.count = 0
        self.first: Deltas = []
        self.second: Deltas = []

    def update(self, gradient: Deltas, values: Deltas) -> Deltas:
        beta1, beta2 = self.betas
        self.count += 1
        if self.count == 1:
            # The corrections cancel the factors of the first moments: half the passes over large arrays.
            self.first = _each(lambda g: (1 - beta1) * g, gradient)
            self.second = _each(lambda g: (1 - beta2) * g * g, gradient)
            return _each(lambda x, g: x - (self.lr * g) / (mx.abs(g) + self.eps), values, gradient)
        size = self.lr / (1 - beta1**self.count)
        root = (1 - beta2**self.count) ** -0.5
        self.first = _each(lambda g, m: beta1 * m + (1 - beta1) * g, gradient, self.first)
        self.second = _each(lambda g, m: beta2 * m + (1 - beta2) * g * g, gradient, self.second)
        return _each(lambda x, m, v: x - (size * m) / (mx.sqrt(v) * root + self.eps), values, self.first, self.second)


class Sign:
    """Every entry moves by lr, against the sign of its gradient."""

    def __init__(self, lr: float):
        self.lr = lr

    def update(self, gradient: Deltas, values: Deltas) -> Deltas:
        return _each(lambda x, g: x - self.lr * mx.sign(g), values, gradient)


class Normalised:
    """Along the gradient of all deltas as one vector; the root mean square of the entries' changes is lr."""

    name = "normalised"

    def __init__(self, lr: float):
        self.lr = lr

    def update(self, gradient: Deltas, values: Deltas) -> Deltas:
        size = self.size(gradient)
        return _each(lambda x, g: x - size * g, values, gradient)

    def size(self, gradient: Squares) -> mx.array:
        """What the gradient is multiplied by."""
        count = sum(math.prod(x.shape) for layer in gradient for x in layer.values())
        size: mx.array = self.lr * count**0.5 / mx.maximum(norm(gradient), 1e-30)
        return size


def norm(deltas: Squares) -> mx.array:
    """L2 norm () of all arrays as one vector."""
    return mx.sqrt(sum((x.square().sum() for layer in deltas for x in layer.values()), mx.array(0.0)))


def _each(function: Callable[..., mx.array], *deltas: Deltas) -> Deltas:
    """The function of the arrays that stand in the same layer under the same name."""
    return [
        {name: function(*(layer[name] for layer in layers)) for name in layers[0]}
        for layers in zip(*deltas, strict=True)
    ]


UPDATES: dict[str, Callable[[float], Update]] = {"adam": Adam, "sign": Sign, Normalised.name: Normalised}
