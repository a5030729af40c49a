"""ACG: attention-space contrastive guidance, away from what the newest query would read without the picture.

Jo, Bae and Kim 2026, arXiv 2601.13707; the authors' code was read, too. For each head, o is the attention's output and
u what it would be with the picture's scores masked, for the newest query alone. Of their difference the part along u is
taken away: o + gamma (d - <d, u> u / |u|^2), d = o - u. With d = (A - U) V this is again a sum over the values, whose
weights are A + gamma (A - U - c U), c = <d, u> / |u|^2. Relevance takes c as a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import mlx.core as mx

from lime_mlx.attention import softmax
from lime_mlx.cache import Edit, Guidance
from lime_mlx.models.base import Model
from lime_mlx.session import Session
from lime_mlx.spec import Range

from .base import Layers, Method, PlainDecoding, layer_range, needs_media, visible

# gamma of the paper, by model_type; its newer models take GAMMA.
GAMMAS = {"llava": 2.4}
GAMMA = 2.0
SMALL = 1e-6


@dataclass(frozen=True)
class ACG(Method):
    """`acg:gamma=2,layers=all`: what the newest query reads is guided away from what it reads without the picture.

    gamma: None takes the checkpoint's own value, else the paper's for its family.
    """

    name = "acg"

    gamma: Annotated[float, Range(0)] | None = None
    layers: Layers = "all"

    def prepare(self, model: Model) -> GuidedDecoding:
        gamma = self.value(model, "gamma", GAMMAS.get(model.config.get("model_type", ""), GAMMA))
        return GuidedDecoding(gamma, layer_range(self.name, self.layers, len(model.language_model.layers)))


@dataclass(frozen=True)
class GuidedDecoding(PlainDecoding):
    """ACG made ready for a model."""

    gamma: float
    layers: range

    def edits(self, session: Session) -> Mapping[int, Edit]:
        needs_media("acg", session)
        return dict.fromkeys(self.layers, AwayFromText(self.gamma, mx.array(visible(session))))


@dataclass(frozen=True, eq=False)
class AwayFromText(Guidance):
    """The guidance of one token. media (T,) bool: the positions of picture or sound."""

    gamma: float
    media: mx.array

    def guided(self, scores: mx.array, v: mx.array) -> mx.array:
        all_read = softmax(scores)
        text_read = softmax(mx.where(self.media, mx.finfo(scores.dtype).min, scores))
        away = all_read - text_read
        difference, text = ((weights @ v[:, :, None]).astype(mx.float32) for weights in (away, text_read))
        norm = mx.linalg.norm(text, axis=-1, keepdims=True) + SMALL
        along = mx.stop_gradient(((difference * text).sum(axis=-1, keepdims=True) / norm**2).astype(scores.dtype))
        return all_read + self.gamma * (away - along * text_read)
