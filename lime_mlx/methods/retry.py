"""A second try for words that the detector doubts: the same place of the answer once more, with exact LIME."""

from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np

from lime_mlx.errors import MethodError
from lime_mlx.methods.base import Forward, Method, Wrapper
from lime_mlx.session import Session
from lime_mlx.support.detector import Detector
from lime_mlx.support.statistics import from_logits, from_relevance

from .lime import Lime


@dataclass(frozen=True)
class Retry(Wrapper):
    """What `inner` would say next is taken back before it is said, if it names something and is doubted.

    The second try is kept when it is doubted less. Needs a model that was calibrated.
    """

    name = "retry"

    again: Method = field(default=Lime(mode="exact", gate=1.0, words="all"), kw_only=True)

    def prepare(self, model) -> "Retry":
        if Detector.from_config(model.config) is None:
            raise MethodError(
                "Words can be tried again only with a model that was calibrated: lime-mlx evaluate --calibrate."
            )
        return replace(self, inner=self.inner.prepare(model), again=self.again.prepare(model))

    def step(self, session: Session) -> Forward:
        detector, wanted = Detector.from_config(session.model.config), session.want_relevance
        session.want_relevance = True
        first = self.inner.step(session)
        if (doubt := self._doubt(session, first, detector)) >= detector.threshold:
            second = self.again.step(session)
            first = second if self._doubt(session, second, detector) < doubt else first
        session.want_relevance = wanted
        return first if wanted else replace(first, relevance=None)

    def _doubt(self, session: Session, forward: Forward, detector: Detector) -> float:
        """Of the token that would be picked; 0 of one that names nothing."""
        token = int(mx.argmax(session.scores(forward.logits)))
        if session.content is not None and not session.content[token]:
            return 0.0
        found = from_relevance(forward.relevance, session.modality)
        return detector.p_unsupported({**found, **from_logits(np.array(forward.logits), token)})
