"""D-LEAF, reconstructed: in layers that look around without focus, weak heads follow the one that looks most.

Yang et al., arXiv 2509.07864. The paper attests that a layer is flagged when the entropy of its attention to the
picture (LIAE) exceeds a threshold that is updated from layer to layer, and that heads of a flagged layer with little
visual focus (IAF) are interpolated, by gamma, toward the head with most. What else is computed here is inferred, and
every such choice is an option.
"""

import math
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from lime_mlx.cache import softmax
from lime_mlx.errors import MethodError
from lime_mlx.methods.base import Plain, check_range, layer_range, needs_media, parse_layers
from lime_mlx.session import Session

CHOICES = {
    "heads": ("below-mean", "bottom-k"),
    "aggregate": ("mean", "max"),
    "threshold": ("running-best", "mean"),
}


@dataclass(frozen=True)
class DLeaf(Plain):
    """`dleaf:key=value,...`.

    gamma: how far weak heads go toward the best one, 0 to 1. layers: those that may be corrected. heads: which heads of
    a flagged layer are weak, below the layer's mean IAF or the k lowest. aggregate: how the heads' attention becomes
    the distribution whose entropy is LIAE. threshold: the lowest LIAE so far (BAS), or the mean of those so far.
    """

    name = "dleaf"

    gamma: float = 0.9
    layers: str = "all"
    heads: str = "below-mean"
    k: int = 4
    aggregate: str = "mean"
    threshold: str = "running-best"

    def __post_init__(self):
        check_range("dleaf", "gamma", self.gamma, 0, 1)
        check_range("dleaf", "k", self.k, 1, math.inf)
        for key, allowed in CHOICES.items():
            if getattr(self, key) not in allowed:
                raise MethodError(f"dleaf: {key} is {getattr(self, key)!r}; choose one of {', '.join(allowed)}.")
        parse_layers("dleaf", self.layers)

    def prepare(self, model) -> "DLeaf":
        layer_range("dleaf", self.layers, len(model.language_model.layers))
        return self

    def edits(self, session: Session):
        needs_media("dleaf", session)
        walk = Walk(self, mx.array(visible(session).astype(np.float32)), int(session.modality.sum()))
        return dict.fromkeys(layer_range("dleaf", self.layers, len(session.decoder.layers)), walk)


class Walk:
    """One token's way through the layers, in order: what was seen so far decides what is flagged."""

    def __init__(self, method: DLeaf, visible: mx.array, places: int):
        self.method, self.visible, self.places = method, visible, places
        self.best, self.total, self.count = mx.array(mx.inf), mx.array(0.0), mx.array(0)

    def __call__(self, scores: mx.array) -> mx.array:
        method = self.method
        weights = softmax(scores)
        rows = weights.reshape(-1, weights.shape[-1])
        focus, entropy = diagnosis(mx.stop_gradient(rows), self.visible, self.places, method.aggregate)
        below = method.heads == "below-mean"
        weak = focus < focus.mean() if below else mx.argsort(mx.argsort(focus)) < min(method.k, focus.size)
        step = mx.where(self._flag(entropy) & weak, method.gamma, 0).astype(rows.dtype)
        return (rows + step[:, None] * (rows[mx.argmax(focus)] - rows)).reshape(weights.shape)

    def _flag(self, entropy: mx.array) -> mx.array:
        """Whether a layer looks around more than those before it; the first never does, nor one that sees nothing."""
        if self.method.threshold == "mean":
            threshold, known = self.total / self.count, ~mx.isnan(entropy)
            self.total, self.count = self.total + mx.where(known, entropy, 0), self.count + known
        else:
            threshold = self.best
            self.best = mx.where(entropy < threshold, entropy, threshold)
        return entropy > threshold


def diagnosis(rows: mx.array, visible: mx.array, places: int, aggregate: str = "mean") -> tuple[mx.array, mx.array]:
    """IAF (H,) and LIAE () of attention rows (H, T); `visible` is (T,) float32, 1 at the `places` of picture or sound.

    IAF_h is head h's attention to the picture; LIAE the entropy of the heads' mean (or largest) attention over its
    positions, divided by the logarithm of their number: 0 one place, 1 everywhere alike, NaN where nothing is seen.
    """
    rows = rows.astype(mx.float32)
    joint = visible * (rows.mean(axis=0) if aggregate == "mean" else rows.max(axis=0))
    share = joint / joint.sum()
    entropy = mx.inner(share, mx.log(mx.maximum(share, 1e-12))) / -math.log(max(places, 2))
    return rows @ visible, entropy


def visible(session: Session) -> np.ndarray:
    """(T,) bool: which positions up to the newest are picture or sound."""
    return np.pad(session.modality, (0, session.embeds.shape[1] - len(session.modality)))
