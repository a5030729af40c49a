"""A method that acts only on words that the user's and the system's texts did not bring in.

Methods that change attention or contrast logits act before the word is known. One plain forward more tells the likely
word; where that may not be judged, the token comes from what works inside the method, mostly plain decoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lime_mlx.cache import Edit
from lime_mlx.session import Session

from .base import Forward, PlainDecoding, Prepared, needs_media

# all: a method acts on every token, as published. unprompted: only on tokens that may be judged (Session.may_judge).
Words = Literal["all", "unprompted"]


def sparing(name: str, words: Words, method: Prepared, inner: Prepared | None = None) -> Prepared:
    """The method for these words. inner: what gives the other tokens; None is plain decoding."""
    return method if words == "all" else Sparing(name, method, inner or PlainDecoding())


@dataclass(frozen=True)
class Sparing(PlainDecoding):
    """`method` where the likely next token may be judged, `inner` elsewhere."""

    name: str
    method: Prepared
    inner: Prepared

    @property
    def caches(self) -> bool:
        return self.method.caches

    def edits(self, session: Session) -> Mapping[int, Edit]:
        return self.method.edits(session) if isinstance(self.method, PlainDecoding) else {}

    def step(self, session: Session) -> Forward:
        needs_media(self.name, session)
        return (self.method if session.may_judge(session.likely()) else self.inner).step(session)
