"""KVSmooth: each new cache entry is drawn toward the one before it, the more the less certain the attention was.

Jiang et al. 2026, arXiv 2602.04268. Stated there: K_t <- (1 - lam_t) K_t + lam_t K_(t-1), V likewise, per layer;
lam_t = clip(rank of the attention row's entropy among the last M, ref - 0.2, ref + 0.2), M = 15. Inferred: the
recursion runs on smoothed entries, entropies are the mean over heads in natural logarithm and count from the first
generated token, keys are taken after the rotary embedding, a step's own attention sees its entry as it was, layers 3
to L - 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import mlx.core as mx

from lime_mlx.cache import KVCache
from lime_mlx.errors import MethodError
from lime_mlx.models.base import Model
from lime_mlx.session import Session
from lime_mlx.spec import Range

from .base import Forward, Layers, Prepared, Wrapper, layer_range
from .sparing import Words

# lam_ref of the paper, by model_type; anything else takes REF.
REFS = {"llava": 0.9}
REF = 0.7
CLIP, SMOOTH = 0.2, "kv"


@dataclass(frozen=True)
class KVSmooth(Wrapper):
    """`kvsmooth:key=value,...`.

    ref: the middle of lam; clip: how far lam may be from ref; smooth: keys, values or both. None takes the checkpoint's
    own value, else the paper's for its family. window: how many entropies the newest is ranked among. layers: None
    leaves the first three and the last out. normalise: entropies are divided by the logarithm of the row's length.
    warmup: generated tokens that stay as they are. words: with unprompted, entries of other tokens stay as they are
    (Session.may_judge).
    """

    name = "kvsmooth"

    ref: Annotated[float, Range(0, 1)] | None = None
    window: Annotated[int, Range(1)] = 15
    clip: Annotated[float, Range(0, 1)] | None = None
    layers: Layers | None = None
    smooth: Literal["kv", "k", "v"] | None = None
    normalise: bool = False
    warmup: Annotated[int, Range(0)] = 0
    words: Words = "all"

    def prepare(self, model: Model) -> Smoothing:
        inner, count = self.inner.prepare(model), len(model.language_model.layers)
        if not inner.caches:
            raise MethodError("kvsmooth changes the cache, which lime:mode=exact does not use; take mode=fast.")
        # A model with fewer than six layers has no middle to speak of.
        layers = self.layers or (f"3-{count - 2}" if count > 5 else f"0-{max(0, count - 2)}")
        return Smoothing(
            options=self,
            inner=inner,
            ref=self.value(model, "ref", REFS.get(model.config.get("model_type", ""), REF)),
            clip=self.value(model, "clip", CLIP),
            smooth=self.value(model, "smooth", SMOOTH),
            layers=layer_range("kvsmooth", layers, count),
        )


@dataclass
class Entropies:
    """The entropies (L,) of the smoothed layers' attention rows, one for each token worked on, oldest first."""

    rows: list[mx.array] = field(default_factory=list)

    def fork(self) -> Entropies:
        return Entropies(list(self.rows))

    def truncate(self, count: int) -> None:
        del self.rows[max(0, count - 1) :]


@dataclass(frozen=True)
class Smoothing(Prepared):
    """KVSmooth made ready for a model."""

    options: KVSmooth
    inner: Prepared
    ref: float
    clip: float
    smooth: str
    layers: range

    def step(self, session: Session) -> Forward:
        options, position = self.options, session.embeds.shape[1] - 1
        if position < len(session.modality):  # the prompt's own last position
            return self.inner.step(session)
        by_layer: dict[int, mx.array] = {}
        with session.observing({index: self._keeper(by_layer, index) for index in self.layers}):
            forward = self.inner.step(session)
        entropies = mx.stack([by_layer[index] for index in self.layers])
        history = session.state.setdefault(options.name, Entropies())
        assert isinstance(history, Entropies)
        history.rows.append(entropies)
        rank = (mx.stack(history.rows[-options.window :]) < entropies).sum(axis=0) / options.window
        lam = mx.clip(rank, self.ref - self.clip, self.ref + self.clip)
        spared = options.words == "unprompted" and not session.may_judge(session.generated[-1])
        if len(session.generated) > options.warmup and not spared:
            self._smooth(session.cache, position, dict(zip(self.layers, lam, strict=True)))
        return forward

    def _keeper(self, by_layer: dict[int, mx.array], index: int) -> Callable[[mx.array], None]:
        """Keeps the entropy of the first row that a layer shows: the undisturbed one."""

        def keep(weights: mx.array) -> None:
            if index not in by_layer:
                row = weights.astype(mx.float32)
                entropy = -(row * mx.log(mx.maximum(row, 1e-12))).sum(axis=-1).mean()
                by_layer[index] = entropy / math.log(weights.shape[-1]) if self.options.normalise else entropy

        return keep

    def _smooth(self, cache: KVCache, position: int, lam: Mapping[int, mx.array]) -> None:
        """Overwrite the entries at `position` of the layers that have a lam."""
        smoothed: dict[int, Sequence[mx.array | None]] = {
            index: [
                _mixed(entries, share) if which in self.smooth else None
                for entries, which in zip(cache[index].between(position - 1, position + 1), "kv", strict=True)
            ]
            for index, share in lam.items()
        }
        # On their way before the buffer is written to: one that is still to be read would be copied.
        mx.async_eval(smoothed)
        for index, (k, v) in smoothed.items():
            cache[index].overwrite(position, k, v)


def _mixed(entries: mx.array, lam: mx.array) -> mx.array:
    """The second of two entries (1, K, 2, d), drawn by lam toward the first, (1, K, 1, d)."""
    old, new = entries[:, :, :1], entries[:, :, 1:]
    return ((1 - lam) * new + lam * old).astype(new.dtype)
