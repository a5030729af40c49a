"""Step rules: what is made of a gradient. `lr` is about the size of an entry's change in each of them."""

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map


class Adam:
    """Adam with bias correction in double precision: MLX's is float32 there and 6e-6 off at the first update."""

    def __init__(self, lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8):
        self.lr, self.betas, self.eps = lr, betas, eps
        self.count, self.moments = 0, None

    def update(self, gradient: list, values: list) -> list:
        """The values after one step down the gradient; trees of one shape."""
        first, second = self.betas
        self.count += 1
        blend = lambda g, m: (first * m[0] + (1 - first) * g, second * m[1] + (1 - second) * g * g)  # noqa: E731
        if self.count == 1:
            # The corrections cancel the factors of the first moments: half the passes over large arrays.
            self.moments = tree_map(lambda g: ((1 - first) * g, (1 - second) * g * g), gradient)
            return tree_map(lambda x, g: x - (self.lr * g) / (mx.abs(g) + self.eps), values, gradient)
        size = self.lr / (1 - first**self.count)
        root = (1 - second**self.count) ** -0.5
        self.moments = tree_map(blend, gradient, self.moments)
        return tree_map(lambda x, m: x - (size * m[0]) / (mx.sqrt(m[1]) * root + self.eps), values, self.moments)


class Sign:
    """Every entry moves by lr, against the sign of its gradient."""

    def __init__(self, lr: float):
        self.lr = lr

    def update(self, gradient: list, values: list) -> list:
        return tree_map(lambda x, g: x - self.lr * mx.sign(g), values, gradient)


class Normalised:
    """Along the gradient of all deltas as one vector; the root mean square of the entries' changes is lr."""

    def __init__(self, lr: float):
        self.lr = lr

    def update(self, gradient: list, values: list) -> list:
        count = sum(x.size for _, x in tree_flatten(gradient))
        size = self.lr * count**0.5 / mx.maximum(norm(gradient), 1e-30)
        return tree_map(lambda x, g: x - size * g, values, gradient)


def norm(tree: list) -> mx.array:
    """L2 norm () of all arrays of a tree as one vector."""
    return mx.sqrt(sum((x.square().sum() for _, x in tree_flatten(tree)), mx.array(0.0)))


UPDATES = {"adam": Adam, "sign": Sign, "normalised": Normalised}
