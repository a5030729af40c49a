"""Methods that make the newest query attend more to the text that the model wrote before: IAT and LocoRE.

IAT: Zhong et al. 2026, arXiv 2603.04908; the authors' code was read, too. It is AdaIAT (adaiat.py) without the
statistics of labelled captions by which that one chooses times and heads. LocoRE: Zhang et al. 2026, arXiv 2601.20279;
its module is missing in the authors' code, and the paper gives no window.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log1p
from typing import Annotated

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.models.base import Model
from lime_mlx.session import Session
from lime_mlx.spec import Range

from .attention import Boost, PaiBoost
from .base import Layers, Method, layer_range

# The layers of both, first and last of 32.
IAT_LAYERS, LOCORE_LAYERS = (5, 17), (9, 14)


@dataclass(frozen=True)
class IAT(Method):
    """`iat:alpha=0.8,layers=5-17`: before the softmax, scores at generated tokens grow by alpha times their size.

    layers: None takes layers 5 to 17 of 32, scaled to the model's depth.
    """

    name = "iat"

    alpha: Annotated[float, Range(0)] | None = None
    layers: Layers | None = None

    def prepare(self, model: Model) -> OwnTextBoost:
        layers = published_layers(self.name, self.layers, IAT_LAYERS, model)
        return OwnTextBoost(self.name, layers, self.value(model, "alpha", 0.8))


@dataclass(frozen=True)
class LocoRE(Method):
    """`locore:beta=0.15,window=5,layers=9-14`: attention to the latest tokens of the answer, times 1 + beta.

    The weights are brought back to a sum of 1: the same as log(1 + beta) added to the scores. window: tokens before the
    newest one that count with it. layers: None takes layers 9 to 14 of 32, scaled to the model's depth.
    """

    name = "locore"

    beta: Annotated[float, Range(0)] | None = None
    window: Annotated[int, Range(0)] | None = None
    layers: Layers | None = None

    def prepare(self, model: Model) -> LatestBoost:
        layers = published_layers(self.name, self.layers, LOCORE_LAYERS, model)
        beta, window = self.value(model, "beta", 0.15), self.value(model, "window", 5)
        return LatestBoost(self.name, layers, beta, window)


class OwnTextBoost(PaiBoost):
    """Scores at generated tokens grow by their own size, times the strength."""

    def positions(self, session: Session) -> NDArray[np.bool_]:
        return own_text(session)


@dataclass(frozen=True)
class LatestBoost(Boost):
    """Weights of the latest generated tokens grow by the strength, which is the share that is added."""

    window: int

    def positions(self, session: Session) -> NDArray[np.bool_]:
        newest = session.embeds.shape[1] - 1
        return np.arange(newest + 1) >= max(len(session.prompt), newest - self.window)

    def gain(self, scores: mx.array) -> mx.array:
        return mx.array(log1p(self.strength), scores.dtype)


def own_text(session: Session) -> NDArray[np.bool_]:
    """(T,) bool: which positions up to the newest are tokens of the answer."""
    return np.arange(session.embeds.shape[1]) >= len(session.prompt)


def published_layers(method: str, chosen: str | None, published: tuple[int, int], model: Model) -> range:
    """The layers that are chosen, else those published for 32 layers at the same depth."""
    count = len(model.language_model.layers)
    first, last = (min(round(layer * count / 32), count - 1) for layer in published)
    return layer_range(method, chosen or f"{first}-{last}", count)
