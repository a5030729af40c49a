"""A second try for words that the detector flags: the same token of the answer once more, with exact LIME."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np

from lime_mlx.errors import MethodError, NumericalError
from lime_mlx.models.base import Model
from lime_mlx.session import Session
from lime_mlx.support.detector import Detector
from lime_mlx.support.statistics import from_logits, from_relevance

from .base import Forward, Method, Prepared, Wrapper
from .lime import Lime


@dataclass(frozen=True)
class Retry(Wrapper):
    """The token that `inner` would give next is tried again if it names something and is flagged.

    The second try is kept when its p_unsupported is lower. Needs a model that was calibrated; for an input that is not
    like those of the calibration, no token is tried again.
    """

    name = "retry"

    again: Method = field(default=Lime(mode="exact", gate=1.0, words="all"), kw_only=True)

    def prepare(self, model: Model) -> PreparedRetry:
        detector = Detector.from_config(model.config)
        if detector is None:
            raise MethodError(
                "Words can be tried again only with a model that was calibrated: lime-mlx evaluate --calibrate."
            )
        return PreparedRetry(self.inner.prepare(model), self.again.prepare(model), detector)


@dataclass(frozen=True)
class PreparedRetry(Prepared):
    """The second try made ready for a model."""

    inner: Prepared
    again: Prepared
    detector: Detector

    @property
    def caches(self) -> bool:
        return self.inner.caches

    def step(self, session: Session) -> Forward:
        if session.in_domain is False:
            return self.inner.step(session)
        wanted, session.want_relevance = session.want_relevance, True
        try:
            forward = self._better(session)
        finally:
            session.want_relevance = wanted
        return forward if wanted else replace(forward, relevance=None)

    def _better(self, session: Session) -> Forward:
        """The first try, or the second one where the first is flagged and the second is less so."""
        first = self.inner.step(session)
        p_unsupported = self._p_unsupported(session, first)
        if p_unsupported < self.detector.threshold:
            return first
        second = self.again.step(session)
        return second if self._p_unsupported(session, second) < p_unsupported else first

    def _p_unsupported(self, session: Session, forward: Forward) -> float:
        """Of the token that would be picked; 0 of one that names nothing, or a word of the question."""
        token = int(mx.argmax(session.scores(forward.logits)))
        if not session.may_judge(token):
            return 0.0
        assert forward.relevance is not None
        if not np.isfinite(forward.relevance).all():
            raise NumericalError("retry: the relevance of a word is not finite.")
        statistics = from_relevance(forward.relevance, session.modality)
        return self.detector.p_unsupported(statistics | from_logits(np.array(forward.logits), token))
