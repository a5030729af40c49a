"""Do maps depend on what the model learned? Its layers get random weights, from the top down, and maps must change.

Adebayo et al. 2018, "Sanity Checks for Saliency Maps" (arXiv 1810.03292): a map that stays the same when the weights
are shuffled shows the input and not what the model does with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from numpy.typing import ArrayLike, NDArray

from lime_mlx.models.base import Model


def cascade(model: Model, seed: int = 0) -> Iterator[str]:
    """Shuffle the weights of the decoder, from its last layer to its first, and say each time which is the newest.

    Each array keeps its values in another order, so that their distribution stays. The weights are put back when the
    iteration ends, however it ends.
    """
    generator = np.random.default_rng(seed)
    layers = model.language_model.layers
    kept = [_weights(layer) for layer in layers]
    try:
        for index in reversed(range(len(layers))):
            shuffled = [(name, _shuffled(array, generator)) for name, array in kept[index]]
            _put(layers[index], shuffled)
            yield f"layer {index}"
    finally:
        for layer, weights in zip(layers, kept, strict=True):
            _put(layer, weights)


def _weights(layer: nn.Module) -> list[tuple[str, mx.array]]:
    return list(dict(tree_flatten(layer.parameters())).items())


def _put(layer: nn.Module, weights: list[tuple[str, mx.array]]) -> None:
    layer.update(tree_unflatten(weights))
    mx.eval([array for _, array in weights])


def _shuffled(array: mx.array, generator: np.random.Generator) -> mx.array:
    order = mx.array(generator.permutation(array.size).astype(np.int32))
    return array.reshape(-1)[order].reshape(array.shape)


def likeness(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two maps, -1 to 1; 0 where one is even."""
    a, b = (_ranks(np.asarray(values, dtype=np.float64).ravel()) for values in (first, second))
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / size) if size > 0 else 0.0


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    stops = np.cumsum(counts)
    means: NDArray[np.float64] = (stops - (counts - 1) / 2)[inverse]
    return means
