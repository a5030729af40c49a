"""Methods that make the newest query attend more to the picture or the sound, before the softmax.

PAI: Liu et al. 2024, arXiv 2407.21771, the part that changes attention (its guidance is in contrastive.py).
Heads-guided attention: Jiang et al. 2024, "Devils in Middle Layers", arXiv 2411.16724.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.attention import softmax
from lime_mlx.cache import Edit
from lime_mlx.models.base import Model
from lime_mlx.session import Session
from lime_mlx.spec import Range

from .base import Layers, Method, PlainDecoding, Prepared, layer_range, needs_media, visible
from .sparing import Words, sparing


@dataclass(frozen=True)
class Boost(PlainDecoding):
    """Adds to the scores of some positions in `layers`: picture and sound; a masked score stays masked."""

    method: str
    layers: range
    strength: float

    @abstractmethod
    def gain(self, scores: mx.array) -> mx.array:
        """What is added, of the shape of the scores (1, K, G, 1, T) or broadcastable to it."""

    def positions(self, session: Session) -> NDArray[np.bool_]:
        """(T,) bool: the positions whose scores change. Raises `MethodError` for text alone."""
        needs_media(self.method, session)
        return visible(session)

    def edits(self, session: Session) -> Mapping[int, Edit]:
        positions = self.positions(session)
        return dict.fromkeys(self.layers, self._edit(mx.array(positions))) if positions.any() else {}

    def _edit(self, positions: mx.array) -> Edit:
        def boosted(scores: mx.array) -> mx.array:
            chosen = positions & (scores > mx.finfo(scores.dtype).min / 2)
            return softmax(mx.where(chosen, scores + self.gain(mx.where(chosen, scores, 0)), scores))

        return boosted


class HeadsBoost(Boost):
    """Every head gets the mean of all heads' absolute scores, times the strength."""

    def gain(self, scores: mx.array) -> mx.array:
        return self.strength * mx.abs(scores).mean(axis=(1, 2), keepdims=True)


class PaiBoost(Boost):
    """Scores grow by their own size, times the strength."""

    def gain(self, scores: mx.array) -> mx.array:
        return self.strength * mx.abs(scores)


@dataclass(frozen=True)
class Heads(Method):
    """`heads:strength=0.5,layers=5-18`: every head gets the mean of all heads' absolute scores.

    layers: None takes layers 5 to 18 of 32, scaled to the model's depth. words: see `sparing`.
    """

    name = "heads"

    strength: Annotated[float, Range(0)] | None = None
    layers: Layers | None = None
    words: Words = "all"

    def prepare(self, model: Model) -> Prepared:
        count = len(model.language_model.layers)
        layers = self.layers or f"{round(5 * count / 32)}-{min(round(18 * count / 32), count - 1)}"
        boost = HeadsBoost(self.name, layer_range(self.name, layers, count), self.value(model, "strength", 0.5))
        return sparing(self.name, self.words, boost)


@dataclass(frozen=True)
class PaiAttention(Method):
    """The attention part of PAI: scores grow by `alpha` times their size (0.2), by default from layer 2 on."""

    name = "pai"

    alpha: float | None = None
    layers: Layers | None = None
    words: Words = "all"

    def prepare(self, model: Model) -> Prepared:
        count = len(model.language_model.layers)
        layers = self.layers or f"{min(2, count - 1)}-"
        boost = PaiBoost(self.name, layer_range(self.name, layers, count), self.value(model, "alpha", 0.2))
        return sparing(self.name, self.words, boost)
