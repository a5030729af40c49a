"""ONLY: one layer's attention without its picture-bound heads gives a second opinion, to agree with or to contrast.

Wan et al. 2025, arXiv 2507.00898. Stated there: the heads of one layer are ranked by TVER, the entropy of their
attention to the text over that to the picture; those below the mean are left out; the logits l' that this gives are
added where they agree with l, and contrasted where they do not. How l' comes from the layer's output is that of the
authors' code: straight to the second half of the last layer, with 0.2 of what the last layer reads and 0.5 of the last
hidden state; attention above a mean and a standard deviation of its kind counts as none; so does the first position in
the text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import mlx.core as mx
import numpy as np

from lime_mlx.errors import MethodError
from lime_mlx.models.base import Model
from lime_mlx.session import Session
from lime_mlx.spec import Range

from .base import Forward, Prepared, Rescoring, needs_media, rescored, visible
from .contrastive import plausible

# What the second opinion keeps of the input of the last layer, and of the last hidden state.
READ, KEPT = 0.2, 0.5
SMALL = 1e-6


@dataclass(frozen=True)
class Only(Rescoring):
    """`only:agree=3,differ=1,gamma=0.25,layer=0,beta=0.1`: with the logits l' of one layer that reads mostly text.

    l + agree l' where the probabilities of l and l' differ by less than gamma in all, else (1 + differ) l - differ l',
    among tokens of at least beta times the largest probability under l. layer: the one without its picture-bound heads.
    """

    name = "only"

    agree: Annotated[float, Range(0)] | None = None
    differ: Annotated[float, Range(0)] | None = None
    gamma: Annotated[float, Range(0, 2)] | None = None
    layer: Annotated[int, Range(0)] = 0
    beta: Annotated[float, Range(0, 1)] = 0.1

    def prepare(self, model: Model) -> SecondOpinion:
        inner, count = self.inner.prepare(model), len(model.language_model.layers)
        if not inner.caches:
            raise MethodError("only reads the cache, which lime:mode=exact does not use; take mode=fast.")
        if self.layer >= count:
            raise MethodError(f"only: layer is {self.layer}, but the model has {count} layers.")
        agree, differ = self.value(model, "agree", 3.0), self.value(model, "differ", 1.0)
        return SecondOpinion(inner, agree, differ, self.value(model, "gamma", 0.25), self.layer, self.beta)


@dataclass(frozen=True)
class SecondOpinion(Prepared):
    """ONLY made ready for a model."""

    inner: Prepared
    agree: float
    differ: float
    gamma: float
    layer: int
    beta: float

    def step(self, session: Session) -> Forward:
        needs_media("only", session)
        if session.embeds.shape[1] == 1:
            raise MethodError("only needs a prompt of two tokens at least.")
        last = len(session.decoder.layers) - 1
        seen: dict[object, mx.array] = {}
        hidden = {index: _first(seen, index) for index in {self.layer - 1, last - 1, last} - {-1}}

        def blended(logits: mx.array) -> mx.array:
            if "logits" not in seen:
                seen["logits"] = mx.stop_gradient(self._logits(session, seen, last))
            other = seen["logits"]
            apart = mx.abs(mx.softmax(logits) - mx.softmax(other)).sum()
            added, taken = logits + self.agree * other, (1 + self.differ) * logits - self.differ * other
            return plausible(mx.where(apart < self.gamma, added, taken), logits, self.beta)

        with session.observing({self.layer: _first(seen, "weights")}, hidden):
            return rescored(self.inner, session, blended)

    def _logits(self, session: Session, seen: dict[object, mx.array], last: int) -> mx.array:
        """The second opinion (V,) of the newest position, from what its undisturbed forward showed."""
        decoder, position = session.decoder, session.embeds.shape[1] - 1
        layer, end = decoder.layers[self.layer], decoder.layers[last]
        past = session.cache[self.layer].entries()[1][:, :, :position]
        weights = without_picture_heads(seen["weights"], visible(session))
        read = layer.input_layernorm(seen.get(self.layer - 1, session.newest))
        text = layer.self_attn.attended(read, weights, past)
        h = READ * seen.get(last - 1, session.newest) + end.input_layernorm(text)
        norm = decoder.model.norm
        return decoder.head((norm(end.feed_forward(h)) + KEPT * norm(seen[last]))[0, -1])


def without_picture_heads(weights: mx.array, media: np.ndarray) -> mx.array:
    """Attention weights (1, K, G, 1, T) without their largest ones, and none in heads whose TVER is below the mean.

    media (T,) bool: the positions of picture or sound.
    """
    rows = weights.reshape(-1, weights.shape[-1]).astype(mx.float32)
    text = ~media & (np.arange(len(media)) > 0)
    entropies = []
    for part in (text, media):
        chosen, count = mx.array(part), int(part.sum())
        mean = mx.where(chosen, rows, 0).sum(axis=-1, keepdims=True) / max(count, 1)
        variance = mx.where(chosen, (rows - mean) ** 2, 0).sum(axis=-1, keepdims=True) / max(count - 1, 1)
        outlier = chosen & (rows > mean + mx.sqrt(variance)) if count > 1 else mx.zeros_like(chosen)
        rows = mx.where(outlier, 0, rows)
        share = mx.where(chosen, rows, 0)
        share = share / share.sum(axis=-1, keepdims=True)
        entropies.append(-(share * mx.log(share + SMALL)).sum(axis=-1))
    of_text, of_media = (mx.where(mx.isnan(x), other, x) for x, other in zip(entropies, (0, mx.inf), strict=True))
    ratio = of_text / of_media
    rows = mx.where((ratio < ratio.mean())[:, None], 0, rows)
    return rows.reshape(weights.shape).astype(weights.dtype)


def _first(seen: dict[object, mx.array], name: object) -> Callable[[mx.array], None]:
    """Keeps what is shown first: the undisturbed forward."""

    def keep(shown: mx.array) -> None:
        seen.setdefault(name, mx.stop_gradient(shown))

    return keep
