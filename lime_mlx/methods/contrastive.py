"""Contrastive decoding: the model's logits against those it gives when it sees or hears less.

VCD: Leng et al. 2024, arXiv 2311.16922. M3ID: Favero et al. 2024, arXiv 2403.14003. AAD: audio-aware decoding, Hsu et
al. 2025, arXiv 2506.07233. PAI's guidance: Liu et al. 2024, arXiv 2407.21771. The contrast branch has a session, and so
a cache, of its own.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from lime_mlx.errors import MethodError
from lime_mlx.models.base import Model
from lime_mlx.prompt import Prompt
from lime_mlx.session import Session
from lime_mlx.spec import Range

from .attention import PaiAttention
from .base import Forward, Layers, Plain, Prepared, Rescoring, nan_unless_finite, rescored
from .sparing import Words, sparing

# The forward diffusion of VCD's official code.
STEPS = 1000
BETAS = 1 / (1 + np.exp(-np.linspace(-6, 6, STEPS))) * (0.5e-2 - 1e-5) + 1e-5


# Scores (V,) from the logits of both branches at the n-th token of the answer, from 1.
Blend = Callable[[mx.array, mx.array, int], mx.array]


@dataclass(frozen=True)
class Contrastive(Rescoring):
    """The shared loop; a subclass says what the other branch is asked and how both logits are blended.

    Options that are None take the checkpoint's own value, else the paper's, which stands in the first line. words: see
    `sparing`; elsewhere the method inside gives the token.
    """

    words: Words = "all"

    def prepare(self, model: Model) -> Prepared:
        inner = self.inner.prepare(model)
        return sparing(self.name, self.words, Contrast(self, inner, self.blend(model)), inner)

    @abstractmethod
    def other(self, session: Session) -> Prompt:
        """The prompt of the contrast branch."""

    @abstractmethod
    def blend(self, model: Model) -> Blend:
        """How the logits of both branches become scores, with the options' values for a model."""


@dataclass(frozen=True)
class Contrast(Prepared):
    """A contrastive method made ready for a model."""

    method: Contrastive
    inner: Prepared
    blend: Blend

    @property
    def caches(self) -> bool:
        return self.inner.caches

    def step(self, session: Session) -> Forward:
        name = self.method.name
        if name not in session.state:
            session.state[name] = self._open(session)
        branch = session.state[name]
        assert isinstance(branch, Session)
        for token in session.generated[len(branch.generated) :]:
            branch.append(token)
        branch.prefill()
        other, count = branch.extend(), len(session.generated) + 1
        return rescored(self.inner, session, lambda logits: self.blend(logits, other, count))

    def _open(self, session: Session) -> Session:
        name = self.method.name
        if not session.modality.any():
            raise MethodError(f"{name} needs a picture or a sound in the prompt; use --method none for text alone.")
        sources = {(span.kind, span.source) for span in session.model.spans(session.prompt)}
        if len(sources) > 1:
            given = "pictures and sounds" if len({kind for kind, _ in sources}) > 1 else f"{len(sources)} of them"
            raise MethodError(f"{name} contrasts one picture or one sound, but the prompt has {given}.")
        return Session.open(session.model, self.method.other(session), kv=session.kv)


@dataclass(frozen=True)
class VCD(Contrastive):
    """`vcd:alpha=1,beta=0.1,noise=500,seed=0`: against the picture after `noise` steps of forward diffusion.

    (1 + alpha) l - alpha l', among tokens of at least beta times the largest probability.
    """

    name = "vcd"

    alpha: Annotated[float, Range(0)] | None = None
    beta: Annotated[float, Range(0, 1)] = 0.1
    noise: Annotated[int, Range(0, STEPS - 1)] = 500
    seed: Annotated[int, Range(0)] = 0

    @property
    def media(self) -> frozenset[str]:
        return self.inner.media & {"image"}

    def other(self, session: Session) -> Prompt:
        check_kind(self.name, session, "image")
        kept = np.cumprod(1 - BETAS)[self.noise]

        def noised(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
            noise = np.random.default_rng(self.seed).standard_normal(pixels.shape, dtype=np.float32)
            mixed: NDArray[np.float32] = np.float32(np.sqrt(kept)) * pixels + np.float32(np.sqrt(1 - kept)) * noise
            return mixed

        return session.model.changed(session.prompt, "image", noised)

    def blend(self, model: Model) -> Blend:
        alpha = self.value(model, "alpha", 1.0)
        return lambda logits, other, _: plausible((1 + alpha) * logits - alpha * other, logits, self.beta)


@dataclass(frozen=True)
class AAD(Contrastive):
    """`aad:alpha=0.5`: (1 + alpha) l - alpha l', l' from silence as long as the sound."""

    name = "aad"

    alpha: Annotated[float, Range(0)] | None = None

    @property
    def media(self) -> frozenset[str]:
        return self.inner.media & {"audio"}

    def other(self, session: Session) -> Prompt:
        check_kind(self.name, session, "audio")
        return session.model.blank(session.prompt)

    def blend(self, model: Model) -> Blend:
        alpha = self.value(model, "alpha", 0.5)
        return lambda logits, other, _: (1 + alpha) * logits - alpha * other


@dataclass(frozen=True)
class M3ID(Contrastive):
    """`m3id:decay=0.02,beta=0.1`: against the prompt without the picture, more with every token.

    log p + ((1 - g) / g) (log p - log p'), g = exp(-decay t) at the t-th token, among tokens of at least beta times the
    largest probability.
    """

    name = "m3id"

    decay: Annotated[float, Range(0)] | None = None
    beta: Annotated[float, Range(0, 1)] = 0.1

    def other(self, session: Session) -> Prompt:
        return without_media(session)

    def blend(self, model: Model) -> Blend:
        decay = self.value(model, "decay", 0.02)

        def blended(logits: mx.array, other: mx.array, count: int) -> mx.array:
            # (1 - g) / g; the cap keeps a long answer finite.
            weight = min(math.expm1(min(decay * count, 50.0)), 1e6)
            return plausible(logits + weight * log_ratio(logits, other), logits, self.beta)

        return blended


@dataclass(frozen=True)
class PAI(Contrastive):
    """`pai:alpha=0.2,guidance=1.1,layers=...,beta=0.1`: attention to the picture grows, and the answer is guided.

    Before the softmax, the newest query's scores at the picture grow by alpha times their size; then guidance *
    (log p - log p') + log p', p' from the prompt without the picture, among tokens of at least beta times the largest
    probability.
    """

    name = "pai"

    alpha: Annotated[float, Range(0)] | None = None
    guidance: Annotated[float, Range(0)] | None = None
    layers: Layers | None = None
    beta: Annotated[float, Range(0, 1)] = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner == Plain():
            object.__setattr__(self, "inner", PaiAttention(self.alpha, self.layers, self.words))

    def other(self, session: Session) -> Prompt:
        return without_media(session)

    def blend(self, model: Model) -> Blend:
        more = self.value(model, "guidance", 1.1) - 1
        return lambda logits, other, _: plausible(logits + more * log_ratio(logits, other), logits, self.beta)


def log_ratio(logits: mx.array, other: mx.array) -> mx.array:
    """log p - log p' (V,), to be added to the logits, which are log p but for a constant."""
    return (logits - mx.logsumexp(logits)) - (other - mx.logsumexp(other))


def plausible(scores: mx.array, logits: mx.array, beta: float) -> mx.array:
    """The scores of tokens whose probability is at least beta times the largest; the others can not be picked.

    All are NaN where a score or a logit is not finite.
    """
    if beta == 0:
        return scores
    cut = mx.where(logits >= logits.max() + math.log(beta), scores, mx.finfo(mx.float32).min)
    return nan_unless_finite(cut, scores, logits)


def without_media(session: Session) -> Prompt:
    """The prompt without picture or sound and the tokens around it that belong to it."""
    return Prompt(session.prompt.input_ids[~session.modality])


def check_kind(name: str, session: Session, kind: str) -> None:
    """Raises `MethodError` where the prompt has a sound instead of a picture, or the other way round."""
    if kind not in {span.kind for span in session.model.spans(session.prompt)}:
        wanted, given = ("picture", "sound") if kind == "image" else ("sound", "picture")
        raise MethodError(f"{name} contrasts a {wanted}, but the prompt has a {given}; choose another method.")
