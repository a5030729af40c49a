"""FLB: first logit boosting, which adds the logits of the answer's first token to those of every later one.

Ha, Baek and So 2026, arXiv 2604.00455; the authors' code was read, too. At the t-th token, counted from 0, the score is
l_t + gamma (1 - exp(-rate t)) l_0, among tokens of at least beta times the largest probability under l_t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated

import mlx.core as mx

from lime_mlx.models.base import Model
from lime_mlx.session import Session
from lime_mlx.spec import Range

from .base import Forward, Prepared, Rescoring
from .contrastive import plausible


@dataclass(frozen=True)
class FLB(Rescoring):
    """`flb:gamma=0.3,rate=0.05,beta=0.1`: the logits of the first token are added to the later ones, more and more.

    gamma, rate (lambda): None takes the checkpoint's own value, else the paper's.
    """

    name = "flb"

    gamma: Annotated[float, Range(0)] | None = None
    rate: Annotated[float, Range(0)] | None = None
    beta: Annotated[float, Range(0, 1)] = 0.1

    def prepare(self, model: Model) -> FirstBoost:
        gamma, rate = self.value(model, "gamma", 0.3), self.value(model, "rate", 0.05)
        return FirstBoost(self.inner.prepare(model), gamma, rate, self.beta)


@dataclass
class FirstLogits:
    """The logits (V,) of the answer's first token, once they are known."""

    logits: mx.array | None = None

    def fork(self) -> FirstLogits:
        return FirstLogits(self.logits)

    def truncate(self, count: int) -> None:
        if count == 0:
            self.logits = None


@dataclass(frozen=True)
class FirstBoost(Prepared):
    """FLB made ready for a model."""

    inner: Prepared
    gamma: float
    rate: float
    beta: float

    @property
    def caches(self) -> bool:
        return self.inner.caches

    def step(self, session: Session) -> Forward:
        first = session.state.setdefault("flb", FirstLogits())
        assert isinstance(first, FirstLogits)
        weight = -self.gamma * math.expm1(-self.rate * len(session.generated))

        def boosted(logits: mx.array) -> mx.array:
            earlier = logits if first.logits is None else first.logits
            return plausible(logits + weight * earlier, logits, self.beta)

        with session.blending(boosted):
            forward = self.inner.step(session)
        if first.logits is None:
            first.logits = forward.logits
        return replace(forward, logits=boosted(forward.logits))
