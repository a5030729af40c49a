"""Methods that make the newest query look harder at the picture or the sound, before the softmax.

PAI: Liu et al. 2024, arXiv 2407.21771, the part that changes attention (its guidance is in contrastive.py).
Heads-guided attention: Jiang et al. 2024, "Devils in Middle Layers", arXiv 2411.16724.
"""

from abc import abstractmethod
from dataclasses import dataclass

import mlx.core as mx

from lime_mlx.cache import Edit, softmax
from lime_mlx.methods.base import Plain, check_range, layer_range, needs_media, parse_layers
from lime_mlx.session import Session

from .dleaf import visible

UNBOUNDED = float("inf")


@dataclass(frozen=True)
class Boost(Plain):
    """Adds to the scores of picture and sound in `layers`; a masked score stays masked."""

    @abstractmethod
    def gain(self, scores: mx.array) -> mx.array:
        """What is added, of the shape of the scores (1, H, G, 1, T) or broadcastable to it."""

    def edits(self, session: Session):
        needs_media(self.name, session)
        return dict.fromkeys(layer_range(self.name, self.layers, len(session.decoder.layers)), self.boost(session))

    def boost(self, session: Session) -> Edit:
        seen = mx.array(visible(session))

        def boosted(scores):
            there = seen & (scores > mx.finfo(scores.dtype).min / 2)
            return softmax(mx.where(there, scores + self.gain(mx.where(there, scores, 0)), scores))

        return boosted


@dataclass(frozen=True)
class Heads(Boost):
    """`heads:strength=0.5,layers=5-18`: every head gets the mean of all heads' absolute scores.

    layers: None takes layers 5 to 18 of 32, scaled to the model's depth.
    """

    name = "heads"

    strength: float = 0.5
    layers: str | None = None

    def __post_init__(self):
        check_range("heads", "strength", self.strength, 0, UNBOUNDED)
        if self.layers is not None:
            parse_layers("heads", self.layers)

    def prepare(self, model):
        count = len(model.language_model.layers)
        chosen = self.layers or f"{round(5 * count / 32)}-{min(round(18 * count / 32), count - 1)}"
        layer_range("heads", chosen, count)
        return Heads(self.strength, chosen)

    def gain(self, scores):
        return self.strength * mx.abs(scores).mean(axis=(1, 2), keepdims=True)


@dataclass(frozen=True)
class Look(Boost):
    """The attention part of PAI: scores grow by `alpha` times their size, from layer 2 on where `layers` is None."""

    name = "pai"

    alpha: float = 0.2
    layers: str | None = None

    def __post_init__(self):
        if self.layers is not None:
            parse_layers("pai", self.layers)

    def prepare(self, model):
        count = len(model.language_model.layers)
        chosen = self.layers or f"{min(2, count - 1)}-"
        layer_range("pai", chosen, count)
        return Look(self.alpha, chosen)

    def gain(self, scores):
        return self.alpha * mx.abs(scores)
