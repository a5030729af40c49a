"""KVSmooth: each new cache entry is drawn toward the one before it, the more the less certain the attention was.

Jiang et al. 2026, arXiv 2602.04268. Stated there: K_t <- (1 - lam_t) K_t + lam_t K_(t-1), V likewise, per layer;
lam_t = clip(rank of the attention row's entropy among the last M, ref - 0.2, ref + 0.2), M = 15. Inferred: the
recursion runs on smoothed entries, entropies are the mean over heads in natural logarithm and count from the first
generated token, keys are taken after the rotary embedding, a step's own attention sees its entry as it was, layers 3
to L - 2.
"""

import math
from dataclasses import dataclass

import mlx.core as mx

from lime_mlx.cache import KVCache
from lime_mlx.errors import MethodError
from lime_mlx.methods.base import Forward, Wrapper, check_range, layer_range, parse_layers
from lime_mlx.session import Session

# lam_ref of the paper, by model_type; anything else takes REF.
REFS = {"llava": 0.9}
REF = 0.7
SMOOTH = ("kv", "k", "v")


@dataclass(frozen=True)
class KVSmooth(Wrapper):
    """`kvsmooth:key=value,...`.

    ref: the middle of lam; None takes the family's. window: how many entropies the newest is ranked among. clip: how
    far lam may be from ref. layers: None leaves the first three and the last out. smooth: keys, values or both.
    normalise: entropies are divided by the logarithm of the row's length. warmup: generated tokens that stay as they
    are.
    """

    name = "kvsmooth"

    ref: float | None = None
    window: int = 15
    clip: float = 0.2
    layers: str | None = None
    smooth: str = "kv"
    normalise: bool = False
    warmup: int = 0

    def __post_init__(self):
        if self.ref is not None:
            check_range("kvsmooth", "ref", self.ref, 0, 1)
        check_range("kvsmooth", "window", self.window, 1, math.inf)
        check_range("kvsmooth", "clip", self.clip, 0, 1)
        check_range("kvsmooth", "warmup", self.warmup, 0, math.inf)
        if self.smooth not in SMOOTH:
            raise MethodError(f"kvsmooth: smooth is {self.smooth!r}; choose one of {', '.join(SMOOTH)}.")
        if self.layers is not None:
            parse_layers("kvsmooth", self.layers)

    def prepare(self, model) -> "KVSmooth":
        inner, count = self.inner.prepare(model), len(model.language_model.layers)
        if not inner.caches:
            raise MethodError("kvsmooth changes the cache, which lime:mode=exact does not use; take mode=fast.")
        # A model with fewer than six layers has no middle to speak of.
        chosen = self.layers or (f"3-{count - 2}" if count > 5 else f"0-{max(0, count - 2)}")
        layer_range("kvsmooth", chosen, count)
        ref = REFS.get(model.config.get("model_type"), REF) if self.ref is None else self.ref
        return KVSmooth(ref, self.window, self.clip, chosen, self.smooth, self.normalise, self.warmup, inner=inner)

    def step(self, session: Session) -> Forward:
        position = session.embeds.shape[1] - 1
        if position < len(session.modality):  # the prompt's own last position
            return self.inner.step(session)
        layers = layer_range("kvsmooth", self.layers, len(session.decoder.layers))
        found: dict[int, mx.array] = {}
        with session.observing({index: self._watch(found, index) for index in layers}):
            forward = self.inner.step(session)
        entropies = mx.stack([found[index] for index in layers])
        queue = session.state[self.name] = [*session.state.get(self.name, ()), entropies][-self.window :]
        rank = (mx.stack(queue) < entropies).sum(axis=0) / self.window
        lam = mx.clip(rank, self.ref - self.clip, self.ref + self.clip)
        if len(session.generated) > self.warmup:
            self._smooth(session.cache, position, dict(zip(layers, lam, strict=True)))
        return forward

    def _watch(self, found: dict[int, mx.array], index: int):
        """Keeps the entropy of the first row that a layer shows: the undisturbed one."""

        def watch(weights: mx.array) -> None:
            if index not in found:
                row = weights.astype(mx.float32)
                entropy = -(row * mx.log(mx.maximum(row, 1e-12))).sum(axis=-1).mean()
                found[index] = entropy / math.log(weights.shape[-1]) if self.normalise else entropy

        return watch

    def _smooth(self, cache: KVCache, position: int, lam: dict[int, mx.array]) -> None:
        """Overwrite the entries at `position` of the layers that have a lam."""
        smoothed = {
            index: [
                self._mixed(entries, position, share) if which in self.smooth else None
                for entries, which in zip(cache[index].entries(), "kv", strict=True)
            ]
            for index, share in lam.items()
        }
        # On their way before the buffer is written to: one that is still to be read would be copied.
        mx.async_eval(smoothed)
        for index, pair in smoothed.items():
            cache[index].overwrite(position, *pair)

    def _mixed(self, entries: mx.array, position: int, lam: mx.array) -> mx.array:
        old, new = entries[:, :, position - 1 : position], entries[:, :, position : position + 1]
        return ((1 - lam) * new + lam * old).astype(new.dtype)
