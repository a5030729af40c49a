"""D-LEAF, reconstructed: in layers that look around without focus, weak heads follow the one that looks most.

Yang et al., arXiv 2509.07864. The paper attests that a layer is flagged when the entropy of its attention to the
picture (LIAE) exceeds a threshold that is updated from layer to layer, and that heads of a flagged layer with little
visual focus (IAF) are interpolated, by gamma, toward the head with most. What else is computed here is inferred, and
every such choice is an option.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

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

# The value of the paper.
GAMMA = 0.9


@dataclass(frozen=True)
class DLeaf(Method):
    """`dleaf:key=value,...`.

    gamma: how far weak heads go toward the best one, 0 to 1; None takes the checkpoint's own value, else the paper's.
    layers: those that may be corrected. heads: which heads of a flagged layer are weak, below the layer's mean IAF or
    the k lowest. aggregate: how the heads' attention becomes the distribution whose entropy is LIAE. threshold: the
    lowest LIAE so far (BAS), or the mean of those so far. words: see `sparing`.
    """

    name = "dleaf"

    gamma: Annotated[float, Range(0, 1)] | None = None
    layers: Layers = "all"
    heads: Literal["below-mean", "bottom-k"] = "below-mean"
    k: Annotated[int, Range(1)] = 4
    aggregate: Literal["mean", "max"] = "mean"
    threshold: Literal["running-best", "mean"] = "running-best"
    words: Words = "all"

    def prepare(self, model: Model) -> Prepared:
        gamma = self.value(model, "gamma", GAMMA)
        focus = LayerFocus(self, gamma, layer_range("dleaf", self.layers, len(model.language_model.layers)))
        return sparing(self.name, self.words, focus)


@dataclass(frozen=True)
class LayerFocus(PlainDecoding):
    """D-LEAF made ready for a model: the layers that it may correct."""

    options: DLeaf
    gamma: float
    layers: range

    def edits(self, session: Session) -> Mapping[int, Edit]:
        needs_media("dleaf", session)
        media = mx.array(visible(session).astype(np.float32))
        return dict.fromkeys(self.layers, Walk(self.options, self.gamma, media, int(session.modality.sum())))


class Walk:
    """One token's way through the layers, in order: the layers before it decide whether a layer is flagged.

    media (T,) float32 is 1 at the `count` positions of picture or sound.
    """

    def __init__(self, options: DLeaf, gamma: float, media: mx.array, count: int):
        self.options, self.gamma, self.media, self.count = options, gamma, media, count
        self.lowest, self.total, self.layers = mx.array(mx.inf), mx.array(0.0), mx.array(0)

    def __call__(self, scores: mx.array) -> mx.array:
        options = self.options
        weights = softmax(scores)
        rows = weights.reshape(-1, weights.shape[-1])
        iaf, liae = diagnosis(mx.stop_gradient(rows), self.media, self.count, options.aggregate)
        below = options.heads == "below-mean"
        weak = iaf < iaf.mean() if below else mx.argsort(mx.argsort(iaf)) < min(options.k, iaf.size)
        step = mx.where(self._flag(liae) & weak, self.gamma, 0).astype(rows.dtype)
        return (rows + step[:, None] * (rows[mx.argmax(iaf)] - rows)).reshape(weights.shape)

    def _flag(self, liae: mx.array) -> mx.array:
        """Whether a layer looks around more than those before it; the first never does, nor one that sees nothing."""
        if self.options.threshold == "mean":
            threshold, valid = self.total / self.layers, ~mx.isnan(liae)
            self.total, self.layers = self.total + mx.where(valid, liae, 0), self.layers + valid
        else:
            threshold = self.lowest
            self.lowest = mx.where(liae < threshold, liae, threshold)
        return liae > threshold


@dataclass(frozen=True, eq=False)
class Focus:
    """D-LEAF's diagnostics of a token or a word: liae (L,), NaN where a layer sees nothing of it, and iaf (L, H)."""

    liae: NDArray[np.float32]
    iaf: NDArray[np.float32]


def diagnosis(rows: mx.array, media: mx.array, count: int, aggregate: str = "mean") -> tuple[mx.array, mx.array]:
    """IAF (H,) and LIAE () of attention rows (H, T); `media` is (T,) float32, 1 at the `count` positions of media.

    IAF_h is head h's attention to the picture; LIAE the entropy of the heads' mean (or largest) attention over its
    positions, divided by the logarithm of their number: 0 one place, 1 everywhere alike, NaN where nothing is seen.
    """
    rows = rows.astype(mx.float32)
    joint = media * (rows.mean(axis=0) if aggregate == "mean" else rows.max(axis=0))
    share = joint / joint.sum()
    entropy = mx.inner(share, mx.log(mx.maximum(share, 1e-12))) / -math.log(max(count, 2))
    return rows @ media, entropy
