"""A method whose values are not finite gives way to plain decoding, for one token or for the rest of the answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np

from lime_mlx.errors import NumericalError
from lime_mlx.session import Session

from .base import Forward, PlainDecoding, Prepared

# After so many tokens in a row a method is off for the rest of the answer.
MOST = 3


@dataclass
class Guarded(Prepared):
    """A method made ready for one answer, which is watched.

    Where its logits or its relevance hold NaN or infinity, what it did for this token is taken back, in its branches,
    too, and the token is computed plainly. fault: what was not finite at the newest token; None where all was. row: how
    many tokens at the end had such a fault of the method.
    """

    name: str
    inner: Prepared
    fault: str | None = None
    row: int = 0

    @property
    def caches(self) -> bool:
        return self.inner.caches

    @property
    def off(self) -> bool:
        return self.row >= MOST

    def settled(self, session: Session) -> int:
        return len(session.generated) if self.off else self.inner.settled(session)

    def step(self, session: Session) -> Forward:
        """Raises `NumericalError` where plain logits are not finite, too."""
        self.fault = None
        if self.off or type(self.inner) is PlainDecoding:
            return self._without_bad_relevance(PlainDecoding().step(session))
        try:
            forward = self.inner.step(session)
            if _finite(forward.logits) and _has_finite_relevance(forward):
                self.row = 0
                return forward
            self.fault = f"The values of {self.name} are not finite."
        except NumericalError as error:
            self.fault = str(error)
        self.row += 1
        return self._without_bad_relevance(plain(session))

    def _without_bad_relevance(self, forward: Forward) -> Forward:
        """A plain forward; relevance that is not finite is left out, and is a fault."""
        if _has_finite_relevance(forward):
            return forward
        self.fault = self.fault or "The relevance is not finite."
        return replace(forward, relevance=None)


def plain(session: Session) -> Forward:
    """The plain forward of the newest position, where a method failed: without the entries that it left there.

    Where these were not the only bad ones, all entries are computed again.
    """
    session.rewind(0)
    forward = PlainDecoding().step(session)
    if not _finite(forward.logits):
        session.rewind(0)
        session.cache.trim(session.cache.offset)
        forward = PlainDecoding().step(session)
    return forward


def _finite(logits: mx.array) -> bool:
    return bool(mx.isfinite(logits).all().item())


def _has_finite_relevance(forward: Forward) -> bool:
    return forward.relevance is None or bool(np.isfinite(forward.relevance).all())
