"""A calibrated yes: an answer begins with yes where its margin over no is at least a threshold, found on validation.

Many models say yes too easily, or no. The threshold moves all answers one way, as a decision threshold of a classifier
does: it cannot make a model see more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import mlx.core as mx
import numpy as np

from lime_mlx.errors import MethodError
from lime_mlx.models.base import Model
from lime_mlx.session import Session
from lime_mlx.spec import Range

from .base import Forward, Prepared, Wrapper


@dataclass(frozen=True)
class YesNo(Wrapper):
    """`yesno:threshold=1.5`: the logits of yes are lowered by the threshold where an answer would begin with yes or no.

    threshold: in logits; None takes the model's own, which `lime-mlx evaluate --calibrate` finds.
    """

    name = "yesno"

    threshold: Annotated[float, Range(-1e3, 1e3)] | None = None

    def prepare(self, model: Model) -> PreparedYesNo:
        threshold = self.value(model, "threshold", float("nan"))
        if not np.isfinite(threshold):
            raise MethodError(
                "yesno needs a threshold, and this model has none of its own: run lime-mlx evaluate --calibrate, "
                "or write yesno:threshold=1.5."
            )
        return PreparedYesNo(self.inner.prepare(model), float(threshold))


@dataclass(frozen=True)
class PreparedYesNo(Prepared):
    """`yesno` made ready for a model."""

    inner: Prepared
    threshold: float

    @property
    def caches(self) -> bool:
        return self.inner.caches

    def settled(self, session: Session) -> int:
        return self.inner.settled(session)

    def step(self, session: Session) -> Forward:
        language = session.prompt.language
        if session.generated or language is None or not session.modality.any():
            return self.inner.step(session)
        yes, no = (np.zeros(session.decoder.config.vocab_size, dtype=np.float32) for _ in range(2))
        yes[list(language.yes_no.yes)] = 1
        no[list(language.yes_no.no)] = 1
        lowered, answers = mx.array(self.threshold * yes), mx.array(yes + no)

        def shifted(logits: mx.array) -> mx.array:
            return logits - answers[mx.argmax(logits)] * lowered

        with session.blending(shifted):
            forward = self.inner.step(session)
        return replace(forward, logits=shifted(forward.logits))
