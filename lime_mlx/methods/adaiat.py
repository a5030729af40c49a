"""AdaIAT: more attention to the text that the model wrote before, in the layers and heads where that tells words apart.

Zhong et al. 2026, arXiv 2603.04908; the authors' code was read, too. From labelled captions: for each layer and head
the mean attention to a token of the answer while the model is about to name a thing that is there (r), or one that is
not (h). At a token whose attention a, summed over a layer's heads, is below sum h + beta (sum r - sum h), the weights
at the answer's tokens are multiplied by 1 + alpha (r / h - 1), and the row is brought back to a sum of 1.
Ours: a factor is not below 0, and is 1 where h is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.attention import softmax
from lime_mlx.cache import Edit
from lime_mlx.errors import LimeError, MethodError
from lime_mlx.files import read_json
from lime_mlx.models.base import Model
from lime_mlx.session import Session
from lime_mlx.spec import Range

from .base import Layers, Method, PlainDecoding
from .own_text import IAT_LAYERS, own_text, published_layers

# The keys of a file of statistics.
SUPPORTED, UNSUPPORTED = "supported", "unsupported"


@dataclass(frozen=True)
class AdaIAT(Method):
    """`adaiat:statistics=FILE,alpha=6,beta=0.5,layers=5-17`: IAT where attention to the own text is low.

    statistics: a JSON file with the mean attention of every layer and head before supported and before unsupported
    words, of the model's labelled captions; benchmarks/adaiat_statistics.py writes one. layers: None takes layers 5 to
    17 of 32, scaled to the model's depth.
    """

    name = "adaiat"

    statistics: str
    alpha: Annotated[float, Range(0)] | None = None
    beta: Annotated[float, Range(0)] | None = None
    layers: Layers | None = None

    def prepare(self, model: Model) -> LowBoost:
        layers = published_layers(self.name, self.layers, IAT_LAYERS, model)
        supported, unsupported = self._read(model)
        alpha, beta = self.value(model, "alpha", 6.0), self.value(model, "beta", 0.5)
        share = np.divide(supported, unsupported, out=np.ones_like(supported), where=unsupported > 0)
        factors = np.maximum(1 + alpha * (share - 1), 0)
        real, invented = supported.sum(axis=1), unsupported.sum(axis=1)
        return LowBoost(layers, mx.array(factors), mx.array(invented + beta * (real - invented)))

    def _read(self, model: Model) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Both statistics (L, H). Raises `MethodError` for a file that is missing or of another model."""
        config = model.language_model.config
        try:
            content = read_json(Path(self.statistics))
            rows = [np.array(content.get(key), dtype=np.float32) for key in (SUPPORTED, UNSUPPORTED)]
        except (LimeError, TypeError, ValueError) as problem:
            raise MethodError(f"adaiat: {self.statistics} holds no statistics of attention.") from problem
        if any(part.shape != (config.num_hidden_layers, config.num_attention_heads) for part in rows):
            raise MethodError(f"adaiat: {self.statistics} holds no statistics of this model; write them anew.")
        return rows[0], rows[1]


@dataclass(frozen=True, eq=False)
class LowBoost(PlainDecoding):
    """AdaIAT made ready for a model. factors (L, H): at the answer's tokens; limits (L,): of their attention."""

    layers: range
    factors: mx.array
    limits: mx.array

    def edits(self, session: Session) -> Mapping[int, Edit]:
        own = own_text(session)
        return {layer: self._edit(layer, mx.array(own)) for layer in self.layers} if own.any() else {}

    def _edit(self, layer: int, own: mx.array) -> Edit:
        def boosted(scores: mx.array) -> mx.array:
            weights = softmax(scores)
            low = mx.stop_gradient(mean_attention(weights, own).sum()) < self.limits[layer]
            factors = self.factors[layer].reshape(*weights.shape[1:3], 1, 1).astype(weights.dtype)
            raised = mx.where(own & low, weights * factors, weights)
            return raised / raised.sum(axis=-1, keepdims=True)

        return boosted


def mean_attention(weights: mx.array, own: mx.array) -> mx.array:
    """Mean attention (H,) float32 of weights (1, K, G, 1, T) to the positions `own` (T,) bool."""
    rows = weights[0].reshape(-1, weights.shape[-1]).astype(mx.float32)
    return mx.where(own, rows, 0).sum(axis=-1) / own.sum()
